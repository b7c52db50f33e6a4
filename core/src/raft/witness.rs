//! The witness: a member that votes and keeps a few tens of bytes instead of a log (extended Raft, by Joshua Zhang).
//! Usable without the rest of the core, on a microcontroller as in a daemon.
//!
//! A witness is two message handlers over one record; whatever it promises is in the record before it is said.
//! The driver hands a [`Message`] to [`handle`](Witness::handle), which gives an answer to send at once, or a record
//! to be made durable; when it is, [`stored`](Witness::stored) gives the answer.

use core::fmt;
use core::marker::PhantomData;

use super::Ignored;
use super::message::{Body, Message, NUMBER_LIMIT};
use super::mutation::{Mutation, NoMutation};
use crate::id::{NodeId, Subterm, Term};

/// A witness stands beside at most so many other voters.
pub const WITNESS_VOTERS_MAX: usize = 8;

/// The bytes of a record.
pub const WITNESS_RECORD_BYTES: usize = 4 + 4 * 8 + 8 * WITNESS_VOTERS_MAX + 4;

const VERSION: u8 = 1;

/// Voters: those of a replication set, or those who granted a vote.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct NodeSet {
    ids: [NodeId; WITNESS_VOTERS_MAX],
    count: u8,
}

impl NodeSet {
    /// Adds a node; `false` if there is no room.
    pub fn insert(&mut self, id: NodeId) -> bool {
        if self.has(id) {
            return true;
        }
        let Some(free) = self.ids.get_mut(usize::from(self.count)) else { return false };
        *free = id;
        self.count += 1;
        true
    }

    /// Whether a node is in it.
    #[must_use]
    pub fn has(&self, id: NodeId) -> bool {
        self.iter().any(|member| member == id)
    }

    /// The nodes, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.ids.iter().copied().take(usize::from(self.count))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Nobody.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn is_within(&self, other: &NodeSet) -> bool {
        self.iter().all(|id| other.has(id))
    }
}

impl fmt::Debug for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|id| id.0)).finish()
    }
}

/// All that a witness remembers, all of it durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WitnessRecord {
    /// The latest term in which it promised something.
    pub term: Term,
    /// For whom it voted in that term.
    pub vote: Option<NodeId>,
    /// The term of the latest entry that a leader had it count for.
    pub last_term: Term,
    /// The subterm of that entry.
    pub last_subterm: Subterm,
    /// The regular voters of the replication set of that subterm.
    pub voters: NodeSet,
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// The checksum does not fit: torn or damaged.
    Checksum,
    /// Of a version that this program does not know.
    Version(u8),
    /// The checksum fits and the content does not: not written by this program.
    Content,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::Checksum => f.write_str("the witness's record is torn or damaged"),
            RecordError::Version(version) => {
                write!(f, "the witness's record is of version {version}, this program knows {VERSION}")
            }
            RecordError::Content => f.write_str("the witness's record contradicts itself"),
        }
    }
}

impl core::error::Error for RecordError {}

impl WitnessRecord {
    /// As bytes: version, whether it voted, how many voters, zero; term, vote, last term, last subterm and eight
    /// voters of 8 bytes each; CRC-32C. Little-endian.
    #[must_use]
    pub fn encode(&self) -> [u8; WITNESS_RECORD_BYTES] {
        let mut bytes = [0; WITNESS_RECORD_BYTES];
        bytes[..3].copy_from_slice(&[VERSION, u8::from(self.vote.is_some()), self.voters.count]);
        let head = [self.term.0, self.vote.map_or(0, |id| id.0), self.last_term.0, self.last_subterm.0];
        let numbers = head.into_iter().chain(self.voters.ids.iter().map(|id| id.0));
        let (body, checksum) = bytes.split_at_mut(WITNESS_RECORD_BYTES - 4);
        for (place, number) in body[4..].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        checksum.copy_from_slice(&crc32c(body).to_le_bytes());
        bytes
    }

    /// From bytes that were stored.
    ///
    /// # Errors
    /// Why these bytes are no record.
    pub fn decode(bytes: &[u8; WITNESS_RECORD_BYTES]) -> Result<WitnessRecord, RecordError> {
        let (body, checksum) = bytes.split_at(WITNESS_RECORD_BYTES - 4);
        if crc32c(body).to_le_bytes() != checksum {
            return Err(RecordError::Checksum);
        }
        let [version, voted, count, _] = [body[0], body[1], body[2], body[3]];
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let number = |place: usize| {
            let bytes = body.get(4 + 8 * place..12 + 8 * place).and_then(|bytes| bytes.try_into().ok());
            u64::from_le_bytes(bytes.unwrap_or_default())
        };
        if usize::from(count) > WITNESS_VOTERS_MAX || voted > 1 {
            return Err(RecordError::Content);
        }
        let ids = core::array::from_fn(|place| NodeId(number(4 + place)));
        let record = WitnessRecord {
            term: Term(number(0)),
            vote: (voted == 1).then_some(NodeId(number(1))),
            last_term: Term(number(2)),
            last_subterm: Subterm(number(3)),
            voters: NodeSet { ids, count },
        };
        let fits = record.last_term <= record.term && record.term.0 < NUMBER_LIMIT;
        if fits { Ok(record) } else { Err(RecordError::Content) }
    }

    const fn key(&self) -> (Term, Subterm) {
        (self.last_term, self.last_subterm)
    }
}

/// What follows from a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Reaction {
    /// Send this to whom the message came from.
    Answer(Message),
    /// Make this durable, then call [`stored`](Witness::stored); if it fails,
    /// [`not_stored`](Witness::not_stored). Until then everything else is ignored.
    Store(WitnessRecord),
}

/// A witness of one site.
#[derive(Clone, Debug)]
pub struct Witness<M: Mutation = NoMutation> {
    record: WitnessRecord,
    storing: Option<(WitnessRecord, NodeId, Message)>,
    mutation: PhantomData<M>,
}

impl<M: Mutation> Witness<M> {
    /// A witness with the record that was durable; an empty one if it is new. One that lost its record must not come
    /// back under its old identity.
    #[must_use]
    pub const fn new(record: WitnessRecord) -> Witness<M> {
        Witness { record, storing: None, mutation: PhantomData }
    }

    /// What is durable.
    #[must_use]
    pub const fn record(&self) -> &WitnessRecord {
        &self.record
    }

    /// Takes a message of a member in.
    ///
    /// # Errors
    /// Why the message was ignored; nothing has changed.
    pub fn handle(&mut self, from: NodeId, message: &Message) -> Result<Reaction, Ignored> {
        if self.storing.is_some() {
            return Err(Ignored::Busy);
        }
        if !message.is_believable(self.record.term) {
            return Err(Ignored::Malformed);
        }
        match message.body {
            Body::WitnessVote { pre, last_term, last_subterm, votes } => {
                Ok(self.handle_vote(from, message.term, pre, (last_term, last_subterm), &votes))
            }
            Body::WitnessAppend { subterm, voters } => {
                Ok(self.handle_append(from, message.term, subterm, voters))
            }
            Body::WitnessPing { round } => {
                // An older leader learns from the answer's term that there is a newer one.
                let round = if message.term < self.record.term { 0 } else { round };
                Ok(self.answer(message.term, Body::HeartbeatAnswer { round }))
            }
            _ => Err(Ignored::NotAwaited),
        }
    }

    /// The record is durable: the answer, and to whom.
    pub fn stored(&mut self) -> Option<(NodeId, Message)> {
        let (record, to, answer) = self.storing.take()?;
        self.record = record;
        Some((to, answer))
    }

    /// The record is not durable, or nobody knows: nothing is answered. What was asked will be asked again.
    pub fn not_stored(&mut self) {
        self.storing = None;
    }

    /// Grants when nothing that it counted for can be missing in the candidate's log: that is of a later term or
    /// subterm, or of the same and those who voted already were in the replication set, of which the witness
    /// and a sub-quorum had it. A refusal promises nothing and writes nothing, not even the term.
    fn handle_vote(
        &mut self,
        from: NodeId,
        term: Term,
        pre: bool,
        last: (Term, Subterm),
        votes: &NodeSet,
    ) -> Reaction {
        let own = self.record;
        let free = own.vote.is_none_or(|vote| vote == from) || M::WITNESS_VOTES_TWICE;
        let in_set = votes.is_within(&own.voters) || M::WITNESS_IGNORES_SET;
        let is_newer = last > own.key() || (M::FORGET_SUBTERM && last.0 == own.last_term);
        let up_to_date = is_newer || (last == own.key() && in_set);
        let granted = up_to_date && (term > own.term || (term == own.term && free));
        if pre {
            // A refusal carries no term that nobody is in.
            let term = if granted { term } else { Term(term.0.saturating_sub(1)) };
            return self.answer(term, Body::PreVoteAnswer { granted });
        }
        let answer = Body::VoteAnswer { granted };
        if granted && (term, Some(from)) != (own.term, own.vote) {
            return self.store(WitnessRecord { term, vote: Some(from), ..own }, from, answer);
        }
        self.answer(term, answer)
    }

    /// Takes the set of a newer subterm. The same again is acknowledged without a write; anything else is
    /// refused, since a delayed copy must not undo a newer set.
    fn handle_append(&mut self, from: NodeId, term: Term, subterm: Subterm, voters: NodeSet) -> Reaction {
        let own = self.record;
        let key = (term, subterm);
        if term >= own.term && (key > own.key() || M::WITNESS_TAKES_OLD_RECORD) {
            let vote = own.vote.filter(|_| term == own.term);
            let record = WitnessRecord { term, vote, last_term: term, last_subterm: subterm, voters };
            return self.store(record, from, Body::WitnessAppended { subterm, taken: true });
        }
        let taken = term >= own.term && key == own.key() && voters == own.voters;
        self.answer(term, Body::WitnessAppended { subterm, taken })
    }

    fn store(&mut self, record: WitnessRecord, to: NodeId, answer: Body) -> Reaction {
        let answer = Message { term: record.term, body: answer };
        if M::WITNESS_SAYS_BEFORE_STORED {
            return Reaction::Answer(answer);
        }
        self.storing = Some((record, to, answer));
        Reaction::Store(record)
    }

    fn answer(&self, asked: Term, body: Body) -> Reaction {
        Reaction::Answer(Message { term: asked.max(self.record.term), body })
    }
}

/// CRC-32C (Castagnoli), a bit at a time: a record is small and rarely written, and a table is a kilobyte.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
#[path = "witness_tests.rs"]
mod tests;
