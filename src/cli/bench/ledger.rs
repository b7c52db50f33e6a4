//! What the clients were told, against what the site holds: lost and doubled increments.

use std::collections::HashMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// Increments by series: answered as done, and never answered with certainty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BenchLedger {
    acknowledged: Vec<u64>,
    unknown: Vec<u64>,
}

/// The comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// Increments whose client was told that they are counted.
    pub acknowledged: u64,
    /// Increments whose outcome no client knows: each is counted once or not at all.
    pub unknown: u64,
    /// By how much the totals rose.
    pub held: i128,
    /// Acknowledged, and not in the totals.
    pub lost: u64,
    /// In the totals beyond what was acknowledged or unknown.
    pub doubled: u64,
}

impl BenchLedger {
    /// For so many series.
    pub fn new(series: usize) -> BenchLedger {
        BenchLedger { acknowledged: vec![0; series], unknown: vec![0; series] }
    }

    /// One increment of each of these series was acknowledged.
    pub fn acknowledge(&mut self, series: impl Iterator<Item = usize>) {
        for place in series {
            self.acknowledged[place] += 1;
        }
    }

    /// One increment of each of these has no known outcome.
    pub fn leave_open(&mut self, series: impl Iterator<Item = usize>) {
        for place in series {
            self.unknown[place] += 1;
        }
    }

    /// Compares series by series, so that a loss in one does not hide a double in another.
    pub fn prove(
        &self,
        names: &[String],
        before: &HashMap<String, i128>,
        after: &HashMap<String, i128>,
    ) -> Proof {
        let mut proof = Proof::default();
        for ((name, &acknowledged), &unknown) in names.iter().zip(&self.acknowledged).zip(&self.unknown) {
            let total = |totals: &HashMap<String, i128>| totals.get(name).copied().unwrap_or(0);
            let held = total(after) - total(before);
            let missing = i128::from(acknowledged) - held;
            let excess = held - i128::from(acknowledged) - i128::from(unknown);
            proof.acknowledged += acknowledged;
            proof.unknown += unknown;
            proof.held += held;
            proof.lost += u64::try_from(missing).unwrap_or(0);
            proof.doubled += u64::try_from(excess).unwrap_or(0);
        }
        proof
    }
}

/// A time in which nothing was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Gap {
    /// When the last acknowledgement before it came, Unix milliseconds.
    pub from_unix_ms: f64,
    /// How long it lasted, in milliseconds.
    pub ms: f64,
}

/// Finds the gaps in a stream of acknowledgements.
#[derive(Clone, Debug)]
pub struct Gaps {
    /// Shorter ones are not kept.
    least_ms: f64,
    begun: Instant,
    begun_unix_ms: f64,
    last: Instant,
    kept: Vec<Gap>,
}

/// As many gaps are kept.
const GAPS_MAX: usize = 10_000;

impl Gaps {
    /// From now on.
    pub fn new(least_ms: f64) -> Gaps {
        let begun = Instant::now();
        let begun_unix_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |span| span.as_secs_f64() * 1e3);
        Gaps { least_ms, begun, begun_unix_ms, last: begun, kept: Vec::new() }
    }

    /// Something was acknowledged (or the run ended).
    pub fn mark(&mut self, now: Instant) {
        let ms = now.saturating_duration_since(self.last).as_secs_f64() * 1e3;
        if ms >= self.least_ms && self.kept.len() < GAPS_MAX {
            let since_begin_ms = self.last.saturating_duration_since(self.begun).as_secs_f64() * 1e3;
            self.kept.push(Gap { from_unix_ms: self.begun_unix_ms + since_begin_ms, ms });
        }
        self.last = now;
    }

    /// Those found, in order of time.
    pub fn list(&self) -> &[Gap] {
        &self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn totals(values: &[i128]) -> HashMap<String, i128> {
        values.iter().enumerate().map(|(place, &value)| (place.to_string(), value)).collect()
    }

    fn prove(acknowledged: &[u64], unknown: &[u64], before: &[i128], after: &[i128]) -> Proof {
        let names: Vec<String> = (0..acknowledged.len()).map(|place| place.to_string()).collect();
        let ledger = BenchLedger { acknowledged: acknowledged.to_vec(), unknown: unknown.to_vec() };
        ledger.prove(&names, &totals(before), &totals(after))
    }

    #[test]
    fn what_was_acknowledged_and_is_held_is_neither_lost_nor_doubled() {
        let proof = prove(&[5, 0, 7], &[0, 0, 0], &[100, 3], &[105, 3, 7]);
        assert_eq!(proof, Proof { acknowledged: 12, unknown: 0, held: 12, lost: 0, doubled: 0 });
    }

    #[test]
    fn a_loss_in_one_series_does_not_hide_a_double_in_another() {
        let proof = prove(&[5, 5], &[0, 0], &[0, 0], &[4, 6]);
        assert_eq!((proof.lost, proof.doubled, proof.held), (1, 1, 10));
    }

    #[test]
    fn an_unknown_outcome_may_be_counted_once_or_not() {
        for (held, lost, doubled) in [(4, 1, 0), (5, 0, 0), (6, 0, 0), (7, 0, 1)] {
            let proof = prove(&[5], &[1], &[0], &[held]);
            assert_eq!((proof.lost, proof.doubled), (lost, doubled), "{held}");
        }
    }

    #[test]
    fn gaps_of_the_least_length_are_kept_with_their_begin() {
        let mut gaps = Gaps::new(50.0);
        let begun = gaps.begun;
        for ms in [10, 20, 120, 130, 180] {
            gaps.mark(begun + Duration::from_millis(ms));
        }
        let found: Vec<(f64, f64)> = gaps
            .list()
            .iter()
            .map(|gap| ((gap.from_unix_ms - gaps.begun_unix_ms).round(), gap.ms.round()))
            .collect();
        assert_eq!(found, [(20.0, 100.0), (130.0, 50.0)]);
    }
}
