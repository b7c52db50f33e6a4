//! What comes in at the doors is decided where it is applied, by all boxes alike, and nothing that a door lets in can stop
//! a site.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::boxes::{Site, TestBox};
use crate::harness::until;
use crate::members::place;

fn open(one: &TestBox, source: &str) -> String {
    let opened = one.client().post(&format!("/v1/sources/{source}/epochs"), "").unwrap().ok();
    opened["epoch"].as_str().unwrap().to_owned()
}

fn report(source: &str, epoch: &str, number: u64, cells: &Value) -> String {
    json!({"source": source, "epoch": epoch, "number": number, "cells": cells}).to_string()
}

pub(crate) fn metric(one: &TestBox, name: &str) -> f64 {
    let text = one.client().get("/metrics").unwrap().text();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_default();
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name}: {text}"))
}

#[test]
fn a_member_that_no_box_could_read_is_refused_at_every_box_and_the_site_goes_on() {
    let mut site = Site::start(3);
    site.boxes[0].add("parts", 5);
    let key = "ab".repeat(32);
    for address in [format!("10.0.0.9:{:0>300}", 7400), format!("{}:7400", "a".repeat(300)), "x".repeat(5000)]
    {
        let body = json!({"id": 9, "name": "box9", "address": address, "key": key}).to_string();
        for one in &site.boxes {
            let answer = one.client().post("/v1/members", &body).unwrap();
            assert_eq!((answer.status, answer.problem()), (400, "malformed".to_owned()), "{}", answer.text());
        }
    }
    for one in &mut site.boxes {
        one.kill();
    }
    site.start_all();
    assert_eq!(site.boxes[2].add("parts", 1), 6);
    assert!(metric(&site.boxes[2], "tallyd_entries_applied_total") >= 1.0);
    assert_eq!(metric(&site.boxes[2], "tallyd_entries_malformed_total"), 0.0);
}

#[test]
fn an_add_in_a_report_counts_for_an_updown_that_another_box_made_a_moment_ago() {
    let site = Site::start(3);
    let (leader, follower) = (site.leader(), site.follower());
    let (mut at_leader, mut at_follower) = (site.boxes[leader].client(), site.boxes[follower].client());
    let epoch = open(&site.boxes[follower], "press3");
    for number in 1..=20 {
        let series = format!("stock/{number}");
        // The follower hears of it with the next heartbeat.
        at_leader.post(&format!("/v1/updowns/{series}"), r#"{"add":-2}"#).unwrap().ok();
        let cells = json!([{"series": series, "add": 7}]);
        let receipt =
            at_follower.post("/v1/reports", &report("press3", &epoch, number, &cells)).unwrap().ok();
        assert_eq!(receipt["refused"], json!([]), "{series}");
        assert_eq!(site.boxes[follower].total(&series), 5);
    }
}

#[test]
fn a_new_series_that_rises_and_falls_in_one_report_is_an_updown_in_whatever_order() {
    let site = Site::start(1);
    let epoch = open(&site.boxes[0], "press3");
    let cells = json!([{"series": "a", "add": -1}, {"series": "a", "add": 5}, {"series": "b", "add": 5},
                       {"series": "b", "add": -1}, {"series": "c", "add": 3}]);
    let body = report("press3", &epoch, 1, &cells);
    let receipt = site.boxes[0].client().post("/v1/reports", &body).unwrap().ok();
    assert_eq!(receipt["refused"], json!([]));
    let kind = |series: &str| {
        let series = site.boxes[0].client().get(&format!("/v1/series/{series}")).unwrap().ok();
        (series["kind"].as_str().unwrap().to_owned(), series["total"].as_i64().unwrap())
    };
    let [updown, counter] = ["updown", "counter"].map(str::to_owned);
    assert_eq!(["a", "b", "c"].map(kind), [(updown.clone(), 4), (updown, 4), (counter, 3)]);
}

#[test]
fn a_new_box_counts_though_named_sources_fill_the_table_and_those_hear_that_it_is_full() {
    let mut site = Site::start(1);
    site.set("sources.max", "2");
    open(&site.boxes[0], "press1");
    let full = site.boxes[0].client().post("/v1/sources/press2/epochs", "").unwrap();
    assert_eq!((full.status, full.problem()), (429, "too-many-sources".to_owned()));
    let made = site.extend(place());
    let member =
        json!({"id": made["id"], "name": site.boxes[1].name, "address": made["address"], "key": made["key"]});
    site.boxes[1].start();
    until("the site knows its members and takes another", || {
        let answer = site.boxes[0].client().post("/v1/members", &member.to_string()).ok()?;
        (answer.status == 200).then_some(())
    });
    site.boxes[1].until_ready();
    assert_eq!(site.boxes[1].add("parts", 3), 3);
    assert_eq!(site.boxes[1].status()["refused"], Value::Null);
}

#[test]
fn the_first_keyed_add_after_a_silence_is_added_however_short_keys_live() {
    let site = Site::start(3);
    site.set("keys.age", "3s");
    let at = site.follower();
    site.boxes[at].add("parts", 1);
    for (number, total) in [(1, 2), (2, 3)] {
        // A third of a key's life: from then on what was applied last is too old to go by.
        let silence = Instant::now() + Duration::from_millis(1_500);
        until("the site has been silent", || (Instant::now() >= silence).then_some(()));
        let mut client = site.boxes[at].client();
        let key = format!("key-{number}");
        let added = client.post_keyed("/v1/counters/parts", r#"{"add":1}"#, &key).unwrap().ok();
        assert_eq!(added["total"], total);
        let again = client.post_keyed("/v1/counters/parts", r#"{"add":1}"#, &key).unwrap().ok();
        assert_eq!(again["total"], total);
    }
}

#[test]
fn what_is_new_waits_until_every_box_of_an_older_site_can_apply_it() {
    let mut site = Site::provision(3, "1s", "");
    site.age();
    site.boxes[0].start();
    site.boxes[1].start();
    site.until_ready();
    let level = |one: &TestBox| one.status()["level"]["site"].as_u64().unwrap();
    site.boxes[0].add("parts", 1);
    assert_eq!((level(&site.boxes[0]), level(&site.boxes[1])), (1, 1), "box3 may be of an older release");
    let epoch = open(&site.boxes[1], "press3");
    let add = |number: u64| report("press3", &epoch, number, &json!([{"series": "parts", "add": number}]));
    site.boxes[1].client().post("/v1/reports", &add(1)).unwrap().ok();
    site.boxes[2].start();
    for one in &site.boxes {
        until("the site is raised", || (level(one) == 3).then_some(()));
    }
    site.boxes[2].client().post("/v1/reports", &add(2)).unwrap().ok();
    assert_eq!(site.boxes[0].total("parts"), 4);
    // The level is known again after a start, and from a snapshot.
    for one in &mut site.boxes {
        one.kill();
    }
    site.start_all();
    assert_eq!(level(&site.boxes[0]), 3);
    site.assert_same_digests();
}
