//! The clocks that a box stamps on entries while it leads: site time out of the boxes' wall clocks
//! (`site_time` decides), and elapsed time, which every box counts on so that a leader's end stops
//! nothing.

use tally_core::id::NodeId;
use tally_core::time::{Duration, Elapsed, Instant, SiteTime};

use super::site_time::{Decided, Offset, Reading, SiteTimes};
use crate::clock::{Told, WallClock};
use crate::site::codec::Reader;
use crate::site::{Stamp, entry};

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

/// Site time as it goes on from an operator's step.
#[derive(Debug)]
pub(super) struct Step(SiteTimes);

/// Where a new leader's site time begins if an operator's step is among the entries that it has not applied yet, which
/// stay in its log: after the step, and what was stamped after that. What it takes for site time is of before.
pub(super) fn after_step<'a>(unapplied: impl Iterator<Item = &'a [u8]>) -> Option<SiteTime> {
    let mut stepped = None;
    for content in unapplied {
        let mut reader = Reader::new(content);
        let (Ok(site), Ok(_elapsed), Ok(_synced)) = (reader.varint(), reader.varint(), reader.bool()) else {
            continue;
        };
        let site = SiteTime(site);
        if entry::is_step_clock(reader.rest()) {
            stepped = Some(site);
        } else if stepped.is_some() {
            stepped = stepped.max(Some(site));
        }
    }
    stepped
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

    /// An operator wants the clocks followed now: the stamp for the entry that says so, and what to go by once it is
    /// in the log. Until then nothing changes. `None`: too few clocks are known.
    pub(super) fn step(&mut self, now: Instant) -> Option<(Stamp, Step)> {
        self.count(now);
        let (wall_us, is_synced) = self.wall.read();
        let mut times = self.times.clone()?;
        times.decide(wall_us, is_synced, now)?;
        times.step(now)?;
        let Decided { site, synced, .. } = times.decide(wall_us, is_synced, now)?;
        Some((Stamp { site, elapsed: self.elapsed, synced }, Step(times)))
    }

    /// The entry is in the log.
    pub(super) fn stepped(&mut self, step: Step) {
        self.times = Some(step.0);
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
    fn a_step_that_does_not_get_into_the_log_changes_nothing() {
        let (mut clock, late) = (LeaderClock::new(stamp(0), at(0)), SiteTime(1 << 47));
        clock.lead(NodeId(1), Some(late), true, at(1));
        clock.set_voters([NodeId(1)].into_iter());
        let (refused, _) = clock.step(at(2)).unwrap();
        assert!(refused.site < late, "this box's clock is far behind");
        assert!(clock.stamp(at(3)).unwrap().0.site >= late);
        let (taken, step) = clock.step(at(4)).unwrap();
        clock.stepped(step);
        let (next, _) = clock.stamp(at(5)).unwrap();
        assert!(next.site >= taken.site && next.site < late);
    }

    #[test]
    fn a_new_leader_goes_by_a_step_in_its_log_that_it_has_not_applied() {
        let entry_at = |site: u64, body: &[u8]| {
            entry::stamped(Stamp { site: SiteTime(site), elapsed: Elapsed(7), synced: true }, body)
        };
        let (tick, step) = (entry::tick(), entry::step_clock());
        let payloads = [
            entry_at(9_000, &tick),
            Default::default(),
            entry_at(5_000, &step),
            entry_at(5_020, &tick),
            entry_at(5_010, &tick),
        ];
        let after = |count: usize| after_step(payloads.iter().take(count).map(|payload| &payload[..]));
        assert_eq!(after(2), None, "no step: what it takes for site time stands");
        assert_eq!(after(3), Some(SiteTime(5_000)), "back, whatever was stamped before");
        assert_eq!(after(5), Some(SiteTime(5_020)));
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
