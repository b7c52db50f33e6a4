//! The errors of the disk, in words that say where and what to do.

use std::io;
use std::path::{Path, PathBuf};

use tally_core::id::LogIndex;

use crate::permissions;

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the lock.
    #[error(
        "another tallyd{} uses the data directory {}: stop it, or start this one with another --data-dir",
        .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(),
        .dir.display()
    )]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// The process that wrote itself into the lock file.
        pid: Option<u32>,
    },
    /// The directory's format has a larger number than this release knows.
    #[error(
        "a newer version of tallyd wrote the data directory {} (data format {found}; this one supports up to \
         {known}): start that version or a later one", .dir.display()
    )]
    Newer {
        /// The data directory.
        dir: PathBuf,
        /// The number found.
        found: u64,
        /// The largest number known here.
        known: u64,
    },
    /// The data is another box's or another site's.
    #[error(
        "{} belongs to box {found_node} of site {found_site:016x}, but this is box {node} of site \
         {site:016x}: give each box its own data directory (was it copied from another box?)",
        .file.display()
    )]
    Foreign {
        /// The file that says so.
        file: PathBuf,
        /// The site in the file.
        found_site: u64,
        /// The box in the file.
        found_node: u64,
        /// This site.
        site: u64,
        /// This box.
        node: u64,
    },
    /// Something that was acknowledged cannot be read any more. Nothing was changed.
    #[error("{}, byte {offset}: {certain} {advice}", .file.display())]
    Damaged {
        /// The damaged file (or the one that should be there).
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is known for certain.
        certain: String,
        /// What to do.
        advice: String,
    },
    /// The disk is full.
    #[error("no space left for {}: free some space; nothing was lost", .path.display())]
    NoSpace {
        /// The file or directory.
        path: PathBuf,
    },
    /// The file system is read-only.
    #[error("{} is on a read-only file system: remount it (after an error, check it first)", .path.display())]
    ReadOnly {
        /// The file or directory.
        path: PathBuf,
    },
    /// Any other error of the operating system.
    #[error("{}: {source}{}", .path.display(), permissions::advice(.source, .path))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why something did not become durable. After every one but `Invalid` of a log write the storage is
/// poisoned (it must be recovered before it writes again), unless there was only no space for the next segment.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The disk is full.
    #[error("no space left for {}", .path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
    },
    /// The file system is read-only.
    #[error("{} is on a read-only file system", .path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// Any other error of the operating system.
    #[error("writing {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier write or sync failed; what is on disk must be read again first.
    #[error("an earlier write to the log failed; the log must first be read back from the disk")]
    Poisoned,
    /// An earlier write or sync failed, and what is on disk cannot be read again yet.
    #[error("cannot read the log back after a failed write: {0}")]
    Unrecovered(Box<OpenError>),
    /// The caller asked for what cannot be (a gap in the log, say). Nothing was written.
    #[error("refused to write: {0}")]
    Invalid(String),
}

/// Why entries or a snapshot could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The entries are covered by the snapshot and gone from the log.
    #[error("entry {asked} was compacted; the log begins with entry {first}")]
    Compacted {
        /// The index asked for.
        asked: LogIndex,
        /// The first index that is there.
        first: LogIndex,
    },
    /// The log does not go that far.
    #[error("entry {asked} does not exist; the log ends with entry {last}")]
    Missing {
        /// The index asked for.
        asked: LogIndex,
        /// The last index that is there.
        last: LogIndex,
    },
    /// What was acknowledged cannot be read any more.
    #[error("{}, byte {offset}: damaged: {what}", .file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What does not fit.
        what: String,
    },
    /// An error of the operating system.
    #[error("reading {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl WriteError {
    pub(super) fn from_io(path: &Path, source: io::Error) -> WriteError {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => WriteError::NoSpace { path },
            io::ErrorKind::ReadOnlyFilesystem => WriteError::ReadOnly { path },
            _ => WriteError::Io { path, source },
        }
    }
}

impl OpenError {
    /// Adds what is known to be intact to what is certain about damage.
    pub(super) fn with_intact_up_to(mut self, index: LogIndex) -> OpenError {
        if let OpenError::Damaged { certain, .. } = &mut self {
            certain.push_str(&format!(" The log before it is intact, up to entry {index}."));
        }
        self
    }

    pub(super) fn from_io(path: &Path, source: io::Error) -> OpenError {
        WriteError::from_io(path, source).into()
    }
}

impl From<WriteError> for OpenError {
    fn from(error: WriteError) -> OpenError {
        match error {
            WriteError::NoSpace { path } => OpenError::NoSpace { path },
            WriteError::ReadOnly { path } => OpenError::ReadOnly { path },
            WriteError::Io { path, source } => OpenError::Io { path, source },
            WriteError::Unrecovered(error) => *error,
            other @ (WriteError::Poisoned | WriteError::Invalid(_)) => {
                OpenError::Io { path: PathBuf::new(), source: io::Error::other(other) }
            }
        }
    }
}
