//! The replication set: the witness is written to when so many of the set have an entry of the subterm that they are a
//! majority together with it, and a voter comes back into the set only once it has caught up.

use tally_core::id::NodeId;
use tally_core::raft::{Body, Message, Position};

use crate::cores::Core;
use crate::log::Log;

/// For whom the witness stands, at a leader.
#[derive(Debug, Default)]
pub(crate) struct ReplicationSet {
    witness_for: Option<NodeId>,
}

impl ReplicationSet {
    /// A leader begins, or has other members.
    pub(crate) fn adapted(&mut self, core: &dyn Core) {
        self.witness_for = core.status().witness_for;
    }

    /// A leader has begun the subterm of another set.
    pub(crate) fn changed(&mut self, node: NodeId, core: &dyn Core) {
        let status = core.status();
        let before = std::mem::replace(&mut self.witness_for, status.witness_for);
        let Some(back) = before.filter(|before| status.witness_for != Some(*before)) else { return };
        let lags = status.peers.iter().any(|peer| peer.id == back && !peer.caught_up);
        assert!(!lags, "replication set: {node} takes {back} back before it has caught up");
    }
}

pub(crate) fn a_sub_quorum_has_the_subterm(
    node: NodeId,
    core: &dyn Core,
    log: &Log,
    durable: Position,
    message: &Message,
) {
    let Body::WitnessAppend { subterm, voters } = message.body else { return };
    let is_of_it = |position: &Position| (position.term, position.subterm) == (message.term, subterm);
    let first = log.entries().map(|entry| entry.position).find(is_of_it).map(|position| position.index);
    // Where the subterm began is not known any more.
    if is_of_it(&log.base) {
        return;
    }
    let status = core.status();
    let has = |id: NodeId| {
        let peer = status.peers.iter().find(|peer| peer.id == id);
        let end = if id == node { Some(durable.index) } else { peer.map(|peer| peer.matched) };
        first.is_some_and(|first| end >= Some(first))
    };
    let configuration = core.configuration();
    let witness = configuration.witness();
    let in_new = configuration.voters().any(|id| Some(id) == witness);
    let half = if in_new { configuration.voters().count() } else { configuration.outgoing().count() };
    let holders = voters.iter().filter(|id| has(*id)).count();
    assert!(
        holders + 1 > half / 2,
        "replication set: {node} writes to the witness when {holders} have an entry of the subterm"
    );
}
