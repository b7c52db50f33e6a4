//! `cargo xtask dist`: what people install. Static archives, packages for Debian, a container image, checksums.
//!
//! Everything follows from the commit: times are the commit's, owners are root, orders are sorted, and paths are mapped
//! ([`cross`]). Two runs make the same bytes.

mod archive;
mod deb;
mod image;
mod share;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cross::{self, TARGETS, Target};
use crate::run;
use crate::tools::{self, Tool};

/// The release that is made.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this machine (repeat it for more), as for `cargo xtask cross`; default: all.
    /// x86_64-unknown-linux-gnu is built by cargo alone, to try things out.
    #[arg(long)]
    target: Vec<String>,
    /// Install missing tools without asking.
    #[arg(long)]
    yes: bool,
}

/// A run: where things go, and of which time they are.
struct Dist {
    /// What is handed out.
    out: PathBuf,
    /// What it is made of.
    stage: PathBuf,
    /// Unix seconds of all files.
    time: u64,
}

/// A target's program.
struct Built {
    target: Target,
    /// Without symbols.
    program: PathBuf,
    /// They alone.
    symbols: PathBuf,
}

/// The package for this machine, built by cargo alone.
pub(crate) fn native_package() -> Result<PathBuf> {
    dist(&Arguments { target: vec![cross::NATIVE.triple.to_owned()], yes: true })?;
    let out = run::root().join("target/dist/out");
    let entries = std::fs::read_dir(&out).with_context(|| format!("cannot read {}", out.display()))?;
    let packages = entries.flatten().map(|entry| entry.path());
    let found = packages.into_iter().find(|file| file.extension().is_some_and(|end| end == "deb"));
    found.with_context(|| format!("there is no package in {}", out.display()))
}

pub(crate) fn dist(arguments: &Arguments) -> Result<()> {
    let targets = match arguments.target.is_empty() {
        true => TARGETS.to_vec(),
        false => arguments.target.iter().map(|name| Target::find(name)).collect::<Result<_>>()?,
    };
    tools::ensure(&[Tool::Elfutils], tools::Consent::of(arguments.yes))?;
    tools::ensure_cargo_tool_of("cargo-deb", deb::CARGO_DEB)?;
    let dist = Dist::new()?;
    let mut lines = Vec::new();
    let mut built = Vec::new();
    for target in targets {
        built.push(dist.build(target)?);
    }
    let share = share::make(&dist, &built)?;
    for one in &built {
        let archive = archive::make(&dist, one, &share)?;
        let package = one.target.debian.map(|debian| deb::make(&dist, one, &share, debian)).transpose()?;
        lines.push(line(one, &archive, package.as_deref())?);
    }
    image::make(&dist, &built)?;
    let sums = dist.checksums()?;
    println!("{:34} {:>12} {:>12} {:>12}", "target", "program", ".tar.gz", ".deb");
    lines.iter().for_each(|line| println!("{line}"));
    println!("{sums}in {}", dist.out.display());
    Ok(())
}

fn line(built: &Built, archive: &Path, package: Option<&Path>) -> Result<String> {
    let package = package.map(size).transpose()?.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
    let triple = built.target.triple;
    Ok(format!("{triple:34} {:>12} {:>12} {package:>12}", size(&built.program)?, size(archive)?))
}

impl Dist {
    fn new() -> Result<Dist> {
        let folder = run::root().join("target/dist");
        let dist = Dist { out: folder.join("out"), stage: folder.join("stage"), time: commit_time()? };
        for folder in [&dist.out, &dist.stage] {
            remove(folder)?;
            make_folder(folder)?;
        }
        Ok(dist)
    }

    fn build(&self, target: Target) -> Result<Built> {
        let whole = cross::build(&target)?;
        let folder = self.stage.join(target.name);
        make_folder(&folder)?;
        let built = Built { target, program: folder.join("tallyd"), symbols: folder.join("tallyd.debug") };
        // One that understands the programs of all machines.
        let mut strip = Command::new("eu-strip");
        strip.arg("-f").arg(&built.symbols).arg("-o").arg(&built.program).arg(&whole);
        run::output(&mut strip)?;
        run::output(Command::new("chmod").args(["755"]).arg(&built.program))?;
        Ok(built)
    }

    /// Has a program that packs use the commit's time.
    fn at_its_time<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("SOURCE_DATE_EPOCH", self.time.to_string())
    }

    fn checksums(&self) -> Result<String> {
        let mut names: Vec<String> = Vec::new();
        for entry in std::fs::read_dir(&self.out).context("nothing was made")? {
            let entry = entry.context("nothing was made")?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        let sums = run::output(Command::new("sha256sum").args(&names).current_dir(&self.out))? + "\n";
        write(&self.out.join("SHA256SUMS"), &sums)?;
        Ok(sums)
    }
}

/// When the commit was made; without one: when nothing is newer.
fn commit_time() -> Result<u64> {
    let mut git = Command::new("git");
    let time = run::output(git.args(["log", "-1", "--format=%ct"]).current_dir(run::root()));
    match (std::env::var("SOURCE_DATE_EPOCH"), time) {
        (Ok(time), _) | (_, Ok(time)) => {
            time.trim().parse().with_context(|| format!("{time:?} is not a time in Unix seconds"))
        }
        (Err(_), Err(error)) => {
            bail!("set SOURCE_DATE_EPOCH: there is no commit to take the time of ({error:#})")
        }
    }
}

fn size(file: &Path) -> Result<u64> {
    Ok(std::fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len())
}

fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

pub(crate) fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

pub(crate) fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        make_folder(folder)?;
    }
    std::fs::copy(from, to)
        .map(|_| ())
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Copies all files of a folder, which has no folders.
fn copy_all(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}
