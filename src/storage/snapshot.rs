//! Snapshot files: written beside, synced, renamed, read back, and only then the older ones removed.
//!
//! `INDEX-TERM-SUBTERM.snap`: magic, CRC-32C of all that follows u32, version u32, site u64, node
//! u64, index u64, term u64, subterm u64, length u64, origin u64, then the bytes. Integers are
//! little-endian. The origin is 0 for a snapshot of this box's log, which has to be there to match,
//! and 1 for one that came from a leader, after which the log begins anew.

use std::io;
use std::path::{Path, PathBuf};

use tally_core::id::{LogIndex, Subterm, Term};
use tally_core::raft::Position;

use super::codec::Reader;
use super::fs::{FileSystem, StoredFile};
use super::segment::foreign;
use super::{FORMAT_VERSION, OpenError, Owner, StorageMetrics, WriteError};

const MAGIC: &[u8; 8] = b"TALLYSNP";
const CRC_END: usize = 12;
const HEADER_BYTES: usize = 72;
const UNFINISHED: &str = "new.tmp";

/// A snapshot file: what it covers, where it came from, and what it says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    pub(super) position: Position,
    /// It came from a leader.
    pub(super) foreign: bool,
    pub(super) bytes: &'a [u8],
}

/// A snapshot read back.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) bytes: Vec<u8>,
    /// It came from a leader.
    pub(super) foreign: bool,
}

/// Why a snapshot file gave nothing.
#[derive(Debug)]
pub(super) enum LoadError {
    /// It is damaged: what does not fit.
    Damaged(String),
    /// It must not be used.
    Refused(OpenError),
    /// It could not be read.
    Io(io::Error),
}

/// Where the snapshot of that position is.
pub(super) fn path(dir: &Path, position: Position) -> PathBuf {
    dir.join(format!("{}-{}-{}.snap", position.index, position.term, position.subterm))
}

/// The positions of the snapshot files in the directory, newest first.
pub(super) fn list<F: FileSystem>(fs: &F, dir: &Path) -> io::Result<Vec<Position>> {
    let mut found: Vec<Position> = fs.list(dir)?.iter().filter_map(|name| named(name)).collect();
    found.sort_by_key(|position| std::cmp::Reverse((position.index, position.term, position.subterm)));
    Ok(found)
}

fn named(name: &str) -> Option<Position> {
    let mut numbers = name.strip_suffix(".snap")?.split('-').map(|number| number.parse().ok());
    let position = Position {
        index: LogIndex(numbers.next()??),
        term: Term(numbers.next()??),
        subterm: Subterm(numbers.next()??),
    };
    numbers.next().is_none().then_some(position)
}

/// Makes a snapshot durable and reads it back. Older ones are still there afterwards.
pub(super) fn save<F: FileSystem>(
    fs: &F,
    dir: &Path,
    owner: Owner,
    parts: Parts<'_>,
    metrics: &StorageMetrics,
) -> Result<(), WriteError> {
    let Parts { position, bytes, .. } = parts;
    let temporary = dir.join(UNFINISHED);
    let written = write(fs, &temporary, &header(owner, parts), bytes, metrics);
    if let Err(source) = written {
        let _ = fs.remove(&temporary); // gives the space back; the first error counts
        return Err(WriteError::from_io(&temporary, source));
    }
    let path = path(dir, position);
    let error = |source| WriteError::from_io(&path, source);
    fs.rename(&temporary, &path).map_err(error)?;
    fs.sync_dir(dir).map_err(error)?;
    match load(fs, dir, owner, position) {
        Ok(_) => Ok(()),
        Err(LoadError::Io(source)) => Err(error(source)),
        Err(LoadError::Damaged(what)) => Err(error(io::Error::other(format!("read back: {what}")))),
        Err(LoadError::Refused(refusal)) => Err(error(io::Error::other(refusal))),
    }
}

fn write<F: FileSystem>(
    fs: &F,
    path: &Path,
    header: &[u8],
    bytes: &[u8],
    metrics: &StorageMetrics,
) -> io::Result<()> {
    let file = fs.create(path)?;
    file.write_at(0, header)?;
    file.write_at(header.len() as u64, bytes)?;
    metrics.wrote((header.len() + bytes.len()) as u64);
    file.sync_data()?;
    metrics.synced();
    Ok(())
}

fn header(owner: Owner, parts: Parts<'_>) -> Vec<u8> {
    let Parts { position, foreign, bytes } = parts;
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    let Position { index, term, subterm } = position;
    let (length, origin) = (bytes.len() as u64, u64::from(foreign));
    for value in [owner.site_id, owner.node, index.0, term.0, subterm.0, length, origin] {
        header.extend_from_slice(&value.to_le_bytes());
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[CRC_END..]), bytes);
    header[CRC_END - 4..CRC_END].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Reads a snapshot from the disk and checks all of it.
pub(super) fn load<F: FileSystem>(
    fs: &F,
    dir: &Path,
    owner: Owner,
    position: Position,
) -> Result<Loaded, LoadError> {
    let path = path(dir, position);
    let file = fs.open(&path).map_err(LoadError::Io)?;
    file.forget_cache().map_err(LoadError::Io)?;
    let size = usize::try_from(file.size().map_err(LoadError::Io)?).unwrap_or(usize::MAX);
    let mut head = [0; HEADER_BYTES];
    let read = file.read_at(0, &mut head).map_err(LoadError::Io)?;
    let damaged = |what: &str| LoadError::Damaged(what.to_string());
    if read < HEADER_BYTES || &head[..MAGIC.len()] != MAGIC {
        return Err(damaged("it does not begin as a snapshot does"));
    }
    let fields = fields(&head).ok_or_else(|| damaged("its header is too short"))?;
    // Nothing is read into memory that the file does not hold.
    if fields.length != (size - HEADER_BYTES) as u64 {
        return Err(damaged("its length is not the one in its header"));
    }
    let mut bytes = vec![0; size - HEADER_BYTES];
    file.read_at(HEADER_BYTES as u64, &mut bytes).map_err(LoadError::Io)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[CRC_END..]), &bytes);
    if crc != fields.crc {
        return Err(damaged("its checksum is wrong"));
    }
    if fields.version > FORMAT_VERSION {
        let (found, known) = (fields.version.into(), FORMAT_VERSION.into());
        return Err(LoadError::Refused(OpenError::Newer { dir: path, found, known }));
    }
    if fields.owner != owner {
        return Err(LoadError::Refused(foreign(&path, fields.owner, owner)));
    }
    if fields.position != position {
        return Err(damaged("it is a snapshot of another position under this name"));
    }
    Ok(Loaded { bytes, foreign: fields.foreign })
}

struct Fields {
    version: u32,
    crc: u32,
    owner: Owner,
    position: Position,
    length: u64,
    foreign: bool,
}

fn fields(head: &[u8; HEADER_BYTES]) -> Option<Fields> {
    let mut reader = Reader::new(&head[MAGIC.len()..]);
    Some(Fields {
        crc: reader.u32()?,
        version: reader.u32()?,
        owner: Owner { site_id: reader.u64()?, node: reader.u64()? },
        position: Position {
            index: LogIndex(reader.u64()?),
            term: Term(reader.u64()?),
            subterm: Subterm(reader.u64()?),
        },
        length: reader.u64()?,
        foreign: reader.u64()? == 1,
    })
}

/// Removes all snapshots but this one. Nothing depends on it: what cannot be removed is tried again
/// with the next snapshot.
pub(super) fn remove_others<F: FileSystem>(fs: &F, dir: &Path, keep: Position) {
    for other in list(fs, dir).unwrap_or_default().into_iter().filter(|other| *other != keep) {
        let path = path(dir, other);
        if let Err(error) = fs.remove(&path) {
            tracing::warn!(file = %path.display(), %error, "an old snapshot could not be removed");
        }
    }
}
