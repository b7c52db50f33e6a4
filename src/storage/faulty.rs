//! A file system in memory that does to files what real ones do at bad moments: forgets what was
//! not synced, tears writes, fails, runs full, and lies in its cache after a failed sync.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::fs::{FileSystem, StoredFile};

/// What a disk writes as a whole.
const SECTOR: usize = 512;

/// What goes wrong, at a chosen operation that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power fails in the middle of it: nothing works until [`FaultyFileSystem::restart`].
    Crash,
    /// It fails once, perhaps half done.
    Error(io::ErrorKind),
    /// A sync says that it succeeded, and nothing is durable by it; other operations succeed.
    Lie,
}

#[derive(Clone, Debug)]
pub struct FaultyFileSystem(Arc<FaultyState>);

#[derive(Debug, Default)]
struct FaultyState {
    world: Mutex<World>,
    /// A sync that hung may go on.
    released: Condvar,
}

#[derive(Debug)]
pub struct FaultyFile {
    shared: Arc<FaultyState>,
    inode: usize,
    /// Handles of a process that is gone are dead.
    incarnation: u64,
    holds_lock: AtomicBool,
}

#[derive(Clone, Debug, Default)]
struct World {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Changes of names that no sync of the directory has covered, in order.
    pending: Vec<NameChange>,
    locks: BTreeSet<usize>,
    capacity: Option<usize>,
    fault: Option<(u32, Fault)>,
    read_fault: Option<(u32, io::ErrorKind)>,
    /// Every operation that changes something fails.
    broken: Option<io::ErrorKind>,
    /// Syncs of files do not return.
    hung: bool,
    /// Syncs of files take so long.
    sync_takes: Duration,
    /// How often a fault happened.
    faults: u32,
    down: bool,
    incarnation: u64,
    random: u64,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    cached: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum NameChange {
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

impl FaultyFileSystem {
    /// An empty one; the seed decides what crashes leave.
    pub fn new(seed: u64) -> FaultyFileSystem {
        let world = Mutex::new(World { random: seed, ..World::default() });
        FaultyFileSystem(Arc::new(FaultyState { world, released: Condvar::new() }))
    }

    /// Another disk with the same on it, for another process.
    pub fn copy(&self) -> FaultyFileSystem {
        let mut world = self.world().clone();
        world.incarnation += 1;
        world.locks.clear();
        FaultyFileSystem(Arc::new(FaultyState { world: Mutex::new(world), released: Condvar::new() }))
    }

    /// All files.
    pub fn files(&self) -> Vec<PathBuf> {
        self.world().names.keys().cloned().collect()
    }

    /// The operation after `operations` further ones that change something goes wrong.
    pub fn fail_after(&self, operations: u32, fault: Fault) {
        self.world().fault = Some((operations, fault));
    }

    /// The operation after `operations` further ones that only look fails once.
    pub fn fail_read_after(&self, operations: u32, kind: io::ErrorKind) {
        self.world().read_fault = Some((operations, kind));
    }

    /// From now on everything that changes something fails so; `None`: no more.
    pub fn break_down(&self, kind: Option<io::ErrorKind>) {
        self.world().broken = kind;
    }

    /// From now on syncs of files do not return, until told so.
    pub fn hang(&self, hung: bool) {
        self.world().hung = hung;
        self.0.released.notify_all();
    }

    /// From now on syncs of files take so long.
    pub fn slow_down(&self, sync_takes: Duration) {
        self.world().sync_takes = sync_takes;
    }

    /// Whether the power has failed in the middle of an operation.
    pub fn is_down(&self) -> bool {
        self.world().down
    }

    /// What was to go wrong later does not.
    pub fn disarm(&self) {
        self.world().fault = None;
    }

    /// How often a fault has happened.
    pub fn faults(&self) -> u32 {
        self.world().faults
    }

    /// Only so many more bytes fit.
    pub fn fill_up(&self, room: usize) {
        let mut world = self.world();
        let used = world.used();
        world.capacity = Some(used + room);
    }

    /// How many bytes all files may have together.
    pub fn limit(&self, capacity: Option<usize>) {
        self.world().capacity = capacity;
    }

    /// The process is gone; with `power_lost`, so is what was not synced (or some of it).
    pub fn restart(&self, power_lost: bool) {
        let mut world = self.world();
        if power_lost {
            world.lose_power();
        }
        world.down = false;
        world.fault = None;
        world.read_fault = None;
        world.incarnation += 1;
        world.locks.clear();
    }

    /// What all files have together.
    pub fn used(&self) -> usize {
        self.world().used()
    }

    /// What a file holds.
    pub fn contents(&self, path: &Path) -> Vec<u8> {
        let world = self.world();
        world.inodes[world.names[path]].cached.clone()
    }

    /// What waits to be written is lost, as if the disk had thrown it away.
    pub fn forget(&self, path: &Path) {
        let mut world = self.world();
        let inode = world.names[path];
        let inode = &mut world.inodes[inode];
        inode.dirty.clear();
        inode.cached = inode.durable.clone();
    }

    /// Changes a file behind everybody's back, durably.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut world = self.world();
        let inode = world.names[path];
        let inode = &mut world.inodes[inode];
        change(&mut inode.cached);
        inode.durable = inode.cached.clone();
        inode.dirty.clear();
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, inode: usize, incarnation: u64) -> FaultyFile {
        FaultyFile { shared: Arc::clone(&self.0), inode, incarnation, holds_lock: AtomicBool::new(false) }
    }
}

impl World {
    fn alive(&self) -> io::Result<()> {
        if self.down { Err(io::Error::other("the power is gone")) } else { Ok(()) }
    }

    /// Called by every operation that changes something; the fault that happens in it.
    fn fault(&mut self) -> io::Result<Option<Fault>> {
        self.alive()?;
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
    fn look(&mut self) -> io::Result<()> {
        self.alive()?;
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

    fn random(&mut self) -> u64 {
        crate::random::split_mix(&mut self.random)
    }

    fn change_name(&mut self, change: NameChange) -> io::Result<()> {
        let fault = self.fault()?;
        if let Some(Fault::Error(kind)) = fault {
            return Err(kind.into());
        }
        apply(&mut self.names, &change);
        self.pending.push(change);
        self.alive()
    }

    fn sync_names(&mut self, dir: &Path) {
        for change in std::mem::take(&mut self.pending) {
            if change.dir() == Some(dir) {
                apply(&mut self.durable_names, &change);
            } else {
                self.pending.push(change);
            }
        }
    }

    /// Some of the dirty sectors reach the disk: none, all, or any.
    fn write_back_some(&mut self, inode: usize) {
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

    fn lose_power(&mut self) {
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

    fn used(&self) -> usize {
        self.names.values().map(|inode| self.inodes[*inode].cached.len()).sum()
    }

    fn has_room(&self, more: usize) -> io::Result<()> {
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
    fn forget_clean(&mut self) {
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

    fn write_back(&mut self, sector: usize) {
        let start = sector * SECTOR;
        let end = (start + SECTOR).min(self.cached.len());
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[start..end].copy_from_slice(&self.cached[start..end]);
    }
}

impl FileSystem for FaultyFileSystem {
    type File = FaultyFile;

    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        let mut world = self.world();
        match world.fault()? {
            Some(Fault::Error(kind)) => Err(kind.into()),
            _ => world.alive(),
        }
    }

    fn open(&self, path: &Path) -> io::Result<FaultyFile> {
        let mut world = self.world();
        world.look()?;
        let inode = *world.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(inode, world.incarnation))
    }

    fn create(&self, path: &Path) -> io::Result<FaultyFile> {
        let mut world = self.world();
        let inode = world.inodes.len();
        world.inodes.push(Inode::default());
        world.change_name(NameChange::Link(path.to_path_buf(), inode))?;
        Ok(self.file(inode, world.incarnation))
    }

    fn open_or_create(&self, path: &Path) -> io::Result<FaultyFile> {
        self.open(path).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => self.create(path),
            _ => Err(error),
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.world().change_name(NameChange::Rename(from.to_path_buf(), to.to_path_buf()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.world().change_name(NameChange::Unlink(path.to_path_buf()))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        if let Some(fault) = world.fault()? {
            return Err(match fault {
                Fault::Crash => io::Error::other("the power is gone"),
                Fault::Error(kind) => kind.into(),
                Fault::Lie => return Ok(()),
            });
        }
        world.sync_names(path);
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut world = self.world();
        world.look()?;
        let inside = world.names.keys().filter(|name| name.parent() == Some(path));
        Ok(inside.filter_map(|name| Some(name.file_name()?.to_str()?.to_string())).collect())
    }

    fn free(&self, _path: &Path) -> io::Result<u64> {
        let world = self.world();
        let used = world.used();
        Ok(world.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(used) as u64))
    }
}

impl FaultyFile {
    fn world(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.shared.world.lock().unwrap_or_else(PoisonError::into_inner);
        if world.incarnation == self.incarnation {
            Ok(world)
        } else {
            Err(io::Error::other("a handle of an earlier incarnation"))
        }
    }
}

impl StoredFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        let mut world = self.world()?;
        world.look()?;
        Ok(world.inodes[self.inode].cached.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut world = self.world()?;
        world.look()?;
        let bytes = &world.inodes[self.inode].cached;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let length = buffer.len().min(bytes.len() - from);
        buffer[..length].copy_from_slice(&bytes[from..from + length]);
        Ok(length)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.world()?;
        let fault = world.fault()?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let length = match fault {
            None | Some(Fault::Lie) => bytes.len(),
            Some(Fault::Crash | Fault::Error(_)) => {
                usize::try_from(world.random()).unwrap_or(0) % (bytes.len() + 1)
            }
        };
        let end = from + length;
        let size = world.inodes[self.inode].cached.len();
        world.has_room(end.saturating_sub(size))?;
        let inode = &mut world.inodes[self.inode];
        inode.cached.resize(size.max(end), 0);
        inode.cached[from..end].copy_from_slice(&bytes[..length]);
        inode.dirty.extend(from / SECTOR..end.div_ceil(SECTOR));
        match fault {
            Some(Fault::Error(kind)) => Err(kind.into()),
            _ => world.alive(),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let takes = self.world()?.sync_takes;
        if takes > Duration::ZERO {
            thread::sleep(takes);
        }
        let mut world = self.world()?;
        while world.hung {
            world = self.shared.released.wait(world).unwrap_or_else(PoisonError::into_inner);
        }
        match world.fault()? {
            Some(Fault::Crash) => world.alive(),
            Some(Fault::Lie) => Ok(()),
            Some(Fault::Error(kind)) => {
                // The cache keeps what it has and calls it clean; the disk has some of it.
                world.write_back_some(self.inode);
                Err(kind.into())
            }
            None => {
                let inode = &mut world.inodes[self.inode];
                inode.durable.resize(inode.cached.len(), 0);
                for sector in std::mem::take(&mut inode.dirty) {
                    inode.write_back(sector);
                }
                Ok(())
            }
        }
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let room = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.world()?.has_room(room)?;
        self.set_size(bytes)
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        let mut world = self.world()?;
        if let Some(Fault::Error(kind)) = world.fault()? {
            return Err(kind.into());
        }
        let inode = &mut world.inodes[self.inode];
        inode.cached.resize(usize::try_from(bytes).unwrap_or(usize::MAX), 0);
        world.alive()
    }

    fn forget_cache(&self) -> io::Result<()> {
        let mut world = self.world()?;
        world.look()?;
        world.inodes[self.inode].forget_clean();
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut world = self.world()?;
        world.look()?;
        let free = world.locks.insert(self.inode);
        self.holds_lock.store(free, Ordering::Relaxed);
        Ok(free)
    }
}

impl Drop for FaultyFile {
    fn drop(&mut self) {
        let mut world = self.shared.world.lock().unwrap_or_else(PoisonError::into_inner);
        if world.incarnation == self.incarnation && self.holds_lock.load(Ordering::Relaxed) {
            world.locks.remove(&self.inode);
        }
    }
}
