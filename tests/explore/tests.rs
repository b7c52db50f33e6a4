//! What is explored when the tests run.

use std::cell::Cell;
use std::time::Duration;

use tally_core::raft::Raft;

use crate::bounds::Met;
use crate::explored::Explored;
use crate::search::search;
use crate::sites::{self, Site};

/// On a machine that is busy with other things, too, each site meets what it is for in a part of that.
const SECONDS: u64 = 60;

/// What is explored: a core for three nodes that remembers two terms, so that it has to look them up.
type Core = Raft<3, 2>;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

/// Explores a site; each of these must be met on the way.
pub(crate) fn explore<C: Explored>(site: &Site, meets: &[fn(&Met) -> &Cell<u64>]) {
    let more = u8::try_from(number("TALLYD_EXPLORE_MORE").unwrap_or(0)).expect("bounds are small");
    let time = Duration::from_secs(number("TALLYD_EXPLORE_SECONDS").unwrap_or(SECONDS));
    let found = search(&site.start::<C>(more), time);
    println!("{site}\n    {found}");
    println!("    {:?}", site.bounds.widened(more));
    println!("    {:?}", found.met);
    if let Some((what, story)) = found.violation {
        panic!("{what}\n{}\n{}\n{what}", site.prologue::<C>(), story.join("\n"));
    }
    let all_met = meets.iter().all(|meets| meets(&found.met).get() > 0);
    let advice =
        if found.complete { "" } else { " (it was out of time: TALLYD_EXPLORE_SECONDS gives it more)" };
    assert!(all_met, "a search that never meets what it is for shows nothing{advice}: {:?}", found.met);
    // `cargo xtask verify` adds these up.
    println!("proof: exploration: 1 sites, {} states", found.states);
}

#[test]
fn no_election_goes_wrong() {
    explore::<Core>(&sites::ELECTIONS, &[|met| &met.elected_late]);
}

#[test]
fn no_order_of_pre_votes_goes_wrong() {
    explore::<Core>(&sites::PRE_VOTES, &[|met| &met.elected_late]);
}

#[test]
fn no_order_of_appends_goes_wrong() {
    explore::<Core>(&sites::REPLICATION, &[|met| &met.replaced]);
}

#[test]
fn figure_8_commits_nothing_that_is_lost() {
    explore::<Core>(&sites::FIGURE_8, &[|met| &met.replaced]);
}

#[test]
fn copies_and_late_messages_do_no_harm() {
    explore::<Core>(&sites::COPIES, &[|met| &met.replaced]);
}

#[test]
fn no_pipeline_goes_wrong() {
    explore::<Core>(&sites::PIPELINE, &[|met| &met.replaced]);
}

#[test]
fn no_tick_goes_wrong() {
    explore::<Core>(&sites::TICKS, &[|met| &met.elected]);
}

#[test]
fn no_comeback_goes_wrong() {
    explore::<Core>(&sites::COMEBACK, &[|met| &met.committed]);
}

#[test]
fn no_read_is_stale() {
    explore::<Core>(&sites::READS, &[|met| &met.reads_confirmed]);
}

#[test]
fn no_snapshot_goes_wrong() {
    explore::<Core>(&sites::SNAPSHOTS, &[|met| &met.installed]);
}

#[test]
fn no_late_snapshot_goes_wrong() {
    explore::<Core>(&sites::LATE_SNAPSHOTS, &[|met| &met.installed]);
}

#[test]
fn no_failing_disk_goes_wrong() {
    explore::<Core>(&sites::FAILURES, &[|met| &met.lost_by_crash]);
}

#[test]
fn no_election_with_a_witness_goes_wrong() {
    explore::<Core>(&sites::WITNESS, &[|met| &met.witness_stored]);
}

#[test]
fn no_crash_beside_a_witness_goes_wrong() {
    explore::<Core>(&sites::WITNESS_CRASHES, &[|met| &met.witness_stored]);
}

#[test]
fn no_swap_for_the_witness_goes_wrong() {
    explore::<Core>(&sites::WITNESS_SWAPS, &[|met| &met.witness_stored]);
}
