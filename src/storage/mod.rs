//! The durable state of a box: the log of entries and hard state, and snapshots, with checksums.
//!
//! [`Storage`] is driven by one thread (its calls block on the disk). A [`WriteGroup`] is one write and one
//! `fdatasync`; what [`Storage::write`] acknowledged survives any crash. All access to the disk goes through
//! [`FileSystem`], so that tests can inject faults.
//!
//! On disk: `lock`, `format`, `log/NUMBER.log` (see `segment`), `snapshots/INDEX-TERM-SUBTERM.snap` (see `snapshot`);
//! after a stop without a quorum `unsent.batches` (see `kept`).

mod budget;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod damage_tests;
mod directory;
mod error;
#[cfg(any(test, feature = "simulation"))]
pub mod faulty;
mod fs;
mod group;
mod index;
mod kept;
mod log;
mod metrics;
mod read_ahead;
mod recovery;
mod repair;
mod room;
mod segment;
mod snapshot;
mod store;

pub use budget::{Budget, partition_bytes};
pub use error::{OpenError, ReadError, WriteError};
pub use fs::{FileSystem, RealFileSystem, StoredFile};
pub use kept::UNSENT;
pub use metrics::{Stats, StorageMetrics};
pub use snapshot::{Saving, SnapshotHead, SnapshotReader};
pub use store::Storage;

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod room_tests;
#[cfg(test)]
mod saving_tests;
#[cfg(test)]
mod storage_tests;

use bytes::Bytes;
use tally_core::id::LogIndex;
use tally_core::raft::{HardState, Position};

/// The unit of writing, in bytes: a group begins on a multiple of it and fills whole ones, so that
/// a torn write never touches what was acknowledged before.
pub const BLOCK_BYTES: usize = 4096;

/// The newest data format that this release reads, and the one that it writes.
const FORMAT_VERSION: u32 = 1;

/// What to do about damage in a site of several boxes, and in a site of one.
const RESTORE_ADVICE: &str = "Nothing was changed. Check the disk. If the site's other boxes run, remove \
    this box from the site there (tallyd member remove), move this data directory away (keep it) and set the \
    box up again as a new member; it receives everything from them. If this box is alone, restore the \
    directory from a backup.";

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// What it says; never interpreted here.
    pub payload: Bytes,
}

/// What becomes durable together, with one sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteGroup {
    /// The hard state, if it changed.
    pub hard_state: Option<HardState>,
    /// Entries after this index are dropped before `entries` are appended.
    pub truncate_after: Option<LogIndex>,
    /// Entries to append; they follow the log's end (after the truncation) without a gap.
    pub entries: Vec<Entry>,
}

/// What was found on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The latest durable hard state.
    pub hard_state: HardState,
    /// The newest valid snapshot: the last position that it covers, and its bytes.
    pub snapshot: Option<(Position, Vec<u8>)>,
    /// The end of the log (the snapshot's position if there is nothing after it).
    pub last: Position,
    /// All entries after the snapshot.
    pub entries: Vec<Entry>,
    /// How often this directory was opened, this time included; durable.
    pub boot: u64,
}

/// Whose data this is; written into every file. Another owner's directory is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The site's random identity.
    pub site_id: u64,
    /// The box's number in it.
    pub node: u64,
}

/// How the log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The size of a segment file; rounded up to whole blocks, at least three.
    pub segment_bytes: u64,
    /// How many entries behind a snapshot are kept for followers that are slightly behind.
    pub keep_entries: u64,
    /// No more than this much of the log is kept for them, in bytes of segment files.
    pub keep_bytes: u64,
    /// How many freed segment files are kept for reuse (their blocks are written already, so that
    /// a sync touches no file system metadata): as many as a snapshot frees, or the rest is made anew each time.
    pub spare_segments: usize,
    /// What log, spare files and snapshots may have together. Spare files and what is kept for followers yield to it;
    /// what a snapshot does not cover yet never does.
    pub bytes_max: u64,
}

impl Options {
    /// The size of a segment in whole blocks.
    fn usual_bytes(&self) -> u64 {
        let block = BLOCK_BYTES as u64;
        self.segment_bytes.next_multiple_of(block).max(3 * block)
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 8 << 20,
            keep_entries: 10_000,
            keep_bytes: 32 << 20,
            spare_segments: 3,
            bytes_max: 256 << 20,
        }
    }
}
