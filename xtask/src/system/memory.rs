//! Whether the memory that the units allow is enough for what docs/operate.md says of it: a box with 10,000 series, in a control
//! group of its own with that limit. In a container of systemd-nspawn the limit of the unit would not be in force.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::container::until;
use crate::{dist, http, run, site};

pub(super) const NAME: &str = "the unit's MemoryMax holds with 10,000 series that change each second";

const SERIES: usize = 10_000;
/// Of that many windows of a second all series have changed.
const SECONDS: usize = 15;
/// Increments in a datagram.
const LINES: usize = 40;
/// Where the limit and its figures are: control groups of version 1, of version 2.
const VERSIONS: [Version; 2] = [
    Version {
        mounted: "/sys/fs/cgroup/memory",
        limit: "memory.limit_in_bytes",
        peak: "memory.max_usage_in_bytes",
        kills: "memory.oom_control",
    },
    Version { mounted: "/sys/fs/cgroup", limit: "memory.max", peak: "memory.peak", kills: "memory.events" },
];

#[derive(Clone, Copy)]
struct Version {
    mounted: &'static str,
    limit: &'static str,
    peak: &'static str,
    /// Has a line `oom_kill NUMBER`.
    kills: &'static str,
}

/// A control group with a limit; it goes when dropped, after what runs in it.
struct Limited {
    version: Version,
    folder: PathBuf,
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `packages`: the folder with the package.
pub(super) fn test(packages: &Path) -> Result<String> {
    let limit = limit()?;
    let group = Limited::make(limit)?;
    let folder = run::root().join("target/dist/memory");
    dist::remove(&folder)?;
    run::output(Command::new("dpkg-deb").arg("--extract").arg(packages.join("tallyd.deb")).arg(&folder))?;
    let program = folder.join("usr/bin/tallyd");
    let own = format!("box1=127.0.0.1:{}", site::free_udp_port()?);
    let mut provision = Command::new(&program);
    provision.args(["provision", "--site", "plant", "--window", "1s", "--box", &own, "--out"]);
    run::output(provision.arg(folder.join("site")))?;
    let (api, statsd) = (site::free_tcp_port()?, site::free_udp_port()?);
    let mut daemon = Daemon(group.start(&program, &folder.join("site/box1"), api, statsd)?);
    let to = ([127, 0, 0, 1], api).into();
    until("the box counts", || http::get_status(to, "/readyz").ok().filter(|status| *status == 200))?;
    let socket = UdpSocket::bind("127.0.0.1:0").context("no loopback port is free")?;
    for _ in 0..SECONDS {
        send_to_all(&socket, statsd)?;
        std::thread::sleep(Duration::from_secs(1));
    }
    let series = until("all series are there", || {
        let status = http::get(to, "/v1/status").ok()?.body;
        let series = status["series"].as_u64()?;
        (series >= SERIES as u64).then_some(series)
    });
    let (peak, kills) =
        (group.number(group.version.peak, None)?, group.number(group.version.kills, Some("oom_kill"))?);
    if let Some(status) = daemon.0.try_wait()? {
        anyhow::bail!("the daemon ended ({status}) within {limit} bytes; {kills} kills by the kernel");
    }
    let series = series?;
    ensure!(kills == 0, "the kernel killed {kills} times within {limit} bytes");
    let resident = resident(daemon.0.id())?;
    Ok(format!(
        "{series} series, {SECONDS} windows: resident {:.1} MB; the group used at most {:.1} of {:.1} MB, files in the \
         cache among them",
        resident as f64 / 1e6,
        peak as f64 / 1e6,
        limit as f64 / 1e6
    ))
}

/// As the unit has it.
fn limit() -> Result<u64> {
    let file = run::root().join("packaging/systemd/tallyd.service");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let found =
        text.lines().find_map(|line| line.strip_prefix("MemoryMax=")?.strip_suffix('M')?.parse().ok());
    let mebibytes: u64 = found.context("the unit has no MemoryMax in M")?;
    Ok(mebibytes << 20)
}

fn send_to_all(socket: &UdpSocket, port: u16) -> Result<()> {
    for begin in (0..SERIES).step_by(LINES) {
        let line = |number: usize| format!("line{}.press{number}.parts:1|c\n", number % 10);
        let text: String = (begin..SERIES.min(begin + LINES)).map(line).collect();
        socket.send_to(text.as_bytes(), ("127.0.0.1", port)).context("cannot send StatsD")?;
    }
    Ok(())
}

fn resident(process: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).context("the daemon is gone")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<u64> = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    kib.map(|kib| kib << 10).context("the kernel names no VmRSS")
}

impl Limited {
    fn make(limit: u64) -> Result<Limited> {
        // There is the root's own file of processes, whichever version is mounted.
        let version =
            VERSIONS.into_iter().find(|version| Path::new(version.mounted).join("cgroup.procs").is_file());
        let version = version.context("no control groups are mounted")?;
        let folder = Path::new(version.mounted).join(format!("tallyd-memory-{}", std::process::id()));
        std::fs::create_dir(&folder)
            .with_context(|| format!("cannot make {} (as root?)", folder.display()))?;
        let group = Limited { version, folder };
        dist::write(&group.folder.join(version.limit), &limit.to_string())?;
        Ok(group)
    }

    fn start(&self, program: &Path, data: &Path, api: u16, statsd: u16) -> Result<Child> {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.folder.display());
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, "sh"]).arg(program).args(["run", "--data-dir"]).arg(data);
        command.env("TALLYD_API_LISTEN", format!("127.0.0.1:{api}"));
        command.env("TALLYD_INGEST_STATSD_LISTEN", format!("127.0.0.1:{statsd}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().context("cannot start the daemon")
    }

    /// A figure of the group: the file's only one, or that behind a word.
    fn number(&self, file: &str, word: Option<&str>) -> Result<u64> {
        let path = self.folder.join(file);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let figure = match word {
            None => Some(text.trim()),
            Some(word) => text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' ')),
        };
        figure
            .and_then(|figure| figure.trim().parse().ok())
            .with_context(|| format!("{} is not understood: {text}", path.display()))
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = until("the group is empty", || std::fs::remove_dir(&self.folder).ok());
    }
}
