//! Numbered reports over HTTP: applied once, in order, judged by number, at whichever box.

use serde_json::{Value, json};

use crate::boxes::Site;
use crate::http::Client;

fn open(client: &mut Client, source: &str, nonce: &str) -> String {
    let body = json!({ "nonce": nonce }).to_string();
    let opened = client.post(&format!("/v1/sources/{source}/epochs"), &body).unwrap().ok();
    assert_eq!(opened["source"], source);
    opened["epoch"].as_str().expect("the epoch is a string").to_owned()
}

fn report(source: &str, epoch: &str, number: u64, cells: &Value) -> String {
    json!({"source": source, "epoch": epoch, "number": number, "cells": cells}).to_string()
}

fn refused(client: &mut Client, body: &str) -> (u16, String, Value) {
    let answer = client.post("/v1/reports", body).unwrap();
    (answer.status, answer.problem(), answer.json()["last"].clone())
}

#[test]
fn a_report_is_applied_once_whatever_is_repeated_reordered_or_changed() {
    let site = Site::start(3);
    let mut clients: Vec<Client> = site.boxes.iter().map(|one| one.client()).collect();
    let epoch = open(&mut clients[0], "press3", "5f0c8a");
    assert_eq!(open(&mut clients[2], "press3", "5f0c8a"), epoch, "the same nonce gets the same epoch");
    let cells = json!([{"series": "parts", "add": 5}, {"series": "stock", "add": -2}]);
    let first = report("press3", &epoch, 1, &cells);
    for (at, repeated) in [(0, false), (0, true), (1, true), (2, true)] {
        let receipt = clients[at].post("/v1/reports", &first).unwrap().ok();
        let expected =
            json!({"source": "press3", "epoch": epoch, "number": 1, "repeated": repeated, "refused": []});
        assert_eq!(receipt, expected, "at box {at}");
    }
    let out_of_order = (409, "out-of-order".to_owned(), json!(1));
    assert_eq!(refused(&mut clients[1], &report("press3", &epoch, 3, &cells)), out_of_order);
    let changed = report("press3", &epoch, 1, &json!([{"series": "parts", "add": 6}]));
    assert_eq!(refused(&mut clients[2], &changed), (409, "report-changed".to_owned(), json!(1)));
    clients[1].post("/v1/reports", &report("press3", &epoch, 2, &cells)).unwrap().ok();
    assert_eq!(refused(&mut clients[0], &first), (409, "out-of-order".to_owned(), json!(2)), "an old one");
    assert_eq!((site.boxes[0].total("parts"), site.boxes[1].total("stock")), (10, -4));
}

#[test]
fn an_epoch_that_is_not_open_is_refused_and_another_source_has_its_own_numbers() {
    let site = Site::start(1);
    let mut client = site.boxes[0].client();
    let cells = json!([{"series": "parts", "add": 1}]);
    let stranger = refused(&mut client, &report("nobody", "12345", 1, &cells));
    assert_eq!(stranger, (409, "unknown-epoch".to_owned(), Value::Null));
    let epoch = open(&mut client, "press3", "1");
    let wrong = epoch.parse::<u64>().unwrap() ^ 1;
    let wrong = refused(&mut client, &report("press3", &wrong.to_string(), 1, &cells));
    assert_eq!((wrong.0, wrong.1.as_str()), (409, "unknown-epoch"));
    // Epochs belong to their source.
    let other = open(&mut client, "press4", "2");
    let swapped = refused(&mut client, &report("press3", &other, 1, &cells));
    assert_eq!((swapped.0, swapped.1.as_str()), (409, "unknown-epoch"));
    for (source, epoch) in [("press3", &epoch), ("press4", &other)] {
        client.post("/v1/reports", &report(source, epoch, 1, &cells)).unwrap().ok();
    }
    assert_eq!(site.boxes[0].total("parts"), 2);
    // A second life of a source numbers from 1 again; the first stays open for what is on its way.
    let second = open(&mut client, "press3", "3");
    assert_ne!(second, epoch);
    client.post("/v1/reports", &report("press3", &second, 1, &cells)).unwrap().ok();
    client.post("/v1/reports", &report("press3", &epoch, 2, &cells)).unwrap().ok();
    assert_eq!(site.boxes[0].total("parts"), 4);
}

#[test]
fn one_bad_cell_does_not_hold_up_the_good_ones() {
    let site = Site::start(3);
    site.boxes[0].add("parts", 100);
    let mut client = site.boxes[1].client();
    let epoch = open(&mut client, "press3", "7");
    let sample = json!({"count": 1, "sum": 2.0, "min": 2.0, "max": 2.0, "last": 2.0});
    let cells = json!([{"series": "good/1", "add": 1}, {"series": "parts", "sample": sample},
                       {"series": "good/2", "add": 2}]);
    let receipt = client.post("/v1/reports", &report("press3", &epoch, 1, &cells)).unwrap().ok();
    assert_eq!(receipt["refused"].as_array().unwrap().len(), 1, "{receipt}");
    let cell = &receipt["refused"][0];
    assert_eq!((&cell["cell"], &cell["series"]), (&json!(1), &json!("parts")), "{receipt}");
    assert_eq!(cell["type"], "urn:tallyd:error:wrong-kind");
    let one = &site.boxes[2];
    assert_eq!((one.total("good/1"), one.total("good/2"), one.total("parts")), (1, 2, 100));
    // The number advanced: the next is taken.
    client
        .post("/v1/reports", &report("press3", &epoch, 2, &json!([{"series": "good/1", "add": 1}])))
        .unwrap()
        .ok();
    assert_eq!(one.total("good/1"), 2);
}

#[test]
fn a_malformed_report_changes_nothing_and_keeps_its_number() {
    let site = Site::start(1);
    let mut client = site.boxes[0].client();
    let epoch = open(&mut client, "press3", "9");
    let good = json!({"series": "a", "add": 1});
    for bad in [
        json!({"series": "a"}),
        json!({"series": "a", "add": 0}),
        json!({"series": "a", "add": 1.5}),
        json!({"series": "a//b", "add": 1}),
        json!({"series": "a", "add": 1, "sample": {}}),
        json!({"series": "a", "sample": {"count": 0, "sum": 0, "min": 0, "max": 0, "last": 0}}),
        json!({"series": "a", "sample": {"count": 1, "sum": 1, "min": 2, "max": 1, "last": 1}}),
        json!({"series": "a", "add": 1, "surprise": 1}),
        json!("a"),
    ] {
        let answer = client.post("/v1/reports", &report("press3", &epoch, 1, &json!([good, bad]))).unwrap();
        assert_eq!((answer.status, answer.problem()), (400, "malformed".to_owned()), "{bad}");
    }
    for body in ["", "{", "[]", r#"{"source":"press3"}"#, "\u{0}"] {
        let answer = client.post("/v1/reports", body).unwrap();
        assert_eq!((answer.status, answer.problem()), (400, "malformed".to_owned()), "{body:?}");
    }
    let zero = client.post("/v1/reports", &report("press3", &epoch, 0, &json!([good]))).unwrap();
    assert_eq!((zero.status, zero.problem()), (400, "malformed".to_owned()));
    let many = Value::Array(vec![good.clone(); 1001]);
    let many = client.post("/v1/reports", &report("press3", &epoch, 1, &many)).unwrap();
    assert_eq!((many.status, many.problem()), (413, "too-large".to_owned()));
    assert_eq!(site.boxes[0].total("a"), 0);
    client.post("/v1/reports", &report("press3", &epoch, 1, &json!([good]))).unwrap().ok();
    assert_eq!(site.boxes[0].total("a"), 1);
}
