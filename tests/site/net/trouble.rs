//! Boxes are killed, paused and cut off, the leader as well as others, while clients go on: nothing that they
//! were told is wrong.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::clients::Clients;
use super::lab::in_lab;
use super::network::{Direction, around};
use super::plan::{Rng, Step, Trouble, Victim, plan, seed};
use super::relay::Weather;
use super::site::{BOXES, NetSite};

const CLIENTS: u64 = 6;

/// At a leader that is cut off.
const SINGLE_TRIES: usize = 8;

/// So many adds show that a site goes on.
const ENOUGH: u64 = 40;

const ROUGH: Weather = Weather { loss_permille: 50, jitter: Duration::from_millis(20) };

#[test]
fn a_site_in_trouble_loses_and_doubles_nothing() {
    in_lab("net::trouble::a_site_in_trouble_loses_and_doubles_nothing", || {
        let seed = seed();
        eprintln!("TALLYD_TEST_SEED={seed}");
        let mut rng = Rng::new(seed);
        let steps = plan(&mut rng);
        for (number, step) in (1..).zip(&steps) {
            eprintln!("{number:2}. {step}");
        }
        let mut net = NetSite::start_relayed(seed);
        let mut clients = Clients::start(&net.site, CLIENTS, rng.next());
        clients.until_more(ENOUGH, "before any trouble");
        for (number, step) in (1..).zip(&steps) {
            take(&mut net, &mut clients, number, step);
        }
        let notes = clients.finish();
        net.site.until_ready();
        notes.assert_linearizable(&net.site);
        net.site.assert_same_digests();
    });
}

/// One step of the plan: the site goes on with the trouble, and after it.
fn take(net: &mut NetSite, clients: &mut Clients, number: usize, step: &Step) {
    let leader = net.site.leader();
    let strikes: Vec<(usize, Trouble)> = step
        .strikes
        .iter()
        .map(|strike| match strike.victim {
            Victim::Leader => (leader, strike.trouble),
            Victim::Follower(choice) => (other(leader, choice), strike.trouble),
        })
        .collect();
    let begun = Instant::now();
    set_weather(net, if step.rough { ROUGH } else { Weather::default() });
    net.network.cut_only(strikes.iter().flat_map(|(victim, trouble)| cuts(*victim, *trouble)));
    for (victim, trouble) in &strikes {
        strike(net, *victim, *trouble);
    }
    clients.until_more(ENOUGH, &step.to_string());
    let went_on = begun.elapsed();
    if strikes.contains(&(leader, Trouble::CutOff)) {
        // Long enough for the old leader to give up what it is asked, and to say what became of it.
        clients.try_once_at(&net.site.boxes[leader], SINGLE_TRIES);
    }
    for (victim, trouble) in &strikes {
        heal(net, *victim, *trouble, begun);
    }
    net.network.mend();
    set_weather(net, Weather::default());
    net.site.until_ready();
    clients.until_more(ENOUGH, &format!("after: {step}"));
    eprintln!("{number:2}. {ENOUGH} adds after {went_on:.1?}, healed after {:.1?}", begun.elapsed());
}

/// What is not carried any more.
fn cuts(victim: usize, trouble: Trouble) -> Vec<Direction> {
    let mut around = around(victim, BOXES);
    match trouble {
        Trouble::Kill | Trouble::Pause(_) | Trouble::Unplug => return Vec::new(),
        Trouble::CutOff => {}
        Trouble::Deaf => around.retain(|(_, to)| *to == victim),
        Trouble::Mute => around.retain(|(from, _)| *from == victim),
        Trouble::OneWay(choice) => return vec![(victim, other(victim, choice))],
        Trouble::Pair(choice) => {
            let other = other(victim, choice);
            return vec![(victim, other), (other, victim)];
        }
    }
    around
}

fn strike(net: &mut NetSite, victim: usize, trouble: Trouble) {
    match trouble {
        Trouble::Kill => net.site.boxes[victim].kill(),
        Trouble::Pause(_) => signal(net, victim, Signal::STOP),
        Trouble::Unplug => net.network.unplug(victim),
        _ => {}
    }
}

fn heal(net: &mut NetSite, victim: usize, trouble: Trouble, begun: Instant) {
    match trouble {
        Trouble::Kill => net.site.boxes[victim].start(),
        Trouble::Pause(time) => {
            // The trouble is its length.
            std::thread::sleep(time.saturating_sub(begun.elapsed()));
            signal(net, victim, Signal::CONT);
        }
        Trouble::Unplug => net.network.plug(victim),
        _ => {}
    }
}

fn signal(net: &NetSite, at: usize, signal: Signal) {
    net.site.boxes[at].process.as_ref().expect("it runs").signal(signal);
}

fn set_weather(net: &NetSite, weather: Weather) {
    net.relay.as_ref().expect("this site has a relay").set(weather);
}

/// Some other box.
fn other(than: usize, choice: u64) -> usize {
    (than + 1 + (choice % (BOXES as u64 - 1)) as usize) % BOXES
}
