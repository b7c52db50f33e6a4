//! Rough weather, 1 % loss and 100 ms jitter, is no failure.

use std::time::{Duration, Instant};

use super::clients::Clients;
use super::lab::in_lab;
use super::plan::seed;
use super::relay::Weather;
use super::site::{BOXES, NetSite};

const ROUGH: Weather = Weather { loss_permille: 10, jitter: Duration::from_millis(100) };
const HOW_LONG: Duration = Duration::from_secs(20);

/// With the fixed election timeout of 200 ms, which two packets of that delay fill, there are 0 to 4. Once
/// timeouts follow the measured round trip this is to be 0.
const ELECTIONS_MAX: u64 = 15;

#[test]
fn rough_weather_stops_no_site() {
    in_lab("net::weather::rough_weather_stops_no_site", || {
        let seed = seed();
        eprintln!("TALLYD_TEST_SEED={seed}");
        let net = NetSite::start_relayed(seed);
        let relay = net.relay.as_ref().expect("it has one");
        let clients = Clients::start(&net.site, 4, seed);
        clients.until_more(40, "in good weather");
        let (before, changes) = (net.term(), changes_of_leader(&net));
        relay.set(ROUGH);
        let (passed, lost) = relay.counts();
        let acknowledged = clients.acknowledged();
        let begun = Instant::now();
        std::thread::sleep(HOW_LONG);
        clients.until_more(20, "in rough weather");
        let seconds = begun.elapsed().as_secs_f64();
        let adds = (clients.acknowledged() - acknowledged) as f64 / seconds;
        let (passed, lost) = (relay.counts().0 - passed, relay.counts().1 - lost);
        relay.set(Weather::default());
        let after = net.term();
        let changes = changes_of_leader(&net) - changes;
        let notes = clients.finish();
        eprintln!(
            "{seconds:.0} s of {ROUGH:?}: {} terms, {changes} times a box thought that the leader was gone or another; {adds:.0} adds/s, \
             the slowest took {:?}; {passed} packets passed, {lost} lost",
            after - before,
            notes.slowest()
        );
        assert!(after - before <= ELECTIONS_MAX, "{} elections without a failure", after - before);
        notes.assert_linearizable(&net.site);
        net.site.assert_same_digests();
    });
}

/// How often a box saw the leader change, all boxes together.
fn changes_of_leader(net: &NetSite) -> u64 {
    let of = |at: usize| net.site.boxes[at].status()["elections"]["leader_changes"].as_u64().unwrap();
    (0..BOXES).map(of).sum()
}
