//! A round of load on a fresh site: adds, reports, keys, StatsD.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{fresh_site, parsed, urls};
use crate::run;

/// Room for the keys of a round, and of all failovers of a kind.
pub(super) const KEYS_MAX: &str = "4000000";

/// StatsD increments a second: half of what a box is to take, and all of it.
pub(super) const STATSD_RATES: [&str; 2] = ["2500000", "5000000"];

/// Numbers of clients of which Redis gets the same load.
pub(super) const COMPARED: [usize; 3] = [16, 64, 256];

pub(super) fn measure(program: &Path, folder: &Path, seconds: u32) -> Result<Value> {
    let began = Instant::now();
    let mut site = fresh_site(program, folder)?;
    let leader = site.wait_leader()?;
    let leader_ms = began.elapsed().as_secs_f64() * 1e3;
    site.wait_ready()?;
    let urls = urls(&mut site, &leader)?;
    let seconds = seconds.to_string();
    let bench = |more: &[&str]| -> Result<Value> {
        let mut command = Command::new(program);
        command.args(["bench", "--json", "--url", &urls, "--seconds", &seconds]).args(more);
        parsed(&run::output(&mut command)?)
    };
    let adds = bench(&["--clients", "1,16,64,256,1024"])?;
    let reports = bench(&["--clients", "10", "--batch", "100"])?;
    let to = site.statsd_address(&leader)?.to_string();
    let half = bench(&["--statsd", &to, "--rate", STATSD_RATES[0]])?;
    let full = bench(&["--statsd", &to, "--rate", STATSD_RATES[1]])?;
    make_room_for_keys(program, &site.admin_url())?;
    let keys = bench(&["--clients", "256", "--keys"])?;
    site.stop();
    Ok(json!({
        "leader_ms": leader_ms, "adds": adds, "reports": reports, "keys": keys,
        "statsd_half": half, "statsd_full": full,
    }))
}

/// A full table refuses keyed adds: a bound of the site, not a figure of the bench.
pub(super) fn make_room_for_keys(program: &Path, url: &str) -> Result<()> {
    let set = run::output(Command::new(program).args(["settings", "--url", url, "keys.max", KEYS_MAX]));
    set.map(|_| ()).context("the bound of keys cannot be set")
}
