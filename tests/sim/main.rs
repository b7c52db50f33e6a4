//! Whole sites in simulated time: the boxes' real driver, accumulator, site, storage, frames and upstream, on disks that
//! forget, tear, fill up, fail and hang, over links that lose, delay and break, with clocks that are wrong, and with a
//! broker that refuses, breaks, swallows and forgets. One seed gives one history; the invariants are looked at as it goes
//! on.
//!
//! `TALLYD_SIM_SEED=S` plays one seed and tells what happens. `TALLYD_SIM_SEEDS=N` plays N seeds instead of 2,000,
//! `TALLYD_SIM_SECONDS=T` plays for so long and tells how far it is; both from `TALLYD_SIM_FIRST=S` on.
//! `TALLYD_SIM_THREADS=N` plays with so many threads; a long run ends when the file `TALLYD_SIM_STOP` is there.
//! With `TALLYD_SIM_BUG=NAME` the seed's boxes have that deliberate bug, with `TALLYD_SIM_BEND=NAME` only the trouble that
//! makes it show.
//! `TALLYD_SIM_CALM=T` has some trouble every so many microseconds, on average.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "all of it is a test: a panic is the failure report"
)]

mod boxes;
mod broker;
mod bugs;
mod checks;
mod clients;
#[path = "../seeds/coverage.rs"]
mod coverage;
mod digest;
mod ending;
mod events;
mod forms;
mod guests;
mod incarnations;
mod kinds;
mod links;
mod members;
mod network;
mod plan;
mod put_back;
mod queue;
#[path = "../seeds/rng.rs"]
mod rng;
mod roster;
#[path = "../seeds/run.rs"]
mod run;
mod sim;
mod tolerance;
mod trouble;
mod uplink;
mod upstreams;
mod wires;
mod witness_trouble;
mod witnesses;
mod world;

use std::time::Duration;

use run::Until;
use sim::Setting;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

const SEEDS: u64 = 2_000;

#[test]
fn the_invariants_hold_in_every_history() {
    let asked = bugs::asked_for().unwrap_or(Setting::PLAIN);
    let setting = Setting { calm: number("TALLYD_SIM_CALM"), ..asked };
    if let Some(seed) = number("TALLYD_SIM_SEED") {
        // What the boxes log, too.
        let log =
            tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).without_time().with_ansi(false);
        log.with_writer(std::io::stderr).init();
        println!("{}", run::named(seed, setting, true));
        return;
    }
    let setting = Setting { bug: None, ..setting };
    let first = number("TALLYD_SIM_FIRST").unwrap_or(1);
    let until = match number("TALLYD_SIM_SECONDS") {
        Some(seconds) => Until::Seconds(Duration::from_secs(seconds)),
        None => Until::Seeds(number("TALLYD_SIM_SEEDS").unwrap_or(SEEDS)),
    };
    let played = run::play(first, until, setting);
    println!("{}\n{played}", played.coverage);
    if played.seeds >= SEEDS {
        assert_eq!(
            played.coverage.missing(),
            [""; 0],
            "a simulation that never meets these proves nothing about them"
        );
    }
    let met = kinds::MUST_HAPPEN.len() - played.coverage.missing().len();
    // `cargo xtask verify` reads this.
    println!(
        "proof: simulation: {} seeds, {} events, {met} kinds of events met",
        played.seeds, played.coverage.events
    );
}
