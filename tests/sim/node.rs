//! A box: its disk, and in each of its lives a core with its driver.

use std::rc::Rc;

use tally_core::id::{LogIndex, NodeId};
use tally_core::raft::{Body, Event as CoreEvent, Handled, Ignored, LogView, Message, Position, Raft, Role};
use tally_core::time::Instant;

use crate::checks::what_is_said_is_durable;
use crate::client::{Answer, Request, Waits};
use crate::disk::{Disk, Write};
use crate::log::{Entry, Log, entries_of};
use crate::machine::Machine;
use crate::network::Packet;
use crate::plan::Micros;
use crate::sim::{Event, Own, Sim};
use crate::trouble;

/// How often a leader looks after windows and summaries.
const HOUSEKEEPING_EVERY: Micros = 20_000;

/// A sync takes no longer, whatever ails the disk.
const SYNC_MAX: Micros = 700_000;

/// A core that remembers few runs, so that it has to ask.
pub(crate) type Core = Raft<6, 3>;

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) disk: Disk,
    pub(crate) boot: u64,
    pub(crate) paused_until: Micros,
    /// Its clock runs so many thousandths of the true speed.
    pub(crate) clock_permille: u64,
    pub(crate) life: Option<Life>,
}

/// What a crash takes away.
pub(crate) struct Life {
    pub(crate) core: Core,
    pub(crate) log: Log,
    pub(crate) machine: Machine,
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
    installed: Option<(Position, Rc<[u8]>)>,
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
    pub(crate) fn new(id: NodeId, clock_permille: u64) -> Node {
        Node { id, disk: Disk::default(), boot: 0, paused_until: 0, clock_permille, life: None }
    }

    pub(crate) fn local(&self, now: Micros) -> Instant {
        Instant(now * self.clock_permille / 1000)
    }

    pub(crate) fn start(&mut self, sim: &mut Sim) {
        assert!(self.life.is_none());
        self.boot += 1;
        let config = sim.plan.config(self.id, sim.rng.next());
        let durable = self.disk.durable(sim.plan.configuration());
        let core = Core::new(config, durable, self.local(sim.now)).expect("a durable state starts");
        let machine = match &self.disk.snapshot {
            Some((_, bytes)) => Machine::restore(bytes),
            None => Machine::new(),
        };
        if durable.snapshot.index > LogIndex::ZERO {
            sim.coverage.count("restarts from a snapshot");
        }
        sim.tell(|| format!("{} starts: {durable:?}", self.id));
        let log = Log::new(durable.snapshot, self.disk.log.entries().cloned());
        self.disk.log = log.clone();
        self.life = Some(Life {
            core,
            log,
            machine,
            checked: durable.snapshot.index,
            write: None,
            waiters: Vec::new(),
            reads: Vec::new(),
            led_reads: Vec::new(),
            next_read: 0,
            wakes_at: Micros::MAX,
            keeps_house_at: 0,
            taking_snapshot: false,
            staging: 0,
            installed: None,
        });
        self.step(sim);
    }

    /// Power goes; what is not synced may be there, in part or not.
    pub(crate) fn crash(&mut self, sim: &mut Sim) {
        let Some(life) = self.life.take() else { return };
        sim.tell(|| format!("{} crashes", self.id));
        sim.coverage.count("crashes");
        sim.coverage.add("look-ups beyond the remembered runs", life.log.look_ups.get());
        if life.staging > 0 {
            sim.coverage.count("staged snapshots lost by a crash");
        }
        if life.core.last().index > life.core.durable_index() {
            sim.coverage.count("crashes with unsynced writes");
        }
        if let Some(write) = life.write
            && self.disk.tear(&write, &mut sim.rng)
        {
            sim.coverage.count("groups torn by a crash");
        }
    }

    pub(crate) fn leads(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.core.role() == Role::Leader)
    }

    pub(crate) fn packet(&mut self, sim: &mut Sim, from: NodeId, packet: Packet) {
        let now = self.local(sim.now);
        let Some(life) = &mut self.life else { return };
        match packet {
            Packet::Raft { message, entries, snapshot: None } => self.message(sim, from, &message, entries),
            Packet::Raft { message, snapshot: Some((position, bytes)), .. } => {
                life.staging += 1;
                let what = Own::Staged { from, message, position, bytes };
                self.own_after(sim, 10, what);
            }
            Packet::Propose(body) => {
                life.core.request_heartbeat(from);
                propose(life, sim, now, &body);
            }
            Packet::ReadIndex { read } => life.lead_read(now, from, read),
            Packet::ReadAt { read, index } => life.read_at(read, index),
        }
        self.step(sim);
    }

    pub(crate) fn request(&mut self, sim: &mut Sim, request: Request) {
        let (now, id) = (self.local(sim.now), self.id);
        let Some(life) = &mut self.life else { return };
        match request {
            Request::Apply { waits_for, body } => {
                life.waiters.retain(|waits| waits.client != waits_for.client);
                life.waiters.push(waits_for);
                if life.core.role() == Role::Leader {
                    propose(life, sim, now, &body);
                } else if let Some(leader) = life.core.leader() {
                    sim.send(id, leader, Packet::Propose(body));
                }
            }
            Request::Read { client, read, series } => {
                life.next_read += 1;
                let own = life.next_read;
                life.reads.retain(|read| read.client != client);
                life.reads.push(Read { id: own, client, read, series, index: None });
                if life.core.role() == Role::Leader {
                    life.lead_read(now, id, own);
                } else if let Some(leader) = life.core.leader() {
                    sim.send(id, leader, Packet::ReadIndex { read: own });
                }
            }
        }
        self.step(sim);
    }

    pub(crate) fn own(&mut self, sim: &mut Sim, what: Own) {
        let now = self.local(sim.now);
        let Some(life) = &mut self.life else { return };
        match what {
            Own::Wake => {
                life.wakes_at = Micros::MAX;
                if life.core.poll_timeout() <= now {
                    life.core.handle_timeout(now);
                }
            }
            Own::Synced => self.synced(sim),
            Own::Snapshotted { position, bytes } => self.snapshotted(sim, position, bytes),
            Own::Staged { from, message, position, bytes } => {
                life.staging -= 1;
                let handled = life.core.handle_message(now, from, &message, None, &life.log);
                if handled == Ok(Handled::Install(position)) {
                    sim.coverage.count("snapshots installed");
                    life.log.compact(position);
                    life.log = Log::new(position, []);
                    life.machine = Machine::restore(&bytes);
                    life.installed = Some((position, bytes));
                }
            }
        }
        self.step(sim);
    }

    fn message(&mut self, sim: &mut Sim, from: NodeId, message: &Message, entries: Vec<Entry>) {
        let now = self.local(sim.now);
        let Some(life) = &mut self.life else { return };
        sim.tell(|| format!("{} <- {from}: {message:?}", self.id));
        match life.core.handle_message(now, from, message, None, &life.log) {
            Ok(Handled::Append(range)) => {
                if life.log.last().index >= range.first {
                    sim.coverage.count("logs truncated in memory");
                }
                life.log.truncate(range.first.prev());
                for entry in entries.into_iter().filter(|entry| entry.position.index >= range.first) {
                    life.put(sim, entry);
                }
                assert_eq!(life.log.last().index, range.last);
            }
            Ok(Handled::Install(_)) => panic!("only a snapshot is installed"),
            Ok(Handled::Nothing) => {}
            Err(Ignored::Stale) => sim.coverage.count("messages ignored as stale"),
            Err(Ignored::Leased) => sim.coverage.count("votes ignored under a lease"),
            Err(Ignored::NotAwaited) => sim.coverage.count("messages not awaited"),
            Err(why) => panic!("{}: an honest message is {why:?}: {message:?}", self.id),
        }
    }

    /// The outstanding group is on disk, or the disk failed.
    fn synced(&mut self, sim: &mut Sim) {
        let now = self.local(sim.now);
        let Some(life) = &mut self.life else { return };
        let write = life.write.take().expect("a group is outstanding");
        let ticket = write.persist.ticket;
        if self.disk.fails {
            sim.coverage.count("groups that failed");
            self.disk.tear(&write, &mut sim.rng);
            life.core.handle_persist_failed(now, ticket);
        } else {
            if write.persist.truncate_after.is_some() {
                sim.coverage.count("logs truncated on disk");
            }
            self.disk.sync(&write);
            life.core.handle_persisted(now, ticket);
        }
    }

    fn snapshotted(&mut self, sim: &mut Sim, position: Position, bytes: Rc<[u8]>) {
        let Some(life) = &mut self.life else { return };
        life.taking_snapshot = false;
        let is_newer = self.disk.snapshot.as_ref().is_none_or(|(last, _)| last.index < position.index);
        if !is_newer || life.log.base.index >= position.index {
            return;
        }
        sim.coverage.count("snapshots taken");
        self.disk.snapshot = Some((position, bytes));
        let begin = LogIndex(position.index.0.saturating_sub(sim.plan.keep_entries));
        if let Some(begin) = life.log.get(begin).map(|entry| entry.position)
            && life.core.compacted(begin)
        {
            life.log.compact(begin);
            self.disk.log.compact(begin);
        }
    }

    /// What the core wants after an input, in the order that its documentation names.
    pub(crate) fn step(&mut self, sim: &mut Sim) {
        self.take_events(sim);
        self.take_messages(sim);
        self.take_persist(sim);
        self.apply(sim);
        self.keep_house(sim);
        self.confirm_reads(sim);
        self.take_snapshot(sim);
        self.set_timer(sim);
    }

    fn take_events(&mut self, sim: &mut Sim) {
        let Some(life) = &mut self.life else { return };
        while let Some(event) = life.core.poll_event() {
            sim.tell(|| format!("{} {event:?}", self.id));
            match event {
                CoreEvent::BecameLeader { noop } => {
                    sim.coverage.count("leaders elected");
                    let Sim { checks, .. } = sim;
                    checks.elections.leads(self.id, noop.term, &life.log, &checks.committed);
                    life.put(sim, Entry { position: noop, payload: Rc::new([]) });
                    trouble::shorten_reign(sim, self.id);
                }
                CoreEvent::SteppedDown { .. } => {
                    sim.coverage.count("leaders that stepped down");
                    sim.coverage.add("reads lost with a leadership", life.led_reads.len() as u64);
                    life.led_reads.clear();
                }
                CoreEvent::LeaderChanged { .. } => {}
                event => panic!("{}: nobody changes members here: {event:?}", self.id),
            }
        }
    }

    fn take_messages(&mut self, sim: &mut Sim) {
        let now = self.local(sim.now);
        let Some(life) = &mut self.life else { return };
        let peers: Vec<NodeId> =
            sim.plan.members.iter().map(|member| member.id).filter(|id| *id != self.id).collect();
        for to in peers {
            let bulk = sim.healed || !sim.rng.chance(50);
            while let Some(mut message) = life.core.poll_message(now, to, bulk, &life.log) {
                what_is_said_is_durable(self.id, to, &message, &self.disk, &life.log);
                let (mut entries, mut snapshot) = (Vec::new(), None);
                match &mut message.body {
                    Body::Append { entries: Some(range), .. } => {
                        assert!(bulk);
                        entries = life.log.range(range.first, range.last);
                    }
                    Body::Append { entries: None, .. } => sim.coverage.count("probes without entries"),
                    Body::Rejected { .. } => sim.coverage.count("appends rejected"),
                    Body::Snapshot { last } => {
                        assert!(bulk);
                        sim.coverage.count("snapshots offered");
                        // The newest that there is, which may cover more than the log has forgotten.
                        snapshot = self.disk.snapshot.clone().or(life.installed.clone());
                        *last = snapshot.as_ref().expect("a log that begins late has a snapshot").0;
                    }
                    _ => {}
                }
                sim.send(self.id, to, Packet::Raft { message, entries, snapshot });
            }
            if !bulk {
                sim.coverage.count("bulk lanes full");
            }
        }
    }

    fn take_persist(&mut self, sim: &mut Sim) {
        let Some(life) = &mut self.life else { return };
        let Some(persist) = life.core.poll_persist() else { return };
        assert!(life.write.is_none(), "one group is outstanding at a time");
        sim.tell(|| format!("{} {persist:?}", self.id));
        let entries = persist.entries.map_or_else(Vec::new, |(first, last)| life.log.range(first, last));
        let reset = persist.reset.map(|position| {
            let installed = life.installed.clone().expect("a reset has its snapshot");
            assert_eq!(installed.0, position);
            installed
        });
        life.write = Some(Write { persist, entries, reset });
        self.own_after(sim, 1, Own::Synced);
    }

    fn apply(&mut self, sim: &mut Sim) {
        let Some(life) = &mut self.life else { return };
        while life.machine.applied() < life.core.commit_index() {
            let index = life.machine.applied().next();
            let entry = life.log.get(index).expect("what is committed and not applied is in the log");
            let applied = life.machine.apply(index, &entry.payload);
            sim.checks.machines.applied(index, life.machine.digest());
            life.waiters.retain(|waits| {
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
        let now = self.local(sim.now);
        let Some(life) = &mut self.life else { return };
        let is_due = life.core.role() == Role::Leader && life.machine.applied() == life.log.last().index;
        if !is_due || sim.now < life.keeps_house_at {
            return;
        }
        life.keeps_house_at = sim.now + HOUSEKEEPING_EVERY;
        let (published, body) = life.machine.housekeeping(now.0);
        sim.checks.delivery.published(published);
        if let Some(body) = body {
            propose(life, sim, now, &body);
        }
    }

    fn confirm_reads(&mut self, sim: &mut Sim) {
        let Some(life) = &mut self.life else { return };
        let confirmed = life.core.read_confirmed();
        for led in life.led_reads.extract_if(.., |led| led.round <= confirmed).collect::<Vec<_>>() {
            if led.of == self.id {
                life.read_at(led.read, led.index);
            } else {
                sim.send(self.id, led.of, Packet::ReadAt { read: led.read, index: led.index });
            }
        }
        let applied = life.machine.applied();
        life.reads.retain(|read| {
            let served = read.index.is_some_and(|index| index <= applied);
            if served {
                let total = life.machine.total(read.series);
                answer(sim, read.client, Answer::Total { read: read.read, total });
            }
            !served
        });
    }

    fn take_snapshot(&mut self, sim: &mut Sim) {
        let Some(life) = &mut self.life else { return };
        let last = self.disk.snapshot.as_ref().map_or(0, |(position, _)| position.index.0);
        let applied = life.machine.applied();
        let is_due = applied.0 >= last + sim.plan.snapshot_every && applied <= life.core.durable_index();
        if life.taking_snapshot || !is_due {
            return;
        }
        let Some(position) = life.log.position(applied) else { return };
        life.taking_snapshot = true;
        let bytes = life.machine.snapshot();
        self.own_after(sim, 3, Own::Snapshotted { position, bytes });
    }

    fn set_timer(&mut self, sim: &mut Sim) {
        let Some(life) = &mut self.life else { return };
        let due = life.core.poll_timeout();
        if due == Instant(u64::MAX) {
            return;
        }
        let due = (due.0 * 1000).div_ceil(self.clock_permille).max(sim.now);
        if due < life.wakes_at {
            life.wakes_at = due;
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

impl Life {
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

fn propose(life: &mut Life, sim: &mut Sim, now: Instant, body: &Rc<[u8]>) {
    match life.core.propose(now, 1, body.len() as u64) {
        Ok(range) => {
            let payload = life.machine.stamped(now.0, body);
            entries_of(&range, [payload]).into_iter().for_each(|entry| life.put(sim, entry));
        }
        Err(tally_core::raft::ProposeError::Full) => sim.coverage.count("proposals refused as full"),
        Err(_) => {}
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
