//! What a broker does not take holds up nothing else: against a real Mosquitto, and against one that breaks.

use std::collections::BTreeSet;

use super::broker_harness::*;
use super::*;
use crate::mqtt::fake_broker::{Act, FakeBroker};

/// Mosquitto with an ACL file that can be changed.
struct Ruled {
    broker: Broker,
    rules: tempfile::TempDir,
}

impl Ruled {
    fn start(topics: &[&str]) -> Ruled {
        let rules = tempfile::tempdir().unwrap();
        write(&rules, topics);
        let broker = Broker::start(&format!("acl_file {}", rules.path().join("acl").display()));
        Ruled { broker, rules }
    }

    fn allow(&self, topics: &[&str]) {
        write(&self.rules, topics);
        self.broker.signal(rustix::process::Signal::HUP);
    }
}

fn write(rules: &tempfile::TempDir, topics: &[&str]) {
    let lines: Vec<String> = topics.iter().map(|topic| format!("topic readwrite {topic}\n")).collect();
    std::fs::write(rules.path().join("acl"), lines.concat()).unwrap();
}

const ALL_BUT_1: [&str; 4] = ["ready", "tally/s/status", "tally/s/total/#", "tally/s/summary/series/0"];

#[tokio::test]
async fn a_denied_summary_is_held_while_others_go_on_and_delivered_when_it_is_allowed() {
    let ruled = Ruled::start(&ALL_BUT_1);
    let site = Site::new();
    site.lead("box1", 1);
    let upstream = site.start("box1", &ruled.broker.config());
    site.count([0, 1, 0, 1, 0]);
    site.until_delivered(5).await;
    site.until_held(&[2, 4]).await;
    let status = upstream.status();
    assert_eq!((status.held, status.held_first.len()), (2, 2));
    let first = &status.held_first[0];
    assert_eq!(
        (first.seq, first.series.as_str(), first.topic.as_str()),
        (2, "series/1", "tally/s/summary/series/1")
    );
    assert_eq!(first.cause, "not authorized (0x87)");
    let refuses: Vec<&str> = status.refuses.iter().map(|refused| refused.topic.as_str()).collect();
    assert_eq!(refuses, ["tally/s/summary/series/1", "tally/s/undeliverable"]);

    let mut subscriber = Subscriber::start(ruled.broker.port, &[]).await;
    ruled.allow(&["#"]);
    site.until_held(&[]).await;
    // Either topic takes them by now.
    let seqs = |all: &[serde_json::Value]| {
        let topics = ["tally/s/summary/series/1", "tally/s/undeliverable"];
        let came = all.iter().filter(|one| topics.iter().any(|topic| one["topic"] == *topic));
        let mut seqs: Vec<u64> = came.map(|one| payload(one)["seq"].as_u64().unwrap()).collect();
        seqs.sort_unstable();
        seqs.dedup();
        seqs
    };
    subscriber.until(|all| seqs(all) == [2, 4]).await;
    assert_eq!(upstream.status().held, 0);
    upstream.stop(false).await;
}

#[tokio::test]
async fn many_denied_series_hold_up_none_that_is_taken() {
    // Mosquitto 2.0.11 ends the connection with each refusal.
    let ruled =
        Ruled::start(&["ready", "tally/s/status", "tally/s/summary/series/0", "tally/s/total/series/0"]);
    let site = Site::new();
    site.lead("box1", 1);
    let upstream = site.start("box1", &ruled.broker.config());
    site.count((1..=60).chain([0]));
    site.until_delivered(61).await;
    site.until_held(&(1..=60).collect::<Vec<u64>>()).await;
    let (refused, mut number) = (upstream.status().refused, 61);
    // While what is held is tried again, at the cost of connections.
    while upstream.status().refused < refused + 3 {
        number += 1;
        let counted = Instant::now();
        site.count([0]);
        site.until_delivered(number).await;
        assert!(counted.elapsed() < Duration::from_secs(3), "number {number} took {:?}", counted.elapsed());
    }
    upstream.stop(false).await;
}

#[tokio::test]
async fn a_denied_summary_is_published_as_undeliverable_with_its_reason() {
    let ruled = Ruled::start(&[&ALL_BUT_1[..], &["tally/s/undeliverable"]].concat());
    let mut subscriber = Subscriber::start(ruled.broker.port, &[]).await;
    let site = Site::new();
    site.lead("box1", 1);
    let upstream = site.start("box1", &ruled.broker.config());
    site.count([0, 1, 0]);
    site.until_delivered(3).await;
    subscriber.until(|all| all.iter().any(|one| one["topic"] == "tally/s/undeliverable")).await;
    let message = payload(&subscriber.on("tally/s/undeliverable")[0]);
    for (key, value) in [
        ("seq", serde_json::Value::from(2)),
        ("series", "series/1".into()),
        ("increase", 1.into()),
        ("topic", "tally/s/summary/series/1".into()),
        ("reason", "not authorized (0x87)".into()),
    ] {
        assert_eq!(message[key], value, "{message}");
    }
    let status = upstream.status();
    assert_eq!((status.held, status.undeliverable), (0, 1));
    upstream.stop(false).await;
}

#[tokio::test]
async fn a_new_leader_goes_on_with_what_is_held() {
    let ruled = Ruled::start(&ALL_BUT_1);
    let site = Site::new();
    site.lead("box1", 1);
    let first = site.start("box1", &ruled.broker.config());
    site.count([1, 0]);
    site.until_delivered(2).await;
    site.until_held(&[1]).await;
    ruled.allow(&["#"]);
    site.lead("box2", 2);
    let second = site.start("box2", &ruled.broker.config());
    site.until_held(&[]).await;
    first.stop(false).await;
    second.stop(false).await;
}

#[tokio::test]
async fn a_broker_that_takes_nothing_is_not_flooded_and_goes_on_when_it_takes_something() {
    let broker = FakeBroker::start(&[0, 0], |_| Act::Refuse(0x87)).await;
    let site = Site::new();
    site.lead("box1", 1);
    let upstream = site.start("box1", &broker.config());
    site.count(0..300);
    site.until_delivered(33).await;
    // From here on one number is tried a second later, the next two seconds after it, and so on.
    let before = upstream.shared().status().published;
    let flooded = tokio::time::timeout(Duration::from_secs(3), site.until_delivered(45)).await;
    assert!(flooded.is_err(), "{:?}", upstream.shared().status());
    assert!(upstream.shared().status().published - before < 6, "{:?}", upstream.shared().status());
    assert_eq!(upstream.shared().status().connections, 1);
    broker.answer(|_| Act::Take);
    site.until_delivered(300).await;
    site.until_held(&[]).await;
    upstream.stop(false).await;
}

/// Numbers of the series that is refused are held without a try, and wait for nothing.
#[tokio::test]
async fn many_numbers_of_a_refused_series_delay_nothing() {
    let refuses = |topic: &str| match topic {
        "tally/s/summary/series/1" | "tally/s/undeliverable" => Act::Refuse(0x87),
        _ => Act::Take,
    };
    let broker = FakeBroker::start(&[0, 0], refuses).await;
    let site = Site::new();
    site.lead("box1", 1);
    let upstream = site.start("box1", &broker.config());
    site.count(std::iter::repeat_n(1, 200).chain([0]));
    tokio::time::timeout(Duration::from_secs(5), site.until_delivered(201)).await.expect("all go on");
    assert_eq!(site.held().len(), 200);
    assert!(broker.count("tally/s/summary/series/1") < 10, "what is refused is not tried with each number");
    upstream.stop(false).await;
}

/// Mosquitto 2.0.11 closes the connection right after it denied a message.
#[tokio::test]
async fn a_broker_that_denies_everything_and_closes_is_not_flooded_with_connections() {
    let ruled = Ruled::start(&["ready"]);
    let site = Site::new();
    site.lead("box1", 1);
    let upstream = site.start("box1", &ruled.broker.config());
    site.count([0; 20]);
    let all: Vec<u64> = (1..=20).collect();
    site.until_held(&all).await;
    let first = upstream.shared().status().connections;
    let more = tokio::time::timeout(Duration::from_secs(4), site.until_delivered(21)).await;
    assert!(more.is_err() && upstream.shared().status().connections - first < 8, "{:?}", upstream.status());
    ruled.allow(&["#"]);
    site.until_delivered(20).await;
    site.until_held(&[]).await;
    upstream.stop(false).await;
}

#[tokio::test]
async fn names_that_mqtt_does_not_allow_arrive_on_escaped_topics() {
    let broker = Broker::start("");
    let mut subscriber = Subscriber::start(broker.port, &[]).await;
    let site = Site::new();
    let names = ["temp\u{ffff}", "a/\u{fdd0}", "b\u{1ffff}%", "tab\there+#"];
    site.change(|state| state.names = (0..).zip(names.map(str::to_owned)).collect());
    site.lead("box1", 1);
    let upstream = site.start("box1", &broker.config());
    site.count(0..5);
    site.until_delivered(5).await;
    subscriber
        .until(|all| {
            all.iter().filter(|one| one["topic"].as_str().unwrap().contains("/summary/")).count() == 5
        })
        .await;
    let summaries = subscriber.on("tally/s/summary/");
    for (name, message) in names.iter().zip(&summaries) {
        assert_eq!(payload(message)["series"], *name);
    }
    assert_eq!(summaries[0]["topic"], "tally/s/summary/temp%EF%BF%BF/");
    assert_eq!(upstream.shared().status().connections, 1);
    upstream.stop(false).await;
}

#[tokio::test]
async fn a_summary_that_the_broker_calls_too_large_is_held_while_others_go_on() {
    // By the limit that the CONNACK tells, and by one that shows only when it is exceeded.
    for limit in ["max_packet_size 330", "message_size_limit 240"] {
        let broker = Broker::start(limit);
        let site = Site::new();
        site.change(|state| state.names.insert(1, "x".repeat(96)));
        site.lead("box1", 1);
        let upstream = site.start("box1", &broker.config());
        site.count([0, 1, 0, 1, 0]);
        site.until_delivered(5).await;
        site.until_held(&[2, 4]).await;
        let status = upstream.status();
        assert_eq!(status.held_first[0].cause, "packet too large (0x95)", "{limit}");
        upstream.stop(false).await;
    }
}

#[tokio::test]
async fn a_message_over_which_the_connection_breaks_is_set_aside_after_three_tries_alone() {
    let broker = FakeBroker::start(&[0, 0], |topic| match topic {
        "tally/s/summary/series/1" => Act::Close,
        _ => Act::Take,
    })
    .await;
    let site = Site::new();
    site.lead("box1", 1);
    let upstream = site.start("box1", &broker.config());
    site.count([0, 0, 0, 0, 0, 0, 1, 2]);
    site.until_delivered(8).await;
    assert_eq!(site.held(), []);
    assert!(
        (3..=5).contains(&broker.count("tally/s/summary/series/1")),
        "{:?}",
        broker.published.lock().unwrap()
    );
    assert_eq!(broker.count("tally/s/undeliverable"), 1);
    upstream.stop(false).await;
}

#[tokio::test]
async fn what_breaks_on_both_topics_is_held_and_tried_again_later() {
    let closes = |topic: &str| match topic {
        "tally/s/summary/series/1" | "tally/s/undeliverable" => Act::Close,
        _ => Act::Take,
    };
    let broker = FakeBroker::start(&[0, 0], closes).await;
    let site = Site::new();
    site.lead("box1", 1);
    let upstream = site.start("box1", &broker.config());
    site.count([1, 0]);
    site.until_held(&[1]).await;
    site.until_delivered(2).await;
    assert!(upstream.status().held_first[0].cause.contains("broke"));
    broker.answer(|_| Act::Take);
    site.until_held(&[]).await;
    upstream.stop(false).await;
}

#[tokio::test]
async fn totals_status_and_subscription_that_are_refused_or_break_hold_up_nothing() {
    for act in [Act::Refuse(0x87), Act::Close] {
        for topic in ["tally/s/total/series/1", "tally/s/status", "subscribe tally/s/status/#"] {
            let broker =
                FakeBroker::start(&[0, 0], move |one| if one == topic { act } else { Act::Take }).await;
            let site = Site::new();
            site.lead("box1", 1);
            let upstream = site.start("box1", &broker.config());
            site.count([0, 1, 2]);
            site.until_delivered(3).await;
            assert_eq!((site.held(), upstream.status().undeliverable), (Vec::new(), 0), "{topic}");
            if topic.contains("total") {
                broker.answer(|_| Act::Take);
                let before = broker.count(topic);
                let waited = async {
                    while broker.count(topic) == before {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                };
                tokio::time::timeout(PATIENCE, waited).await.expect("the total is tried again");
            }
            upstream.stop(false).await;
        }
    }
}

#[tokio::test]
async fn a_broker_that_answers_nothing_is_connected_again_and_what_it_swallows_set_aside() {
    let swallows = |topic: &str| if topic == "tally/s/summary/series/1" { Act::Ignore } else { Act::Take };
    let broker = FakeBroker::start(&[0, 0], swallows).await;
    let site = Site::new();
    site.lead("box1", 1);
    let upstream = site.start_as("box1", SITE_ID, &broker.config(), Duration::from_millis(300));
    site.count([0, 1, 2]);
    site.until_delivered(3).await;
    assert_eq!(broker.count("tally/s/undeliverable"), 1);
    upstream.stop(false).await;
}

#[tokio::test]
async fn at_level_1_a_refused_summary_is_tried_again_and_nothing_is_skipped() {
    let mut refusals = 2;
    let broker = FakeBroker::start(&[0, 0], move |topic| match topic {
        "tally/s/summary/series/1" if refusals > 0 => {
            refusals -= 1;
            Act::Refuse(0x97)
        }
        _ => Act::Take,
    })
    .await;
    let site = Site::new();
    site.change(|state| state.sets_aside = false);
    site.lead("box1", 1);
    let upstream = site.start("box1", &broker.config());
    site.count([0, 1, 2]);
    let what = trouble(&upstream, "quota exceeded").await;
    assert!(what.contains("number 2"), "{what}");
    site.until_delivered(3).await;
    let status = upstream.shared().status();
    assert_eq!((status.refused, status.connections, status.acknowledged), (2, 1, 3));
    assert!(status.repeated >= 2, "{status:?}");
    upstream.stop(false).await;
}

#[tokio::test]
async fn what_the_broker_said_is_not_covered_by_how_the_connection_broke() {
    let upstream = SharedStatus::new(None);
    let said = crate::mqtt::Ending {
        what: "it said why".to_owned(),
        explained: true,
        ..crate::mqtt::Ending::default()
    };
    let reset = crate::mqtt::Ending { what: "connection reset".to_owned(), ..crate::mqtt::Ending::default() };
    for ending in [&said, &reset, &said, &reset] {
        upstream.ended(ending);
    }
    assert_eq!(upstream.status().last_error.unwrap().what, "it said why");
    upstream.delivered(1);
    upstream.ended(&reset);
    assert_eq!(upstream.status().last_error.unwrap().what, "connection reset");
}

#[tokio::test]
async fn a_broker_that_denies_everything_and_closes_is_told_of_once_with_its_reason() {
    let log = Log::of_this_thread();
    let broker = FakeBroker::start(&[0, 0], |topic| match topic {
        "subscribe tally/s/status/#" => Act::Take,
        _ => Act::RefuseAndClose(0x87),
    })
    .await;
    let site = Site::new();
    site.lead("box1", 1);
    let upstream = site.start("box1", &broker.config());
    site.count([0; 3]);
    let tries = || upstream.shared().status().connections;
    until(&upstream, "it is tried again", || tries() >= 8).await;
    let status = upstream.shared().status();
    let what = status.last_error.unwrap().what;
    assert!(what.contains("not authorized (0x87)"), "{what}");
    assert_eq!((status.acknowledged, upstream.status().held), (0, 3), "it has none of them");
    let text = log.text();
    let warnings: Vec<&str> = text.lines().filter(|line| line.trim_start().starts_with("WARN")).collect();
    let told: BTreeSet<&str> = warnings.iter().copied().collect();
    assert_eq!(warnings.len(), told.len(), "{text}");
    for topic in ["status", "summary/series/0", "total/series/0", "undeliverable"] {
        let line = format!("the broker refuses tally/s/{topic}: not authorized (0x87)");
        assert_eq!(text.matches(&line).count(), 1, "{text}");
    }
    upstream.stop(false).await;
}

#[tokio::test]
async fn why_a_topic_is_denied_stays_shown_though_others_are_taken_and_the_connection_breaks_over_it() {
    let denied = "tally/s/summary/series/1";
    let broker = FakeBroker::start(&[0, 0], move |topic| match topic {
        _ if topic == denied => Act::RefuseAndClose(0x87),
        _ => Act::Take,
    })
    .await;
    let site = Site::new();
    site.lead("box1", 1);
    let upstream = site.start("box1", &broker.config());
    // What comes while it is not tried goes to the other topic at once.
    for tries in 1..=2 {
        while broker.count(denied) < tries {
            let before = site.delivered();
            site.count([1, 0]);
            until(&upstream, "both are delivered", || site.delivered() >= before + 2).await;
        }
        let connections = || upstream.shared().status().connections;
        until(&upstream, "it is connected again", || connections() > tries as u64).await;
    }
    upstream.stop(false).await;
}

/// Waits until something is so; whatever trouble is shown meanwhile has its reason.
async fn until(upstream: &Upstream, what: &str, is_so: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so() {
            if let Some(trouble) = upstream.shared().status().last_error {
                assert!(trouble.what.contains("not authorized (0x87)"), "{}", trouble.what);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}: {:?}", upstream.status());
}
