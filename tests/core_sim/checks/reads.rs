//! Linearizable reads: a read sees everything that was acknowledged, or seen by another read, before it
//! was asked; and nothing that was never sent.

use std::collections::BTreeMap;

use super::Conservation;

#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// The least that each client's read may show.
    floors: BTreeMap<usize, u64>,
    /// The most that a finished read of each series has shown.
    seen: BTreeMap<u64, u64>,
}

impl Reads {
    pub(crate) fn asked(&mut self, client: usize, series: u64, conservation: &Conservation) {
        let seen = self.seen.get(&series).copied().unwrap_or(0);
        self.floors.insert(client, seen.max(conservation.acknowledged_sum(series)));
    }

    pub(crate) fn answered(&mut self, client: usize, series: u64, total: u64) {
        let floor = self.floors[&client];
        assert!(
            total >= floor,
            "linearizable reads: a read of series {series} shows {total}, after {floor} was known"
        );
        let seen = self.seen.entry(series).or_default();
        *seen = total.max(*seen);
    }

    /// At the end: no read has shown more than was ever sent.
    pub(crate) fn hold(&self, conservation: &Conservation) {
        for (series, seen) in &self.seen {
            assert!(
                *seen <= conservation.sent_sum(*series),
                "linearizable reads: a read of series {series} shows what nobody sent"
            );
        }
    }
}
