//! The promises of a witness on disk: one small file for each slot.
//!
//! The file is written under another name, synced and renamed, and its directory is synced. Two fixed places with a
//! checksum would work as well and save the file system some work, but a record is written at most twice per failure, so the simple method that is
//! used elsewhere wins: a reader sees either the old or the new record, whatever fails.

use std::io;
use std::path::{Path, PathBuf};

use tally_core::raft::{RecordError, WITNESS_RECORD_BYTES, WitnessRecord};

use crate::deliberate::{self, Bug};
use crate::permissions;
use crate::storage::{FileSystem, RealFileSystem, StoredFile};

/// The file in the slot's directory.
pub(super) const FILE: &str = "witness.state";
const LOCK: &str = "lock";

const MAGIC: &[u8; 4] = b"TWIT";
const VERSION: u8 = 1;
/// Magic, version, three zeros; number of opens; number of records written; CRC-32C.
const HEAD_BYTES: usize = 8 + 8 + 8 + 4;
/// The size of the file in bytes.
pub const FILE_BYTES: usize = HEAD_BYTES + WITNESS_RECORD_BYTES;

/// Why a slot's record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process uses the directory.
    #[error("{} is in use by another process: stop that one first, or name another directory", dir.display())]
    Locked {
        /// The slot's directory.
        dir: PathBuf,
    },
    /// A newer program wrote the file.
    #[error(
        "{}: {what}; nothing was changed: run the newer tallyd that wrote it. Do not delete the file: a \
         witness that has forgotten its promises may elect a leader that lacks committed entries",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// What has which version.
        what: String,
    },
    /// The file is torn, damaged, or not a witness's state.
    #[error(
        "{}: {what}; nothing was changed. This witness has lost its promises, so it must not return under \
         the same identity: remove it from its site (`tallyd member remove {name}` at a box), make a new one \
         (`tallyd provision --extend DIR --witness NAME=HOST:PORT`), and delete this directory",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// The witness's name.
        name: String,
    },
    /// A file operation failed.
    #[error(
        "{}: {source}; check that the disk works and that this user has access to the directory{}",
        path.display(),
        permissions::advice(source, path)
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// The file of a slot, which no other process has open.
#[derive(Debug)]
pub struct Store<F: FileSystem = RealFileSystem> {
    fs: F,
    path: PathBuf,
    boot: u64,
    writes: u64,
    /// Held until the process ends.
    _lock: F::File,
}

impl<F: FileSystem> Store<F> {
    /// Reads the record, or starts with an empty one, and raises the boot counter of this witness durably:
    /// by it, peers recognise a witness whose disk was emptied, restored or copied.
    ///
    /// # Errors
    /// The record cannot be used, or the file system refused.
    pub fn open(fs: F, dir: &Path, name: &str) -> Result<(Store<F>, WitnessRecord), StoreError> {
        let lock = lock(&fs, dir)?;
        let path = dir.join(FILE);
        let (boot, writes, record) = match read(&fs, &path) {
            Ok(bytes) => decode(&bytes).map_err(|error| match error {
                DecodeError::Newer(what) => StoreError::Newer { path: path.clone(), what },
                DecodeError::Damaged(what) => {
                    StoreError::Damaged { path: path.clone(), what, name: name.to_owned() }
                }
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => (0, 0, WitnessRecord::default()),
            Err(source) => return Err(StoreError::Io { path, source }),
        };
        let store = Store { fs, path, boot: boot.saturating_add(1), writes, _lock: lock };
        // Also when nothing was read: what was read is then durable for certain, whatever the last incarnation saw fail.
        write_file(&store.fs, &store.path, &store.image(&record, writes))
            .map_err(|source| StoreError::Io { path: store.path.clone(), source })?;
        Ok((store, record))
    }

    /// The boot counter: how often the file was opened.
    pub const fn boot(&self) -> u64 {
        self.boot
    }

    /// The number of records written, in all incarnations.
    pub(super) const fn writes(&self) -> u64 {
        self.writes
    }

    /// Makes a record durable, and waits for it. After an error it is unknown which record the disk has, until the next
    /// write succeeds.
    ///
    /// # Errors
    /// The file system refused.
    pub fn write_now(&mut self, record: &WitnessRecord) -> io::Result<()> {
        write_file(&self.fs, &self.path, &self.image(record, self.writes + 1))?;
        self.writes += 1;
        Ok(())
    }

    fn image(&self, record: &WitnessRecord, writes: u64) -> [u8; FILE_BYTES] {
        encode(self.boot, writes, record)
    }
}

impl Store {
    /// The same as [`write_now`](Store::write_now), on a thread that may wait for the disk.
    pub(super) async fn write(&mut self, record: &WitnessRecord) -> Result<(), String> {
        let (path, image) = (self.path.clone(), self.image(record, self.writes + 1));
        let written = tokio::task::spawn_blocking(move || write_file(&RealFileSystem, &path, &image)).await;
        match written {
            Ok(Ok(())) => {
                self.writes += 1;
                Ok(())
            }
            Ok(Err(error)) => Err(format!("cannot write {}: {error}", self.path.display())),
            Err(error) => Err(format!("{}: the writing thread ended: {error}", self.path.display())),
        }
    }
}

/// Replaces the file by one with these bytes, durably: whatever fails, it is the old or the new one.
fn write_file(fs: &impl FileSystem, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_added_extension("new");
    let file = fs.create(&beside)?;
    file.write_at(0, bytes)?;
    file.sync_data()?;
    fs.rename(&beside, path)?;
    if deliberate::is(Bug::WitnessSkipsNameSync) {
        return Ok(());
    }
    fs.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Why the bytes of a file are not the state of a witness; each variant says what is wrong.
#[derive(Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// A newer program wrote the file.
    Newer(String),
    /// The file is torn, damaged, or not a witness's state.
    Damaged(String),
}

/// Encodes the file: number of opens, number of records written, the record.
pub fn encode(boot: u64, writes: u64, record: &WitnessRecord) -> [u8; FILE_BYTES] {
    let mut bytes = [0; FILE_BYTES];
    let (head, body) = bytes.split_at_mut(HEAD_BYTES);
    head[..4].copy_from_slice(MAGIC);
    head[4] = VERSION;
    head[8..16].copy_from_slice(&boot.to_le_bytes());
    head[16..24].copy_from_slice(&writes.to_le_bytes());
    let checksum = crc32c::crc32c(&head[..24]);
    head[24..].copy_from_slice(&checksum.to_le_bytes());
    body.copy_from_slice(&record.encode());
    bytes
}

/// Decodes what [`encode`] wrote: number of opens, number of records written, the record.
///
/// # Errors
/// Why these bytes are no record.
pub fn decode(bytes: &[u8]) -> Result<(u64, u64, WitnessRecord), DecodeError> {
    let damaged = |what: &str| DecodeError::Damaged(what.to_owned());
    if bytes.get(..4) != Some(MAGIC) {
        return Err(damaged("the file is not the state of a witness"));
    }
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Err(damaged("the file is too short"));
    };
    // A later version may be of another length, but begins alike.
    if crc32c::crc32c(&head[..24]).to_le_bytes() != head[24..] {
        return Err(damaged("the head is torn or damaged"));
    }
    if head[4] != VERSION {
        let what = format!("the file has version {}; this program supports version {VERSION}", head[4]);
        return Err(DecodeError::Newer(what));
    }
    let Ok(record) = <&[u8; WITNESS_RECORD_BYTES]>::try_from(rest) else {
        return Err(DecodeError::Damaged(format!("the file has {} bytes, not {FILE_BYTES}", bytes.len())));
    };
    let record = WitnessRecord::decode(record).map_err(|error| match error {
        RecordError::Version(_) => DecodeError::Newer(error.to_string()),
        RecordError::Checksum | RecordError::Content => DecodeError::Damaged(error.to_string()),
    })?;
    let number = |at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&head[at..at + 8]);
        u64::from_le_bytes(number)
    };
    Ok((number(8), number(16), record))
}

fn read(fs: &impl FileSystem, path: &Path) -> io::Result<Vec<u8>> {
    let file = fs.open(path)?;
    // One that is longer is not this file, and is not read into memory.
    let mut bytes = vec![0; FILE_BYTES + 1];
    let length = file.read_at(0, &mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

fn lock<F: FileSystem>(fs: &F, dir: &Path) -> Result<F::File, StoreError> {
    let path = dir.join(LOCK);
    let locked = fs.open_or_create(&path).and_then(|file| Ok((file.try_lock()?, file)));
    match locked.map_err(|source| StoreError::Io { path, source })? {
        (true, file) => Ok(file),
        (false, _) => Err(StoreError::Locked { dir: dir.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use tally_core::id::{NodeId, Term};

    fn voted(term: u64) -> WitnessRecord {
        WitnessRecord { term: Term(term), vote: Some(NodeId(1)), ..WitnessRecord::default() }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn what_was_written_comes_back_and_each_incarnation_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, record) = Store::open(RealFileSystem, dir.path(), "w").unwrap();
        assert_eq!((record, store.boot(), store.writes()), (WitnessRecord::default(), 1, 0));
        run(store.write(&voted(7))).unwrap();
        let second = Store::open(RealFileSystem, dir.path(), "w").unwrap_err();
        assert!(matches!(second, StoreError::Locked { .. }), "{second}");
        drop(store);
        let (store, record) = Store::open(RealFileSystem, dir.path(), "w").unwrap();
        assert_eq!((record, store.boot(), store.writes()), (voted(7), 2, 1));
    }

    #[test]
    fn only_the_owner_may_read_the_record_and_hold_the_lock() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(RealFileSystem, dir.path(), "w").unwrap();
        run(store.write(&voted(7))).unwrap();
        for file in [FILE, LOCK] {
            let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_record_and_the_next_one_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(RealFileSystem, dir.path(), "w").unwrap();
        run(store.write(&voted(7))).unwrap();
        let in_the_way = dir.path().join("witness.state.new");
        fs::create_dir(&in_the_way).unwrap();
        let error = run(store.write(&voted(8))).unwrap_err();
        assert!(error.contains("witness.state"), "{error}");
        assert_eq!(
            (decode(&fs::read(dir.path().join(FILE)).unwrap()).unwrap().2, store.writes()),
            (voted(7), 1)
        );
        fs::remove_dir(in_the_way).unwrap();
        run(store.write(&voted(9))).unwrap();
        assert_eq!(store.writes(), 2);
    }

    #[test]
    fn no_damage_passes_and_a_later_version_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(RealFileSystem, dir.path(), "w").unwrap();
        let good = store.image(&voted(7), 3);
        assert_eq!(decode(&good).unwrap(), (1, 3, voted(7)));
        for at in 0..FILE_BYTES {
            let mut bytes = good;
            bytes[at] ^= 1;
            assert!(matches!(decode(&bytes), Err(DecodeError::Damaged(_))), "byte {at}");
        }
        for short in 0..FILE_BYTES {
            assert!(matches!(decode(&good[..short]), Err(DecodeError::Damaged(_))), "{short} bytes");
        }
        let mut newer = good;
        newer[4] = 2;
        let checksum = crc32c::crc32c(&newer[..24]).to_le_bytes();
        newer[24..28].copy_from_slice(&checksum);
        assert!(matches!(decode(&newer), Err(DecodeError::Newer(_))));
        let mut newer = good;
        newer[HEAD_BYTES] = 9;
        let end = FILE_BYTES - 4;
        let checksum = crc32c::crc32c(&newer[HEAD_BYTES..end]).to_le_bytes();
        newer[end..].copy_from_slice(&checksum);
        let error = decode(&newer).unwrap_err();
        assert_eq!(
            error,
            DecodeError::Newer(
                "the witness's record has version 9; this program supports version 1".to_owned()
            )
        );
    }
}
