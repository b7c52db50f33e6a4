//! State machine safety: what a box applies at an index is the entry that is committed there.

use tally_core::id::NodeId;

use super::Committed;
use crate::log::Entry;

pub(crate) fn what_is_applied_is_committed(node: NodeId, entry: &Entry, committed: &Committed) {
    let index = entry.position.index;
    let known = committed.get(index).map(|known| &known.entry);
    assert_eq!(
        known,
        Some(entry),
        "state machine safety: {node} applies at {index} what is not committed there"
    );
}
