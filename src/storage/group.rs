//! A group as bytes: what one write and one sync make durable.
//!
//! ```text
//! magic u32 | crc u32 | length u32 | entries u32 | sequence u64 | last durable index before it u64
//! second check u64 | flags u8 | by flags: boot, hard state, truncation, reset (varints) | entries | zeros to a block
//! ```
//! Integers are little-endian. The checksum (CRC-32C) runs over the segment's salt and everything
//! after itself, so that a stale group of a reused file never passes; the second check, of another
//! kind, lets a wrong byte be put right with certainty (see `repair`). An entry's index is implied;
//! an entry is `varint(length << 1 | changed) [varint(term + ) varint(subterm)] payload`, where
//! `changed` says that it has not the term and subterm of the entry before it in the group.

use bytes::Bytes;
use tally_core::id::{LogIndex, NodeId, Subterm, Term};
use tally_core::raft::{HardState, Position};

use super::{BLOCK_BYTES, Entry};
use crate::codec::{Malformed, Reader, put_varint};

const MAGIC: u32 = 0x4759_4C54; // "TLYG"
/// The magic as it is in a file.
pub(super) const MAGIC_BYTES: [u8; 4] = MAGIC.to_le_bytes();
pub(super) const CRC_AT: usize = 4;
pub(super) const LENGTH_AT: usize = 8;
/// Sequence number and the log's end before the group.
pub(super) const NUMBERS: std::ops::Range<usize> = 16..32;
/// What comes from here on is read only once its length is known.
pub(super) const CHECKED_FROM: usize = LENGTH_AT + 4;
const SECOND_AT: usize = 32;
const HEADER_BYTES: usize = 40;
const CRC_END: usize = 8;

/// The largest group, in bytes with its padding.
pub(super) const GROUP_BYTES_MAX: usize = 256 << 20;

const HAS_BOOT: u8 = 1;
const HAS_HARD_STATE: u8 = 2;
const HAS_TRUNCATE: u8 = 4;
const HAS_RESET: u8 = 8;

/// What a group says besides entries, in the order in which it takes effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The directory was opened for this time.
    pub(super) boot: Option<u64>,
    /// The new hard state.
    pub(super) hard_state: Option<HardState>,
    /// Entries after this one are gone; it stands in full, since the entry itself may be compacted.
    pub(super) truncate: Option<Position>,
    /// The log begins anew after this position (a snapshot's).
    pub(super) reset: Option<Position>,
}

/// A group read back.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) sequence: u64,
    pub(super) last_before: LogIndex,
    pub(super) facts: Facts,
    pub(super) entries: Vec<Entry>,
}

/// Writes a group into the emptied buffer, padded to whole blocks; [`seal`] completes it.
/// `last_before` is the log's end before the group.
pub(super) fn encode(
    buffer: &mut Vec<u8>,
    sequence: u64,
    last_before: LogIndex,
    facts: &Facts,
    entries: &[Entry],
) {
    buffer.clear();
    buffer.extend_from_slice(&MAGIC.to_le_bytes());
    buffer.extend_from_slice(&[0; 8]); // checksum and length
    buffer.extend_from_slice(&u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes());
    buffer.extend_from_slice(&sequence.to_le_bytes());
    buffer.extend_from_slice(&last_before.0.to_le_bytes());
    buffer.extend_from_slice(&[0; 8]); // second check
    put_facts(buffer, facts);
    let mut last = None;
    for entry in entries {
        let writer = Some((entry.position.term, entry.position.subterm));
        let changed = writer != last;
        put_varint(buffer, (entry.payload.len() as u64) << 1 | u64::from(changed));
        if changed {
            put_varint(buffer, entry.position.term.0);
            put_varint(buffer, entry.position.subterm.0);
        }
        buffer.extend_from_slice(&entry.payload);
        last = writer;
    }
    let length = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
    buffer[CRC_END..CRC_END + 4].copy_from_slice(&length.to_le_bytes());
    buffer.resize(buffer.len().next_multiple_of(BLOCK_BYTES), 0);
}

fn put_facts(buffer: &mut Vec<u8>, facts: &Facts) {
    let flag = |present: bool, flag: u8| if present { flag } else { 0 };
    buffer.push(
        flag(facts.boot.is_some(), HAS_BOOT)
            | flag(facts.hard_state.is_some(), HAS_HARD_STATE)
            | flag(facts.truncate.is_some(), HAS_TRUNCATE)
            | flag(facts.reset.is_some(), HAS_RESET),
    );
    if let Some(boot) = facts.boot {
        put_varint(buffer, boot);
    }
    if let Some(hard_state) = facts.hard_state {
        put_varint(buffer, hard_state.term.0);
        buffer.push(u8::from(hard_state.vote.is_some()));
        if let Some(vote) = hard_state.vote {
            put_varint(buffer, vote.0);
        }
    }
    for position in [facts.truncate, facts.reset].into_iter().flatten() {
        put_varint(buffer, position.index.0);
        put_varint(buffer, position.term.0);
        put_varint(buffer, position.subterm.0);
    }
}

/// Puts the checks for a segment with this salt into an encoded group.
pub(super) fn seal(buffer: &mut [u8], salt: u64) {
    if let Some(length) = length(buffer) {
        let second = second(&buffer[..length], salt);
        buffer[SECOND_AT..HEADER_BYTES].copy_from_slice(&second.to_le_bytes());
        let crc = checksum(&buffer[..length], salt);
        buffer[4..CRC_END].copy_from_slice(&crc.to_le_bytes());
    }
}

/// The length without padding of the group that seems to begin here; `None` if none does.
pub(super) fn length(start: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(start);
    if reader.u32().ok()? != MAGIC {
        return None;
    }
    reader.u32().ok()?;
    let length = reader.u32().ok()? as usize;
    (length > HEADER_BYTES && length <= GROUP_BYTES_MAX).then_some(length)
}

/// Whether these bytes (as many as [`length`] says) are a whole group of a segment with this salt.
pub(super) fn is_whole(bytes: &[u8], salt: u64) -> bool {
    length(bytes) == Some(bytes.len()) && bytes[4..CRC_END] == checksum(bytes, salt).to_le_bytes()
}

/// The checksum that belongs in the group.
pub(super) fn checksum(group: &[u8], salt: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &group[CRC_END..])
}

/// Whether a whole group also passes the second check.
pub(super) fn is_confirmed(group: &[u8], salt: u64) -> bool {
    group.get(SECOND_AT..HEADER_BYTES) == Some(&second(group, salt).to_le_bytes()[..])
}

/// Whether a group has this number and follows this end of the log.
pub(super) fn is_numbered(group: &[u8], sequence: u64, last_before: u64) -> bool {
    let numbers = group.get(NUMBERS).unwrap_or_default();
    numbers.iter().eq(sequence.to_le_bytes().iter().chain(&last_before.to_le_bytes()))
}

/// A hash of everything but the two checks: words multiplied and folded, as FNV-1a does with bytes.
fn second(group: &[u8], salt: u64) -> u64 {
    let mut hash = salt ^ 0xCBF2_9CE4_8422_2325;
    for part in [group.get(LENGTH_AT..SECOND_AT), group.get(HEADER_BYTES..)].into_iter().flatten() {
        for word in part.chunks(8) {
            let mut bytes = [0; 8];
            bytes[..word.len()].copy_from_slice(word);
            hash = (hash ^ u64::from_le_bytes(bytes)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            hash ^= hash >> 29;
        }
    }
    hash
}

/// Reads a whole group. Payloads share the bytes.
pub(super) fn decode(bytes: &Bytes) -> Option<Group> {
    read(bytes).ok()
}

fn read(bytes: &Bytes) -> Result<Group, Malformed> {
    let mut reader = Reader::new(bytes);
    reader.take(12)?;
    let count = reader.u32()? as usize;
    let sequence = reader.u64()?;
    let last_before = LogIndex(reader.u64()?);
    reader.u64()?; // the second check
    let facts = take_facts(&mut reader)?;
    let follows = facts.reset.or(facts.truncate).map_or(last_before, |position| position.index);
    let mut last = Position { index: follows, ..Position::ZERO };
    let mut entries = Vec::with_capacity(count.min(reader.left()));
    for _ in 0..count {
        let head = reader.varint()?;
        last.index = last.index.next();
        if head & 1 == 1 {
            last.term = Term(reader.varint()?);
            last.subterm = Subterm(reader.varint()?);
        }
        let payload = reader.take(usize::try_from(head >> 1).map_err(|_| Malformed)?)?;
        entries.push(Entry { position: last, payload: bytes.slice_ref(payload) });
    }
    reader.done()?;
    Ok(Group { sequence, last_before, facts, entries })
}

fn take_facts(reader: &mut Reader<'_>) -> Result<Facts, Malformed> {
    let flags = reader.u8()?;
    let mut facts = Facts::default();
    if flags & HAS_BOOT != 0 {
        facts.boot = Some(reader.varint()?);
    }
    if flags & HAS_HARD_STATE != 0 {
        let term = Term(reader.varint()?);
        let vote = match reader.u8()? {
            0 => None,
            1 => Some(NodeId(reader.varint()?)),
            _ => return Err(Malformed),
        };
        facts.hard_state = Some(HardState { term, vote });
    }
    let mut position = |flag: u8| -> Result<Option<Position>, Malformed> {
        if flags & flag == 0 {
            return Ok(None);
        }
        Ok(Some(Position {
            index: LogIndex(reader.varint()?),
            term: Term(reader.varint()?),
            subterm: Subterm(reader.varint()?),
        }))
    };
    facts.truncate = position(HAS_TRUNCATE)?;
    facts.reset = position(HAS_RESET)?;
    if flags < HAS_RESET << 1 { Ok(facts) } else { Err(Malformed) }
}
