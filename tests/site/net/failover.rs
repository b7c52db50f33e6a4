//! How long the site takes no adds when its leader is gone without a word.

use std::time::Duration;

use rustix::process::Signal;

use super::lab::in_lab;
use super::network::{Direction, around};
use super::site::{BOXES, NetSite};

/// Of each kind.
const ROUNDS: usize = 4;

/// Twice the longest election timeout and more; what it takes is printed.
const AT_MOST: Duration = Duration::from_secs(25);

/// Ways to go without a refused connection or any other word.
#[derive(Clone, Copy, Debug)]
enum Silence {
    CutOff,
    HearsNobody,
    HeardByNobody,
    CablePulled,
    Stopped,
}

#[test]
fn a_leader_that_goes_without_a_word_is_replaced() {
    in_lab("net::failover::a_leader_that_goes_without_a_word_is_replaced", || {
        let mut net = NetSite::start();
        let kinds = [
            Silence::CutOff,
            Silence::HearsNobody,
            Silence::HeardByNobody,
            Silence::CablePulled,
            Silence::Stopped,
        ];
        for kind in kinds {
            let mut times: Vec<Duration> =
                (0..ROUNDS).map(|round| replace_leader(&mut net, kind, round)).collect();
            times.sort_unstable();
            eprintln!(
                "the leader silent ({kind:?}), {ROUNDS} times: an add was acknowledged after {:.0?} (median), {:.0?} (worst); \
                 election timeout in force afterwards {} ms",
                times[ROUNDS / 2],
                times[ROUNDS - 1],
                net.site.boxes[net.site.leader()].status()["pace"]["election_timeout_ms"]
            );
        }
        assert_eq!(net.site.boxes[0].total("probe"), (kinds.len() * ROUNDS) as i64);
        net.site.assert_same_digests();
    });
}

/// The time from the leader's last word to an add that a client begins then and is told of.
fn replace_leader(net: &mut NetSite, kind: Silence, round: usize) -> Duration {
    let leader = net.site.leader();
    let term = net.term();
    silence(net, kind, leader);
    // In every second round the client begins at the box that is gone.
    let boxes: Vec<usize> = (0..BOXES).map(|step| (leader + round % 2 + step) % BOXES).collect();
    let time = net.time_to_add(&boxes, &format!("{kind:?}-{round}"));
    assert!(time < AT_MOST, "{time:?}");
    match kind {
        Silence::CablePulled => net.network.plug(leader),
        Silence::Stopped => signal(net, leader, Signal::CONT),
        Silence::CutOff | Silence::HearsNobody | Silence::HeardByNobody => net.network.mend(),
    }
    net.site.until_ready();
    assert!(net.term() > term, "another leader was elected meanwhile, since the old one could not commit");
    time
}

fn silence(net: &mut NetSite, kind: Silence, leader: usize) {
    let directions = |choose: fn(&Direction, usize) -> bool| -> Vec<Direction> {
        around(leader, BOXES).into_iter().filter(|direction| choose(direction, leader)).collect()
    };
    match kind {
        Silence::CutOff => net.network.cut_only(around(leader, BOXES)),
        Silence::HearsNobody => net.network.cut_only(directions(|(_, to), leader| *to == leader)),
        Silence::HeardByNobody => net.network.cut_only(directions(|(from, _), leader| *from == leader)),
        Silence::CablePulled => net.network.unplug(leader),
        Silence::Stopped => signal(net, leader, Signal::STOP),
    }
}

fn signal(net: &NetSite, at: usize, signal: Signal) {
    net.site.boxes[at].process.as_ref().expect("it runs").signal(signal);
}
