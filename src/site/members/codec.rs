//! Members and configurations as bytes, in entries and snapshots.

use tally_core::id::{KeyHash, NodeId};
use tally_core::raft::MemberRole;

use super::{ADDRESS_BYTES_MAX, ConfigurationRecord, MEMBERS_MAX, MemberRecord, NAME_BYTES_MAX, Part};
use crate::codec::{Malformed, Reader, put_bytes, put_varint};
use crate::site::digest::mix_bytes;

pub(super) fn mix_record(digest: u64, record: &MemberRecord) -> u64 {
    let mut bytes = Vec::with_capacity(128);
    put_record(&mut bytes, record);
    mix_bytes(digest, &bytes)
}

pub(super) fn is_sound(record: &MemberRecord) -> bool {
    record.id.0 > 0 && is_name(&record.name) && is_address(&record.address)
}

pub(in crate::site) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain)
}

pub(in crate::site) fn is_address(address: &str) -> bool {
    address.len() <= ADDRESS_BYTES_MAX && address.bytes().all(|byte| byte.is_ascii_graphic())
}

pub(in crate::site) fn put_record(out: &mut Vec<u8>, record: &MemberRecord) {
    put_varint(out, record.id.0);
    out.push(role_code(record.role));
    out.extend_from_slice(&record.key.0);
    put_bytes(out, record.name.as_bytes());
    put_bytes(out, record.address.as_bytes());
}

pub(in crate::site) fn read_record(reader: &mut Reader<'_>) -> Result<MemberRecord, Malformed> {
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

pub(in crate::site) const fn role_code(role: MemberRole) -> u8 {
    match role {
        MemberRole::Voter => 0,
        MemberRole::Observer => 1,
        MemberRole::Witness => 2,
    }
}

pub(in crate::site) fn read_role(reader: &mut Reader<'_>) -> Result<MemberRole, Malformed> {
    match reader.u8()? {
        0 => Ok(MemberRole::Voter),
        1 => Ok(MemberRole::Observer),
        2 => Ok(MemberRole::Witness),
        _ => Err(Malformed),
    }
}

/// A joint configuration has the members of two.
const PARTS_MAX: usize = 16;

pub(in crate::site) fn put_parts(out: &mut Vec<u8>, parts: &ConfigurationRecord) {
    out.push(u8::from(parts.leaves_by_itself));
    out.push(parts.parts.len() as u8);
    for part in &parts.parts {
        put_varint(out, part.id.0);
        let flags = [part.voter, part.outgoing, part.observer, part.witness];
        out.push(flags.iter().enumerate().map(|(bit, flag)| u8::from(*flag) << bit).sum());
    }
}

pub(in crate::site) fn read_parts(reader: &mut Reader<'_>) -> Result<ConfigurationRecord, Malformed> {
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
