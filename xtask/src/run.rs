//! Running other programs, and where this workspace is.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Cargo, the one that runs us, in the workspace.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    // What cargo tells us of ourselves would have build scripts of others run again.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// What a command printed (both streams), and whether it succeeded.
pub(crate) struct Outcome {
    pub(crate) ok: bool,
    pub(crate) text: String,
}

/// Runs a command to its end and keeps what it prints.
pub(crate) fn collect(command: &mut Command) -> Result<Outcome> {
    let output = command.stdin(Stdio::null()).output().with_context(|| cannot_run(command))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(Outcome { ok: output.status.success(), text })
}

/// Runs a command that must succeed and gives its standard output, trimmed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| cannot_run(command))?;
    if !output.status.success() {
        bail!("{} failed: {}", show(command), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a command in view: what it prints on standard error is shown and kept, line by line.
pub(crate) fn follow(command: &mut Command) -> Result<Outcome> {
    // One pipe for both streams keeps their lines in order.
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let second = writer.try_clone().context("cannot make a pipe")?;
    let started = command.stdin(Stdio::null()).stdout(writer).stderr(second).spawn();
    let mut child = started.with_context(|| cannot_run(command))?;
    // The command holds the pipe's write ends until it is told other ones.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut text = String::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.context("cannot read what a command prints")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        text.push_str(&line);
        text.push('\n');
    }
    let status = child.wait().context("cannot wait for a command")?;
    Ok(Outcome { ok: status.success(), text })
}

/// The command as one could type it.
pub(crate) fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn cannot_run(command: &Command) -> String {
    format!("cannot run {}", show(command))
}
