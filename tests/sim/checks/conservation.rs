//! Conservation: an acknowledged amount is in the totals exactly once; one with an unknown outcome, at most once; a
//! count without a waiter at most once, and it is missing only if a crash took it.

use std::collections::{BTreeMap, BTreeSet};

use tally_core::id::NodeId;
use tallyd::site::Site;

use super::{OneIncarnation, RefusedCells};

#[derive(Debug, Default)]
pub(crate) struct Conservation {
    /// For each series: the amount that is certainly in it, and what may be in it besides.
    waited: BTreeMap<String, (i128, i128)>,
    counted: BTreeMap<String, (OneIncarnation, i128)>,
    crashed: BTreeSet<OneIncarnation>,
    left: BTreeSet<NodeId>,
    /// Series of whose amounts the site has forgotten whether it took them.
    unknown: BTreeSet<String>,
}

impl Conservation {
    pub(crate) fn surely(&mut self, series: &str, amount: u128) {
        self.surely_signed(series, amount as i128);
    }

    pub(crate) fn surely_signed(&mut self, series: &str, amount: i128) {
        self.waited.entry(series.to_owned()).or_default().0 += amount;
    }

    pub(crate) fn perhaps(&mut self, series: &str, amount: u128) {
        self.waited.entry(series.to_owned()).or_default().1 += amount as i128;
    }

    /// What a read of this series that begins now must see at least.
    pub(crate) fn least(&self, series: &str) -> i128 {
        self.waited.get(series).map_or(0, |(surely, _)| *surely)
    }

    pub(crate) fn counted(&mut self, incarnation: OneIncarnation, series: &str, amount: u128) {
        self.counted.entry(series.to_owned()).or_insert((incarnation, 0)).1 += amount as i128;
    }

    /// The site has forgotten what became of a report to this series.
    pub(crate) fn is_unknown(&mut self, series: &str) {
        self.unknown.insert(series.to_owned());
    }

    /// An incarnation has crashed: its uncommitted counts are gone.
    pub(crate) fn crashed(&mut self, incarnation: OneIncarnation) {
        self.crashed.insert(incarnation);
    }

    /// A box is no member at the end: what it had counted and not committed is of no use to anybody.
    pub(crate) fn left(&mut self, at: NodeId) {
        self.left.insert(at);
    }

    pub(crate) fn is_crashed(&self, incarnation: OneIncarnation) -> bool {
        self.crashed.contains(&incarnation) || self.left.contains(&incarnation.0)
    }

    /// Holds the totals of a site that has come to rest against what the clients know.
    /// `founded`: the feature level that it was founded with. Before level 2 a box ahead of site time loses counts.
    pub(crate) fn holds(&self, site: &Site, founded: u32, refused: &RefusedCells) {
        let total = |series: &str| site.find(series).map_or(0, |id| site.series_total(id));
        let waited = self.waited.iter().filter(|(series, _)| !self.unknown.contains(*series));
        for (series, (surely, perhaps)) in waited {
            let total = total(series);
            assert!(
                (*surely..=surely + perhaps).contains(&total),
                "conservation: {series} has {total}, {surely} were acknowledged and {perhaps} may be there besides"
            );
        }
        for (series, (incarnation, counted)) in &self.counted {
            let total = total(series);
            assert!(total <= *counted, "conservation: {series} has {total}, and only {counted} were counted");
            let is_told = self.is_crashed(*incarnation) || refused.of(incarnation.0) > 0;
            let is_whole = total == *counted || is_told || founded < 2;
            assert!(
                is_whole,
                "conservation: {series} has {total} of {counted}, no crash took any, and no refusal was told"
            );
        }
    }
}
