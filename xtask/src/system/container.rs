//! A machine of its own with systemd as process 1, of which nothing stays: systemd-nspawn over a Debian that debootstrap
//! makes once.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Pid;

use crate::{dist, run, targets};

const SUITE: &str = "bookworm";
/// What is in it beside the least that Debian needs.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,util-linux";
/// How long anything may take to become so.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A machine that runs; it is switched off when dropped.
pub(super) struct Container {
    child: Child,
    /// The number of its process 1 out here.
    leader: Option<Pid>,
}

/// The Debian that all machines begin with.
pub(super) fn debian() -> Result<PathBuf> {
    let root = targets::cache_folder()?.join(format!("debian-{SUITE}"));
    // Written last: a half-made one is made again.
    let done = root.join("etc/tallyd-test-root");
    if done.is_file() {
        return Ok(root);
    }
    println!("making a Debian for tests in {} (300 MB, once)", root.display());
    dist::remove(&root)?;
    let mut command = Command::new("debootstrap");
    command.args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE]).arg(&root);
    command.arg(targets::archive_uri()?);
    run::output(&mut command)?;
    std::fs::write(&done, "").with_context(|| format!("cannot write {}", done.display()))?;
    Ok(root)
}

impl Container {
    /// Switches a machine on. `files`: a folder that it sees as /files.
    pub(super) fn boot(root: &Path, files: &Path) -> Result<Container> {
        let mut command = Command::new("systemd-nspawn");
        command.arg("--quiet").arg(format!("--directory={}", root.display()));
        command.args(["--volatile=overlay", "--boot", "--register=no", "--keep-unit", "--private-network"]);
        // Its own filter would answer adjtimex with EPERM, whatever the unit says.
        command.args(["--system-call-filter=@clock", "--console=pipe"]);
        command.arg(format!("--machine=tallyd-{}", std::process::id()));
        command.arg(format!("--bind-ro={}:/files", files.display()));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.context("cannot run systemd-nspawn")?;
        let mut container = Container { child, leader: None };
        let leader = until("the machine has a process 1", || {
            let name = format!("/proc/{0}/task/{0}/children", container.child.id());
            let children = std::fs::read_to_string(name).unwrap_or_default();
            children.split_whitespace().next().and_then(|number| Pid::from_raw(number.parse().ok()?))
        })?;
        container.leader = Some(leader);
        until("the machine is up", || {
            container.try_sh("systemctl is-system-running").ok().filter(|it| it.ok)
        })?;
        Ok(container)
    }

    /// Runs a script of the shell in it.
    pub(super) fn try_sh(&self, script: &str) -> Result<run::Outcome> {
        let leader = self.leader.context("the machine is not up")?.as_raw_nonzero().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--all", "--target", &leader, "--", "/bin/sh", "-ec", script]);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive");
        run::collect(&mut command)
    }

    /// Runs a script that must succeed, and gives what it printed.
    pub(super) fn sh(&self, script: &str) -> Result<String> {
        let outcome = self.try_sh(script)?;
        if !outcome.ok {
            let journal =
                self.try_sh("journalctl -u tallyd --no-pager -n 30").map(|it| it.text).unwrap_or_default();
            bail!("`{script}` failed:\n{}\nthe journal:\n{journal}", outcome.text);
        }
        Ok(outcome.text.trim().to_owned())
    }

    /// Runs a script that must fail, and gives what it printed.
    pub(super) fn refused(&self, script: &str) -> Result<String> {
        let outcome = self.try_sh(script)?;
        if outcome.ok {
            bail!("`{script}` succeeded:\n{}", outcome.text);
        }
        Ok(outcome.text)
    }

    /// Waits until a script succeeds, and gives what it printed then.
    pub(super) fn until(&self, script: &str) -> Result<String> {
        let found = until(script, || self.try_sh(script).ok().filter(|outcome| outcome.ok));
        match found {
            Ok(outcome) => Ok(outcome.text.trim().to_owned()),
            // With the journal.
            Err(_) => self.sh(script),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // It is a machine of which nothing stays: no need to shut it down. With its process 1 all others go; it would
        // outlive systemd-nspawn.
        if let Some(leader) = self.leader {
            let _ = rustix::process::kill_process(leader, rustix::process::Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something is there.
pub(super) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("waited {PATIENCE:?} in vain: {what}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
