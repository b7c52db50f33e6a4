//! `cargo xtask bench`: the figures of a site of three boxes on this machine, several rounds with
//! medians, each round on a fresh site; then leaders that die, leaders that fall silent and leaders that are
//! restarted on purpose. With `--wear` instead: what sites write to their disks.

mod failover;
mod load;
mod redis;
mod restarts;
mod start;
mod table;
mod wear;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::run;
use crate::site::{self, Plan, Site};
use crate::tools::{self, Consent, Tool};
use failover::Fate;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Number of rounds, of which the median of each figure is shown; 0 skips them
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=20))]
    rounds: u8,
    /// Measured duration of each run of a round, in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Number of leaders that are killed, and of leaders that fall silent; 0 skips this
    #[arg(long, default_value_t = 20)]
    failovers: u16,
    /// Number of planned restarts of leaders; 0 skips this
    #[arg(long, default_value_t = 20)]
    restarts: u16,
    /// Instead of all that: what idling and counting sites write to their disks
    #[arg(long)]
    wear: bool,
    /// How long that is measured, in minutes
    #[arg(long, default_value_t = 20, requires = "wear", value_parser = clap::value_parser!(u32).range(1..=1440))]
    minutes: u32,
    /// In each round, put the same load on Redis (three servers, appendfsync always, WAIT 1) for comparison
    #[arg(long, conflicts_with = "wear")]
    redis: bool,
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
    /// Measure this program instead of building one
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Print one JSON object with all rounds after the table
    #[arg(long)]
    json: bool,
}

pub(crate) fn bench(arguments: &Arguments) -> Result<()> {
    let program = match &arguments.program {
        Some(program) => program.canonicalize().with_context(|| format!("no {}", program.display()))?,
        None => site::build(true)?,
    };
    if arguments.redis {
        tools::ensure(&[Tool::Redis], Consent::of(arguments.yes))?;
    }
    let folder = run::root().join("target/bench");
    if arguments.wear {
        empty(&folder)?;
        let wear = wear::measure(&program, &folder, arguments.minutes)?;
        if arguments.json {
            println!("{wear}");
        }
        return Ok(());
    }
    let mut rounds = Vec::new();
    for round in 1..=arguments.rounds {
        println!("round {round} of {}", arguments.rounds);
        empty(&folder)?;
        let start = start::measure(&program, &folder)?;
        let load = load::measure(&program, &folder, arguments.seconds)?;
        let redis = match arguments.redis {
            true => redis::measure(&folder, &load::COMPARED, arguments.seconds)?,
            false => Value::Null,
        };
        rounds.push(json!({"start": start, "load": load, "redis": redis}));
    }
    let mut failovers = json!({});
    for (name, fate) in [("killed", Fate::Killed), ("silent", Fate::Silent)] {
        if arguments.failovers > 0 {
            println!("{} leaders, one after the other: {name}", arguments.failovers);
            empty(&folder)?;
            failovers[name] = failover::measure(&program, &folder, fate, arguments.failovers)?;
        }
    }
    if arguments.restarts > 0 {
        println!("{} leaders, one after the other: restarted", arguments.restarts);
        empty(&folder)?;
        failovers["restarted"] = restarts::measure(&program, &folder, arguments.restarts)?;
    }
    let medians = table::print(&rounds, &failovers)?;
    if arguments.json {
        println!("{}", json!({"medians": medians, "rounds": rounds, "failovers": failovers}));
    }
    Ok(())
}

/// The site that is measured, with an empty folder, ready.
fn fresh_site(program: &Path, folder: &Path) -> Result<Site> {
    let plan =
        Plan { name: "bench", window: Duration::from_secs(60), broker_port: None, more: |_| String::new() };
    Site::start(program, folder, &plan)
}

/// The boxes' URLs, `first` at the front, as `tallyd` takes them.
fn urls(site: &mut Site, first: &str) -> Result<String> {
    let first = site.api_address(first)?;
    let others = site.api_addresses().into_iter().filter(|address| *address != first);
    let all: Vec<String> = std::iter::once(first).chain(others).map(|to| format!("http://{to}")).collect();
    Ok(all.join(","))
}

/// Up to which index a box has applied its log.
fn applied(site: &Site, name: &str) -> Result<u64> {
    let view = site.views().into_iter().find(|view| view.name == name);
    let status = view.and_then(|view| view.status).with_context(|| format!("{name} does not answer"))?;
    status["applied"].as_u64().context("the status has no applied index")
}

/// Makes the folder, or empties it. The folder itself stays: it may be the mount point of a disk to be measured.
fn empty(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let old = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for old in old {
        let old = old.with_context(|| format!("cannot read {}", folder.display()))?.path();
        let emptied = if old.is_dir() { std::fs::remove_dir_all(&old) } else { std::fs::remove_file(&old) };
        emptied.with_context(|| format!("cannot remove {}", old.display()))?;
    }
    Ok(())
}

/// The middle one of some numbers; of an even count, the upper of the two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// What `tallyd bench --json` printed.
fn parsed(printed: &str) -> Result<Value> {
    serde_json::from_str(printed).context("`tallyd bench --json` printed no JSON")
}
