//! Waits between tries of what fails: they double, and are moved at random, so that those who failed together do not
//! try again together.

use std::time::Duration;

/// The waits of one kind of try.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    /// By which part of itself a wait is moved at most, up or down.
    spread: f64,
    made: u32,
}

impl Backoff {
    /// Waits from `first` on, doubling to `most`, each moved by up to `spread` (0 to 1) of itself.
    pub(crate) const fn new(first: Duration, most: Duration, spread: f64) -> Backoff {
        Backoff { first, most, spread, made: 0 }
    }

    /// The next wait. `jitter`: a random number from 0 to 1; 0.5 moves nothing.
    pub(crate) fn next(&mut self, jitter: f64) -> Duration {
        let whole = self.first.saturating_mul(1 << self.made.min(16)).min(self.most);
        self.made = self.made.saturating_add(1);
        whole.mul_f64(1.0 + self.spread * (2.0 * jitter - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_most_and_are_moved_by_no_more_than_their_spread() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 30 * second, 0.25);
        let waits: Vec<u64> = (0..40).map(|_| backoff.next(0.5).as_secs()).collect();
        assert_eq!(waits[..7], [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(waits[39], 30);
        assert_eq!(backoff.next(1.0), Duration::from_millis(37_500));
        assert_eq!(backoff.next(0.0), Duration::from_millis(22_500));
    }
}
