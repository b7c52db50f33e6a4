//! Bounded memory: a leader's proposals that are not committed, and what a core wants to say at once, have bounds,
//! whatever the network and the disks do.

use tally_core::id::{LogIndex, NodeId};
use tally_core::raft::INFLIGHT_MESSAGES_MAX;

/// Answers, requests, heartbeats and probes beside the appends, at most one of each kind.
const OTHER_MESSAGES: usize = 10;

pub(crate) fn messages_are_few(node: NodeId, to: NodeId, messages: usize) {
    let most = INFLIGHT_MESSAGES_MAX + OTHER_MESSAGES;
    assert!(messages <= most, "bounded memory: {node} has {messages} messages for {to} at once");
}

/// What a leader proposed and has not committed, with its bytes: one has room in any case, more only within
/// the bound.
pub(crate) fn the_tail_is_bounded(proposals: &[(LogIndex, u64)], bytes_max: u64) {
    let bytes: u64 = proposals.iter().map(|(_, bytes)| bytes).sum();
    let bounded = proposals.len() <= 1 || bytes <= bytes_max;
    assert!(
        bounded,
        "bounded memory: a leader has {bytes} bytes in {} proposals uncommitted",
        proposals.len()
    );
}
