//! The adaptive election timeout: it follows the voters' measured round trips and disk syncs. Pure: samples in, a
//! timeout out.
//!
//! The leader decides the timeout and announces it in its heartbeats, so that all boxes have the same one. A high
//! quantile decides, not the worst case: a timeout tolerates rare stalls anyway (lost heartbeats, pre-votes), and they
//! must not make every failover slow.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use tally_core::id::NodeId;
use tally_core::time::Instant;

use super::lateness::Lateness;

/// A leader shows itself so many times within an election timeout: three may be lost or late.
const HEARTBEATS: u32 = 4;
/// The timeout holds so many round trips: a heartbeat that is late by one, after two that were lost,
/// still comes in time.
const ROUND_TRIPS: u32 = 4;
/// And, for a campaign to come to its end before the next begins, so many syncs: the candidate's own
/// and a voter's, each after one that is under way.
const SYNCS: u32 = 4;
/// And so many delays of a loop that wakes late for lack of processor time: a leader's and a follower's may come
/// together, and a heartbeat that is due before the first of them is waited for, too.
const LATENESSES: u32 = 3;
/// The share of round trips that is waited for; of syncs it is less: rare ones of seconds do not
/// matter to heartbeats, which wait for no disk.
const ROUND_TRIP_QUANTILE: f32 = 0.98;
const SYNC_QUANTILE: f32 = 0.9;
/// Fewer syncs say nothing of a disk.
const SAMPLES_LEAST: f32 = 20.0;
/// The timeout grows in steps of a quarter. It is shortened by one step when a shorter one would have done for so long.
const SHORTEN_AFTER: tally_core::time::Duration = tally_core::time::Duration::from_millis(10_000);
/// Whatever a leader announces, within these.
const TIMEOUT_MIN: Duration = TimeoutBounds::MIN;
const TIMEOUT_MAX: Duration = TimeoutBounds::MAX;

/// Between which bounds the election timeout is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutBounds {
    /// At least, and while nothing is known.
    pub min: Duration,
    /// At most.
    pub max: Duration,
}

impl TimeoutBounds {
    /// No timeout is shorter.
    pub const MIN: Duration = Duration::from_millis(20);
    /// Nor longer.
    pub const MAX: Duration = Duration::from_secs(600);

    /// The election timeout that follows from the time that a sync takes nearly always, where nothing else is slow.
    pub fn for_sync(self, sync: Duration) -> Duration {
        self.step(sync.min(TIMEOUT_MAX) * SYNCS)
    }

    /// The shortest step that holds so much.
    fn step(self, needed: Duration) -> Duration {
        let mut step = self.min;
        while step < needed && step < self.max {
            step = Duration::from_millis((step.as_millis() as u64 * 5).div_ceil(4));
        }
        step.min(self.max)
    }
}

/// Decides the adaptive timeout, and knows the one in force.
#[derive(Debug)]
pub(super) struct AdaptiveTimeout {
    bounds: TimeoutBounds,
    timeout: Duration,
    /// Since when a shorter timeout would do.
    shorter_since: Option<Instant>,
    sync: Quantile,
    late: Lateness,
    members: BTreeMap<NodeId, Member>,
}

/// What is known of another member, while it is connected.
#[derive(Debug)]
struct Member {
    round_trip: Quantile,
    /// When its latest answers began to come, and the shortest round trip among them.
    latest: Option<(Instant, Duration)>,
    /// How long its disk takes, as it says.
    sync: Duration,
    /// The timeout that it has in force, as it says.
    timeout: Option<Duration>,
}

impl Default for Member {
    fn default() -> Member {
        Member {
            round_trip: Quantile::new(ROUND_TRIP_QUANTILE),
            latest: None,
            sync: Duration::ZERO,
            timeout: None,
        }
    }
}

impl AdaptiveTimeout {
    pub(super) fn new(bounds: TimeoutBounds) -> AdaptiveTimeout {
        AdaptiveTimeout {
            bounds,
            timeout: bounds.min,
            shorter_since: None,
            sync: Quantile::new(SYNC_QUANTILE),
            late: Lateness::default(),
            members: BTreeMap::new(),
        }
    }

    /// The election timeout in force.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A leader shows itself this often: often enough for the least patient box that it heard.
    pub(super) fn heartbeat(&self) -> Duration {
        let theirs = self.members.values().filter_map(|member| member.timeout).min();
        theirs.map_or(self.timeout, |theirs| theirs.min(self.timeout)) / HEARTBEATS
    }

    /// How long a sync of this box's disk takes, nearly always.
    pub(super) fn sync(&self) -> Duration {
        self.sync.value
    }

    /// How long all but one of a hundred syncs of this box's disk take.
    pub(super) fn sync_p99(&self) -> Duration {
        self.sync.at(0.99)
    }

    /// What this box tells a leader of its syncs. As long as its lateness asks for, so that leaders of earlier releases
    /// reckon with that, too.
    pub(super) fn sync_told(&self) -> Duration {
        self.sync().max(self.lateness() * LATENESSES / SYNCS)
    }

    /// How late this box's loop wakes now and then.
    pub(super) fn lateness(&self) -> Duration {
        self.late.usual()
    }

    /// This box's loop woke so late.
    pub(super) fn on_late_wake(&mut self, late: Duration, now: Instant) {
        self.late.add(late, now);
    }

    /// How long a sync of this box's disk takes half of the time; zero while too few were seen.
    pub(super) fn sync_median(&self) -> Duration {
        if self.sync.total < SAMPLES_LEAST { Duration::ZERO } else { self.sync.at(0.5) }
    }

    /// How long a round trip to the slowest connected box takes, nearly always.
    pub(super) fn round_trip(&self) -> Duration {
        let all = self.members.values().map(|member| member.round_trip.value);
        all.max().unwrap_or_default()
    }

    /// A sync of this box's disk took so long.
    pub(super) fn on_sync(&mut self, took: Duration) {
        self.sync.add(took);
    }

    /// A member took so long to answer. What comes in one burst was held up by one stall (a paused box, a cable
    /// that was out, an address that was looked up): it is one sample, the shortest, or it would outweigh
    /// everything that a new leader knows.
    pub(super) fn round_trip_of(&mut self, member: NodeId, took: Duration, now: Instant) {
        let burst = tally_core::time::Duration(self.heartbeat().as_micros() as u64 / 2);
        let member = self.members.entry(member).or_default();
        match &mut member.latest {
            Some((came, shortest)) if now.since(*came) < burst => *shortest = took.min(*shortest),
            latest => {
                if let Some((_, shortest)) = latest.replace((now, took)) {
                    member.round_trip.add(shortest);
                }
            }
        }
    }

    /// A follower's answer: the time of its syncs, and its election timeout.
    pub(super) fn on_answer(&mut self, member: NodeId, sync: Duration, timeout: Duration) {
        let member = self.members.entry(member).or_default();
        member.sync = sync;
        member.timeout = Some(timeout.clamp(TIMEOUT_MIN, TIMEOUT_MAX));
    }

    /// The member is not connected any more.
    pub(super) fn on_disconnected(&mut self, member: NodeId) {
        self.members.remove(&member);
    }

    /// What followers said to a leader whose leadership has ended counts no more.
    pub(super) fn on_step_down(&mut self) {
        for member in self.members.values_mut() {
            member.sync = Duration::ZERO;
            member.timeout = None;
        }
    }

    /// A leader announced its timeout.
    pub(super) fn on_announced(&mut self, timeout: Duration) {
        self.timeout = timeout.clamp(TIMEOUT_MIN, TIMEOUT_MAX);
        self.shorter_since = None;
    }

    /// Decides, at a leader or where none is known: longer at once, shorter step by step.
    pub(super) fn decide(&mut self, now: Instant) {
        let wanted = self.wanted_timeout();
        if wanted > self.timeout || self.timeout > self.bounds.max {
            self.timeout = wanted;
        }
        if wanted == self.timeout {
            self.shorter_since = None;
            return;
        }
        let since = *self.shorter_since.get_or_insert(now);
        if now.since(since) >= SHORTEN_AFTER {
            self.timeout = Duration::from_millis(self.timeout.as_millis() as u64 * 4 / 5).max(wanted);
            self.shorter_since = None;
        }
    }

    /// What the samples ask for: the shortest step that holds it.
    fn wanted_timeout(&self) -> Duration {
        let sync = self.members.values().map(|member| member.sync).fold(self.sync_told(), Duration::max);
        let round_trip = self.round_trip().min(TIMEOUT_MAX);
        let campaign = round_trip * 2 + sync.min(TIMEOUT_MAX) * SYNCS;
        self.bounds.step((round_trip * ROUND_TRIPS).max(campaign))
    }
}

/// Durations by size, each step a quarter more than the one before; old ones count less and less, so
/// that some two hundred decide.
#[derive(Clone, Debug)]
struct Quantile {
    weights: [f32; BUCKETS],
    total: f32,
    /// The share that is asked for at every step, and what it comes to as of the last sample.
    share: f32,
    value: Duration,
}

/// From 100 us to beyond ten minutes.
const BUCKETS: usize = 72;
const FIRST: Duration = Duration::from_micros(100);
const STEP: f64 = 1.25;
const KEPT: f32 = 0.995;

/// The upper ends of the buckets.
static LIMITS: LazyLock<[Duration; BUCKETS]> = LazyLock::new(|| {
    let mut limits = [FIRST.mul_f64(STEP.powi(BUCKETS as i32 - 1)); BUCKETS];
    for bucket in (1..BUCKETS).rev() {
        limits[bucket - 1] = limits[bucket].div_f64(STEP);
    }
    limits
});

impl Quantile {
    fn new(share: f32) -> Quantile {
        Quantile { weights: [0.0; BUCKETS], total: 0.0, share, value: Duration::ZERO }
    }

    fn add(&mut self, sample: Duration) {
        let bucket = LIMITS.partition_point(|limit| sample > *limit).min(BUCKETS - 1);
        for weight in &mut self.weights {
            *weight *= KEPT;
        }
        self.weights[bucket] += 1.0;
        self.total = self.weights.iter().sum();
        self.value = self.at(self.share);
    }

    /// The upper end of the bucket in which the quantile lies; zero without samples. A single one
    /// proves nothing.
    fn at(&self, quantile: f32) -> Duration {
        let mut above = (self.total * (1.0 - quantile)).max(1.0);
        for (weight, limit) in self.weights.iter().zip(LIMITS.iter()).rev() {
            above -= weight;
            if above < 0.0 {
                return *limit;
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: TimeoutBounds =
        TimeoutBounds { min: Duration::from_millis(200), max: Duration::from_secs(10) };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at(ms: u64) -> Instant {
        Instant(ms * 1000)
    }

    /// A leader that hears another box every 50 ms for some seconds.
    fn after(
        adaptive: &mut AdaptiveTimeout,
        from_ms: u64,
        seconds: u64,
        round_trip: impl Fn(u64) -> u64,
    ) -> Duration {
        for heartbeat in 0..seconds * 20 {
            adaptive.round_trip_of(NodeId(2), ms(round_trip(heartbeat)), at(from_ms + heartbeat * 50));
            adaptive.decide(at(from_ms + heartbeat * 50));
        }
        adaptive.timeout()
    }

    #[test]
    fn quick_disks_and_links_leave_the_shortest_timeout() {
        let mut adaptive = AdaptiveTimeout::new(BOUNDS);
        for sync in 0..100 {
            adaptive.on_sync(Duration::from_micros(100 + sync * 20));
        }
        assert_eq!(after(&mut adaptive, 0, 60, |heartbeat| heartbeat % 20), ms(200));
        assert_eq!(adaptive.heartbeat(), ms(50));
    }

    #[test]
    fn a_slow_link_lengthens_it_within_a_second_and_a_quick_one_shortens_it_slowly() {
        let mut adaptive = AdaptiveTimeout::new(BOUNDS);
        after(&mut adaptive, 0, 60, |_| 1);
        let long = after(&mut adaptive, 60_000, 1, |_| 300);
        assert!((ms(1200)..ms(2000)).contains(&long), "{long:?}");
        assert_eq!(after(&mut adaptive, 61_000, 10, |_| 1), long, "ten seconds are not long enough");
        assert_eq!(after(&mut adaptive, 71_000, 300, |_| 1), ms(200));
    }

    #[test]
    fn answers_that_one_stall_held_up_are_one_sample() {
        let mut adaptive = AdaptiveTimeout::new(BOUNDS);
        // A new leader, which has few samples yet; a cable was out for a second.
        after(&mut adaptive, 0, 1, |_| 1);
        for late in 0..20 {
            adaptive.round_trip_of(NodeId(2), ms(1000 - late * 50), Instant(2_000_000 + late));
            adaptive.decide(Instant(2_000_000 + late));
        }
        assert_eq!(adaptive.timeout(), ms(200));
        assert_eq!(after(&mut adaptive, 2_050, 5, |_| 1), ms(200));
    }

    #[test]
    fn one_long_stall_changes_nothing() {
        let mut adaptive = AdaptiveTimeout::new(BOUNDS);
        after(&mut adaptive, 0, 20, |_| 1);
        assert_eq!(
            after(&mut adaptive, 20_000, 20, |heartbeat| if heartbeat == 50 { 10_000 } else { 1 }),
            ms(200)
        );
        for sync in 0..200 {
            adaptive.on_sync(if sync % 20 == 0 { ms(2000) } else { ms(2) });
        }
        adaptive.decide(at(50_000));
        assert_eq!(adaptive.timeout(), ms(200));
    }

    #[test]
    fn a_card_that_syncs_in_200_ms_gets_time_for_a_campaign_wherever_it_is() {
        let mut adaptive = AdaptiveTimeout::new(BOUNDS);
        adaptive.on_answer(NodeId(3), ms(200), ms(200));
        adaptive.decide(at(0));
        assert!((ms(800)..ms(1100)).contains(&adaptive.timeout()), "{:?}", adaptive.timeout());
        let mut own = AdaptiveTimeout::new(BOUNDS);
        (0..20).for_each(|_| own.on_sync(ms(200)));
        own.decide(at(0));
        assert!((ms(800)..ms(1400)).contains(&own.timeout()), "{:?}", own.timeout());
    }

    #[test]
    fn a_leader_beats_for_the_least_patient_until_all_have_heard() {
        let mut adaptive = AdaptiveTimeout::new(BOUNDS);
        adaptive.on_answer(NodeId(2), ms(1), ms(200));
        adaptive.on_answer(NodeId(3), ms(500), ms(200));
        adaptive.decide(at(0));
        assert!(adaptive.timeout() >= ms(2000));
        assert_eq!(adaptive.heartbeat(), ms(50));
        let timeout = adaptive.timeout();
        adaptive.on_answer(NodeId(2), ms(1), timeout);
        assert_eq!(adaptive.heartbeat(), ms(50));
        adaptive.on_answer(NodeId(3), ms(500), timeout);
        assert_eq!(adaptive.heartbeat(), timeout / 4);
        adaptive.on_answer(NodeId(3), ms(500), ms(200));
        adaptive.on_disconnected(NodeId(3));
        assert_eq!(adaptive.heartbeat(), timeout / 4, "who is away is not waited for");
    }

    #[test]
    fn the_bounds_hold_and_what_a_leader_announces_is_in_force_within_reason() {
        let mut adaptive = AdaptiveTimeout::new(BOUNDS);
        assert_eq!(after(&mut adaptive, 0, 5, |_| 60_000), BOUNDS.max);
        adaptive.on_announced(ms(700));
        assert_eq!(adaptive.timeout(), ms(700));
        adaptive.on_announced(Duration::ZERO);
        assert_eq!(adaptive.timeout(), TIMEOUT_MIN);
        adaptive.on_announced(Duration::MAX);
        assert_eq!(adaptive.timeout(), TIMEOUT_MAX);
        adaptive.decide(at(0));
        assert_eq!(adaptive.timeout(), BOUNDS.max, "a leader keeps to its own bounds");
        let mut fixed = AdaptiveTimeout::new(TimeoutBounds { min: ms(500), max: ms(500) });
        assert_eq!(after(&mut fixed, 0, 5, |_| 3_000), ms(500));
    }

    #[test]
    fn a_box_that_wakes_late_gets_time_wherever_it_is_and_one_that_was_stopped_does_not() {
        let mut follower = AdaptiveTimeout::new(BOUNDS);
        for heartbeat in 0..200 {
            follower.on_late_wake(ms(if heartbeat % 10 == 0 { 250 } else { 3 }), at(heartbeat * 50));
        }
        assert_eq!(follower.sync(), Duration::ZERO);
        let mut leader = AdaptiveTimeout::new(BOUNDS);
        leader.on_answer(NodeId(2), follower.sync_told(), ms(200));
        leader.decide(at(0));
        assert!((ms(750)..ms(1000)).contains(&leader.timeout()), "{:?}", leader.timeout());
        follower.decide(at(10_000));
        assert_eq!(follower.timeout(), leader.timeout(), "as when it comes to lead");
        let mut stopped = AdaptiveTimeout::new(BOUNDS);
        for heartbeat in 0..200 {
            stopped.on_late_wake(if heartbeat == 100 { ms(10_000) } else { ms(2) }, at(heartbeat * 50));
            stopped.decide(at(heartbeat * 50));
        }
        assert_eq!(stopped.timeout(), ms(200));
    }

    #[test]
    fn any_samples_are_taken() {
        let mut adaptive = AdaptiveTimeout::new(BOUNDS);
        for took in [Duration::ZERO, Duration::MAX, Duration::from_nanos(1)] {
            adaptive.on_sync(took);
            adaptive.round_trip_of(NodeId(2), took, at(0));
            adaptive.on_answer(NodeId(2), took, took);
            adaptive.decide(at(0));
        }
        assert!(adaptive.timeout() >= BOUNDS.min && adaptive.timeout() <= BOUNDS.max);
    }
}

#[cfg(test)]
#[path = "adaptive_timeout_sim_tests.rs"]
mod simulated;
