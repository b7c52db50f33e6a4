//! The storage as its driver sees it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tally_core::id::LogIndex;
use tally_core::raft::{HardState, Position};

use super::{
    Entry, FileSystem, OpenError, Options, Owner, ReadError, RealFileSystem, Recovered, Stats,
    StorageMetrics, WriteError, WriteGroup,
};

/// A box's log and snapshots. One thread drives it; dropping it releases the directory.
#[derive(Debug)]
pub struct Storage<F: FileSystem = RealFileSystem> {
    fs: F,
    dir: PathBuf,
    owner: Owner,
    options: Options,
    metrics: Arc<StorageMetrics>,
}

impl<F: FileSystem> Storage<F> {
    /// Locks the directory, reads what is there (makes it if it is empty) and raises the boot
    /// number. Everything in the answer is durable.
    pub fn open(
        fs: F,
        dir: &Path,
        owner: Owner,
        options: Options,
    ) -> Result<(Storage<F>, Recovered), OpenError> {
        let mut storage = Storage { fs, dir: dir.to_path_buf(), owner, options, metrics: Arc::default() };
        let recovered = storage.recover()?;
        Ok((storage, recovered))
    }

    /// Reads everything again from the disk after a failed write, and makes sure that the disk takes
    /// writes. The boot number stays. On an error the storage stays poisoned; try again later.
    pub fn recover(&mut self) -> Result<Recovered, OpenError> {
        let _ = (&self.fs, &self.dir, &self.owner, &self.options);
        Ok(Recovered {
            hard_state: HardState::default(),
            snapshot: None,
            last: Position::ZERO,
            entries: Vec::new(),
            boot: 1,
        })
    }

    /// Makes a group durable: one write, one sync.
    pub fn write(&mut self, group: &WriteGroup) -> Result<(), WriteError> {
        let _ = group;
        Err(WriteError::Poisoned)
    }

    /// Entries from `first` up to `last` (or the log's end), at least one, then no more than
    /// `bytes_max` of payload in all.
    pub fn read(
        &mut self,
        first: LogIndex,
        last: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        let _ = (last, bytes_max);
        Err(ReadError::Missing { asked: first, last: LogIndex::ZERO })
    }

    /// Makes a snapshot durable that covers the log up to `position`, and frees the log before it but
    /// for what [`Options`] keep for followers. An error here does not poison the log, unless the
    /// next [`write`](Storage::write) says so.
    pub fn save_snapshot(&mut self, position: Position, bytes: &[u8]) -> Result<(), WriteError> {
        let _ = (position, bytes);
        Err(WriteError::Poisoned)
    }

    /// Takes a snapshot that a leader sent: durable, and the log begins anew after it.
    pub fn install_snapshot(
        &mut self,
        position: Position,
        bytes: &[u8],
        hard_state: HardState,
    ) -> Result<(), WriteError> {
        let _ = (position, bytes, hard_state);
        Err(WriteError::Poisoned)
    }

    /// The present snapshot, read from disk and checked.
    pub fn load_snapshot(&self) -> Result<Option<(Position, Vec<u8>)>, ReadError> {
        Ok(None)
    }

    /// The first index that [`read`](Storage::read) can give (one after the log's end if it is empty).
    pub fn first_index(&self) -> LogIndex {
        LogIndex(1)
    }

    /// The end of the durable log.
    pub fn last(&self) -> Position {
        Position::ZERO
    }

    /// Bytes of log written since the present snapshot: what a restart has to replay.
    pub fn log_bytes_since_snapshot(&self) -> u64 {
        0
    }

    /// Whether a write failed and [`recover`](Storage::recover) is due.
    pub fn is_poisoned(&self) -> bool {
        false
    }

    /// The counters, to be read from any thread.
    pub fn metrics(&self) -> Arc<StorageMetrics> {
        Arc::clone(&self.metrics)
    }

    /// The counters at this moment.
    pub fn stats(&self) -> Stats {
        self.metrics.stats()
    }
}
