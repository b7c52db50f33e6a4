//! Timers: the election deadline with its jitter, and the leader's tick.

use crate::time::{Duration, Instant};

/// The generator of the election jitter, a linear congruence (Knuth's for MMIX): the same seed gives the same
/// history.
#[derive(Clone, Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) const fn new(seed: u64) -> Jitter {
        Jitter(seed)
    }

    /// The upper half: the lower bits of a linear congruence are poor.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 32
    }

    /// A span from `base` up to twice that (or an hour more).
    pub(super) fn span(&mut self, base: Duration) -> Duration {
        // The upper half of a product instead of a remainder: no division on a microcontroller.
        let share = self.next() * base.0.min(u64::from(u32::MAX));
        base + Duration(share >> 32)
    }
}

/// The two timers; which of them counts depends on the role.
#[derive(Clone, Debug)]
pub(super) struct Timers {
    /// Without news from a leader until then, the node campaigns.
    pub(super) election: Instant,
    /// Leader: the next heartbeat and check of the quorum. Candidate: ask again whoever is silent.
    pub(super) tick: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jitter_stays_between_once_and_twice_the_base_and_differs_by_seed() {
        let base = Duration::from_millis(100);
        let mut spans = [1, 2].map(|seed| {
            let mut jitter = Jitter::new(seed);
            core::array::from_fn::<Duration, 1000, _>(|_| jitter.span(base))
        });
        assert!(spans.iter().flatten().all(|span| *span >= base && span.0 < 2 * base.0));
        assert_ne!(spans[0], spans[1]);
        spans[0].sort_unstable();
        assert!(spans[0][0] < Duration::from_millis(105) && spans[0][999] > Duration::from_millis(195));
    }
}
