//! Progress after healing: somebody leads, a change of members that began is finished, all that was asked is
//! answered, and all members have applied all there is.

use tally_core::id::NodeId;
use tally_core::raft::{Configuration, MemberRole};

use super::Committed;
use crate::client::Client;
use crate::node::Node;

/// The one that leads in the latest term.
pub(crate) fn leader(nodes: &[Node]) -> Option<&Node> {
    let term = |node: &&Node| node.incarnation.as_ref().map(|incarnation| incarnation.core.term());
    nodes.iter().filter(|node| node.leads()).max_by_key(term)
}

/// The members with a log, when no change is under way and a voter leads.
pub(crate) fn members(nodes: &[Node]) -> Option<Vec<NodeId>> {
    let core = &leader(nodes)?.incarnation.as_ref()?.core;
    let configuration: &Configuration = core.configuration();
    let is_settled = !configuration.is_joint() && core.configuration_index() <= core.commit_index();
    let leads_itself = configuration.role(leader(nodes)?.id) == Some(MemberRole::Voter);
    let with_log = configuration.ids().filter(|id| configuration.role(*id) != Some(MemberRole::Witness));
    (is_settled && leads_itself).then(|| with_log.collect())
}

pub(crate) fn all_is_done(nodes: &[Node], clients: &[Client], committed: &Committed) -> bool {
    let is_done = |node: &Node| {
        node.incarnation.as_ref().is_some_and(|incarnation| {
            incarnation.machine.applied().0 == committed.len()
                && incarnation.core.last().index.0 == committed.len()
                && incarnation.machine.is_at_rest()
        })
    };
    clients.iter().all(Client::is_idle)
        && members(nodes)
            .is_some_and(|members| nodes.iter().filter(|node| members.contains(&node.id)).all(is_done))
}
