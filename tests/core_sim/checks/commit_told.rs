//! The commit index is told: whatever a leader says to a follower carries it, also when the window of appends is full.

use tally_core::id::NodeId;
use tally_core::raft::{Body, Message};

use crate::cores::Core;

pub(crate) fn the_commit_index_is_told(node: NodeId, core: &dyn Core, to: NodeId, message: &Message) {
    if let Body::Append { commit, .. } | Body::Heartbeat { commit, .. } = message.body {
        let own = core.commit_index();
        assert_eq!(commit, own, "commit index told: {node} tells {to} of {commit} and knows {own}");
    }
}
