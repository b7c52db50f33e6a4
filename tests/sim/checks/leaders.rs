//! A term has one leader.

use std::collections::BTreeMap;

use tally_core::id::NodeId;

#[derive(Debug, Default)]
pub(crate) struct Leaders(BTreeMap<u64, NodeId>);

impl Leaders {
    pub(crate) fn leads(&mut self, who: NodeId, term: u64) {
        let first = *self.0.entry(term).or_insert(who);
        assert_eq!(first, who, "election safety: two leaders in term {term}");
    }

    pub(crate) fn terms(&self) -> usize {
        self.0.len()
    }
}
