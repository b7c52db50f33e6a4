//! Long runs that look for what short ones miss: the simulation's seeds, from a start by chance, until the time is up.

use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::run::{cargo, follow};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// For how long.
    #[arg(long, value_name = "N", default_value_t = 10)]
    minutes: u64,
    /// The first seed; by chance unless it is given.
    #[arg(long, value_name = "SEED")]
    first: Option<u64>,
}

/// Something that runs for a share of the time and fails on a violation.
struct Part {
    name: &'static str,
    run: fn(&Share) -> Result<()>,
}

/// What a part of the soak gets.
struct Share {
    seconds: u64,
    first: u64,
}

/// One after the other, each with an equal share of the time.
const PARTS: [Part; 1] = [Part { name: "the simulation", run: simulation }];

pub(crate) fn soak(arguments: &Arguments) -> Result<()> {
    let seconds = arguments.minutes.saturating_mul(60) / PARTS.len() as u64;
    let first = match arguments.first {
        Some(first) => first,
        None => by_chance()?,
    };
    for part in PARTS {
        println!("== {} for {seconds} s, from seed {first} on", part.name);
        (part.run)(&Share { seconds, first }).with_context(|| format!("{} failed", part.name))?;
    }
    println!("no violation");
    Ok(())
}

/// A seed that leaves room for billions after it.
fn by_chance() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    // By a multiplication that spreads neighbouring moments over all seeds.
    Ok((now.as_micros() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24)
}

fn simulation(share: &Share) -> Result<()> {
    let program = build()?;
    let mut run = Command::new(program);
    run.args(["the_invariants_hold_in_every_history", "--exact", "--nocapture"])
        .env("TALLYD_SIM_SECONDS", share.seconds.to_string())
        .env("TALLYD_SIM_FIRST", share.first.to_string())
        .env("RUST_BACKTRACE", "0");
    if !follow(&mut run)?.ok {
        bail!("an invariant is broken, or the simulation does not meet what it must: see above");
    }
    Ok(())
}

/// What the simulation spends its time in is optimised, with all assertions; everything else is as for other
/// tests, and need not be built again.
fn build() -> Result<PathBuf> {
    let mut build = cargo(&["test", "--test", "sim", "--no-run", "--message-format=json-render-diagnostics"]);
    for package in ["tallyd", "tally-core"] {
        build.args(["--config", &format!("profile.test.package.{package}.opt-level=3")]);
    }
    // What cargo tells us of ourselves would have build scripts of others run again.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            build.env_remove(&name);
        }
    }
    println!("building the simulation");
    let output = build.stderr(std::process::Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the simulation cannot be built");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut programs = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_simulation = message["target"]["name"] == "sim";
        message["executable"].as_str().filter(|_| is_simulation).map(PathBuf::from)
    });
    programs.next_back().context("cargo built no simulation")
}
