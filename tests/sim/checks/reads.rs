//! Linearizable reads: a read sees everything that was acknowledged, or seen by another read, before it began.

use std::collections::BTreeMap;

use super::Conservation;

#[derive(Debug, Default)]
pub(crate) struct Reads(BTreeMap<String, i128>);

impl Reads {
    /// What a read of this series that is asked for now must see at least.
    pub(crate) fn asked(&self, series: &str, conservation: &Conservation) -> i128 {
        conservation.least(series).max(self.0.get(series).copied().unwrap_or(0))
    }

    pub(crate) fn saw(&mut self, series: &str, least: i128, total: i128) {
        assert!(
            total >= least,
            "reads: {series} has {total}, and {least} were there before it was asked for"
        );
        let seen = self.0.entry(series.to_owned()).or_default();
        *seen = total.max(*seen);
    }
}
