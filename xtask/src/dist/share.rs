//! What is the same for all machines: manual pages, completions, documents, examples. The first two come from running the
//! daemon, so from a build for this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Built, Dist, copy, copy_all, make_folder, write};
use crate::run;

/// The folder with all of it, as the archives have it.
pub(super) struct Share {
    pub(super) folder: PathBuf,
}

/// A shell, and the name under which it looks for completions.
const COMPLETIONS: [(&str, &str); 3] = [("bash", "tallyd.bash"), ("zsh", "_tallyd"), ("fish", "tallyd.fish")];
/// The documents at the top.
const DOCUMENTS: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"];
/// The pages that users need.
const PAGES: [&str; 6] = ["operate", "mqtt", "statsd", "flash", "consensus", "glossary"];

pub(super) fn make(dist: &Dist, built: &[Built]) -> Result<Share> {
    let folder = dist.stage.join("share");
    let program = runs_here(built)?;
    let man = folder.join("man");
    make_folder(&man)?;
    run::output(Command::new(&program).args(["man", "--out"]).arg(&man))?;
    for (shell, name) in COMPLETIONS {
        let text = run::output(Command::new(&program).args(["completions", shell]))?;
        make_folder(&folder.join("completions"))?;
        write(&folder.join("completions").join(name), &format!("{text}\n"))?;
    }
    let root = run::root();
    for document in DOCUMENTS {
        copy(&root.join(document), &folder.join(document))?;
    }
    for page in PAGES {
        let name = format!("{page}.md");
        copy(&root.join("docs").join(&name), &folder.join("docs").join(&name))?;
    }
    let packaging = root.join("packaging");
    copy(&packaging.join("examples/tallyd.toml"), &folder.join("tallyd.toml"))?;
    for part in ["systemd/examples", "openrc", "procd"] {
        copy_all(&packaging.join(part), &folder.join(part))?;
    }
    for unit in ["tallyd.service", "tallyd-witness.service", "tallyd.sysusers"] {
        copy(&packaging.join("systemd").join(unit), &folder.join("systemd").join(unit))?;
    }
    Ok(Share { folder })
}

/// A program that this machine runs: one of those that were built, or a build of every day, which says the same.
fn runs_here(built: &[Built]) -> Result<PathBuf> {
    let answers = |program: &Path| {
        run::output(Command::new(program).arg("--version")).is_ok_and(|said| said.starts_with("tallyd "))
    };
    let here = std::env::consts::ARCH;
    let native = built.iter().filter(|one| one.target.triple.starts_with(here));
    if let Some(one) = native.map(|one| &one.program).find(|program| answers(program)) {
        return Ok(one.clone());
    }
    let mut command = run::cargo(&["build", "--locked", "--package", "tallyd", "--bin", "tallyd"]);
    command.arg("--message-format=json");
    let messages = run::output(&mut command)?;
    let executable = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "tallyd").then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    match executable {
        Some(program) if answers(&program) => Ok(program),
        Some(program) => bail!("{} does not run here", program.display()),
        None => Err(anyhow::anyhow!("{messages}")).context("cargo built no tallyd for this machine"),
    }
}
