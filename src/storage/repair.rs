//! Repairs one wrong byte in the last group of the log. Anywhere else damage is told from an unfinished write by what
//! follows it. Nothing follows the last group, and cutting it would silently lose acknowledged entries if a bit has
//! flipped in it. So if changing one byte makes the group whole by both of its checks, 96 bits together, the group was
//! whole once, and the byte is corrected. A torn write of which only one byte is missing is completed in the same way,
//! which does no harm.
//!
//! The byte is found from the checksum. CRCs are linear: the difference between the stored and the computed checksum
//! is the difference of the byte, advanced by the number of bytes after it. Moved back byte by byte, it fits where the
//! wrong byte is.

use super::group::{self, CHECKED_FROM, CRC_AT, LENGTH_AT, MAGIC_BYTES};

/// What is known of the group that should stand there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) salt: u64,
    pub(super) sequence: u64,
    /// The log's end before it.
    pub(super) last_before: u64,
}

impl Expected {
    fn fits(self, bytes: &[u8]) -> bool {
        group::is_whole(bytes, self.salt)
            && group::is_numbered(bytes, self.sequence, self.last_before)
            && group::is_confirmed(bytes, self.salt)
    }

    /// Whether the beginning is that of the group but for one byte at most.
    fn may_fit(self, bytes: &[u8]) -> bool {
        let Some(numbers) = bytes.get(group::NUMBERS) else { return false };
        let right = [self.sequence.to_le_bytes(), self.last_before.to_le_bytes()].concat();
        difference(&bytes[..MAGIC_BYTES.len()], &MAGIC_BYTES) + difference(numbers, &right) <= 1
    }
}

fn difference(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).filter(|(one, other)| one != other).count()
}

/// Where in `bytes` (all that is there from the group's beginning on) another byte makes the group
/// whole, and which.
pub(super) fn one_byte(bytes: &[u8], expected: Expected) -> Option<(usize, u8)> {
    if !expected.may_fit(bytes) {
        return None;
    }
    let mut bytes = bytes.to_vec();
    repair_head(&mut bytes, expected).or_else(|| repair_rest(&mut bytes, expected))
}

/// In the magic, the checksum or the length: what comes after tells which byte it was.
fn repair_head(bytes: &mut [u8], expected: Expected) -> Option<(usize, u8)> {
    for (at, right) in MAGIC_BYTES.into_iter().enumerate() {
        if bytes[at] != right {
            let wrong = std::mem::replace(&mut bytes[at], right);
            let length = group::length(bytes)?;
            let fits = bytes.get(..length).is_some_and(|group| expected.fits(group));
            bytes[at] = wrong;
            return fits.then_some((at, right));
        }
    }
    if let Some(length) = group::length(bytes).filter(|length| *length <= bytes.len()) {
        let right = group::checksum(&bytes[..length], expected.salt).to_le_bytes();
        let at = (0..right.len()).find(|at| bytes[CRC_AT + at] != right[*at])?;
        let wrong = std::mem::replace(&mut bytes[CRC_AT + at], right[at]);
        let fits = expected.fits(&bytes[..length]);
        bytes[CRC_AT + at] = wrong;
        if fits {
            return Some((CRC_AT + at, right[at]));
        }
    }
    for at in LENGTH_AT..LENGTH_AT + 4 {
        let wrong = bytes[at];
        for right in (0..=u8::MAX).filter(|right| *right != wrong) {
            bytes[at] = right;
            let length = group::length(bytes).filter(|length| *length <= bytes.len());
            if length.is_some_and(|length| expected.fits(&bytes[..length])) {
                return Some((at, right));
            }
        }
        bytes[at] = wrong;
    }
    None
}

/// Anywhere after the length.
fn repair_rest(bytes: &mut [u8], expected: Expected) -> Option<(usize, u8)> {
    let length = group::length(bytes).filter(|length| *length <= bytes.len())?;
    let group = &mut bytes[..length];
    let stands: [u8; 4] = group[CRC_AT..CRC_AT + 4].try_into().ok()?;
    let table = table();
    let mut moved = group::checksum(group, expected.salt) ^ u32::from_le_bytes(stands);
    for at in (CHECKED_FROM..length).rev() {
        // The highest bytes of the table's values are all different.
        let byte = table.iter().position(|value| value >> 24 == moved >> 24)?;
        if table[byte] == moved {
            let wrong = group[at];
            group[at] ^= byte.to_le_bytes()[0];
            if expected.fits(group) {
                return Some((at, group[at]));
            }
            group[at] = wrong;
        }
        moved = ((moved ^ table[byte]) << 8) | u32::try_from(byte).ok()?;
    }
    None
}

/// What a byte does to a CRC-32C of zero.
fn table() -> [u32; 256] {
    std::array::from_fn(|byte| {
        // CRC-32C, reflected; a table of 256 has indexes that fit.
        (0..8).fold(byte as u32, |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::super::group::Facts;
    use super::super::{BLOCK_BYTES, Entry};
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use tally_core::id::{LogIndex, Term};
    use tally_core::raft::Position;

    const EXPECTED: Expected = Expected { salt: 99, sequence: 1000, last_before: 70_000 };

    fn group(payloads: &[Vec<u8>], expected: Expected) -> Vec<u8> {
        let mut buffer = Vec::new();
        let mut position =
            Position { term: Term(3), index: LogIndex(expected.last_before), ..Position::ZERO };
        let entries = payloads.iter().map(|payload| {
            position.index = position.index.next();
            Entry { position, payload: Bytes::from(payload.clone()) }
        });
        let entries: Vec<Entry> = entries.collect();
        let last_before = LogIndex(expected.last_before);
        group::encode(&mut buffer, expected.sequence, last_before, &Facts::default(), &entries);
        group::seal(&mut buffer, expected.salt);
        buffer
    }

    #[test]
    fn every_byte_of_a_group_is_found_and_put_right() {
        let whole = group(&[vec![7; 60], vec![0; 90], b"parts".to_vec()], EXPECTED);
        let length = group::length(&whole).unwrap();
        for at in 0..length {
            for flip in [1, 0x80, 0x5a, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                assert_eq!(one_byte(&bytes, EXPECTED), Some((at, whole[at])), "byte {at}, {flip:#x}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_large_group_too(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5000), 1..4),
            at in any::<prop::sample::Index>(),
            flip in 1u8..,
        ) {
            let whole = group(&payloads, EXPECTED);
            let at = at.index(group::length(&whole).unwrap());
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            prop_assert_eq!(one_byte(&bytes, EXPECTED), Some((at, whole[at])));
        }

        #[test]
        fn a_torn_group_is_not_made_up(
            payload in prop::collection::vec(1u8.., 2000..9000),
            lost in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        ) {
            let mut bytes = group(&[payload], EXPECTED);
            // Whole sectors; the last one that counts may hold little.
            let sectors = group::length(&bytes).unwrap() / 512;
            for sector in lost {
                let sector = sector.index(sectors);
                bytes[sector * 512..(sector + 1) * 512].fill(0);
            }
            prop_assert_eq!(one_byte(&bytes, EXPECTED), None);
        }
    }

    #[test]
    fn what_is_left_of_an_earlier_incarnation_is_left_alone() {
        for stale in [
            Expected { salt: 98, ..EXPECTED },
            Expected { sequence: 999, ..EXPECTED },
            Expected { last_before: 69_999, ..EXPECTED },
        ] {
            assert_eq!(one_byte(&group(&[vec![1; 100]], stale), EXPECTED), None);
        }
        assert_eq!(one_byte(&[0; BLOCK_BYTES], EXPECTED), None);
        assert_eq!(one_byte(&[], EXPECTED), None);
    }
}
