//! The witness of an explored site: its core, and the record that is on its way to its disk.

use tally_core::id::{NodeId, Term};
use tally_core::raft::{Message, Mutation, NodeSet, Reaction, Witness, WitnessRecord};

use crate::hash::Wide;

#[derive(Clone, Debug)]
pub(crate) struct WitnessNode<M: Mutation> {
    pub(crate) id: NodeId,
    core: Witness<M>,
    /// For whom it is stored.
    pub(crate) storing: Option<(WitnessRecord, NodeId)>,
}

impl<M: Mutation> WitnessNode<M> {
    pub(crate) fn new(id: NodeId) -> Self {
        WitnessNode { id, core: Witness::new(WitnessRecord::default()), storing: None }
    }

    /// The answer that can be given at once.
    pub(crate) fn receive(&mut self, from: NodeId, message: &Message) -> Option<Message> {
        match self.core.handle(from, message) {
            Ok(Reaction::Answer(answer)) => Some(answer),
            Ok(Reaction::Store(record)) => {
                self.storing = Some((record, from));
                None
            }
            Err(_) => None,
        }
    }

    /// The record is durable: the answer, and to whom.
    pub(crate) fn stored(&mut self) -> Option<(NodeId, Message)> {
        self.storing = None;
        self.core.stored()
    }

    /// Power goes; the record that was being stored is there, or not.
    pub(crate) fn crash(&mut self, stored: bool) {
        let record = self.storing.take().filter(|_| stored).map_or(*self.core.record(), |(record, _)| record);
        self.core = Witness::new(record);
    }

    /// Whether it may have voted for this candidate.
    pub(crate) fn may_have_granted(&self, term: Term, candidate: NodeId) -> bool {
        let record = self.core.record();
        record.term > term || (record.term == term && record.vote == Some(candidate))
    }

    pub(crate) fn hash(&self, name: &dyn Fn(NodeId) -> u64) -> u128 {
        let record = |record: &WitnessRecord| {
            let WitnessRecord { term, vote, last_term, last_subterm, voters } = *record;
            Wide::of(&(term, vote.map(name), last_term, last_subterm, hash_set(&voters, name)))
        };
        let storing = self.storing.as_ref().map(|(stored, to)| (record(stored), name(*to)));
        Wide::of(&(record(self.core.record()), storing))
    }
}

pub(crate) fn hash_set(set: &NodeSet, name: &dyn Fn(NodeId) -> u64) -> u128 {
    set.iter().map(|id| Wide::of(&name(id))).fold(0, u128::wrapping_add)
}
