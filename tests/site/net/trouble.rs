//! Boxes are killed, paused and cut off, the leader as well as others, while clients go on: nothing that they
//! were told is wrong.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::clients::Clients;
use super::clock::{Drift, Wall, now_ms};
use super::lab::in_lab;
use super::network::{Direction, around};
use super::plan::{Rng, Step, Trouble, Victim, WrongClock, plan, seed};
use super::relay::Weather;
use super::site::{BOXES, NetSite};
use super::times::{SERIES, Times};
use crate::harness::until;

const CLIENTS: u64 = 6;

/// At a leader that is cut off.
const SINGLE_TRIES: usize = 8;

/// So many adds show that a site goes on.
const ENOUGH: u64 = 40;

/// How far site time may be from the true one: a box that has just started knows it from its log.
const APART_MS_MAX: i64 = 2000;

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
        let times = Times::watch(&net.site, APART_MS_MAX);
        let mut clients = Clients::start(&net.site, CLIENTS, rng.next());
        clients.until_more(ENOUGH, "before any trouble");
        for (number, step) in (1..).zip(&steps) {
            take(&mut net, &mut clients, number, step);
        }
        let notes = clients.finish();
        net.site.until_ready();
        notes.assert_linearizable(&net.site);
        times.finish(&net, &[SERIES, "history/1", "history/2"]);
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
    let drifts: Vec<Drift> =
        strikes.iter().filter_map(|(victim, trouble)| strike(net, *victim, *trouble)).collect();
    clients.until_more(ENOUGH, &step.to_string());
    if let [(victim, Trouble::Clock(wrong))] = strikes[..] {
        until_noticed(net, victim, wrong);
    }
    let went_on = begun.elapsed();
    if strikes.contains(&(leader, Trouble::CutOff)) {
        // Long enough for the old leader to give up what it is asked, and to say what became of it.
        clients.try_once_at(&net.site.boxes[leader], SINGLE_TRIES);
    }
    for drift in drifts {
        drift.end();
    }
    for (victim, trouble) in &strikes {
        heal(net, *victim, *trouble, begun);
    }
    net.network.mend();
    set_weather(net, Weather::default());
    net.site.until_ready();
    until_time_is_right(net);
    clients.until_more(ENOUGH, &format!("after: {step}"));
    eprintln!("{number:2}. {ENOUGH} adds after {went_on:.1?}, healed after {:.1?}", begun.elapsed());
}

/// What is not carried any more.
fn cuts(victim: usize, trouble: Trouble) -> Vec<Direction> {
    let mut around = around(victim, BOXES);
    match trouble {
        Trouble::Kill | Trouble::Pause(_) | Trouble::Unplug | Trouble::Clock(_) => return Vec::new(),
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

/// What lasts until it is ended is given back.
fn strike(net: &mut NetSite, victim: usize, trouble: Trouble) -> Option<Drift> {
    match trouble {
        Trouble::Kill => net.site.boxes[victim].kill(),
        Trouble::Pause(_) => signal(net, victim, Signal::STOP),
        Trouble::Unplug => net.network.unplug(victim),
        Trouble::Clock(WrongClock::Set(wall)) => net.set_wall(victim, wall),
        Trouble::Clock(WrongClock::Boots1970) => {
            net.site.boxes[victim].kill();
            net.set_wall(victim, Wall::of_1970());
            net.start_box(victim);
        }
        Trouble::Clock(WrongClock::Drifts(permille)) => {
            return Some(Drift::start(vec![net.wall_file(victim)], Wall::RIGHT, permille));
        }
        Trouble::CutOff | Trouble::Deaf | Trouble::Mute | Trouble::OneWay(_) | Trouble::Pair(_) => {}
    }
    None
}

fn heal(net: &mut NetSite, victim: usize, trouble: Trouble, begun: Instant) {
    match trouble {
        Trouble::Kill => net.start_box(victim),
        Trouble::Pause(time) => {
            // The trouble is its length.
            std::thread::sleep(time.saturating_sub(begun.elapsed()));
            signal(net, victim, Signal::CONT);
        }
        Trouble::Unplug => net.network.plug(victim),
        Trouble::Clock(_) => net.set_wall(victim, Wall::RIGHT),
        Trouble::CutOff | Trouble::Deaf | Trouble::Mute | Trouble::OneWay(_) | Trouble::Pair(_) => {}
    }
}

/// Waits until the leader knows what the box's clock says; where clocks cannot be set, there is nothing to know.
fn until_noticed(net: &NetSite, victim: usize, wrong: WrongClock) {
    if !cfg!(debug_assertions) {
        return;
    }
    let all: Vec<usize> = (0..BOXES).collect();
    until("the leader knows of the wrong clock", || {
        let status = net.site.boxes[net.leader_among(&all)?].try_status()?;
        let name = &net.site.boxes[victim].name;
        let member = status["members"].as_array()?.iter().find(|member| member["name"] == **name)?;
        let (ahead_ms, synced) = (member["clock_offset_ms"].as_i64()?, member["clock_synced"].as_bool()?);
        let near = |wanted: i64| (ahead_ms - wanted).abs() < APART_MS_MAX;
        let noticed = match wrong {
            WrongClock::Set(wall) => near(wall.ahead_ms) && synced == wall.synced,
            WrongClock::Boots1970 => near(-now_ms()) && !synced,
            // Any distance that no delay of an answer explains.
            WrongClock::Drifts(permille) => ahead_ms * permille.signum() > 200,
        };
        noticed.then_some(())
    });
}

/// Waits until all boxes show the true time: a wrong clock has moved nothing.
fn until_time_is_right(net: &NetSite) {
    until("all boxes show the true time", || {
        let apart_ms =
            |at: usize| Some(net.site.boxes[at].try_status()?["clock"]["site_ms"].as_i64()? - now_ms());
        (0..BOXES).all(|at| apart_ms(at).is_some_and(|ms| ms.abs() < APART_MS_MAX)).then_some(())
    });
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
