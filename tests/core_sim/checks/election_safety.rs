//! Election safety: a term has one leader at most.

use std::collections::BTreeMap;

use tally_core::id::{NodeId, Term};

#[derive(Debug, Default)]
pub(crate) struct ElectionSafety(BTreeMap<Term, NodeId>);

impl ElectionSafety {
    pub(crate) fn leads(&mut self, node: NodeId, term: Term) {
        let first = *self.0.entry(term).or_insert(node);
        assert_eq!(first, node, "election safety: two leaders in term {term}");
    }
}
