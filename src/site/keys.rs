//! Idempotency keys: what was added under which, for as long as a key lives.
//!
//! Records of 52 bytes lie in chunks in the order in which they came, which is the order in which
//! they expire; an index finds them by key. Its shards grow one by one, so that no entry pays for
//! moving a whole table.

use std::collections::VecDeque;

use hashbrown::HashTable;
use tally_core::time::{Elapsed, SiteTime};

use super::digest::mix;
use crate::codec::{Malformed, Reader};

/// The bytes of a record: key 16, check 8, total 16, time 6, added 6.
const RECORD: usize = 52;
const CHUNK_RECORDS: u64 = 1024;
const SHARDS: usize = 256;

/// Keys and what was added under them.
#[derive(Debug)]
pub(super) struct Keys {
    chunks: VecDeque<Vec<u8>>,
    /// How many records came before the first one kept. Not part of the state: a restored table
    /// counts from zero.
    first: u64,
    next: u64,
    /// Low halves of record numbers. No shard has memory before a key comes.
    index: Vec<HashTable<u32>>,
    seed: u64,
}

/// What is kept of an add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyRecord {
    pub(super) key: u128,
    pub(super) check: u64,
    pub(super) total: i128,
    pub(super) time: SiteTime,
    pub(super) added: Elapsed,
}

impl Keys {
    pub(super) const fn new(seed: u64) -> Keys {
        Keys { chunks: VecDeque::new(), first: 0, next: 0, index: Vec::new(), seed }
    }

    /// How many records there are, live or not yet taken out.
    pub(super) const fn len(&self) -> u64 {
        self.next - self.first
    }

    /// The record of a live key.
    pub(super) fn find(&self, key: u128, now: Elapsed, age_ms: u64) -> Option<KeyRecord> {
        let shard = self.index.get(self.shard(key))?;
        let place = shard.find(self.hash(key), |place| self.key_at(*place) == key)?;
        let record = KeyRecord::read(self.bytes_at(*place))?;
        (!is_over(record.added, now, age_ms)).then_some(record)
    }

    /// Takes out up to `limit` records whose lifetime is over.
    pub(super) fn expire(&mut self, now: Elapsed, age_ms: u64, limit: u32) {
        for _ in 0..limit {
            let place = self.first as u32;
            let Some(record) = KeyRecord::read(self.bytes_at(place)) else { break };
            if !is_over(record.added, now, age_ms) {
                break;
            }
            let hash = self.hash(record.key);
            let shard = self.shard(record.key);
            // A key that came again after its lifetime was over has a later record in the index.
            if let Some(shard) = self.index.get_mut(shard)
                && let Ok(found) = shard.find_entry(hash, |other| *other == place)
            {
                found.remove();
            }
            self.first += 1;
            if self.first.is_multiple_of(CHUNK_RECORDS) {
                self.chunks.pop_front();
            }
        }
        if self.first == self.next && !self.index.is_empty() {
            // The memory of a busy hour is not kept.
            *self = Keys::new(self.seed);
        }
    }

    /// Keeps a record of a key that is not live.
    pub(super) fn insert(&mut self, record: KeyRecord) {
        if self.index.is_empty() {
            self.index.resize_with(SHARDS, HashTable::new);
        }
        if self.next.is_multiple_of(CHUNK_RECORDS) || self.chunks.is_empty() {
            self.chunks.push_back(Vec::new());
        }
        if let Some(chunk) = self.chunks.back_mut() {
            if chunk.len() == chunk.capacity() {
                // In four steps to a whole chunk: few keys take little.
                chunk.reserve_exact(RECORD * CHUNK_RECORDS as usize / 4);
            }
            record.put(chunk);
        }
        let place = self.next as u32;
        self.next += 1;
        let (hash, shard) = (self.hash(record.key), self.shard(record.key));
        let mut table = core::mem::take(&mut self.index[shard]);
        match table.find_mut(hash, |other| self.key_at(*other) == record.key) {
            Some(over) => *over = place,
            None => {
                table.insert_unique(hash, place, |other| self.hash(self.key_at(*other)));
            }
        }
        self.index[shard] = table;
    }

    fn hash(&self, key: u128) -> u64 {
        mix(mix(self.seed, key as u64), (key >> 64) as u64)
    }

    fn shard(&self, key: u128) -> usize {
        // Other bits than the table's own.
        mix(self.hash(key), 1) as usize % SHARDS
    }

    /// The record with these low bits of its number, which is between `first` and `next`.
    fn bytes_at(&self, place: u32) -> &[u8] {
        let offset = u64::from(place.wrapping_sub(self.first as u32));
        let number = self.first % CHUNK_RECORDS + offset;
        let (chunk, within) = (number / CHUNK_RECORDS, (number % CHUNK_RECORDS) as usize);
        let bytes = self.chunks.get(chunk as usize).and_then(|chunk| chunk.get(within * RECORD..));
        bytes.unwrap_or_default()
    }

    fn key_at(&self, place: u32) -> u128 {
        self.bytes_at(place).first_chunk().map_or(0, |key| u128::from_le_bytes(*key))
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.len() as u32).to_le_bytes());
        let mut skip = (self.first % CHUNK_RECORDS) as usize * RECORD;
        for chunk in &self.chunks {
            out.extend_from_slice(&chunk[skip..]);
            skip = 0;
        }
    }

    pub(super) fn read(seed: u64, reader: &mut Reader<'_>) -> Result<Keys, Malformed> {
        let mut keys = Keys::new(seed);
        let count = reader.u32()?;
        let mut added = Elapsed(0);
        for _ in 0..count {
            let record = KeyRecord::read(reader.take(RECORD)?).ok_or(Malformed)?;
            if record.added < added {
                return Err(Malformed);
            }
            added = record.added;
            keys.insert(record);
        }
        Ok(keys)
    }
}

impl KeyRecord {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key.to_le_bytes());
        out.extend_from_slice(&self.check.to_le_bytes());
        out.extend_from_slice(&self.total.to_le_bytes());
        // Times of entries have at most 48 bits.
        out.extend_from_slice(&self.time.0.to_le_bytes()[..6]);
        out.extend_from_slice(&self.added.0.to_le_bytes()[..6]);
    }

    fn read(bytes: &[u8]) -> Option<KeyRecord> {
        let mut reader = Reader::new(bytes);
        let six = |bytes: [u8; 6]| {
            let [a, b, c, d, e, f] = bytes;
            u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
        };
        Some(KeyRecord {
            key: reader.u128().ok()?,
            check: reader.u64().ok()?,
            total: reader.i128().ok()?,
            time: SiteTime(reader.array().map(six).ok()?),
            added: Elapsed(reader.array().map(six).ok()?),
        })
    }
}

const fn is_over(added: Elapsed, now: Elapsed, age_ms: u64) -> bool {
    now.since_ms(added) >= age_ms
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
