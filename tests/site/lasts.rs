//! The last value of a sample is the one that was observed last: by time, and within a box by arrival.

use serde_json::{Value, json};

use crate::boxes::{Site, TestBox};
use crate::harness::until;

const QUICK: &str = "[commit]\ninterval = \"50ms\"\n";

fn sample(one: &TestBox, series: &str, body: &Value) {
    one.client().post(&format!("/v1/samples/{series}"), &body.to_string()).unwrap().ok();
}

fn series(one: &TestBox, series: &str) -> Value {
    one.client().get(&format!("/v1/series/{series}")).unwrap().ok()
}

fn report(one: &TestBox, epoch: &str, number: u64, cell: &Value) -> (u16, String) {
    let body = json!({"source": "press3", "epoch": epoch, "number": number, "cells": [cell]}).to_string();
    let answer = one.client().post("/v1/reports", &body).unwrap();
    (answer.status, answer.text())
}

fn epoch(one: &TestBox) -> String {
    let opened = one.client().post("/v1/sources/press3/epochs", "").unwrap().ok();
    opened["epoch"].as_str().unwrap().to_owned()
}

#[test]
fn falling_values_end_with_the_lowest_whatever_the_way_in() {
    let site = Site::start_with(1, "1h", QUICK);
    let one = &site.boxes[0];
    let values = [20, 15, 10, 5];
    sample(one, "list", &json!({ "values": values }));
    for value in values {
        sample(one, "single", &json!({ "value": value }));
        one.client()
            .post_keyed("/v1/samples/keyed", &json!({ "value": value }).to_string(), &format!("k{value}"))
            .unwrap()
            .ok();
    }
    let lines = |name: &str, kind: &str| values.map(|value| format!("{name}:{value}|{kind}")).join("\n");
    one.statsd(&lines("gauge", "g"));
    one.statsd(&lines("timer", "ms"));
    one.statsd("packed:20:15:10:5|d");
    // As python-statsd sends a negative gauge, and one that moves.
    one.statsd("negative:7|g\nnegative:0|g\nnegative:-5|g");
    one.statsd("moves:10|g\nmoves:+4|g\nmoves:-12|g");
    let epoch = epoch(one);
    for (number, value) in (1..).zip(values) {
        let sample = json!({"count": 1, "sum": value, "min": value, "max": value, "last": value});
        let cell = json!({"series": "reported", "sample": sample});
        assert_eq!(report(one, &epoch, number, &cell).0, 200);
    }
    for (name, count, last) in [
        ("list", 4, 5.0),
        ("single", 4, 5.0),
        ("keyed", 4, 5.0),
        ("gauge", 4, 5.0),
        ("timer", 4, 5.0),
        ("packed", 4, 5.0),
        ("negative", 3, -5.0),
        ("moves", 3, 2.0),
        ("reported", 4, 5.0),
    ] {
        one.until_total(name, count);
        let view = series(one, name);
        assert_eq!(view["last"], last, "{name}: {view}");
        let site_ms = one.status()["clock"]["site_ms"].as_u64().unwrap();
        let at = view["last_at"].as_u64().unwrap();
        assert!(at <= site_ms && at + 60_000 > site_ms, "{name}: {view}, and it is {site_ms}");
    }
}

#[test]
fn a_summary_has_the_value_that_came_last_in_its_window() {
    let site = Site::start_with(1, "1s", QUICK);
    let one = &site.boxes[0];
    sample(one, "oven", &json!({"values": [20, 15, 10, 5]}));
    let windows = until("the window is closed", || {
        let windows = one.client().get("/v1/windows/oven").unwrap().ok();
        windows["windows"].as_array().filter(|windows| !windows.is_empty()).cloned()
    });
    assert_eq!(
        (windows[0]["count"].as_u64(), windows[0]["last"].as_f64()),
        (Some(4), Some(5.0)),
        "{windows:?}"
    );
}

#[test]
fn of_two_boxes_the_later_wins_whichever_it_is() {
    let site = Site::start_with(2, "1h", QUICK);
    let mut expected = 100.0;
    for at in [0, 1, 1, 0, 1, 0, 0] {
        let one = &site.boxes[at];
        // Later by this box's view of site time than what the other box saw last.
        let before = one.client().get("/v1/series/oven").unwrap();
        let last_at = if before.status == 200 { before.json()["last_at"].as_u64().unwrap() } else { 0 };
        until("time passes", || {
            (one.status()["clock"]["site_ms"].as_u64().unwrap() > last_at + 50).then_some(())
        });
        expected -= 7.0;
        sample(one, "oven", &json!({ "value": expected }));
        for reader in &site.boxes {
            assert_eq!(series(reader, "oven")["last"], expected, "{expected} at box {at}");
        }
    }
}

#[test]
fn a_report_that_would_spoil_a_series_for_good_is_refused_at_the_door() {
    let site = Site::start_with(1, "1s", QUICK);
    let one = &site.boxes[0];
    let epoch = epoch(one);
    let cell = |count: u64, at: u64| {
        let sample = json!({"count": count, "sum": 1, "min": 0, "max": 1, "last": 1, "last_at": at});
        json!({"series": "oven", "sample": sample})
    };
    let now = one.status()["clock"]["site_ms"].as_u64().unwrap();
    for (cell, says) in [
        (cell(u64::MAX - 1, now), "count"),
        (cell(1 << 53, now), "count"),
        (cell(1, 253_000_000_000_000), "last_at"),
    ] {
        let (status, text) = report(one, &epoch, 1, &cell);
        assert_eq!(status, 400, "{text}");
        assert!(text.contains("cells[0]") && text.contains(says), "{text}");
    }
    assert_eq!(report(one, &epoch, 1, &cell(1, now)).0, 200, "the number is free still");
    sample(one, "oven", &json!({"value": 21.5}));
    assert_eq!(series(one, "oven")["last"], 21.5);
}
