//! The witness: what it says is in its record on disk when it speaks, and its record never goes back.

use tally_core::id::NodeId;
use tally_core::raft::{Body, Message, WitnessRecord};

pub(crate) fn a_record_goes_on(witness: NodeId, before: &WitnessRecord, now: &WitnessRecord) {
    let key = |record: &WitnessRecord| (record.last_term, record.last_subterm);
    let goes_on = now.term >= before.term && key(now) >= key(before);
    assert!(goes_on, "witness record: the record of witness {witness} goes back from {before:?} to {now:?}");
    let voted_twice = now.term == before.term && before.vote.is_some() && now.vote != before.vote;
    assert!(!voted_twice, "witness record: witness {witness} votes twice in term {}", now.term);
}

pub(crate) fn what_a_witness_says_is_stored(
    witness: NodeId,
    synced: &WitnessRecord,
    to: NodeId,
    message: &Message,
) {
    let is_stored = match message.body {
        Body::VoteAnswer { granted: true } => (message.term, Some(to)) == (synced.term, synced.vote),
        Body::WitnessAppended { subterm, taken: true } => {
            (message.term, subterm) == (synced.last_term, synced.last_subterm)
        }
        _ => true,
    };
    assert!(is_stored, "witness record: witness {witness} says {message:?} to {to}, its disk has {synced:?}");
}
