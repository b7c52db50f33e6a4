//! How long the site takes no adds when its leader is gone without a word.

use std::time::Duration;

use rustix::process::Signal;

use super::lab::in_lab;
use super::network::{Direction, around};
use super::site::{BOXES, NetSite};
use super::standstill::Standstill;

/// Of each kind.
const ROUNDS: usize = 4;

/// In election timeouts in force: up to two until a leader that hears nobody gives up, up to two until somebody
/// campaigns, as many again for a split vote, and as many again for a machine that is busy. What it takes is
/// printed: in 480 failovers on a busy machine up to four, one or two as a rule.
const TIMEOUTS_AT_MOST: u32 = 12;

/// Ways to go without a word.
#[derive(Clone, Copy, Debug)]
enum Silence {
    /// kill -9: the one way in which the machine still refuses whoever asks.
    Killed,
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
            Silence::Killed,
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
                election_timeout(&net).as_millis()
            );
        }
        assert_eq!(net.site.boxes[0].total("probe"), (kinds.len() * ROUNDS) as i64);
        net.site.assert_same_digests();
    });
}

/// The time from the leader's last word to an add that a client begins then and is told of.
fn replace_leader(net: &mut NetSite, kind: Silence, round: usize) -> Duration {
    let leader = net.site.leader();
    let (term, timeout) = (net.term(), election_timeout(net));
    let standstill = Standstill::watch();
    silence(net, kind, leader);
    // In every second round the client begins at the box that is gone.
    let boxes: Vec<usize> = (0..BOXES).map(|step| (leader + round % 2 + step) % BOXES).collect();
    let time = net.time_to_add(&boxes, &format!("{kind:?}-{round}"));
    // What the machine stood still looks to the boxes like a slow disk or link, and comes on top at each step.
    let at_most = (timeout + standstill.worst()) * TIMEOUTS_AT_MOST;
    assert!(
        time < at_most,
        "{time:?} with {timeout:?} in force; the machine stood still {:?}",
        standstill.worst()
    );
    match kind {
        Silence::Killed => net.start_box(leader),
        Silence::CablePulled => net.network.plug(leader),
        Silence::Stopped => signal(net, leader, Signal::CONT),
        Silence::CutOff | Silence::HearsNobody | Silence::HeardByNobody => net.network.mend(),
    }
    net.site.until_ready();
    assert!(net.term() > term, "another leader was elected meanwhile, since the old one could not commit");
    time
}

/// As the leader says.
fn election_timeout(net: &NetSite) -> Duration {
    let adaptive_timeout = net.site.boxes[net.site.leader()].status()["adaptive_timeout"].clone();
    Duration::from_millis(adaptive_timeout["election_timeout_ms"].as_u64().unwrap())
}

fn silence(net: &mut NetSite, kind: Silence, leader: usize) {
    let directions = |choose: fn(&Direction, usize) -> bool| -> Vec<Direction> {
        around(leader, BOXES).into_iter().filter(|direction| choose(direction, leader)).collect()
    };
    match kind {
        Silence::Killed => net.site.boxes[leader].kill(),
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
