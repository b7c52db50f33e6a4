//! The upstream against a real Mosquitto on loopback, with an outbox that is as simple as can be.

use serde_json::Value;

use super::broker_harness::*;
use super::*;

#[tokio::test]
async fn everything_arrives_in_order_with_totals_and_properties() {
    let broker = Broker::start("");
    let mut subscriber = Subscriber::start(broker.port, &[]).await;
    let site = Site::new();
    site.count((0..2500).map(|n| n % 7));
    site.lead("box1", 1);
    let upstream = site.start("box1", &broker.config());
    site.until_delivered(2500).await;
    subscriber
        .until(|all| {
            all.iter().filter(|one| one["topic"].as_str().unwrap().contains("/summary/")).count() >= 2500
        })
        .await;
    assert_eq!(seqs(&subscriber), (1..=2500).collect::<Vec<u64>>());
    assert_eq!(site.numbered_at_once_max(), 1000);

    let first = &subscriber.on("tally/s/summary/")[0];
    assert_eq!((&first["qos"], &first["retain"]), (&Value::from(1), &Value::from(0)));
    assert_eq!(first["properties"]["content-type"], "application/json");
    let user = first["properties"]["user-properties"].to_string();
    assert!(user.contains("abcdef0123456789") && user.contains("seq"), "{user}");

    // Who comes later finds each series' total as of its last number, and the status.
    let mut later = Subscriber::start(broker.port, &[]).await;
    later.until(|all| all.iter().filter(|one| one["retain"] == 1).count() >= 8).await;
    for id in 0..7u64 {
        let retained = later.on(&format!("tally/s/total/series/{id}"));
        let total = payload(&retained[0]);
        let expected = (0..2500).filter(|n| n % 7 == id).count();
        assert_eq!(total["total"], expected);
    }
    assert_eq!(states(&later.on("tally/s/status")), ["online"]);
    let status = upstream.shared().status();
    assert_eq!((status.state, status.published, status.acknowledged), (super::State::Connected, 2500, 2500));
    assert_eq!((status.connections, status.last_error), (1, None));
    upstream.stop(false).await;
}

#[tokio::test]
async fn totals_never_go_back_for_a_subscriber() {
    let broker = Broker::start("");
    let mut subscriber = Subscriber::start(broker.port, &[]).await;
    let site = Site::new();
    site.lead("box1", 1);
    let first = site.start("box1", &broker.config());
    site.count([0; 300]);
    subscriber.until(|all| all.len() > 150).await;
    // The next leader repeats what the first one had sent without recording it.
    site.lead("box2", 2);
    let second = site.start("box2", &broker.config());
    site.count([0; 300]);
    site.until_delivered(600).await;
    subscriber
        .until(|all| {
            let came = |topic: &str, key: &str| {
                all.iter().any(|one| one["topic"] == topic && payload(one)[key] == 600)
            };
            came("tally/s/summary/series/0", "seq") && came("tally/s/total/series/0", "total")
        })
        .await;
    let totals: Vec<i64> =
        subscriber.on("tally/s/total/").iter().map(|one| payload(one)["total"].as_i64().unwrap()).collect();
    assert!(totals.is_sorted(), "{totals:?}");
    assert_eq!(totals.last(), Some(&600));
    let mut seqs = seqs(&subscriber);
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!(seqs, (1..=600).collect::<Vec<u64>>());
    assert!(!states(&subscriber.received.borrow()).contains(&"offline".to_owned()));
    first.stop(false).await;
    second.stop(false).await;
}

#[tokio::test]
async fn a_broker_that_dies_gets_everything_again_that_it_did_not_acknowledge() {
    let mut broker = Broker::start("");
    let site = Site::new();
    site.lead("box1", 1);
    let upstream = site.start("box1", &broker.config());
    site.count([1; 50]);
    site.until_delivered(50).await;
    // Its session outlives the broker, so that it misses nothing, whichever of the two is connected again first.
    let keep = ["-c", "-i", "the-dashboard", "-x", "3600"];
    let mut subscriber = Subscriber::start(broker.port, &keep).await;
    broker.save().await;
    broker.kill();
    site.count([2; 50]);
    broker.run();
    site.until_delivered(100).await;
    subscriber
        .until(|all| {
            all.iter().any(|one| one["topic"] == "tally/s/summary/series/2" && payload(one)["seq"] == 100)
        })
        .await;
    let mut seqs = seqs(&subscriber);
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!(seqs, (51..=100).collect::<Vec<u64>>());
    assert_eq!(upstream.shared().status().connections, 2);
    upstream.stop(false).await;
}

#[tokio::test]
async fn an_old_leader_that_was_paused_neither_connects_nor_publishes() {
    let broker = Broker::start("");
    let site = Site::new();
    site.count([0; 10]);
    site.lead("box2", 2);
    let new = site.start("box2", &broker.config());
    site.until_delivered(10).await;
    let old = site.start_paused("box1", &broker.config()).await;
    site.count([0; 10]);
    site.until_delivered(20).await;
    assert_eq!(old.shared().status().connections, 0);
    assert_eq!(new.shared().status().connections, 1, "the new leader's connection was not pushed out");
    old.stop(false).await;
    new.stop(false).await;
}

#[tokio::test]
async fn the_last_box_says_offline_and_another_does_not() {
    let broker = Broker::start("");
    let mut subscriber = Subscriber::start(broker.port, &[]).await;
    let site = Site::new();
    site.lead("box1", 1);
    let first = site.start("box1", &broker.config());
    subscriber.until(|all| states(all) == ["online"]).await;
    first.stop(false).await;
    site.lead("box2", 2);
    let second = site.start("box2", &broker.config());
    subscriber.until(|all| states(all) == ["online", "online"]).await;
    site.count([0]);
    subscriber.until(|all| all.iter().any(|one| one["topic"] == "tally/s/summary/series/0")).await;
    second.stop(true).await;
    subscriber.until(|all| states(all) == ["online", "online", "offline"]).await;
    assert_eq!(site.delivered(), 1, "what was acknowledged is recorded on the way out");
}

#[tokio::test]
async fn a_broker_that_refuses_us_is_named_in_the_status_without_the_password() {
    let broker = Broker::start("allow_anonymous false");
    let site = Site::new();
    site.lead("box1", 1);
    let config = UpstreamConfig {
        url: Some(format!("mqtt://me:hushhush@127.0.0.1:{}", broker.port).parse().unwrap()),
        ..UpstreamConfig::default()
    };
    let upstream = site.start("box1", &config);
    trouble(&upstream, "").await;
    let status = serde_json::to_string(&upstream.shared().status()).unwrap();
    assert!(status.contains("not authorized (0x87)") && status.contains("upstream.url"), "{status}");
    assert!(!status.contains("hushhush"), "{status}");
    upstream.stop(false).await;
}
