//! States as hashes: of nodes and messages under any naming of the nodes.

use std::hash::{Hash, Hasher};

use tally_core::id::{LogIndex, NodeId};
use tally_core::raft::{Body, Configuration, HardState, Message, Persist};

use crate::explored::Explored;
use crate::hash::Wide;
use crate::node::{Node, Packet};
use crate::plain_log::PlainLog;
use crate::state::place_of;
use crate::witness::hash_set;

/// What of a node does not depend on any names, roughly: nodes that differ in it need not be exchanged.
pub(crate) fn face<C: Explored>(node: &Node<C>) -> u64 {
    let mut hasher = Wide::new(0);
    if let Some(core) = &node.core {
        let led = core.leader().map(|leader| leader == node.id);
        (core.role() as u8, core.term(), core.commit(), led).hash(&mut hasher);
    }
    let voted = node.disk.vote.map(|vote| vote == node.id);
    (node.log.last(), node.disk.log.last(), node.disk.term, voted, node.write.is_some()).hash(&mut hasher);
    hasher.finish()
}

pub(crate) fn hash_node<C: Explored>(node: &Node<C>, naming: &[u64]) -> u128 {
    let name = |id: NodeId| naming[place_of(id)];
    let mut hasher = Wide::new(name(node.id));
    if let Some(core) = &node.core {
        core.feed(node.clock, &name, &mut hasher);
    }
    feed_log(&node.log, &name, &mut hasher);
    feed_log(&node.disk.log, &name, &mut hasher);
    (node.disk.term, node.disk.vote.map(name), node.disk.snapshot).hash(&mut hasher);
    if let Some(write) = &node.write {
        let crate::node::Write { persist, entries: written, base_configuration } = write;
        let Persist { ticket: _, hard_state, reset, truncate_after, entries } = *persist;
        (hard_state.map(|HardState { term, vote }| (term, vote.map(name))), reset, truncate_after, entries)
            .hash(&mut hasher);
        reset.map(|_| hash_configuration(base_configuration, &name)).hash(&mut hasher);
        for (entry, configuration) in written {
            (entry, configuration.map(|held| hash_configuration(&held, &name))).hash(&mut hasher);
        }
    }
    hasher.wide()
}

fn feed_log(log: &PlainLog, name: &dyn Fn(NodeId) -> u64, hasher: &mut Wide) {
    (log.base, log.entries()).hash(hasher);
    hash_configuration(&log.configuration_at(log.base.index).configuration, name).hash(hasher);
    for index in log.base.index.0 + 1..=log.last().index.0 {
        if let Some(configuration) = log.configuration_in(LogIndex(index)) {
            (index, hash_configuration(&configuration, name)).hash(hasher);
        }
    }
}

pub(crate) fn hash_configuration(configuration: &Configuration, name: &dyn Fn(NodeId) -> u64) -> u128 {
    let part = |kind: u8, id: NodeId| Wide::of(&(kind, name(id)));
    let voters = configuration.voters().map(|id| part(0, id));
    let outgoing = configuration.outgoing().map(|id| part(1, id));
    let observers = configuration.observers().map(|id| part(2, id));
    let witness = configuration.witness().map(|id| part(3, id));
    let leaves = Wide::of(&configuration.leaves_by_itself());
    voters.chain(outgoing).chain(observers).chain(witness).fold(leaves, u128::wrapping_add)
}

pub(crate) fn hash_packet(packet: &Packet, naming: &[u64]) -> u128 {
    let name = |id: NodeId| naming[place_of(id)];
    let mut hasher = Wide::new(99);
    let Packet { from, to, message: Message { term, body }, configuration } = packet;
    (name(*from), name(*to), term).hash(&mut hasher);
    std::mem::discriminant(body).hash(&mut hasher);
    match *body {
        Body::PreVote { last } | Body::Snapshot { last } => last.hash(&mut hasher),
        Body::Vote { last, transfer } => (last, transfer).hash(&mut hasher),
        Body::PreVoteAnswer { granted } | Body::VoteAnswer { granted } => granted.hash(&mut hasher),
        Body::Append { previous, entries, commit } => {
            (previous, commit).hash(&mut hasher);
            entries.map(|range| (range.term, range.subterm, range.first, range.last)).hash(&mut hasher);
        }
        Body::Appended { matched, received } => (matched, received).hash(&mut hasher),
        Body::Rejected { previous, hint } => (previous, hint).hash(&mut hasher),
        Body::Heartbeat { commit, round } => (commit, round).hash(&mut hasher),
        Body::HeartbeatAnswer { round } => round.hash(&mut hasher),
        Body::TimeoutNow => {}
        Body::WitnessVote { pre, last_term, last_subterm, votes } => {
            (pre, last_term, last_subterm, hash_set(&votes, &name)).hash(&mut hasher);
        }
        Body::WitnessAppend { subterm, voters } => (subterm, hash_set(&voters, &name)).hash(&mut hasher),
        Body::WitnessAppended { subterm, taken } => (subterm, taken).hash(&mut hasher),
        Body::WitnessPing { round } => round.hash(&mut hasher),
    }
    configuration.as_deref().map(|held| hash_configuration(held, &name)).hash(&mut hasher);
    hasher.wide()
}
