//! Leaders that go while clients count: how long nothing is acknowledged, and whether anything is lost
//! or counted twice.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::load::make_room_for_keys;
use super::{fresh_site, median, parsed, urls};
use crate::site::Site;

/// How a leader goes.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Fate {
    /// kill -9: who asks it is refused.
    Killed,
    /// Stopped in its tracks (SIGSTOP): it answers nothing and refuses nobody.
    Silent,
}

/// A run of load around each failover, in seconds.
const SECONDS: &str = "3";
/// Two at each box.
const CLIENTS: &str = "6";
/// So much is applied before the leader goes.
const APPLIED_FIRST: u64 = 200;
/// How long a silent leader stays silent after another one leads.
const SILENT_FOR: Duration = Duration::from_secs(1);
const RUNNING_TIMEOUT: Duration = Duration::from_secs(20);
/// The clocks of the two processes are one, but read one after the other.
const CLOCK_SLACK_MS: f64 = 5.0;

/// From the moment the leader goes to the next acknowledged add, `runs` times.
pub(super) fn measure(program: &Path, folder: &Path, fate: Fate, runs: u16) -> Result<Value> {
    let mut site = fresh_site(program, folder)?;
    site.wait_ready()?;
    make_room_for_keys(program, &site.admin_url())?;
    let mut gaps_ms = Vec::new();
    let (mut acknowledged, mut lost, mut doubled, mut unknown) = (0, 0, 0, 0);
    for _ in 0..runs {
        site.wait_ready()?;
        let (gap_ms, proof) = once(program, &mut site, fate)?;
        gaps_ms.push(gap_ms);
        let number = |name: &str| proof[name].as_u64().with_context(|| format!("no {name} in the proof"));
        acknowledged += number("acknowledged")?;
        lost += number("lost")?;
        doubled += number("doubled")?;
        unknown += number("unknown")?;
    }
    site.stop();
    let worst_ms = gaps_ms.iter().copied().fold(0.0, f64::max);
    Ok(json!({
        "median_ms": median(gaps_ms.clone()), "worst_ms": worst_ms, "each_ms": gaps_ms,
        "acknowledged": acknowledged, "lost": lost, "doubled": doubled, "unknown": unknown,
    }))
}

fn once(program: &Path, site: &mut Site, fate: Fate) -> Result<(f64, Value)> {
    let leader = site.wait_leader()?;
    let urls = urls(site, &leader)?;
    let applied = super::applied(site, &leader)?;
    let mut bench = Command::new(program);
    bench.args(["bench", "--failover", "--json", "--gap", "20", "--url", &urls]);
    bench.args(["--seconds", SECONDS, "--clients", CLIENTS]);
    let bench = bench.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let bench = bench.context("the bench cannot be started")?;
    // Not before the bench measures: it warms up for half a second.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) || super::applied(site, &leader)? < applied + APPLIED_FIRST
    {
        if began.elapsed() > RUNNING_TIMEOUT {
            bail!("the bench counted nothing");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let gone_unix_ms =
        SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs_f64() * 1e3;
    let gone = match fate {
        Fate::Killed => site.kill(&leader)?,
        Fate::Silent => site.pause(&leader)?,
    };
    site.wait_leader_other_than(&leader, gone)?;
    match fate {
        Fate::Killed => site.revive(&leader)?,
        Fate::Silent => {
            std::thread::sleep(SILENT_FOR);
            site.resume(&leader)?;
        }
    }
    let output = bench.wait_with_output().context("cannot wait for the bench")?;
    if !output.status.success() {
        bail!("the bench failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let report = parsed(&String::from_utf8_lossy(&output.stdout))?;
    let run = report.pointer("/runs/0").context("the bench reported no run")?;
    Ok((gap_after(run, gone_unix_ms)?, run["proof"].clone()))
}

/// How long after that moment the next add was acknowledged.
fn gap_after(run: &Value, gone_unix_ms: f64) -> Result<f64> {
    let gaps = run["gaps"].as_array().context("the bench listed no gaps")?;
    let ends = gaps.iter().filter_map(|gap| {
        let from = gap["from_unix_ms"].as_f64()?;
        let end = from + gap["ms"].as_f64()?;
        // Adds that were on their way may be acknowledged a little after the leader is gone.
        (end > gone_unix_ms && from < gone_unix_ms + 100.0 + CLOCK_SLACK_MS).then_some(end - gone_unix_ms)
    });
    ends.reduce(f64::max).context("the acknowledgements have no gap where the leader failed")
}
