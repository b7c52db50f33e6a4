//! `cargo xtask demo`: a site of three boxes before one's eyes, its leader killed, and the proof at the end.

mod broker;
mod client;
mod polls;
mod proof;
mod screen;
mod subscriber;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::run;
use crate::site::{self, Plan, Site};
use crate::tools::{self, Tool};
use broker::Broker;
use client::Clients;
use screen::Screen;
use subscriber::Subscriber;

/// The site's name.
const NAME: &str = "demo";

/// Windows of the demo's site: short, so that there is something to see.
const WINDOW: Duration = Duration::from_secs(5);

/// With `--seconds`: how much of them the end takes (the last windows close, the last summaries arrive).
const ENDING: Duration = Duration::from_secs(10);

/// How long after its death the killed box is started again.
const DEAD_FOR: Duration = Duration::from_secs(8);

/// Without `--seconds`: when the leader is killed.
const KILL_AFTER: Duration = Duration::from_secs(25);

const REFRESH: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// End after about this many seconds; exit status 0 only if acknowledged, held and received counts agree.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(30..))]
    seconds: Option<u64>,
    /// Install missing tools without asking.
    #[arg(long)]
    yes: bool,
    /// Build and run with all optimisations (takes longer to build).
    #[arg(long)]
    release: bool,
    /// Save a picture of the page (PNG) before the end; needs Chromium.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

pub(crate) fn demo(arguments: &Arguments) -> Result<()> {
    let mut needed = vec![Tool::Mosquitto, Tool::MosquittoClients];
    needed.extend(arguments.picture.as_ref().map(|_| Tool::Chromium));
    tools::ensure(&needed, tools::Consent::of(arguments.yes))?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("cannot listen for Ctrl-C")?;
    }
    let program = site::build(arguments.release)?;
    let folder = run::root().join("target/demo");
    // A demo of before; its data would be another site's.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let broker = Broker::start(&folder)?;
    let subscriber = Subscriber::start(broker.port(), NAME)?;
    let plan = Plan { name: NAME, window: WINDOW, broker_port: Some(broker.port()), more: polls::polls };
    let mut site = Site::start(&program, &folder, &plan)?;
    site.wait_ready()?;
    let clients = Clients::start(site.api_addresses());
    let mut show =
        Show { began: Instant::now(), interrupted, screen: Screen::new(&folder), fate: Fate::Waiting };
    show.watch(arguments, &mut site, &subscriber, &clients)?;
    let acknowledged = clients.finish()?;
    show.screen
        .note("adds have stopped; waiting for the last windows to close and their summaries to arrive");
    let proof = proof::await_agreement(&site, &subscriber, &acknowledged, |site, subscriber| {
        show.screen.draw(site, subscriber, &acknowledged);
    })?;
    if let Some(file) = &arguments.picture {
        picture(&site, file)?;
    }
    show.screen.finish();
    proof.print(&acknowledged);
    site.stop();
    drop(broker);
    match (proof.holds(), &show.fate) {
        (true, Fate::Back { .. }) => Ok(()),
        (true, _) => bail!("all three agree, but no leader was killed and restarted in that time"),
        (false, _) => bail!("the three do NOT agree; logs and data are in {}", folder.display()),
    }
}

/// The fate of the leader.
enum Fate {
    Waiting,
    Killed { name: String, at: Instant },
    Back { name: String },
}

struct Show {
    began: Instant,
    interrupted: Arc<AtomicBool>,
    screen: Screen,
    fate: Fate,
}

impl Show {
    /// Shows the site until it is time to end.
    fn watch(
        &mut self,
        arguments: &Arguments,
        site: &mut Site,
        subscriber: &Subscriber,
        clients: &Clients,
    ) -> Result<()> {
        let length = arguments.seconds.map(|seconds| Duration::from_secs(seconds).saturating_sub(ENDING));
        let kill_at = length.map_or(KILL_AFTER, |length| length * 2 / 5);
        loop {
            let now = self.began.elapsed();
            if length.is_some_and(|length| now >= length) || self.interrupted.load(Ordering::Relaxed) {
                return Ok(());
            }
            site.check()?;
            self.advance(now, kill_at, site, clients)?;
            if let Some(what) = clients.trouble() {
                bail!("a client's request was refused: {what}");
            }
            self.screen.draw(site, subscriber, &clients.acknowledged());
            std::thread::sleep(REFRESH);
        }
    }

    /// Kills the leader when it is time, reports its successor, and restarts the dead box.
    fn advance(
        &mut self,
        now: Duration,
        kill_at: Duration,
        site: &mut Site,
        clients: &Clients,
    ) -> Result<()> {
        match &self.fate {
            Fate::Waiting if now >= kill_at => {
                let name = site.leader().context("no box is the leader")?;
                self.screen.note(&format!("killed {name}, the leader, with SIGKILL"));
                let at = site.kill(&name)?;
                clients.mark(at);
                let (successor, led) = site.wait_leader_other_than(&name, at)?;
                let resumed = clients.wait_acknowledged()?;
                self.screen.note(&format!(
                    "{successor} took over: it became the leader {} ms after the kill, and the next add was \
                     acknowledged after {} ms",
                    led.as_millis(),
                    resumed.as_millis()
                ));
                self.fate = Fate::Killed { name, at };
            }
            Fate::Killed { name, at } if at.elapsed() >= DEAD_FOR => {
                site.revive(name)?;
                self.screen.note(&format!("{name} was restarted and is catching up"));
                self.fate = Fate::Back { name: name.clone() };
            }
            Fate::Waiting | Fate::Killed { .. } => {}
            Fate::Back { name } => self.screen.mark_revived(name),
        }
        Ok(())
    }
}

/// A picture of the page by a browser without a window.
fn picture(site: &Site, file: &std::path::Path) -> Result<()> {
    let Some(address) = site.api_addresses().first().copied() else { bail!("the site has no boxes") };
    let browser = tools::find("chromium").context("chromium is not in the PATH")?;
    let mut command = std::process::Command::new(browser);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1200,900"])
        .args(["--virtual-time-budget=6000", "--timeout=15000"])
        .arg(format!("--screenshot={}", file.display()))
        .arg(format!("http://{address}/"));
    let outcome = run::collect(&mut command)?;
    if !file.exists() {
        bail!("{} made no picture:\n{}", run::show(&command), outcome.text);
    }
    Ok(())
}
