//! Three boxes on this machine: built, provisioned, started, killed, paused and asked how they are.

use std::fs::{File, OpenOptions};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{http, run};

const BOXES: [&str; 3] = ["box1", "box2", "box3"];
const READY_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Builds the daemon, in view; gives the program.
pub(crate) fn build(release: bool) -> Result<PathBuf> {
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

/// How a site is provisioned and configured, beyond what is the same for all.
pub(crate) struct Plan<'a> {
    pub(crate) name: &'a str,
    pub(crate) window: Duration,
    /// The broker's port on loopback; without one, summaries wait in the outbox.
    pub(crate) broker_port: Option<u16>,
    /// More lines for the configuration of each box, by its place.
    pub(crate) more: fn(usize) -> String,
}

pub(crate) struct Site {
    boxes: Vec<OneBox>,
}

struct OneBox {
    name: &'static str,
    program: PathBuf,
    folder: PathBuf,
    api: SocketAddr,
    statsd: SocketAddr,
    broker_port: Option<u16>,
    child: Option<Child>,
    /// Stopped in its tracks: it would keep whoever asks it waiting.
    paused: bool,
}

/// What a box says of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct BoxView {
    pub(crate) name: String,
    /// `None`: it does not answer.
    pub(crate) status: Option<Value>,
}

impl Site {
    /// Provisions and starts the boxes.
    pub(crate) fn start(program: &Path, folder: &Path, plan: &Plan) -> Result<Site> {
        Site::start_each(&BOXES.map(|_| program.to_owned()), folder, plan)
    }

    /// The same with a program for each box; the first one provisions.
    pub(crate) fn start_each(programs: &[PathBuf; 3], folder: &Path, plan: &Plan) -> Result<Site> {
        let out = folder.join("boxes");
        let mut provision = Command::new(&programs[0]);
        provision.args(["provision", "--site", plan.name, "--window"]);
        provision.arg(format!("{}s", plan.window.as_secs()));
        provision.arg("--out").arg(&out);
        for name in BOXES {
            provision.arg("--box").arg(format!("{name}=127.0.0.1:{}", free_udp_port()?));
        }
        run::output(&mut provision)?;
        let mut site = Site { boxes: Vec::new() };
        for (place, name) in BOXES.into_iter().enumerate() {
            let folder = out.join(name);
            let config = folder.join("tallyd.toml");
            let mut text = std::fs::read_to_string(&config)
                .with_context(|| format!("provisioning made no {}", config.display()))?;
            text.push_str(&(plan.more)(place));
            std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
            let api = SocketAddr::from(([127, 0, 0, 1], free_tcp_port()?));
            let statsd = SocketAddr::from(([127, 0, 0, 1], free_udp_port()?));
            let broker_port = plan.broker_port;
            let program = programs[place].clone();
            let one = OneBox { name, program, folder, api, statsd, broker_port, child: None, paused: false };
            site.boxes.push(one);
        }
        for one in &mut site.boxes {
            one.start()?;
        }
        Ok(site)
    }

    /// Where a box takes StatsD.
    pub(crate) fn statsd_address(&mut self, name: &str) -> Result<SocketAddr> {
        Ok(self.find(name)?.statsd)
    }

    pub(crate) fn api_address(&mut self, name: &str) -> Result<SocketAddr> {
        Ok(self.find(name)?.api)
    }

    /// The admin socket of the first box, as `tallyd` takes it.
    pub(crate) fn admin_url(&self) -> String {
        let first = self.boxes.first().map(|one| one.folder.join("tallyd.sock"));
        format!("unix:{}", first.unwrap_or_default().display())
    }

    pub(crate) fn api_addresses(&self) -> Vec<SocketAddr> {
        self.boxes.iter().map(|one| one.api).collect()
    }

    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.boxes.iter().map(|one| one.name).collect()
    }

    /// The number of a box's process.
    pub(crate) fn process(&mut self, name: &str) -> Result<u32> {
        let child = self.find(name)?.child.as_ref();
        child.map(Child::id).with_context(|| format!("{name} does not run"))
    }

    pub(crate) fn data_dir(&mut self, name: &str) -> Result<PathBuf> {
        Ok(self.find(name)?.folder.clone())
    }

    /// What each box says of itself.
    pub(crate) fn views(&self) -> Vec<BoxView> {
        self.boxes.iter().map(|one| BoxView { name: one.name.to_owned(), status: one.status() }).collect()
    }

    /// The box that says that it leads.
    pub(crate) fn leader(&self) -> Option<String> {
        let leads = |one: &&OneBox| one.status().is_some_and(|status| status["role"] == "leader");
        self.boxes.iter().find(leads).map(|one| one.name.to_owned())
    }

    /// Waits until a box leads; gives its name.
    pub(crate) fn wait_leader(&self) -> Result<String> {
        let began = Instant::now();
        loop {
            if let Some(leader) = self.leader() {
                return Ok(leader);
            }
            if began.elapsed() > READY_TIMEOUT {
                bail!("no box is the leader after {} s", READY_TIMEOUT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until every box can commit.
    pub(crate) fn wait_ready(&mut self) -> Result<()> {
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
    pub(crate) fn check(&mut self) -> Result<()> {
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
    pub(crate) fn kill(&mut self, name: &str) -> Result<Instant> {
        let child = self.find(name)?.child.take();
        let mut child = child.with_context(|| format!("{name} does not run"))?;
        let at = Instant::now();
        child.kill().with_context(|| format!("cannot kill {name}"))?;
        child.wait()?;
        Ok(at)
    }

    /// Stops a box in order (SIGTERM), and waits for its end; how long that took.
    pub(crate) fn terminate(&mut self, name: &str) -> Result<Duration> {
        let child = self.find(name)?.child.take();
        let mut child = child.with_context(|| format!("{name} does not run"))?;
        let began = Instant::now();
        signal(&child, Signal::TERM)?;
        loop {
            if let Some(status) = child.try_wait()? {
                if !status.success() {
                    bail!("{name} did not stop cleanly ({status})");
                }
                return Ok(began.elapsed());
            }
            if began.elapsed() > STOP_TIMEOUT {
                // It is of no use any more, and must not be left behind.
                child.kill()?;
                child.wait()?;
                bail!("{name} still runs {STOP_TIMEOUT:?} after SIGTERM");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Stops a box in its tracks: it answers nothing and nobody is refused, as if its links were cut.
    /// Gives the moment.
    pub(crate) fn pause(&mut self, name: &str) -> Result<Instant> {
        let one = self.find(name)?;
        let child = one.child.as_ref().with_context(|| format!("{name} does not run"))?;
        let at = Instant::now();
        signal(child, Signal::STOP)?;
        one.paused = true;
        Ok(at)
    }

    /// Lets a paused box go on.
    pub(crate) fn resume(&mut self, name: &str) -> Result<()> {
        let one = self.find(name)?;
        let child = one.child.as_ref().with_context(|| format!("{name} does not run"))?;
        signal(child, Signal::CONT)?;
        one.paused = false;
        Ok(())
    }

    /// Starts a killed box again.
    pub(crate) fn revive(&mut self, name: &str) -> Result<()> {
        self.find(name)?.start()
    }

    /// Waits until another box leads; gives its name and how long that took.
    pub(crate) fn wait_leader_other_than(&self, name: &str, since: Instant) -> Result<(String, Duration)> {
        loop {
            if let Some(leader) = self.leader().filter(|leader| leader != name) {
                return Ok((leader, since.elapsed()));
            }
            if since.elapsed() > READY_TIMEOUT {
                bail!("no other box is the leader {} s after {name} was killed", READY_TIMEOUT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Stops all boxes in order.
    pub(crate) fn stop(mut self) {
        for one in &self.boxes {
            if let Some(child) = &one.child {
                // It may have ended by itself.
                let _ = signal(child, Signal::TERM);
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
    fn start(&mut self) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.log());
        let log: File = log.with_context(|| format!("cannot open {}", self.log().display()))?;
        let mut command = Command::new(&self.program);
        if let Some(port) = self.broker_port {
            command.env("TALLYD_UPSTREAM_URL", format!("mqtt://127.0.0.1:{port}"));
        }
        let child = command
            .args(["run", "--data-dir"])
            .arg(&self.folder)
            .env("TALLYD_API_LISTEN", self.api.to_string())
            // Its admin socket is in its folder: the user's own belongs to a box of the user's.
            .env_remove("XDG_RUNTIME_DIR")
            // For 1,024 clients of a benchmark, and those who ask for the status beside them.
            .env("TALLYD_API_CONNECTIONS_MAX", "2048")
            .env("TALLYD_INGEST_STATSD_LISTEN", self.statsd.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for us, who stop the boxes.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        self.child = Some(child);
        Ok(())
    }

    fn status(&self) -> Option<Value> {
        if self.child.is_none() || self.paused {
            return None;
        }
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

fn signal(child: &Child, which: Signal) -> Result<()> {
    let id =
        i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process id is greater than 0")?;
    kill_process(id, which).with_context(|| format!("cannot send {which:?} to process {}", child.id()))
}

/// A port that nobody listened on a moment ago.
pub(crate) fn free_tcp_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no loopback port is free")?;
    Ok(listener.local_addr()?.port())
}

pub(crate) fn free_udp_port() -> Result<u16> {
    let socket = UdpSocket::bind("127.0.0.1:0").context("no loopback port is free")?;
    Ok(socket.local_addr()?.port())
}
