//! All states of small sites, on the real core: every order of messages, lost and doubled ones, crashes that lose
//! what is not synced, disks that take their time, timers that run out at any moment; within bounds that are said.
//! In some the members change, and boxes join with an empty log (`member_sites`); some begin where a script has brought
//! them (`script`), which is said. The invariants are checked in each state. What violates one is told as the shortest
//! story that was found.
//!
//! `TALLYD_EXPLORE_SECONDS=N` gives each site N seconds in place of 60; `TALLYD_EXPLORE_MORE=N` widens the bounds by
//! N of each kind. `cargo test --test explore -- --nocapture` shows what was visited, and whether that is
//! everything within the bounds or the time was up.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "all of it is a test: a panic is the failure report"
)]

mod bounds;
mod bug_sites;
#[path = "../scenarios/describe.rs"]
mod describe;
mod explored;
mod hash;
mod hashing;
#[path = "../scenarios/invariants.rs"]
mod invariants;
mod member_sites;
mod member_tests;
mod members;
mod mutations;
#[path = "../scenarios/node.rs"]
mod node;
#[path = "../scenarios/plain_log.rs"]
mod plain_log;
mod script;
mod search;
mod sites;
mod state;
mod tests;
mod witness;
