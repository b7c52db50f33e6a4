//! The simulation's part of a soak.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Clock, process};
use crate::run::{cargo, root};

/// A test's program, built for long runs.
pub(super) struct Simulation {
    pub(super) test: &'static str,
    program: PathBuf,
    /// It ends in order when this file is there.
    stop: PathBuf,
    voters: Option<u64>,
}

/// What a run came to.
pub(super) struct Played {
    first: u64,
    seeds: u64,
    /// What it said last of its speed.
    summary: String,
    /// A line for each kind of event.
    coverage: Vec<String>,
    pub(super) failures: Vec<String>,
}

impl Simulation {
    /// In a profile of its own: optimised, with all assertions.
    pub(super) fn build(test: &'static str, voters: Option<u64>) -> Result<Simulation> {
        let mut build = cargo(&["test", "--profile", "soak", "--test", test, "--no-run"]);
        build.arg("--message-format=json-render-diagnostics");
        println!("building the simulation ({test})");
        let output = build.stderr(std::process::Stdio::inherit()).output().context("cannot run cargo")?;
        if !output.status.success() {
            bail!("the simulation cannot be built");
        }
        let messages = String::from_utf8_lossy(&output.stdout);
        let mut programs = messages.lines().filter_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            let is_simulation = message["target"]["name"] == test;
            message["executable"].as_str().filter(|_| is_simulation).map(PathBuf::from)
        });
        let program = programs.next_back().context("cargo built no simulation")?;
        let stop = std::env::temp_dir().join(format!("tallyd-soak-{test}-{}.stop", std::process::id()));
        Ok(Simulation { test, program, stop, voters })
    }

    pub(super) fn run(&self, clock: &Clock, first: u64, threads: usize) -> Result<Played> {
        let seconds = clock.until.saturating_duration_since(Instant::now()).as_secs_f64().round();
        let mut command = Command::new(&self.program);
        command
            .args(["the_invariants_hold_in_every_history", "--exact", "--nocapture"])
            .current_dir(root())
            .env("TALLYD_SIM_SECONDS", Duration::from_secs_f64(seconds).as_secs().to_string())
            .env("TALLYD_SIM_FIRST", first.to_string())
            .env("TALLYD_SIM_THREADS", threads.to_string())
            .env("TALLYD_SIM_STOP", &self.stop)
            .env("RUST_BACKTRACE", "0")
            .envs(self.voters.map(|voters| ("TALLYD_SIM_VOTERS", voters.to_string())));
        let stop = |_: &_| {
            if let Err(error) = std::fs::write(&self.stop, b"") {
                println!("cannot tell the simulation to stop: {}: {error}", self.stop.display());
            }
        };
        let ended = process::run(&mut command, clock, stop, |line| {
            if is_summary(line) || line.starts_with("seed ") || line.contains("panicked") {
                println!("{}: {line}", self.test);
            }
        });
        let _ = std::fs::remove_file(&self.stop);
        Ok(Played::read(first, &ended?))
    }
}

/// `N seeds and M events in T s: ...`
fn is_summary(line: &str) -> bool {
    line.split_once(' ')
        .is_some_and(|(seeds, rest)| seeds.parse::<u64>().is_ok() && rest.starts_with("seeds and "))
}

impl Played {
    fn read(first: u64, ended: &process::Ended) -> Played {
        let summary = ended.text.lines().rev().find(|line| is_summary(line)).unwrap_or_default().to_owned();
        let seeds = summary.split(' ').next().and_then(|seeds| seeds.parse().ok()).unwrap_or(0);
        let is_kind = |line: &&str| {
            let (count, what) = line.trim_start().split_once("  ").unwrap_or_default();
            line.starts_with(' ') && count.parse::<u64>().is_ok() && !what.is_empty()
        };
        let mut coverage: Vec<String> = ended.text.lines().filter(is_kind).map(str::to_owned).collect();
        coverage.extend(ended.text.lines().filter(|line| line.starts_with("never met: ")).map(str::to_owned));
        let named = |line: &&str| line.starts_with("seed ") && line.contains(" failed: ");
        let mut failures: Vec<String> = ended.text.lines().filter(named).map(str::to_owned).collect();
        if !ended.ok && failures.is_empty() {
            let last: Vec<&str> = ended.text.lines().rev().take(20).collect();
            let last = last.into_iter().rev().collect::<Vec<_>>().join("\n  ");
            failures.push(format!("the simulation (seeds from {first} on) failed:\n  {last}"));
        }
        Played { first, seeds, summary, coverage, failures }
    }
}

impl fmt::Display for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.coverage {
            writeln!(f, "{line}")?;
        }
        if self.seeds > 0 {
            let last = self.first.wrapping_add(self.seeds - 1);
            writeln!(f, "seeds {} to {last}: {}", self.first, self.summary)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_simulation_says_is_read() {
        let text = "running 1 test\n10 seeds and 5 events in 1 s: x\n       120  crashes\nnever met: bridges\n\
                    12 seeds and 9 events in 2 s: y on 1 cores\ntest result: ok. 1 passed\n";
        let played = Played::read(100, &process::Ended { ok: true, text: text.to_owned() });
        assert_eq!(played.coverage, ["       120  crashes", "never met: bridges"]);
        assert!(
            played.to_string().ends_with("seeds 100 to 111: 12 seeds and 9 events in 2 s: y on 1 cores\n")
        );
        assert!(played.failures.is_empty());
        let text =
            "seed 7 failed: TALLYD_SIM_SEED=7 cargo test --test sim the_invariants prints its history\n";
        let played = Played::read(1, &process::Ended { ok: false, text: text.to_owned() });
        assert_eq!(played.failures, [text.trim_end()]);
        let played = Played::read(1, &process::Ended { ok: false, text: "killed".to_owned() });
        assert!(played.failures[0].ends_with("killed"), "{:?}", played.failures);
    }
}
