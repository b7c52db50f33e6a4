//! Reads a segment ahead, and finds the groups in it.

use super::fs::StoredFile;
use super::group;
use super::log::Segment;
use super::repair::{self, Expected};
use super::{BLOCK_BYTES, OpenError};

const WINDOW_BYTES: usize = 256 << 10;
/// A group whose length may be wrong is looked for in so many bytes; groups are seldom larger.
const REPAIR_BYTES: u64 = 4 << 20;

/// Part of a file, read ahead.
#[derive(Default)]
pub(super) struct ReadAhead {
    start: u64,
    bytes: Vec<u8>,
}

impl ReadAhead {
    /// What was read is another file's.
    pub(super) fn forget(&mut self) {
        self.bytes.clear();
    }

    /// The whole group (without padding) that begins at `offset`, if one does.
    pub(super) fn group<S: StoredFile>(
        &mut self,
        segment: &Segment<S>,
        offset: u64,
    ) -> Result<Option<&[u8]>, OpenError> {
        if offset >= segment.bytes {
            return Ok(None);
        }
        let length = match group::length(self.get(segment, offset, BLOCK_BYTES)?) {
            Some(length) if length as u64 <= segment.bytes - offset => length,
            _ => return Ok(None),
        };
        let bytes = self.get(segment, offset, length)?;
        Ok(group::is_whole(bytes, segment.salt).then_some(bytes))
    }

    /// Whether the remains of that group stand at `offset`.
    pub(super) fn unfinished<S: StoredFile>(
        &mut self,
        segment: &Segment<S>,
        offset: u64,
        sequence: u64,
    ) -> Result<bool, OpenError> {
        let block = self.get(segment, offset, BLOCK_BYTES)?;
        Ok(group::length(block).is_some() && block.get(16..24) == Some(&sequence.to_le_bytes()[..]))
    }

    /// Where, counted from `offset`, another byte makes the expected group whole, and which byte.
    pub(super) fn wrong_byte<S: StoredFile>(
        &mut self,
        segment: &Segment<S>,
        offset: u64,
        expected: Expected,
    ) -> Result<Option<(u64, u8)>, OpenError> {
        let left = segment.bytes.saturating_sub(offset);
        let claimed = group::length(self.get(segment, offset, BLOCK_BYTES)?).unwrap_or_default() as u64;
        let most = usize::try_from(claimed.max(REPAIR_BYTES).min(left)).unwrap_or(usize::MAX);
        let found = repair::one_byte(self.get(segment, offset, most)?, expected);
        Ok(found.map(|(at, byte)| (at as u64, byte)))
    }

    /// `length` bytes at `offset`, fewer at the end of the file.
    fn get<S: StoredFile>(
        &mut self,
        segment: &Segment<S>,
        offset: u64,
        length: usize,
    ) -> Result<&[u8], OpenError> {
        let end = offset + length as u64;
        if offset < self.start || end > self.start + self.bytes.len() as u64 {
            self.start = offset;
            self.bytes.resize(length.max(WINDOW_BYTES), 0);
            let read = segment.file.read_at(offset, &mut self.bytes);
            let read = read.map_err(|source| OpenError::from_io(&segment.path, source))?;
            self.bytes.truncate(read);
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX).min(self.bytes.len());
        Ok(&self.bytes[from..(from + length).min(self.bytes.len())])
    }
}
