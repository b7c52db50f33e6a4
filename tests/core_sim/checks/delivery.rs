//! Delivery: numbers have no gap, a number is published with the same content whoever publishes it and
//! however often; deduped by number, the summaries come to the totals, which never go back.

use std::collections::BTreeMap;

use tallyd::site::Summary;

use crate::client::SERIES;
use crate::machine::Machine;

#[derive(Debug, Default)]
pub(crate) struct Delivery(BTreeMap<u64, Summary>);

impl Delivery {
    /// A leader publishes; the broker acknowledges.
    pub(crate) fn published(&mut self, summaries: Vec<Summary>) {
        for summary in summaries {
            let seq = summary.seq.expect("only numbered summaries are published");
            let known = self.0.entry(seq).or_insert_with(|| summary.clone());
            assert_eq!(*known, summary, "delivery: summary {seq} was published with other content before");
        }
    }

    /// At the end, when everything is delivered.
    pub(crate) fn holds(&self, machine: &Machine) {
        assert!(machine.is_at_rest());
        let numbers: Vec<u64> = self.0.keys().copied().collect();
        assert_eq!(numbers, (1..=machine.delivered()).collect::<Vec<u64>>(), "delivery: numbers have gaps");
        let mut sums = BTreeMap::<u64, i128>::new();
        for summary in self.0.values() {
            let sum = sums.entry(machine.series_of(summary)).or_default();
            *sum += summary.amount.increase().expect("amounts of counters are small here");
            assert_eq!(summary.total, Some(*sum), "delivery: the running total of {summary:?}");
        }
        for series in 0..SERIES {
            let sum = sums.get(&series).copied().unwrap_or(0);
            assert_eq!(sum, i128::from(machine.total(series)), "delivery: the summaries of series {series}");
        }
    }
}
