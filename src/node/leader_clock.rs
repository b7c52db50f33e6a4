//! The time that this box stamps on entries while it leads. Until the median of the boxes' clocks
//! decides, site time is the leader's wall clock, never going back.

use std::time::Instant;

use tally_core::time::{Elapsed, SiteTime};

use crate::clock::{self, wall_ms};
use crate::site::Stamp;

/// Whether the wall clock is synchronised is asked this often, in milliseconds.
const SYNCED_EVERY_MS: u64 = 10_000;

/// Site time and elapsed time as the leader counts them on.
#[derive(Debug)]
pub(super) struct LeaderClock {
    site: SiteTime,
    elapsed: Elapsed,
    at: Instant,
    synced: bool,
    synced_checked: Option<Instant>,
}

impl LeaderClock {
    /// Goes on from what was applied last.
    pub(super) fn new(stamp: Stamp) -> LeaderClock {
        LeaderClock {
            site: stamp.site,
            elapsed: stamp.elapsed,
            at: Instant::now(),
            synced: false,
            synced_checked: None,
        }
    }

    /// Never falls behind what was applied.
    pub(super) fn applied(&mut self, stamp: Stamp) {
        self.site = self.site.max(stamp.site);
        self.elapsed = self.elapsed.max(stamp.elapsed);
    }

    /// The stamp for an entry now.
    pub(super) fn stamp(&mut self) -> Stamp {
        let now = Instant::now();
        let passed_ms = now.saturating_duration_since(self.at).as_millis() as u64;
        if passed_ms > 0 {
            self.at += std::time::Duration::from_millis(passed_ms);
            self.elapsed = Elapsed(self.elapsed.0 + passed_ms);
            self.site = advance(self.site, wall_ms(), passed_ms);
        }
        let checked = self.synced_checked;
        if checked.is_none_or(|at| (now - at).as_millis() as u64 >= SYNCED_EVERY_MS) {
            self.synced = clock::wall_is_synced();
            self.synced_checked = Some(now);
        }
        Stamp { site: self.site, elapsed: self.elapsed, synced: self.synced }
    }
}

/// Follows the wall clock; while that is behind, runs at half speed until they meet.
fn advance(site: SiteTime, wall_ms: u64, passed_ms: u64) -> SiteTime {
    if wall_ms >= site.0 { SiteTime(wall_ms) } else { SiteTime(site.0 + passed_ms.div_ceil(2)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn site_time_never_goes_back_and_meets_a_clock_that_does() {
        let mut site = SiteTime(10_000);
        let mut wall = 9_000;
        let mut rounds = 0;
        while site.0 > wall {
            let next = advance(site, wall, 10);
            assert!(next >= site);
            site = next;
            wall += 10;
            rounds += 1;
            assert!(rounds < 1000, "they never meet");
        }
        assert_eq!(advance(site, wall + 5, 10), SiteTime(wall + 5));
    }

    #[test]
    fn a_leader_goes_on_from_what_was_applied() {
        let future = Stamp { site: SiteTime(u64::MAX / 4), elapsed: Elapsed(77), synced: true };
        let mut clock = LeaderClock::new(Stamp::default());
        clock.applied(future);
        let stamp = clock.stamp();
        assert!(stamp.site >= future.site && stamp.elapsed >= future.elapsed);
    }
}
