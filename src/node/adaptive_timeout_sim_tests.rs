//! Real cores that keep the adaptive timeout, in simulated time, on slow disks and bad links: nobody campaigns while
//! nothing fails, and when the leader does, another one is there as soon as the adaptive timeout allows.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tally_core::id::{LogIndex, Term};
use tally_core::raft::{
    Body, Config, Configuration, ConfigurationEntry, Durable, EntryRange, Event as CoreEvent, Handled,
    LogView, Member, MemberRole, Message, Position, Raft, Role,
};
use tally_core::time::Duration as CoreDuration;

use super::*;

/// Thirty of five minutes were played without another outcome; these keep the tests quick.
const SEEDS: u64 = 3;
const SECOND: u64 = 1_000_000;
const BOUNDS: TimeoutBounds = TimeoutBounds { min: Duration::from_millis(200), max: Duration::from_secs(10) };

/// What the boxes stand on; all in microseconds.
#[derive(Clone, Copy, Debug)]
struct Ground {
    one_way: u64,
    jitter: u64,
    loss_permille: u64,
    sync: u64,
    /// So many syncs of a thousand take two seconds.
    stalls_permille: u64,
    /// A box gets no processor time for so long at most, every few seconds: too seldom for a high quantile of round trips.
    held: u64,
    bounds: TimeoutBounds,
}

const DESKTOP: Ground = Ground {
    one_way: 100,
    jitter: 300,
    loss_permille: 0,
    sync: 1_000,
    stalls_permille: 0,
    held: 0,
    bounds: BOUNDS,
};
const STARVED: Ground = Ground { held: 700_000, ..DESKTOP };
const CARDS: Ground = Ground { sync: 200_000, ..DESKTOP };
const FAR: Ground = Ground { one_way: 150_000, ..DESKTOP };
const BAD: Ground =
    Ground { jitter: 100_000, loss_permille: 10, sync: 20_000, stalls_permille: 30, ..DESKTOP };
const WORST: Ground = Ground { one_way: 150_000, sync: 200_000, ..BAD };

#[derive(Debug)]
enum What {
    Wake(usize),
    Message {
        from: usize,
        to: usize,
        message: Message,
        sent: u64,
        beside: (Duration, Duration),
    },
    Synced {
        at: usize,
        ticket: u64,
        asked: u64,
    },
    Propose,
    Look(usize),
    /// The loop is to wake then, however late it does.
    Tick {
        at: usize,
        due: u64,
    },
    Hold(usize),
}

impl What {
    /// Whose processor time it needs.
    fn needs(&self) -> Option<usize> {
        match self {
            What::Wake(at) | What::Look(at) | What::Tick { at, .. } | What::Synced { at, .. } => Some(*at),
            What::Message { to, .. } => Some(*to),
            What::Propose | What::Hold(_) => None,
        }
    }
}

#[derive(Debug, Default)]
struct PlainLog(Vec<Position>);

impl LogView for PlainLog {
    fn position(&self, index: LogIndex) -> Option<Position> {
        match index.0 {
            0 => Some(Position::ZERO),
            _ => self.0.get(index.0 as usize - 1).copied(),
        }
    }

    fn fit(&self, first: LogIndex, last: LogIndex, _bytes_max: u32) -> (LogIndex, u32) {
        (last, (last.0 - first.0 + 1) as u32)
    }
}

impl PlainLog {
    fn put(&mut self, range: &EntryRange) {
        self.0.truncate(range.first.0 as usize - 1);
        let EntryRange { term, subterm, first, last } = *range;
        self.0.extend((first.0..=last.0).map(|index| Position { index: LogIndex(index), term, subterm }));
    }
}

struct Box1 {
    raft: Raft,
    log: PlainLog,
    adaptive: AdaptiveTimeout,
    in_force: (Duration, Duration),
    /// Of whom a heartbeat is to be answered, and when it was sent.
    heard: [u64; 3],
    wakes_at: u64,
    held_until: u64,
    down: bool,
}

struct World {
    ground: Ground,
    boxes: Vec<Box1>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    whats: Vec<Option<What>>,
    now: u64,
    chance: u64,
}

fn id(at: usize) -> NodeId {
    NodeId(at as u64 + 1)
}

fn core(span: Duration) -> CoreDuration {
    CoreDuration(span.as_micros() as u64)
}

impl World {
    fn new(ground: Ground, seed: u64) -> World {
        let members: Vec<Member> = (0..3).map(|at| Member { id: id(at), role: MemberRole::Voter }).collect();
        let boxes = (0..3).map(|at| {
            let adaptive = AdaptiveTimeout::new(ground.bounds);
            let in_force = (adaptive.timeout(), adaptive.heartbeat());
            let config = Config {
                id: id(at),
                election_timeout: core(in_force.0),
                heartbeat_interval: core(in_force.1),
                seed: seed * 3 + at as u64,
                append_bytes_max: 100,
                inflight_bytes_max: 1000,
                uncommitted_bytes_max: 1000,
            };
            let configuration = Configuration::new(&members).unwrap();
            let configuration = ConfigurationEntry { index: LogIndex::ZERO, configuration };
            let durable = Durable { configuration, ..Durable::default() };
            let raft = Raft::new(config, durable, Instant(0)).unwrap();
            Box1 {
                raft,
                log: PlainLog::default(),
                adaptive,
                in_force,
                heard: [0; 3],
                wakes_at: u64::MAX,
                held_until: 0,
                down: false,
            }
        });
        let mut world = World {
            ground,
            boxes: boxes.collect(),
            queue: BinaryHeap::new(),
            whats: Vec::new(),
            now: 0,
            chance: seed,
        };
        for at in 0..3 {
            world.after(0, What::Look(at));
            world.after(0, What::Tick { at, due: 0 });
            if ground.held > 0 {
                world.after(0, What::Hold(at));
            }
            world.drive(at);
        }
        world.after(0, What::Propose);
        world
    }

    fn below(&mut self, limit: u64) -> u64 {
        crate::random::split_mix(&mut self.chance) % limit.max(1)
    }

    fn after(&mut self, span: u64, what: What) {
        self.queue.push(Reverse((self.now + span, self.whats.len() as u64)));
        self.whats.push(Some(what));
    }

    fn pass(&mut self, span: u64) {
        let end = self.now + span;
        while let Some(Reverse((at, number))) = self.queue.pop() {
            if at > end {
                self.queue.push(Reverse((at, number)));
                break;
            }
            self.now = at;
            let what = self.whats[number as usize].take().expect("each happens once");
            self.happen(what);
        }
        self.now = end;
    }

    fn happen(&mut self, what: What) {
        let now = Instant(self.now);
        if let Some(held) = what.needs().map(|at| self.boxes[at].held_until).filter(|held| *held > self.now) {
            return self.after(held - self.now, what);
        }
        match what {
            What::Hold(at) => {
                let held = self.below(self.ground.held);
                self.boxes[at].held_until = self.now + held;
                let runs = SECOND + self.below(5 * SECOND);
                self.after(held + runs, What::Hold(at));
            }
            What::Tick { at, due } => {
                self.boxes[at].adaptive.on_late_wake(Duration::from_micros(self.now - due), now);
                self.after(50_000, What::Tick { at, due: self.now + 50_000 });
            }
            What::Wake(at) => {
                self.boxes[at].wakes_at = u64::MAX;
                let raft = &mut self.boxes[at].raft;
                if raft.poll_timeout() <= now {
                    raft.handle_timeout(now);
                }
                self.drive(at);
            }
            What::Synced { at, ticket, asked } => {
                let one = &mut self.boxes[at];
                one.adaptive.on_sync(Duration::from_micros(self.now - asked));
                one.raft.handle_persisted(now, ticket);
                self.drive(at);
            }
            What::Propose => {
                if let Some(at) = self.leader() {
                    let one = &mut self.boxes[at];
                    if let Ok(range) = one.raft.propose(now, 1, 1) {
                        one.log.put(&range);
                    }
                    self.drive(at);
                }
                self.after(100_000, What::Propose);
            }
            What::Look(at) => {
                if self.boxes[at].raft.role() != Role::Leader {
                    let round_trip = Duration::from_micros(2 * self.ground.one_way);
                    for other in (0..3).filter(|other| *other != at) {
                        self.boxes[at].adaptive.round_trip_of(id(other), round_trip, Instant(self.now));
                    }
                }
                self.after(500_000, What::Look(at));
                self.drive(at);
            }
            What::Message { from, to, message, sent, beside } => {
                self.receive(from, to, message, sent, beside)
            }
        }
    }

    fn receive(&mut self, from: usize, to: usize, message: Message, sent: u64, beside: (Duration, Duration)) {
        let now = Instant(self.now);
        let one = &mut self.boxes[to];
        if one.down {
            return;
        }
        match one.raft.handle_message(now, id(from), &message, None, &one.log) {
            Ok(Handled::Append(range)) => one.log.put(&range),
            Ok(_) => {}
            Err(_) => return self.drive(to),
        }
        match message.body {
            Body::Heartbeat { .. } => {
                one.heard[from] = one.heard[from].max(sent);
                one.adaptive.on_announced(beside.1);
            }
            Body::HeartbeatAnswer { .. } => {
                one.adaptive.on_answer(id(from), beside.0, beside.1);
                if sent > 0 {
                    one.adaptive.round_trip_of(
                        id(from),
                        Duration::from_micros(self.now - sent),
                        Instant(self.now),
                    );
                }
            }
            _ => {}
        }
        self.drive(to);
    }

    /// What a node's loop does after each input.
    fn drive(&mut self, at: usize) {
        let now = Instant(self.now);
        let one = &mut self.boxes[at];
        if one.down {
            return;
        }
        while let Some(event) = one.raft.poll_event() {
            match event {
                CoreEvent::BecameLeader { noop } => {
                    let Position { index, term, subterm } = noop;
                    one.log.put(&EntryRange { term, subterm, first: index, last: index });
                }
                CoreEvent::SteppedDown { .. } => one.adaptive.on_step_down(),
                CoreEvent::LeaderChanged { .. } => {}
                event => panic!("nobody changes members here: {event:?}"),
            }
        }
        if one.raft.role() == Role::Leader || one.raft.leader().is_none() {
            one.adaptive.decide(now);
        }
        let wanted = (one.adaptive.timeout(), one.adaptive.heartbeat());
        if wanted != one.in_force {
            one.in_force = wanted;
            one.raft.set_timeouts(now, core(wanted.0), core(wanted.1)).unwrap();
        }
        for to in (0..3).filter(|to| *to != at) {
            loop {
                let Box1 { raft, log, .. } = &mut self.boxes[at];
                let Some(message) = raft.poll_message(now, id(to), true, log) else { break };
                self.send(at, to, message);
            }
        }
        if let Some(persist) = self.boxes[at].raft.poll_persist() {
            let stalls = self.below(1000) < self.ground.stalls_permille;
            let sync = self.ground.sync / 2 + self.below(self.ground.sync);
            let took = if stalls { 2 * SECOND } else { sync };
            self.after(took, What::Synced { at, ticket: persist.ticket, asked: self.now });
        }
        let due = self.boxes[at].raft.poll_timeout().0.clamp(self.now + 1, u64::MAX >> 1);
        let wakes_at = &mut self.boxes[at].wakes_at;
        if due < *wakes_at && due < u64::MAX >> 1 {
            *wakes_at = due;
            self.after(due - self.now, What::Wake(at));
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        let one = &mut self.boxes[from];
        let (sent, is_datagram) = match message.body {
            Body::Heartbeat { .. } => (self.now, true),
            Body::HeartbeatAnswer { .. } => (std::mem::take(&mut one.heard[to]), true),
            _ => (0, false),
        };
        let beside = (one.adaptive.sync_told(), one.adaptive.timeout());
        let mut delay = self.ground.one_way + self.below(self.ground.jitter);
        if self.below(1000) < self.ground.loss_permille {
            if is_datagram {
                return;
            }
            // A stream sends again what was lost.
            delay += 4 * (self.ground.one_way + self.ground.jitter);
        }
        self.after(delay, What::Message { from, to, message, sent, beside });
    }

    fn leader(&self) -> Option<usize> {
        let leads = |at: &usize| !self.boxes[*at].down && self.boxes[*at].raft.role() == Role::Leader;
        (0..3).filter(leads).max_by_key(|at| self.boxes[*at].raft.term())
    }

    fn term(&self) -> Term {
        self.boxes.iter().map(|one| one.raft.term()).max().unwrap()
    }
}

/// Elections in two minutes in which nothing fails, after half a minute to settle.
fn needless_elections(world: &mut World) -> u64 {
    world.pass(30 * SECOND);
    let term = world.term();
    world.pass(120 * SECOND);
    world.term().0 - term.0
}

fn nobody_campaigns_and_a_failure_is_noticed(ground: Ground, timeout: std::ops::RangeInclusive<u64>) {
    for seed in 1..=SEEDS {
        let mut world = World::new(ground, seed);
        assert_eq!(needless_elections(&mut world), 0, "seed {seed}");
        let leader = world.leader().expect("somebody leads");
        let in_force = world.boxes[leader].adaptive.timeout();
        assert!(timeout.contains(&(in_force.as_millis() as u64)), "seed {seed}: {in_force:?}");
        let heartbeats = world.boxes[leader].adaptive.heartbeat() * HEARTBEATS;
        assert_eq!(heartbeats, in_force, "seed {seed}: all have heard of the timeout");
        world.boxes[leader].down = true;
        let failed = world.now;
        while world.leader().is_none() {
            world.pass(10_000);
            // Up to two timeouts until somebody campaigns; a split vote or a stalled disk may cost some more.
            let limit = in_force * 6 + Duration::from_secs(if ground.stalls_permille > 0 { 4 } else { 0 });
            let took = Duration::from_micros(world.now - failed);
            assert!(took < limit, "seed {seed}: no leader after {took:?}, the timeout is {in_force:?}");
        }
    }
}

#[test]
fn on_quick_disks_and_links_the_shortest_timeout_holds() {
    nobody_campaigns_and_a_failure_is_noticed(DESKTOP, 200..=200);
}

#[test]
fn nobody_campaigns_needlessly_on_cards_that_sync_in_200_ms() {
    nobody_campaigns_and_a_failure_is_noticed(CARDS, 800..=2000);
}

#[test]
fn nobody_campaigns_needlessly_over_a_link_of_300_ms() {
    nobody_campaigns_and_a_failure_is_noticed(FAR, 1200..=2000);
}

#[test]
fn nobody_campaigns_needlessly_with_jitter_and_loss_and_a_disk_that_stalls_for_two_seconds() {
    nobody_campaigns_and_a_failure_is_noticed(BAD, 500..=1500);
}

#[test]
fn nobody_campaigns_needlessly_where_everything_is_slow() {
    nobody_campaigns_and_a_failure_is_noticed(WORST, 1800..=5000);
}

#[test]
fn nobody_campaigns_needlessly_on_machines_with_too_little_processor_time() {
    nobody_campaigns_and_a_failure_is_noticed(STARVED, 1200..=3000);
    let fixed = Ground { bounds: TimeoutBounds { min: BOUNDS.min, max: BOUNDS.min }, ..STARVED };
    let elections = (1..=SEEDS).map(|seed| needless_elections(&mut World::new(fixed, seed)));
    assert!(elections.sum::<u64>() > 0, "this proves nothing");
}

#[test]
fn a_timeout_that_follows_nothing_does_not_hold_where_everything_is_slow() {
    let fixed = TimeoutBounds { min: BOUNDS.min, max: BOUNDS.min };
    let ground = Ground { bounds: fixed, ..WORST };
    let elections = (1..=SEEDS).map(|seed| needless_elections(&mut World::new(ground, seed)));
    assert!(elections.sum::<u64>() > 0, "the tests above prove nothing");
}
