//! A box: its disk, and in each of its incarnations a core with its driver.

mod leading;
mod talking;

use std::rc::Rc;

use tally_core::id::{LogIndex, NodeId, Term};
use tally_core::raft::{
    Body, Change, Configuration, Event as CoreEvent, Handled, Ignored, Leave, LogView, MemberRole,
    MembershipError, Message, Position, ProposeError, Role,
};
use tally_core::time::Instant;
use tallyd::site::entry;

use crate::checks::{self, Watched, membership, memory, transfer};
use crate::client::{Answer, Request, Waits};
use crate::cores::Core;
use crate::disk::{Disk, Snapshot, Write};
use crate::log::{Entry, Log, entries_of};
use crate::machine::Machine;
use crate::members;
use crate::network::Packet;
use crate::plan::Micros;
use crate::sim::{Event, Own, Sim};
use crate::trouble;

/// How often a leader looks after windows and summaries.
const HOUSEKEEPING_EVERY: Micros = 20_000;

/// A sync takes no longer, whatever ails the disk.
const SYNC_MAX: Micros = 700_000;

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) disk: Disk,
    pub(crate) boot: u64,
    pub(crate) paused_until: Micros,
    /// Its clock runs so many thousandths of the true speed.
    pub(crate) clock_permille: u64,
    /// Its wall clock is so far ahead.
    pub(crate) wall_ahead: Micros,
    /// The configuration that it began with.
    first: Configuration,
    pub(crate) incarnation: Option<Incarnation>,
}

/// What a crash takes away.
pub(crate) struct Incarnation {
    pub(crate) core: Box<dyn Core>,
    pub(crate) log: Log,
    pub(crate) machine: Machine,
    pub(crate) watched: Watched,
    /// Committed entries up to here were checked.
    pub(crate) checked: LogIndex,
    write: Option<Write>,
    waiters: Vec<Waits>,
    reads: Vec<Read>,
    led_reads: Vec<LedRead>,
    next_read: u64,
    wakes_at: Micros,
    keeps_house_at: Micros,
    taking_snapshot: bool,
    staging: u64,
    /// The snapshot that the log begins with, until the disk's log does too.
    installed: Option<Rc<Snapshot>>,
    /// What it proposed as a leader and has not committed, with the bytes.
    proposals: Vec<(LogIndex, u64)>,
}

/// A client's read at this box.
struct Read {
    id: u64,
    client: usize,
    read: u64,
    series: u64,
    /// What it must see, once the leader has said.
    index: Option<LogIndex>,
}

/// A read that this leader is to confirm.
struct LedRead {
    of: NodeId,
    read: u64,
    round: u64,
    index: LogIndex,
}

impl Node {
    pub(crate) fn new(id: NodeId, first: Configuration, clock_permille: u64) -> Node {
        let disk = Disk::default();
        Node { id, disk, boot: 0, paused_until: 0, clock_permille, wall_ahead: 0, first, incarnation: None }
    }

    pub(crate) fn local(&self, now: Micros) -> Instant {
        Instant(now * self.clock_permille / 1000)
    }

    pub(crate) fn start(&mut self, sim: &mut Sim) {
        assert!(self.incarnation.is_none());
        self.boot += 1;
        let config = sim.plan.config(self.id, sim.rng.next());
        let durable = self.disk.durable(&self.first);
        let core = (sim.cores.box_with)(config, durable, self.local(sim.now));
        let machine = match &self.disk.snapshot {
            Some(snapshot) => Machine::restore(&snapshot.bytes),
            None => Machine::new(),
        };
        let mut watched = Watched::default();
        watched.pre_votes.begin(&*core);
        if durable.snapshot.index > LogIndex::ZERO {
            sim.coverage.count("restarts from a snapshot");
        }
        sim.tell(|| format!("{} starts: {durable:?}", self.id));
        let log = Log::new(durable.snapshot, self.disk.log.entries().cloned());
        self.disk.log = log.clone();
        self.incarnation = Some(Incarnation {
            core,
            log,
            machine,
            watched,
            checked: durable.snapshot.index,
            write: None,
            waiters: Vec::new(),
            reads: Vec::new(),
            led_reads: Vec::new(),
            // As the daemon numbers them: a leader may still answer what an earlier incarnation asked.
            next_read: self.boot << 32,
            wakes_at: Micros::MAX,
            keeps_house_at: 0,
            taking_snapshot: false,
            staging: 0,
            installed: None,
            proposals: Vec::new(),
        });
        self.step(sim);
    }

    /// Power goes; what is not synced may be there, in part or not.
    pub(crate) fn crash(&mut self, sim: &mut Sim) {
        let Some(incarnation) = self.incarnation.take() else { return };
        sim.tell(|| format!("{} crashes", self.id));
        sim.coverage.count("crashes");
        sim.coverage.add("look-ups beyond the remembered runs", incarnation.log.look_ups.get());
        if incarnation.staging > 0 {
            sim.coverage.count("staged snapshots lost by a crash");
        }
        let leads = incarnation.core.role() == Role::Leader;
        if incarnation.core.last().index > incarnation.core.durable_index() {
            sim.coverage.count("crashes with unsynced writes");
            sim.coverage.add("leaders crashed with an unsynced tail", u64::from(leads));
        }
        if leads && incarnation.core.configuration().is_joint() {
            sim.coverage.count("joint configurations that a leader crashed in");
        }
        if let Some(write) = incarnation.write
            && self.disk.tear(&write, &mut sim.rng)
        {
            sim.coverage.count("groups torn by a crash");
        }
    }

    pub(crate) fn leads(&self) -> bool {
        self.incarnation.as_ref().is_some_and(|incarnation| incarnation.core.role() == Role::Leader)
    }

    pub(crate) fn request(&mut self, sim: &mut Sim, request: Request) {
        let (now, id) = (self.local(sim.now), self.id);
        let Some(incarnation) = &mut self.incarnation else { return };
        match request {
            Request::Apply { waits_for, body } => {
                incarnation.waiters.retain(|waits| waits.client != waits_for.client);
                incarnation.waiters.push(waits_for);
                if incarnation.core.role() == Role::Leader {
                    self.propose(sim, &body);
                } else if let Some(leader) = incarnation.core.leader() {
                    sim.send(id, leader, Packet::Propose(body));
                }
            }
            Request::Read { client, read, series } => {
                incarnation.next_read += 1;
                let own = incarnation.next_read;
                incarnation.reads.retain(|read| read.client != client);
                incarnation.reads.push(Read { id: own, client, read, series, index: None });
                if incarnation.core.role() == Role::Leader {
                    incarnation.lead_read(now, id, own);
                } else if let Some(leader) = incarnation.core.leader() {
                    sim.send(id, leader, Packet::ReadIndex { read: own });
                }
            }
        }
    }

    pub(crate) fn own(&mut self, sim: &mut Sim, what: Own) {
        let now = self.local(sim.now);
        let Some(incarnation) = &mut self.incarnation else { return };
        match what {
            Own::Wake => {
                incarnation.wakes_at = Micros::MAX;
                if incarnation.core.poll_timeout() <= now {
                    incarnation.core.handle_timeout(now);
                    incarnation.watched.check_quorum.holds(self.id, &*incarnation.core, now);
                }
            }
            Own::Synced => self.synced(sim),
            Own::Snapshotted(snapshot) => self.snapshotted(sim, snapshot),
            Own::Staged { from, message, snapshot } => self.staged(sim, from, &message, snapshot),
        }
    }

    /// The outstanding group is on disk, or the disk failed.
    fn synced(&mut self, sim: &mut Sim) {
        let now = self.local(sim.now);
        let Some(incarnation) = &mut self.incarnation else { return };
        let write = incarnation.write.take().expect("a group is outstanding");
        let ticket = write.persist.ticket;
        if self.disk.fails {
            sim.coverage.count("groups that failed");
            self.disk.tear(&write, &mut sim.rng);
            incarnation.core.handle_persist_failed(now, ticket);
        } else {
            if write.persist.truncate_after.is_some() {
                sim.coverage.count("logs truncated on disk");
            }
            self.disk.sync(&write);
            incarnation.core.handle_persisted(now, ticket);
        }
    }

    fn snapshotted(&mut self, sim: &mut Sim, snapshot: Rc<Snapshot>) {
        let Some(incarnation) = &mut self.incarnation else { return };
        let position = snapshot.last;
        incarnation.taking_snapshot = false;
        let is_newer = self.disk.snapshot.as_ref().is_none_or(|taken| taken.last.index < position.index);
        if !is_newer || incarnation.log.base.index >= position.index {
            return;
        }
        sim.coverage.count("snapshots taken");
        self.disk.snapshot = Some(snapshot);
        let begin = LogIndex(position.index.0.saturating_sub(sim.plan.keep_entries));
        if let Some(begin) = incarnation.log.get(begin).map(|entry| entry.position)
            && incarnation.core.compacted(begin)
        {
            incarnation.log.compact(begin);
            self.disk.log.compact(begin);
        }
    }

    /// What the core wants after an input, in the order that its documentation names.
    pub(crate) fn step(&mut self, sim: &mut Sim) {
        self.watch(sim);
        self.take_events(sim);
        self.take_messages(sim);
        self.take_persist(sim);
        self.apply(sim);
        self.keep_house(sim);
        self.confirm_reads(sim);
        self.take_snapshot(sim);
        self.set_timer(sim);
        if let Some(incarnation) =
            self.incarnation.as_ref().filter(|incarnation| incarnation.core.role() == Role::Leader)
        {
            sim.checks.leader_append_only.leads(
                self.id,
                self.boot,
                incarnation.core.term(),
                &incarnation.log,
            );
        }
    }

    fn watch(&mut self, sim: &Sim) {
        let now = self.local(sim.now);
        let Some(incarnation) = &mut self.incarnation else { return };
        incarnation.watched.check_quorum.look(&*incarnation.core, now);
        incarnation.watched.pre_votes.hold(self.id, &*incarnation.core);
    }

    fn take_events(&mut self, sim: &mut Sim) {
        while let Some(incarnation) = &mut self.incarnation
            && let Some(event) = incarnation.core.poll_event()
        {
            sim.tell(|| format!("{} {event:?}", self.id));
            match event {
                CoreEvent::BecameLeader { noop } => self.began_to_lead(sim, noop),
                CoreEvent::SteppedDown { .. } => {
                    sim.coverage.count("leaders that stepped down");
                    if incarnation.core.configuration().role(self.id) != Some(MemberRole::Voter) {
                        sim.coverage.count("removed leaders that stepped down");
                    }
                    sim.coverage.add("reads lost with a leadership", incarnation.led_reads.len() as u64);
                    incarnation.led_reads.clear();
                }
                CoreEvent::OwnEntry { entry, configuration } => {
                    let what = match configuration {
                        Some(_) => "joint configurations left by themselves",
                        None => "other replication sets",
                    };
                    sim.coverage.count(what);
                    if configuration.is_none() {
                        incarnation.watched.replication_set.changed(self.id, &*incarnation.core);
                    }
                    self.put_own(sim, entry, configuration);
                }
                CoreEvent::TransferFailed { .. } => sim.coverage.count("transfers that failed"),
                CoreEvent::LeaderChanged { .. } | CoreEvent::ConfigurationChanged(_) => {}
            }
        }
    }

    fn take_persist(&mut self, sim: &mut Sim) {
        let Some(incarnation) = &mut self.incarnation else { return };
        let Some(persist) = incarnation.core.poll_persist() else { return };
        assert!(incarnation.write.is_none(), "one group is outstanding at a time");
        sim.tell(|| format!("{} {persist:?}", self.id));
        let entries =
            persist.entries.map_or_else(Vec::new, |(first, last)| incarnation.log.range(first, last));
        let reset = persist.reset.map(|position| {
            let installed = incarnation.installed.clone().expect("a reset has its snapshot");
            assert_eq!(installed.last, position);
            installed
        });
        incarnation.write = Some(Write { persist, entries, reset });
        self.own_after(sim, 1, Own::Synced);
    }

    fn apply(&mut self, sim: &mut Sim) {
        let Some(incarnation) = &mut self.incarnation else { return };
        while incarnation.machine.applied() < incarnation.core.commit_index() {
            let index = incarnation.machine.applied().next();
            let entry = incarnation.log.get(index).expect("what is committed and not applied is in the log");
            checks::what_is_applied_is_committed(self.id, entry, &sim.checks.committed);
            let applied = incarnation.machine.apply(index, &entry.payload);
            sim.checks.digest_equality.applied(index, incarnation.machine.digest());
            sim.checks.site_times.applied(index, incarnation.machine.stamp());
            sim.checks.exactly_once.applied(index, &applied);
            incarnation.waiters.retain(|waits| {
                let answered = waits.is_answered_by(&applied);
                if answered {
                    answer(sim, waits.client, Answer::Applied(applied.clone()));
                }
                !answered
            });
        }
    }

    /// A leader closes windows, numbers summaries, publishes them and notes what was delivered: one entry
    /// at a time, at its ticks.
    fn keep_house(&mut self, sim: &mut Sim) {
        let wall = self.wall(sim.now);
        let Some(incarnation) = &mut self.incarnation else { return };
        let is_due = incarnation.core.role() == Role::Leader
            && incarnation.machine.applied() == incarnation.log.last().index;
        if !is_due || sim.now < incarnation.keeps_house_at {
            return;
        }
        incarnation.keeps_house_at = sim.now + HOUSEKEEPING_EVERY;
        let configuration = *incarnation.core.configuration();
        let (published, body) = incarnation.machine.housekeeping(wall);
        sim.checks.delivery.published(published);
        if let Some(body) = body {
            self.propose(sim, &body);
        }
        if configuration.is_joint()
            && !configuration.leaves_by_itself()
            && (sim.healed || sim.rng.chance(300))
        {
            self.leave_joint(sim);
        }
    }

    fn confirm_reads(&mut self, sim: &mut Sim) {
        let Some(incarnation) = &mut self.incarnation else { return };
        let confirmed = incarnation.core.read_confirmed();
        for led in incarnation.led_reads.extract_if(.., |led| led.round <= confirmed).collect::<Vec<_>>() {
            if led.of == self.id {
                incarnation.read_at(led.read, led.index);
            } else {
                sim.send(self.id, led.of, Packet::ReadAt { read: led.read, index: led.index });
            }
        }
        let applied = incarnation.machine.applied();
        incarnation.reads.retain(|read| {
            let served = read.index.is_some_and(|index| index <= applied);
            if served {
                let total = incarnation.machine.total(read.series);
                answer(sim, read.client, Answer::Total { read: read.read, total });
            }
            !served
        });
    }

    fn take_snapshot(&mut self, sim: &mut Sim) {
        let Some(incarnation) = &mut self.incarnation else { return };
        let last = self.disk.snapshot.as_ref().map_or(0, |snapshot| snapshot.last.index.0);
        let applied = incarnation.machine.applied();
        let is_due =
            applied.0 >= last + sim.plan.snapshot_every && applied <= incarnation.core.durable_index();
        if incarnation.taking_snapshot || !is_due {
            return;
        }
        let Some(position) = incarnation.log.position(applied) else { return };
        incarnation.taking_snapshot = true;
        let (bytes, configuration) = (incarnation.machine.snapshot(), incarnation.machine.configuration());
        let snapshot = Rc::new(Snapshot { last: position, bytes, configuration });
        self.own_after(sim, 3, Own::Snapshotted(snapshot));
    }

    fn set_timer(&mut self, sim: &mut Sim) {
        let Some(incarnation) = &mut self.incarnation else { return };
        let due = incarnation.core.poll_timeout();
        if due == Instant(u64::MAX) {
            return;
        }
        let due = (due.0 * 1000).div_ceil(self.clock_permille).max(sim.now);
        if due < incarnation.wakes_at {
            incarnation.wakes_at = due;
            sim.after(due - sim.now, Event::Own { node: self.id, boot: self.boot, what: Own::Wake });
        }
    }

    /// After as long as the disk takes for so many syncs.
    fn own_after(&mut self, sim: &mut Sim, syncs: u64, what: Own) {
        let hiccup = if sim.healed || !sim.rng.chance(20) { 1 } else { 100 };
        let sync = 50 + sim.rng.below(sim.plan.sync_max) * hiccup;
        let span = (sync * self.disk.slowness.max(1)).min(SYNC_MAX) * syncs;
        sim.after(span, Event::Own { node: self.id, boot: self.boot, what });
    }
}

impl Incarnation {
    fn put(&mut self, sim: &mut Sim, entry: Entry) {
        sim.checks.log_matching.put(self.log.last(), &entry);
        self.log.put(entry);
    }

    fn lead_read(&mut self, now: Instant, of: NodeId, read: u64) {
        if let Ok(granted) = self.core.read_index(now) {
            self.led_reads.push(LedRead { of, read, round: granted.round, index: granted.index });
        }
    }

    fn read_at(&mut self, read: u64, index: LogIndex) {
        if let Some(read) = self.reads.iter_mut().find(|own| own.id == read) {
            read.index = Some(index);
        }
    }
}

/// A client is on the same network: its answer may be late or lost.
fn answer(sim: &mut Sim, client: usize, answer: Answer) {
    if !sim.healed && sim.rng.chance(30) {
        return;
    }
    let delay = sim.network.delay(&mut sim.rng);
    sim.after(delay, Event::ToClient { client, answer });
}
