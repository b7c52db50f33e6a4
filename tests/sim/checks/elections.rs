//! Election safety: a term has one leader at most. Leader completeness: its log has all that was
//! committed in terms before.

use std::collections::BTreeMap;

use tally_core::id::{NodeId, Term};

use super::Committed;
use crate::log::Log;

#[derive(Debug, Default)]
pub(crate) struct Elections(BTreeMap<Term, NodeId>);

impl Elections {
    pub(crate) fn leads(&mut self, node: NodeId, term: Term, log: &Log, committed: &Committed) {
        let first = *self.0.entry(term).or_insert(node);
        assert_eq!(first, node, "two leaders in term {term}");
        for known in committed.after(log.base.index).iter().filter(|known| known.term < term) {
            let position = known.entry.position;
            let own = log.get(position.index).map(|own| own.position);
            assert_eq!(own, Some(position), "leader {node} of term {term} lacks what is committed");
        }
    }
}
