//! A cell is refused only where a limit requires it, and each refusal is reported.

use std::collections::BTreeMap;

use tally_core::id::NodeId;

use crate::boxes::Incarnation;

/// For each box, over all its incarnations: cells of its own batches that the site refused.
#[derive(Debug, Default)]
pub(crate) struct RefusedCells(BTreeMap<NodeId, u64>);

impl RefusedCells {
    /// A incarnation ends.
    pub(crate) fn ended(&mut self, at: NodeId, incarnation: &Incarnation) {
        *self.0.entry(at).or_default() += incarnation.handle.metrics().cells_refused.get();
    }

    pub(crate) fn of(&self, at: NodeId) -> u64 {
        self.0.get(&at).copied().unwrap_or(0)
    }

    /// For a site that reaches no limit: nothing is refused.
    pub(crate) fn are_none(&self) {
        let some = self.0.iter().find(|(_, refused)| **refused > 0);
        assert!(
            some.is_none(),
            "refused cells: box and cells that were refused although nothing is wrong: {some:?}"
        );
    }
}
