//! Witnesses: what one says is in its record on disk, the record never goes back, and nobody gets its vote who may lack what
//! it stood for.

use std::collections::BTreeMap;

use tally_core::id::NodeId;
use tally_core::raft::{Body, Message, WitnessRecord};

/// By witness, what its disk took last.
#[derive(Debug, Default)]
pub(crate) struct Witnesses(BTreeMap<NodeId, WitnessRecord>);

impl Witnesses {
    /// A witness has found this record on its disk.
    pub(crate) fn found(&mut self, at: NodeId, found: &WitnessRecord) {
        self.goes_on(at, found);
        // One that was on its way when the power went may have got there.
        self.0.insert(at, *found);
    }

    /// Its disk has taken this record.
    pub(crate) fn stored(&mut self, at: NodeId, record: &WitnessRecord) {
        self.goes_on(at, record);
        self.0.insert(at, *record);
    }

    fn goes_on(&self, at: NodeId, now: &WitnessRecord) {
        let Some(before) = self.0.get(&at) else { return };
        let key = |record: &WitnessRecord| (record.last_term, record.last_subterm);
        assert!(
            now.term >= before.term && key(now) >= key(before),
            "witness: the record of {at} goes back from {before:?} to {now:?}"
        );
        let is_changed = now.term == before.term && before.vote.is_some() && now.vote != before.vote;
        assert!(!is_changed, "witness: {at} votes twice in term {}: {before:?} and {now:?}", now.term);
    }

    /// It answers this to what it was asked, when that had been asked this record was on its disk.
    pub(crate) fn says(
        &self,
        at: NodeId,
        to: NodeId,
        (asked, answer): (&Message, &Message),
        before: &WitnessRecord,
    ) {
        let synced = self.0.get(&at).copied().unwrap_or_default();
        match (asked.body, answer.body) {
            (
                Body::WitnessVote { pre, last_term, last_subterm, votes },
                Body::VoteAnswer { granted: true } | Body::PreVoteAnswer { granted: true },
            ) => {
                let (own, last) = ((before.last_term, before.last_subterm), (last_term, last_subterm));
                let in_set = votes.iter().all(|id| before.voters.has(id));
                assert!(
                    last > own || last == own && in_set,
                    "witness: {at} votes for {to}, whose log ends in {last:?}, and stood for {before:?}"
                );
                let is_stored = pre || (answer.term, Some(to)) == (synced.term, synced.vote);
                assert!(is_stored, "witness: {at} says its vote for {to} before its disk has it: {synced:?}");
            }
            (_, Body::WitnessAppended { subterm, taken: true }) => assert_eq!(
                (answer.term, subterm),
                (synced.last_term, synced.last_subterm),
                "witness: {at} says to {to} that it has an entry before its disk has it"
            ),
            _ => {}
        }
    }
}
