//! The demo's three boxes: built, provisioned, started, killed and asked how they are.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::broker::free_tcp_port;
use crate::{http, run};

/// The site's name.
pub(super) const NAME: &str = "demo";

const BOXES: [&str; 3] = ["box1", "box2", "box3"];
const READY_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Builds the daemon, in view; gives the program.
pub(super) fn build(release: bool) -> Result<PathBuf> {
    let mut command = run::cargo(&["build", "--locked", "--package", "tallyd", "--bin", "tallyd"]);
    if release {
        command.arg("--release");
    }
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the daemon does not build");
    }
    Ok(run::root().join("target").join(if release { "release" } else { "debug" }).join("tallyd"))
}

pub(super) struct Site {
    program: PathBuf,
    boxes: Vec<OneBox>,
}

struct OneBox {
    name: &'static str,
    folder: PathBuf,
    api: SocketAddr,
    statsd: SocketAddr,
    broker_port: u16,
    child: Option<Child>,
}

/// What a box says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct BoxView {
    pub(super) name: String,
    /// `None`: it does not answer.
    pub(super) status: Option<Value>,
}

impl Site {
    /// Provisions and starts the boxes.
    pub(super) fn start(program: &Path, folder: &Path, broker_port: u16, window: Duration) -> Result<Site> {
        let out = folder.join("boxes");
        let mut provision = Command::new(program);
        provision.args(["provision", "--site", NAME, "--window", &format!("{}s", window.as_secs())]);
        provision.arg("--out").arg(&out);
        for name in BOXES {
            provision.arg("--box").arg(format!("{name}=127.0.0.1:{}", free_udp_port()?));
        }
        run::output(&mut provision)?;
        let mut site = Site { program: program.to_owned(), boxes: Vec::new() };
        for (place, name) in BOXES.into_iter().enumerate() {
            let folder = out.join(name);
            let config = folder.join("tallyd.toml");
            let mut text = std::fs::read_to_string(&config)
                .with_context(|| format!("provisioning made no {}", config.display()))?;
            text.push_str(&polls(place));
            std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
            let api = SocketAddr::from(([127, 0, 0, 1], free_tcp_port()?));
            let statsd = SocketAddr::from(([127, 0, 0, 1], free_udp_port()?));
            site.boxes.push(OneBox { name, folder, api, statsd, broker_port, child: None });
        }
        for one in &mut site.boxes {
            one.start(&site.program)?;
        }
        Ok(site)
    }

    pub(super) fn api_addresses(&self) -> Vec<SocketAddr> {
        self.boxes.iter().map(|one| one.api).collect()
    }

    /// What each box says of itself.
    pub(super) fn views(&self) -> Vec<BoxView> {
        self.boxes.iter().map(|one| BoxView { name: one.name.to_owned(), status: one.status() }).collect()
    }

    /// The box that says that it leads.
    pub(super) fn leader(&self) -> Option<String> {
        let leads = |one: &&OneBox| one.status().is_some_and(|status| status["role"] == "leader");
        self.boxes.iter().find(leads).map(|one| one.name.to_owned())
    }

    /// Waits until every box can commit.
    pub(super) fn wait_ready(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            let ready = |one: &OneBox| one.status().is_some_and(|status| status["ready"] == true);
            if self.boxes.iter().all(ready) {
                return Ok(());
            }
            self.check()?;
            if began.elapsed() > READY_TIMEOUT {
                bail!(
                    "the boxes are not ready after {} s; see {}",
                    READY_TIMEOUT.as_secs(),
                    self.boxes[0].log().display()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// An error if a box ended that was not killed by us.
    pub(super) fn check(&mut self) -> Result<()> {
        for one in &mut self.boxes {
            if let Some(child) = &mut one.child
                && let Some(status) = child.try_wait()?
            {
                bail!("{} ended by itself ({status}); see {}", one.name, one.log().display());
            }
        }
        Ok(())
    }

    /// Kills a box with -9; gives the moment.
    pub(super) fn kill(&mut self, name: &str) -> Result<Instant> {
        let child = self.find(name)?.child.take();
        let mut child = child.with_context(|| format!("{name} does not run"))?;
        let at = Instant::now();
        child.kill().with_context(|| format!("cannot kill {name}"))?;
        child.wait()?;
        Ok(at)
    }

    /// Starts a killed box again.
    pub(super) fn revive(&mut self, name: &str) -> Result<()> {
        let program = self.program.clone();
        self.find(name)?.start(&program)
    }

    /// Waits until another box leads; gives its name and how long that took.
    pub(super) fn wait_leader_other_than(&self, name: &str, since: Instant) -> Result<(String, Duration)> {
        loop {
            if let Some(leader) = self.leader().filter(|leader| leader != name) {
                return Ok((leader, since.elapsed()));
            }
            if since.elapsed() > READY_TIMEOUT {
                bail!("no other box leads {} s after {name} was killed", READY_TIMEOUT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Stops all boxes in order.
    pub(super) fn stop(mut self) {
        for one in &self.boxes {
            if let Some(child) = &one.child {
                // The child is ours and not yet waited for, so the number is still its own.
                let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
            }
        }
        let began = Instant::now();
        while began.elapsed() < STOP_TIMEOUT && self.boxes.iter_mut().any(OneBox::runs) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn find(&mut self, name: &str) -> Result<&mut OneBox> {
        self.boxes.iter_mut().find(|one| one.name == name).with_context(|| format!("there is no box {name}"))
    }
}

impl OneBox {
    fn start(&mut self, program: &Path) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.log());
        let log: File = log.with_context(|| format!("cannot open {}", self.log().display()))?;
        let child = Command::new(program)
            .args(["run", "--data-dir"])
            .arg(&self.folder)
            .env("TALLYD_API_LISTEN", self.api.to_string())
            .env("TALLYD_INGEST_STATSD_LISTEN", self.statsd.to_string())
            .env("TALLYD_UPSTREAM_URL", format!("mqtt://127.0.0.1:{}", self.broker_port))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for us: the boxes are stopped after the proof.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        self.child = Some(child);
        Ok(())
    }

    fn status(&self) -> Option<Value> {
        self.child.as_ref()?;
        let answer = http::get(self.api, "/v1/status").ok()?;
        (answer.status == 200).then_some(answer.body)
    }

    fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }
}

impl Drop for OneBox {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a box polls of this machine: each its own series, since two boxes that poll one would count
/// everything twice.
fn polls(place: usize) -> String {
    let mut text = String::new();
    let mut poll = |series: &str, file: &str, pattern: &str, kind: &str| {
        let _ = write!(
            text,
            "\n[[ingest.poll]]\nseries = \"host/{series}\"\nfile = \"{file}\"\npattern = '{pattern}'\nkind = \"{kind}\"\nevery = \"1s\"\n"
        );
    };
    match place {
        0 => {
            poll("context-switches", "/proc/stat", r"^ctxt (\d+)", "counter");
            let thermal = "/sys/class/thermal/thermal_zone0/temp";
            if std::fs::read_to_string(thermal).is_ok() {
                poll("cpu-millidegrees", thermal, r"^(-?\d+)", "sample");
            } else {
                poll("load", "/proc/loadavg", r"^(\S+)", "sample");
            }
        }
        1 => poll("interrupts", "/proc/stat", r"^intr (\d+)", "counter"),
        _ => {
            let interface = busiest_interface().unwrap_or_else(|| "lo".to_owned());
            poll("network-bytes", "/proc/net/dev", &format!(r"^\s*{interface}:\s*(\d+)"), "counter");
        }
    }
    text
}

/// The network interface that received most; its name is taken only if a pattern can hold it plainly.
fn busiest_interface() -> Option<String> {
    let text = std::fs::read_to_string("/proc/net/dev").ok()?;
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let counted = lines.filter_map(|(name, rest)| {
        let received: u64 = rest.split_whitespace().next()?.parse().ok()?;
        Some((received, name.trim().to_owned()))
    });
    let plain = counted.filter(|(_, name)| name.chars().all(|c| c.is_ascii_alphanumeric()));
    plain.max().map(|(_, name)| name)
}

fn free_udp_port() -> Result<u16> {
    let socket = UdpSocket::bind("127.0.0.1:0").context("no loopback port is free")?;
    Ok(socket.local_addr()?.port())
}
