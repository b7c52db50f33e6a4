//! The three partial partitions that consensus protocols get stuck in, as the Omni-Paxos paper (Ng, Haridi,
//! Carbone, EuroSys 2023) names them: quorum loss, constrained election, chained.

use std::time::{Duration, Instant};

use super::clients::Clients;
use super::lab::in_lab;
use super::network::{Direction, around};
use super::plan::seed;
use super::site::{BOXES, NetSite};
use super::standstill::{ATTEMPTS, Standstill};
use crate::harness::until;

/// Far more than the few election timeouts that it takes; what it takes is printed.
const AT_MOST: Duration = Duration::from_secs(10);

/// Many election timeouts: what has not happened by then does not happen by itself.
const LONG: Duration = Duration::from_secs(4);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Five boxes and clients that try all of them. After the partition everything is mended, and what the clients
/// were told is checked.
fn with_site(test: &str, body: impl FnOnce(&mut NetSite, &Clients)) {
    in_lab(&format!("net::partitions::{test}"), || {
        let seed = seed();
        eprintln!("TALLYD_TEST_SEED={seed}");
        let mut net = NetSite::start();
        let clients = Clients::start(&net.site, 4, seed);
        clients.until_more(20, "before the partition");
        body(&mut net, &clients);
        net.network.mend();
        net.site.until_ready();
        clients.until_more(20, "after the partition");
        clients.finish().assert_linearizable(&net.site);
        net.site.assert_same_digests();
    });
}

/// The leader, and the others in the order of their places.
fn leader_and_others(net: &NetSite) -> (usize, [usize; BOXES - 1]) {
    let leader = net.site.leader();
    (leader, std::array::from_fn(|step| (leader + 1 + step) % BOXES))
}

/// Everyone talks to this one, and nobody to anybody else.
fn star(hub: usize, others: &[usize]) -> Vec<Direction> {
    others.iter().map(|other| (hub, *other)).collect()
}

/// Quorum loss. Only the hub can lead: the old leader must give up, although it and the hub hear each other.
#[test]
fn when_everyone_hears_only_one_box_that_one_leads() {
    with_site("when_everyone_hears_only_one_box_that_one_leads", |net, clients| {
        let (leader, [hub, others @ ..]) = leader_and_others(net);
        net.network.connect_only(&star(hub, &[leader, others[0], others[1], others[2]]));
        let all: Vec<usize> = (0..BOXES).collect();
        let time = net.time_to_add(&all, "quorum-loss");
        assert!(time < AT_MOST, "{time:?}");
        assert_eq!(stays(net, &all).0, hub, "nobody else reaches a majority");
        clients.until_more(20, "around one box");
        eprintln!(
            "quorum loss: an add was acknowledged {time:.0?} after the partition; then one leader for {LONG:?}"
        );
    });
}

/// Constrained election, of a box that has what is committed.
#[test]
fn without_its_leader_a_site_around_a_box_that_is_up_to_date_goes_on() {
    with_site("without_its_leader_a_site_around_a_box_that_is_up_to_date_goes_on", |net, clients| {
        let (leader, [hub, others @ ..]) = leader_and_others(net);
        // What is under way when the leader goes could be at two of the others and not at the hub, which may then
        // not lead: so the hub is the last to hear it.
        let last: Vec<Direction> = others.iter().map(|other| (leader, *other)).collect();
        net.network.cut_only(last);
        net.network.connect_only(&star(hub, &others));
        let rest = [others[0], others[1], others[2], hub];
        let time = net.time_to_add(&rest, "after");
        assert!(time < AT_MOST, "{time:?}");
        assert_eq!(stays(net, &rest).0, hub, "nobody else reaches a majority");
        clients.until_more(20, "around one box, without the leader");
        eprintln!("constrained election, its hub up to date: an add was acknowledged after {time:.0?}");
    });
}

/// Constrained election, of a box that lags. Raft cannot go on here: the only box that reaches a majority lacks
/// what is committed, so nobody may vote for it, and nobody who has it reaches a majority. (Omni-Paxos brings a
/// new leader up to date after its election, not before.) What must hold: nothing is acknowledged, nothing is
/// lost, the boxes say that there is no leader, and one more link is enough.
#[test]
fn when_only_a_box_that_lags_is_heard_the_site_waits_and_one_link_is_enough() {
    with_site("when_only_a_box_that_lags_is_heard_the_site_waits_and_one_link_is_enough", |net, clients| {
        let (_, [hub, others @ ..]) = leader_and_others(net);
        net.network.cut_only(around(hub, BOXES));
        clients.until_more(20, "of which the hub hears nothing");
        for at in others {
            let last = net.site.boxes[hub].status()["last"].as_u64();
            until("the others have more than the hub", || {
                (net.site.boxes[at].status()["commit"].as_u64() > last).then_some(())
            });
        }
        net.network.connect_only(&star(hub, &others));
        let rest = [others[0], others[1], others[2], hub];
        until("no box sees a leader", || {
            let none = |at: &usize| net.site.boxes[*at].status()["leader"].is_null();
            (0..BOXES).all(|at| none(&at)).then_some(())
        });
        let (begun, acknowledged) = (Instant::now(), clients.acknowledged());
        while begun.elapsed() < LONG {
            for at in rest {
                let status = net.site.boxes[at].status();
                assert!(status["leader"].is_null() && status["ready"] == false, "{status}");
            }
            std::thread::sleep(LOOK_EVERY);
        }
        assert_eq!(clients.acknowledged(), acknowledged, "nobody can have acknowledged anything");
        let mut pairs = star(hub, &others);
        pairs.push((others[0], others[1]));
        net.network.connect_only(&pairs);
        let time = net.time_to_add(&[others[0], others[1], hub], "one-link");
        assert!(time < AT_MOST, "{time:?}");
        let leads = net.leader_among(&rest);
        assert!([others[0], others[1]].map(Some).contains(&leads), "the hub lags: {leads:?}");
        eprintln!(
            "constrained election, its hub lags: nothing for {LONG:?}; with one more link an add was acknowledged \
             after {time:.0?}"
        );
    });
}

/// Chained: boxes in a row, each hearing only its neighbours.
#[test]
fn in_a_chain_one_leader_stays() {
    with_site("in_a_chain_one_leader_stays", |net, clients| {
        for end in [true, false] {
            let (leader, [a, b, c, d]) = leader_and_others(net);
            // The leader at an end reaches no majority and must give up; in the middle it stays.
            let row = if end { [leader, a, b, c, d] } else { [a, b, leader, c, d] };
            let pairs: Vec<Direction> = row.windows(2).map(|pair| (pair[0], pair[1])).collect();
            let before = net.term();
            net.network.connect_only(&pairs);
            let inner = [row[1], row[2], row[3]];
            let time = net.time_to_add(&inner, &format!("chain-{end}"));
            assert!(time < AT_MOST, "{time:?}");
            let (_, settled) = stays(net, &inner);
            clients.until_more(20, "in a chain");
            eprintln!(
                "chained, the leader {}: an add was acknowledged after {time:.0?}, {} terms later; then one leader \
                 for {LONG:?}",
                if end { "at an end" } else { "in the middle" },
                settled - before
            );
            net.network.mend();
            net.site.until_ready();
        }
    });
}

/// The box that leads for long, in one term; fails if there is an election without a failure.
fn stays(net: &NetSite, among: &[usize]) -> (usize, u64) {
    let seen = || {
        let leader = net.leader_among(among)?;
        Some((leader, net.site.boxes[leader].try_status()?["term"].as_u64()?))
    };
    for _ in 0..ATTEMPTS {
        let standstill = Standstill::watch();
        let settled = until("a box leads", seen);
        let begun = Instant::now();
        while begun.elapsed() < LONG && seen() == Some(settled) {
            std::thread::sleep(LOOK_EVERY);
        }
        if begun.elapsed() >= LONG {
            return settled;
        }
        assert!(
            standstill.was_long(),
            "the leader changed without a failure: {settled:?}, then {:?}",
            seen()
        );
    }
    panic!("this machine stood still again and again, so nothing can be said");
}
