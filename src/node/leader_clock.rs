//! The clocks that a leader stamps on entries: site time, which `site_time` decides from the boxes' wall clocks, and
//! elapsed time. Every box keeps counting elapsed time, so that it does not stop when a leader fails.

use bytes::Bytes;
use tally_core::id::NodeId;
use tally_core::time::{Duration, Elapsed, Instant, SiteTime};

use super::site_time::{Decided, Offset, Reading, SiteTimes};
use crate::clock::{LeaderTime, SiteClock, TimeSource, Wall};
use crate::deliberate::{self, Bug};
use crate::site::{Envelope, Site, Stamp, StampedEntry, entry};
use crate::storage::Entry;

/// Site time and elapsed time, as a leader advances them.
#[derive(Debug)]
pub(super) struct LeaderClock {
    elapsed: Elapsed,
    /// The instant up to which elapsed time is counted.
    counted: Instant,
    /// Decides site time while this box leads.
    times: Option<SiteTimes>,
}

/// Site time as it goes on from an operator's step.
#[derive(Debug)]
pub(super) struct Step(SiteTimes);

/// The times on logged entries that are not applied yet. After a power cut of the whole site these can be all entries
/// after the latest snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Logged {
    /// The latest site time that is stamped on them: since an operator's step, if one is among them.
    pub(super) site: Option<SiteTime>,
    /// Whether one is: site time as it was known before is then of no account.
    pub(super) stepped: bool,
    /// Elapsed time, which no step changes.
    pub(super) elapsed: Elapsed,
    /// Whether site time was that of synchronised clocks, by the last of them.
    pub(super) synced: Option<bool>,
}

impl Logged {
    /// The times in these entries of the log, in order.
    pub(super) fn of<'a>(unapplied: impl Iterator<Item = &'a Bytes>) -> Logged {
        let mut logged = Logged::default();
        for envelope in unapplied.filter_map(Envelope::<StampedEntry>::read) {
            let Ok((stamp, body)) = envelope.inside.split() else { continue };
            let is_step = entry::is_step_clock(body);
            logged.stepped |= is_step;
            logged.site = if is_step { Some(stamp.site) } else { logged.site.max(Some(stamp.site)) };
            logged.elapsed = logged.elapsed.max(stamp.elapsed);
            logged.synced = Some(stamp.synced);
        }
        logged
    }

    /// Site time by these entries and by what else is known of it.
    pub(super) fn site_after(&self, known: Option<SiteTime>) -> Option<SiteTime> {
        if self.stepped { self.site } else { known.max(self.site).filter(|site| site.0 > 0) }
    }
}

/// Site time as far as a box knows it when it starts: by its whole log, of which no more than the snapshot may be
/// applied before another box can be heard.
pub(super) fn clock_at_start(site: &Site, entries: &[Entry], time: TimeSource) -> SiteClock {
    let unapplied = entries.iter().filter(|entry| entry.position.index > site.applied());
    let logged = Logged::of(unapplied.map(|entry| &entry.payload));
    let mut begun = logged.site_after(Some(site.stamp().site));
    if deliberate::is(Bug::TimeFromApplied) {
        begun = Some(site.stamp().site);
    }
    let clock = SiteClock::new(begun.unwrap_or_default(), site.stamp().elapsed, time);
    // What is not committed may go again, an operator's step even.
    clock.skipped();
    clock
}

impl LeaderClock {
    /// Continues from the last applied stamp.
    pub(super) fn new(stamp: Stamp, now: Instant) -> LeaderClock {
        LeaderClock { elapsed: stamp.elapsed, counted: now, times: None }
    }

    /// Advances elapsed time at least to that of an applied entry.
    pub(super) fn on_applied(&mut self, stamp: Stamp, now: Instant) {
        self.count(now);
        self.elapsed = self.elapsed.max(stamp.elapsed);
    }

    /// This box leads from now on. `from`: site time as it was known here, and its flag.
    pub(super) fn lead(&mut self, me: NodeId, from: Option<SiteTime>, synced: bool, now: Instant) {
        self.times = Some(SiteTimes::new(me, from, synced, now));
    }

    /// This box does not lead any more.
    pub(super) fn stop_leading(&mut self) {
        self.times = None;
    }

    /// Sets the voters, whose clocks count.
    pub(super) fn set_voters(&mut self, voters: impl Iterator<Item = NodeId>) {
        if let Some(times) = &mut self.times {
            times.set_voters(voters);
        }
    }

    /// A member has answered a heartbeat with its clock.
    pub(super) fn on_reading(&mut self, member: NodeId, reading: Reading, now: Instant) {
        if let Some(times) = &mut self.times {
            times.on_reading(member, reading, now);
        }
    }

    /// Whether this box leads and has known site time before.
    pub(super) fn is_known(&self) -> bool {
        self.times.as_ref().is_some_and(SiteTimes::is_known)
    }

    /// The stamp for an entry now, and what to tell the others; `None`: this box does not lead, or the
    /// site is new and too few clocks are known.
    pub(super) fn stamp(&mut self, now: Instant, wall: Wall) -> Option<(Stamp, LeaderTime)> {
        self.count(now);
        let Decided { site, synced, held } = self.times.as_mut()?.decide(wall, now)?;
        Some((Stamp { site, elapsed: self.elapsed, synced }, LeaderTime { site, synced, held }))
    }

    /// An operator's step to the boxes' clocks: the stamp for its entry, and the times to use once the entry is in the
    /// log. Until then nothing changes. `None`: too few clocks are known.
    pub(super) fn step(&mut self, now: Instant, wall: Wall) -> Option<(Stamp, Step)> {
        self.count(now);
        let mut times = self.times.clone()?;
        times.decide(wall, now)?;
        times.step(now)?;
        let Decided { site, synced, .. } = times.decide(wall, now)?;
        Some((Stamp { site, elapsed: self.elapsed, synced }, Step(times)))
    }

    /// The operator's step is in the log.
    pub(super) fn on_step_logged(&mut self, step: Step) {
        self.times = Some(step.0);
    }

    /// How far each known clock is ahead of site time.
    pub(super) fn offsets(&self, now: Instant) -> Vec<Offset> {
        self.times.as_ref().map(|times| times.offsets(now)).unwrap_or_default()
    }

    /// Advances elapsed time, in whole milliseconds.
    fn count(&mut self, now: Instant) {
        let passed_ms = now.since(self.counted).as_millis();
        self.counted += Duration::from_millis(passed_ms);
        self.elapsed = Elapsed(self.elapsed.0.saturating_add(passed_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall() -> Wall {
        Wall { us: crate::clock::wall_us(), synced: false }
    }

    fn at(ms: u64) -> Instant {
        Instant(ms * 1000)
    }

    fn stamp(elapsed: u64) -> Stamp {
        Stamp { site: SiteTime(1), elapsed: Elapsed(elapsed), synced: false }
    }

    #[test]
    fn only_a_leader_has_a_stamp() {
        let mut clock = LeaderClock::new(Stamp::default(), at(0));
        assert!(clock.stamp(at(1), wall()).is_none());
        clock.lead(NodeId(1), None, false, at(2));
        assert!(clock.stamp(at(3), wall()).is_none(), "no voters are known");
        clock.set_voters([NodeId(1)].into_iter());
        assert!(clock.stamp(at(4), wall()).is_some());
        clock.stop_leading();
        assert!(clock.stamp(at(5), wall()).is_none());
    }

    #[test]
    fn a_step_that_does_not_get_into_the_log_changes_nothing() {
        let (mut clock, late) = (LeaderClock::new(stamp(0), at(0)), SiteTime(1 << 47));
        clock.lead(NodeId(1), Some(late), true, at(1));
        clock.set_voters([NodeId(1)].into_iter());
        let (refused, _) = clock.step(at(2), wall()).unwrap();
        assert!(refused.site < late, "this box's clock is far behind");
        assert!(clock.stamp(at(3), wall()).unwrap().0.site >= late);
        let (taken, step) = clock.step(at(4), wall()).unwrap();
        clock.on_step_logged(step);
        let (next, _) = clock.stamp(at(5), wall()).unwrap();
        assert!(next.site >= taken.site && next.site < late);
    }

    #[test]
    fn a_log_that_is_not_applied_tells_how_far_site_time_and_elapsed_time_have_come() {
        let entry_at = |site: u64, elapsed: u64, synced: bool, body: &[u8]| {
            let stamp = Stamp { site: SiteTime(site), elapsed: Elapsed(elapsed), synced };
            Envelope::plain(StampedEntry::new(stamp, body)).encode()
        };
        let (tick, step) = (entry::tick(), entry::step_clock());
        let payloads = [
            entry_at(8_000, 5, true, &tick),
            entry_at(9_000, 7, false, &tick),
            // A new term begins.
            Default::default(),
            entry_at(5_000, 9, true, &step),
            entry_at(5_020, 11, true, &tick),
            entry_at(5_010, 10, true, &tick),
        ];
        let of = |count: usize| Logged::of(payloads.iter().take(count));
        assert_eq!(of(0), Logged::default());
        let logged = of(3);
        assert_eq!(
            (logged.site, logged.elapsed, logged.synced),
            (Some(SiteTime(9_000)), Elapsed(7), Some(false))
        );
        assert_eq!(logged.site_after(None), Some(SiteTime(9_000)));
        assert_eq!(logged.site_after(Some(SiteTime(9_500))), Some(SiteTime(9_500)), "as it was seen here");
        let known = Some(SiteTime(9_500));
        assert_eq!(
            of(4).site_after(known),
            Some(SiteTime(5_000)),
            "back, whatever was stamped or seen before"
        );
        assert_eq!(of(6).site_after(known), Some(SiteTime(5_020)));
        assert_eq!(of(6).elapsed, Elapsed(11));
        assert_eq!(Logged::default().site_after(None), None, "the site is new");
        assert_eq!(Logged::default().site_after(Some(SiteTime(0))), None);
    }

    #[test]
    fn a_new_leader_counts_no_time_twice() {
        let mut clock = LeaderClock::new(stamp(1000), at(0));
        // An hour as a follower, in which the leader's entries brought the hour along.
        for ms in (0..=3_600_000).step_by(60_000) {
            clock.on_applied(stamp(1000 + ms), at(ms));
        }
        clock.lead(NodeId(1), Some(SiteTime(1)), false, at(3_600_500));
        clock.set_voters([NodeId(1)].into_iter());
        let (stamp, _) = clock.stamp(at(3_600_500), wall()).unwrap();
        assert_eq!(stamp.elapsed, Elapsed(3_601_500));
    }

    #[test]
    fn elapsed_time_never_falls_behind_what_was_applied() {
        let mut clock = LeaderClock::new(stamp(5), at(0));
        clock.on_applied(stamp(77), at(3));
        clock.on_applied(stamp(70), at(3));
        clock.lead(NodeId(1), Some(SiteTime(9)), true, at(4));
        clock.set_voters([NodeId(1)].into_iter());
        let (stamp, told) = clock.stamp(at(4), wall()).unwrap();
        assert_eq!(stamp.elapsed, Elapsed(78));
        assert!(stamp.site >= SiteTime(9) && told.site == stamp.site);
    }
}
