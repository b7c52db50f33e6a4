//! A child that goes on until its time is up, or until this program is told to end.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::Clock;

/// How often it is looked whether somebody wants it to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What became of a child.
pub(super) struct Ended {
    pub(super) ok: bool,
    /// What it printed, both streams.
    pub(super) text: String,
}

/// Runs a command to its end; each line that it prints is shown to `tell`. It is in a group of its own, so that
/// Ctrl-C reaches it only as `stop`.
pub(super) fn run(
    command: &mut Command,
    clock: &Clock,
    stop: impl Fn(&Child) + Sync,
    mut tell: impl FnMut(&str),
) -> Result<Ended> {
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let second = writer.try_clone().context("cannot make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer).stderr(second).process_group(0);
    let what = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("cannot run {what}"))?;
    // The command holds the pipe's write ends until it is told other ones.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let text = std::thread::scope(|scope| -> Result<String> {
        let (done, ended) = std::sync::mpsc::channel::<()>();
        let (child, stop) = (&child, &stop);
        scope.spawn(move || {
            while ended.recv_timeout(LOOK_EVERY) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                if clock.interrupted.load(Ordering::Relaxed) {
                    stop(child);
                    return;
                }
            }
        });
        let mut text = String::new();
        for line in BufReader::new(reader).split(b'\n') {
            let line = line.context("cannot read what a program prints")?;
            let line = String::from_utf8_lossy(&line);
            tell(&line);
            text.push_str(&line);
            text.push('\n');
        }
        drop(done);
        Ok(text)
    })?;
    let status = child.wait().context("cannot wait for a program")?;
    Ok(Ended { ok: status.success(), text })
}

/// As Ctrl-C would.
pub(super) fn interrupt(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::INT);
    }
}
