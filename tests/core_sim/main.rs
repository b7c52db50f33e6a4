//! Sites of real cores in simulated time, with a driver that is quicker than that of the boxes (which `tests/sim` plays):
//! one seed gives one history of crashes, torn and lost
//! writes, cuts, pauses, loss, duplication, reordering, members that change, and clients that retry; the
//! invariants are checked at every step.
//!
//! `TALLYD_SIM_SEED=S` plays one seed and tells what happens. `TALLYD_SIM_SEEDS=N` plays N seeds instead of 2,000,
//! `TALLYD_SIM_SECONDS=T` plays for so long and tells how far it is; both from `TALLYD_SIM_FIRST=S` on.
//! `TALLYD_SIM_THREADS=N` plays with so many threads; a long run ends when the file `TALLYD_SIM_STOP` is there.
//! `TALLYD_SIM_VOTERS=N` begins with so many voters each time, instead of 1 to 7.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "all of it is a test: a panic is the failure report"
)]

mod checks;
mod client;
mod cores;
#[path = "../seeds/coverage.rs"]
mod coverage;
mod disk;
mod kinds;
mod log;
mod machine;
mod members;
mod mutations;
mod network;
mod node;
mod plan;
#[path = "../seeds/rng.rs"]
mod rng;
#[path = "../seeds/run.rs"]
mod run;
mod sim;
mod trouble;
mod witness;
mod world;

use std::time::Duration;

use run::Until;
use sim::Setting;

const SEEDS: u64 = 2_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

#[test]
fn the_invariants_hold_in_every_history() {
    let voters = number("TALLYD_SIM_VOTERS");
    assert!(voters.is_none_or(|voters| (1..=plan::BOXES).contains(&voters)), "TALLYD_SIM_VOTERS is 1 to 7");
    let setting = Setting { voters, ..Setting::PLAIN };
    if let Some(seed) = number("TALLYD_SIM_SEED") {
        println!("{}", run::named(seed, setting, true));
        return;
    }
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
        "proof: core simulation: {} seeds, {} events, {met} kinds of events met",
        played.seeds, played.coverage.events
    );
}

#[test]
fn a_seed_gives_the_same_history_each_time() {
    for seed in [3, 77, 1204] {
        assert_eq!(
            world::play(seed, Setting::PLAIN, false).to_string(),
            world::play(seed, Setting::PLAIN, false).to_string()
        );
    }
}
