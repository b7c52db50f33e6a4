//! How long to wait before the next try.

use std::time::Duration;

/// Waits between tries to reach the broker: the first try is immediate.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Doubling waits, from one second to thirty, each moved by up to a quarter.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next wait; `jitter` from 0 to 1.
    pub(super) fn next(&mut self, jitter: f64) -> Duration {
        let whole = BACKOFF_MIN.saturating_mul(1 << self.tries.min(6)).min(BACKOFF_MAX);
        self.tries = self.tries.saturating_add(1);
        whole.mul_f64(0.75 + jitter / 2.0).min(BACKOFF_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_one_second_to_thirty() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..8).map(|_| backoff.next(0.5).as_millis() as u64).collect();
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(Backoff::default().next(0.0), Duration::from_millis(750));
    }
}
