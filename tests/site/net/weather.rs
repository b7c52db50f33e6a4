//! No election without a failure, in rough weather: 1 % loss and 100 ms jitter.

use std::time::{Duration, Instant};

use super::clients::Clients;
use super::lab::in_lab;
use super::plan::seed;
use super::relay::Weather;
use super::site::{BOXES, NetSite};

const ROUGH: Weather = Weather { loss_permille: 10, jitter: Duration::from_millis(100) };
const HOW_LONG: Duration = Duration::from_secs(20);

#[test]
fn a_site_in_rough_weather_goes_on() {
    in_lab("net::weather::a_site_in_rough_weather_goes_on", || {
        let seed = seed();
        eprintln!("TALLYD_TEST_SEED={seed}");
        let net = NetSite::start_relayed(seed);
        let relay = net.relay.as_ref().expect("it has one");
        let clients = Clients::start(&net.site, 4, seed);
        clients.until_more(40, "in good weather");
        let before = net.term();
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
        let campaigns: u64 =
            (0..BOXES).map(|at| net.site.boxes[at].status()["elections"]["leader_changes"].as_u64().unwrap()).sum();
        let notes = clients.finish();
        eprintln!(
            "{seconds:.0} s of {ROUGH:?}: {} terms, {campaigns} changes of leader seen by the boxes in all; {adds:.0} adds/s, \
             the slowest took {:?}; {passed} packets passed, {lost} lost",
            after - before,
            notes.slowest()
        );
        notes.assert_linearizable(&net.site);
        net.site.assert_same_digests();
    });
}
