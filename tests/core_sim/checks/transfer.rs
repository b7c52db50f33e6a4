//! PendingTransfer over: only a box that has all that its leader has taken is asked to take over, and until it leads nothing is
//! taken that it would lack.

use tally_core::id::{LogIndex, NodeId};

use crate::cores::Core;

/// The box is asked to take over; `last` is the end of the leader's log, with the empty entries that begin another
/// replication set: a witness refuses whoever lacks one.
pub(crate) fn the_successor_has_all(node: NodeId, core: &dyn Core, last: LogIndex, to: NodeId) {
    let status = core.status();
    let matched = status.peers.iter().find(|peer| peer.id == to).map(|peer| peer.matched);
    let has_all = status.transfer != Some(to) || matched.is_some_and(|matched| matched >= last);
    assert!(has_all, "transfer: {node} transfers leadership to {to}, which has {matched:?} of {last}");
}

/// A proposal was taken.
pub(crate) fn nobody_is_to_take_over(node: NodeId, core: &dyn Core) {
    let to = core.status().transfer;
    assert_eq!(to, None, "transfer: {node} takes a proposal while it transfers leadership");
}
