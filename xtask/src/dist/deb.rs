//! Packages for Debian and its relatives, by cargo-deb; what is in them is in `Cargo.toml`.

use std::path::PathBuf;

use anyhow::Result;

use super::share::Share;
use super::{Built, Dist, VERSION, copy, copy_all, remove, write};
use crate::run;

/// The release of cargo-deb that this was tried with.
pub(super) const CARGO_DEB: &str = "3.8.0";

/// Makes the package of a target.
pub(super) fn make(dist: &Dist, built: &Built, share: &Share, debian: &str) -> Result<PathBuf> {
    stage(dist, built, share)?;
    let package = dist.out.join(format!("tallyd_{VERSION}-1_{debian}.deb"));
    let mut command =
        run::cargo(&["deb", "--no-build", "--no-strip", "--quiet", "--locked", "--package", "tallyd"]);
    command.args(["--target", built.target.triple]);
    if !built.target.is_static {
        command.args(["--variant", "shared"]);
    }
    // With its own folder it would remove other packages from there.
    command.arg("--output").arg(&package);
    run::output(dist.at_its_time(&mut command))?;
    Ok(package)
}

/// Lays out what `Cargo.toml` names.
fn stage(dist: &Dist, built: &Built, share: &Share) -> Result<()> {
    let folder = run::root().join("target/dist/deb");
    remove(&folder)?;
    copy(&built.program, &folder.join("tallyd"))?;
    copy(&share.folder.join("tallyd.toml"), &folder.join("tallyd.toml"))?;
    for part in ["man", "completions", "docs"] {
        copy_all(&share.folder.join(part), &folder.join(part))?;
    }
    copy(&share.folder.join("README.md"), &folder.join("docs/README.md"))?;
    copy(&share.folder.join("CHANGELOG.md"), &folder.join("CHANGELOG.md"))?;
    let units = share.folder.join("systemd");
    // The names by which cargo-deb, like debhelper, finds the units of a package.
    copy(&units.join("tallyd.service"), &folder.join("units/tallyd.service"))?;
    copy(&units.join("tallyd-witness.service"), &folder.join("units/tallyd.tallyd-witness.service"))?;
    write(&folder.join("changelog"), &changelog(dist.time)?)
}

/// Debian's own changelog: that there is a release. What is new is in CHANGELOG.md.
fn changelog(time: u64) -> Result<String> {
    let mut command = std::process::Command::new("date");
    let date = run::output(command.args(["--utc", "-R", "-d", &format!("@{time}")]).env("LC_ALL", "C"))?;
    Ok(format!(
        "tallyd ({VERSION}-1) unstable; urgency=medium\n\n  * Release {VERSION}: see CHANGELOG.md.\n\n -- The Tallyd \
         developers <packages@tallyd.example>  {date}\n"
    ))
}
