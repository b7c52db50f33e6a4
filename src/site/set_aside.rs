//! Numbered summaries that the broker does not take: held apart, so that those after them go on.
//!
//! `Delivered` passes over what is in here; it stays until a leader has brought it to the broker after
//! all ([`super::entry::released`]).

use std::collections::BTreeMap;

use tally_core::report::Amount;

use super::codec::{Malformed, Reader};
use super::digest::mix;
use super::outbox::{put_summary, read_summary};
use super::view::{Held, Summary};

/// How many are held at most, beside the outbox: with this many nothing more is set aside, and the
/// number that is refused next holds up those after it.
pub const HELD_MAX: usize = 1000;

/// Bytes of one, as a snapshot's size is guessed.
pub(super) const HELD_BYTES: usize = 160;

/// See the module. By number.
#[derive(Debug, Default)]
pub(super) struct SetAside(BTreeMap<u64, Held>);

impl SetAside {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Those after a number, in order.
    pub(super) fn after(&self, seq: u64, limit: usize) -> impl Iterator<Item = &Held> {
        self.0.range(seq.saturating_add(1)..).take(limit).map(|(_, held)| held)
    }

    /// Holds a numbered summary; returns the digest with it. Without room, or if it is held already,
    /// nothing changes.
    pub(super) fn hold(&mut self, summary: &Summary, cause: u8, digest: u64) -> u64 {
        let Some(seq) = summary.seq else { return digest };
        if self.0.len() >= HELD_MAX || self.0.contains_key(&seq) {
            return digest;
        }
        self.0.insert(seq, Held { summary: summary.clone(), cause });
        mix(mix(digest, seq), u64::from(cause))
    }

    /// Lets go of one that the broker has by now; returns the digest without it.
    pub(super) fn release(&mut self, seq: u64, digest: u64) -> u64 {
        match self.0.remove(&seq) {
            Some(_) => mix(digest, !seq),
            None => digest,
        }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.0.len() as u32).to_le_bytes());
        for (seq, held) in &self.0 {
            out.extend_from_slice(&seq.to_le_bytes());
            out.push(held.cause);
            put_summary(out, &held.summary);
        }
    }

    /// `last`: the last number given. `is_kind` tells whether an amount is of a series' kind, and the series is there.
    pub(super) fn read(
        reader: &mut Reader<'_>,
        last: u64,
        is_kind: impl Fn(u32, &Amount) -> bool,
    ) -> Result<SetAside, Malformed> {
        let count = reader.u32()? as usize;
        if count > HELD_MAX {
            return Err(Malformed);
        }
        let mut all = BTreeMap::new();
        let mut before = 0;
        for _ in 0..count {
            let seq = reader.u64()?;
            if seq <= before || seq > last {
                return Err(Malformed);
            }
            before = seq;
            let cause = reader.u8()?;
            all.insert(seq, Held { summary: read_summary(reader, seq, &is_kind)?, cause });
        }
        Ok(SetAside(all))
    }
}
