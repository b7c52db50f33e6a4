//! Leader completeness: the log of a new leader has all that was committed in terms before.

use tally_core::id::{NodeId, Term};

use super::Committed;
use crate::log::Log;

pub(crate) fn a_leader_has_what_is_committed(node: NodeId, term: Term, log: &Log, committed: &Committed) {
    for known in committed.after(log.base.index).iter().filter(|known| known.term < term) {
        let position = known.entry.position;
        let own = log.get(position.index).map(|own| own.position);
        assert_eq!(
            own,
            Some(position),
            "leader completeness: leader {node} of term {term} lacks what is committed"
        );
    }
}
