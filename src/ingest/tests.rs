use super::*;
use crate::accumulator::Limits;
use crate::clock::TimeSource;
use tally_core::time::{Elapsed, SiteTime};
use tally_core::window::Span;

const LIMITS: Limits = Limits { base: Span::DEFAULT, grace_ms: 2_000, names_max: 10, name_bytes_max: 200 };

/// One of each way in. A new one gets its lines here.
const CONFIGURATION: &str = r#"
    [statsd]
    listen = "127.0.0.1:0"

    [[poll]]
    series = "host/n"
    file = "/nowhere/numbers"
    pattern = '^n (\d+)'
    kind = "counter"
    every = "1h"
"#;

fn start(text: &str) -> Result<WaysIn, IngestError> {
    let section: IngestSection = toml::from_str(text).unwrap();
    section.check().unwrap();
    let clock = Arc::new(SiteClock::new(SiteTime(0), Elapsed(0), TimeSource::default()));
    let accumulator = Arc::new(Accumulator::new(Arc::clone(&clock), LIMITS));
    WaysIn::start(&section, &Destination { node: "box1/1", accumulator: &accumulator, clock: &clock })
}

#[tokio::test]
async fn each_way_in_shows_its_status_and_figures_of_its_own_name() {
    let ways = start(CONFIGURATION).unwrap();
    let mut shown = Vec::new();
    let mut names = std::collections::BTreeSet::new();
    ways.show(|way, status, figures| {
        assert!(status.is_object() || status.is_array(), "{way}: {status}");
        for family in &figures {
            let (name, is_counter) = (family.name, family.kind == "counter");
            assert!(name.starts_with(&format!("tallyd_{way}_")) && names.insert(name), "{name}");
            assert!(
                is_counter == name.ends_with("_total") && (is_counter || family.kind == "gauge"),
                "{name}"
            );
            assert!(family.help.ends_with('.'), "{name}");
            assert!(family.samples.iter().all(|(_, value)| value.parse::<f64>().is_ok()), "{family:?}");
        }
        shown.push(way);
    });
    let configured: toml::Table = toml::from_str(CONFIGURATION).unwrap();
    assert!(
        configured.keys().eq(shown.iter().copied().collect::<std::collections::BTreeSet<_>>()),
        "{shown:?}"
    );
    ways.stop().await;
}

#[tokio::test]
async fn one_that_cannot_start_is_told_by_its_key_and_one_that_is_off_shows_nothing() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = start(&format!("[statsd]\nlisten = \"127.0.0.1:{port}\"\n")).unwrap_err().to_string();
    assert!(error.starts_with("ingest.statsd.listen: "), "{error}");
    let mut shown = Vec::new();
    start("[statsd]\nlisten = \"off\"\n").unwrap().show(|way, _, _| shown.push(way));
    assert_eq!(shown, ["poll"]);
}

#[test]
fn a_reload_names_the_keys_that_say_something_else_and_every_key_is_of_its_section() {
    let of = |text: &str| toml::from_str::<IngestSection>(text).unwrap();
    let (configured, default) = (of(CONFIGURATION), IngestSection::default());
    assert_eq!(configured.changed(&configured), Vec::<&str>::new());
    assert_eq!(configured.changed(&default), ["ingest.statsd.listen", "ingest.poll"]);
    for (key, _) in IngestSection::KEYS.iter().copied().flatten() {
        assert!(key.starts_with("ingest."), "{key}");
    }
}
