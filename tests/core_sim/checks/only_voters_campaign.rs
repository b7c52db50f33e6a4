//! Only voters campaign: by the configuration in force, or by the one before as long as that in force is not committed
//! (the box that removes itself may be the only one that knows it).

use tally_core::id::NodeId;
use tally_core::raft::{Body, Configuration, Message};

use crate::cores::Core;

/// `before` is the configuration before the one in force.
pub(crate) fn only_voters_campaign(
    node: NodeId,
    core: &dyn Core,
    message: &Message,
    before: impl FnOnce() -> Configuration,
) {
    let asks = matches!(message.body, Body::PreVote { .. } | Body::Vote { .. } | Body::WitnessVote { .. });
    let is_voter = |of: &Configuration| of.voters().chain(of.outgoing()).any(|id| id == node);
    if !asks || is_voter(core.configuration()) {
        return;
    }
    assert!(
        core.commit_index() < core.configuration_index() && is_voter(&before()),
        "only voters campaign: {node} asks for votes, its members are {:?}",
        core.configuration()
    );
}
