//! A site that somebody tried first gets its names: its topics change, and nothing else does.

use std::collections::BTreeMap;

use crate::boxes::{Site, TestBox};
use crate::broker::{Broker, Subscriber};
use crate::harness::until;
use crate::joining::{joined, start_waiting, token, told, tried};

/// A box that found its site by itself, under the names of its host, as it were.
fn tried_first(broker: &Broker) -> Site {
    let mut site = Site::waiting(2);
    let one = &mut site.boxes[0];
    std::fs::remove_file(one.directory.join("tallyd.toml")).unwrap();
    start_again(one, broker);
    site
}

fn start_again(one: &mut TestBox, broker: &Broker) {
    let mut command = one.command();
    command.env("TALLYD_API_LISTEN", format!("127.0.0.1:{}", one.http));
    command.env("TALLYD_INGEST_STATSD_LISTEN", "off");
    command.env("TALLYD_CLUSTER_LISTEN", format!("127.0.0.1:{}", one.quic));
    command.env("TALLYD_UPSTREAM_URL", format!("mqtt://127.0.0.1:{}", broker.port));
    one.start_by(command, None);
    one.until_ready();
}

fn until_connected(one: &TestBox) {
    until("the box is connected to the broker", || {
        (one.try_status()?["upstream"]["state"] == "connected").then_some(())
    });
}

/// What the broker retains under a topic, as a new subscriber hears it.
fn retained(broker: &Broker, name: &str, base: &str) -> BTreeMap<String, String> {
    let subscriber = broker.subscribe_as(name);
    subscriber.on(base).into_iter().map(|message| (message.topic, message.payload)).collect()
}

fn until_total(subscriber: &Subscriber, topic: &str, total: i64) -> serde_json::Value {
    until(&format!("{topic} says {total}"), || {
        let last = subscriber.on(topic).last()?.clone();
        (!last.payload.is_empty() && last.json()["total"] == total).then(|| last.json())
    })
}

#[test]
fn a_site_of_one_box_is_renamed_and_its_topics_are_and_nothing_is_counted_twice_or_lost() {
    let broker = Broker::start();
    let mut site = tried_first(&broker);
    let subscriber = broker.subscribe();
    let one = &site.boxes[0];
    let before = one.status();
    let old = before["site"].as_str().unwrap().to_owned();
    until_connected(one);
    told(one, &["settings", "window.base", "1s"]);
    told(one, &["settings", "window.grace", "200ms"]);
    assert_eq!(one.add("line1/parts", 1204), 1204);
    let first = until_total(&subscriber, &format!("tally/{old}/total/line1/parts"), 1204);

    let said = told(one, &["init", "--site", "plant7", "--name", "press"]);
    assert!(said.starts_with("plant7 (") && said.contains("has one box: press, not reached"), "{said}");
    let status = until("it serves under its new names", || {
        let status = one.try_status()?;
        (status["site"] == "plant7" && status["ready"] == true).then_some(status)
    });
    assert_eq!((&status["node"], &status["site_id"]), (&"press".into(), &before["site_id"]));
    assert_eq!(status["members"][0]["name"], "press");
    // Whoever listens under the old name hears that nobody is there, and who comes later hears nothing.
    let said = subscriber.on(&format!("tally/{old}/status"));
    assert!(said.iter().any(|message| message.payload.contains("\"offline\"")), "{said:?}");
    assert_eq!(retained(&broker, "later", &format!("tally/{old}/")), BTreeMap::new());
    assert_eq!(one.total("line1/parts"), 1204);
    assert_eq!(one.add("line1/parts", 3), 1207);
    let next = until_total(&subscriber, "tally/plant7/total/line1/parts", 1207);
    assert!(next["seq"].as_u64() > first["seq"].as_u64(), "{first} {next}");
    let summaries: Vec<u64> = ["tally/plant7/summary/", &format!("tally/{old}/summary/")]
        .iter()
        .flat_map(|prefix| subscriber.on(prefix))
        .map(|message| message.json()["seq"].as_u64().unwrap())
        .collect();
    let mut once = summaries.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), summaries.len(), "each number once: {summaries:?}");
    // The same again changes nothing.
    told(one, &["init", "--site", "plant7"]);
    // Its own start finds the names, and it can grow.
    site.boxes[0].kill();
    start_again(&mut site.boxes[0], &broker);
    assert_eq!(site.boxes[0].status()["node"], "press");
    let reached = format!("127.0.0.1:{}", site.boxes[0].quic);
    let token = token(&site.boxes[0], &["--advertise", &reached]);
    start_waiting(&mut site.boxes[1]);
    assert!(joined(&site.boxes[1], &site.boxes[0], &token).contains("number 2 of plant7"));
    let refused = tried(&site.boxes[1], &["init", "--site", "other"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("only a site of one box can be renamed"));
}

#[test]
fn a_site_whose_broker_is_away_keeps_its_name() {
    let mut broker = Broker::start();
    let site = tried_first(&broker);
    let old = site.boxes[0].status()["site"].clone();
    until_connected(&site.boxes[0]);
    broker.kill();
    until("it knows that the broker is away", || {
        (site.boxes[0].try_status()?["upstream"]["state"] != "connected").then_some(())
    });
    let refused = tried(&site.boxes[0], &["init", "--site", "plant7"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains("is not connected") && said.contains("cannot be cleared"), "{said}");
    assert_eq!(site.boxes[0].status()["site"], old);
    assert!(!site.boxes[0].directory.join("renaming.json").exists());
}

#[test]
fn a_renaming_that_a_crash_came_between_is_finished_by_the_next_start() {
    let broker = Broker::start();
    let mut site = tried_first(&broker);
    let old = site.boxes[0].status()["site"].as_str().unwrap().to_owned();
    until_connected(&site.boxes[0]);
    site.boxes[0].kill();
    let wish = site.boxes[0].directory.join("renaming.json");
    std::fs::write(&wish, r#"{"site":"plant7","name":"press"}"#).unwrap();
    start_again(&mut site.boxes[0], &broker);
    until("it serves under its new names", || {
        let status = site.boxes[0].try_status()?;
        (status["site"] == "plant7" && status["node"] == "press" && status["ready"] == true).then_some(())
    });
    assert!(!wish.exists());
    assert_eq!(retained(&broker, "later", &format!("tally/{old}/")), BTreeMap::new());
}
