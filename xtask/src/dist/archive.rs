//! Archives: the program and what belongs to it in one folder, packed the same way each time.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::share::Share;
use super::{Built, Dist, VERSION, copy, make_folder};
use crate::run;

/// Packs a target's archive, and one of its symbols.
pub(super) fn make(dist: &Dist, built: &Built, share: &Share) -> Result<PathBuf> {
    let name = format!("tallyd-{VERSION}-{}-linux", built.target.name);
    let folder = dist.stage.join("archive").join(&name);
    make_folder(&folder)?;
    run::output(Command::new("cp").arg("-R").arg(share.folder.join(".")).arg(&folder))?;
    copy(&built.program, &folder.join("tallyd"))?;
    let parent = folder.parent().context("the archive's folder is below the stage")?;
    let archive = dist.out.join(format!("{name}.tar.gz"));
    dist.pack(parent, &name, &archive)?;

    let symbols = format!("{name}-debug");
    copy(&built.symbols, &parent.join(&symbols).join("tallyd.debug"))?;
    dist.pack(parent, &symbols, &dist.out.join(format!("{symbols}.tar.gz")))?;
    Ok(archive)
}

impl Dist {
    /// Packs and compresses what is in a folder under this name.
    fn pack(&self, folder: &Path, name: &str, archive: &Path) -> Result<()> {
        let tar = self.stage.join("archive.tar");
        self.tar(folder, name, &tar)?;
        self.compress(&tar, archive)
    }

    /// The same without compressing. Modes are made alike, whatever this user's umask is.
    pub(super) fn tar(&self, folder: &Path, name: &str, tar: &Path) -> Result<()> {
        self.run_tar(&["--create", "--owner=0", "--group=0", "--mode=u=rwX,go=rX"], folder, name, tar)
    }

    /// Adds an empty directory that only this user may enter.
    pub(super) fn tar_of_user(&self, folder: &Path, name: &str, user: &str, tar: &Path) -> Result<()> {
        let (owner, group) = (format!("--owner={user}"), format!("--group={user}"));
        self.run_tar(&["--append", "--no-recursion", &owner, &group, "--mode=0700"], folder, name, tar)
    }

    fn run_tar(&self, how: &[&str], folder: &Path, name: &str, tar: &Path) -> Result<()> {
        let mut command = Command::new("tar");
        command.args(how).args(["--format=ustar", "--sort=name", "--numeric-owner"]);
        command.arg(format!("--mtime=@{}", self.time));
        command.arg("--file").arg(tar).arg("--directory").arg(folder).arg(name).env("LC_ALL", "C");
        run::output(&mut command).map(|_| ())
    }

    pub(super) fn compress(&self, tar: &Path, to: &Path) -> Result<()> {
        let file = std::fs::File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
        let status =
            Command::new("gzip").args(["-9", "--no-name", "--stdout"]).arg(tar).stdout(file).status();
        let done = status.context("cannot run gzip")?.success();
        done.then_some(()).with_context(|| format!("gzip could not write {}", to.display()))
    }
}
