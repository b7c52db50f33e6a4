use super::*;

use tally_core::report::Amount;

use crate::upstream::formats::Numbered;
use crate::upstream::formats::testing::{naming, numbered, sample};

fn summary(numbered: &Numbered) -> Message {
    Json.summary(&naming(), numbered).unwrap()
}

fn text(message: &Message) -> &str {
    std::str::from_utf8(&message.payload).unwrap()
}

#[test]
fn a_counters_summary_is_the_contracts_example() {
    let message = summary(&numbered("line1/press3/parts", Amount::Counter(37), 120_934));
    let expected = concat!(
        r#"{"v":1,"site":"plant7","site_id":"9f3c51d2a07be644","seq":1042,"series":"line1/press3/parts","#,
        r#""kind":"counter","start":1763858400000,"span":60000,"increase":37,"total":120934,"late":false,"#,
        r#""clock":"synced"}"#
    );
    assert_eq!(text(&message), expected);
    assert_eq!(message.topic, "tally/plant7/summary/line1/press3/parts");
    assert_eq!((message.retain, message.content_type), (false, "application/json"));
    let properties = [("site_id", "9f3c51d2a07be644".to_owned()), ("seq", "1042".to_owned())];
    assert_eq!(message.properties, properties);
}

#[test]
fn an_updowns_summary_has_up_down_and_value() {
    let mut one = numbered("tank", Amount::Updown { up: 5, down: 12 }, -7);
    one.summary.late = true;
    one.summary.synced = false;
    let message = summary(&one);
    let fields = r#""kind":"updown","start":1763858400000,"span":60000,"up":5,"down":12,"value":-7,"late":true,"clock":"unsynced"}"#;
    assert!(text(&message).ends_with(fields), "{}", text(&message));
}

#[test]
fn a_samples_sum_keeps_every_place() {
    let message = summary(&numbered("t", Amount::Sample(sample(-123_456_789_012_345_678_901_000_001)), 4));
    let fields =
        r#""count":4,"sum":-123456789012345678.901000001,"min":-2.0,"max":30.25,"last":21.5,"late":false"#;
    assert!(text(&message).contains(fields), "{}", text(&message));
    assert!(!text(&message).contains("total"));
}

#[test]
fn totals_beyond_64_bits_stay_integers() {
    let message = summary(&numbered("big", Amount::Counter(u128::from(u64::MAX) + 1), i128::MAX));
    assert!(
        text(&message)
            .contains(r#""increase":18446744073709551616,"total":170141183460469231731687303715884105727"#)
    );
}

#[test]
fn names_are_escaped_as_json_and_plain_in_topics() {
    let message = summary(&numbered("línea \"1\"/ç\\", Amount::Counter(1), 1));
    let value: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
    assert_eq!(value["series"], "línea \"1\"/ç\\");
    assert_eq!(message.topic, "tally/plant7/summary/línea \"1\"/ç\\");
}

#[test]
fn totals_are_flat_and_retained() {
    let counter = Json.total(&naming(), &numbered("a/b", Amount::Counter(37), 120_934)).unwrap();
    assert_eq!(text(&counter), r#"{"total":120934,"increase":37,"seq":1042,"time":1763858460000}"#);
    assert_eq!((counter.topic.as_str(), counter.retain), ("tally/plant7/total/a/b", true));
    let updown = Json.total(&naming(), &numbered("a", Amount::Updown { up: 1, down: 3 }, -2)).unwrap();
    assert_eq!(text(&updown), r#"{"total":-2,"increase":-2,"seq":1042,"time":1763858460000}"#);
    let values = Json.total(&naming(), &numbered("t", Amount::Sample(sample(10_000_000_000)), 4)).unwrap();
    let expected =
        r#"{"count":4,"mean":2.5,"min":-2.0,"max":30.25,"last":21.5,"seq":1042,"time":1763858460000}"#;
    assert_eq!(text(&values), expected);
}

#[test]
fn a_late_sample_does_not_turn_a_dashboard_back() {
    let mut late = numbered("t", Amount::Sample(sample(1)), 4);
    late.summary.late = true;
    assert_eq!(Json.total(&naming(), &late), None);
    let mut counter = numbered("c", Amount::Counter(1), 9);
    counter.summary.late = true;
    assert!(Json.total(&naming(), &counter).is_some());
}

#[test]
fn the_status_names_the_leader_and_the_outbox() {
    let state = SiteState { leader: Some("box1".to_owned()), boxes: 3, outbox: 12, time: 99 };
    let online = status(&naming(), true, &state);
    assert_eq!(
        text(&online),
        r#"{"state":"online","leader":"box1","boxes":3,"outbox":12,"time":99,"site_id":"9f3c51d2a07be644"}"#
    );
    assert_eq!((online.topic.as_str(), online.retain), ("tally/plant7/status", true));
    let nobody = SiteState { leader: None, boxes: 0, outbox: 12, time: 99 };
    assert_eq!(
        text(&status(&naming(), false, &nobody)),
        r#"{"state":"offline","leader":null,"boxes":0,"outbox":12,"time":99,"site_id":"9f3c51d2a07be644"}"#
    );
}

#[test]
fn what_its_topic_did_not_take_keeps_its_payload_and_says_why() {
    let one = numbered("temp\u{ffff}", Amount::Counter(37), 120_934);
    let own = summary(&one);
    assert_eq!(own.topic, "tally/plant7/summary/temp%EF%BF%BF/");
    let message = Json.undeliverable(&naming(), &one, &own.topic, "not authorized (0x87)");
    assert_eq!((message.topic.as_str(), message.retain), ("tally/plant7/undeliverable", false));
    let expected = format!(
        r#"{},"topic":"tally/plant7/summary/temp%EF%BF%BF/","reason":"not authorized (0x87)"}}"#,
        text(&own).strip_suffix('}').unwrap()
    );
    assert_eq!(text(&message), expected);
    assert_eq!(Json.total(&naming(), &one).unwrap().topic, "tally/plant7/total/temp%EF%BF%BF/");
}

#[test]
fn a_status_says_whose_it_is_and_nothing_else_is_taken_for_one() {
    let state = SiteState { leader: None, boxes: 0, outbox: 12, time: 99 };
    let whose = whose_status(&status(&naming(), true, &state).payload);
    assert_eq!(whose, Some(("9f3c51d2a07be644".to_owned(), "online".to_owned())));
    for payload in [
        "",
        "{}",
        r#"{"state":"online"}"#,
        r#"{"state":"x","site_id":"9f3c51d2a07be644"}"#,
        r#"{"state":"online","site_id":"<script>"}"#,
    ] {
        assert_eq!(whose_status(payload.as_bytes()), None, "{payload}");
    }
}
