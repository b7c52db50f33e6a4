//! What comes in at the doors: what no box could read, and names that a broker does not take.

use serde_json::{Value, json};

use super::Trial;
use crate::harness::until;

/// Of each plane one that MQTT's texts must not have, and the two that the issue names besides.
const NONCHARACTERS: [char; 4] = ['\u{ffff}', '\u{fffe}', '\u{fdd0}', '\u{1ffff}'];

/// Each box refuses at its door what could not be read where it is applied.
pub(super) fn what_no_box_could_read(trial: &mut Trial<'_>) {
    let key = "ab".repeat(32);
    let member = |name: &str, address: &str, key: &str| {
        ("/v1/members", json!({"id": 9, "name": name, "address": address, "key": key}))
    };
    let long = "n".repeat(300);
    let cell = |series: &str, meter: &str| json!({"series": series, "meter": meter, "reading": 1});
    let report = |cell: Value| {
        ("/v1/reports", json!({"source": "s", "epoch": "0".repeat(16), "number": 1, "cells": [cell]}))
    };
    let all = [
        member("box9", &format!("10.0.0.9:{:0>300}", 7400), &key),
        member("box9", &format!("{long}:7400"), &key),
        member("box9", &"x".repeat(5000), &key),
        member(&long, "10.0.0.9:7400", &key),
        member("box9", "10.0.0.9:7400", "ab"),
        report(cell(&long, "m")),
        report(cell("a", &long)),
        report(cell("a\u{ffff}", "m")),
    ];
    let sources = format!("/v1/sources/{long}/epochs");
    for one in &trial.site.boxes {
        let mut client = one.admin();
        for (path, body) in all.iter().map(|(path, body)| (*path, body.to_string())) {
            let answer = client.post(path, &body).unwrap();
            assert_eq!(answer.status, 400, "{path} {body}: {}", answer.text());
        }
        assert_eq!(client.post(&sources, "").unwrap().status, 400);
        let path = format!("/v1/settings/{long}");
        let answer = client.request("PUT", &path, &[], br#"{"value":"1s"}"#).unwrap();
        assert!((400..500).contains(&answer.status), "{}", answer.text());
    }
    trial.goes_on("what no box could read");
}

/// Names that MQTT could not carry, and topics that the broker denies.
pub(super) fn names_that_the_broker_does_not_take(trial: &mut Trial<'_>) {
    for one in &trial.site.boxes {
        one.statsd("denied:1|c");
        for character in NONCHARACTERS {
            one.statsd(&format!("temp{character}:1|c"));
            let path = format!("/v1/counters/temp{}", escaped(character, "%"));
            let answer = one.client().post(&path, r#"{"add":1}"#).unwrap();
            assert_eq!(answer.status, 400, "{}", answer.text());
        }
    }
    let held = 1 + NONCHARACTERS.len() as u64;
    until("what the broker denies is held", || {
        (trial.leader_status()?["outbox"]["held"].as_u64()? >= held).then_some(())
    });
    trial.goes_on("names and topics that the broker does not take");
}

/// A character as names have it that came with it, or as a request asks for such a name.
fn escaped(character: char, sign: &str) -> String {
    let mut bytes = [0; 4];
    character.encode_utf8(&mut bytes).bytes().map(|byte| format!("{sign}{byte:02X}")).collect()
}

/// The series of those names, each of which was counted once a box: as summaries name them, and as requests do.
pub(super) fn of_noncharacters() -> Vec<(String, String)> {
    let of = |character| {
        (format!("temp{}", escaped(character, "%")), format!("temp{}", escaped(character, "%25")))
    };
    NONCHARACTERS.into_iter().map(of).collect()
}
