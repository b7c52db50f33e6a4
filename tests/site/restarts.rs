//! Boxes that come back: from their log, from a snapshot, from far behind, in good order.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::boxes::Site;
use crate::harness::until;
use crate::load::{Load, fill_log};

/// All series with their whole state, as a box reads them.
fn everything(site: &Site, at: usize) -> Vec<Value> {
    let mut client = site.boxes[at].client();
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/series?limit=1000{after}");
        let page = until("a page of series is read", || {
            let answer = client.get(&path).ok()?;
            (answer.status == 200).then(|| answer.ok())
        });
        all.extend(page["series"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return all,
        }
    }
}

#[test]
fn a_restart_from_the_log_keeps_every_total() {
    let mut site = Site::start_with(1, "60s", "");
    let mut client = site.boxes[0].client();
    for add in 1..=50 {
        client.post(&format!("/v1/counters/c/{}", add % 7), &format!("{{\"add\":{add}}}")).unwrap().ok();
        client.post("/v1/updowns/u", r#"{"add":-3}"#).unwrap().ok();
        client.post("/v1/samples/s", &format!("{{\"value\":{add}.25}}")).unwrap().ok();
    }
    let keyed = client.post_keyed("/v1/counters/k", r#"{"add":5}"#, "once").unwrap().ok();
    let before = everything(&site, 0);
    assert_eq!(before.len(), 10);
    for _ in 0..2 {
        site.boxes[0].kill();
        site.start_all();
        assert_eq!(site.boxes[0].status()["storage"]["snapshot_index"], 0, "this is about the log");
        assert_eq!(everything(&site, 0), before);
    }
    // What was remembered against doubles survives too.
    let again = site.boxes[0].client().post_keyed("/v1/counters/k", r#"{"add":5}"#, "once").unwrap().ok();
    assert_eq!(again, keyed);
}

#[test]
fn a_restart_from_a_snapshot_keeps_every_total() {
    let mut site = Site::start_with(1, "60s", "");
    let keyed = site.boxes[0].client().post_keyed("/v1/counters/k", r#"{"add":5}"#, "once").unwrap().ok();
    let covered = || site.boxes[0].status()["storage"]["snapshot_index"].as_u64().unwrap();
    fill_log(&site.boxes[0], || covered() > 0);
    let covered = covered();
    site.boxes[0].add("after", 9);
    let before = everything(&site, 0);
    site.boxes[0].kill();
    site.start_all();
    assert_eq!(everything(&site, 0), before);
    let after = site.boxes[0].status();
    assert!(after["storage"]["snapshot_index"].as_u64().unwrap() >= covered, "{after}");
    let again = site.boxes[0].client().post_keyed("/v1/counters/k", r#"{"add":5}"#, "once").unwrap().ok();
    assert_eq!(again, keyed);
}

#[test]
fn a_follower_that_is_far_behind_catches_up() {
    let mut site = Site::start_with(3, "60s", "");
    let behind = site.follower();
    site.boxes[behind].kill();
    let leader = site.leader();
    // Until what the other one needs next is not in the leader's log any more.
    let log = site.boxes[leader].directory.join("log");
    let oldest = [log.join("000000000001.log"), log.join("000000000001.full")];
    assert!(oldest[0].exists());
    fill_log(&site.boxes[leader], || !oldest.iter().any(|file| file.exists()));
    site.boxes[behind].start();
    site.boxes[behind].until_log("installed a snapshot");
    site.boxes[behind].until_ready();
    site.assert_same_digests();
    assert_eq!(everything(&site, behind), everything(&site, leader));
    // What it took in is on its disk, and it can vote and lead from it.
    site.boxes[behind].kill();
    site.boxes[behind].start();
    site.boxes[behind].until_ready();
    site.boxes[leader].kill();
    site.boxes[behind].until_ready();
    until("an add through it is acknowledged", || {
        let answer = site.boxes[behind].client().post_keyed("/v1/counters/a", r#"{"add":1}"#, "k").ok()?;
        (answer.status == 200).then_some(())
    });
}

#[test]
fn a_follower_that_is_slightly_behind_catches_up_from_the_log() {
    let mut site = Site::start(3);
    let behind = site.follower();
    site.boxes[behind].kill();
    let load = Load::start(&site, 4);
    until("the others go on", || (load.done() > 200).then_some(()));
    site.boxes[behind].start();
    site.boxes[behind].until_ready();
    load.finish().assert_held(&site);
    site.assert_same_digests();
    assert!(!site.boxes[behind].log().contains("installed a snapshot"));
}

#[test]
fn an_orderly_stop_of_the_leader_under_load_loses_nothing() {
    let mut site = Site::start(3);
    let load = Load::start(&site, 4);
    for _ in 0..3 {
        let before = load.done();
        until("the load runs", || (load.done() > before + 50).then_some(()));
        let leader = site.leader();
        site.boxes[leader].terminate();
        let before = load.done();
        until("the others go on", || (load.done() > before + 50).then_some(()));
        site.start_all();
    }
    load.finish().assert_held(&site);
}

#[test]
fn a_stop_loses_nothing_that_statsd_counted() {
    // Nothing is committed of itself before the stop.
    let mut site = Site::start_with(3, "1s", "[commit]\ninterval = \"1h\"\n");
    for (round, at) in [site.follower(), site.leader()].into_iter().enumerate() {
        let before: BTreeMap<_, _> = ["a", "b"].map(|series| (series, site.boxes[at].total(series))).into();
        for _ in 0..50 {
            site.boxes[at].statsd("a:1|c\nb:2|c\na:3|c");
        }
        site.boxes[at].terminate();
        let other = &site.boxes[(at + 1) % 3];
        for (series, sent) in [("a", 200), ("b", 100)] {
            assert_eq!(other.total(series) - before[series], sent, "{series} in round {round}");
        }
        site.start_all();
    }
    let mut alone = Site::start_with(1, "1s", "[commit]\ninterval = \"1h\"\n");
    alone.boxes[0].statsd("a:41|c\na:1|c");
    alone.boxes[0].terminate();
    alone.start_all();
    assert_eq!(alone.boxes[0].total("a"), 42);
}
