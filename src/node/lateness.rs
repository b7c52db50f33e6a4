//! How late this box's loop wakes: too little processor time delays heartbeats as a slow link does. Pure: delays go
//! in, the usual delay comes out.

use std::collections::VecDeque;
use std::time::Duration;

use tally_core::time::Instant;

/// The worst of each second is kept for so many seconds.
const SECONDS: u64 = 60;
/// So many of them are outliers. What starves is late again and again.
const OUTLIERS: usize = 2;
/// What is later than this was stopped, or its machine stood still: a longer timeout would only have the others wait
/// longer for it each time,
const STOPPED: Duration = Duration::from_secs(1);
/// unless it happens so often that the site would get no rest.
const STOPS: usize = 8;

/// The worst delays of the last minute.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    /// The worst delay of each second of the monotonic clock.
    worst: VecDeque<(u64, Duration)>,
    usual: Duration,
}

impl Lateness {
    /// The loop woke so late.
    pub(super) fn add(&mut self, late: Duration, now: Instant) {
        let second = now.0 / 1_000_000;
        match self.worst.back_mut() {
            Some((last, worst)) if *last == second => *worst = late.max(*worst),
            _ => self.worst.push_back((second, late)),
        }
        while self.worst.front().is_some_and(|(first, _)| first + SECONDS <= second) {
            self.worst.pop_front();
        }
        let mut sorted: Vec<Duration> = self.worst.iter().map(|(_, late)| *late).collect();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        let stops = sorted.iter().take_while(|late| **late > STOPPED).count();
        let outliers = if stops > STOPS { STOPS } else { stops + OUTLIERS };
        self.usual = sorted.get(outliers).copied().unwrap_or_default();
    }

    /// How late the loop wakes now and then, outliers excluded.
    pub(super) fn usual(&self) -> Duration {
        self.usual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at(ms: u64) -> Instant {
        Instant(ms * 1000)
    }

    #[test]
    fn what_starves_is_late_again_and_again_and_an_outlier_is_none_of_it() {
        let mut lateness = Lateness::default();
        for heartbeat in 0..200 {
            lateness.add(ms(1), at(heartbeat * 50));
        }
        lateness.add(ms(8000), at(18_000));
        lateness.add(ms(3000), at(21_100));
        assert_eq!(lateness.usual(), ms(1), "stopped twice in a minute");
        for heartbeat in 0..100 {
            lateness.add(ms(if heartbeat % 30 == 0 { 300 } else { 5 }), at(22_000 + heartbeat * 50));
        }
        assert_eq!(lateness.usual(), ms(300));
        for heartbeat in 0..1300 {
            lateness.add(ms(2), at(27_000 + heartbeat * 50));
        }
        assert_eq!(lateness.usual(), ms(2), "a minute later that is over");
    }

    #[test]
    fn what_is_stopped_now_and_then_is_not_waited_for_the_longer_each_time() {
        let mut lateness = Lateness::default();
        for second in 0..60 {
            lateness.add(ms(if second % 8 == 0 { 1300 } else { 4 }), at(second * 1000));
        }
        assert_eq!(lateness.usual(), ms(4), "eight times a minute");
        for second in 60..120 {
            lateness.add(ms(if second % 5 == 0 { 1300 } else { 4 }), at(second * 1000));
        }
        assert_eq!(lateness.usual(), ms(1300), "twelve times a minute");
    }
}
