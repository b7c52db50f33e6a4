//! When counts without a waiter are sent: once an interval, at the same instants of site time on all boxes, so that
//! the leader can put them into its log together. Pure: site time and instants in, an instant out.

use std::time::{Duration, Instant};

use tally_core::time::SiteTime;

/// The leader waits for the others' counts for this share of the interval,
const JOIN_SHARE: u32 = 10;
/// and no longer than this: by how much a box sees site time later than the leader, and its counts take to get there.
const JOIN_MAX: Duration = Duration::from_millis(100);

/// The next instant of this box.
#[derive(Debug)]
pub(super) struct Instants {
    every: Duration,
    due: Instant,
    /// When counts were sent last.
    last_sent: Instant,
}

impl Instants {
    pub(super) fn new(every: Duration, now: Instant) -> Instants {
        let mut instants = Instants { every, due: now, last_sent: now };
        instants.on_sent(now);
        instants
    }

    /// Sets the interval between instants.
    pub(super) fn set_every(&mut self, every: Duration) {
        self.every = every;
    }

    /// How long a leader waits for what others send at the same instant.
    pub(super) fn join_wait(&self) -> Duration {
        (self.every / JOIN_SHARE).min(JOIN_MAX)
    }

    /// Sets the next instant by site time as seen now; `None`: it is not known. An instant at which nothing waits
    /// passes.
    pub(super) fn on_site_time(&mut self, site: Option<SiteTime>, is_empty: bool, now: Instant) {
        let next = self.next(site, now);
        let passes = is_empty && now >= self.due;
        self.due = if passes { next } else { self.due.min(next) };
    }

    /// Counts were sent. The next instant is not later than this; the next look at site time gives it exactly.
    pub(super) fn on_sent(&mut self, now: Instant) {
        self.last_sent = now;
        self.due = now + self.every + self.join_wait();
    }

    /// When counts are sent next.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// When counts were sent last.
    pub(super) fn last_sent(&self) -> Instant {
        self.last_sent
    }

    /// The next instant, but not right after counts went: site time may be seen a little earlier than before.
    fn next(&self, site: Option<SiteTime>, now: Instant) -> Instant {
        let Some(site) = site else {
            let after_last = self.last_sent + self.every;
            return if now < after_last { after_last } else { now + self.every };
        };
        let from = now.max(self.last_sent + self.join_wait());
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let every_ms = millis(self.every).max(1);
        let site_ms = site.0.saturating_add(millis(from.duration_since(now)));
        from + Duration::from_millis(every_ms - site_ms % every_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn boxes_that_started_and_counted_at_different_times_send_at_the_same_instants() {
        let start = Instant::now();
        let site = |at: Instant| Some(SiteTime(70_000_000 + (at - start).as_millis() as u64));
        let mut went = Vec::new();
        for begins in [0, 137, 612, 999] {
            let (mut instants, mut times) = (Instants::new(EVERY, start + ms(begins)), Vec::new());
            for now in (begins..9_000).map(|at| start + ms(at)) {
                instants.on_site_time(site(now), false, now);
                if now >= instants.due() {
                    times.push(site(now).unwrap().0);
                    instants.on_sent(now);
                }
            }
            assert!(times.iter().all(|time| time % 1000 == 0), "{times:?}");
            assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 1000), "{times:?}");
            went.push(times);
        }
        assert!(went.iter().all(|times| times.last() == went[0].last()));
    }

    #[test]
    fn counts_that_come_after_a_silence_wait_for_the_next_instant() {
        let start = Instant::now();
        let mut instants = Instants::new(EVERY, start);
        for at in (0..5_300).step_by(50) {
            instants.on_site_time(Some(SiteTime(at)), true, start + ms(at));
            assert!(instants.due() > start + ms(at), "the loop must not spin");
        }
        instants.on_site_time(Some(SiteTime(5_300)), false, start + ms(5_300));
        assert_eq!(instants.due(), start + ms(6_000));
    }

    #[test]
    fn what_is_due_stays_due_until_it_went() {
        let start = Instant::now();
        let mut instants = Instants::new(EVERY, start);
        for at in [400, 990, 1_400, 1_999, 2_700] {
            instants.on_site_time(Some(SiteTime(at)), false, start + ms(at));
            assert_eq!(instants.due(), start + ms(1_000), "another batch is still in flight, say");
        }
    }

    #[test]
    fn site_time_that_is_seen_a_little_earlier_sends_nothing_twice() {
        let start = Instant::now();
        let mut instants = Instants::new(EVERY, start);
        instants.on_site_time(Some(SiteTime(999)), false, start + ms(999));
        instants.on_sent(start + ms(1_000));
        instants.on_site_time(Some(SiteTime(995)), false, start + ms(1_000));
        assert_eq!(instants.due(), start + ms(2_005));
    }

    #[test]
    fn counts_that_went_along_with_others_just_before_an_instant_go_at_instants_again() {
        let start = Instant::now();
        let mut instants = Instants::new(EVERY, start);
        instants.on_sent(start + ms(950));
        instants.on_site_time(Some(SiteTime(950)), false, start + ms(950));
        assert_eq!(instants.due(), start + ms(2_000));
    }

    #[test]
    fn without_site_time_counts_go_an_interval_after_the_last() {
        let start = Instant::now();
        let mut instants = Instants::new(EVERY, start);
        instants.on_site_time(None, false, start + ms(300));
        assert_eq!(instants.due(), start + EVERY);
        instants.on_site_time(Some(SiteTime(77_800)), false, start + ms(500));
        assert_eq!(instants.due(), start + ms(700), "now it is known");
    }

    #[test]
    fn a_shorter_interval_is_in_force_at_once() {
        let start = Instant::now();
        let mut instants = Instants::new(Duration::from_secs(3_600), start);
        instants.set_every(ms(10));
        instants.on_site_time(Some(SiteTime(1_234)), false, start + ms(50));
        assert_eq!(instants.due(), start + ms(56));
        assert_eq!(instants.join_wait(), ms(1));
    }
}
