//! One link is cut: a follower does not hear its leader, and both hear all others.

use std::time::{Duration, Instant};

use super::lab::in_lab;
use super::site::{BOXES, NetSite};
use crate::harness::until;

/// Far less than the 10 s that a request waits at most, far more than an answer takes.
const AT_ONCE: Duration = Duration::from_secs(5);

#[test]
fn a_box_that_does_not_hear_the_leader_sends_clients_elsewhere_and_loses_nothing() {
    let test = "net::one_link::a_box_that_does_not_hear_the_leader_sends_clients_elsewhere_and_loses_nothing";
    in_lab(test, || {
        let mut net = NetSite::start();
        let leader = net.site.leader();
        let (deaf, other) = ((leader + 1) % BOXES, (leader + 2) % BOXES);
        net.network.cut_only([(leader, deaf), (deaf, leader)]);
        let mut client = net.site.boxes[deaf].client();
        until("it says that it hears no leader", || {
            let answer = client.post("/v1/counters/meanwhile", "{\"add\":1}").ok()?;
            (answer.status == 503 && answer.text().contains("heard no leader")).then_some(())
        });
        for (path, body) in [("/v1/counters/a", "{\"add\":1}"), ("/v1/sources/source/epochs", "")] {
            let begun = Instant::now();
            let answer = client.post(path, body).unwrap();
            assert!(begun.elapsed() < AT_ONCE, "{path}: {:?}", begun.elapsed());
            assert!(answer.status == 503 && answer.problem().ends_with("not-committed"), "{}", answer.text());
            assert!(answer.header("retry-after").is_some());
        }
        let begun = Instant::now();
        assert_eq!(client.get("/v1/series/a").unwrap().status, 503);
        assert_eq!(client.get("/readyz").unwrap().status, 503);
        assert!(begun.elapsed() < AT_ONCE);
        // What nobody waits for is kept until it hears a leader again.
        net.site.boxes[deaf].statsd("b:5|c");
        net.site.boxes[other].add("a", 2);
        net.network.mend();
        net.site.until_ready();
        net.site.boxes[deaf].until_total("b", 5);
        assert_eq!(net.site.boxes[deaf].total("a"), 2, "what was said not to be done was not");
        net.site.assert_same_digests();
    });
}
