//! Leaders that are restarted on purpose (SIGTERM, then started again) while clients count: what clients of the
//! other boxes notice of it, and whether clients of the restarted box lose anything.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::load::make_room_for_keys;
use super::{applied, fresh_site, median, parsed, urls};
use crate::site::Site;

/// A run of load around each restart, in seconds: time for the box to go, to return and to catch up.
const SECONDS: &str = "4";
/// Two at each of the other boxes.
const CLIENTS_ELSEWHERE: &str = "4";
/// One at each box, the one that is restarted too.
const CLIENTS_EVERYWHERE: &str = "3";
/// An add at another box counts as slow, not as failed, for so long.
const TRY_MS: &str = "10000";
/// So much is applied before the leader goes.
const APPLIED_FIRST: u64 = 200;
const RUNNING_TIMEOUT: Duration = Duration::from_secs(20);

/// The leader is restarted `runs` times.
pub(super) fn measure(program: &Path, folder: &Path, runs: u16) -> Result<Value> {
    let mut site = fresh_site(program, folder)?;
    site.wait_ready()?;
    make_room_for_keys(program, &site.admin_url())?;
    let mut all = Vec::new();
    for _ in 0..runs {
        site.wait_ready()?;
        all.push(once(program, &mut site)?);
    }
    site.stop();
    let of = |pointer: &str| -> Result<Vec<f64>> {
        let number = |one: &Value| {
            one.pointer(pointer).and_then(Value::as_f64).with_context(|| format!("no {pointer}"))
        };
        all.iter().map(number).collect()
    };
    let worst = |pointer: &str| Ok::<f64, anyhow::Error>(of(pointer)?.into_iter().fold(0.0, f64::max));
    let sum = |pointer: &str| Ok::<f64, anyhow::Error>(of(pointer)?.into_iter().sum());
    Ok(json!({
        "median_slowest_ms": median(of("/elsewhere/slowest_ms")?),
        "worst_slowest_ms": worst("/elsewhere/slowest_ms")?,
        "adds_elsewhere": sum("/elsewhere/acknowledged")?,
        "failed_elsewhere": sum("/elsewhere/failed_tries")?,
        "lost_elsewhere": sum("/elsewhere/lost")?,
        "adds_everywhere": sum("/everywhere/acknowledged")?,
        "retried": sum("/everywhere/failed_tries")?,
        "lost": sum("/everywhere/lost")?,
        "doubled": sum("/everywhere/doubled")? + sum("/elsewhere/doubled")?,
        "unknown": sum("/everywhere/unknown")? + sum("/elsewhere/unknown")?,
        "worst_stop_ms": worst("/stop_ms")?,
        "elections": sum("/elections")?,
        "each": all,
    }))
}

fn once(program: &Path, site: &mut Site) -> Result<Value> {
    let leader = site.wait_leader()?;
    let everywhere = urls(site, &leader)?;
    let (_, elsewhere) = everywhere.split_once(',').context("a site of one box")?;
    let before = applied(site, &leader)?;
    let elsewhere = [
        &["--url", elsewhere, "--clients", CLIENTS_ELSEWHERE, "--try-timeout", TRY_MS],
        &["--prefix", "elsewhere"][..],
    ];
    let elsewhere = start(program, &elsewhere.concat())?;
    let everywhere = ["--url", &everywhere, "--clients", CLIENTS_EVERYWHERE, "--prefix", "everywhere"];
    let everywhere = start(program, &everywhere)?;
    // Not before both measure: they warm up for half a second.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) || applied(site, &leader)? < before + APPLIED_FIRST {
        if began.elapsed() > RUNNING_TIMEOUT {
            bail!("the bench counted nothing");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let stopped = site.terminate(&leader)?;
    site.revive(&leader)?;
    let (elsewhere, everywhere) = (finish(elsewhere)?, finish(everywhere)?);
    Ok(json!({
        "stop_ms": stopped.as_secs_f64() * 1e3, "elections": elsewhere["elections"],
        "elsewhere": told(&elsewhere), "everywhere": told(&everywhere),
    }))
}

fn start(program: &Path, more: &[&str]) -> Result<Child> {
    let mut bench = Command::new(program);
    bench.args(["bench", "--failover", "--json", "--seconds", SECONDS]).args(more);
    let bench = bench.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    bench.context("the bench cannot be started")
}

/// The only run of it.
fn finish(bench: Child) -> Result<Value> {
    let output = bench.wait_with_output().context("cannot wait for the bench")?;
    if !output.status.success() {
        bail!("the bench failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let report = parsed(&String::from_utf8_lossy(&output.stdout))?;
    report.pointer("/runs/0").cloned().context("the bench reported no run")
}

/// What counts of a run.
fn told(run: &Value) -> Value {
    let errors = run["errors"].as_object();
    let failed_tries: u64 = errors.into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
    let proof = &run["proof"];
    json!({
        "slowest_ms": run["max_ms"], "p99_ms": run["p99_ms"], "failed_tries": failed_tries, "errors": errors,
        "acknowledged": proof["acknowledged"], "lost": proof["lost"], "doubled": proof["doubled"],
        "unknown": proof["unknown"],
    })
}
