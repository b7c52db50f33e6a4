//! The pace of a site: what the leader decides is in force everywhere.

use std::path::Path;

use serde_json::Value;

use crate::boxes::Site;
use crate::harness::until;

const TIMEOUTS_MS: [u64; 3] = [300, 400, 500];

fn pace(site: &Site, at: usize) -> Value {
    site.boxes[at].status()["pace"].clone()
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
        let timeouts: Vec<u64> =
            (0..3).map(|at| pace(&site, at)["election_timeout_ms"].as_u64()).collect::<Option<_>>()?;
        (timeouts.iter().all(|timeout| *timeout == timeouts[leader])
            && timeouts[leader] >= TIMEOUTS_MS[leader])
            .then_some(())
    });
    until("the leader shows itself four times in a timeout", || {
        let pace = pace(&site, leader);
        (pace["heartbeat_ms"].as_u64()? == pace["election_timeout_ms"].as_u64()? / 4).then_some(())
    });
    site.boxes[leader].kill();
    let next = site.leader();
    assert_ne!(next, leader);
    assert_eq!(site.boxes[next].add("a", 3), 3);
}
