//! The file of uncommitted counts in the data directory (see `node::unsent`, which encodes it). A save either is whole
//! and durable, or leaves the file as it was.

use std::io;

use super::fs::{FileSystem, StoredFile};
use super::store::Storage;

/// Its name in the data directory.
pub const UNSENT: &str = "unsent.batches";
/// What it is called until it is whole.
const UNFINISHED: &str = "unsent.tmp";
/// So many that were set aside are kept; after that the last of them gives way.
const ASIDE_MAX: u32 = 100;

impl<F: FileSystem> Storage<F> {
    /// What it says; `None`: there is none. One of more bytes than this is not read.
    ///
    /// # Errors
    /// The file system refused.
    pub fn unsent(&self, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match self.fs.open(&self.dir.join(UNSENT)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let size = file.size()?;
        if size > bytes_max {
            return Err(io::Error::other(format!("the file has {size} bytes, more than {bytes_max}")));
        }
        let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        let read = file.read_at(0, &mut bytes)?;
        bytes.truncate(read);
        Ok(Some(bytes))
    }

    /// Writes it anew; durable when this returns. On a full disk spare files and what a snapshot covers give way.
    ///
    /// # Errors
    /// The file system refused.
    pub fn keep_unsent(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut kept = self.try_keep(bytes);
        let is_full = |kept: &io::Result<()>| {
            let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
            kept.as_ref().is_err_and(|error| kinds.contains(&error.kind()))
        };
        while is_full(&kept) && self.free_some() {
            kept = self.try_keep(bytes);
        }
        kept
    }

    fn try_keep(&self, bytes: &[u8]) -> io::Result<()> {
        let unfinished = self.dir.join(UNFINISHED);
        let written = self.fs.create(&unfinished).and_then(|file| {
            file.write_at(0, bytes)?;
            file.sync_data()
        });
        if let Err(error) = written {
            // It may fill a full disk further.
            let _ = self.fs.remove(&unfinished);
            return Err(error);
        }
        self.fs.rename(&unfinished, &self.dir.join(UNSENT))?;
        self.fs.sync_dir(&self.dir)
    }

    /// Removes it, durably.
    ///
    /// # Errors
    /// The file system refused.
    pub fn forget_unsent(&self) -> io::Result<()> {
        match self.fs.remove(&self.dir.join(UNSENT)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // Also where it was removed before: that may not have become durable.
        self.fs.sync_dir(&self.dir)
    }

    /// Gives it another name, which is the answer: it cannot be used, and somebody may want to look at it.
    ///
    /// # Errors
    /// The file system refused.
    pub fn set_unsent_aside(&self) -> io::Result<String> {
        let names = self.fs.list(&self.dir)?;
        let aside = |number: u32| format!("{UNSENT}.aside-{number}");
        let free = (1..ASIDE_MAX).map(aside).find(|name| !names.contains(name));
        let name = free.unwrap_or_else(|| aside(ASIDE_MAX));
        self.fs.rename(&self.dir.join(UNSENT), &self.dir.join(&name))?;
        self.fs.sync_dir(&self.dir)?;
        Ok(name)
    }
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
