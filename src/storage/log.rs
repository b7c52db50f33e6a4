//! The log being written: groups go into the last segment, a full segment is followed by a new one, and segments that
//! a snapshot covers are freed.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use tally_core::id::LogIndex;
use tally_core::raft::HardState;

use super::fs::{FileSystem, StoredFile};
use super::group::{self, Facts, GROUP_BYTES_MAX};
use super::index::{Index, Spot};
use super::room::Spare;
use super::segment::{self, SegmentHeader};
use super::{BLOCK_BYTES, Entry, Options, Owner, ReadError, StorageMetrics, WriteError, WriteGroup};
use crate::deliberate::{self, Bug};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// A new file's blocks are written (with zeros after the group) this much at a time: the first write
/// to a reserved block changes the file system's metadata, which costs each sync half as much time again, and on ext4 three
/// blocks of its journal.
pub(super) const WRITE_AHEAD_BYTES: u64 = 128 << 10;
/// After a larger group zeros cost more than the journal: they are as many as the groups that come to stand there.
const AHEAD_GROUP_BYTES_MAX: u64 = 3 * BLOCK;

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment<S> {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: S,
    pub(super) salt: u64,
    /// Size of the file.
    pub(super) bytes: u64,
    /// Blocks before this were written before.
    pub(super) written_to: u64,
}

/// What the log needs to know of its surroundings.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) owner: Owner,
    pub(super) options: Options,
    pub(super) metrics: Arc<StorageMetrics>,
}

/// The log, its end open for writing.
#[derive(Debug)]
pub(super) struct Log<F: FileSystem> {
    pub(super) place: Place,
    /// Oldest first, numbers without a gap. Empty only before the very first one is made.
    pub(super) segments: VecDeque<Segment<F::File>>,
    /// The files that wait to be used again.
    pub(super) spares: Vec<Spare>,
    /// What the snapshot covers.
    pub(super) floor: LogIndex,
    /// What snapshots take on disk, one that is being written, too.
    pub(super) snapshot_bytes: u64,
    /// There was no space for the next segment, and nothing was written: the log is as it was.
    pub(super) untouched: bool,
    pub(super) index: Index,
    pub(super) hard_state: HardState,
    pub(super) boot: u64,
    /// The next group's.
    pub(super) sequence: u64,
    /// Where in the last segment the next group goes.
    pub(super) offset: u64,
    /// Padded bytes of groups written since the snapshot.
    pub(super) since_snapshot: u64,
    pub(super) buffer: Vec<u8>,
}

impl<F: FileSystem> Log<F> {
    /// A log without a segment.
    pub(super) fn new(place: Place, spares: Vec<Spare>) -> Log<F> {
        Log {
            place,
            segments: VecDeque::new(),
            spares,
            floor: LogIndex::ZERO,
            snapshot_bytes: 0,
            untouched: false,
            index: Index::default(),
            hard_state: HardState::default(),
            boot: 0,
            sequence: 1,
            offset: 0,
            since_snapshot: 0,
            buffer: Vec::new(),
        }
    }

    /// Writes a group and syncs it. `floor` is what the snapshot covers. On any error but `Invalid`
    /// the log on disk may or may not hold the group: it must be read again.
    pub(super) fn write(&mut self, fs: &F, group: &WriteGroup, floor: LogIndex) -> Result<(), WriteError> {
        let facts = self.check(group, floor)?;
        if facts == Facts::default() && group.entries.is_empty() {
            return Ok(());
        }
        self.put(fs, &facts, &group.entries)
    }

    fn check(&self, group: &WriteGroup, floor: LogIndex) -> Result<Facts, WriteError> {
        let invalid = |why: String| Err(WriteError::Invalid(why));
        let mut before = self.index.last();
        let mut facts = Facts {
            hard_state: group.hard_state.filter(|hard_state| *hard_state != self.hard_state),
            ..Facts::default()
        };
        if let Some(after) = group.truncate_after.filter(|after| *after < before.index) {
            if after < floor {
                return invalid(format!("entries after {after} dropped, but the snapshot covers {floor}"));
            }
            let Some(position) = self.index.position(after) else {
                return invalid(format!("entries after {after} dropped, which is compacted away"));
            };
            facts.truncate = Some(position);
            before = position;
        }
        let mut bytes = 0;
        for Entry { position, payload } in &group.entries {
            if position.index != before.index.next() || position.term < before.term {
                return invalid(format!("an entry at {position:?} after one at {before:?}"));
            }
            before = *position;
            bytes += payload.len() + 32;
        }
        if bytes > GROUP_BYTES_MAX - BLOCK_BYTES {
            return invalid(format!("a group of {bytes} bytes; at most {GROUP_BYTES_MAX}"));
        }
        Ok(facts)
    }

    /// Writes and syncs what was checked.
    pub(super) fn put(&mut self, fs: &F, facts: &Facts, entries: &[Entry]) -> Result<(), WriteError> {
        let last_before = self.index.last().index;
        let mut buffer = std::mem::take(&mut self.buffer);
        group::encode(&mut buffer, self.sequence, last_before, facts, entries);
        let spot = self.put_encoded(fs, &mut buffer, facts.boot.is_none());
        if buffer.capacity() <= 4 << 20 {
            self.buffer = buffer; // used again, unless something huge had to pass once
        }
        let mut spot = spot?;
        self.sequence = self.sequence.saturating_add(1);
        if let Some(hard_state) = facts.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(to) = facts.truncate {
            self.index.truncate(to);
        }
        if let Some(to) = facts.reset {
            self.index.reset(to);
        }
        spot.first = self.index.last().index.next();
        self.index.append(spot, entries);
        Ok(())
    }

    fn put_encoded(&mut self, fs: &F, buffer: &mut Vec<u8>, ahead: bool) -> Result<Spot, WriteError> {
        let padded = buffer.len() as u64;
        if self.segments.back().is_none_or(|segment| self.offset + padded > segment.bytes) {
            self.roll(fs, padded)?;
        }
        let offset = self.offset;
        let segment = self.segments.back_mut().expect("rolling left a segment");
        group::seal(buffer, segment.salt);
        let length = group::length(buffer).unwrap_or_default();
        let end = offset + padded;
        let runs_ahead = ahead && padded <= AHEAD_GROUP_BYTES_MAX && end > segment.written_to;
        let to = if runs_ahead { end.next_multiple_of(WRITE_AHEAD_BYTES).min(segment.bytes) } else { end };
        buffer.resize(usize::try_from(to - offset).unwrap_or(buffer.len()), 0);
        segment.written_to = segment.written_to.max(to);
        let error = |source| WriteError::from_io(&segment.path, source);
        segment.file.write_at(offset, buffer).map_err(error)?;
        self.place.metrics.count_written(buffer.len() as u64);
        let begun = Instant::now();
        if !deliberate::is(Bug::SkipsSync) {
            segment.file.sync_data().map_err(error)?;
        }
        self.place.metrics.synced_log(begun.elapsed());
        if runs_ahead {
            // The system caches one large write as one large page, and each later block in it would
            // count, and on some file systems be written, as all of it. A cache that stays does no harm.
            let _ = segment.file.forget_cache();
        }
        self.offset = end;
        self.since_snapshot += padded;
        self.place.metrics.replay_bytes.store(self.since_snapshot, Ordering::Relaxed);
        let bytes = u32::try_from(length).unwrap_or(u32::MAX);
        Ok(Spot { first: LogIndex::ZERO, segment: segment.number, offset, bytes })
    }

    /// Begins the next segment, with room for a group of `padded` bytes.
    pub(super) fn roll(&mut self, fs: &F, padded: u64) -> Result<(), WriteError> {
        let number = self.segments.back().map_or(1, |segment| segment.number + 1);
        let usual = self.usual_bytes();
        let bytes = usual.max(BLOCK + padded);
        let spare = if bytes == usual { self.take_spare(fs, usual)? } else { None };
        let reused = spare.is_some();
        let (temporary, file) = match spare {
            Some(spare) => spare,
            None => self.new_file(fs, bytes)?,
        };
        let salt = segment::new_salt(number);
        let header = SegmentHeader {
            owner: self.place.owner,
            number,
            salt,
            sequence: self.sequence,
            previous: self.index.last(),
            hard_state: self.hard_state,
            boot: self.boot,
            reused,
            bytes,
        };
        let error = |source| WriteError::from_io(&temporary, source);
        file.write_at(0, &header.encode()).map_err(error)?;
        self.place.metrics.count_written(BLOCK);
        file.sync_data().map_err(error)?;
        self.place.metrics.count_sync();
        let path = segment::path(&self.place.dir, number);
        fs.rename(&temporary, &path).map_err(error)?;
        if !deliberate::is(Bug::SkipsNameSync) {
            fs.sync_dir(&self.place.dir).map_err(|source| WriteError::from_io(&self.place.dir, source))?;
        }
        if let Some(before) = self.segments.back_mut() {
            // Durable with the next change of names; until then the loss of the new file would pass.
            let full = segment::full_path(&self.place.dir, before.number);
            fs.rename(&before.path, &full).map_err(|source| WriteError::from_io(&full, source))?;
            before.path = full;
        }
        let written_to = if reused { bytes } else { BLOCK };
        self.segments.push_back(Segment { number, path, file, salt, bytes, written_to });
        self.offset = BLOCK;
        self.count_bytes();
        self.look_ahead(fs);
        Ok(())
    }

    /// A freed file of the usual size. Its old name is durably gone, so it may be overwritten.
    fn take_spare(&mut self, fs: &F, usual: u64) -> Result<Option<(PathBuf, F::File)>, WriteError> {
        // One of another size was a segment with a large group.
        let Some(at) = self.spares.iter().rposition(|spare| spare.bytes == usual) else { return Ok(None) };
        let spare = self.spares.remove(at);
        let path = segment::spare_path(&self.place.dir, spare.number);
        let file = fs.open(&path).map_err(|source| WriteError::from_io(&path, source))?;
        // What it was written with before may be cached in large pages, too: see `put_encoded`.
        let _ = file.forget_cache();
        Ok(Some((path, file)))
    }

    /// Frees the segments that the snapshot covers, but for what followers may still want.
    pub(super) fn compact(&mut self, fs: &F, snapshot: LogIndex) -> Result<(), WriteError> {
        let Options { keep_entries, keep_bytes, spare_segments, .. } = self.place.options;
        self.floor = snapshot;
        self.leave_large_tail(fs)?;
        let usual = self.usual_bytes();
        let mut changed = false;
        while self.segments.len() > 1 {
            let oldest = &self.segments[0];
            let end = self.index.end_of_segment(oldest.number);
            let near = end.0.saturating_add(keep_entries) > snapshot.0;
            let within = self.segment_bytes() <= keep_bytes && self.fits(0);
            let wanted = self.index.begins_in_segment(oldest.number) && near && within;
            if end > snapshot || wanted {
                break;
            }
            let as_spare = self.spares.len() < spare_segments && oldest.bytes == usual && self.fits(0);
            self.free_oldest(fs, as_spare)?;
            changed = true;
        }
        if changed {
            // Before a spare file is written to: under its old name it would be damage.
            self.sync_names(fs)?;
        }
        self.look_ahead(fs);
        self.since_snapshot = self.index.bytes_after(snapshot);
        self.count_bytes();
        Ok(())
    }

    /// See [`Storage::read`](super::Storage::read).
    pub(super) fn read(
        &self,
        first: LogIndex,
        last: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        let base = self.index.base().index;
        let end = self.index.last().index;
        if first <= base {
            return Err(ReadError::Compacted { asked: first, first: base.next() });
        }
        if first > end {
            return Err(ReadError::Missing { asked: first, last: end });
        }
        let last = last.min(end);
        let mut entries = Vec::new();
        let (mut next, mut bytes) = (first, 0usize);
        while next <= last {
            let Some((spot, live_end)) = self.index.find(next) else { break };
            for entry in self.read_group(&spot)? {
                let index = entry.position.index;
                if index < next || index > live_end {
                    continue;
                }
                bytes = bytes.saturating_add(entry.payload.len());
                if index > last || (bytes > bytes_max && !entries.is_empty()) {
                    return Ok(entries);
                }
                entries.push(entry);
            }
            next = live_end.next();
        }
        Ok(entries)
    }

    fn read_group(&self, spot: &Spot) -> Result<Vec<Entry>, ReadError> {
        let segment = self.segments.iter().find(|segment| segment.number == spot.segment);
        let segment = segment.expect("the index names segments that are there");
        let mut bytes = vec![0; spot.bytes as usize];
        segment
            .file
            .read_at(spot.offset, &mut bytes)
            .map_err(|source| ReadError::Io { path: segment.path.clone(), source })?;
        let damaged = |what: &str| ReadError::Damaged {
            file: segment.path.clone(),
            offset: spot.offset,
            what: what.to_string(),
        };
        if !group::is_whole(&bytes, segment.salt) {
            return Err(damaged("the checksum of a group is wrong"));
        }
        let group = group::decode(&Bytes::from(bytes)).ok_or_else(|| damaged("a group is not readable"))?;
        Ok(group.entries)
    }

    /// Tells the metrics how much the log takes on disk.
    pub(super) fn count_bytes(&self) {
        let used = self.used();
        self.place.metrics.bytes_used.store(used, Ordering::Relaxed);
        self.place.metrics.log_bytes.store(used - self.snapshot_bytes, Ordering::Relaxed);
        self.place.metrics.replay_bytes.store(self.since_snapshot, Ordering::Relaxed);
    }
}
