//! Whole sites of real cores in simulated time: one seed gives one history of crashes, torn and lost
//! writes, cuts, pauses, loss, duplication, reordering, and clients that retry; the invariants are
//! checked at every step.
//!
//! `TALLYD_SIM_SEEDS=N` plays N seeds instead of 500, `TALLYD_SIM_SEED=S` plays one and tells what happens.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "all of it is a test: a panic is the failure report"
)]

mod checks;
mod client;
mod coverage;
mod disk;
mod log;
mod machine;
mod network;
mod node;
mod plan;
mod rng;
mod sim;
mod trouble;
mod world;

use coverage::Coverage;

const SEEDS: u64 = 500;

/// Names the seed when its history fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!("seed {seed} failed: TALLYD_SIM_SEED={seed} cargo test --test sim tells its history");
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

#[test]
fn the_invariants_hold_in_every_history() {
    if let Some(seed) = number("TALLYD_SIM_SEED") {
        let _named = Named(seed);
        println!("{}", world::play(seed, true));
        return;
    }
    let seeds = number("TALLYD_SIM_SEEDS").unwrap_or(SEEDS);
    let mut coverage = Coverage::default();
    for seed in 1..=seeds {
        let _named = Named(seed);
        coverage.merge(&world::play(seed, false));
    }
    println!("{coverage}");
    if seeds >= SEEDS {
        assert_eq!(
            coverage.missing(),
            [""; 0],
            "a simulation that never meets these proves nothing about them"
        );
    }
}

#[test]
fn a_seed_gives_the_same_history_each_time() {
    for seed in [3, 77] {
        assert_eq!(world::play(seed, false).to_string(), world::play(seed, false).to_string());
    }
}
