//! The driver of the core, as a deterministic state machine. It is woken with the time, takes its inputs, and does in
//! one step everything that follows. It owns the core, the log's tail, the batches and all waiters; other rooms reach
//! it by a [`Handle`].
//!
//! It never blocks and uses the time of its wake; only what shows site time to others reads a clock. Work outside goes
//! to others: jobs to the disk's queue ([`Jobs`]), frames to the [`Links`], answers to their channels. A [`Runner`]
//! wakes it in the daemon, a simulation in the tests.

mod adaptive_timeout;
mod batches;
#[cfg(test)]
mod clock_tests;
mod commands;
mod digests;
mod disk;
mod disk_health;
#[cfg(test)]
mod disk_tests;
mod fault_tolerance;
mod handle;
mod heartbeat_wire;
mod heartbeats;
mod instants;
mod joining;
#[cfg(test)]
mod late_tests;
mod lateness;
mod leader_clock;
mod leaderless;
mod level;
mod links;
mod members;
#[cfg(test)]
mod members_told_tests;
mod named;
mod peers;
mod proposals;
mod reads;
mod refused_cells;
mod report;
mod room;
mod runner;
mod shared;
mod site_time;
mod snapshot_transfer;
mod snapshots;
mod state_check;
pub mod status;
mod step;
mod stopping;
mod successors;
mod tail;
mod timers;
mod tokens;
mod transfers;
mod unsent;
mod verdict;
mod votes;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tally_core::id::{LogIndex, NodeId, Term};
use tally_core::raft::{
    self, Config as RaftConfig, Configuration, ConfigurationEntry, Durable, HardState, Position, Raft,
    SetupError,
};
use tally_core::time::{Duration as CoreDuration, Elapsed, Instant as CoreInstant};
use tally_core::window::Span;
use tokio::sync::{Notify, mpsc, oneshot, watch};

pub use adaptive_timeout::TimeoutBounds;
pub use disk::{DiskWorker, Done, Job, Jobs, Next};
pub use disk_health::DiskFault;
pub use handle::Handle;
pub use links::Links;
pub use members::of_payload as configuration_in;
pub use named::encode_report;
pub use runner::{Runner, RunnerParts};
pub use shared::{BrokerWish, Command, RoleView};
pub use snapshot_transfer::{Incoming, Taken};
pub use status::*;
pub use stopping::{StopTimes, StoppedNode};
pub use successors::TransferReason;
pub use unsent::{Unsent, read_unsent};
pub use verdict::Verdict;
pub(crate) use wire::{ToWitness, decode_to_witness, encode_from_witness};

use crate::accumulator::{Accumulator, Limits};
use crate::clock::{Moment, SiteClock, TimeSource};
use crate::deliberate::{self, Bug};
use crate::figures::Counter;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::random::Random;
use crate::request::RequestError;
use crate::site::{Applied, BootstrapSettings, Level, Site, SnapshotError};
use crate::storage::{Recovered, StorageMetrics};
use crate::transport::{Event, TransportMetrics};

use adaptive_timeout::AdaptiveTimeout;
use batches::Batches;
use disk_health::DiskHealth;
use heartbeats::Heartbeats;
use joining::Gathered;
use leader_clock::LeaderClock;
use level::Levels;
use members::Members;
use proposals::Proposals;
use reads::Reads;
use refused_cells::RefusedCells;
use report::complete_status;
use shared::NodeShared;
use snapshots::Snapshots;
use state_check::StateCheck;
use stopping::{Saving, Stopping};
use tail::Tail;
use transfers::LeadershipTransfers;

/// How many requests may wait for the loop; beyond, they are told that the box is too busy.
const COMMANDS_MAX: usize = 16_384;

/// How the node behaves; the rest is agreed on by the site.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// For counts that nobody waits for.
    pub commit_interval: Duration,
    /// Without a leader for a timeout, up to twice as long, a box campaigns; within these bounds it
    /// follows what is measured.
    pub election_timeout: TimeoutBounds,
    /// A snapshot is written when the log since the last one has this many bytes, or more if that one
    /// is large: see `snapshots::due_bytes`.
    pub snapshot_log_bytes: u64,
    /// A disk that has not answered for so long counts as failed: a leader steps down. Far above
    /// the seconds that a card takes now and then.
    pub disk_hung_after: Duration,
}

impl Default for NodeConfig {
    fn default() -> NodeConfig {
        NodeConfig {
            commit_interval: Duration::from_secs(1),
            election_timeout: TimeoutBounds { min: Duration::from_millis(200), max: Duration::from_secs(10) },
            snapshot_log_bytes: 16 << 20,
            disk_hung_after: Duration::from_secs(10),
        }
    }
}

/// Why the node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What is on disk does not fit this site.
    #[error("the snapshot on disk cannot be installed: {0}; replace this box, or restore it from a backup")]
    Snapshot(#[from] SnapshotError),
    /// The members or the log do not fit the core.
    #[error("the members of the site and the log on disk do not match: {0}")]
    Setup(#[from] SetupError),
    /// No thread for the disk.
    #[error("cannot start the disk thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Why the node stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// An entry that this program cannot read.
    #[error(
        "entry {index} of the site's log cannot be decoded ({why}): the site runs a newer version; update \
         this box"
    )]
    Entry {
        /// Which.
        index: u64,
        /// Why.
        why: String,
    },
    /// The disk thread is gone.
    #[error("the disk thread ended; this box acknowledges nothing more; restart it")]
    Disk,
}

/// What comes to the node.
#[derive(Debug)]
pub enum Input {
    /// The disk has done a job.
    Disk(Done),
    /// Another box, or the connection to it.
    Links(Event),
    /// Another room of this box.
    Command(Command),
}

/// The node: see the head of this file.
#[derive(Debug)]
pub struct Node {
    shared: Arc<NodeShared>,
    config: NodeConfig,
    founding: BootstrapSettings,
    started: Instant,
    /// What time it is, as of the last wake.
    moment: Moment,
    random: Random,
    raft: Raft,
    tail: Tail,
    hard_state: HardState,
    disk: Jobs,
    storage_metrics: Arc<StorageMetrics>,
    links: Option<Arc<dyn Links>>,
    connected: BTreeSet<NodeId>,
    batches: Batches,
    proposals: Proposals,
    /// What nobody waits for, at a leader.
    gathered: Gathered,
    local_proposals: HashMap<LogIndex, (Term, oneshot::Sender<Result<Applied, RequestError>>)>,
    reads: Reads,
    snapshots: Snapshots,
    state_check: StateCheck,
    leader_clock: LeaderClock,
    members: Members,
    levels: Levels,
    heartbeats: Heartbeats,
    /// The entry by which this leader has proposed to close windows: the next one waits until it is applied. No time is
    /// compared, since site time can be set back.
    close_proposed: LogIndex,
    role: watch::Sender<RoleView>,
    applied: watch::Sender<u64>,
    stopping: Option<Stopping>,
    /// The box is about to stop: those who wait are told by then what is known.
    answer_by: Option<Instant>,
    /// Whether a stop, in progress or to come, waits for nothing.
    hurries: bool,
    disk_health: DiskHealth,
    transfers: LeadershipTransfers,
    /// Since when nothing that is proposed here gets to a leader.
    leaderless_since: Option<Instant>,
    /// The term in which this box campaigned last.
    campaigned: Term,
    refused_cells: RefusedCells,
    /// Followers for whom the disk is reading entries.
    reading: BTreeSet<NodeId>,
    /// Which commit other boxes wait for: what they proposed last.
    tell_commit: BTreeMap<NodeId, LogIndex>,
    /// Elapsed time of the last tick that this leader proposed.
    ticked: Elapsed,
    status_at: Option<Instant>,
    /// How many jumps of meters were held when that was told last.
    jumps_held: usize,
    failed: Option<NodeError>,
}

/// What a node is made of.
#[derive(Debug)]
pub struct NodeParts {
    /// Who this box is.
    pub identity: Identity,
    /// What was found on its disk.
    pub recovered: Recovered,
    /// What an earlier incarnation left to be sent, if it left anything.
    pub unsent: Option<Unsent>,
    /// What its storage counts.
    pub storage_metrics: Arc<StorageMetrics>,
    /// Where jobs for the disk go.
    pub jobs: Jobs,
    /// Its way to the others; none in a site of one.
    pub links: Option<Arc<dyn Links>>,
    /// What the connections to the other boxes count.
    pub transport_metrics: Arc<TransportMetrics>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What the rooms that count here go by.
    pub time: TimeSource,
    /// For nonces and tags.
    pub random: Random,
}

impl Node {
    /// Puts a node together, at this time; and where the commands of its handles come out.
    ///
    /// # Errors
    /// What is on disk does not fit the site.
    pub fn new(
        parts: NodeParts,
        config: NodeConfig,
        moment: Moment,
    ) -> Result<(Node, mpsc::Receiver<Command>, Handle), StartError> {
        let NodeParts { identity, recovered, storage_metrics, .. } = &parts;
        let founding = BootstrapSettings {
            site: identity.site.clone(),
            site_id: identity.site_id.0,
            base_span: Span::from_millis(identity.window_ms).unwrap_or(Span::DEFAULT),
            // A loaded identity was checked.
            level: Level::new(identity.level).unwrap_or(Level::ONE),
        };
        let (site, snapshot, snapshot_bytes) = match &recovered.snapshot {
            Some((position, bytes)) => (Site::restore(&founding, bytes)?, *position, bytes.len() as u64),
            None => (Site::new(&founding), Position::ZERO, 0),
        };
        // A large snapshot takes a while to be read in.
        let moment = Moment { now: parts.time.now(), ..moment };
        let started = moment.now;
        let adaptive = AdaptiveTimeout::new(config.election_timeout);
        let bytes_max = storage_metrics.bytes_max.load(Ordering::Relaxed);
        let seed = parts.random.next_u64();
        let raft = start_raft(identity, &adaptive, recovered, snapshot, &site, (bytes_max, seed))?;
        let members = Members::new(identity, &site, &recovered.entries, started);
        let mut batches = Batches::new(parts.random.next_u128(), config.commit_interval, started);
        if let Some(unsent) = parts.unsent {
            batches.resume(unsent);
        }
        let leader_clock = LeaderClock::new(site.stamp(), CoreInstant(0));
        let NodeParts {
            identity,
            recovered,
            storage_metrics,
            jobs,
            links,
            transport_metrics,
            metrics,
            time,
            random,
            ..
        } = parts;
        let clock = Arc::new(leader_clock::clock_at_start(&site, &recovered.entries, time));
        let (shared, commands, watched) = share(identity, site, clock, metrics, transport_metrics);
        let mut node = Node {
            started,
            moment,
            random,
            raft,
            tail: Tail::new(snapshot, recovered.entries),
            hard_state: recovered.hard_state,
            disk: jobs,
            storage_metrics,
            links,
            connected: BTreeSet::new(),
            batches,
            proposals: Proposals::default(),
            gathered: Gathered::default(),
            local_proposals: HashMap::new(),
            reads: Reads::new(recovered.boot),
            snapshots: Snapshots::new(snapshot.index, snapshot_bytes),
            state_check: StateCheck::default(),
            leader_clock,
            members,
            levels: Levels::default(),
            heartbeats: Heartbeats::new(adaptive, started),
            close_proposed: LogIndex::ZERO,
            role: watched.0,
            applied: watched.1,
            stopping: None,
            answer_by: None,
            hurries: false,
            disk_health: DiskHealth::new(config.disk_hung_after),
            transfers: LeadershipTransfers::default(),
            leaderless_since: None,
            campaigned: Term(0),
            refused_cells: RefusedCells::default(),
            reading: BTreeSet::new(),
            tell_commit: BTreeMap::new(),
            ticked: Elapsed(0),
            status_at: None,
            jumps_held: 0,
            failed: None,
            founding,
            config,
            shared: shared.clone(),
        };
        node.know_members();
        node.connect_members();
        Ok((node, commands, Handle::new(shared)))
    }

    /// Sets the time until the next wake.
    pub fn wake(&mut self, moment: Moment) {
        self.moment = moment;
        // By what came, a leader that was late may hear that it leads no more.
        self.measure_lateness();
    }

    /// Reads the time again, after something in this step took long.
    pub(super) fn renew_time(&mut self) {
        self.moment.now = self.shared.clock.now();
    }

    /// Takes something in; a [`step`](Self::step) follows before the next wake.
    pub fn take(&mut self, input: Input) {
        match input {
            Input::Disk(done) => self.on_disk(done),
            Input::Links(event) => self.on_transport(event),
            Input::Command(command) => self.on_command(command),
        }
    }

    /// Whether the site has judged all that this box has frozen into batches.
    pub fn is_settled(&self) -> bool {
        self.batches.is_settled()
    }

    /// Whether all of this box's log is committed and applied here.
    pub fn has_applied_all(&self) -> bool {
        self.raft.last().index == self.site().applied()
    }

    /// Up to where this box calls its log committed.
    pub fn commit_index(&self) -> LogIndex {
        self.raft.commit_index()
    }

    /// The election timeout that this box goes by.
    pub fn election_timeout(&self) -> Duration {
        Duration::from_micros(self.raft.timeouts().0.0)
    }

    /// The configuration of the group that this box goes by, and where it stands in the log.
    pub fn configuration(&self) -> (LogIndex, &Configuration) {
        (self.raft.configuration_index(), self.raft.configuration())
    }

    fn now(&self) -> CoreInstant {
        CoreInstant(self.moment.now.saturating_duration_since(self.started).as_micros() as u64)
    }

    fn site(&self) -> MutexGuard<'_, Site> {
        // A panic while it was held would have ended the process.
        self.shared.site.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leads(&self) -> bool {
        self.raft.role() == raft::Role::Leader
    }

    /// Whether what is proposed now can get to a leader, and what comes of it be told by this box.
    fn leader_term(&self) -> Option<Term> {
        if self.state_check.is_out() {
            return None;
        }
        let leader = self.raft.leader()?;
        let reachable = self.leads() || self.connected.contains(&leader);
        reachable.then(|| self.raft.term())
    }
}

/// What the node shares with its handles; where their commands come out; and where it shows its role and what it
/// applied.
#[allow(clippy::type_complexity, reason = "it is taken apart where it is called")]
fn share(
    identity: Identity,
    site: Site,
    clock: Arc<SiteClock>,
    metrics: Arc<Metrics>,
    transport_metrics: Arc<TransportMetrics>,
) -> (Arc<NodeShared>, mpsc::Receiver<Command>, (watch::Sender<RoleView>, watch::Sender<u64>)) {
    let limits = Limits::of(&site);
    let (command_sender, commands) = mpsc::channel(COMMANDS_MAX);
    let (role, role_receiver) = watch::channel(RoleView::default());
    let (applied, applied_receiver) = watch::channel(site.applied().0);
    let site = Arc::new(Mutex::new(site));
    let accumulator = Arc::new(Accumulator::new(clock.clone(), limits).asking(Arc::clone(&site)));
    let shared = NodeShared {
        identity,
        site,
        accumulator,
        clock,
        metrics,
        transport_metrics,
        status: Mutex::default(),
        disk_ok: AtomicBool::new(true),
        state_ok: AtomicBool::new(true),
        leaderless: AtomicBool::new(false),
        broker: Mutex::default(),
        broker_wish: watch::Sender::new(BrokerWish::default()),
        commands: command_sender,
        rounds: Counter::default(),
        status_changed: Notify::new(),
        role: role_receiver,
        applied: applied_receiver,
    };
    (Arc::new(shared), commands, (role, applied))
}

fn start_raft(
    identity: &Identity,
    adaptive: &AdaptiveTimeout,
    recovered: &Recovered,
    snapshot: Position,
    site: &Site,
    (storage_bytes_max, seed): (u64, u64),
) -> Result<Raft, SetupError> {
    let core = |span: Duration| CoreDuration(span.as_micros() as u64);
    let raft_config = RaftConfig {
        id: identity.node_id(),
        election_timeout: core(adaptive.timeout()),
        heartbeat_interval: core(adaptive.heartbeat()),
        seed,
        append_bytes_max: wire::APPEND_BYTES_MAX,
        inflight_bytes_max: room::inflight_bytes_max(storage_bytes_max),
        uncommitted_bytes_max: room::uncommitted_bytes_max(storage_bytes_max),
    };
    let base = match site.configuration().filter(|_| !deliberate::is(Bug::GoesByFounders)) {
        Some(parts) => {
            let configuration = members::from_parts(parts).map_err(SetupError::Configuration)?;
            ConfigurationEntry { index: snapshot.index, configuration }
        }
        None => {
            let configuration =
                members::founding_configuration(identity).map_err(SetupError::Configuration)?;
            ConfigurationEntry { index: LogIndex::ZERO, configuration }
        }
    };
    let (configuration, previous_configuration) =
        members::latest(base, &recovered.entries).map_err(SetupError::Configuration)?;
    let durable = Durable {
        hard_state: recovered.hard_state,
        snapshot,
        last: recovered.last,
        configuration,
        previous_configuration,
    };
    Raft::new(raft_config, durable, CoreInstant(0))
}
