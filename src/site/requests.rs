//! The changes of settings and members that were already made: a box without an answer sends its request again, and a
//! late second copy must not undo later changes.

use std::collections::VecDeque;

use crate::codec::{Malformed, Reader, put_varint};
use crate::deliberate::{self, Bug};

/// So many are remembered, the oldest are forgotten. A request is sent again for ten seconds at most, and nobody makes
/// so many changes in that time.
const REMEMBERED_MAX: usize = 1024;

/// The numbers of the latest requests, random ones, in the order in which they were applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Requests {
    nonces: VecDeque<u64>,
}

impl Requests {
    /// Whether this is the first copy. It is remembered, whatever becomes of it: what was refused once is not done by a
    /// later copy.
    pub(super) fn is_first(&mut self, nonce: u64) -> bool {
        if self.nonces.contains(&nonce) {
            return deliberate::is(Bug::RepeatsChanges);
        }
        if self.nonces.len() >= REMEMBERED_MAX {
            self.nonces.pop_front();
        }
        self.nonces.push_back(nonce);
        true
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.nonces.len() as u64);
        for nonce in &self.nonces {
            out.extend_from_slice(&nonce.to_le_bytes());
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Requests, Malformed> {
        let count = reader.varint()?;
        if count > REMEMBERED_MAX as u64 {
            return Err(Malformed);
        }
        let nonces = (0..count).map(|_| reader.u64()).collect::<Result<VecDeque<u64>, Malformed>>()?;
        Ok(Requests { nonces })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_known_for_long_and_the_oldest_are_forgotten() {
        let mut requests = Requests::default();
        for nonce in 0..REMEMBERED_MAX as u64 {
            assert!(requests.is_first(nonce));
            assert!(!requests.is_first(nonce) && !requests.is_first(0));
        }
        assert!(requests.is_first(u64::MAX));
        assert!(requests.is_first(0), "the oldest made room");
        let mut bytes = Vec::new();
        requests.put(&mut bytes);
        assert_eq!(Requests::read(&mut Reader::new(&bytes)), Ok(requests));
    }

    #[test]
    fn more_than_are_ever_remembered_are_malformed() {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, REMEMBERED_MAX as u64 + 1);
        bytes.resize(16 * REMEMBERED_MAX, 0);
        assert_eq!(Requests::read(&mut Reader::new(&bytes)), Err(Malformed));
    }
}
