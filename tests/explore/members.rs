//! What must hold of configurations and of who is counted by them: beyond the safety of Raft, which looks only at
//! what comes of it.

use std::rc::Rc;

use tally_core::id::{LogIndex, NodeId, Term};
use tally_core::raft::{Body, Change, Configuration, Role};

use crate::explored::{Explored, Wish};
use crate::node::{Node, Packet};
use crate::witness::WitnessNode;

/// Of a node after it acted: its configuration is that of its log, a dropped one is undone, one change is made at a
/// time, and nobody without a vote leads or campaigns.
pub(crate) fn look<C: Explored>(node: &Node<C>, all: &[Rc<Node<C>>], committed: usize) -> Result<(), String> {
    let Some(core) = &node.core else { return Ok(()) };
    let (latest, before) = node.log.configurations();
    let in_force = core.configuration();
    // What a log begins with stands, for the log, where it begins.
    let is_there = in_force.index == latest.index || latest.index == node.log.base.index;
    if in_force.configuration != latest.configuration || !is_there {
        return Err(format!(
            "configuration in force: at {} it is {:?} of entry {}, and in its log {:?} of entry {}",
            node.id, in_force.configuration, in_force.index, latest.configuration, latest.index
        ));
    }
    let is_committed = |index: LogIndex| index.0 <= committed as u64;
    if before.is_some_and(|before| !is_committed(before.index)) {
        return Err(format!(
            "one change at a time: {} has two configurations that are not committed",
            node.id
        ));
    }
    let votes = |configuration: &Configuration| {
        configuration.voters().chain(configuration.outgoing()).any(|id| id == node.id)
    };
    let knows = core.commit() >= latest.index;
    let has_vote =
        votes(&latest.configuration) || (!knows && before.is_some_and(|before| votes(&before.configuration)));
    if core.role() != Role::Follower && !has_vote {
        return Err(format!(
            "only voters lead: {} does more than follow in {:?}",
            node.id, latest.configuration
        ));
    }
    all.iter().filter(|other| other.id != node.id).try_for_each(|other| same_configurations(node, other))
}

/// A change begins when an entry of the leader's own term is committed; nobody is promoted who has nothing yet.
pub(crate) fn may_change<C: Explored>(
    leader: &Node<C>,
    wish: &Wish,
    all: &[Rc<Node<C>>],
) -> Result<(), String> {
    let Some(core) = &leader.core else { return Ok(()) };
    let (id, term) = (leader.id, core.term());
    if leader.log.get(core.commit()).unwrap_or(leader.log.base).term < term {
        return Err(format!("changes begin late: {id} changes before an entry of term {term} is committed"));
    }
    let has_nothing =
        |id: NodeId| all.iter().any(|node| node.id == id && node.disk.log.last().index == LogIndex::ZERO);
    let promoted = wish.changes.iter().filter_map(|change| match change {
        Change::Promote(id) => Some(*id),
        _ => None,
    });
    match promoted.into_iter().find(|id| has_nothing(*id)) {
        Some(promoted) => {
            Err(format!("promoted when caught up: {id} promotes {promoted}, which has nothing"))
        }
        None => Ok(()),
    }
}

/// The witness is written to when a sub-quorum of the set has an entry of the subterm on disk.
pub(crate) fn is_written_in_time<C>(packet: &Packet, all: &[Rc<Node<C>>]) -> Result<(), String> {
    let Body::WitnessAppend { subterm, voters } = packet.message.body else { return Ok(()) };
    let key = (packet.message.term, subterm);
    let has = |node: &Rc<Node<C>>| {
        let (base, entries) = (node.disk.log.base, node.disk.log.entries());
        voters.has(node.id) && entries.iter().chain([&base]).any(|entry| (entry.term, entry.subterm) == key)
    };
    if all.iter().filter(|node| has(node)).count() >= voters.len().div_ceil(2) {
        return Ok(());
    }
    Err(format!(
        "witness written in time: {} writes before a sub-quorum of {voters:?} has an entry",
        packet.from
    ))
}

/// An entry that is in two logs brings the same configuration in both.
fn same_configurations<C>(one: &Node<C>, other: &Node<C>) -> Result<(), String> {
    for entry in one.log.entries() {
        let shared = other.log.get(entry.index) == Some(*entry);
        if shared && one.log.configuration_in(entry.index) != other.log.configuration_in(entry.index) {
            return Err(format!(
                "configurations travel: {} and {} have the same entry {}, and only one of them its configuration",
                one.id, other.id, entry.index
            ));
        }
    }
    Ok(())
}

/// Who begins to lead has the votes of a majority of each half of the configuration that it was elected by.
pub(crate) fn was_elected<C: Explored>(
    leader: NodeId,
    term: Term,
    by: &Configuration,
    all: &[Rc<Node<C>>],
    witness: Option<&WitnessNode<C::Bug>>,
) -> Result<(), String> {
    let may_have_granted = |id: NodeId| {
        let box_did = |node: &Rc<Node<C>>| {
            let disk = &node.disk;
            node.id == id && (disk.term > term || (disk.term == term && disk.vote == Some(leader)))
        };
        let witness_did =
            witness.is_some_and(|witness| witness.id == id && witness.may_have_granted(term, leader));
        all.iter().any(box_did) || witness_did
    };
    match halves(by).into_iter().find(|half| !is_majority(half, may_have_granted)) {
        Some(half) => {
            Err(format!("election safety: {leader} leads in term {term} without a majority of {half:?}"))
        }
        None => Ok(()),
    }
}

/// What a leader has come to hold for committed is on the disks of a majority of each half of its configuration.
pub(crate) fn was_counted<C: Explored>(
    leader: &Node<C>,
    before: LogIndex,
    all: &[Rc<Node<C>>],
) -> Result<(), String> {
    let Some(core) = leader.core.as_ref().filter(|core| core.commit() > before) else { return Ok(()) };
    let Some(entry) = leader.log.get(core.commit()).filter(|_| core.role() == Role::Leader) else {
        return Ok(());
    };
    let configuration = leader.log.configurations().0.configuration;
    let holds = |id: NodeId| {
        let has_it = |node: &Rc<Node<C>>| node.id == id && node.disk.holds(entry);
        configuration.witness() == Some(id) || all.iter().any(has_it)
    };
    match halves(&configuration).into_iter().find(|half| !is_majority(half, holds)) {
        Some(half) => Err(format!(
            "durability: {} counts entry {} of term {} as committed, which is on the disks of no majority of {half:?}",
            leader.id, entry.index, entry.term
        )),
        None => Ok(()),
    }
}

fn halves(configuration: &Configuration) -> [Vec<NodeId>; 2] {
    [configuration.voters().collect(), configuration.outgoing().collect()]
}

fn is_majority(half: &[NodeId], counts: impl Fn(NodeId) -> bool) -> bool {
    half.is_empty() || half.iter().filter(|id| counts(**id)).count() > half.len() / 2
}
