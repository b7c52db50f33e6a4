//! Leader append-only: as long as a box leads in a term it drops nothing of its log and rewrites nothing.

use std::collections::BTreeMap;

use tally_core::id::{NodeId, Term};
use tally_core::raft::Position;

use crate::log::Log;

/// Of each box that leads: its incarnation, its term, the end of its log when it was looked at last.
#[derive(Debug, Default)]
pub(crate) struct LeaderAppendOnly(BTreeMap<NodeId, (u64, Term, Position)>);

impl LeaderAppendOnly {
    pub(crate) fn leads(&mut self, node: NodeId, boot: u64, term: Term, log: &Log) {
        let last = log.last();
        let before = self.0.insert(node, (boot, term, last));
        let Some((_, _, end)) = before.filter(|(incarnation, of, _)| (*incarnation, *of) == (boot, term))
        else {
            return;
        };
        let there = log.get(end.index).map(|entry| entry.position);
        let kept = there == Some(end) || end.index <= log.base.index;
        assert!(
            kept && last.index >= end.index,
            "leader append-only: leader {node} had {end:?} in term {term}, now it ends at {last:?}"
        );
    }
}
