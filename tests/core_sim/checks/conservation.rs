//! Conservation: what was acknowledged is in the totals once; what was never acknowledged, once or not
//! at all; and nothing else is.

use std::collections::{BTreeMap, BTreeSet};

use tally_core::id::{Epoch, ReportNumber, SourceId};

use crate::client::SERIES;
use crate::machine::Machine;

/// A source, an epoch of it, a number in that.
pub(crate) type Report = (SourceId, Epoch, ReportNumber);

#[derive(Debug, Default)]
pub(crate) struct Conservation {
    sent: BTreeMap<Report, Vec<(u64, u64)>>,
    acknowledged: BTreeSet<Report>,
    acknowledged_sums: BTreeMap<u64, u64>,
    sent_sums: BTreeMap<u64, u64>,
}

impl Conservation {
    pub(crate) fn sent(&mut self, report: Report, cells: &[(u64, u64)]) {
        assert!(self.sent.insert(report, cells.to_vec()).is_none(), "a client sends a number once");
        for (series, amount) in cells {
            *self.sent_sums.entry(*series).or_default() += amount;
        }
    }

    pub(crate) fn acknowledged(&mut self, report: Report) {
        if self.acknowledged.insert(report) {
            for (series, amount) in &self.sent[&report] {
                *self.acknowledged_sums.entry(*series).or_default() += amount;
            }
        }
    }

    /// What every read of a series must see from now on.
    pub(crate) fn acknowledged_sum(&self, series: u64) -> u64 {
        self.acknowledged_sums.get(&series).copied().unwrap_or(0)
    }

    /// What no read of a series can exceed now.
    pub(crate) fn sent_sum(&self, series: u64) -> u64 {
        self.sent_sums.get(&series).copied().unwrap_or(0)
    }

    /// Holds a box's totals against what the clients know.
    pub(crate) fn holds(&self, machine: &Machine) {
        let is_applied =
            |(source, epoch, number): &Report| number.get() <= machine.reports_of(*source, *epoch);
        for report in &self.acknowledged {
            assert!(
                is_applied(report),
                "conservation: report {report:?} was acknowledged and is not applied"
            );
        }
        for series in 0..SERIES {
            let of_series = |cells: &Vec<(u64, u64)>| -> u64 {
                cells.iter().filter(|(of, _)| *of == series).map(|(_, amount)| amount).sum()
            };
            let applied = self.sent.iter().filter(|(report, _)| is_applied(report));
            let expected: u64 = applied.map(|(_, cells)| of_series(cells)).sum();
            assert_eq!(machine.total(series), expected, "conservation: the total of series {series}");
        }
    }
}
