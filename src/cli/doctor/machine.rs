//! The machine's files, below a root that tests set to a prepared directory.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The largest file of the system that is read, in bytes.
const BYTES_MAX: u64 = 1 << 20;

/// The machine, as its files show it.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    root: PathBuf,
}

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Where.
    pub(super) point: PathBuf,
    /// `ext4`, `tmpfs`.
    pub(super) kind: String,
    /// `/dev/mmcblk0p2`.
    pub(super) source: String,
    /// Whether it is mounted read-only.
    pub(super) read_only: bool,
}

impl Machine {
    pub(super) fn new(root: impl Into<PathBuf>) -> Machine {
        Machine { root: root.into() }
    }

    /// The place of a file of the system, which is given without the slash at its beginning.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// The text of a file, trimmed; `None` if it cannot be read.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        use std::io::Read;
        let mut bytes = Vec::new();
        std::fs::File::open(self.path(path)).ok()?.take(BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The number in a file.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.parse().ok()
    }

    /// The names in a directory, sorted.
    pub(super) fn list(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The name of a user.
    pub(super) fn user(&self, uid: u32) -> String {
        let users = self.read("etc/passwd").unwrap_or_default();
        let name = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        });
        name.unwrap_or_else(|| format!("user {uid}"))
    }

    /// The process that holds the lock of a data directory. The number in the file may be that of a process of before.
    pub(super) fn lock_holder(&self, dir: &Path) -> Option<u64> {
        let inode = format!(":{}", std::fs::metadata(dir.join("lock")).ok()?.ino());
        // `1: FLOCK  ADVISORY  WRITE 4711 fe:00:131 0 EOF`
        let locks = self.read("proc/locks")?;
        let mut locks = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let held = locks.find(|lock| {
            lock.get(1) == Some(&"FLOCK") && lock.get(5).is_some_and(|id| id.ends_with(&inode))
        })?;
        held.get(4)?.parse().ok()
    }

    /// The mounts, in the order in which they were made.
    pub(super) fn mounts(&self) -> Vec<Mount> {
        let table = self.read("proc/self/mountinfo").unwrap_or_default();
        table.lines().filter_map(mount).collect()
    }

    /// The mount that a directory is on.
    pub(super) fn mount_of(&self, dir: &Path) -> Option<Mount> {
        let on = self.mounts().into_iter().filter(|mount| dir.starts_with(&mount.point));
        // Of two at one place the later one hides the other.
        on.max_by_key(|mount| mount.point.components().count())
    }
}

/// A line such as `29 1 179:2 / /var rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw`.
fn mount(line: &str) -> Option<Mount> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(4);
    let point = unescaped(place.next()?);
    let options = place.next()?;
    let mut kind = kind.split(' ');
    let (name, source, inner) = (kind.next()?, kind.next()?, kind.next().unwrap_or_default());
    let read_only = [options, inner].iter().any(|options| options.split(',').any(|option| option == "ro"));
    Some(Mount { point: point.into(), kind: name.to_owned(), source: unescaped(source), read_only })
}

/// The kernel writes blanks as `\040`.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}
