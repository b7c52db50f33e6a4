//! Makes room for the next write: segments that a snapshot covers and spare files are removed before the bound is
//! passed, and before a write is refused for lack of space.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::fs::FileSystem;
use super::log::Log;
use super::{BLOCK_BYTES, WriteError, segment};

/// A freed segment file that waits to be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spare {
    /// The number that it had.
    pub(super) number: u64,
    /// Its size.
    pub(super) bytes: u64,
}

impl<F: FileSystem> Log<F> {
    /// The usual size of a segment.
    pub(super) fn usual_bytes(&self) -> u64 {
        self.place.options.usual_bytes()
    }

    /// What log, spare files and snapshots take on disk.
    pub(super) fn used(&self) -> u64 {
        let spares: u64 = self.spares.iter().map(|spare| spare.bytes).sum();
        self.segment_bytes() + spares + self.snapshot_bytes
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Whether so many bytes more are within the bound.
    pub(super) fn fits(&self, more: u64) -> bool {
        self.used().saturating_add(more) <= self.place.options.bytes_max
    }

    /// Lets go of spare files and of what the snapshot covers until so many bytes more are within the bound, as far
    /// as that goes: what a snapshot does not cover yet stays.
    pub(super) fn make_room(&mut self, fs: &F, more: u64) -> Result<(), WriteError> {
        while !self.fits(more) && self.free_one(fs)? {}
        Ok(())
    }

    /// Lets go of one spare file, or of the oldest segment if the snapshot covers it; whether there was any.
    pub(super) fn free_one(&mut self, fs: &F) -> Result<bool, WriteError> {
        if let Some(spare) = self.spares.last() {
            let path = segment::spare_path(&self.place.dir, spare.number);
            fs.remove(&path).map_err(|source| WriteError::from_io(&path, source))?;
            self.spares.pop();
        } else if self.oldest_is_covered() {
            self.free_oldest(fs, false)?;
        } else {
            return Ok(false);
        }
        self.sync_names(fs)?;
        self.count_bytes();
        Ok(true)
    }

    fn oldest_is_covered(&self) -> bool {
        self.segments.len() > 1 && self.index.end_of_segment(self.segments[0].number) <= self.floor
    }

    /// Frees the oldest segment, which the snapshot covers. The change of names is not durable yet.
    pub(super) fn free_oldest(&mut self, fs: &F, as_spare: bool) -> Result<(), WriteError> {
        let Some(oldest) = self.segments.front() else { return Ok(()) };
        let (number, bytes) = (oldest.number, oldest.bytes);
        let error = |source| WriteError::from_io(&oldest.path, source);
        if as_spare {
            fs.rename(&oldest.path, &segment::spare_path(&self.place.dir, number)).map_err(error)?;
            self.spares.push(Spare { number, bytes });
        } else {
            fs.remove(&oldest.path).map_err(error)?;
        }
        self.index.drop_segment(number);
        self.segments.pop_front();
        Ok(())
    }

    pub(super) fn sync_names(&self, fs: &F) -> Result<(), WriteError> {
        fs.sync_dir(&self.place.dir).map_err(|source| WriteError::from_io(&self.place.dir, source))
    }

    /// A new file for a segment: within the bound if that can be, and where there is no space once everything that
    /// can go is gone.
    pub(super) fn new_file(&mut self, fs: &F, bytes: u64) -> Result<(PathBuf, F::File), WriteError> {
        self.make_room(fs, bytes)?;
        let mut made = self.make_file(fs, bytes);
        while matches!(made, Err(WriteError::NoSpace { .. })) && self.free_one(fs)? {
            made = self.make_file(fs, bytes);
        }
        // The log itself is as it was.
        self.untouched = matches!(made, Err(WriteError::NoSpace { .. }));
        if self.untouched {
            self.place.metrics.low.store(true, Ordering::Relaxed);
        }
        made
    }

    fn make_file(&self, fs: &F, bytes: u64) -> Result<(PathBuf, F::File), WriteError> {
        use super::fs::StoredFile;
        let path = self.place.dir.join(segment::UNFINISHED);
        let file = fs.create(&path).map_err(|source| WriteError::from_io(&path, source))?;
        match file.allocate(bytes) {
            Ok(()) => Ok((path, file)),
            Err(source) => {
                drop(file);
                let _ = fs.remove(&path); // gives back what was reserved; the first error counts
                Err(WriteError::from_io(&path, source))
            }
        }
    }

    /// Whether a snapshot is wanted for the space that it frees, while there still is some: what is applied has to
    /// become durable before it can be saved.
    pub(super) fn look_ahead(&self, fs: &F) {
        // A file system that cannot say how much is free says it by running full.
        let Ok(free) = fs.free(&self.place.dir) else { return };
        let before_tail = self.segments.iter().take(self.segments.len().saturating_sub(1));
        let covered =
            before_tail.take_while(|segment| self.index.end_of_segment(segment.number) <= self.floor);
        let spares: u64 = self.spares.iter().map(|spare| spare.bytes).sum();
        let own: u64 = spares + covered.map(|segment| segment.bytes).sum::<u64>();
        let wanted = 2 * self.usual_bytes() + self.snapshot_bytes;
        self.place.metrics.low.store(free.saturating_add(own) < wanted, Ordering::Relaxed);
    }

    /// After a snapshot: a last segment far larger than they are now, left by another setting, is not gone on with.
    pub(super) fn leave_large_tail(&mut self, fs: &F) -> Result<(), WriteError> {
        let usual = self.usual_bytes();
        if self.fits(0) || self.segments.back().is_none_or(|tail| tail.bytes <= usual) {
            return Ok(());
        }
        match self.roll(fs, BLOCK_BYTES as u64) {
            Err(WriteError::NoSpace { .. }) if std::mem::take(&mut self.untouched) => Ok(()),
            rolled => rolled,
        }
    }
}
