//! Snapshot files: written beside, synced, renamed, read back, and only then the older ones removed;
//! all of it in pieces.
//!
//! `INDEX-TERM-SUBTERM.snap`: magic, CRC-32C of the rest of the header u32, version u32, site u64, node
//! u64, index u64, term u64, subterm u64, length u64, origin u32, CRC-32C of the bytes u32, then the
//! bytes. Integers are little-endian. The origin is 0 for a snapshot of this box's log, which has to be there to match,
//! and 1 for one that came from a leader, after which the log begins anew.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tally_core::id::{LogIndex, Subterm, Term};
use tally_core::raft::Position;

use super::fs::{FileSystem, StoredFile};
use super::segment::foreign_data;
use super::{FORMAT_VERSION, OpenError, Owner, ReadError, StorageMetrics, WriteError};
use crate::codec::{Malformed, Reader};

const MAGIC: &[u8; 8] = b"TALLYSNP";
const CRC_END: usize = 12;
const HEADER_BYTES: usize = 72;
const UNFINISHED: &str = "new.tmp";

/// So much is written and synced, or read back, at once: ten milliseconds on a slow card.
const PIECE_BYTES: usize = 256 << 10;

/// A snapshot file: what it covers, where it came from, and what it says.
#[derive(Clone, Debug)]
pub(super) struct SnapshotParts {
    pub(super) position: Position,
    /// Whether the snapshot came from a leader.
    pub(super) foreign: bool,
    pub(super) bytes: Bytes,
}

impl SnapshotParts {
    /// What the file takes.
    pub(super) fn file_bytes(&self) -> u64 {
        (HEADER_BYTES + self.bytes.len()) as u64
    }
}

/// A snapshot read back.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) bytes: Vec<u8>,
    /// Whether the snapshot came from a leader.
    pub(super) foreign: bool,
}

/// Why a snapshot file gave nothing.
#[derive(Debug)]
pub(super) enum LoadError {
    /// The snapshot is damaged: what is wrong with it.
    Damaged(String),
    /// The snapshot must not be used.
    Refused(OpenError),
    /// The snapshot could not be read.
    Io(io::Error),
}

/// Where the snapshot of that position is.
pub(super) fn path(dir: &Path, position: Position) -> PathBuf {
    dir.join(format!("{}-{}-{}.snap", position.index, position.term, position.subterm))
}

/// The positions of the snapshot files in the directory, newest first.
pub(super) fn list<F: FileSystem>(fs: &F, dir: &Path) -> io::Result<Vec<Position>> {
    let mut found: Vec<Position> = fs.list(dir)?.iter().filter_map(|name| parse_name(name)).collect();
    found.sort_by_key(|position| std::cmp::Reverse((position.index, position.term, position.subterm)));
    Ok(found)
}

fn parse_name(name: &str) -> Option<Position> {
    let mut numbers = name.strip_suffix(".snap")?.split('-').map(|number| number.parse().ok());
    let position = Position {
        index: LogIndex(numbers.next()??),
        term: Term(numbers.next()??),
        subterm: Subterm(numbers.next()??),
    };
    numbers.next().is_none().then_some(position)
}

/// A snapshot on its way to the disk, a piece at a time, so that the log need not wait for all of it.
#[derive(Debug)]
pub struct Saving<S> {
    file: S,
    parts: SnapshotParts,
    /// The checksum of the bytes so far.
    crc: u32,
    stage: Stage,
    serial: u64,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// So many bytes are durable.
    Writing(usize),
    /// Named; so many bytes were read back, and this is their checksum.
    Checking(usize, u32),
}

/// What a piece came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    /// Durable, and read back. Older ones are still there.
    Done,
}

impl<S: StoredFile> Saving<S> {
    /// Reserves the space. There is only one at a time.
    pub(super) fn begin<F: FileSystem<File = S>>(
        fs: &F,
        dir: &Path,
        parts: SnapshotParts,
        serial: u64,
    ) -> Result<Saving<S>, WriteError> {
        let temporary = dir.join(UNFINISHED);
        let error = |source| WriteError::from_io(&temporary, source);
        let file = fs.create(&temporary).map_err(error)?;
        if let Err(source) = file.allocate(parts.file_bytes()) {
            drop(file);
            let _ = fs.remove(&temporary); // gives the space back; the first error counts
            return Err(error(source));
        }
        Ok(Saving { file, parts, crc: 0, stage: Stage::Writing(0), serial })
    }

    /// Which of those that were begun it is.
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// What it covers.
    pub(super) fn position(&self) -> Position {
        self.parts.position
    }

    pub(super) fn bytes(&self) -> usize {
        self.parts.bytes.len()
    }

    /// Writes or reads back the next piece. An error ends it.
    pub(super) fn step<F: FileSystem<File = S>>(
        &mut self,
        fs: &F,
        dir: &Path,
        owner: Owner,
        metrics: &StorageMetrics,
    ) -> Result<Progress, WriteError> {
        match self.stage {
            Stage::Writing(at) => {
                let temporary = dir.join(UNFINISHED);
                let written = self.write(at, owner, metrics);
                if let Err(source) = written {
                    let _ = fs.remove(&temporary); // gives the space back; the first error counts
                    return Err(WriteError::from_io(&temporary, source));
                }
                if let Stage::Checking(..) = self.stage {
                    let path = path(dir, self.parts.position);
                    let error = |source| WriteError::from_io(&path, source);
                    fs.rename(&temporary, &path).map_err(error)?;
                    fs.sync_dir(dir).map_err(error)?;
                    self.file.forget_cache().map_err(error)?;
                }
                Ok(Progress::More)
            }
            Stage::Checking(at, crc) => {
                let path = path(dir, self.parts.position);
                self.check(at, crc).map_err(|source| WriteError::from_io(&path, source))
            }
        }
    }

    fn write(&mut self, at: usize, owner: Owner, metrics: &StorageMetrics) -> io::Result<()> {
        let bytes = &self.parts.bytes;
        let end = (at + PIECE_BYTES).min(bytes.len());
        self.file.write_at((HEADER_BYTES + at) as u64, &bytes[at..end])?;
        metrics.count_written((end - at) as u64);
        self.crc = crc32c::crc32c_append(self.crc, &bytes[at..end]);
        self.stage = Stage::Writing(end);
        if end == bytes.len() {
            let header = header(owner, &self.parts, self.crc);
            self.file.write_at(0, &header)?;
            metrics.count_written(HEADER_BYTES as u64);
            self.stage = Stage::Checking(0, 0);
        }
        self.file.sync_data()?;
        metrics.count_sync();
        Ok(())
    }

    fn check(&mut self, at: usize, crc: u32) -> io::Result<Progress> {
        let total = self.parts.bytes.len();
        let mut piece = vec![0; PIECE_BYTES.min(total - at)];
        let read = self.file.read_at((HEADER_BYTES + at) as u64, &mut piece)?;
        let crc = crc32c::crc32c_append(crc, &piece[..read]);
        self.stage = Stage::Checking(at + read, crc);
        if read == piece.len() && at + read < total {
            return Ok(Progress::More);
        }
        let mut header = [0; HEADER_BYTES];
        self.file.read_at(0, &mut header)?;
        let named = fields(&header).ok().map(|fields| fields.body_crc);
        if at + read == total && crc == self.crc && named == Some(crc) && is_whole(&header) {
            return Ok(Progress::Done);
        }
        Err(io::Error::other("the data read back differs from the data written"))
    }
}

fn header(owner: Owner, parts: &SnapshotParts, body_crc: u32) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    let Position { index, term, subterm } = parts.position;
    for value in [owner.site_id, owner.node, index.0, term.0, subterm.0, parts.bytes.len() as u64] {
        header.extend_from_slice(&value.to_le_bytes());
    }
    header.extend_from_slice(&u32::from(parts.foreign).to_le_bytes());
    header.extend_from_slice(&body_crc.to_le_bytes());
    let crc = crc32c::crc32c(&header[CRC_END..]);
    header[CRC_END - 4..CRC_END].copy_from_slice(&crc.to_le_bytes());
    header
}

fn is_whole(header: &[u8; HEADER_BYTES]) -> bool {
    header[CRC_END - 4..CRC_END] == crc32c::crc32c(&header[CRC_END..]).to_le_bytes()
}

/// Which snapshot it is, for those who get it in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The last entry that it covers.
    pub position: Position,
    /// How many bytes it has.
    pub total: u64,
    /// CRC-32C of them.
    pub crc: u32,
}

/// A snapshot file that is read in parts; it can be read though a newer one has replaced it.
#[derive(Debug)]
pub struct SnapshotReader<S> {
    file: S,
    path: PathBuf,
    head: SnapshotHead,
}

impl<S: StoredFile> SnapshotReader<S> {
    pub(super) fn open<F: FileSystem<File = S>>(
        fs: &F,
        dir: &Path,
        position: Position,
    ) -> Result<SnapshotReader<S>, ReadError> {
        let path = path(dir, position);
        let error = |source| ReadError::Io { path: path.clone(), source };
        let file = fs.open(&path).map_err(error)?;
        let mut header = [0; HEADER_BYTES];
        let read = file.read_at(0, &mut header).map_err(error)?;
        let fields = fields(&header)
            .ok()
            .filter(|fields| read == HEADER_BYTES && is_whole(&header) && fields.position == position);
        let Some(fields) = fields else {
            let what = "the header of the snapshot has changed".to_owned();
            return Err(ReadError::Damaged { file: path, offset: 0, what });
        };
        let head = SnapshotHead { position, total: fields.length, crc: fields.body_crc };
        Ok(SnapshotReader { file, path, head })
    }

    /// Which snapshot it is.
    pub fn head(&self) -> SnapshotHead {
        self.head
    }

    /// Bytes from an offset on, at most so many. The whole has to be checked by whoever puts it together.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self, offset: u64, bytes_max: usize) -> Result<Bytes, ReadError> {
        let left = usize::try_from(self.head.total.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; bytes_max.min(left)];
        let read = self.file.read_at(HEADER_BYTES as u64 + offset, &mut bytes);
        let read = read.map_err(|source| ReadError::Io { path: self.path.clone(), source })?;
        if read < bytes.len() {
            let what = "the snapshot is shorter than it was".to_owned();
            return Err(ReadError::Damaged { file: self.path.clone(), offset, what });
        }
        Ok(bytes.into())
    }
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
        return Err(damaged("the file does not begin like a snapshot"));
    }
    let fields = fields(&head).map_err(|_| damaged("its header is too short"))?;
    if !is_whole(&head) {
        return Err(damaged("its header's checksum is wrong"));
    }
    if fields.version > FORMAT_VERSION {
        let (found, known) = (fields.version.into(), FORMAT_VERSION.into());
        return Err(LoadError::Refused(OpenError::Newer { dir: path, found, known }));
    }
    // Nothing is read into memory that the file does not hold.
    if fields.length != (size - HEADER_BYTES) as u64 {
        return Err(damaged("its length is not the one in its header"));
    }
    let mut bytes = vec![0; size - HEADER_BYTES];
    file.read_at(HEADER_BYTES as u64, &mut bytes).map_err(LoadError::Io)?;
    if crc32c::crc32c(&bytes) != fields.body_crc {
        return Err(damaged("its checksum is wrong"));
    }
    if fields.owner != owner {
        return Err(LoadError::Refused(foreign_data(&path, fields.owner, owner)));
    }
    if fields.position != position {
        return Err(damaged("the file is a snapshot of another position under this name"));
    }
    Ok(Loaded { bytes, foreign: fields.foreign })
}

struct Fields {
    version: u32,
    owner: Owner,
    position: Position,
    length: u64,
    foreign: bool,
    body_crc: u32,
}

fn fields(head: &[u8; HEADER_BYTES]) -> Result<Fields, Malformed> {
    let mut reader = Reader::new(&head[CRC_END..]);
    Ok(Fields {
        version: reader.u32()?,
        owner: Owner { site_id: reader.u64()?, node: reader.u64()? },
        position: Position {
            index: LogIndex(reader.u64()?),
            term: Term(reader.u64()?),
            subterm: Subterm(reader.u64()?),
        },
        length: reader.u64()?,
        foreign: reader.u32()? == 1,
        body_crc: reader.u32()?,
    })
}

/// What the snapshots take, one that is being written, too.
pub(super) fn weigh<F: FileSystem>(fs: &F, dir: &Path) -> io::Result<u64> {
    let names = fs.list(dir)?;
    let ours = names.iter().filter(|name| *name == UNFINISHED || parse_name(name).is_some());
    ours.map(|name| fs.open(&dir.join(name))?.size()).sum()
}

/// Removes what the one that was read at the start makes useless, and what was not finished. Nothing depends on it.
pub(super) fn remove_stale<F: FileSystem>(fs: &F, dir: &Path, chosen: Option<Position>) {
    for name in fs.list(dir).unwrap_or_default() {
        let older = |position: Position| chosen.is_some_and(|chosen| position.index < chosen.index);
        if (name == UNFINISHED || parse_name(&name).is_some_and(older))
            && let Err(error) = fs.remove(&dir.join(&name))
        {
            tracing::warn!(file = %dir.join(name).display(), %error, "cannot remove a stale file");
        }
    }
}

/// Removes all snapshots but this one. Nothing depends on it: what cannot be removed is tried again
/// with the next snapshot.
pub(super) fn remove_others<F: FileSystem>(fs: &F, dir: &Path, keep: Position) {
    for other in list(fs, dir).unwrap_or_default().into_iter().filter(|other| *other != keep) {
        let path = path(dir, other);
        if let Err(error) = fs.remove(&path) {
            tracing::warn!(file = %path.display(), %error, "cannot remove an old snapshot");
        }
    }
}
