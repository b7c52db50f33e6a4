//! Moves what a box has out of the way, and back: it joins another site, and what it counted stays readable.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::identity::{CA_CERTIFICATE, CA_KEY, IDENTITY, NODE_CERTIFICATE, NODE_KEY};

/// What belongs to a box's membership in a site, the identity first: without it nothing of the rest is used.
const PARTS: [&str; 11] = [
    IDENTITY,
    NODE_KEY,
    NODE_CERTIFICATE,
    CA_KEY,
    CA_CERTIFICATE,
    "format",
    "log",
    "snapshots",
    "peers.seen",
    "unsent.batches",
    "unsent.tmp",
];

/// Moves the data of a box beside its directory, or into it where nothing can be made beside.
///
/// # Errors
/// What cannot be moved; what was moved is back.
pub(super) fn set_aside(dir: &Path) -> Result<PathBuf, String> {
    let to = free_directory(dir)
        .map_err(|error| format!("cannot set aside the data in {}: {error}", dir.display()))?;
    match move_parts(dir, &to) {
        Ok(()) => Ok(to),
        Err(error) => {
            bring_back(dir, &to);
            Err(format!("cannot move the data in {} to {}: {error}", dir.display(), to.display()))
        }
    }
}

/// Moves it back.
pub(super) fn bring_back(dir: &Path, from: &Path) {
    // The identity last.
    for part in PARTS.iter().rev() {
        let (from, to) = (from.join(part), dir.join(part));
        if from.exists()
            && let Err(error) = fs::rename(&from, &to)
        {
            tracing::error!("cannot move {} back to {}: {error}", from.display(), to.display());
        }
    }
    // Something is left in it, then.
    let _ = fs::remove_dir(from);
}

fn move_parts(dir: &Path, to: &Path) -> io::Result<()> {
    for part in PARTS {
        match fs::rename(dir.join(part), to.join(part)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved?,
        }
    }
    fs::File::open(to)?.sync_all()?;
    fs::File::open(dir)?.sync_all()
}

/// A new directory on the same file system: `DIR.aside-1`, or `DIR/aside-1` where that is a mount point, or beside it
/// belongs to somebody else.
fn free_directory(dir: &Path) -> io::Result<PathBuf> {
    let beside = make_free(|number| dir.with_added_extension(format!("aside-{number}")));
    match beside {
        Ok(made) if is_on_one_device(dir, &made) => Ok(made),
        other => {
            if let Ok(made) = other {
                fs::remove_dir(&made)?;
            }
            make_free(|number| dir.join(format!("aside-{number}")))
        }
    }
}

fn make_free(name: impl Fn(u32) -> PathBuf) -> io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let mut number = 1;
    loop {
        let path = name(number);
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 1000 => number += 1,
            Err(error) => return Err(error),
        }
    }
}

fn is_on_one_device(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).map(|data| data.dev()).ok();
    device(one).is_some() && device(one) == device(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_is_whole_there_and_comes_back_whole_and_the_configuration_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("data");
        fs::create_dir_all(dir.join("log")).unwrap();
        fs::create_dir(scratch.path().join("data.aside-1")).unwrap();
        for file in [IDENTITY, NODE_KEY, "log/1", "tallyd.toml"] {
            fs::write(dir.join(file), file).unwrap();
        }
        let aside = set_aside(&dir).unwrap();
        assert_eq!(aside, scratch.path().join("data.aside-2"));
        assert_eq!(fs::read_to_string(aside.join("log/1")).unwrap(), "log/1");
        let left: Vec<_> = fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["tallyd.toml"]);
        bring_back(&dir, &aside);
        assert_eq!(fs::read_to_string(dir.join("log/1")).unwrap(), "log/1");
        assert!(dir.join(IDENTITY).exists() && !aside.exists());
    }
}
