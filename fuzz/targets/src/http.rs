//! What HTTP clients send that this project reads itself: reports as JSON and CBOR, amounts, names in paths.

use tally_core::report::Kind;
use tally_core::time::SiteTime;
use tallyd::api::parse;
use tallyd::api::report_body::{self, Format};
use tallyd::api::{CELLS_MAX, Problem};
use tallyd::request::{NamedReport, ReportAmount};

const NOW: SiteTime = SiteTime(1_700_000_000_000);

/// The first byte says what the rest is.
pub(crate) fn run(bytes: &[u8]) {
    let Some((what, rest)) = bytes.split_first() else { return };
    match what % 6 {
        0 => report(rest, Format::Json),
        1 => report(rest, Format::Cbor),
        2 => amount(Kind::Counter, rest),
        3 => amount(Kind::Updown, rest),
        4 => amount(Kind::Sample, rest),
        _ => {
            if let Ok(text) = str::from_utf8(rest)
                && let Ok(name) = parse::series(text)
            {
                assert!(tally_core::id::SeriesName::new(&name).is_ok());
            }
        }
    }
}

fn report(body: &[u8], format: Format) {
    let Ok(report) = report_body::parse(body, format) else { return };
    let NamedReport { source, cells, .. } = &report;
    assert!(tallyd::identity::is_name(source));
    assert!(cells.len() <= CELLS_MAX);
    for cell in cells {
        assert!(tally_core::id::SeriesName::new(&cell.series).is_ok());
        match &cell.amount {
            ReportAmount::Add(add) => assert_ne!(*add, 0),
            ReportAmount::Amount(tally_core::report::Amount::Sample(sample)) => {
                assert!(sample.is_plausible(), "{sample:?}");
            }
            ReportAmount::Amount(other) => panic!("{other:?} out of a body"),
            ReportAmount::Reading(reading) => assert!(tallyd::site::is_meter_name(&reading.meter)),
        }
    }
}

fn amount(kind: Kind, body: &[u8]) {
    let read: Result<_, Problem> = parse::amount(kind, body, NOW);
    if let Ok(amount) = read {
        assert_eq!(amount.kind(), kind);
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let report = r#"{"source":"plc4","epoch":"18446744073709551615","number":3,"cells":[{"series":"line1/parts","add":5},
        {"series":"tank","window":1763858400000,"add":-2},{"series":"oven","sample":{"count":2,"sum":43.25,"min":21.5,
        "max":21.75,"last":21.5,"last_at":1763858400000}},
        {"series":"energy","meter":"e1","reading":18446744073709551615,"heard":1763858400000},
        {"series":"energy","meter":"e2","reading":5,"incarnation":"b1","ceiling":256,"noise":0,"glitch_window":0,
        "step_max":9}]}"#;
    let value: serde_json::Value = serde_json::from_str(report).expect("an example");
    let cbor = serde_cbor::to_vec(&value).expect("an example");
    let meter =
        r#"{"source":"a","epoch":"1","number":1,"cells":[{"series":"m","meter":"x","reading":5,"heard":1}]}"#;
    let huge = r#"{"source":"a","epoch":"1","number":1,"cells":[{"series":"s","sample":{"count":1,"sum":1e18,"min":1e18,
        "max":1e18,"last":1e18}}]}"#;
    let of = |what: u8, rest: &[u8]| [&[what], rest].concat();
    vec![
        of(0, report.as_bytes()),
        of(0, meter.as_bytes()),
        of(0, huge.as_bytes()),
        of(1, &cbor),
        of(2, br#"{"add": 9007199254740991}"#),
        of(3, br#"{"add": -2}"#),
        of(4, br#"{"value": 21.5}"#),
        of(4, br#"{"values": [1, 2.5, -3e17]}"#),
        of(5, b"line1%2Fpress3/parts"),
        of(5, "\u{e9}tage/1".as_bytes()),
    ]
}
