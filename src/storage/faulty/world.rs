//! What the disk of the faulty file system holds, durably and in its cache, and which fault comes next.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Fault;

/// What a disk writes as a whole.
pub(super) const SECTOR: usize = 512;

/// All that the file system has and does.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) inodes: Vec<Inode>,
    pub(super) names: BTreeMap<PathBuf, usize>,
    pub(super) durable_names: BTreeMap<PathBuf, usize>,
    /// Changes of names that no sync of the directory has covered, in order.
    pub(super) pending: Vec<NameChange>,
    pub(super) locks: BTreeSet<usize>,
    pub(super) capacity: Option<usize>,
    pub(super) fault: Option<(u32, Fault)>,
    pub(super) read_fault: Option<(u32, io::ErrorKind)>,
    /// Every operation that changes something fails.
    pub(super) broken: Option<io::ErrorKind>,
    /// Syncs of files do not return.
    pub(super) hung: bool,
    /// Syncs of files take so long.
    pub(super) sync_takes: Duration,
    /// How often a fault happened.
    pub(super) faults: u32,
    pub(super) down: bool,
    pub(super) incarnation: u64,
    pub(super) random: u64,
}

/// A file: what is on the disk, and what the cache shows.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) durable: Vec<u8>,
    pub(super) cached: Vec<u8>,
    pub(super) dirty: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl NameChange {
    fn dir(&self) -> Option<&Path> {
        match self {
            NameChange::Link(path, _) | NameChange::Unlink(path) | NameChange::Rename(path, _) => {
                path.parent()
            }
        }
    }
}

impl World {
    pub(super) fn check_power(&self) -> io::Result<()> {
        if self.down { Err(io::Error::other("the power is gone")) } else { Ok(()) }
    }

    /// Called by every operation that changes something; the fault that happens in it.
    pub(super) fn fault(&mut self) -> io::Result<Option<Fault>> {
        self.check_power()?;
        if let Some(kind) = self.broken {
            self.faults += 1;
            return Ok(Some(Fault::Error(kind)));
        }
        match &mut self.fault {
            Some((0, fault)) => {
                let fault = *fault;
                self.fault = None;
                self.faults += 1;
                self.down = fault == Fault::Crash;
                Ok(Some(fault))
            }
            Some((operations, _)) => {
                *operations -= 1;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Called by every operation that only looks.
    pub(super) fn check_read(&mut self) -> io::Result<()> {
        self.check_power()?;
        match &mut self.read_fault {
            Some((0, kind)) => {
                let kind = *kind;
                self.read_fault = None;
                self.faults += 1;
                Err(kind.into())
            }
            Some((operations, _)) => {
                *operations -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(super) fn random(&mut self) -> u64 {
        crate::random::split_mix(&mut self.random)
    }

    pub(super) fn change_name(&mut self, change: NameChange) -> io::Result<()> {
        let fault = self.fault()?;
        if let Some(Fault::Error(kind)) = fault {
            return Err(kind.into());
        }
        apply(&mut self.names, &change);
        self.pending.push(change);
        self.check_power()
    }

    pub(super) fn sync_names(&mut self, dir: &Path) {
        for change in std::mem::take(&mut self.pending) {
            if change.dir() == Some(dir) {
                apply(&mut self.durable_names, &change);
            } else {
                self.pending.push(change);
            }
        }
    }

    /// Some of the dirty sectors reach the disk: none, all, or any.
    pub(super) fn write_back_some(&mut self, inode: usize) {
        let how = self.random() % 4;
        let size_too = self.random().is_multiple_of(2);
        if size_too && how != 0 {
            let size = self.inodes[inode].cached.len();
            self.inodes[inode].durable.resize(size, 0);
        }
        for sector in std::mem::take(&mut self.inodes[inode].dirty) {
            if how == 1 || (how > 1 && self.random().is_multiple_of(2)) {
                self.inodes[inode].write_back(sector);
            }
        }
    }

    pub(super) fn lose_power(&mut self) {
        for inode in 0..self.inodes.len() {
            self.write_back_some(inode);
            self.inodes[inode].cached = self.inodes[inode].durable.clone();
        }
        let mut lost: BTreeSet<PathBuf> = BTreeSet::new();
        for change in std::mem::take(&mut self.pending) {
            let dir = change.dir().map(Path::to_path_buf).unwrap_or_default();
            // A directory keeps the first of its changes, up to some one.
            if lost.contains(&dir) || self.random().is_multiple_of(3) {
                lost.insert(dir);
            } else {
                apply(&mut self.durable_names, &change);
            }
        }
        self.names = self.durable_names.clone();
    }

    pub(super) fn used(&self) -> usize {
        self.names.values().map(|inode| self.inodes[*inode].cached.len()).sum()
    }

    pub(super) fn has_room(&self, more: usize) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if self.used() + more > capacity => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, change: &NameChange) {
    match change {
        NameChange::Link(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        NameChange::Unlink(path) => {
            names.remove(path);
        }
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

impl Inode {
    /// What is not to be written any more is as on the disk.
    pub(super) fn forget_clean(&mut self) {
        let Inode { durable, cached, dirty } = self;
        for (sector, cached) in cached.chunks_mut(SECTOR).enumerate() {
            if !dirty.is_empty() && dirty.contains(&sector) {
                continue;
            }
            let start = (sector * SECTOR).min(durable.len());
            let end = (start + cached.len()).min(durable.len());
            let (same, beyond) = cached.split_at_mut(end - start);
            same.copy_from_slice(&durable[start..end]);
            beyond.fill(0);
        }
    }

    pub(super) fn write_back(&mut self, sector: usize) {
        let start = sector * SECTOR;
        let end = (start + SECTOR).min(self.cached.len());
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[start..end].copy_from_slice(&self.cached[start..end]);
    }
}
