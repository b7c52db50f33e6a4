//! From the doors to where it is applied: whatever a door accepts, a leader appends and every box applies, at every
//! feature level; nothing that came in through a door is passed as malformed.

use std::sync::Arc;

use tally_core::id::{Epoch, ReportNumber, SeriesName, SourceId};
use tally_core::report::Kind;
use tally_core::time::{Elapsed, SiteTime};
use tallyd::accumulator::{Accumulator, Limits};
use tallyd::api::report_body::{self, Format};
use tallyd::api::{member_of, parse};
use tallyd::clock::{SiteClock, TimeSource};
use tallyd::node::encode_report;
use tallyd::site::{
    Applied, Body, BootstrapSettings, Level, MemberChange, ReportWriter, Site, SourceKind, Stamp,
    StampedEntry, entry,
};

const NOW: SiteTime = SiteTime(1_700_000_000_000);

/// The first byte says which door the rest comes to.
pub(crate) fn run(bytes: &[u8]) {
    let Some((what, rest)) = bytes.split_first() else { return };
    for level in [Level::ONE, Level::MAX] {
        let mut site = Site::new(&BootstrapSettings { level, ..crate::entries::founding() });
        let opened = entry::open(SourceKind::Named, "plc4", 1, Epoch(1));
        let (source, epoch) = match applied(&mut site, &opened) {
            Applied::Opened { result: Ok(opened), .. } => opened,
            other => panic!("not opened: {other:?}"),
        };
        if let Some(body) = door(*what, rest, &site, (source, epoch)) {
            let came_to = applied(&mut site, &body);
            assert_ne!(came_to, Applied::Malformed, "a door let in what nobody can read");
        }
    }
}

/// What a door makes of it, if it lets it in.
fn door(what: u8, rest: &[u8], site: &Site, (source, epoch): (SourceId, Epoch)) -> Option<Body> {
    let text = || str::from_utf8(rest).ok();
    match what % 8 {
        0 => Some(entry::member(7, &MemberChange::Put(member_of(rest).ok()?.0))),
        1 => {
            // Whether there is such a setting, and whether it takes the value, is decided where it is applied.
            let (key, value) = text()?.split_once('=')?;
            Some(entry::set(7, key, value))
        }
        format @ (2 | 3) => {
            let format = if format == 2 { Format::Json } else { Format::Cbor };
            let mut report = report_body::parse(rest, format).ok()?;
            (report.epoch, report.number) = (epoch, ReportNumber::FIRST);
            encode_report(site, source, &report, NOW).ok()
        }
        kind @ (4..=6) => {
            let kind = [Kind::Counter, Kind::Updown, Kind::Sample][usize::from(kind) - 4];
            let split = rest.iter().position(|byte| *byte == b' ')?;
            let name = parse::series(str::from_utf8(&rest[..split]).ok()?).ok()?;
            let amount = parse::amount(kind, &rest[split + 1..], NOW).ok()?;
            let clock = Arc::new(SiteClock::new(NOW, Elapsed(1000), TimeSource::default()));
            let accumulator = Accumulator::new(clock, Limits::of(site));
            // Its answer comes to nobody.
            let _ = accumulator.add_waiting(SeriesName::new(&name).expect("checked"), amount, None);
            let writer = ReportWriter::new(source, epoch, ReportNumber::FIRST, 0);
            Some(accumulator.freeze(writer).body)
        }
        _ => Some(entry::open(SourceKind::Named, text()?, 5, Epoch(9))),
    }
}

/// As a leader appends it and every box applies it.
fn applied(site: &mut Site, body: &[u8]) -> Applied {
    assert!(entry::check(body).is_ok(), "a leader would not append it");
    let stamp = Stamp { site: NOW, elapsed: Elapsed(1000), synced: true };
    site.apply(site.applied().next(), &StampedEntry::new(stamp, body)).expect("of a kind that is known")
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let key = "ab".repeat(32);
    let member =
        |address: &str| format!(r#"{{"id": 4, "name": "box4", "address": "{address}", "key": "{key}"}}"#);
    let report = r#"{"source":"plc4","epoch":"1","number":1,"cells":[{"series":"line1/parts","add":5},{"series":"tank",
        "add":-2},{"series":"tank","add":7},{"series":"oven","sample":{"count":2,"sum":43.25,"min":21.5,"max":21.75,
        "last":21.5}},{"series":"energy","meter":"e1","reading":18446744073709551615,"heard":1763858400000},{"series":"energy",
        "meter":"e2","reading":5,"incarnation":"b1","ceiling":256,"noise":0,"glitch_window":0,"step_max":9}]}"#;
    let value: serde_json::Value = serde_json::from_str(report).expect("an example");
    let of = |what: u8, rest: &[u8]| [&[what], rest].concat();
    vec![
        of(0, member("10.0.0.14:7400").as_bytes()),
        // This one stopped every box for good.
        of(0, member(&format!("10.0.0.14:{:0>300}", 7400)).as_bytes()),
        of(1, b"window.base=30s"),
        of(1, b"no.such=1"),
        of(2, report.as_bytes()),
        of(3, &serde_cbor::to_vec(&value).expect("an example")),
        of(4, br#"line1/parts {"add": 9007199254740991}"#),
        of(5, br#"tank {"add": -2}"#),
        of(6, br#"oven {"values": [1, 2.5, -3e17]}"#),
        of(4, format!("{} {{\"add\": 1}}", "n".repeat(200)).as_bytes()),
        of(4, "temp\u{ffff} {\"add\": 1}".as_bytes()),
        of(7, b"plc5"),
        of(7, "x".repeat(300).as_bytes()),
    ]
}
