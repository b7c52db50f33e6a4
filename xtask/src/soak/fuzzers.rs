//! The fuzzers' part of a soak: each for a minute, again and again, or for a fair share if there is less time.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Clock, process};
use crate::run::{self, root};
use crate::tools;

/// A fuzzer's turn.
const TURN: Duration = Duration::from_secs(60);
/// A shorter one is not worth its start.
const TURN_MIN: Duration = Duration::from_secs(3);
/// One input that takes longer is a failure: work has to be bounded.
const INPUT_TIME_MAX: Duration = Duration::from_secs(10);
const MEMORY_MIB_MAX: u32 = 2048;
/// One allocation larger than this is a failure: nothing is reserved on a peer's word.
const ALLOCATION_MIB_MAX: u32 = 64;

/// The fuzzers, built.
pub(super) struct Fuzzers {
    programs: Vec<(String, PathBuf)>,
}

/// What a fuzzer came to, all turns together.
#[derive(Clone, Debug, Default, PartialEq)]
struct Tally {
    executions: u64,
    seconds: f64,
    /// Edges and features that the corpus reaches, as libFuzzer counts them.
    coverage: u64,
    corpus: u64,
}

/// What all came to.
#[derive(Default)]
pub(super) struct Fuzzed {
    tallies: BTreeMap<String, Tally>,
    pub(super) failures: Vec<String>,
}

impl Fuzzers {
    pub(super) fn build() -> Result<Fuzzers> {
        tools::ensure_cargo_tool("cargo-fuzz")?;
        println!("building the fuzzers, with the address sanitizer (the first time takes some minutes)");
        let mut build = with_sanitizer(run::cargo(&["fuzz", "build"]));
        let status = build.status().context("cannot run cargo fuzz")?;
        if !status.success() {
            bail!("the fuzzers cannot be built");
        }
        let host = host()?;
        let release = root().join("fuzz/target").join(host).join("release");
        let mut names = Vec::new();
        for entry in
            fs::read_dir(root().join("fuzz/fuzz_targets")).context("cannot list fuzz/fuzz_targets")?
        {
            let path = entry.context("cannot list fuzz/fuzz_targets")?.path();
            names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
        }
        names.sort();
        let programs = names.into_iter().map(|name| (name.clone(), release.join(&name))).collect();
        Ok(Fuzzers { programs })
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.programs.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Round after round until the time is up.
    pub(super) fn run(&self, clock: &Clock) -> Result<Fuzzed> {
        let mut fuzzed = Fuzzed::default();
        let count = u32::try_from(self.programs.len()).unwrap_or(u32::MAX).max(1);
        let span = clock.until.saturating_duration_since(Instant::now());
        let turn = TURN.min(span / count);
        loop {
            for (place, (name, program)) in (0..).zip(&self.programs) {
                let left = clock.until.saturating_duration_since(Instant::now());
                // Those still to come in this round get no less, should one have taken longer.
                let turn = turn.min(left / (count - place).max(1));
                if turn < TURN_MIN || clock.interrupted.load(Ordering::Relaxed) {
                    return Ok(fuzzed);
                }
                self.turn(clock, name, program, turn, &mut fuzzed)?;
            }
        }
    }

    fn turn(
        &self,
        clock: &Clock,
        name: &str,
        program: &PathBuf,
        turn: Duration,
        fuzzed: &mut Fuzzed,
    ) -> Result<()> {
        let (found, kept) =
            (root().join("target/fuzz-corpus").join(name), root().join("fuzz/corpus").join(name));
        let artifacts = root().join("fuzz/artifacts").join(name);
        for dir in [&found, &artifacts] {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let mut command = Command::new(program);
        command
            .arg(format!("-max_total_time={}", turn.as_secs()))
            .arg(format!("-timeout={}", INPUT_TIME_MAX.as_secs()))
            .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
            .arg(format!("-malloc_limit_mb={ALLOCATION_MIB_MAX}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args(["-print_final_stats=1", "-verbosity=1"])
            .args([&found, &kept])
            .current_dir(root())
            .env("ASAN_OPTIONS", "detect_odr_violation=0")
            .env("RUST_BACKTRACE", "1");
        let dictionary = root().join("fuzz/dictionaries").join(format!("{name}.dict"));
        if dictionary.is_file() {
            command.arg(format!("-dict={}", dictionary.display()));
        }
        let began = Instant::now();
        let ended = process::run(&mut command, clock, process::interrupt, |_| ())?;
        let tally = Tally::read(&ended.text, began.elapsed());
        println!("{name}: {tally}");
        fuzzed.tallies.entry(name.to_owned()).or_default().add(&tally);
        let interrupted = clock.interrupted.load(Ordering::Relaxed);
        if !ended.ok && (!interrupted || input_of(&ended.text).is_some()) {
            let failure = failure(name, &ended.text);
            println!("VIOLATION: {failure}");
            fuzzed.failures.push(failure);
        }
        Ok(())
    }
}

/// On a stable compiler the sanitizer's flags have to be allowed.
fn with_sanitizer(mut command: Command) -> Command {
    command.env("RUSTC_BOOTSTRAP", "1");
    command
}

fn host() -> Result<String> {
    let version = run::output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

/// The file that libFuzzer wrote the failing input to.
fn input_of(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.split_once("Test unit written to ").map(|(_, path)| path.trim()))
}

/// What failed, where its input is, and how to see it again.
fn failure(name: &str, text: &str) -> String {
    let why = text
        .lines()
        .skip_while(|line| !line.contains("panicked at"))
        .take_while(|line| !line.starts_with("stack backtrace"))
        .collect::<Vec<_>>()
        .join("\n  ");
    let error = text.lines().find(|line| line.contains("ERROR: ")).unwrap_or_default().trim();
    match input_of(text) {
        Some(input) => format!(
            "{name}: {error}\n  {why}\n  input: {input}\n  again: RUSTC_BOOTSTRAP=1 cargo fuzz run {name} {input}"
        ),
        None => {
            let last: Vec<&str> = text.lines().rev().take(20).collect();
            let last = last.into_iter().rev().collect::<Vec<_>>().join("\n  ");
            format!("{name} ended abnormally:\n  {last}")
        }
    }
}

impl Tally {
    /// From libFuzzer's statistics: `stat::number_of_executed_units: 5`, `#5 DONE cov: 7 ft: 9 corp: 2/9b ...`.
    fn read(text: &str, took: Duration) -> Tally {
        let stat = |name: &str| {
            let line = text.lines().rev().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').trim().parse::<u64>().ok()
        };
        let last = text.lines().rev().find(|line| line.starts_with('#') && line.contains("cov: "));
        let after = |mark: &str| {
            let rest = last?.split_once(mark)?.1;
            rest.split([' ', '/']).next()?.parse::<u64>().ok()
        };
        Tally {
            executions: stat("stat::number_of_executed_units").unwrap_or(0),
            seconds: took.as_secs_f64(),
            coverage: after("cov: ").unwrap_or(0),
            corpus: after("corp: ").unwrap_or(0),
        }
    }

    fn add(&mut self, other: &Tally) {
        self.executions += other.executions;
        self.seconds += other.seconds;
        self.coverage = self.coverage.max(other.coverage);
        self.corpus = self.corpus.max(other.corpus);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let a_second = self.executions as f64 / self.seconds.max(0.001);
        write!(
            f,
            "{} executions in {:.0} s, {a_second:.0} a second, {} edges reached, corpus {}",
            self.executions, self.seconds, self.coverage, self.corpus
        )
    }
}

impl fmt::Display for Fuzzed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, tally) in &self.tallies {
            writeln!(f, "{name:>14}: {tally}")?;
        }
        let executions: u64 = self.tallies.values().map(|tally| tally.executions).sum();
        writeln!(f, "{executions} executions in all")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says_is_read() {
        let text = "#2 INITED cov: 3 ft: 4 corp: 1/1b\n#900\tDONE   cov: 741 ft: 2022 corp: 117/7541b lim: 38 exec/s: 9\n\
                    Done 900 runs in 2 second(s)\nstat::number_of_executed_units: 900\nstat::peak_rss_mb: 99\n";
        let tally = Tally::read(text, Duration::from_secs(2));
        assert_eq!(tally, Tally { executions: 900, seconds: 2.0, coverage: 741, corpus: 117 });
        assert_eq!(tally.to_string(), "900 executions in 2 s, 450 a second, 741 edges reached, corpus 117");
    }

    #[test]
    fn a_failure_names_the_input_and_how_to_see_it_again() {
        let text = "thread '<unnamed>' panicked at src/x.rs:1:2:\nit broke\nstack backtrace:\n  0: a\n\
                    ==7== ERROR: libFuzzer: deadly signal\nartifact_prefix='f/'; Test unit written to f/crash-1\n";
        let failure = failure("raft", text);
        assert!(failure.contains("it broke") && failure.contains("input: f/crash-1"), "{failure}");
        assert!(failure.ends_with("RUSTC_BOOTSTRAP=1 cargo fuzz run raft f/crash-1"), "{failure}");
    }
}
