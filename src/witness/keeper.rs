//! What a witness does about what it hears, without I/O: the slot of the daemon and the simulation do as it says.

use bytes::Bytes;
use tally_core::id::{LogIndex, NodeId};
use tally_core::raft::{Message, Reaction, Witness, WitnessRecord};

use crate::deliberate::{self, Bug};
use crate::dropped::Reason;
use crate::identity::Identity;
use crate::node::{ToWitness, decode_to_witness, encode_from_witness};
use crate::site::MemberRecord;

/// A frame for a member.
pub type Answer = (NodeId, Bytes);

/// What is to be done about a frame.
#[derive(Debug)]
#[must_use]
pub enum Heard {
    /// Send this.
    Answer(Answer),
    /// Make this durable, then call [`Keeper::stored`] or [`Keeper::not_stored`].
    Store(WitnessRecord),
    /// From now on these are the members: connect to them, and save the identity. It is not a promise: a leader sends a lost
    /// list again.
    Members(Identity),
    /// Nothing.
    Nothing,
}

/// Why a frame leads to nothing; and, where that helps, what is wrong with it.
#[derive(Debug)]
pub struct Ignored {
    /// As it is counted.
    pub reason: Reason,
    /// In words.
    pub why: Option<String>,
}

impl From<Reason> for Ignored {
    fn from(reason: Reason) -> Ignored {
        Ignored { reason, why: None }
    }
}

/// The witness of one site.
#[derive(Debug)]
pub struct Keeper {
    witness: Witness,
    /// The last log index of the box that last sent the members.
    members_as_of: LogIndex,
    identity: Identity,
}

/// The message of the core in a frame to a witness, or from it.
pub fn message_in(frame: &Bytes) -> Option<Message> {
    match decode_to_witness(frame) {
        Ok(ToWitness::Core(message)) => Some(message),
        _ => None,
    }
}

impl Keeper {
    /// A witness that goes on with a record that its disk has.
    pub fn new(identity: Identity, mut record: WitnessRecord) -> Keeper {
        if deliberate::is(Bug::WitnessForgetsVote) {
            record.vote = None;
        }
        if deliberate::is(Bug::WitnessForgetsConfirmed) {
            record = WitnessRecord { term: record.term, vote: record.vote, ..WitnessRecord::default() };
        }
        Keeper { witness: Witness::new(record), members_as_of: LogIndex::ZERO, identity }
    }

    /// Who it is, and who the members are.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The durable record.
    pub const fn record(&self) -> &WitnessRecord {
        self.witness.record()
    }

    /// Handles a frame of a member.
    ///
    /// # Errors
    /// Why it leads to nothing.
    pub fn hear(&mut self, from: NodeId, frame: &Bytes) -> Result<Heard, Ignored> {
        let message = match decode_to_witness(frame) {
            Ok(ToWitness::Core(message)) => message,
            Ok(ToWitness::Members(index, members)) => return self.hear_members(index, members),
            Ok(ToWitness::Other) => return Err(Reason::NotForThis.into()),
            Err(_) => return Err(Reason::UnreadableFrame.into()),
        };
        match self.witness.handle(from, &message) {
            Ok(Reaction::Answer(answer)) => Ok(Heard::Answer((from, encode_from_witness(answer)))),
            Ok(Reaction::Store(_)) if deliberate::is(Bug::WitnessAnswersFirst) => {
                Ok(self.stored().map_or(Heard::Nothing, Heard::Answer))
            }
            Ok(Reaction::Store(record)) => Ok(Heard::Store(record)),
            Err(why) => Err(Ignored { reason: why.into(), why: Some(format!("{why:?}: {message:?}")) }),
        }
    }

    /// Accepts the list of members from a member: new members may connect, removed ones may not.
    fn hear_members(&mut self, index: LogIndex, mut members: Vec<MemberRecord>) -> Result<Heard, Ignored> {
        let me = self.identity.me();
        let own = members.iter().find(|record| record.id == me.id);
        // A box that was cut off may tell an old list; one without this witness is none to live by.
        if index < self.members_as_of || own.is_none_or(|own| own.key != me.key || own.role != me.role) {
            return Err(Reason::StaleMembers.into());
        }
        self.members_as_of = index;
        // What the site calls it and where it says this witness is must agree with this machine's own files.
        members.iter_mut().filter(|member| member.id == me.id).for_each(|own| *own = me.clone());
        if members == self.identity.members {
            return Ok(Heard::Nothing);
        }
        let identity = Identity { members, ..self.identity.clone() };
        if let Err(why) = identity.check() {
            return Err(Ignored { reason: Reason::BadConfiguration, why: Some(why) });
        }
        self.identity = identity.clone();
        Ok(Heard::Members(identity))
    }

    /// The record is durable: the answer.
    pub fn stored(&mut self) -> Option<Answer> {
        let (to, message) = self.witness.stored()?;
        Some((to, encode_from_witness(message)))
    }

    /// The record is not durable, or nobody knows.
    pub fn not_stored(&mut self) -> Option<Answer> {
        if deliberate::is(Bug::WitnessTrustsFailure) {
            return self.stored();
        }
        self.witness.not_stored();
        None
    }
}
