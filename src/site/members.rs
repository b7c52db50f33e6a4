//! The agreed members of the site: their identities, their intended roles, and which
//! configuration of the group is in force.

use serde::{Deserialize, Serialize};
use tally_core::id::{KeyHash, NodeId};
use tally_core::raft::MemberRole;

use super::digest::{mix, mix_bytes};
use super::tokens::TokenRefused;
use crate::codec::{Malformed, Reader, put_bytes, put_varint};

/// The most members that a site may have.
pub const MEMBERS_MAX: usize = 9;

/// The longest address, in bytes: a host name of 253, a colon, a port, and brackets.
pub const ADDRESS_BYTES_MAX: usize = 264;
/// The longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 32;
/// The numbers of removed members that are kept. A site that has removed more takes no more out.
const RETIRED_MAX: usize = 4096;

/// A member as all boxes know it, and as identities list it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its number in the Raft group; never used again.
    pub id: NodeId,
    /// Its name, 1 to 32 of `a-z 0-9 -`.
    pub name: String,
    /// HOST:PORT, QUIC over UDP. Empty: it is not dialled, it dials.
    pub address: String,
    /// What it is meant to be. It becomes that when it can: a voter once it has caught up.
    pub role: MemberRole,
    /// The hash of its public key: this decides who is who.
    pub key: KeyHash,
}

/// A change that somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A new member, or a new address or role of one that is known by the same number and key.
    Put(MemberRecord),
    /// Another role.
    Role {
        /// Whose.
        name: String,
        /// Which.
        role: MemberRole,
    },
    /// A member leaves for good.
    Remove {
        /// Who.
        name: String,
    },
}

/// Why a change of the members was refused; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberRefused {
    /// Not a name, not an address, or the number 0.
    #[error("a member needs a number of 1 or more, a name (1 to 32 of a-z 0-9 -) and an address HOST:PORT")]
    Malformed,
    /// The site does not know its members yet.
    #[error("the site's first leader has not yet recorded its members; retry in a moment")]
    TooEarly,
    /// Nobody of that name.
    #[error("the site has no member of this name; `tallyd members` lists them")]
    NoSuchMember,
    /// The name is another member's.
    #[error("the name belongs to another member; choose another name")]
    NameTaken,
    /// It is known under another name.
    #[error("the site knows this box, by its number and key, under another name, and a name cannot change")]
    OtherName,
    /// The number is another member's, or was a removed one's.
    #[error(
        "the number belongs to another member, or to one that was removed; make a new identity with `tallyd \
         provision --extend`"
    )]
    IdUsed,
    /// The key is another member's: a copied data directory.
    #[error(
        "another member has the same key, so the data directory was copied; make a new identity with `tallyd \
         provision --extend`"
    )]
    KeyTaken,
    /// The address is another member's.
    #[error("another member has the same address")]
    AddressTaken,
    /// As many as there may be.
    #[error(
        "a site has at most 9 members, including those that are being removed; remove one first, or wait \
         until a removal is complete"
    )]
    TooMany,
    /// Somebody must vote.
    #[error("this is the last voter of the site; promote another member first")]
    LastVoter,
    /// One witness is enough.
    #[error("the site already has a witness; remove it first")]
    SecondWitness,
    /// A witness has no log, and a box is no witness.
    #[error("a box cannot become a witness, nor a witness a box: remove it and add it under a new identity")]
    WitnessForLife,
    /// The site cannot remember the number of another removed member.
    #[error("the site cannot remember more removed members")]
    TooManyRemoved,
}

/// A part that a node plays in a configuration of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Who.
    pub id: NodeId,
    /// Votes, in the new half if there are two.
    pub voter: bool,
    /// Votes in the half that is being left.
    pub outgoing: bool,
    /// Replicates only.
    pub observer: bool,
    /// Votes without a log.
    pub witness: bool,
}

/// A configuration of the group, as its entry in the log says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigurationRecord {
    /// Everybody in it.
    pub parts: Vec<Part>,
    /// A joint configuration that its leader leaves without being asked.
    pub leaves_by_itself: bool,
}

/// The members and the configuration in force: replicated state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Members {
    /// By number.
    list: Vec<MemberRecord>,
    /// Those who were removed and are in force still, by number: until they are not, the others need to reach them.
    leaving: Vec<MemberRecord>,
    /// Numbers of those who were removed, ascending.
    retired: Vec<u64>,
    in_force: Option<ConfigurationRecord>,
    /// Numbers of those whose vote waits until it helps, ascending: they joined by a token.
    patient: Vec<u64>,
    /// Numbers of a new member and of the one in whose place it is, until that one has left.
    replacing: Vec<(u64, u64)>,
}

/// A box that becomes a member by a token.
#[derive(Debug)]
pub(super) struct Newcomer {
    pub(super) key: KeyHash,
    pub(super) name: String,
    pub(super) address: String,
    pub(super) role: MemberRole,
    pub(super) replaces: Option<NodeId>,
}

impl Members {
    pub(super) fn list(&self) -> &[MemberRecord] {
        &self.list
    }

    pub(super) fn leaving(&self) -> &[MemberRecord] {
        &self.leaving
    }

    pub(super) fn patient(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.patient.iter().map(|id| NodeId(*id))
    }

    pub(super) fn replacements(&self) -> impl Iterator<Item = (NodeId, NodeId)> + '_ {
        self.replacing.iter().map(|(new, old)| (NodeId(*new), NodeId(*old)))
    }

    /// In whose place that member is, until the old one has left.
    pub(super) fn replaced_by(&self, id: NodeId) -> Option<NodeId> {
        self.replacements().find(|(new, _)| *new == id).map(|(_, old)| old)
    }

    /// The number and name of a member whose place a token may be for.
    pub(super) fn replaceable(&self, name: &str) -> Result<(NodeId, String), TokenRefused> {
        let member = self.list.iter().find(|member| member.name == name).ok_or(TokenRefused::NoSuchMember)?;
        match member.role {
            MemberRole::Witness => Err(TokenRefused::Witness),
            MemberRole::Voter | MemberRole::Observer => Ok((member.id, member.name.clone())),
        }
    }

    /// Members, and those who are leaving.
    pub(super) fn known(&self) -> impl Iterator<Item = &MemberRecord> {
        self.list.iter().chain(&self.leaving)
    }

    pub(super) fn in_force(&self) -> Option<&ConfigurationRecord> {
        self.in_force.as_ref()
    }

    /// The members that the site was provisioned with, unless it knows its members already.
    pub(super) fn bootstrap(&mut self, records: Vec<MemberRecord>, digest: u64) -> u64 {
        if !self.list.is_empty() {
            return digest;
        }
        self.list = records;
        self.list.sort_by_key(|member| member.id);
        self.list.iter().fold(digest, mix_record)
    }

    pub(super) fn enforce(&mut self, parts: ConfigurationRecord, digest: u64) -> u64 {
        let mut bytes = Vec::new();
        put_parts(&mut bytes, &parts);
        self.leaving.retain(|member| parts.parts.iter().any(|part| part.id == member.id));
        let leaving = &self.leaving;
        self.replacing.retain(|(_, old)| leaving.iter().any(|member| member.id.0 == *old));
        self.in_force = Some(parts);
        mix_bytes(digest, &bytes)
    }

    pub(super) fn change(&mut self, change: MemberChange, digest: u64) -> Result<u64, MemberRefused> {
        // A wish for one member alone would be a wish without all others.
        if self.list.is_empty() {
            return Err(MemberRefused::TooEarly);
        }
        match change {
            MemberChange::Put(record) => self.put_member(record, digest),
            MemberChange::Role { name, role } => {
                let place = self.place(&name)?;
                self.check_role(place, role)?;
                self.list[place].role = role;
                let id = self.list[place].id.0;
                let digest = mix_record(digest, &self.list[place]);
                // Whoever is promoted by an operator votes at once.
                Ok(if self.is_impatient_now(id) { mix(digest, id) } else { digest })
            }
            MemberChange::Remove { name } => {
                let place = self.place(&name)?;
                self.check_stays_voter(place)?;
                self.take_out(place, digest)
            }
        }
    }

    /// The vote of that member does not wait any longer; whether it did.
    fn is_impatient_now(&mut self, id: u64) -> bool {
        let place = self.patient.binary_search(&id);
        place.map(|place| self.patient.remove(place)).is_ok()
    }

    /// Takes a member out: its number is used up, its name and address are free.
    fn take_out(&mut self, place: usize, digest: u64) -> Result<u64, MemberRefused> {
        if self.retired.len() >= RETIRED_MAX {
            return Err(MemberRefused::TooManyRemoved);
        }
        let removed = self.list.remove(place);
        let at = self.retired.partition_point(|id| *id < removed.id.0);
        self.retired.insert(at, removed.id.0);
        self.is_impatient_now(removed.id.0);
        let digest = mix(digest, removed.id.0);
        // As provisioned, if nothing was changed yet.
        let is_in = |parts: &ConfigurationRecord| parts.parts.iter().any(|part| part.id == removed.id);
        if self.in_force.as_ref().is_none_or(is_in) {
            let at = self.leaving.partition_point(|member| member.id < removed.id);
            self.leaving.insert(at, removed);
        }
        Ok(digest)
    }

    /// Takes in a box that joins by a token, under the next number that nobody ever had. In the place of another it is
    /// what that one was to be, and votes as soon as that one did.
    pub(super) fn join(
        &mut self,
        new: Newcomer,
        digest: u64,
    ) -> Result<(NodeId, Option<NodeId>, u64), MemberRefused> {
        if self.list.is_empty() {
            return Err(MemberRefused::TooEarly);
        }
        let Newcomer { key, name, address, role, replaces } = new;
        let mut next = self.clone();
        let highest = next.known().map(|member| member.id.0).chain(next.retired.iter().copied()).max();
        let id = NodeId(highest.unwrap_or(0).checked_add(1).ok_or(MemberRefused::IdUsed)?);
        let mut record = MemberRecord { id, name, address, role, key };
        let mut is_patient = role == MemberRole::Voter;
        let mut digest = digest;
        let place = replaces.and_then(|old| next.list.iter().position(|member| member.id == old));
        let replaces = replaces.filter(|_| place.is_some());
        if let (Some(old), Some(place)) = (replaces, place) {
            record.role = next.list[place].role;
            is_patient = next.patient.binary_search(&old.0).is_ok();
            digest = next.take_out(place, digest)?;
            if next.leaving.iter().any(|member| member.id == old) {
                next.replacing.push((id.0, old.0));
            }
        }
        let digest = next.put_member(record, digest)?;
        if is_patient {
            // No number is higher.
            next.patient.push(id.0);
        }
        *self = next;
        Ok((id, replaces, digest))
    }

    fn put_member(&mut self, record: MemberRecord, digest: u64) -> Result<u64, MemberRefused> {
        if !is_sound(&record) {
            return Err(MemberRefused::Malformed);
        }
        let known = self.list.iter().position(|member| member.id == record.id && member.key == record.key);
        let others = || self.list.iter().enumerate().filter(|(place, _)| Some(*place) != known);
        for (_, other) in others() {
            if other.id == record.id {
                return Err(MemberRefused::IdUsed);
            }
            if other.name == record.name {
                return Err(MemberRefused::NameTaken);
            }
            if other.key == record.key {
                return Err(MemberRefused::KeyTaken);
            }
            if !record.address.is_empty() && other.address == record.address {
                return Err(MemberRefused::AddressTaken);
            }
        }
        if self.leaving.iter().any(|other| other.key == record.key) {
            return Err(MemberRefused::KeyTaken);
        }
        let digest = mix_record(digest, &record);
        match known {
            Some(place) => {
                if self.list[place].name != record.name {
                    return Err(MemberRefused::OtherName);
                }
                self.check_role(place, record.role)?;
                self.list[place] = record;
            }
            None => {
                if self.retired.binary_search(&record.id.0).is_ok() {
                    return Err(MemberRefused::IdUsed);
                }
                // Those who leave need their place until they have left: a configuration has so many, too.
                if self.list.len() + self.leaving.len() >= MEMBERS_MAX {
                    return Err(MemberRefused::TooMany);
                }
                if record.role == MemberRole::Witness && self.has_witness() {
                    return Err(MemberRefused::SecondWitness);
                }
                let at = self.list.partition_point(|member| member.id < record.id);
                self.list.insert(at, record);
            }
        }
        Ok(digest)
    }

    fn place(&self, name: &str) -> Result<usize, MemberRefused> {
        self.list.iter().position(|member| member.name == name).ok_or(MemberRefused::NoSuchMember)
    }

    fn has_witness(&self) -> bool {
        self.list.iter().any(|member| member.role == MemberRole::Witness)
    }

    fn check_role(&self, place: usize, role: MemberRole) -> Result<(), MemberRefused> {
        let now = self.list[place].role;
        if now == role {
            return Ok(());
        }
        if now == MemberRole::Witness || role == MemberRole::Witness {
            return Err(MemberRefused::WitnessForLife);
        }
        if role == MemberRole::Observer { self.check_stays_voter(place) } else { Ok(()) }
    }

    /// Somebody else votes who has a log.
    fn check_stays_voter(&self, place: usize) -> Result<(), MemberRefused> {
        let votes =
            |(other, member): (usize, &MemberRecord)| other != place && member.role == MemberRole::Voter;
        if self.list[place].role != MemberRole::Voter || self.list.iter().enumerate().any(votes) {
            Ok(())
        } else {
            Err(MemberRefused::LastVoter)
        }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_records(out, &self.list);
        put_records(out, &self.leaving);
        put_varint(out, self.retired.len() as u64);
        for id in &self.retired {
            put_varint(out, *id);
        }
        out.push(u8::from(self.in_force.is_some()));
        if let Some(parts) = &self.in_force {
            put_parts(out, parts);
        }
    }

    /// What came with level 3.
    pub(super) fn put_joined(&self, out: &mut Vec<u8>) {
        put_varint(out, self.patient.len() as u64);
        for id in &self.patient {
            put_varint(out, *id);
        }
        put_varint(out, self.replacing.len() as u64);
        for (new, old) in &self.replacing {
            put_varint(out, *new);
            put_varint(out, *old);
        }
    }

    /// Reads what [`put_joined`](Self::put_joined) wrote.
    pub(super) fn read_joined(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        let count = |reader: &mut Reader<'_>| match reader.varint()? {
            count @ 0..=16 => Ok(count),
            _ => Err(Malformed),
        };
        let patient = count(reader)?;
        self.patient = (0..patient).map(|_| reader.varint()).collect::<Result<_, Malformed>>()?;
        let replacing = count(reader)?;
        let pair = |reader: &mut Reader<'_>| Ok((reader.varint()?, reader.varint()?));
        self.replacing = (0..replacing).map(|_| pair(reader)).collect::<Result<_, Malformed>>()?;
        let is_member = |id: &u64| self.list.iter().any(|member| member.id.0 == *id);
        let is_leaving = |old: &u64| self.leaving.iter().any(|member| member.id.0 == *old);
        let sound = self.patient.is_sorted_by(|before, after| before < after)
            && self.patient.iter().all(is_member)
            && self.replacing.iter().all(|(_, old)| is_leaving(old));
        if sound { Ok(()) } else { Err(Malformed) }
    }

    /// What [`put`](Self::put) wrote, now or before there was a list of those who are leaving.
    pub(super) fn read(reader: &mut Reader<'_>, has_leaving: bool) -> Result<Members, Malformed> {
        let list = read_records(reader)?;
        let leaving = if has_leaving { read_records(reader)? } else { Vec::new() };
        let count = reader.varint()?;
        if count > RETIRED_MAX as u64 {
            return Err(Malformed);
        }
        let retired = (0..count).map(|_| reader.varint()).collect::<Result<Vec<u64>, Malformed>>()?;
        if !retired.is_sorted_by(|before, after| before < after) {
            return Err(Malformed);
        }
        let in_force = if reader.bool()? { Some(read_parts(reader)?) } else { None };
        Ok(Members { list, leaving, retired, in_force, ..Members::default() })
    }
}

fn mix_record(digest: u64, record: &MemberRecord) -> u64 {
    let mut bytes = Vec::with_capacity(128);
    put_record(&mut bytes, record);
    mix_bytes(digest, &bytes)
}

fn is_sound(record: &MemberRecord) -> bool {
    record.id.0 > 0 && is_name(&record.name) && is_address(&record.address)
}

pub(super) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain)
}

pub(super) fn is_address(address: &str) -> bool {
    address.len() <= ADDRESS_BYTES_MAX && address.bytes().all(|byte| byte.is_ascii_graphic())
}

pub(super) fn put_record(out: &mut Vec<u8>, record: &MemberRecord) {
    put_varint(out, record.id.0);
    out.push(role_code(record.role));
    out.extend_from_slice(&record.key.0);
    put_bytes(out, record.name.as_bytes());
    put_bytes(out, record.address.as_bytes());
}

pub(super) fn read_record(reader: &mut Reader<'_>) -> Result<MemberRecord, Malformed> {
    let id = NodeId(reader.varint()?);
    let role = read_role(reader)?;
    let key = KeyHash(reader.array()?);
    let (name, address) = (reader.text()?.to_owned(), reader.text()?.to_owned());
    let record = MemberRecord { id, name, address, key, role };
    if is_sound(&record) { Ok(record) } else { Err(Malformed) }
}

/// Records in ascending order of their numbers.
pub(crate) fn put_records(out: &mut Vec<u8>, records: &[MemberRecord]) {
    out.push(records.len() as u8);
    for record in records {
        put_record(out, record);
    }
}

pub(crate) fn read_records(reader: &mut Reader<'_>) -> Result<Vec<MemberRecord>, Malformed> {
    let count = usize::from(reader.u8()?);
    if count > MEMBERS_MAX {
        return Err(Malformed);
    }
    let list = (0..count).map(|_| read_record(reader)).collect::<Result<Vec<_>, Malformed>>()?;
    if list.is_sorted_by(|before, after| before.id < after.id) { Ok(list) } else { Err(Malformed) }
}

pub(super) const fn role_code(role: MemberRole) -> u8 {
    match role {
        MemberRole::Voter => 0,
        MemberRole::Observer => 1,
        MemberRole::Witness => 2,
    }
}

pub(super) fn read_role(reader: &mut Reader<'_>) -> Result<MemberRole, Malformed> {
    match reader.u8()? {
        0 => Ok(MemberRole::Voter),
        1 => Ok(MemberRole::Observer),
        2 => Ok(MemberRole::Witness),
        _ => Err(Malformed),
    }
}

/// A joint configuration has the members of two.
const PARTS_MAX: usize = 16;

pub(super) fn put_parts(out: &mut Vec<u8>, parts: &ConfigurationRecord) {
    out.push(u8::from(parts.leaves_by_itself));
    out.push(parts.parts.len() as u8);
    for part in &parts.parts {
        put_varint(out, part.id.0);
        let flags = [part.voter, part.outgoing, part.observer, part.witness];
        out.push(flags.iter().enumerate().map(|(bit, flag)| u8::from(*flag) << bit).sum());
    }
}

pub(super) fn read_parts(reader: &mut Reader<'_>) -> Result<ConfigurationRecord, Malformed> {
    let leaves_by_itself = reader.bool()?;
    let count = usize::from(reader.u8()?);
    if count > PARTS_MAX {
        return Err(Malformed);
    }
    let mut parts: Vec<Part> = Vec::with_capacity(count);
    for _ in 0..count {
        let (id, flags) = (NodeId(reader.varint()?), reader.u8()?);
        if flags >= 16 || parts.last().is_some_and(|before| before.id >= id) {
            return Err(Malformed);
        }
        let has = |bit: u8| flags >> bit & 1 == 1;
        parts.push(Part { id, voter: has(0), outgoing: has(1), observer: has(2), witness: has(3) });
    }
    Ok(ConfigurationRecord { parts, leaves_by_itself })
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;
