//! Who belongs to the group: its voters, observers and witness; two halves of voters while it changes.

use core::fmt;

use super::member::{Member, MemberRole};
use super::membership::MembershipError;
use super::set::{Named, Set};
use super::witness::WITNESS_VOTERS_MAX;
use crate::id::{LogIndex, NodeId};

/// No configuration has more members, whatever [`Raft`](super::Raft) has room for.
pub const CONFIGURATION_MEMBERS_MAX: usize = 16;

/// A checked configuration. It is *joint* while voters change: then it has two halves, the outgoing and the
/// incoming one, and whatever is decided is decided by a majority of each.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Configuration {
    /// Ascending; the first `count` of them.
    ids: [NodeId; CONFIGURATION_MEMBERS_MAX],
    count: u8,
    /// The voters, the witness among them; of the new half if there are two.
    pub(super) incoming: Set,
    /// The voters of the half that is being left; empty unless joint.
    pub(super) outgoing: Set,
    /// May share members with `outgoing`: those are demoted when the joint configuration is left.
    observers: Set,
    /// Nobody, or the one voter that is a witness.
    witness: Set,
    leaves_by_itself: bool,
}

/// A configuration and the index of the entry that brought it: zero for the one that a site began with, the
/// last index that is covered for that of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfigurationEntry {
    /// Where it stands.
    pub index: LogIndex,
    /// The configuration.
    pub configuration: Configuration,
}

/// What a configuration is made of; see [`Configuration::from_parts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfigurationParts<'a> {
    /// The voters, the witness among them; of the new half if the configuration is joint.
    pub voters: &'a [NodeId],
    /// The voters of the half that is being left; empty unless joint.
    pub outgoing: &'a [NodeId],
    /// Those who replicate only. One that is in `outgoing` too is being demoted.
    pub observers: &'a [NodeId],
    /// Which of the voters is a witness.
    pub witness: Option<NodeId>,
    /// A joint configuration is left by its leader once it is committed, without being asked to.
    pub leaves_by_itself: bool,
}

/// Why members are no configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigurationError {
    /// More members than there is room for.
    TooManyMembers {
        /// The room.
        most: usize,
    },
    /// A member is named twice.
    MemberTwice(NodeId),
    /// A voter is an observer too.
    VoterAndObserver(NodeId),
    /// Nobody votes who has a log.
    NoVoter,
    /// A witness that does not vote.
    WitnessWithoutVote(NodeId),
    /// There can be one witness only.
    WitnessTwice(NodeId),
    /// A witness stands beside an even number of other voters, 8 at most; so many there would be.
    WitnessBesideOdd(usize),
    /// Voters other than the witness change while it stays: take it out, change them, put it in.
    WitnessInBothHalves(NodeId),
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigurationError::TooManyMembers { most } => write!(f, "a site has at most {most} members"),
            ConfigurationError::MemberTwice(id) => {
                write!(f, "node {id} is named twice among the members")
            }
            ConfigurationError::VoterAndObserver(id) => {
                write!(f, "node {id} cannot be a voter and an observer at once")
            }
            ConfigurationError::NoVoter => f.write_str("a site needs one voter at least"),
            ConfigurationError::WitnessWithoutVote(id) => write!(f, "the witness {id} must be a voter"),
            ConfigurationError::WitnessTwice(id) => {
                write!(f, "a site has at most one witness, node {id} would be a second one")
            }
            ConfigurationError::WitnessBesideOdd(voters) => {
                write!(f, "a witness helps beside 2, 4, 6 or 8 other voters, here there would be {voters}")
            }
            ConfigurationError::WitnessInBothHalves(id) => write!(
                f,
                "other voters cannot change while the witness {id} stays: remove it in the same change, and \
                 add it again afterwards"
            ),
        }
    }
}

impl core::error::Error for ConfigurationError {}

/// One wish of a change of membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new member follows as observer.
    AddObserver(NodeId),
    /// A new member is the witness.
    AddWitness(NodeId),
    /// An observer becomes a voter.
    Promote(NodeId),
    /// A voter becomes an observer.
    Demote(NodeId),
    /// A member leaves.
    Remove(NodeId),
}

impl Configuration {
    /// Of a node that does not belong to a group yet.
    pub const EMPTY: Configuration = Configuration {
        ids: [NodeId(0); CONFIGURATION_MEMBERS_MAX],
        count: 0,
        incoming: Set::NONE,
        outgoing: Set::NONE,
        observers: Set::NONE,
        witness: Set::NONE,
        leaves_by_itself: false,
    };

    /// A configuration that is not joint.
    ///
    /// # Errors
    /// Why these are no configuration.
    pub fn new(members: &[Member]) -> Result<Configuration, ConfigurationError> {
        let mut configuration = Configuration::EMPTY;
        configuration.take_members(members)?;
        Ok(configuration)
    }

    /// A configuration as it was taken apart by [`voters`](Configuration::voters) and so on.
    ///
    /// # Errors
    /// Why these are no configuration.
    pub fn from_parts(parts: &ConfigurationParts<'_>) -> Result<Configuration, ConfigurationError> {
        let mut configuration = Configuration::EMPTY;
        configuration.take_parts(parts)?;
        Ok(configuration)
    }

    /// Nobody is a member.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Voters are changing: there are two halves.
    #[must_use]
    pub const fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether its leader leaves this joint configuration without being asked to.
    #[must_use]
    pub const fn leaves_by_itself(&self) -> bool {
        self.leaves_by_itself
    }

    /// All members, ascending.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.list().iter().copied()
    }

    /// The voters, the witness among them; of the new half if there are two.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.named(self.incoming)
    }

    /// The voters of the half that is being left; none unless joint.
    pub fn outgoing(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.named(self.outgoing)
    }

    /// The observers, and who becomes one when the joint configuration is left.
    pub fn observers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.named(self.observers)
    }

    /// The witness.
    #[must_use]
    #[inline(never)]
    pub fn witness(&self) -> Option<NodeId> {
        self.named(self.witness).next()
    }

    /// What a node is at present: a voter of either half is a voter.
    #[must_use]
    pub fn role(&self, id: NodeId) -> Option<MemberRole> {
        let place = self.place(id)?;
        Some(if self.witness.has(place) {
            MemberRole::Witness
        } else if self.voting().has(place) {
            MemberRole::Voter
        } else {
            MemberRole::Observer
        })
    }

    /// How many members it has.
    pub(super) const fn len(&self) -> usize {
        self.count as usize
    }

    pub(super) fn is_voter(&self, id: NodeId) -> bool {
        self.role(id) == Some(MemberRole::Voter)
    }

    /// The only one whose vote and log count.
    pub(super) fn is_only_voter(&self, id: NodeId) -> bool {
        let own = self.set_of(id);
        self.is_voter(id) && self.voting() == own
    }

    #[inline(never)]
    pub(super) fn place(&self, id: NodeId) -> Option<usize> {
        self.list().iter().position(|member| *member == id)
    }

    /// The half that the witness is in, without it; nobody if there is no witness.
    #[inline(never)]
    pub(super) fn beside_witness(&self) -> Set {
        let half = if self.incoming.both(self.witness).is_empty() { self.outgoing } else { self.incoming };
        if self.witness.is_empty() { Set::default() } else { half.without(self.witness) }
    }

    /// What follows a joint configuration.
    pub(super) fn left(&self) -> Configuration {
        let mut left = Configuration { outgoing: Set::default(), leaves_by_itself: false, ..*self };
        let stays = self.incoming.with(self.observers);
        for place in (0..self.len()).rev().filter(|place| !stays.has(*place)) {
            left.remove(place);
        }
        left
    }

    /// Grants the wishes; if one cannot be granted this is not to be used. Joint whenever the voters change, be it by
    /// one: one way is one to be proven, and the second entry costs nothing but itself.
    pub(super) fn change(
        &mut self,
        changes: &[Change],
        leaves_by_itself: bool,
    ) -> Result<(), MembershipError> {
        let before = *self;
        for change in changes {
            change.apply(self)?;
        }
        if *self == before {
            return Err(MembershipError::Unchanged);
        }
        self.check()?;
        if !self.has_voters_of(&before) {
            self.join(&before, leaves_by_itself)?;
        }
        Ok(())
    }

    fn has_voters_of(&self, other: &Configuration) -> bool {
        let votes = |id: NodeId| self.place(id).is_some_and(|place| self.incoming.has(place));
        self.incoming.len() == other.incoming.len()
            && other.voters().all(votes)
            && self.witness() == other.witness()
    }

    /// This one becomes the incoming half beside the voters of another one.
    fn join(&mut self, other: &Configuration, leaves_by_itself: bool) -> Result<(), ConfigurationError> {
        let leaving = other.witness();
        if let Some(leaving) = leaving.filter(|_| !self.witness.is_empty()) {
            return Err(ConfigurationError::WitnessInBothHalves(leaving));
        }
        for id in other.voters() {
            let place = self.insert(id)?;
            self.outgoing = self.outgoing.with(place);
            if leaving == Some(id) {
                self.witness = place;
            }
        }
        self.leaves_by_itself = leaves_by_itself;
        self.check()
    }

    /// What deliberate bugs take for the configuration.
    pub(super) fn mutated(&self, one_half: bool, observers_vote: bool) -> Configuration {
        let outgoing = if one_half { Set::default() } else { self.outgoing };
        let more = if observers_vote { self.observers } else { Set::default() };
        Configuration { outgoing, incoming: self.incoming.with(more), ..*self }
    }

    fn list(&self) -> &[NodeId] {
        &self.ids[..self.len().min(CONFIGURATION_MEMBERS_MAX)]
    }

    pub(super) const fn named(&self, set: Set) -> Named<'_> {
        Named::new(&self.ids, set)
    }

    fn set_of(&self, id: NodeId) -> Set {
        self.place(id).map_or(Set::default(), Set::of)
    }

    fn voting(&self) -> Set {
        self.incoming.with(self.outgoing)
    }

    fn take_members(&mut self, members: &[Member]) -> Result<(), ConfigurationError> {
        for Member { id, role } in members.iter().copied() {
            if self.place(id).is_some() {
                return Err(ConfigurationError::MemberTwice(id));
            }
            let place = self.insert(id)?;
            match role {
                MemberRole::Voter => self.incoming = self.incoming.with(place),
                MemberRole::Observer => self.observers = self.observers.with(place),
                MemberRole::Witness => self.make_witness(id, place)?,
            }
        }
        self.check()
    }

    fn take_parts(&mut self, parts: &ConfigurationParts<'_>) -> Result<(), ConfigurationError> {
        let lists = [parts.voters, parts.outgoing, parts.observers];
        for (list, ids) in lists.into_iter().enumerate() {
            for id in ids.iter().copied() {
                let place = self.insert(id)?;
                let set = match list {
                    0 => &mut self.incoming,
                    1 => &mut self.outgoing,
                    _ => &mut self.observers,
                };
                if !set.both(place).is_empty() {
                    return Err(ConfigurationError::MemberTwice(id));
                }
                *set = set.with(place);
            }
        }
        if let Some(id) = parts.witness {
            self.witness = self.set_of(id);
            if self.witness.both(self.voting()).is_empty() {
                return Err(ConfigurationError::WitnessWithoutVote(id));
            }
        }
        self.leaves_by_itself = parts.leaves_by_itself && self.is_joint();
        self.check()
    }

    /// Puts a member in its place, if it is not there: the place.
    fn insert(&mut self, id: NodeId) -> Result<Set, ConfigurationError> {
        let place = self.list().iter().take_while(|member| **member < id).count();
        if self.list().get(place) == Some(&id) {
            return Ok(Set::of(place));
        }
        if self.len() >= CONFIGURATION_MEMBERS_MAX {
            return Err(ConfigurationError::TooManyMembers { most: CONFIGURATION_MEMBERS_MAX });
        }
        let mut moved = id;
        for id in &mut self.ids[place..] {
            core::mem::swap(id, &mut moved);
        }
        self.count += 1;
        self.move_sets(Set::widened, place);
        Ok(Set::of(place))
    }

    fn remove(&mut self, place: usize) {
        let mut moved = NodeId(0);
        for id in self.ids[place..].iter_mut().rev() {
            core::mem::swap(id, &mut moved);
        }
        self.count -= 1;
        self.move_sets(Set::narrowed, place);
    }

    fn move_sets(&mut self, to: fn(Set, usize) -> Set, place: usize) {
        for set in [&mut self.incoming, &mut self.outgoing, &mut self.observers, &mut self.witness] {
            *set = to(*set, place);
        }
    }

    fn make_witness(&mut self, id: NodeId, place: Set) -> Result<(), ConfigurationError> {
        if !self.witness.is_empty() {
            return Err(ConfigurationError::WitnessTwice(id));
        }
        self.witness = place;
        self.incoming = self.incoming.with(place);
        Ok(())
    }

    #[inline(never)]
    fn check(&self) -> Result<(), ConfigurationError> {
        if let Some(id) = self.named(self.incoming.both(self.observers)).next() {
            return Err(ConfigurationError::VoterAndObserver(id));
        }
        let outgoing_regular = self.outgoing.without(self.witness);
        if self.incoming.without(self.witness).is_empty() || (self.is_joint() && outgoing_regular.is_empty())
        {
            return Err(ConfigurationError::NoVoter);
        }
        if let Some(witness) = self.witness() {
            if !self.witness.both(self.observers).is_empty() {
                return Err(ConfigurationError::VoterAndObserver(witness));
            }
            if !self.witness.both(self.incoming).both(self.outgoing).is_empty() {
                return Err(ConfigurationError::WitnessInBothHalves(witness));
            }
            let beside = self.beside_witness().len();
            if !beside.is_multiple_of(2) || beside > WITNESS_VOTERS_MAX {
                return Err(ConfigurationError::WitnessBesideOdd(beside));
            }
        }
        Ok(())
    }
}

impl Default for Configuration {
    fn default() -> Configuration {
        Configuration::EMPTY
    }
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, set: Set| -> fmt::Result {
            for (number, id) in self.named(set).enumerate() {
                write!(f, "{}{id}", if number == 0 { "" } else { " " })?;
            }
            Ok(())
        };
        f.write_str("(")?;
        list(f, self.incoming)?;
        if self.is_joint() {
            f.write_str(" & ")?;
            list(f, self.outgoing)?;
        }
        if !self.observers.is_empty() {
            f.write_str(", observers ")?;
            list(f, self.observers)?;
        }
        if let Some(witness) = self.witness() {
            write!(f, ", witness {witness}")?;
        }
        f.write_str(if self.leaves_by_itself { ", leaving)" } else { ")" })
    }
}

impl Change {
    fn apply(self, next: &mut Configuration) -> Result<(), MembershipError> {
        let (Change::AddObserver(id)
        | Change::AddWitness(id)
        | Change::Promote(id)
        | Change::Demote(id)
        | Change::Remove(id)) = self;
        let adds = matches!(self, Change::AddObserver(_) | Change::AddWitness(_));
        let role = next.role(id);
        if adds && role.is_some() {
            return Err(MembershipError::AlreadyMember(id));
        }
        if !adds && role.is_none() {
            return Err(MembershipError::NotMember(id));
        }
        let own = next.insert(id)?;
        match (self, role) {
            (Change::AddObserver(_), _) => next.observers = next.observers.with(own),
            (Change::AddWitness(_), _) => next.make_witness(id, own)?,
            (Change::Promote(_), Some(MemberRole::Observer)) => {
                next.observers = next.observers.without(own);
                next.incoming = next.incoming.with(own);
            }
            (Change::Promote(_), _) => return Err(MembershipError::NotObserver(id)),
            (Change::Demote(_), Some(MemberRole::Voter)) => {
                next.incoming = next.incoming.without(own);
                next.observers = next.observers.with(own);
            }
            (Change::Demote(_), _) => return Err(MembershipError::NotVoter(id)),
            (Change::Remove(_), _) => next.place(id).into_iter().for_each(|place| next.remove(place)),
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "configuration_tests.rs"]
mod tests;
