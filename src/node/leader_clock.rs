//! The clocks that a box stamps on entries while it leads: site time out of the boxes' wall clocks
//! (`site_time` decides), and elapsed time, which every box counts on so that a leader's end stops
//! nothing.

use tally_core::id::NodeId;
use tally_core::time::{Duration, Elapsed, Instant, SiteTime};

use super::site_time::{Decided, Offset, Reading, SiteTimes};
use crate::clock::{Told, WallClock};
use crate::site::Stamp;

/// Site time and elapsed time as the leader counts them on.
#[derive(Debug)]
pub(super) struct LeaderClock {
    elapsed: Elapsed,
    /// Up to when elapsed time is counted.
    counted: Instant,
    wall: WallClock,
    /// While this box leads.
    times: Option<SiteTimes>,
}

impl LeaderClock {
    /// Goes on from what was applied last.
    pub(super) fn new(stamp: Stamp, now: Instant) -> LeaderClock {
        LeaderClock { elapsed: stamp.elapsed, counted: now, wall: WallClock::default(), times: None }
    }

    /// Never falls behind what was applied.
    pub(super) fn applied(&mut self, stamp: Stamp, now: Instant) {
        self.count(now);
        self.elapsed = self.elapsed.max(stamp.elapsed);
    }

    /// This box leads from now on. `from`: site time as it was known here, and its flag.
    pub(super) fn lead(&mut self, me: NodeId, from: Option<SiteTime>, synced: bool, now: Instant) {
        self.times = Some(SiteTimes::new(me, from, synced, now));
    }

    /// This box does not lead any more.
    pub(super) fn follow(&mut self) {
        self.times = None;
    }

    /// Whose clocks count.
    pub(super) fn set_voters(&mut self, voters: impl Iterator<Item = NodeId>) {
        if let Some(times) = &mut self.times {
            times.set_voters(voters);
        }
    }

    /// What another member answered to a heartbeat.
    pub(super) fn heard(&mut self, member: NodeId, reading: Reading, now: Instant) {
        if let Some(times) = &mut self.times {
            times.heard(member, reading, now);
        }
    }

    /// The stamp for an entry now, and what to tell the others; `None`: this box does not lead, or the
    /// site is new and too few clocks are known.
    pub(super) fn stamp(&mut self, now: Instant) -> Option<(Stamp, Told)> {
        self.count(now);
        let (wall_us, is_synced) = self.wall.read();
        let Decided { site, synced, held } = self.times.as_mut()?.decide(wall_us, is_synced, now)?;
        Some((Stamp { site, elapsed: self.elapsed, synced }, Told { site, synced, held }))
    }

    /// An operator wants the clocks followed now; `false`: too few are known.
    pub(super) fn step(&mut self, now: Instant) -> bool {
        self.times.as_mut().is_some_and(|times| times.step(now).is_some())
    }

    /// This box's wall clock in Unix microseconds, and whether it is synchronised.
    pub(super) fn wall(&mut self) -> (u64, bool) {
        self.wall.read()
    }

    /// How far the clocks that were heard are ahead of site time.
    pub(super) fn offsets(&self, now: Instant) -> Vec<Offset> {
        self.times.as_ref().map(|times| times.offsets(now)).unwrap_or_default()
    }

    /// Counts elapsed time on, in whole milliseconds.
    fn count(&mut self, now: Instant) {
        let passed_ms = now.since(self.counted).as_millis();
        self.counted += Duration::from_millis(passed_ms);
        self.elapsed = Elapsed(self.elapsed.0.saturating_add(passed_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(ms * 1000)
    }

    fn stamp(elapsed: u64) -> Stamp {
        Stamp { site: SiteTime(1), elapsed: Elapsed(elapsed), synced: false }
    }

    #[test]
    fn only_a_leader_has_a_stamp() {
        let mut clock = LeaderClock::new(Stamp::default(), at(0));
        assert!(clock.stamp(at(1)).is_none());
        clock.lead(NodeId(1), None, false, at(2));
        assert!(clock.stamp(at(3)).is_none(), "no voters are known");
        clock.set_voters([NodeId(1)].into_iter());
        assert!(clock.stamp(at(4)).is_some());
        clock.follow();
        assert!(clock.stamp(at(5)).is_none());
    }

    #[test]
    fn a_new_leader_counts_no_time_twice() {
        let mut clock = LeaderClock::new(stamp(1000), at(0));
        // An hour as a follower, in which the leader's entries brought the hour along.
        for ms in (0..=3_600_000).step_by(60_000) {
            clock.applied(stamp(1000 + ms), at(ms));
        }
        clock.lead(NodeId(1), Some(SiteTime(1)), false, at(3_600_500));
        clock.set_voters([NodeId(1)].into_iter());
        let (stamp, _) = clock.stamp(at(3_600_500)).unwrap();
        assert_eq!(stamp.elapsed, Elapsed(3_601_500));
    }

    #[test]
    fn elapsed_time_never_falls_behind_what_was_applied() {
        let mut clock = LeaderClock::new(stamp(5), at(0));
        clock.applied(stamp(77), at(3));
        clock.applied(stamp(70), at(3));
        clock.lead(NodeId(1), Some(SiteTime(9)), true, at(4));
        clock.set_voters([NodeId(1)].into_iter());
        let (stamp, told) = clock.stamp(at(4)).unwrap();
        assert_eq!(stamp.elapsed, Elapsed(78));
        assert!(stamp.site >= SiteTime(9) && told.site == stamp.site);
    }
}
