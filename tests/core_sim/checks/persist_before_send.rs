//! Persist before send: terms, votes and acknowledgements are on the sender's disk when it speaks.

use tally_core::id::{LogIndex, NodeId};
use tally_core::raft::{Body, HardState, Message};

use crate::disk::Disk;
use crate::log::Log;

pub(crate) fn what_is_said_is_durable(node: NodeId, to: NodeId, message: &Message, disk: &Disk, log: &Log) {
    let own = disk.hard_state;
    let voted = |vote| HardState { term: message.term, vote: Some(vote) };
    match message.body {
        Body::PreVote { .. } | Body::PreVoteAnswer { granted: true } => return,
        Body::WitnessVote { pre: true, .. } => return,
        Body::Vote { .. } | Body::WitnessVote { pre: false, .. } => {
            assert_eq!(own, voted(node), "persist before send: {node} campaigns before its vote is durable")
        }
        Body::VoteAnswer { granted: true } => {
            assert_eq!(own, voted(to), "persist before send: {node} says its vote too early")
        }
        Body::Appended { matched, .. } if matched > LogIndex::ZERO => {
            let there =
                matched <= log.base.index || log.get(matched).is_some_and(|entry| disk.holds(entry.position));
            assert!(
                there,
                "persist before send: {node} acknowledges {matched}, its disk ends at {}",
                disk.end().index
            );
        }
        _ => {}
    }
    assert!(
        own.term >= message.term,
        "persist before send: {node} speaks in term {}, its disk has {}",
        message.term,
        own.term
    );
}
