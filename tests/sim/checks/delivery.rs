//! A number is published with the same content each time, numbers have no gap, and the increases of all numbers together
//! are the totals.

use std::collections::BTreeMap;

use tally_core::report::Amount;
use tallyd::site::{Site, Summary};

#[derive(Debug, Default)]
pub(crate) struct Delivery {
    published: BTreeMap<u64, (String, Summary)>,
}

impl Delivery {
    pub(crate) fn published(&mut self, site: &Site, summary: &Summary) {
        let seq = summary.seq.expect("a numbered summary has its number");
        let content = (site.name(summary.series).to_owned(), summary.clone());
        let first = self.published.entry(seq).or_insert_with(|| content.clone());
        assert_eq!(*first, content, "delivery: number {seq} is published with other content");
    }

    /// Of a site that has come to rest, with all windows closed and delivered.
    pub(crate) fn holds(&self, site: &Site) {
        let mut sums: BTreeMap<&str, i128> = BTreeMap::new();
        for (expected, (seq, (series, summary))) in (1..).zip(&self.published) {
            assert_eq!(*seq, expected, "delivery: a gap in the numbers");
            *sums.entry(series).or_default() += match summary.amount {
                Amount::Counter(amount) => amount as i128,
                Amount::Updown { up, down } => up as i128 - down as i128,
                Amount::Sample(sample) => i128::from(sample.count),
            };
        }
        for (series, sum) in sums {
            let total = site.find(series).map_or(0, |id| site.series_total(id));
            assert_eq!(sum, total, "delivery: what was published of {series} is not its total");
        }
    }

    pub(crate) fn numbers(&self) -> usize {
        self.published.len()
    }
}
