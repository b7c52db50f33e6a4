//! kill -9 of any box at any moment: acknowledged = held, nothing twice.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Site, TALLYD, wait};

/// Retrying clients with idempotency keys at all boxes, as `tallyd bench --failover` has them.
fn clients(site: &Site, seconds: u32) -> std::process::Child {
    Command::new(TALLYD)
        .args(["bench", "--failover", "--clients", "8", "--series", "50", "--json", "--settle", "30"])
        .args(["--url", &site.urls(), "--seconds", &seconds.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|each| find(each, key))),
        Value::Array(list) => list.iter().find_map(|each| find(each, key)),
        _ => None,
    }
}

#[test]
fn killing_the_leader_again_and_again_loses_nothing_and_counts_nothing_twice() {
    let mut site = Site::start(3, &[]);
    for each in &site.boxes {
        each.ready();
    }
    let bench = clients(&site, 16);
    for _ in 0..5 {
        let leader = site.leader();
        let before = site.boxes[leader].status()["applied"].as_u64().unwrap();
        // In the middle of work: some entries of this leadership are applied.
        wait("entries", || (site.boxes[leader].status()["applied"].as_u64()? > before + 50).then_some(()));
        site.boxes[leader].kill();
        let next = site.leader();
        assert_ne!(next, leader);
        site.boxes[leader].start();
        site.boxes[leader].ready();
    }
    let output = bench.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number =
        |key: &str| find(&report, key).unwrap_or_else(|| panic!("{key} in {report}")).as_u64().unwrap();
    assert!(number("acknowledged") > 500, "{report}");
    assert_eq!((number("lost"), number("doubled"), number("unknown")), (0, 0, 0), "{report}");
    site.digests_agree();
}

#[test]
fn all_boxes_killed_at_once_keep_every_acknowledged_add() {
    let mut site = Site::start(3, &[]);
    for each in &site.boxes {
        each.ready();
    }
    for number in 1..=30 {
        let (status, body) = site.boxes[number % 3].post("/v1/counters/a", r#"{"add": 1}"#);
        assert_eq!(status, 200, "{body}");
    }
    for each in &mut site.boxes {
        each.kill();
    }
    for each in &mut site.boxes {
        each.start();
    }
    for each in &site.boxes {
        each.ready();
        assert_eq!(each.total("a"), Some(30));
    }
    site.digests_agree();
}

#[test]
fn a_box_that_was_away_catches_up() {
    let mut site = Site::start(3, &[]);
    let leader = site.leader();
    let away = (leader + 1) % 3;
    site.boxes[leader].ready();
    site.boxes[away].kill();
    for _ in 0..200 {
        assert_eq!(site.boxes[leader].post("/v1/counters/a", r#"{"add": 1}"#).0, 200);
    }
    site.boxes[away].start();
    site.boxes[away].ready();
    assert_eq!(site.boxes[away].total("a"), Some(200));
    site.digests_agree();
}

#[test]
fn without_a_majority_nothing_is_acknowledged_and_reads_of_the_local_state_still_work() {
    let mut site = Site::start(3, &[]);
    for each in &site.boxes {
        each.ready();
    }
    assert_eq!(site.boxes[0].post("/v1/counters/a", r#"{"add": 7}"#).0, 200);
    wait("the add at box 1", || {
        let (_, body) = site.boxes[0].get("/v1/series/a?read=local")?;
        (body["total"] == 7).then_some(())
    });
    site.boxes[1].kill();
    site.boxes[2].kill();
    wait("the loss to be noticed", || site.boxes[0].status()["leader"].is_null().then_some(()));
    let (status, body) = site.boxes[0].post("/v1/counters/a", r#"{"add": 1}"#);
    assert_eq!(status, 503, "{body}");
    assert!(body["type"].as_str().unwrap().ends_with("not-committed"), "{body}");
    let (status, body) = site.boxes[0].get("/v1/series/a?read=local").unwrap();
    assert_eq!((status, body["total"].as_i64()), (200, Some(7)));
    site.boxes[1].start();
    site.boxes[1].ready();
    assert_eq!(site.boxes[1].total("a"), Some(7));
}
