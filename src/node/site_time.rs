//! Decides site time at a leader: the lower median of the voters' clocks, advanced by the leader's monotonic clock.
//! Pure: readings and instants in, time out.
//!
//! Every clock is kept as its distance from the leader's monotonic clock, so that readings of different moments can be
//! compared. Between readings, time advances by the monotonic clock. If the median is behind, site time runs at half
//! speed until they meet; if it is far ahead, the jump is held until a majority agrees with it.

use std::collections::BTreeMap;

use tally_core::id::NodeId;
use tally_core::time::{Duration, Instant, SiteTime};

use crate::clock::{JUMP_MS_MAX, Wall};

/// A longer jump forward is held.
const JUMP_US_MAX: i64 = JUMP_MS_MAX as i64 * 1000;
/// Clocks agree if they differ by no more than this.
const AGREE_US: i64 = 1_000_000;
/// The time between the two rounds in which a majority must agree.
const ROUND: Duration = Duration::from_millis(1000);
/// An older reading does not count for an agreement.
const FRESH: Duration = Duration::from_millis(10_000);
/// How long a clock that is not heard counts in the median: it is extrapolated by the leader's
/// monotonic clock meanwhile, which is good to a second in an hour. So a voter that is away does not
/// leave the median to a bad one.
const FORGET: Duration = Duration::from_millis(3_600_000);
/// The first time of a site is decided as soon as all voters are heard, or a majority after so long.
const FIRST_WAIT: Duration = Duration::from_millis(1000);
/// The latest time that an entry can carry (48 bits of milliseconds: the year 10889), in microseconds.
const TIME_US_MAX: i64 = ((1 << 48) - 1) * 1000;
/// How many readings of a clock are kept; the one with the shortest round trip counts.
const READINGS: usize = 8;
/// The further difference, beyond half a round trip, that two readings of one clock may have.
const READING_US: i64 = 10_000;

/// A reading of a member's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// The member's wall clock when it answered, Unix microseconds, unchecked.
    pub(super) wall_us: u64,
    /// Whether a time service synchronises the clock.
    pub(super) synced: bool,
    /// How long question and answer took.
    pub(super) round_trip: Duration,
}

/// Site time, as decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decided {
    pub(super) site: SiteTime,
    /// Whether it agrees with synchronised clocks, to a second.
    pub(super) synced: bool,
    /// The time that a held jump leads to.
    pub(super) held: Option<SiteTime>,
}

/// A member's clock compared with site time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offset {
    pub(super) member: NodeId,
    /// How far its clock is ahead of site time, microseconds.
    pub(super) ahead_us: i64,
    pub(super) synced: bool,
}

/// Decides site time for as long as this box leads.
#[derive(Clone, Debug)]
pub(super) struct SiteTimes {
    me: NodeId,
    voters: Vec<NodeId>,
    clocks: BTreeMap<NodeId, Clock>,
    began: Instant,
    /// Site time at `at`, microseconds; `None`: the site has none yet.
    site_us: Option<i64>,
    at: Instant,
    synced: bool,
    /// The median's distance from the monotonic clock when it was last that of a majority: what fewer
    /// say cannot lead far away from it in either direction, by however many small steps.
    anchor_us: i64,
    held: Option<Held>,
}

/// A jump that is held.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    target_us: i64,
    /// When a majority first agreed on it, and on which distance.
    agreed: Option<(Instant, i64)>,
}

/// The readings of one clock, as distances from the monotonic clock.
#[derive(Clone, Debug, Default)]
struct Clock {
    readings: Vec<Taken>,
    synced: bool,
}

#[derive(Clone, Copy, Debug)]
struct Taken {
    at: Instant,
    distance_us: i64,
    round_trip_us: i64,
}

struct Median {
    distance_us: i64,
    synced: bool,
    /// The number of clocks that it is over.
    of: usize,
}

impl SiteTimes {
    /// Continues from the known site time (`None`: the site is new).
    pub(super) fn new(me: NodeId, from: Option<SiteTime>, synced: bool, now: Instant) -> SiteTimes {
        let site_us = from.map(|site| clamp_us(site.0.saturating_mul(1000)));
        SiteTimes {
            me,
            voters: Vec::new(),
            clocks: BTreeMap::new(),
            began: now,
            site_us,
            at: now,
            synced,
            anchor_us: site_us.unwrap_or(0) - monotonic_us(now),
            held: None,
        }
    }

    /// Sets the voters, whose clocks count. Other members' clocks are only shown.
    pub(super) fn set_voters(&mut self, voters: impl Iterator<Item = NodeId>) {
        self.voters.clear();
        self.voters.extend(voters);
    }

    /// A member has answered with its clock.
    pub(super) fn on_reading(&mut self, member: NodeId, reading: Reading, now: Instant) {
        let round_trip_us = reading.round_trip.0.min(u64::MAX >> 8) as i64;
        // By now it shows half a round trip more.
        let distance_us = clamp_us(reading.wall_us) + round_trip_us / 2 - monotonic_us(now);
        let taken = Taken { at: now, distance_us, round_trip_us };
        self.clocks.entry(member).or_default().take(taken, reading.synced);
    }

    /// Whether site time was known before this leader decided it.
    pub(super) fn is_known(&self) -> bool {
        self.site_us.is_some()
    }

    /// Site time now, with this box's own clock; `None`: not known yet.
    pub(super) fn decide(&mut self, wall: Wall, now: Instant) -> Option<Decided> {
        let now = now.max(self.at);
        let Wall { us: wall_us, synced } = wall;
        self.on_reading(self.me, Reading { wall_us, synced, round_trip: Duration(0) }, now);
        let passed_us = now.since(self.at).0.min(u64::MAX >> 8) as i64;
        self.at = now;
        let median = self.median(now);
        let Some(site_us) = self.site_us else {
            return self.begin(median?, now);
        };
        let next_us = match median {
            None => later(site_us, passed_us),
            Some(median) => self.follow_median(&median, site_us, passed_us, now),
        };
        self.site_us = Some(next_us);
        Some(self.decided(next_us))
    }

    /// An operator's step: site time becomes the median, however far ahead or behind. Returns both times, or `None` if
    /// too few clocks are known.
    pub(super) fn step(&mut self, now: Instant) -> Option<(SiteTime, SiteTime)> {
        let median = self.median(now)?;
        let from = self.site_us?;
        let to = median.at(now);
        self.site_us = Some(to);
        self.at = self.at.max(now);
        self.anchor_at(&median);
        self.synced = median.synced;
        Some((to_site(from), to_site(to)))
    }

    /// All known clocks, compared with site time.
    pub(super) fn offsets(&self, now: Instant) -> Vec<Offset> {
        let Some(site_us) = self.site_us else { return Vec::new() };
        let site_us = site_us + now.since(self.at).0.min(u64::MAX >> 8) as i64;
        let beside = |(member, clock): (&NodeId, &Clock)| {
            let best = clock.best_reading(now)?;
            let ahead_us = best.distance_us + monotonic_us(now) - site_us;
            Some(Offset { member: *member, ahead_us, synced: clock.synced })
        };
        self.clocks.iter().filter_map(beside).collect()
    }

    fn begin(&mut self, median: Median, now: Instant) -> Option<Decided> {
        let all = self.voters.iter().all(|voter| self.clocks.contains_key(voter));
        if !all && now.since(self.began) < FIRST_WAIT {
            return None;
        }
        let site_us = median.at(now);
        self.site_us = Some(site_us);
        self.anchor_at(&median);
        self.synced = median.synced;
        Some(self.decided(site_us))
    }

    /// Moves site time, which was `site_us` before `passed_us`, towards the median.
    fn follow_median(&mut self, median: &Median, site_us: i64, passed_us: i64, now: Instant) -> i64 {
        let full_us = later(site_us, passed_us);
        let target_us = median.at(now);
        let are_few = 2 * median.of <= self.voters.len();
        let crept_us = median.distance_us - self.anchor_us;
        let is_far = target_us - full_us > JUMP_US_MAX || (are_few && crept_us.abs() > JUMP_US_MAX);
        if is_far && !self.is_released(median, now) {
            self.synced = false;
            return full_us;
        }
        self.held = None;
        if is_far || !are_few {
            self.anchor_at(median);
        }
        let next_us = if target_us >= full_us {
            target_us
        } else {
            // Half speed until they meet.
            later(site_us, passed_us / 2).max(target_us)
        };
        self.synced = median.synced && next_us - target_us <= AGREE_US;
        next_us
    }

    /// Whether a majority of all voters is synchronised and has agreed on this jump in two rounds.
    fn is_released(&mut self, median: &Median, now: Instant) -> bool {
        let mut held = self.held.unwrap_or_default();
        held.target_us = median.at(now);
        let is_other = |(at, distance_us): (Instant, i64)| {
            (median.distance_us - distance_us).abs() > AGREE_US || now.since(at) > FRESH
        };
        if held.agreed.is_some_and(is_other) {
            held.agreed = None;
        }
        let released = match held.agreed {
            Some((at, _)) => self.majority_agrees(median, at + ROUND, now),
            None => {
                let fresh = Instant(now.0.saturating_sub(FRESH.0));
                if self.majority_agrees(median, fresh, now) {
                    held.agreed = Some((now, median.distance_us));
                }
                false
            }
        };
        self.held = Some(held);
        released
    }

    /// Whether a majority of the voters agrees with the median, by readings since `after`.
    fn majority_agrees(&self, median: &Median, after: Instant, now: Instant) -> bool {
        let agrees = |voter: &&NodeId| {
            self.clocks.get(*voter).is_some_and(|clock| {
                let newest = clock.readings.last();
                let near = |taken: &Taken| (taken.distance_us - median.distance_us).abs() <= AGREE_US;
                clock.synced
                    && newest.is_some_and(|taken| taken.at >= after && taken.at <= now && near(taken))
            })
        };
        2 * self.voters.iter().filter(agrees).count() > self.voters.len()
    }

    fn anchor_at(&mut self, median: &Median) {
        self.anchor_us = median.distance_us;
        self.held = None;
    }

    fn median(&self, now: Instant) -> Option<Median> {
        let known = |voter: &NodeId| {
            let clock = self.clocks.get(voter)?;
            Some((clock.best_reading(now)?.distance_us, clock.synced))
        };
        let all: Vec<(i64, bool)> = self.voters.iter().filter_map(known).collect();
        if 2 * all.len() <= self.voters.len() {
            return None;
        }
        let synced = all.iter().any(|(_, synced)| *synced);
        let mut counting: Vec<i64> =
            all.iter().filter(|(_, is)| *is == synced).map(|(distance_us, _)| *distance_us).collect();
        counting.sort_unstable();
        let distance_us = *counting.get(counting.len().checked_sub(1)? / 2)?;
        Some(Median { distance_us, synced, of: counting.len() })
    }

    fn decided(&self, site_us: i64) -> Decided {
        let held = self.held.map(|held| to_site(held.target_us));
        Decided { site: to_site(site_us), synced: self.synced, held }
    }
}

impl Median {
    fn at(&self, now: Instant) -> i64 {
        (self.distance_us + monotonic_us(now)).clamp(0, TIME_US_MAX)
    }
}

impl Clock {
    fn take(&mut self, taken: Taken, synced: bool) {
        self.synced = synced;
        // What half a round trip cannot explain is a clock that was set.
        let was_set = |old: &Taken| {
            let explained_us = (old.round_trip_us + taken.round_trip_us) / 2 + READING_US;
            (old.distance_us - taken.distance_us).abs() > explained_us
        };
        if self.readings.last().is_some_and(was_set) {
            self.readings.clear();
        }
        // Without a round trip there is nothing to choose from.
        let keep = if taken.round_trip_us == 0 { 0 } else { READINGS - 1 };
        let excess = self.readings.len().saturating_sub(keep);
        self.readings.drain(..excess);
        self.readings.push(taken);
    }

    /// The reading that the network delayed least (NTP's clock filter, RFC 5905 section 10).
    fn best_reading(&self, now: Instant) -> Option<&Taken> {
        let heard = self.readings.last().filter(|taken| now.since(taken.at) <= FORGET)?;
        self.readings.iter().min_by_key(|taken| taken.round_trip_us).or(Some(heard))
    }
}

/// Clamps the time of a broken clock to the range that entries can carry.
fn clamp_us(us: u64) -> i64 {
    us.min(TIME_US_MAX as u64) as i64
}

fn later(us: i64, by_us: i64) -> i64 {
    (us + by_us).min(TIME_US_MAX)
}

fn monotonic_us(now: Instant) -> i64 {
    now.0.min(u64::MAX >> 8) as i64
}

fn to_site(us: i64) -> SiteTime {
    SiteTime(us.max(0) as u64 / 1000)
}

#[cfg(test)]
#[path = "site_time_tests.rs"]
mod tests;
