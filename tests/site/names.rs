//! Names of series: which are taken, and that those that the site knows are taken whatever else comes.

use serde_json::json;

use crate::boxes::{Site, TestBox};
use crate::harness::until;

const QUICK: &str = "[commit]\ninterval = \"50ms\"\n";

/// The status, the problem's name and its detail.
fn try_add(one: &TestBox, series: &str) -> (u16, String, String) {
    let answer = one.client().post(&format!("/v1/counters/{series}"), r#"{"add":1}"#).unwrap();
    if answer.status == 200 {
        return (200, String::new(), String::new());
    }
    (answer.status, answer.problem(), answer.json()["detail"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn junk_names_keep_no_series_out_that_the_site_knows() {
    let site = Site::start_with(3, "1s", QUICK);
    let (leader, follower) = (site.leader(), site.follower());
    let (leader, follower) = (&site.boxes[leader], &site.boxes[follower]);
    for known in ["known1", "known2", "known3"] {
        leader.add(known, 1);
    }
    site.set("series.max", "3");
    for one in [leader, follower] {
        for number in 0..8 {
            one.statsd(&format!("junk{number}:1|c\njunk{number}:1|g|#a:{number}"));
            let (status, name, detail) = try_add(one, &format!("junk{number}"));
            assert_eq!((status, name.as_str()), (429, "too-many-series"), "{detail}");
        }
        assert_eq!(try_add(one, "known1").0, 200, "at {}", one.name);
        one.statsd("known2:1|c\nknown3:1|c");
    }
    leader.until_total("known1", 3);
    leader.until_total("known2", 3);
    leader.until_total("known3", 3);
    until("the refused lines are told", || {
        let status = follower.try_status()?;
        let refused = status["ingest"]["statsd"]["refused"].as_array()?.clone();
        let many =
            refused.iter().find(|one| one["reason"].as_str().unwrap_or_default().contains("series.max"))?;
        (many["count"].as_u64()? == 16).then_some(())
    });
    let metrics = follower.client().get("/metrics").unwrap().text();
    assert!(metrics.contains("tallyd_statsd_refused_total{reason=\"too-many-series\"} 16\n"), "{metrics}");
    assert!(metrics.contains("tallyd_statsd_refused_total{reason=\"bad-value\"} 0\n"), "{metrics}");
    assert!(metrics.contains("tallyd_statsd_lost_datagrams_total 0\n"), "{metrics}");
    // Where there is room again, new names get in at once, at whichever box.
    site.set("series.max", "5");
    assert_eq!(try_add(follower, "new1").0, 200);
    assert_eq!(try_add(leader, "new2").0, 200);
}

#[test]
fn names_that_a_broker_may_not_take_are_refused_or_escaped() {
    let site = Site::start_with(1, "1s", QUICK);
    let one = &site.boxes[0];
    for bad in ["%EF%BF%BF", "%EF%BF%BE", "%EF%B7%90", "%F0%9F%BF%BF"] {
        let (status, name, detail) = try_add(one, &format!("temp{bad}"));
        assert_eq!((status, name.as_str()), (400, "malformed"), "{detail}");
        assert!(detail.contains("noncharacters"), "{detail}");
    }
    one.statsd("temp\u{ffff}:1|c|#c++");
    one.until_total("temp%25EF%25BF%25BF/c%252B%252B", 1);
}

#[test]
fn a_long_name_is_taken_once_all_boxes_are_updated() {
    let mut site = Site::provision(3, "1s", QUICK);
    site.age();
    site.boxes[0].start();
    site.boxes[1].start();
    site.until_ready();
    let (long, longest) = ("n".repeat(97), "n".repeat(200));
    for one in &site.boxes[..2] {
        assert_eq!(try_add(one, &long[..96]).0, 200);
        let (status, name, detail) = try_add(one, &long);
        assert_eq!((status, name.as_str()), (400, "malformed"));
        assert!(detail.contains("until all boxes of the site are updated"), "{detail}");
        let epoch = one.client().post("/v1/sources/press3/epochs", "").unwrap().ok()["epoch"].clone();
        let cells = json!([{"series": longest, "add": 1}]);
        let body = json!({"source": "press3", "epoch": epoch, "number": 1, "cells": cells}).to_string();
        let answer = one.client().post("/v1/reports", &body).unwrap();
        assert!(answer.status == 400 && answer.text().contains("until all boxes"), "{}", answer.text());
        one.statsd(&format!("{long}:1|c"));
        until("the line is told", || {
            let status = one.try_status()?;
            let refused = status["ingest"]["statsd"]["refused"].as_array()?.clone();
            refused
                .iter()
                .any(|one| one["reason"].as_str().unwrap().contains("update all boxes"))
                .then_some(())
        });
    }
    site.boxes[2].start();
    site.until_ready();
    for one in &site.boxes {
        until("long names are taken", || (try_add(one, &long).0 == 200).then_some(()));
        assert_eq!(try_add(one, &longest).0, 200);
        one.statsd(&format!("{}:1|c|#{}", "x".repeat(100), "y".repeat(99)));
        assert_eq!(try_add(one, &"n".repeat(201)).0, 400);
    }
    site.boxes[0].until_total(&format!("{}/{}", "x".repeat(100), "y".repeat(99)), 3);
    site.boxes[0].until_total(&longest, 3);
}
