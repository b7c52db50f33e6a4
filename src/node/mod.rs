//! The one loop that drives the core: events in, persist, send, apply, timers. One task owns the
//! core, the log's tail, the batches and everybody who waits; other rooms reach it by a [`Handle`].

mod batches;
mod beat_wire;
mod beats;
#[cfg(test)]
mod clock_tests;
mod commands;
mod digests;
mod disk;
mod disk_health;
#[cfg(test)]
mod disk_tests;
mod handle;
mod handover;
mod heirs;
#[cfg(test)]
mod late_tests;
mod lateness;
mod leader_clock;
mod leaderless;
mod level;
mod members;
mod named;
mod pace;
mod peers;
mod proposals;
mod reads;
mod refused_cells;
mod report;
mod requests;
mod room;
mod site_time;
mod snapshot_transfer;
mod snapshots;
mod state_check;
pub mod status;
mod step;
mod stopping;
mod tail;
mod tolerance;
mod unsent;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tally_core::id::{LogIndex, NodeId, Term};
use tally_core::raft::{
    self, Config as RaftConfig, ConfigurationEntry, Durable, HardState, Position, Raft, SetupError,
};
use tally_core::time::{Duration as CoreDuration, Elapsed, Instant as CoreInstant};
use tally_core::window::Span;
use tokio::sync::{mpsc, oneshot, watch};

pub use handle::{BrokerWish, Handle, RoleView};
pub use heirs::HandoverReason;
pub(crate) use members::info_of;
pub use members::of_payload as configuration_in;
pub use named::encode_report;
pub(crate) use named::incarnation_hash;
pub use pace::PaceBounds;
pub use proposals::split as split_envelope;
pub use requests::{
    Add, Added, MemberError, NamedReport, ReportAmount, ReportCell, ReportError, ReportReading, RequestError,
    SetError, UNTIMED,
};
pub use snapshot_transfer::{Incoming, Taken};
pub use status::*;
pub use stopping::StopTimes;
pub(crate) use wire::{ToWitness, said_by_witness, said_to_witness};

use crate::accumulator::{Accumulator, Limits};
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::site::{Applied, Founding, Level, Site, SnapshotError};
use crate::storage::{FileSystem, Owner, Recovered, Storage, StorageMetrics};
use crate::transport::{Event, Transport};

use batches::Batches;
use beats::Beats;
use disk::{Disk, Done};
use disk_health::DiskHealth;
use handle::{Command, Shared};
use handover::Handover;
use leader_clock::LeaderClock;
use level::Levels;
use members::Members;
use pace::Pace;
use proposals::Proposals;
use reads::Reads;
use refused_cells::RefusedCells;
use report::complete_status;
use snapshots::Snapshots;
use state_check::StateCheck;
use stopping::{Saving, Stopping};
use tail::Tail;

/// How many requests may wait for the loop; beyond, they are told that the box is too busy.
const COMMANDS_MAX: usize = 16_384;

/// How the node behaves; the rest is agreed on by the site.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// For counts that nobody waits for.
    pub commit_interval: Duration,
    /// Without a leader for a timeout, up to twice as long, a box campaigns; within these bounds it
    /// follows what is measured.
    pub election_timeout: PaceBounds,
    /// A snapshot is written when the log since the last one has this many bytes, or more if that one
    /// is large: see `snapshots::due_bytes`.
    pub snapshot_log_bytes: u64,
    /// A disk that has not answered for so long counts as failed: a leader stands down. Far above
    /// the seconds that a card takes now and then.
    pub disk_hung_after: Duration,
}

impl Default for NodeConfig {
    fn default() -> NodeConfig {
        NodeConfig {
            commit_interval: Duration::from_secs(1),
            election_timeout: PaceBounds { min: Duration::from_millis(200), max: Duration::from_secs(10) },
            snapshot_log_bytes: 16 << 20,
            disk_hung_after: Duration::from_secs(10),
        }
    }
}

/// Why the node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What is on disk does not fit this site.
    #[error(
        "the snapshot on disk cannot be read in: {0}; restore this box from another one or from a backup"
    )]
    Snapshot(#[from] SnapshotError),
    /// The members or the log do not fit the core.
    #[error("the site's members or the log on disk do not fit: {0}")]
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
        "entry {index} of the site's log cannot be read ({why}): the site runs a newer version; update this box"
    )]
    Entry {
        /// Which.
        index: u64,
        /// Why.
        why: String,
    },
    /// The disk thread is gone.
    #[error("the disk thread ended; nothing more can be acknowledged; restart this box")]
    Disk,
}

/// The node's loop, ready to [`run`](Node::run).
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    config: NodeConfig,
    founding: Founding,
    started: Instant,
    raft: Raft,
    tail: Tail,
    hard_state: HardState,
    disk: Disk,
    storage_metrics: Arc<StorageMetrics>,
    transport: Option<Arc<Transport>>,
    connected: BTreeSet<NodeId>,
    batches: Batches,
    proposals: Proposals,
    here: HashMap<LogIndex, (Term, oneshot::Sender<Result<Applied, RequestError>>)>,
    reads: Reads,
    snapshots: Snapshots,
    state_check: StateCheck,
    leader_clock: LeaderClock,
    members: Members,
    levels: Levels,
    beats: Beats,
    /// The entry by which this leader has proposed to close windows: the next one waits until it is applied. No time is
    /// compared, since site time can be set back.
    close_proposed: LogIndex,
    role: watch::Sender<RoleView>,
    applied: watch::Sender<u64>,
    commands: mpsc::Receiver<Command>,
    disk_done: mpsc::UnboundedReceiver<Done>,
    transport_events: mpsc::Receiver<Event>,
    stopping: Option<Stopping>,
    /// The box is about to stop: those who wait are told by then what is known.
    answer_by: Option<Instant>,
    disk_health: DiskHealth,
    handover: Handover,
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
#[allow(missing_debug_implementations, reason = "a file system has no useful text")]
pub struct Parts<F: FileSystem> {
    /// Who this box is.
    pub identity: Identity,
    /// Its disk, and what was found on it.
    pub storage: Storage<F>,
    /// What was found.
    pub recovered: Recovered,
    /// Its way to the others; none in a site of one.
    pub transport: Option<Arc<Transport>>,
    /// What comes from the others.
    pub transport_events: mpsc::Receiver<Event>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// What the loop was woken by.
enum Came {
    Disk(Done),
    Event(Event),
    Command(Command),
    /// Time, or counts.
    Nothing,
}

impl Node {
    /// Puts a node together.
    pub fn new<F: FileSystem + 'static>(
        parts: Parts<F>,
        config: NodeConfig,
    ) -> Result<(Node, Handle), StartError> {
        let Parts { identity, storage, recovered, transport, transport_events, metrics } = parts;
        let founding = Founding {
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
        let started = Instant::now();
        let pace = Pace::new(config.election_timeout);
        let bytes_max = storage.stats().bytes_max;
        let raft = start_raft(&identity, &pace, &recovered, snapshot, &site, bytes_max)?;
        let members = Members::new(&identity, &site, &recovered.entries, started);
        let storage_metrics = storage.metrics();
        let mut batches = Batches::new(handle::random_u128(), config.commit_interval, started);
        let owner = Owner { site_id: identity.site_id.0, node: identity.node };
        unsent::resume(&storage, owner, &mut batches);
        let (disk, disk_done) = Disk::start(storage)?;
        let clock = Arc::new(leader_clock::begun(&site, &recovered.entries));
        let limits = Limits::of(&site);
        let leader_clock = LeaderClock::new(site.stamp(), CoreInstant(0));
        let applied_index = site.applied().0;
        let site = Arc::new(Mutex::new(site));
        let accumulator = Arc::new(Accumulator::new(clock.clone(), limits).asking(Arc::clone(&site)));
        let (command_sender, commands) = mpsc::channel(COMMANDS_MAX);
        let (role, role_receiver) = watch::channel(RoleView::default());
        let (applied, applied_receiver) = watch::channel(applied_index);
        let broker_wish = watch::Sender::new(BrokerWish::default());
        let shared = Arc::new(Shared {
            identity,
            site,
            accumulator,
            clock,
            metrics,
            transport_metrics: transport.as_ref().map(|transport| transport.metrics()).unwrap_or_default(),
            status: Mutex::default(),
            disk_ok: AtomicBool::new(true),
            state_ok: AtomicBool::new(true),
            leaderless: AtomicBool::new(false),
            broker: Mutex::default(),
            broker_wish,
            commands: command_sender,
            role: role_receiver,
            applied: applied_receiver,
        });
        let mut node = Node {
            started,
            raft,
            tail: Tail::new(snapshot, recovered.entries),
            hard_state: recovered.hard_state,
            disk,
            storage_metrics,
            transport,
            connected: BTreeSet::new(),
            batches,
            proposals: Proposals::default(),
            here: HashMap::new(),
            reads: Reads::new(recovered.boot),
            snapshots: Snapshots::new(snapshot.index, snapshot_bytes),
            state_check: StateCheck::default(),
            leader_clock,
            members,
            levels: Levels::default(),
            beats: Beats::new(pace, started),
            close_proposed: LogIndex::ZERO,
            role,
            applied,
            commands,
            disk_done,
            transport_events,
            stopping: None,
            answer_by: None,
            disk_health: DiskHealth::new(config.disk_hung_after),
            handover: Handover::default(),
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
        Ok((node, Handle::new(shared)))
    }

    /// Runs until it is told to stop (by [`Handle::stop`]) or cannot go on.
    pub async fn run(mut self) -> Result<(), NodeError> {
        self.step();
        while self.failed.is_none() && !self.may_leave() {
            let due = tokio::time::Instant::from_std(self.next_due());
            let came = tokio::select! {
                biased;
                done = self.disk_done.recv() => Came::Disk(done.ok_or(NodeError::Disk)?),
                Some(event) = self.transport_events.recv() => Came::Event(event),
                Some(command) = self.commands.recv() => Came::Command(command),
                () = self.shared.accumulator.woken() => Came::Nothing,
                () = tokio::time::sleep_until(due) => Came::Nothing,
            };
            // By what came, a leader that was late may hear that it leads no more.
            self.see_how_late();
            match came {
                Came::Disk(done) => self.on_disk(done),
                Came::Event(event) => self.on_transport(event),
                Came::Command(command) => self.on_command(command),
                Came::Nothing => {}
            }
            self.drain();
            self.step();
        }
        let failed = self.failed.take();
        // On the heap: the whole node goes along.
        Box::pin(self.leave()).await;
        failed.map_or(Ok(()), Err)
    }

    /// Takes in what else is ready, so that one step serves it all.
    fn drain(&mut self) {
        for _ in 0..COMMANDS_MAX {
            let mut any = false;
            if let Ok(done) = self.disk_done.try_recv() {
                self.on_disk(done);
                any = true;
            }
            if let Ok(event) = self.transport_events.try_recv() {
                self.on_transport(event);
                any = true;
            }
            if let Ok(command) = self.commands.try_recv() {
                self.on_command(command);
                any = true;
            }
            if !any {
                return;
            }
        }
    }

    fn now(&self) -> CoreInstant {
        CoreInstant(self.started.elapsed().as_micros() as u64)
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

fn start_raft(
    identity: &Identity,
    pace: &Pace,
    recovered: &Recovered,
    snapshot: Position,
    site: &Site,
    storage_bytes_max: u64,
) -> Result<Raft, SetupError> {
    let core = |span: Duration| CoreDuration(span.as_micros() as u64);
    let raft_config = RaftConfig {
        id: identity.node_id(),
        election_timeout: core(pace.timeout()),
        heartbeat_interval: core(pace.heartbeat()),
        seed: handle::random_u128() as u64,
        append_bytes_max: wire::APPEND_BYTES_MAX,
        inflight_bytes_max: room::inflight_bytes_max(storage_bytes_max),
        uncommitted_bytes_max: room::uncommitted_bytes_max(storage_bytes_max),
    };
    let base = match site.configuration() {
        Some(parts) => {
            let configuration = members::from_parts(parts).map_err(SetupError::Configuration)?;
            ConfigurationEntry { index: snapshot.index, configuration }
        }
        None => {
            let configuration = members::founding(identity).map_err(SetupError::Configuration)?;
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
