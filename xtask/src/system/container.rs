//! A machine of its own with systemd as process 1, of which nothing stays: systemd-nspawn over a Debian that debootstrap
//! makes once.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Pid;

use crate::{dist, run, targets};

const SUITE: &str = "bookworm";
/// What is in it beside the least that Debian needs.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,util-linux";
/// In a [`Network`].
const BRIDGE: &str = "br0";
/// As systemd-nspawn calls the end of the wire inside.
const WIRE: &str = "host0";
/// Where control groups may be mounted that systemd looks at: of version 1 beside an empty one of version 2, or version 2 alone.
const GROUPS: [&str; 3] = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
/// How long anything may take to become so.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A machine that runs; it is switched off when dropped.
pub(super) struct Container {
    child: Child,
    /// The number of its process 1 out here.
    leader: Option<Pid>,
    _group: Group,
}

/// A network of its own, with a bridge that machines are wired to. It goes when dropped, and must outlive them.
pub(super) struct Network {
    name: String,
}

/// How a machine is called and wired.
pub(super) struct Wire<'a> {
    pub(super) network: &'a Network,
    pub(super) name: &'a str,
    /// With the length of the network's prefix.
    pub(super) address: &'a str,
}

/// Control groups of a machine's own: two that are in one would each take it for theirs.
struct Group {
    folders: Vec<PathBuf>,
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
    /// Switches a machine on that no wire leads to. `files`: a folder that it sees as /files.
    pub(super) fn boot(root: &Path, files: &Path) -> Result<Container> {
        Container::start(root, files, None)
    }

    /// The same with a name and an address in a network.
    pub(super) fn boot_wired(root: &Path, files: &Path, wire: &Wire) -> Result<Container> {
        let it = Container::start(root, files, Some(wire))?;
        it.sh(&format!("hostname {0} && echo {0} > /etc/hostname", wire.name))?;
        // The Debian has no program for this, and its own network namespace is enough for ours.
        let leader = it.leader()?.as_raw_nonzero().to_string();
        for what in [&["address", "add", wire.address, "dev", WIRE][..], &["link", "set", WIRE, "up"]] {
            run::output(Command::new("nsenter").args(["--net", "--target", &leader, "--", "ip"]).args(what))?;
        }
        Ok(it)
    }

    fn start(root: &Path, files: &Path, wire: Option<&Wire>) -> Result<Container> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("tallyd-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let group = Group::make(&name)?;
        let mut command = group.enter();
        match wire {
            Some(wire) => {
                command.args(["nsenter", &format!("--net={}", wire.network.file()), "systemd-nspawn"])
            }
            None => command.arg("systemd-nspawn"),
        };
        command.arg("--quiet").arg(format!("--directory={}", root.display()));
        command.args(["--volatile=overlay", "--boot", "--register=no", "--keep-unit"]);
        match wire {
            Some(_) => command.arg(format!("--network-bridge={BRIDGE}")),
            None => command.arg("--private-network"),
        };
        // Its own filter would answer adjtimex with EPERM, whatever the unit says.
        command.args(["--system-call-filter=@clock", "--console=pipe", &format!("--machine={name}")]);
        command.arg(format!("--bind-ro={}:/files", files.display()));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.context("cannot run systemd-nspawn")?;
        let mut container = Container { child, leader: None, _group: group };
        let leader = until("the machine has a process 1", || {
            let name = format!("/proc/{0}/task/{0}/children", container.child.id());
            let children = std::fs::read_to_string(name).unwrap_or_default();
            let number = children.split_whitespace().next()?;
            // Not a helper of systemd-nspawn's on its way.
            let what = std::fs::read_to_string(format!("/proc/{number}/comm")).ok()?;
            (what.trim() == "systemd").then(|| Pid::from_raw(number.parse().ok()?))?
        })?;
        container.leader = Some(leader);
        until("the machine is up", || {
            container.try_sh("systemctl is-system-running").ok().filter(|it| it.ok)
        })?;
        Ok(container)
    }

    fn leader(&self) -> Result<Pid> {
        self.leader.context("the machine is not up")
    }

    /// Its network, as a file that a thread can enter.
    pub(super) fn network(&self) -> Result<std::fs::File> {
        let file = format!("/proc/{}/ns/net", self.leader()?.as_raw_nonzero());
        std::fs::File::open(&file).with_context(|| format!("cannot open {file}"))
    }

    /// Runs a script of the shell in it.
    pub(super) fn try_sh(&self, script: &str) -> Result<run::Outcome> {
        let leader = self.leader()?.as_raw_nonzero().to_string();
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

impl Network {
    pub(super) fn make() -> Result<Network> {
        let network = Network { name: format!("tallyd-system-{}", std::process::id()) };
        run::output(Command::new("ip").args(["netns", "add", &network.name]))?;
        for what in [&["add", BRIDGE, "type", "bridge"][..], &["set", BRIDGE, "up"], &["set", "lo", "up"]] {
            run::output(Command::new("ip").args(["-n", &network.name, "link"]).args(what))?;
        }
        Ok(network)
    }

    fn file(&self) -> String {
        format!("/run/netns/{}", self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = run::collect(Command::new("ip").args(["netns", "delete", &self.name]));
    }
}

impl Group {
    fn make(name: &str) -> Result<Group> {
        let mounted = GROUPS.iter().map(Path::new).filter(|folder| folder.join("cgroup.procs").is_file());
        let group = Group { folders: mounted.map(|folder| folder.join(name)).collect() };
        for folder in &group.folders {
            std::fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(group)
    }

    /// A command that runs, in these groups, what its further arguments say.
    fn enter(&self) -> Command {
        let enter = |folder: &PathBuf| format!("echo $$ > {}/cgroup.procs && ", folder.display());
        let script: String = self.folders.iter().map(enter).collect();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("{script} exec \"$@\""), "sh"]);
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in &self.folders {
            // What ran in it may take a moment to end.
            let _ = until("the group is empty", || remove_group(folder).then_some(()));
        }
    }
}

/// Removes a group and those inside; says whether it is gone.
fn remove_group(folder: &Path) -> bool {
    let inside = std::fs::read_dir(folder).into_iter().flatten().flatten();
    inside.filter(|entry| entry.path().is_dir()).for_each(|entry| {
        remove_group(&entry.path());
    });
    std::fs::remove_dir(folder).is_ok()
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
