//! A simulated box: its disk, which survives crashes, and in each incarnation the shipped node with its storage.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tally_core::id::NodeId;
use tally_core::raft::Position;
use tallyd::clock::{Moment, TimeSource, Wall};
use tallyd::identity::{Identity, MemberRecord, SiteId};
use tallyd::metrics::Metrics;
use tallyd::node::{
    Command, DiskWorker, Done, Handle, Input, Job, Jobs, Next, Node, NodeConfig, NodeParts, TimeoutBounds,
    read_unsent,
};
use tallyd::random::Random;
use tallyd::storage::faulty::{Fault, FaultyFileSystem};
use tallyd::storage::{Entry, Options, Owner, Storage};
use tallyd::transport::{SeenIncarnations, TransportMetrics};
use tokio::sync::mpsc;

use crate::links::Outlet;
use crate::plan::{Micros, Plan};

pub(crate) const SITE_ID: SiteId = SiteId(0x5151);
/// The right time when a history begins, Unix microseconds.
pub(crate) const START_US: u64 = 20_000 * 86_400_000_000;
const DIR: &str = "/data";

/// A box over all of its incarnations.
#[derive(Debug)]
pub(crate) struct SimBox {
    pub(crate) id: NodeId,
    pub(crate) fs: FaultyFileSystem,
    identity: Identity,
    config: NodeConfig,
    options: Options,
    /// Its monotonic clock runs so many thousandths of the true speed.
    pub(crate) permille: u64,
    /// When the site stood still, and for how long.
    pub(crate) slept: Option<(Micros, Micros)>,
    /// Its wall clock is so many microseconds ahead.
    pub(crate) wall_ahead: i64,
    pub(crate) is_synced: bool,
    /// Whether it has a clock that goes on without power. One without begins each incarnation in 1970.
    has_clock: bool,
    pub(crate) paused_until: Micros,
    pub(crate) hangs_until: Micros,
    /// Syncs take so many times as long as usual.
    pub(crate) slowness: u64,
    /// Somebody has switched the box off for good.
    pub(crate) is_off: bool,
    /// What it has seen of witnesses. It is on its disk within milliseconds; here it is at once.
    pub(crate) seen: SeenIncarnations,
    /// How often the box was started.
    pub(crate) incarnations: u64,
    pub(crate) incarnation: Option<Incarnation>,
}

/// The part of a box that a crash takes away.
#[derive(Debug)]
pub(crate) struct Incarnation {
    pub(crate) number: u64,
    pub(crate) node: Node,
    pub(crate) handle: Handle,
    commands: mpsc::Receiver<Command>,
    inbox: std_mpsc::Receiver<Job>,
    jobs: VecDeque<Job>,
    worker: DiskWorker<FaultyFileSystem>,
    /// The node's log writes since the checks last looked.
    pub(crate) logged: Vec<Logged>,
    /// Whether the disk is at work.
    pub(crate) disk_works: bool,
    pub(crate) outlet: Arc<Outlet>,
    time: TimeSource,
    began: Micros,
    /// When the incarnation began, by its monotonic clock.
    born: Instant,
    permille: u64,
    /// Whether it was told to stop: the ways in are closed.
    pub(crate) is_stopping: bool,
    /// Whether it continues with batches that an earlier incarnation saved.
    pub(crate) has_unsent: bool,
    /// How often it has woken by itself since this time.
    pub(crate) woken: (Micros, u64),
    /// The time of the planned wake.
    pub(crate) wakes_at: Micros,
}

/// A write into a node's log.
#[derive(Debug)]
pub(crate) enum Logged {
    Entry(Position, Bytes),
    /// A snapshot, which replaces the whole log.
    Snapshot,
}

impl SimBox {
    pub(crate) fn new(plan: &Plan, identity: Identity, permille: u64, seed: u64) -> SimBox {
        SimBox {
            id: identity.node_id(),
            fs: FaultyFileSystem::new(seed),
            identity,
            config: NodeConfig {
                commit_interval: plan.commit_interval,
                election_timeout: TimeoutBounds {
                    min: Duration::from_millis(200),
                    max: Duration::from_secs(10),
                },
                snapshot_log_bytes: plan.snapshot_log_bytes,
                disk_hung_after: Duration::from_secs(2),
            },
            options: Options {
                segment_bytes: plan.segment_bytes,
                keep_entries: plan.keep_entries,
                keep_bytes: 4 * plan.segment_bytes,
                spare_segments: 1,
                bytes_max: 8 << 20,
            },
            permille,
            slept: None,
            has_clock: plan.has_clocks,
            wall_ahead: 0,
            is_synced: plan.has_clocks,
            paused_until: 0,
            hangs_until: 0,
            slowness: 1,
            is_off: false,
            seen: SeenIncarnations::default(),
            incarnations: 0,
            incarnation: None,
        }
    }

    /// Who it is, as it was provisioned.
    pub(crate) fn record(&self) -> &MemberRecord {
        self.identity.me()
    }

    pub(crate) fn leads(&self) -> bool {
        self.incarnation.as_ref().is_some_and(|incarnation| incarnation.handle.role().borrow().leads)
    }

    fn moment(&self, time: &TimeSource, began: Micros, now: Micros) -> Moment {
        let true_us = if self.has_clock { START_US + now } else { now - began };
        let wall_us = true_us.saturating_add_signed(self.wall_ahead);
        // Nobody's clock is off by minutes in an hour: while the site stands still they all run alike.
        let slept = self.slept.filter(|(at, _)| began <= *at).map_or(0, |(_, span)| span);
        let awake = now - began - slept;
        time.set(Duration::from_micros(awake * self.permille / 1000 + slept), wall_us);
        Moment { now: time.now(), wall: Wall { us: wall_us, synced: self.is_synced } }
    }

    /// Begins an incarnation; `false` if its disk does not let it.
    pub(crate) fn start(&mut self, now: Micros, seed: u64) -> bool {
        assert!(self.incarnation.is_none() && !self.is_off);
        let owner = Owner { site_id: SITE_ID.0, node: self.id.0 };
        let (storage, recovered) =
            match Storage::open(self.fs.clone(), Path::new(DIR), owner, self.options.clone()) {
                Ok(opened) => opened,
                Err(error) => {
                    tracing::error!("{error}");
                    if self.fs.is_down() {
                        self.fs.restart(true);
                    }
                    return false;
                }
            };
        self.incarnations += 1;
        let time = TimeSource::simulated();
        let moment = self.moment(&time, now, now);
        let outlet = Arc::<Outlet>::default();
        let (jobs, inbox) = Jobs::queue();
        let unsent = read_unsent(&storage, owner);
        let has_unsent = unsent.is_some();
        let parts = NodeParts {
            identity: self.identity.clone(),
            recovered,
            unsent,
            storage_metrics: storage.metrics(),
            jobs,
            links: Some(outlet.clone()),
            transport_metrics: Arc::<TransportMetrics>::default(),
            metrics: Arc::<Metrics>::default(),
            time: time.clone(),
            random: Random::seeded(seed),
        };
        let (mut node, commands, handle) =
            Node::new(parts, self.config.clone(), moment).expect("what a box wrote, it reads");
        node.step();
        self.incarnation = Some(Incarnation {
            number: self.incarnations,
            node,
            handle,
            commands,
            inbox,
            jobs: VecDeque::new(),
            worker: DiskWorker::new(storage),
            logged: Vec::new(),
            disk_works: false,
            outlet,
            born: time.now(),
            time,
            began: now,
            permille: self.permille,
            is_stopping: false,
            has_unsent,
            woken: (now, 0),
            wakes_at: Micros::MAX,
        });
        true
    }

    /// Wakes the node, gives it what came, and has it do what follows.
    pub(crate) fn step(&mut self, now: Micros, input: Option<Input>) {
        let Some(incarnation) = &self.incarnation else { return };
        let moment = self.moment(&incarnation.time, incarnation.began, now);
        let Some(incarnation) = &mut self.incarnation else { return };
        incarnation.node.wake(moment);
        if let Some(input) = input {
            incarnation.node.take(input);
        }
        while let Ok(command) = incarnation.commands.try_recv() {
            incarnation.node.take(Input::Command(command));
        }
        incarnation.node.step();
        incarnation.take_jobs();
    }

    /// Sets what the rooms beside the node see of the time.
    pub(crate) fn tell_time(&self, now: Micros) {
        if let Some(incarnation) = &self.incarnation {
            self.moment(&incarnation.time, incarnation.began, now);
        }
    }

    /// The node has come to its end by itself; whether it saved what it had.
    pub(crate) fn leave(&mut self) -> bool {
        let mut is_saved = true;
        if let Some(incarnation) = self.incarnation.take() {
            let Incarnation { node, mut worker, inbox, mut jobs, .. } = incarnation;
            is_saved = !node.finish().lost;
            // The disk does what it was asked for before.
            jobs.extend(inbox.try_iter());
            jobs.into_iter().for_each(|job| drop(worker.work(Some(job))));
        }
        self.fs.restart(false);
        is_saved
    }

    /// The process is gone, and with the power what was not synced.
    pub(crate) fn end(&mut self, power_lost: bool) {
        self.incarnation = None;
        self.fs.restart(power_lost);
    }

    /// Power fails in the middle of one of the next operations of its disk.
    pub(crate) fn plan_crash(&self, operations: u32) {
        self.fs.fail_after(operations, Fault::Crash);
    }
}

impl Incarnation {
    /// When the node must be woken, in true time.
    pub(crate) fn due(&self, now: Micros) -> Micros {
        self.true_time(now, self.node.due())
    }

    /// A time of its monotonic clock, in true time; not before the next moment.
    pub(crate) fn true_time(&self, now: Micros, at: Instant) -> Micros {
        let local = at.saturating_duration_since(self.time.now());
        let local = u64::try_from(local.as_micros()).unwrap_or(u64::MAX >> 20).min(u64::MAX >> 20);
        now + (local * 1000).div_ceil(self.permille).max(1)
    }

    /// The time of its monotonic clock.
    pub(crate) fn local_now(&self) -> Instant {
        self.time.now()
    }

    /// Its age by that clock.
    pub(crate) fn local_age(&self) -> Duration {
        self.time.now().saturating_duration_since(self.born)
    }

    fn take_jobs(&mut self) {
        for job in self.inbox.try_iter() {
            if let Job::Write { group, .. } | Job::Install { group, .. } = &job {
                if matches!(job, Job::Install { .. }) {
                    self.logged.push(Logged::Snapshot);
                }
                let entry = |entry: &Entry| Logged::Entry(entry.position, entry.payload.clone());
                self.logged.extend(group.entries.iter().map(entry));
            }
            self.jobs.push_back(job);
        }
    }

    /// Whether the disk has something to do.
    pub(crate) fn has_jobs(&self) -> bool {
        !self.jobs.is_empty() || self.worker.next() != Next::Job
    }

    /// Does the disk's next job, if there is one; what to tell the node when that is done.
    pub(crate) fn work(&mut self) -> Option<Vec<Done>> {
        let job = match self.worker.next() {
            Next::Job => Some(self.jobs.pop_front()?),
            Next::JobOrPiece => self.jobs.pop_front(),
            Next::Piece => None,
        };
        Some(self.worker.work(job).into_iter().flatten().collect())
    }
}
