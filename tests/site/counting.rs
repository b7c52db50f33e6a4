//! What is acknowledged is counted, once, and read at every box.

use std::collections::BTreeMap;

use crate::boxes::Site;
use crate::harness::until;

#[test]
fn an_acknowledged_add_is_read_at_every_box() {
    let site = Site::start(3);
    let mut clients: Vec<_> = site.boxes.iter().map(|one| one.client()).collect();
    let mut expected = 0;
    for round in 0..60_usize {
        let amount = 1 + round as u64 % 7;
        let adder = &mut clients[round % 3];
        let added = adder.post("/v1/counters/line1/parts", &format!("{{\"add\":{amount}}}")).unwrap().ok();
        expected += amount;
        // One client, one add at a time: the total is exactly this.
        assert_eq!(added["total"], expected);
        for client in &mut clients {
            let read = client.get("/v1/series/line1/parts").unwrap().ok();
            assert_eq!(
                (&read["total"], &read["kind"]),
                (&expected.into(), &"counter".into()),
                "round {round}"
            );
        }
    }
    site.assert_same_digests();
}

#[test]
fn updowns_and_samples_keep_what_was_added() {
    let site = Site::start(1);
    let mut client = site.boxes[0].client();
    for (add, total) in [(5, 5), (-8, -3), (-1, -4), (10, 6)] {
        let answer = client.post("/v1/updowns/stock", &format!("{{\"add\":{add}}}")).unwrap().ok();
        assert_eq!(answer["total"], total);
    }
    client.post("/v1/samples/oven", r#"{"value": 21.5}"#).unwrap().ok();
    let counted = client.post("/v1/samples/oven", r#"{"values": [19.25, 24]}"#).unwrap().ok();
    assert_eq!(counted["count"], 3);
    let read = client.get("/v1/series/oven").unwrap().ok();
    assert_eq!(read["count"], 3, "{read}");
    for (member, value) in [("sum", 64.75), ("min", 19.25), ("max", 24.0), ("last", 24.0)] {
        assert_eq!(read[member].as_f64(), Some(value), "{member} of {read}");
    }
}

#[test]
fn a_repeated_key_adds_once_at_any_box() {
    let site = Site::start(3);
    let path = "/v1/counters/a";
    let mut clients: Vec<_> = site.boxes.iter().map(|one| one.client()).collect();
    let first = clients[0].post_keyed(path, r#"{"add":5}"#, "key-1").unwrap().ok();
    assert_eq!(first["total"], 5);
    // In between another add, so that the first answer is told from a fresh total.
    clients[1].post(path, r#"{"add":100}"#).unwrap().ok();
    for at in [0, 1, 2, 0, 1, 2] {
        let again = clients[at].post_keyed(path, r#"{"add":5}"#, "key-1").unwrap().ok();
        assert_eq!(again, first, "a known key answers the first one's result");
    }
    for (client, (path, body)) in clients.iter_mut().zip([
        (path, r#"{"add":6}"#),
        ("/v1/counters/b", r#"{"add":5}"#),
        ("/v1/updowns/c", r#"{"add":5}"#),
    ]) {
        let reused = client.post_keyed(path, body, "key-1").unwrap();
        assert_eq!((reused.status, reused.problem()), (409, "key-reused".to_owned()), "{path} {body}");
    }
    assert_eq!(site.boxes[2].total("a"), 105);
    assert_eq!(site.boxes[2].total("b"), 0);
}

#[test]
fn the_same_key_at_all_boxes_at_once_adds_once() {
    let site = Site::start(3);
    for round in 0..20 {
        let key = format!("race-{round}");
        let totals: Vec<_> = std::thread::scope(|scope| {
            let racers: Vec<_> = (site.boxes.iter().chain(&site.boxes))
                .map(|one| {
                    let (mut client, key) = (one.client(), &key);
                    scope.spawn(move || {
                        client.post_keyed("/v1/counters/a", r#"{"add":3}"#, key).unwrap().ok()["total"]
                            .clone()
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        assert!(totals.iter().all(|total| *total == 3 * (round + 1)), "{totals:?}");
    }
    assert_eq!(site.boxes[0].total("a"), 60);
}

#[test]
fn windows_sum_up_to_the_total() {
    let site = Site::start(3);
    site.set("window.grace", "200ms");
    let mut client = site.boxes[1].client();
    let mut spans = BTreeMap::new();
    let mut total = 0;
    // Until the adds lie in three windows at least, then until all of these are closed.
    until("three windows are closed with all that was added", || {
        if spans.len() < 3 {
            total += 1;
            client.post("/v1/counters/a", r#"{"add":1}"#).unwrap().ok();
        }
        let answer = client.get("/v1/windows/a?last=100").unwrap();
        let windows = answer.ok()["windows"].as_array().unwrap().clone();
        spans.clear();
        for window in &windows {
            let (start, span) = (window["start"].as_u64().unwrap(), window["span"].as_u64().unwrap());
            assert_eq!((start % 1000, span), (0, 1000), "aligned to the epoch: {window}");
            *spans.entry(start).or_insert(0) += window["increase"].as_i64().unwrap();
        }
        let closed: i64 = spans.values().sum();
        assert!(closed <= total, "{closed} in windows, {total} added");
        (spans.len() >= 3 && closed == total).then_some(())
    });
}

#[test]
fn without_a_quorum_nothing_is_acknowledged_and_nothing_is_lost() {
    let mut site = Site::start(3);
    assert_eq!(site.boxes[0].add("a", 7), 7);
    site.boxes[1].kill();
    site.boxes[2].kill();
    let mut client = site.boxes[0].client();
    let cut_off = client.post_keyed("/v1/counters/a", r#"{"add":1}"#, "cut-off").unwrap();
    assert_eq!(cut_off.status, 503, "{}", cut_off.text());
    assert!(["not-committed", "outcome-unknown"].contains(&cut_off.problem().as_str()), "{}", cut_off.text());
    assert!(cut_off.header("retry-after").is_some());
    let read = client.get("/v1/series/a").unwrap();
    assert_eq!(
        (read.status, read.problem()),
        (503, "not-committed".to_owned()),
        "a read that cannot be confirmed"
    );
    // What was acknowledged is read; the add in doubt is not shown as done.
    let local = client.get("/v1/series/a?read=local").unwrap().ok();
    assert_eq!(local["total"], 7);
    assert_eq!(client.get("/healthz").unwrap().status, 200);
    assert_eq!(client.get("/readyz").unwrap().status, 503);
    site.start_all();
    for one in &site.boxes {
        until("the add in doubt is settled by its key", || {
            let answer = one.client().post_keyed("/v1/counters/a", r#"{"add":1}"#, "cut-off").ok()?;
            (answer.status == 200).then(|| assert_eq!(answer.ok()["total"], 8))
        });
    }
    assert_eq!(site.boxes[1].total("a"), 8);
}
