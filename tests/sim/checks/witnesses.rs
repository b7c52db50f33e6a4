//! Witnesses: what one says is in its record on disk, the record never goes back, it votes once a term, nobody gets its
//! vote who may lack what it counted for, one that lost its record has no say, and none ever leads.

use std::collections::BTreeMap;

use tally_core::id::{NodeId, Subterm, Term};
use tally_core::raft::{Body, Message, NodeSet, WitnessRecord};

use crate::witnesses::is_witness;

#[derive(Debug, Default)]
pub(crate) struct Witnesses(BTreeMap<NodeId, Promises>);

/// What a witness has promised, whatever it remembers of it.
#[derive(Debug, Default)]
struct Promises {
    /// What its disk took last.
    synced: WitnessRecord,
    /// For whom it has said that it votes, by term.
    votes: BTreeMap<Term, NodeId>,
    /// Up to which subterm it has said to count for entries, and which voters are a sub-quorum there.
    counts: ((Term, Subterm), NodeSet),
    /// It came back with an old record or none: from then on it has no say.
    has_forgotten: bool,
}

impl Witnesses {
    /// A witness has found this record on its disk.
    pub(crate) fn found(&mut self, at: NodeId, found: &WitnessRecord) {
        // One that was on its way when the power went may have got there.
        self.stored(at, found);
    }

    /// Its disk has taken this record.
    pub(crate) fn stored(&mut self, at: NodeId, now: &WitnessRecord) {
        let before = &mut self.0.entry(at).or_default().synced;
        let key = |record: &WitnessRecord| (record.last_term, record.last_subterm);
        assert!(
            now.term >= before.term && key(now) >= key(before),
            "witness: the record of {at} goes back from {before:?} to {now:?}"
        );
        let is_changed = now.term == before.term && before.vote.is_some() && now.vote != before.vote;
        assert!(!is_changed, "witness: the vote of {at} in {before:?} becomes that in {now:?}");
        *before = *now;
    }

    /// It comes back with an old record or none.
    pub(crate) fn forgets(&mut self, at: NodeId) {
        self.0.entry(at).or_default().has_forgotten = true;
    }

    /// It gives this answer to what it was asked.
    pub(crate) fn says(&mut self, at: NodeId, to: NodeId, asked: &Message, answer: &Message) {
        let promises = self.0.entry(at).or_default();
        assert!(
            !promises.has_forgotten,
            "witness: {at} came back with an old record, and {to} asks it {asked:?}"
        );
        let synced = &promises.synced;
        match (asked.body, answer.body) {
            (
                Body::WitnessVote { pre, last_term, last_subterm, votes },
                Body::VoteAnswer { granted: true } | Body::PreVoteAnswer { granted: true },
            ) => {
                let (last, (counts, voters)) = ((last_term, last_subterm), promises.counts);
                assert!(
                    last > counts || last == counts && votes.iter().all(|id| voters.has(id)),
                    "witness: {at} votes for {to} by {votes:?}, whose log ends in {last:?}, and counted for {counts:?} \
                     at {voters:?}"
                );
                if pre {
                    return;
                }
                let first = *promises.votes.entry(answer.term).or_insert(to);
                assert_eq!(first, to, "witness: {at} votes twice in term {}", answer.term);
                let is_stored = (answer.term, Some(to)) == (synced.term, synced.vote);
                assert!(is_stored, "witness: {at} says its vote for {to} before its disk has it: {synced:?}");
            }
            (Body::WitnessAppend { voters, .. }, Body::WitnessAppended { subterm, taken: true }) => {
                let key = (answer.term, subterm);
                assert_eq!(
                    key,
                    (synced.last_term, synced.last_subterm),
                    "witness: {at} says to {to} that it counts before its disk has it"
                );
                assert!(key >= promises.counts.0, "witness: {at} goes back to {key:?}: {promises:?}");
                promises.counts = (key, voters);
            }
            _ => {}
        }
    }

    /// A box takes this member for the leader.
    pub(crate) fn leads(&self, leader: Option<NodeId>) {
        assert!(!leader.is_some_and(is_witness), "witness: {leader:?} is taken for the leader");
    }
}
