//! The operations that the storage needs of a file system, and the real file system.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Advice, FallocateFlags, FlockOperation};

/// A file system. What a method did is durable only after the sync that its comment names.
pub trait FileSystem: Send {
    /// An open file.
    type File: StoredFile;

    /// Makes a directory and its parents; nothing if it is there.
    ///
    /// # Errors
    /// What the system says.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Opens a file to read and write; `NotFound` if it is not there.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Makes an empty file to read and write, in the place of one that may be there. The name is
    /// durable after [`sync_dir`](FileSystem::sync_dir).
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens a file to read and write, or makes an empty one.
    ///
    /// # Errors
    /// What the system says.
    fn open_or_create(&self, path: &Path) -> io::Result<Self::File>;
    /// Renames a file over whatever has the new name. Durable after `sync_dir`.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable after `sync_dir`.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The names of the files in a directory, in no order.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// How many bytes are free where a directory is.
    ///
    /// # Errors
    /// What the system says.
    fn free(&self, path: &Path) -> io::Result<u64>;
}

/// An open file; closing it does not sync it.
pub trait StoredFile: Send {
    /// Its size in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn size(&self) -> io::Result<u64>;
    /// Reads at an offset; how many bytes, less than asked only at the end of the file.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of it at an offset. Durable after [`sync_data`](StoredFile::sync_data).
    ///
    /// # Errors
    /// What the system says.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was written durable, and the size.
    ///
    /// # Errors
    /// What the system says.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes the file this long and reserves the space, as far as the file system can.
    ///
    /// # Errors
    /// What the system says.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// Makes the file this long.
    ///
    /// # Errors
    /// What the system says.
    fn set_size(&self, bytes: u64) -> io::Result<()>;
    /// Drops what is cached and not waiting to be written, so that reading shows what the disk
    /// holds (after a failed sync the cache holds what the disk may not). As far as the system can.
    ///
    /// # Errors
    /// What the system says.
    fn forget_cache(&self) -> io::Result<()>;
    /// Takes the lock of this file for as long as it is open; whether it was free.
    ///
    /// # Errors
    /// What the system says.
    fn try_lock(&self) -> io::Result<bool>;
}

/// The operating system's file system. What it makes only its owner may read and write, whatever the umask: others could
/// read what a site counts, or hold a lock.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFileSystem;

const FILE_MODE: u32 = 0o600;

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(FILE_MODE);
    options
}

impl FileSystem for RealFileSystem {
    type File = File;

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        options().open(path)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        options().create(true).truncate(true).open(path)
    }

    fn open_or_create(&self, path: &Path) -> io::Result<File> {
        options().create(true).truncate(false).open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn free(&self, path: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(path)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

impl StoredFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match FileExt::read_at(self, &mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(self, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => Ok(()),
            // The file system cannot reserve: a sparse file of that size still saves the later
            // changes of its size.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => self.set_len(bytes),
            Err(error) => Err(error.into()),
        }
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn forget_cache(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(self, 0, None, Advice::DontNeed)?)
    }

    fn try_lock(&self) -> io::Result<bool> {
        match rustix::fs::flock(self, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
