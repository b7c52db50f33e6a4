//! Counters of the storage, which other threads can read while it works.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Counters of one storage; since the process started, except where a field says otherwise.
#[derive(Debug, Default)]
pub struct StorageMetrics {
    /// Bytes handed to the file system: groups with their padding, headers, snapshots.
    pub bytes_written: AtomicU64,
    /// Syncs of file data.
    pub syncs: AtomicU64,
    /// Time spent in syncs of the log, in microseconds.
    pub sync_us_total: AtomicU64,
    /// The longest sync of the log, in microseconds.
    pub sync_us_max: AtomicU64,
    /// The latest sync of the log, in microseconds.
    pub sync_us_last: AtomicU64,
    /// Snapshots saved or installed.
    pub snapshots: AtomicU64,
    /// Size of the present snapshot file, in bytes.
    pub snapshot_bytes: AtomicU64,
    /// Size of the segment files of the log (spare ones too), in bytes.
    pub log_bytes: AtomicU64,
    /// Size of log, spare files and snapshots together, in bytes.
    pub bytes_used: AtomicU64,
    /// What they may have together.
    pub bytes_max: AtomicU64,
    /// The partition is nearly full: a snapshot is wanted for the log that it frees.
    pub low: AtomicBool,
    /// Bytes of log that a restart has to replay: all groups since the present snapshot.
    pub replay_bytes: AtomicU64,
}

/// [`StorageMetrics`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes handed to the file system.
    pub bytes_written: u64,
    /// Syncs of file data.
    pub syncs: u64,
    /// Time spent in syncs of the log, in microseconds.
    pub sync_us_total: u64,
    /// The longest sync of the log, in microseconds.
    pub sync_us_max: u64,
    /// The latest sync of the log, in microseconds.
    pub sync_us_last: u64,
    /// Snapshots saved or installed.
    pub snapshots: u64,
    /// Size of the present snapshot file, in bytes.
    pub snapshot_bytes: u64,
    /// Size of the segment files of the log, in bytes.
    pub log_bytes: u64,
    /// Size of log, spare files and snapshots together, in bytes.
    pub bytes_used: u64,
    /// What they may have together.
    pub bytes_max: u64,
    /// Bytes of log that a restart has to replay.
    pub replay_bytes: u64,
}

impl StorageMetrics {
    /// All of them, each read once.
    pub fn stats(&self) -> Stats {
        let get = |value: &AtomicU64| value.load(Ordering::Relaxed);
        Stats {
            bytes_written: get(&self.bytes_written),
            syncs: get(&self.syncs),
            sync_us_total: get(&self.sync_us_total),
            sync_us_max: get(&self.sync_us_max),
            sync_us_last: get(&self.sync_us_last),
            snapshots: get(&self.snapshots),
            snapshot_bytes: get(&self.snapshot_bytes),
            log_bytes: get(&self.log_bytes),
            bytes_used: get(&self.bytes_used),
            bytes_max: get(&self.bytes_max),
            replay_bytes: get(&self.replay_bytes),
        }
    }

    pub(super) fn count_written(&self, bytes: u64) {
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn count_sync(&self) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn synced_log(&self, took: Duration) {
        self.count_sync();
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sync_us_total.fetch_add(us, Ordering::Relaxed);
        self.sync_us_max.fetch_max(us, Ordering::Relaxed);
        self.sync_us_last.store(us, Ordering::Relaxed);
    }
}
