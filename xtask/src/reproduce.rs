//! Whether two builds of a commit are the same bytes: this checkout's and that of a clone in another folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cross::{self, Target};
use crate::{dist, run};

/// The clone's folder, with a path of another length. It goes when dropped.
struct Checkout(PathBuf);

impl Drop for Checkout {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Builds a target twice; says what both are.
pub(crate) fn test(target: &str) -> Result<String> {
    let target = Target::find(target)?;
    let changed = run::output(git(&run::root()).args(["status", "--porcelain", "--untracked-files=no"]))?;
    ensure!(
        changed.is_empty(),
        "there is nothing to compare with, as files differ from the commit:\n{changed}"
    );
    let ours = cross::build(&target)?;
    let clone = Checkout(std::env::temp_dir().join(format!("tallyd-built-again-{}", std::process::id())));
    dist::remove(&clone.0)?;
    run::output(Command::new("git").args(["clone", "--quiet", "--shared"]).arg(run::root()).arg(&clone.0))?;
    let commit = run::output(git(&run::root()).args(["rev-parse", "HEAD"]))?;
    run::output(git(&clone.0).args(["checkout", "--quiet", "--detach", &commit]))?;
    let again = cross::build_in(&target, &clone.0)?;
    compare(&ours, &again)?;
    let bytes = std::fs::metadata(&again).context("the program is gone")?.len();
    Ok(format!("{}, twice the same {bytes} bytes", target.triple))
}

fn git(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(folder);
    command
}

fn compare(ours: &Path, again: &Path) -> Result<()> {
    let read = |file: &Path| std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    let (ours, again) = (read(ours)?, read(again)?);
    if ours == again {
        return Ok(());
    }
    let first = ours.iter().zip(&again).position(|(one, other)| one != other);
    let near = |bytes: &[u8], at: usize| {
        let part = bytes.get(at.saturating_sub(40)..(at + 40).min(bytes.len())).unwrap_or_default();
        String::from_utf8_lossy(part).into_owned()
    };
    match first {
        Some(at) => {
            bail!("the builds differ from byte {at} on: {:?} and {:?}", near(&ours, at), near(&again, at))
        }
        None => bail!("one build has {} bytes, the other {}", ours.len(), again.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_that_differ_are_told_with_the_place() {
        let folder = std::env::temp_dir().join(format!("tallyd-compare-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, text: &str| {
            let file = folder.join(name);
            std::fs::write(&file, text).unwrap();
            file
        };
        let one = file("one", "built in /here/src");
        compare(&one, &file("same", "built in /here/src")).unwrap();
        let told = |other: &Path| compare(&one, other).unwrap_err().to_string();
        assert!(told(&file("other", "built in /away/src")).contains("from byte 10"));
        assert!(told(&file("longer", "built in /here/src2")).contains("has 18 bytes, the other 19"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
