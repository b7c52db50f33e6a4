//! The adaptive_timeout of a site: what the leader decides is in force everywhere.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::boxes::Site;
use crate::harness::until;

const TIMEOUTS_MS: [u64; 3] = [300, 400, 500];

fn adaptive_timeout(site: &Site, at: usize) -> Value {
    site.boxes[at].status()["adaptive_timeout"].clone()
}

#[test]
fn all_boxes_have_the_election_timeout_that_the_leader_announces() {
    let mut site = Site::provision(3, "1s", "");
    for (one, timeout_ms) in site.boxes.iter_mut().zip(TIMEOUTS_MS) {
        let timeout = format!("{timeout_ms}ms");
        one.start_with(&[("TALLYD_CLUSTER_ELECTION_TIMEOUT_MIN", Path::new(&timeout))]);
    }
    site.until_ready();
    let leader = site.leader();
    // A machine that is busy with other tests may need a longer one than the least that was asked for.
    until("all boxes have the leader's timeout", || {
        let timeouts: Vec<u64> = (0..3)
            .map(|at| adaptive_timeout(&site, at)["election_timeout_ms"].as_u64())
            .collect::<Option<_>>()?;
        (timeouts.iter().all(|timeout| *timeout == timeouts[leader])
            && timeouts[leader] >= TIMEOUTS_MS[leader])
            .then_some(())
    });
    until("the leader shows itself four times in a timeout", || {
        let adaptive_timeout = adaptive_timeout(&site, leader);
        (adaptive_timeout["heartbeat_ms"].as_u64()? == adaptive_timeout["election_timeout_ms"].as_u64()? / 4)
            .then_some(())
    });
    site.boxes[leader].kill();
    let next = site.leader();
    assert_ne!(next, leader);
    assert_eq!(site.boxes[next].add("a", 3), 3);
}

/// How long a box of a starved machine gets no processor time at a time: longer than two of the shortest timeouts.
const STARVED_FOR: Duration = Duration::from_millis(500);
/// And all of them get it then.
const FED_FOR: Duration = Duration::from_millis(250);

/// Each box in turn gets no processor time for a while.
fn starve_in_turns(site: &Site) {
    for one in &site.boxes {
        let process = one.process.as_ref().unwrap();
        process.signal(Signal::STOP);
        std::thread::sleep(STARVED_FOR);
        process.signal(Signal::CONT);
        std::thread::sleep(FED_FOR);
    }
}

/// The highest term that a box knows, if all tell.
pub(crate) fn term(site: &Site) -> Option<u64> {
    site.boxes
        .iter()
        .map(|one| one.try_status()?["term"].as_u64())
        .try_fold(0, |most, term| Some(most.max(term?)))
}

#[test]
fn on_a_starved_machine_nobody_campaigns_once_the_timeout_has_followed() {
    let site = Site::start(3);
    until("a box knows how late it is again and again", || {
        starve_in_turns(&site);
        let late_us = |at: usize| adaptive_timeout(&site, at)["late_us"].as_u64();
        // Three times that is the least timeout from then on.
        (0..3).any(|at| late_us(at) >= Some(STARVED_FOR.as_micros() as u64 * 3 / 5)).then_some(())
    });
    let told: u64 = (0..3).filter_map(|at| adaptive_timeout(&site, at)["leader_late"].as_u64()).sum();
    assert!(told > 0, "a leader was late by more than the timeout that was in force, and does not say so");
    // Whoever leads has heard of it by then.
    starve_in_turns(&site);
    let before = until("all boxes tell the term", || term(&site));
    for total in 1..=4 {
        starve_in_turns(&site);
        assert_eq!(site.boxes[0].add("a", 1), total);
    }
    let after = until("all boxes tell the term", || term(&site));
    let adaptive_timeouts: Vec<Value> = (0..3).map(|at| adaptive_timeout(&site, at)).collect();
    assert_eq!(after, before, "elections without a failure: {adaptive_timeouts:?}");
}
