//! Rough weather, 1 % loss and 100 ms jitter, is no failure: nobody is elected for it.

use std::time::{Duration, Instant};

use super::clients::Clients;
use super::lab::in_lab;
use super::plan::seed;
use super::relay::{Relay, Weather};
use super::site::{BOXES, NetSite};
use super::standstill::{ATTEMPTS, Standstill};

const ROUGH: Weather = Weather { loss_permille: 10, jitter: Duration::from_millis(100) };
const HOW_LONG: Duration = Duration::from_secs(15);

#[test]
fn rough_weather_elects_nobody() {
    in_lab("net::weather::rough_weather_elects_nobody", || {
        let seed = seed();
        eprintln!("TALLYD_TEST_SEED={seed}");
        let net = NetSite::start_relayed(seed);
        let clients = Clients::start(&net.site, 4, seed);
        clients.until_more(40, "in good weather");
        let calm = (0..ATTEMPTS).any(|_| held_through(&net, &clients));
        assert!(calm, "this machine stood still again and again, so nothing can be said");
        let notes = clients.finish();
        eprintln!("the slowest add took {:.0?}", notes.slowest());
        notes.assert_linearizable(&net.site);
        net.site.assert_same_digests();
    });
}

/// Whether the weather was rough and nobody was elected; `false` if the machine spoilt it.
fn held_through(net: &NetSite, clients: &Clients) -> bool {
    let relay: &Relay = net.relay.as_ref().expect("it has one");
    let (term, changes) = (net.term(), changes_of_leader(net));
    let standstill = Standstill::watch();
    relay.take_counts();
    relay.set(ROUGH);
    let (acknowledged, begun) = (clients.acknowledged(), Instant::now());
    std::thread::sleep(HOW_LONG);
    clients.until_more(20, "in rough weather");
    let seconds = begun.elapsed().as_secs_f64();
    let adds = (clients.acknowledged() - acknowledged) as f64 / seconds;
    let counts = relay.take_counts();
    relay.set(Weather::default());
    let (elections, changes) = (net.term() - term, changes_of_leader(net) - changes);
    eprintln!(
        "{seconds:.0} s of {ROUGH:?}: {elections} elections, {changes} times a box lost sight of the leader or saw another; \
         {adds:.0} adds/s; {counts:?}; the machine stood still for {:.0?} at most",
        standstill.worst()
    );
    let lost_permille = counts.lost * 1000 / counts.passed.max(1);
    assert!((5..=20).contains(&lost_permille), "the weather was not as told: {counts:?}");
    assert!(elections == 0 || standstill.was_long(), "{elections} elections without a failure");
    elections == 0
}

/// How often a box saw the leader change, all boxes together.
fn changes_of_leader(net: &NetSite) -> u64 {
    let of = |at: usize| net.site.boxes[at].status()["elections"]["leader_changes"].as_u64().unwrap();
    (0..BOXES).map(of).sum()
}
