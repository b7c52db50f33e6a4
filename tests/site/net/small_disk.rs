//! A disk that can be filled or held up: a small ext4 in a file, or a small tmpfs where no loop device is to be had.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::lab::{run, try_run};

/// A mounted file system of its own. It goes with the test's mount namespace at the latest.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    /// Where it is mounted.
    pub(crate) root: PathBuf,
    /// What it is.
    pub(crate) kind: &'static str,
    /// Whether it can be held up: memory cannot.
    pub(crate) can_freeze: bool,
}

impl SmallDisk {
    /// Makes and mounts one, so many MiB large, in a directory that is there.
    pub(crate) fn mount(directory: &Path, name: &str, mebibytes: u64) -> SmallDisk {
        let root = directory.join(name);
        std::fs::create_dir(&root).unwrap();
        let image = directory.join(format!("{name}.img"));
        File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
        run("mkfs.ext4", [OsString::from("-q"), OsString::from("-m0"), image.clone().into()]);
        let looped = [OsString::from("-o"), OsString::from("loop"), image.into(), root.clone().into()];
        let (kind, can_freeze) = match try_run("mount", &looped, "") {
            Ok(_) => ("ext4 on a loop device", true),
            // Users who are not root have no loop devices; a full tmpfs says the same.
            Err(_) => {
                let size = OsString::from(format!("size={mebibytes}m"));
                let plain = ["-t", "tmpfs", "-o"].map(OsString::from);
                let rest = [size, OsString::from("tmpfs"), root.clone().into()];
                run("mount", plain.into_iter().chain(rest));
                ("tmpfs, since no loop device can be had here", false)
            }
        };
        SmallDisk { root, kind, can_freeze }
    }

    /// Moves a directory onto it; where that is now.
    pub(crate) fn take_in(&self, directory: &Path) -> PathBuf {
        let new = self.root.join("data");
        run("cp", [OsString::from("-a"), directory.into(), new.clone().into()]);
        std::fs::remove_dir_all(directory).unwrap();
        new
    }

    /// Takes all the space that is left, also what a box has let go of since the last time.
    pub(crate) fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler()).unwrap();
        // Ever smaller pieces, so that really nothing is left.
        for piece in [1 << 20, 4096, 1] {
            let zeros = vec![0; piece];
            loop {
                match file.write_all(&zeros) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{}: {error}", self.filler().display()),
                }
            }
        }
        file.sync_all().unwrap();
    }

    /// Gives it back.
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    /// Whoever writes to it waits until that is dropped.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        run("fsfreeze", [OsString::from("--freeze"), self.root.clone().into()]);
        Frozen(self)
    }

    fn filler(&self) -> PathBuf {
        self.root.join("filler")
    }
}

/// A disk that is held up.
#[derive(Debug)]
pub(crate) struct Frozen<'a>(&'a SmallDisk);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        // A failure shows in the test: nobody who writes there goes on.
        let _ = try_run("fsfreeze", &[OsString::from("--unfreeze"), self.0.root.clone().into()], "");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: its box may be on its way out. The namespace's end would do it too.
        let _ = try_run("umount", &[OsString::from("--lazy"), self.root.clone().into()], "");
    }
}
