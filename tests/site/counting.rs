//! What is acknowledged is held, at every box.

use serde_json::json;

use crate::harness::{Process, Site, wait};

#[test]
fn a_box_of_one_counts_without_any_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let mut only = Process::new(dir.path(), "only", dir.path().join("data"), &[]);
    only.start();
    only.ready();
    assert_eq!(only.post("/v1/counters/coffee", r#"{"add": 1}"#).0, 200);
    assert_eq!(only.total("coffee"), Some(1));
    only.kill();
    only.start();
    only.ready();
    assert_eq!(only.total("coffee"), Some(1));
}

#[test]
fn an_acknowledged_add_is_read_at_every_box() {
    let site = Site::start(3, &[]);
    for each in &site.boxes {
        each.ready();
    }
    for (place, each) in site.boxes.iter().enumerate() {
        let (status, body) = each.post("/v1/counters/line1/parts", r#"{"add": 5}"#);
        assert_eq!((status, body["total"].as_i64()), (200, Some(5 * (place as i64 + 1))), "{body}");
        for reader in &site.boxes {
            assert_eq!(reader.total("line1/parts"), Some(5 * (place as i64 + 1)));
        }
    }
    site.digests_agree();
}

#[test]
fn a_repeated_key_adds_once_at_any_box_and_answers_the_first_result() {
    let site = Site::start(3, &[]);
    for each in &site.boxes {
        each.ready();
    }
    let key = [("Idempotency-Key", "order-17")];
    let add = |at: usize, body: &str| {
        site.boxes[at].request("POST", "/v1/counters/a", &key, body.as_bytes()).unwrap()
    };
    assert_eq!(add(0, r#"{"add": 5}"#).1["total"], 5);
    assert_eq!(site.boxes[1].post("/v1/counters/a", r#"{"add": 1}"#).1["total"], 6);
    for at in [1, 2, 0] {
        assert_eq!(add(at, r#"{"add": 5}"#).1["total"], 5);
    }
    let (status, body) = add(2, r#"{"add": 6}"#);
    assert_eq!(status, 409, "{body}");
    assert!(body["type"].as_str().unwrap().ends_with("key-reused"), "{body}");
    assert_eq!(site.boxes[0].total("a"), Some(6));
}

#[test]
fn reports_are_applied_in_their_order_once_and_a_bad_cell_does_not_hold_up_the_others() {
    let site = Site::start(3, &[]);
    for each in &site.boxes {
        each.ready();
    }
    let (status, opened) = site.boxes[0].post("/v1/sources/press3/epochs", "{}");
    assert_eq!(status, 200, "{opened}");
    let report = |at: usize, number: u64, cells: serde_json::Value| {
        let body = json!({"source": "press3", "epoch": opened["epoch"], "number": number, "cells": cells});
        site.boxes[at].post_json("/v1/reports", &body)
    };
    let parts = json!([{"series": "p", "add": 3}]);
    assert_eq!(report(1, 2, parts.clone()).0, 409);
    assert_eq!(report(1, 1, parts.clone()).0, 200);
    assert_eq!(report(2, 1, parts.clone()).0, 200);
    let (status, changed) = report(2, 1, json!([{"series": "p", "add": 4}]));
    assert_eq!(status, 409);
    assert!(changed["type"].as_str().unwrap().ends_with("report-changed"), "{changed}");
    let sample = json!({"count": 1, "sum": 2, "min": 2, "max": 2, "last": 2});
    let mixed = json!([{"series": "p", "sample": sample}, {"series": "q", "add": 1}]);
    let (status, receipt) = report(0, 2, mixed);
    assert_eq!(status, 200, "{receipt}");
    assert_eq!(receipt["refused"].as_array().unwrap().len(), 1, "{receipt}");
    assert_eq!((site.boxes[2].total("p"), site.boxes[2].total("q")), (Some(3), Some(1)));
    let strange = json!({"source": "press3", "epoch": "12345", "number": 1, "cells": parts});
    let (status, unknown) = site.boxes[0].post_json("/v1/reports", &strange);
    assert_eq!(status, 409);
    assert!(unknown["type"].as_str().unwrap().ends_with("unknown-epoch"), "{unknown}");
}

#[test]
fn statsd_is_exact_through_an_orderly_stop() {
    let mut site = Site::start(1, &[]);
    site.boxes[0].ready();
    let mut lines = String::new();
    for _ in 0..50 {
        lines.push_str("press.parts:2|c\n");
    }
    lines.push_str("nonsense\npress.parts:-1|c\n");
    for _ in 0..40 {
        site.boxes[0].send_statsd(&lines);
    }
    wait("the datagrams to be read", || {
        let status = site.boxes[0].status();
        (status["ingest"]["statsd"]["received_datagrams"] == 40).then_some(())
    });
    let refused = site.boxes[0].status()["ingest"]["statsd"]["refused"].clone();
    let counts: i64 = refused.as_array().unwrap().iter().map(|each| each["count"].as_i64().unwrap()).sum();
    assert_eq!(counts, 80, "{refused}");
    assert!(site.boxes[0].stop().success());
    site.boxes[0].start();
    site.boxes[0].ready();
    assert_eq!(site.boxes[0].total("press.parts"), Some(4000));
}

impl Process {
    fn post_json(&self, path: &str, body: &serde_json::Value) -> (u16, serde_json::Value) {
        let headers = [("Content-Type", "application/json")];
        self.request("POST", path, &headers, body.to_string().as_bytes()).expect("an answer")
    }
}
