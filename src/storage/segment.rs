//! A segment: a preallocated file of the log. Its first block names its owner and has the state at its beginning, so
//! that earlier segments can be removed; groups follow.
//!
//! A segment gets its name (`NUMBER.log`) only once its first block is durable, so a named segment without a valid
//! first block is damage, never the result of a crash. Once the next segment has its name, the segment is renamed to
//! `NUMBER.full`, so that the loss of the newest file is noticed.

use std::path::{Path, PathBuf};

use tally_core::id::{LogIndex, NodeId, Subterm, Term};
use tally_core::raft::{HardState, Position};

use super::{BLOCK_BYTES, FORMAT_VERSION, OpenError, Owner};
use crate::codec::{Malformed, Reader};

const MAGIC: &[u8; 8] = b"TALLYLOG";
const CRC_END: usize = 12;
const HEADER_BYTES: usize = 125;

/// The name of a segment that is being made.
pub(super) const UNFINISHED: &str = "new.tmp";

/// The first block of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) owner: Owner,
    /// Its number; they follow each other without a gap and are never used again.
    pub(super) number: u64,
    /// Goes into the checksum of its groups.
    pub(super) salt: u64,
    /// The sequence number of its first group.
    pub(super) sequence: u64,
    /// The end of the log before it; its first entry follows (unless a truncation comes first).
    pub(super) previous: Position,
    /// The hard state before its first group.
    pub(super) hard_state: HardState,
    /// The boot number before its first group.
    pub(super) boot: u64,
    /// The file was a segment before: its blocks are written already.
    pub(super) reused: bool,
    /// How long the file was made. A shorter one has lost its end, with whatever stood there. Zero: made before this
    /// was written down.
    pub(super) bytes: u64,
}

impl SegmentHeader {
    /// Encodes the header as a whole block.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        block.extend_from_slice(MAGIC);
        block.extend_from_slice(&[0; 4]);
        block.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        let Position { index, term, subterm } = self.previous;
        for value in [
            self.owner.site_id,
            self.owner.node,
            self.number,
            self.salt,
            self.sequence,
            index.0,
            term.0,
            subterm.0,
            self.boot,
            self.hard_state.term.0,
            self.hard_state.vote.map_or(0, |vote| vote.0),
        ] {
            block.extend_from_slice(&value.to_le_bytes());
        }
        block.push(u8::from(self.hard_state.vote.is_some()) | u8::from(self.reused) << 1);
        block.extend_from_slice(&self.bytes.to_le_bytes());
        block.resize(BLOCK_BYTES, 0);
        let crc = crc32c::crc32c(&block[CRC_END..]);
        block[MAGIC.len()..CRC_END].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// Reads and checks the first block of `file`; `expected` is the number in the file's name.
    pub(super) fn decode(
        block: &[u8],
        file: &Path,
        dir: &Path,
        owner: Owner,
        expected: u64,
    ) -> Result<SegmentHeader, OpenError> {
        let damaged = |certain: &str| OpenError::Damaged {
            file: file.to_path_buf(),
            offset: 0,
            certain: format!("{certain}, so the content of this segment cannot be trusted."),
            advice: super::RESTORE_ADVICE.to_string(),
        };
        if block.len() != BLOCK_BYTES || &block[..MAGIC.len()] != MAGIC {
            return Err(damaged("the first block is not a segment header"));
        }
        let (version, header) =
            SegmentHeader::fields(block).map_err(|_| damaged("the first block is too short"))?;
        if block[MAGIC.len()..CRC_END] != crc32c::crc32c(&block[CRC_END..]).to_le_bytes() {
            return Err(damaged("the checksum of the segment's first block is wrong"));
        }
        if version > FORMAT_VERSION {
            let (found, known) = (version.into(), FORMAT_VERSION.into());
            return Err(OpenError::Newer { dir: dir.to_path_buf(), found, known });
        }
        if header.owner != owner {
            return Err(foreign_data(file, header.owner, owner));
        }
        if header.number != expected {
            return Err(damaged(&format!("this is segment {} under the name of another", header.number)));
        }
        Ok(header)
    }

    fn fields(block: &[u8]) -> Result<(u32, SegmentHeader), Malformed> {
        let mut reader = Reader::new(block.get(CRC_END..HEADER_BYTES).ok_or(Malformed)?);
        let version = reader.u32()?;
        let owner = Owner { site_id: reader.u64()?, node: reader.u64()? };
        let (number, salt, sequence) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let previous = Position {
            index: LogIndex(reader.u64()?),
            term: Term(reader.u64()?),
            subterm: Subterm(reader.u64()?),
        };
        let boot = reader.u64()?;
        let (term, vote) = (Term(reader.u64()?), NodeId(reader.u64()?));
        let flags = reader.u8()?;
        let hard_state = HardState { term, vote: (flags & 1 != 0).then_some(vote) };
        let (reused, bytes) = (flags & 2 != 0, reader.u64()?);
        let header =
            SegmentHeader { owner, number, salt, sequence, previous, hard_state, boot, reused, bytes };
        Ok((version, header))
    }
}

/// The error for data of another box.
pub(super) fn foreign_data(file: &Path, found: Owner, owner: Owner) -> OpenError {
    OpenError::Foreign {
        file: file.to_path_buf(),
        found_site: found.site_id,
        found_node: found.node,
        site: owner.site_id,
        node: owner.node,
    }
}

/// Where the segment with that number is.
pub(super) fn path(log_dir: &Path, number: u64) -> PathBuf {
    log_dir.join(format!("{number:012}.log"))
}

/// Where it is once there is a next one.
pub(super) fn full_path(log_dir: &Path, number: u64) -> PathBuf {
    log_dir.join(format!("{number:012}.full"))
}

/// Where a segment goes that waits to be used again.
pub(super) fn spare_path(log_dir: &Path, number: u64) -> PathBuf {
    log_dir.join(format!("{number:012}.spare"))
}

/// What the name of a file in the log's directory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileRole {
    Segment(u64),
    /// A segment that is followed by another.
    Full(u64),
    Spare(u64),
    Unfinished,
    Other,
}

/// Reads a file's name.
pub(super) fn file_role(name: &str) -> FileRole {
    let number = |stem: &str| stem.bytes().all(|byte| byte.is_ascii_digit()).then(|| stem.parse().ok())?;
    if name == UNFINISHED {
        return FileRole::Unfinished;
    }
    match name.rsplit_once('.') {
        Some((stem, "log")) => number(stem).map_or(FileRole::Other, FileRole::Segment),
        Some((stem, "full")) => number(stem).map_or(FileRole::Other, FileRole::Full),
        Some((stem, "spare")) => number(stem).map_or(FileRole::Other, FileRole::Spare),
        _ => FileRole::Other,
    }
}

/// A salt that no segment of this directory had before: by number, and not to be guessed by those
/// who choose payloads.
pub(super) fn new_salt(number: u64) -> u64 {
    crate::random::quick(number) ^ number.rotate_left(32)
}
