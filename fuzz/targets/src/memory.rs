//! A file system in memory, without faults: what a directory of any bytes is read from.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use tallyd::storage::{FileSystem, StoredFile};

type Content = Arc<Mutex<Vec<u8>>>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<World>>);

#[derive(Debug, Default)]
struct World {
    files: BTreeMap<PathBuf, Content>,
    dirs: BTreeSet<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct MemoryFile(Content);

impl Memory {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("nobody fails with it")
    }

    pub(crate) fn put(&self, path: &Path, bytes: Vec<u8>) {
        self.world().files.insert(path.to_owned(), Arc::new(Mutex::new(bytes)));
    }

    /// All files but the lock and a format that is being written, with what is in them.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let world = self.world();
        let kept =
            world.files.iter().filter(|(path, _)| !path.ends_with("lock") && !path.ends_with("format.tmp"));
        kept.map(|(path, content)| (path.clone(), content.lock().expect("nobody fails with it").clone()))
            .collect()
    }
}

impl FileSystem for Memory {
    type File = MemoryFile;

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.world().dirs.insert(path.to_owned());
        Ok(())
    }

    /// Never full.
    fn free(&self, _: &Path) -> io::Result<u64> {
        Ok(1 << 40)
    }

    fn open(&self, path: &Path) -> io::Result<MemoryFile> {
        let world = self.world();
        world.files.get(path).map(|content| MemoryFile(content.clone())).ok_or(io::ErrorKind::NotFound.into())
    }

    fn create(&self, path: &Path) -> io::Result<MemoryFile> {
        let content = Content::default();
        self.world().files.insert(path.to_owned(), content.clone());
        Ok(MemoryFile(content))
    }

    fn open_or_create(&self, path: &Path) -> io::Result<MemoryFile> {
        self.open(path).or_else(|_| self.create(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        let content = world.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        world.files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.world().files.remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let world = self.world();
        let is_there = world.dirs.contains(path) || world.files.keys().any(|file| file.starts_with(path));
        if is_there { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let world = self.world();
        let inside = world.files.keys().filter(|file| file.parent() == Some(path));
        Ok(inside.filter_map(|file| Some(file.file_name()?.to_str()?.to_owned())).collect())
    }
}

impl MemoryFile {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("nobody fails with it")
    }
}

impl StoredFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.bytes();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let length = buffer.len().min(bytes.len() - from);
        buffer[..length].copy_from_slice(&bytes[from..from + length]);
        Ok(length)
    }

    fn write_at(&self, offset: u64, written: &[u8]) -> io::Result<()> {
        let mut bytes = self.bytes();
        let from = usize::try_from(offset).expect("within memory");
        let end = from + written.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[from..end].copy_from_slice(written);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.set_size(bytes)
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.bytes().resize(usize::try_from(bytes).expect("within memory"), 0);
        Ok(())
    }

    fn forget_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }
}
