//! Golden scenarios: each `*.txt` beside this file is a script with the trace that must come out,
//! and a test of its own. `README.md` tells how to read and write them.
//!
//! `UPDATE=1 cargo test --test scenarios` writes the traces that come out into the scripts.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "all of it is a test: a panic is the failure report"
)]

mod commands;
mod describe;
mod disks;
mod invariants;
mod node;
mod operations;
mod plain_log;
mod script;
mod self_tests;
mod site;
mod witness;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let updates = std::env::var_os("UPDATE").is_some_and(|value| value == "1");
    let played = Arc::new(AtomicU64::new(0));
    let mut trials: Vec<Trial> = scripts()
        .into_iter()
        .map(|path| {
            let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
            let played = Arc::clone(&played);
            Trial::test(name, move || {
                compare(&path, updates)?;
                played.fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
        })
        .collect();
    trials.extend(self_tests::trials());
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        // `cargo xtask verify` adds these up: nextest has a process play each.
        println!("proof: golden scenarios: {} scenarios", played.load(Ordering::Relaxed));
    }
    conclusion.exit_code()
}

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let files = std::fs::read_dir(&folder).expect("the folder of this file is there");
    let paths = files.map(|file| file.expect("the folder can be read").path());
    let mut scripts: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "txt")).collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "no scripts in {}", folder.display());
    scripts
}

fn compare(path: &Path, updates: bool) -> Result<(), Failed> {
    let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(path).display().to_string();
    let expected = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    let played = script::play(&name, &expected)?;
    match script::difference(&expected, &played) {
        Some(_) if updates => Ok(std::fs::write(path, played).map_err(|error| format!("{name}: {error}"))?),
        Some(difference) => Err(format!(
            "{name}: another trace came out (UPDATE=1 cargo test --test scenarios takes it over)\n{difference}"
        )
        .into()),
        None => Ok(()),
    }
}
