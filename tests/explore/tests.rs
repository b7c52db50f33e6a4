//! What is explored when the tests run.

use std::time::Duration;

use tally_core::raft::Raft;

use crate::search::search;
use crate::sites::{self, Site};

const SECONDS: u64 = 12;

/// What is explored: a core for three nodes that remembers two terms, so that it has to look them up.
type Core = Raft<3, 2>;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

fn explore(site: &Site) {
    let mut tuned = *site;
    if let Ok(b) = std::env::var("B") {
        let v: Vec<u8> = b.split(',').map(|x| x.parse().unwrap()).collect();
        let bb = &mut tuned.bounds;
        (
            bb.expiries,
            bb.ticks,
            bb.crashes,
            bb.duplicates,
            bb.proposals,
            bb.reads,
            bb.compactions,
            bb.in_flight,
            bb.terms,
            bb.failures,
        ) = (v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9]);
    }
    let site = &tuned;

    let more = u8::try_from(number("TALLYD_EXPLORE_MORE").unwrap_or(0)).expect("bounds are small");
    let time = Duration::from_secs(number("TALLYD_EXPLORE_SECONDS").unwrap_or(SECONDS));
    let found = search(&site.start::<Core>(more), time);
    println!("{}: {found}", site.name);
    println!("    {:?}", site.bounds.widened(more));
    println!("    {:?}", found.met);
    if let Some((what, story)) = found.violation {
        panic!("{what}\n{}\n{what}", story.join("\n"));
    }
    assert!(found.states > 1000, "a search that ends at once shows nothing");
}

#[test]
fn no_election_goes_wrong() {
    explore(&sites::ELECTIONS);
}

#[test]
fn no_order_of_pre_votes_goes_wrong() {
    explore(&sites::PRE_VOTES);
}

#[test]
fn no_order_of_appends_goes_wrong() {
    explore(&sites::REPLICATION);
}

#[test]
fn figure_8_commits_nothing_that_is_lost() {
    explore(&sites::FIGURE_8);
}

#[test]
fn copies_and_late_messages_do_no_harm() {
    explore(&sites::COPIES);
}

#[test]
fn no_pipeline_goes_wrong() {
    explore(&sites::PIPELINE);
}

#[test]
fn no_tick_goes_wrong() {
    explore(&sites::TICKS);
}

#[test]
fn no_comeback_goes_wrong() {
    explore(&sites::COMEBACK);
}

#[test]
fn no_read_is_stale() {
    explore(&sites::READS);
}

#[test]
fn no_snapshot_goes_wrong() {
    explore(&sites::SNAPSHOTS);
}

#[test]
fn no_late_snapshot_goes_wrong() {
    explore(&sites::LATE_SNAPSHOTS);
}

#[test]
fn no_failing_disk_goes_wrong() {
    explore(&sites::FAILURES);
}
