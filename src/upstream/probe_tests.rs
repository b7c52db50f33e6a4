//! Boxes that see for their leader whether the broker is there, against a real Mosquitto on loopback.

use super::broker_harness::*;
use super::*;
use crate::node::BrokerWish;

const ASKED: BrokerWish = BrokerWish { probe: true, tries: 0 };

#[tokio::test]
async fn a_box_that_is_asked_sees_whether_the_broker_is_there_and_disturbs_nobody() {
    let mut broker = Broker::start("");
    let site = Site::new();
    site.lead("box1", 1);
    let leader = site.start("box1", &broker.config());
    let other = site.start("box2", &broker.config());
    site.until_seen("box1", Some(true)).await;
    site.until_seen("box2", None).await;
    site.wish(ASKED);
    site.until_seen("box2", Some(true)).await;
    site.count([0; 10]);
    site.until_delivered(10).await;
    let status = leader.shared().status();
    assert_eq!((status.connections, status.last_error), (1, None), "the leader's connection went on");
    assert!(other.shared().status().probe.is_some_and(|probe| probe.reached));
    assert_eq!(other.shared().status().state, super::State::Standby);

    site.wish(BrokerWish::default());
    site.until_seen("box2", None).await;
    broker.kill();
    site.until_seen("box1", Some(false)).await;
    site.wish(ASKED);
    site.until_seen("box2", Some(false)).await;
    let probe = other.shared().status().probe.unwrap();
    assert!(!probe.reached && probe.what.unwrap().contains("cannot reach the broker"));
    // Whoever reached it tells the leader to try at once, however long it would have waited.
    broker.run();
    site.until_seen("box2", Some(true)).await;
    site.wish(BrokerWish { tries: 1, ..ASKED });
    site.until_seen("box1", Some(true)).await;
}

#[tokio::test]
async fn a_port_behind_which_nobody_answers_is_no_broker_nor_one_that_lets_nobody_in() {
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = Broker::start("allow_anonymous false");
    let url = format!("mqtt://{}", deaf.local_addr().unwrap()).parse().unwrap();
    let config = UpstreamConfig { url: Some(url), ..UpstreamConfig::default() };
    let site = Site::new();
    site.lead("box1", 1);
    site.wish(ASKED);
    let at_port = site.start("box2", &config);
    let at_closed = site.start("box3", &closed.config());
    site.until_seen("box2", Some(false)).await;
    site.until_seen("box3", Some(false)).await;
    let why = |upstream: &Upstream| upstream.shared().status().probe.unwrap().what.unwrap();
    assert!(why(&at_port).contains("no answer"), "{}", why(&at_port));
    assert!(why(&at_closed).contains("refused the connection"), "{}", why(&at_closed));
}

#[tokio::test]
async fn a_broker_of_qos_0_serves_nobody_whoever_asks() {
    let broker = Broker::start("max_qos 0");
    let site = Site::new();
    site.lead("box1", 1);
    site.wish(ASKED);
    let _leader = site.start("box1", &broker.config());
    let other = site.start("box2", &broker.config());
    // Or leadership would go to and fro.
    site.until_seen("box2", Some(false)).await;
    site.until_seen("box1", Some(false)).await;
    let what = other.shared().status().probe.unwrap().what.unwrap();
    assert!(what.contains("QoS not supported (0x9B)") && what.contains("max_qos"), "{what}");
}
