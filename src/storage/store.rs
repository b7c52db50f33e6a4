//! [`Storage`], the interface that the driver uses.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tally_core::id::LogIndex;
use tally_core::raft::{HardState, Position};

use super::group::Facts;
use super::log::{Log, Place};
use super::recovery::Occasion;
use super::snapshot::{self, Progress, Saving, SnapshotReader};
use super::{
    Entry, FileSystem, OpenError, Options, Owner, ReadError, RealFileSystem, Recovered, Stats,
    StorageMetrics, WriteError, WriteGroup, directory, recovery,
};

/// A box's log and snapshots. One thread drives it; dropping it releases the directory.
///
/// After a failed write or sync nobody knows what the disk holds, so every later write says
/// [`WriteError::Poisoned`] until [`recover`](Storage::recover) has read the disk again. Reading
/// what was acknowledged still works meanwhile.
#[derive(Debug)]
pub struct Storage<F: FileSystem = RealFileSystem> {
    pub(super) fs: F,
    pub(super) dir: PathBuf,
    log: Log<F>,
    snapshot_dir: PathBuf,
    snapshot: Option<Position>,
    poisoned: bool,
    /// How many snapshots were begun: only the latest may be gone on with, they share a file.
    begun: u64,
    /// Held for as long as this is open.
    _lock: F::File,
}

impl<F: FileSystem> Storage<F> {
    /// Locks the directory, reads what is there (founds it if it is empty) and raises the boot
    /// number. Everything in the answer is durable. Writes one block, in a directory that is not new.
    ///
    /// # Errors
    /// The directory is another box's or in use, the disk refused, or the log is damaged.
    pub fn open(
        fs: F,
        dir: &Path,
        owner: Owner,
        options: Options,
    ) -> Result<(Storage<F>, Recovered), OpenError> {
        let lock = directory::lock(&fs, dir)?;
        let directory::Prepared { log_dir, snapshot_dir, founding } = directory::prepare(&fs, dir)?;
        let metrics: Arc<StorageMetrics> = Arc::default();
        metrics.bytes_max.store(options.bytes_max, Ordering::Relaxed);
        let place = Place { dir: log_dir, owner, options, metrics };
        let (log, recovered) = recovery::recover(&fs, place, &snapshot_dir, Occasion::Start { founding })?;
        if founding {
            directory::finish(&fs, dir)?;
        }
        let dir = dir.to_path_buf();
        let mut storage =
            Storage { fs, dir, log, snapshot_dir, snapshot: None, poisoned: false, begun: 0, _lock: lock };
        storage.note_snapshot(&recovered);
        Ok((storage, recovered))
    }

    /// Reads everything again from the disk after a failed write, and makes sure that the disk takes
    /// writes. What was acknowledged is in the answer; the group that failed may be. The boot number
    /// stays. On an error the storage stays poisoned; try again later. Acknowledged groups that are
    /// not there (the disk lied) are [`OpenError::Damaged`].
    ///
    /// # Errors
    /// The disk refused, or the log is damaged.
    pub fn recover(&mut self) -> Result<Recovered, OpenError> {
        self.poisoned = true;
        let place = self.log.place.clone();
        let again = Occasion::Again { acknowledged: self.log.sequence - 1 };
        let (log, recovered) = recovery::recover(&self.fs, place, &self.snapshot_dir, again)?;
        self.log = log;
        self.note_snapshot(&recovered);
        self.poisoned = false;
        Ok(recovered)
    }

    fn note_snapshot(&mut self, recovered: &Recovered) {
        self.snapshot = recovered.snapshot.as_ref().map(|(position, _)| *position);
        let bytes = recovered.snapshot.as_ref().map_or(0, |(_, bytes)| bytes.len());
        self.log.place.metrics.snapshot_bytes.store(bytes as u64, Ordering::Relaxed);
    }

    /// Makes a group durable: one write, one sync. Nothing is written for a group that changes nothing.
    ///
    /// # Errors
    /// The disk did not take it; what was durable before still is.
    pub fn write(&mut self, group: &WriteGroup) -> Result<(), WriteError> {
        self.check_poison()?;
        let floor = self.snapshot.map_or(LogIndex::ZERO, |position| position.index);
        let written = self.log.write(&self.fs, group, floor);
        self.poison_on_failure(written)
    }

    /// Entries from `first` up to `last` (or the log's end), at least one, then no more than
    /// `bytes_max` of payload in all.
    ///
    /// # Errors
    /// The entries are not there, or cannot be read.
    pub fn read(
        &mut self,
        first: LogIndex,
        last: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        self.log.read(first, last, bytes_max)
    }

    /// Makes a snapshot durable that covers the log up to `position`, and frees the log before it but
    /// for what [`Options`] keep for followers. When the snapshot file cannot be written, the log
    /// is as good as before; see [`is_poisoned`](Storage::is_poisoned).
    ///
    /// # Errors
    /// The disk did not take it; what was durable before still is.
    pub fn save_snapshot(&mut self, position: Position, bytes: Bytes) -> Result<(), WriteError> {
        if self.snapshot == Some(position) {
            return self.check_poison();
        }
        let mut saving = self.begin_snapshot(position, bytes)?;
        while !self.step_snapshot(&mut saving)? {}
        Ok(())
    }

    /// Begins to save a snapshot in pieces; the log can be written between them. It ends one that was
    /// begun before, as an installation does. See [`save_snapshot`](Storage::save_snapshot).
    ///
    /// # Errors
    /// The disk did not take it; what was durable before still is.
    pub fn begin_snapshot(
        &mut self,
        position: Position,
        bytes: Bytes,
    ) -> Result<Saving<F::File>, WriteError> {
        self.check_poison()?;
        self.check_in_log(position)?;
        self.check_newer(position)?;
        let parts = snapshot::SnapshotParts { position, foreign: false, bytes };
        self.begin(parts)
    }

    /// Frees what can be freed first, so that the bound holds while there are two, and where there is no space.
    fn begin(&mut self, parts: snapshot::SnapshotParts) -> Result<Saving<F::File>, WriteError> {
        self.begun += 1;
        let freed = self.log.make_room(&self.fs, parts.file_bytes());
        self.poison_on_failure(freed)?;
        let mut begun = Saving::begin(&self.fs, &self.snapshot_dir, parts.clone(), self.begun);
        while matches!(begun, Err(WriteError::NoSpace { .. })) {
            let freed = self.log.free_one(&self.fs);
            if !self.poison_on_failure(freed)? {
                break;
            }
            begun = Saving::begin(&self.fs, &self.snapshot_dir, parts.clone(), self.begun);
        }
        self.weigh_snapshots();
        begun
    }

    fn weigh_snapshots(&mut self) {
        // What cannot be looked at is as it was; the log tells of a disk that does not answer.
        if let Ok(bytes) = snapshot::weigh(&self.fs, &self.snapshot_dir) {
            self.log.snapshot_bytes = bytes;
        }
        self.log.count_bytes();
    }

    /// Whether a snapshot that is being saved should be done with before the log grows on.
    pub fn is_tight(&self) -> bool {
        !self.log.fits(self.log.usual_bytes()) || self.log.place.metrics.low.load(Ordering::Relaxed)
    }

    /// Writes the next piece; whether that was all, and the log before it is freed. After an error it
    /// is over.
    ///
    /// # Errors
    /// The disk did not take it; what was durable before still is.
    pub fn step_snapshot(&mut self, saving: &mut Saving<F::File>) -> Result<bool, WriteError> {
        if saving.serial() != self.begun {
            return Err(WriteError::Invalid("a snapshot that was replaced by another".to_owned()));
        }
        let Place { owner, metrics, .. } = &self.log.place;
        let progress = match saving.step(&self.fs, &self.snapshot_dir, *owner, metrics) {
            Ok(progress) => progress,
            Err(error) => {
                self.weigh_snapshots();
                return Err(error);
            }
        };
        if progress == Progress::More {
            return Ok(false);
        }
        // The log may have failed and been read again meanwhile.
        self.check_poison()?;
        self.check_in_log(saving.position())?;
        self.check_newer(saving.position())?;
        self.after_snapshot(saving.position(), saving.bytes())?;
        Ok(true)
    }

    fn check_in_log(&self, position: Position) -> Result<(), WriteError> {
        if self.log.index.position(position.index) != Some(position) {
            let (base, last) = (self.log.index.base(), self.log.index.last());
            let why =
                format!("a snapshot at {position:?}, which is not in the log after {base:?} to {last:?}");
            return Err(WriteError::Invalid(why));
        }
        Ok(())
    }

    /// Takes a snapshot that a leader sent: durable, and the log begins anew after it.
    ///
    /// # Errors
    /// The disk did not take it; what was durable before still is.
    pub fn install_snapshot(
        &mut self,
        position: Position,
        bytes: Bytes,
        hard_state: HardState,
    ) -> Result<(), WriteError> {
        self.check_poison()?;
        self.check_newer(position)?;
        let length = bytes.len();
        let mut saving = self.begin(snapshot::SnapshotParts { position, foreign: true, bytes })?;
        let Place { owner, metrics, .. } = &self.log.place;
        while saving.step(&self.fs, &self.snapshot_dir, *owner, metrics)? == Progress::More {}
        let hard_state = Some(hard_state).filter(|hard_state| *hard_state != self.log.hard_state);
        let facts = Facts { hard_state, reset: Some(position), ..Facts::default() };
        let written = self.log.put(&self.fs, &facts, &[]);
        self.poison_on_failure(written)?;
        self.after_snapshot(position, length)
    }

    fn check_newer(&self, position: Position) -> Result<(), WriteError> {
        match self.snapshot {
            Some(present) if present.index > position.index => Err(WriteError::Invalid(format!(
                "a snapshot at {position:?}, older than the present one at {present:?}"
            ))),
            _ => Ok(()),
        }
    }

    fn after_snapshot(&mut self, position: Position, bytes: usize) -> Result<(), WriteError> {
        let metrics = &self.log.place.metrics;
        metrics.snapshots.fetch_add(1, Ordering::Relaxed);
        metrics.snapshot_bytes.store(bytes as u64, Ordering::Relaxed);
        self.snapshot = Some(position);
        snapshot::remove_others(&self.fs, &self.snapshot_dir, position);
        self.weigh_snapshots();
        let compacted = self.log.compact(&self.fs, position.index);
        self.poison_on_failure(compacted)
    }

    /// Lets go of what the log can do without; whether there was any.
    pub(super) fn free_some(&mut self) -> bool {
        !self.poisoned && matches!(self.log.free_one(&self.fs), Ok(true))
    }

    fn check_poison(&self) -> Result<(), WriteError> {
        if self.poisoned { Err(WriteError::Poisoned) } else { Ok(()) }
    }

    fn poison_on_failure<T>(&mut self, result: Result<T, WriteError>) -> Result<T, WriteError> {
        // Without space for the next segment nothing was written.
        let untouched = std::mem::take(&mut self.log.untouched);
        if !untouched && result.as_ref().is_err_and(|error| !matches!(error, WriteError::Invalid(_))) {
            self.poisoned = true;
        }
        result
    }

    /// The present snapshot, to be read in parts.
    ///
    /// # Errors
    /// The file cannot be opened, or is damaged.
    pub fn open_snapshot(&self) -> Result<Option<SnapshotReader<F::File>>, ReadError> {
        let open = |position| SnapshotReader::open(&self.fs, &self.snapshot_dir, position);
        self.snapshot.map(open).transpose()
    }

    /// The present snapshot, read from disk and checked.
    #[cfg(test)]
    pub(super) fn load_snapshot(&self) -> Result<Option<(Position, Vec<u8>)>, ReadError> {
        let Some(position) = self.snapshot else { return Ok(None) };
        let path = snapshot::path(&self.snapshot_dir, position);
        match snapshot::load(&self.fs, &self.snapshot_dir, self.log.place.owner, position) {
            Ok(loaded) => Ok(Some((position, loaded.bytes))),
            Err(snapshot::LoadError::Io(source)) => Err(ReadError::Io { path, source }),
            Err(snapshot::LoadError::Damaged(what)) => {
                Err(ReadError::Damaged { file: path, offset: 0, what })
            }
            Err(snapshot::LoadError::Refused(refusal)) => {
                Err(ReadError::Damaged { file: path, offset: 0, what: refusal.to_string() })
            }
        }
    }

    /// The first index that [`read`](Storage::read) can give (one after the log's end if it is empty).
    pub fn first_index(&self) -> LogIndex {
        self.log.index.base().index.next()
    }

    /// The end of the durable log.
    pub fn last(&self) -> Position {
        self.log.index.last()
    }

    /// The position of an entry that [`read`](Storage::read) can give, or of the one before the first.
    pub fn position(&self, index: LogIndex) -> Option<Position> {
        self.log.index.position(index)
    }

    /// Whether a write failed and [`recover`](Storage::recover) is due.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// The counters, to be read from any thread.
    pub fn metrics(&self) -> Arc<StorageMetrics> {
        Arc::clone(&self.log.place.metrics)
    }

    /// The counters at this moment.
    pub fn stats(&self) -> Stats {
        self.log.place.metrics.stats()
    }
}
