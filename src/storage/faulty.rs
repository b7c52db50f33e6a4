//! A file system in memory that fails as real ones do: it forgets what was not synced, tears writes, returns errors,
//! runs full, and shows a false cache after a failed sync.

mod world;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use world::{Inode, NameChange, SECTOR, World};

use super::fs::{FileSystem, StoredFile};

/// What goes wrong, at a chosen operation that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power fails in the middle of the operation: nothing works until [`FaultyFileSystem::restart`].
    Crash,
    /// The operation fails once, perhaps half done.
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

impl FileSystem for FaultyFileSystem {
    type File = FaultyFile;

    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        let mut world = self.world();
        match world.fault()? {
            Some(Fault::Error(kind)) => Err(kind.into()),
            _ => world.check_power(),
        }
    }

    fn open(&self, path: &Path) -> io::Result<FaultyFile> {
        let mut world = self.world();
        world.check_read()?;
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
        world.check_read()?;
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
        world.check_read()?;
        Ok(world.inodes[self.inode].cached.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut world = self.world()?;
        world.check_read()?;
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
            _ => world.check_power(),
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
            Some(Fault::Crash) => world.check_power(),
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
        world.check_power()
    }

    fn forget_cache(&self) -> io::Result<()> {
        let mut world = self.world()?;
        world.check_read()?;
        world.inodes[self.inode].forget_clean();
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut world = self.world()?;
        world.check_read()?;
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
