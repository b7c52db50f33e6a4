//! How long the site takes no adds when its leader is gone without a word.

use std::time::Duration;

use super::lab::in_lab;
use super::network::around;
use super::site::{BOXES, NetSite};

const ROUNDS: usize = 10;

/// Far more than it takes; what it takes is printed.
const AT_MOST: Duration = Duration::from_secs(10);

#[test]
fn a_leader_that_is_cut_off_silently_is_replaced() {
    in_lab("net::failover::a_leader_that_is_cut_off_silently_is_replaced", || {
        let mut net = NetSite::start();
        let mut times = Vec::new();
        for round in 0..ROUNDS {
            let leader = net.site.leader();
            // In every second round the client begins at the box that is cut off.
            let boxes: Vec<usize> = (0..BOXES).map(|step| (leader + round % 2 + step) % BOXES).collect();
            net.network.cut_only(around(leader, BOXES));
            let time = net.time_to_add(&boxes, &format!("round-{round}"));
            assert!(time < AT_MOST, "{time:?}");
            let term = net.site.boxes[leader].status()["term"].clone();
            net.network.mend();
            net.site.until_ready();
            let after = net.site.boxes[leader].status()["term"].clone();
            assert_ne!(term, after, "another leader was elected without it");
            times.push(time);
        }
        times.sort_unstable();
        eprintln!(
            "from the silent cut of the leader to the next acknowledged add, {ROUNDS} times: median {:.0?}, worst {:.0?}",
            times[ROUNDS / 2],
            times[ROUNDS - 1]
        );
        assert_eq!(net.site.boxes[0].total("probe"), ROUNDS as i64);
        net.site.assert_same_digests();
    });
}
