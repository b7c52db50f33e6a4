//! Whole sites in simulated time: some boxes reach the broker and some do not, disks are slow or stall; where
//! leadership goes. Only the decisions are simulated: a transfer takes no time and always succeeds.

use super::*;
use crate::node::adaptive_timeout::{AdaptiveTimeout, TimeoutBounds};
use tally_core::time::Duration as CoreDuration;

const BOUNDS: TimeoutBounds = TimeoutBounds { min: Duration::from_millis(200), max: Duration::from_secs(10) };
const STEP: Duration = Duration::from_millis(100);

struct Sim {
    began: Instant,
    now: Instant,
    leader: usize,
    boxes: Vec<SimNode>,
    /// When, from whom, to whom and why.
    handed: Vec<(Duration, usize, usize, TransferReason)>,
}

struct SimNode {
    successors: Successors,
    adaptive: AdaptiveTimeout,
    /// Whether the broker is there, seen from here.
    broker: bool,
    /// As it last found.
    reach: Option<Reach>,
    /// When it looks again.
    looks: Instant,
}

impl Sim {
    fn new(boxes: usize) -> Sim {
        let now = Instant::now();
        let node = || SimNode {
            successors: Successors::default(),
            adaptive: AdaptiveTimeout::new(BOUNDS),
            broker: true,
            reach: None,
            looks: now,
        };
        Sim { began: now, now, leader: 0, boxes: (0..boxes).map(|_| node()).collect(), handed: Vec::new() }
    }

    /// A leader that is not connected tries every few seconds, and notices a broken connection at once; the
    /// others look every ten seconds while they are asked.
    fn look(&mut self, at: usize, asked: bool, again: bool) {
        let (now, leads) = (self.now, self.leader == at);
        let node = &mut self.boxes[at];
        if !leads && !asked {
            node.reach = None;
            node.looks = now;
            return;
        }
        let is_connected = leads && node.reach.is_some_and(|reach| reach.reached);
        if now < node.looks && !again && !is_connected {
            return;
        }
        node.looks = now + Duration::from_secs(if leads { 8 } else { 10 });
        let before = node.reach.filter(|before| before.reached == node.broker);
        node.reach = Some(before.unwrap_or(Reach { reached: node.broker, since: now }));
    }

    fn step(&mut self, sync: impl Fn(usize) -> Duration) {
        self.now += STEP;
        for (at, node) in self.boxes.iter_mut().enumerate() {
            // Where nothing is written nothing is learnt of the disk.
            Some(sync(at))
                .filter(|took| !took.is_zero())
                .into_iter()
                .for_each(|took| node.adaptive.on_sync(took));
        }
        let leader = self.leader;
        self.look(leader, false, false);
        let mut voters = Vec::new();
        for at in (0..self.boxes.len()).filter(|at| *at != leader) {
            let node = &self.boxes[at];
            let sync_median = CoreDuration(node.adaptive.sync_median().as_micros() as u64);
            let broker = node.reach.map(|reach| reach.reached);
            let condition = Condition { disk_ok: Some(true), broker, sync_median };
            let id = NodeId(at as u64);
            self.boxes[leader].successors.on_condition(id, condition, self.now);
            voters.push(Voter { id, caught_up: true });
        }
        let node = &mut self.boxes[leader];
        let own = Own { broker: node.reach, sync_median: node.adaptive.sync_median() };
        let wish = node.successors.decide(own, &voters, self.now);
        if wish.try_broker {
            self.look(leader, false, true);
        }
        for at in (0..self.boxes.len()).filter(|at| *at != leader) {
            self.look(at, wish.asks_for_broker, false);
        }
        if let Some((to, reason)) = wish.transfer {
            self.leader = to.0 as usize;
            self.handed.push((self.now - self.began, leader, self.leader, reason));
            for node in &mut self.boxes {
                node.successors.begin_term();
                node.successors.on_transfer(self.now);
            }
            let node = &mut self.boxes[to.0 as usize];
            (node.reach, node.looks) = (Some(Reach { reached: false, since: self.now }), self.now);
        }
    }

    fn pass(&mut self, span: Duration, sync: impl Fn(usize) -> Duration) {
        let until = self.now + span;
        while self.now < until {
            self.step(&sync);
        }
    }
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn quick(_: usize) -> Duration {
    Duration::from_micros(300)
}

fn idle(_: usize) -> Duration {
    Duration::ZERO
}

/// From 0 to below `n`, from a seed that goes on.
fn random(seed: &mut u64, n: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % n
}

#[test]
fn leadership_comes_to_the_only_box_that_reaches_the_broker_and_stays() {
    let mut sim = Sim::new(5);
    sim.pass(s(60), idle);
    (0..5).for_each(|at| sim.boxes[at].broker = at == 3);
    sim.pass(s(15), idle);
    assert_eq!(sim.leader, 3);
    sim.pass(s(3600), idle);
    assert_eq!(sim.handed.len(), 1, "{:?}", sim.handed);
}

#[test]
fn however_the_broker_comes_and_goes_leadership_moves_once_a_minute_at_most_and_to_where_it_is() {
    for seed in 1..=15 {
        let mut chance = seed;
        let mut sim = Sim::new(3);
        for _ in 0..400 {
            let at = random(&mut chance, 3) as usize;
            sim.boxes[at].broker = !sim.boxes[at].broker;
            sim.pass(STEP * (1 + random(&mut chance, 400) as u32), idle);
        }
        let gaps = sim.handed.windows(2).map(|pair| pair[1].0 - pair[0].0);
        assert!(gaps.min().is_none_or(|gap| gap >= s(60)), "seed {seed}: {:?}", sim.handed);
        assert!(!sim.handed.is_empty(), "seed {seed}: nothing was tried");
        // Whatever was before: one box that keeps reaching it leads within a rest and a look or two.
        (0..3).for_each(|at| sim.boxes[at].broker = at == 1);
        sim.pass(s(60 + 30), idle);
        assert_eq!(sim.leader, 1, "seed {seed}: {:?}", sim.handed);
    }
}

#[test]
fn a_disk_that_stalls_for_two_seconds_now_and_then_moves_nothing() {
    for seed in 1..=3 {
        let mut chance = seed;
        let mut sim = Sim::new(3);
        for _ in 0..36_000 {
            // The leader's disk, one sync in twenty; the others have none of it.
            let stalls = random(&mut chance, 20) == 0;
            sim.step(|at| if stalls && at == 0 { s(2) } else { Duration::from_millis(2) });
        }
        assert_eq!(sim.handed, [], "seed {seed}");
    }
}

#[test]
fn a_card_that_became_slow_loses_leadership_after_minutes_and_does_not_get_it_back() {
    let mut sim = Sim::new(3);
    sim.pass(s(600), quick);
    let worn = |at| Duration::from_millis(if at == 0 { 250 } else { 2 });
    sim.pass(s(3600), worn);
    let [(when, 0, to, TransferReason::Disk)] = sim.handed[..] else { panic!("{:?}", sim.handed) };
    assert!((s(780)..s(800)).contains(&when), "{when:?}");
    // It is as good as new, and the one that leads now is no worse.
    sim.pass(s(3600), quick);
    assert_eq!(sim.leader, to);
    // Both are slow cards beside a quick disk that does not reach the broker: leadership stays at the broker.
    sim.boxes.iter_mut().enumerate().for_each(|(at, node)| node.broker = at == to);
    sim.pass(s(3600), |at| Duration::from_millis(if at == to { 250 } else { 2 }));
    assert_eq!(sim.handed.len(), 1, "{:?}", sim.handed);
}
