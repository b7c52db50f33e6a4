//! Numbered summaries that the broker refuses: held apart, so that later summaries continue.
//!
//! `Delivered` passes over what is in here; it stays until a leader has brought it to the broker after
//! all ([`super::entry::released`]). Of a series of which many are held no more are numbered: its windows wait in the
//! outbox, where they merge when it is full. So what is held is bounded however long the broker refuses it, by the
//! number of series and by what may be numbered at once, and holds up nobody.

use std::collections::BTreeMap;

use tally_core::report::Amount;

use super::digest::mix;
use super::outbox::{put_summary, read_summary};
use super::view::{Held, Summary};
use crate::codec::{Malformed, Reader};

/// With so many of a series held no more of it are numbered,
pub const SERIES_HELD_MAX: usize = 16;
/// or with a single one, where so many are held in all.
pub const HELD_MANY: usize = 1000;

/// Bytes of one, as a snapshot's size is guessed.
pub(super) const HELD_BYTES: usize = 160;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SetAside {
    by_number: BTreeMap<u64, Held>,
    /// How many are held of each series.
    by_series: BTreeMap<u32, usize>,
}

impl SetAside {
    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    pub(super) fn has(&self, seq: u64) -> bool {
        self.by_number.contains_key(&seq)
    }

    /// Whether no more of a series are numbered.
    pub(super) fn stops(&self, series: u32) -> bool {
        self.by_series.get(&series).is_some_and(|held| *held >= self.most())
    }

    /// The series of which no more are numbered.
    pub(super) fn stopped_series(&self) -> impl Iterator<Item = u32> {
        let most = self.most();
        self.by_series.iter().filter(move |(_, held)| **held >= most).map(|(series, _)| *series)
    }

    fn most(&self) -> usize {
        if self.by_number.len() < HELD_MANY { SERIES_HELD_MAX } else { 1 }
    }

    /// Those after a number, in order.
    pub(super) fn after(&self, seq: u64, limit: usize) -> impl Iterator<Item = &Held> {
        self.by_number.range(seq.saturating_add(1)..).take(limit).map(|(_, held)| held)
    }

    /// Holds a numbered summary; returns the digest with it. If it is held already, nothing changes.
    pub(super) fn hold(&mut self, summary: &Summary, cause: u8, digest: u64) -> u64 {
        let Some(seq) = summary.seq.filter(|seq| !self.has(*seq)) else { return digest };
        self.insert(seq, Held { summary: summary.clone(), cause });
        mix(mix(digest, seq), u64::from(cause))
    }

    fn insert(&mut self, seq: u64, held: Held) {
        *self.by_series.entry(held.summary.series.0).or_default() += 1;
        self.by_number.insert(seq, held);
    }

    /// Lets go of one that the broker has by now; returns the digest without it.
    pub(super) fn release(&mut self, seq: u64, digest: u64) -> u64 {
        let Some(held) = self.by_number.remove(&seq) else { return digest };
        let series = held.summary.series.0;
        match self.by_series.get_mut(&series) {
            Some(left) if *left > 1 => *left -= 1,
            _ => {
                self.by_series.remove(&series);
            }
        }
        mix(digest, !seq)
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.by_number.len() as u32).to_le_bytes());
        for (seq, held) in &self.by_number {
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
        let count = reader.u32()?;
        let mut all = SetAside::default();
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
        Ok(all)
    }
}
