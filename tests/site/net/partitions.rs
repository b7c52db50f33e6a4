//! The three partial partitions that consensus protocols get stuck in, as the Omni-Paxos paper (Ng, Haridi,
//! Carbone, EuroSys 2023) names them.

use std::time::{Duration, Instant};

use super::lab::in_lab;
use super::network::{Direction, around};
use super::site::{BOXES, NetSite};
use crate::harness::until;

/// Far more than the few election timeouts that it takes; what it takes is printed.
const AT_MOST: Duration = Duration::from_secs(10);

/// Many election timeouts: what has not happened by then does not happen by itself.
const LONG: Duration = Duration::from_secs(4);

/// The leader, and the others in the order of their places.
fn leader_and_others(net: &NetSite) -> (usize, [usize; BOXES - 1]) {
    let leader = net.site.leader();
    (leader, std::array::from_fn(|step| (leader + 1 + step) % BOXES))
}

/// Everyone talks to this one, and nobody to anybody else.
fn star(hub: usize, others: &[usize]) -> Vec<Direction> {
    others.iter().map(|other| (hub, *other)).collect()
}

#[test]
fn when_everyone_hears_only_one_box_that_one_leads() {
    in_lab("net::partitions::when_everyone_hears_only_one_box_that_one_leads", || {
        let mut net = NetSite::start();
        let (leader, others) = leader_and_others(&net);
        let hub = others[0];
        // The leader itself is one of those that hear only the hub.
        net.network.connect_only(&star(hub, &[leader, others[1], others[2], others[3]]));
        let all: Vec<usize> = (0..BOXES).collect();
        let time = net.time_to_add(&all, "quorum-loss");
        eprintln!("quorum loss: an add was acknowledged {time:.0?} after the partition");
        assert!(time < AT_MOST, "{time:?}");
        assert_eq!(net.leader_among(&all), Some(hub), "nobody else reaches a majority");
        net.network.mend();
        net.site.until_ready();
        net.site.assert_same_digests();
    });
}

#[test]
fn without_its_leader_a_site_around_a_box_that_is_up_to_date_goes_on() {
    in_lab("net::partitions::without_its_leader_a_site_around_a_box_that_is_up_to_date_goes_on", || {
        let mut net = NetSite::start();
        let (leader, [hub, others @ ..]) = leader_and_others(&net);
        net.site.boxes[leader].add("before", 1);
        net.site.boxes[hub].until_total("before", 1);
        net.network.connect_only(&star(hub, &others));
        let rest = [others[0], others[1], others[2], hub];
        let time = net.time_to_add(&rest, "after");
        eprintln!("constrained election, its hub up to date: an add was acknowledged after {time:.0?}");
        assert!(time < AT_MOST, "{time:?}");
        assert_eq!(net.leader_among(&rest), Some(hub));
        net.network.mend();
        net.site.until_ready();
        net.site.assert_same_digests();
    });
}

/// Raft cannot go on here: the only box that reaches a majority lacks what is committed, so nobody may vote for
/// it, and nobody who has it reaches a majority. (Omni-Paxos brings the new leader up to date after its election,
/// not before.) What must hold: nothing is acknowledged, nothing is lost, the site says that it has no leader,
/// and one more link is enough.
#[test]
fn when_only_a_box_that_lags_is_heard_the_site_waits_and_one_link_is_enough() {
    in_lab(
        "net::partitions::when_only_a_box_that_lags_is_heard_the_site_waits_and_one_link_is_enough",
        || {
            let mut net = NetSite::start();
            let (leader, [hub, others @ ..]) = leader_and_others(&net);
            net.network.cut_only(around(hub, BOXES));
            // All but the hub get these.
            for at in [leader, others[0], others[1], others[2]] {
                net.site.boxes[at].add("missed", 1);
            }
            for at in others {
                net.site.boxes[at].until_total("missed", 4);
            }
            net.network.connect_only(&star(hub, &others));
            // Whatever is added now must not be acknowledged.
            let mut client = net.site.boxes[others[0]].client().patient_for(LONG);
            let told = client.post_keyed("/v1/counters/missed", r#"{"add":1}"#, "stuck");
            assert!(!told.as_ref().is_ok_and(|answer| answer.status == 200), "{told:?}");
            for at in [hub, others[0], others[1], others[2]] {
                let status = net.site.boxes[at].status();
                assert_ne!(status["role"], "leader", "{status}");
                assert!(status["leader"].is_null() && status["ready"] == false, "{status}");
            }
            let begun = Instant::now();
            let mut pairs = star(hub, &others);
            pairs.push((others[0], others[1]));
            net.network.connect_only(&pairs);
            let rest = [others[0], others[1], hub];
            let time = net.time_to_add(&rest, "one-link");
            let leads = until("the boxes that can lead agree", || net.leader_among(&[others[0], others[1]]));
            eprintln!(
                "constrained election: nothing for {LONG:?}; with one more link an add was acknowledged after {time:.0?} \
             (box{} leads)",
                leads + 1
            );
            assert!(begun.elapsed() < AT_MOST + LONG, "{:?}", begun.elapsed());
            net.network.mend();
            net.site.until_ready();
            assert_eq!(
                net.site.boxes[hub]
                    .client()
                    .post_keyed("/v1/counters/missed", r#"{"add":1}"#, "stuck")
                    .unwrap()
                    .ok()["total"],
                5
            );
            assert_eq!(net.site.boxes[hub].total("missed"), 5);
            net.site.assert_same_digests();
        },
    );
}

/// Boxes in a row, each hearing only its neighbours.
#[test]
fn in_a_chain_one_leader_stays() {
    in_lab("net::partitions::in_a_chain_one_leader_stays", || {
        let mut net = NetSite::start();
        for end in [true, false] {
            let (leader, [a, b, c, d]) = leader_and_others(&net);
            // The leader at an end reaches no majority and must give up; in the middle it stays.
            let row = if end { [leader, a, b, c, d] } else { [a, b, leader, c, d] };
            let pairs: Vec<Direction> = row.windows(2).map(|pair| (pair[0], pair[1])).collect();
            let before = net.term();
            net.network.connect_only(&pairs);
            let inner = [row[1], row[2], row[3]];
            let time = net.time_to_add(&inner, &format!("chain-{end}"));
            assert!(time < AT_MOST, "{time:?}");
            let leads = until("someone inside leads", || net.leader_among(&inner));
            let term = |at: usize| net.site.boxes[at].status()["term"].as_u64().unwrap();
            let settled = term(leads);
            let begun = Instant::now();
            while begun.elapsed() < LONG {
                assert_eq!(net.leader_among(&inner), Some(leads), "the leader changed without a failure");
                std::thread::sleep(Duration::from_millis(100));
            }
            assert_eq!(term(leads), settled, "no election without a failure");
            eprintln!(
                "chained, the leader {}: an add was acknowledged after {time:.0?}, {} terms later; then one leader for {LONG:?}",
                if end { "at an end" } else { "in the middle" },
                settled - before
            );
            net.network.mend();
            net.site.until_ready();
        }
        net.site.assert_same_digests();
    });
}
