//! Exactly once: a report has its effect at one index and at no other, however often it is in the log.

use std::collections::HashMap;

use tally_core::id::LogIndex;
use tallyd::site::{Applied, Verdict};

use super::conservation::Report;

#[derive(Debug, Default)]
pub(crate) struct ExactlyOnce(HashMap<Report, LogIndex>);

impl ExactlyOnce {
    pub(crate) fn applied(&mut self, index: LogIndex, applied: &Applied) {
        let Applied::Report { source, epoch, number, verdict, .. } = applied else { return };
        let Verdict::Receipt { repeated: false, .. } = verdict else { return };
        let first = *self.0.entry((*source, *epoch, *number)).or_insert(index);
        assert_eq!(first, index, "exactly once: report {number} of source {source:?} has its effect twice");
    }
}
