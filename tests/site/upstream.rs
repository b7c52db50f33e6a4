//! What a subscriber receives: each summary, in numbers without a gap, whatever dies on the way.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::boxes::{SITE, Site};
use crate::broker::{Broker, Subscriber};
use crate::harness::until;
use crate::net::standstill::ATTEMPTS;
use crate::transfers::until_connected;

/// What a dashboard knows that dedupes by number.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Payloads by number.
    summaries: BTreeMap<u64, String>,
    /// Retained totals in the order of their arrival, by series.
    totals: BTreeMap<String, Vec<i64>>,
}

impl Ledger {
    /// # Panics
    /// If a number came twice with different bytes.
    pub(crate) fn of(subscriber: &Subscriber) -> Ledger {
        let mut ledger = Ledger::default();
        for message in subscriber.on(&format!("tally/{SITE}/summary/")) {
            let seq = message.json()["seq"].as_u64().unwrap();
            let before = ledger.summaries.insert(seq, message.payload.clone());
            if let Some(before) = before {
                assert_eq!(before, message.payload, "number {seq} came twice, and differs");
            }
        }
        let prefix = format!("tally/{SITE}/total/");
        for message in subscriber.on(&prefix) {
            let series = message.topic[prefix.len()..].to_owned();
            if let Some(total) = message.json()["total"].as_i64() {
                ledger.totals.entry(series).or_default().push(total);
            }
        }
        ledger
    }

    /// Waits until the summaries sum up to these totals; more than them is a failure at once.
    pub(crate) fn until_all(subscriber: &Subscriber, expected: &BTreeMap<String, i64>) -> Ledger {
        until("the subscriber's summaries sum up to what was acknowledged", || {
            let ledger = Ledger::of(subscriber);
            let sums = ledger.sums();
            for (series, sum) in &sums {
                let acknowledged = expected.get(series).copied().unwrap_or(0);
                assert!(*sum <= acknowledged, "{series}: {sum} published, {acknowledged} acknowledged");
            }
            (sums == *expected).then_some(ledger)
        })
    }

    fn parsed(&self) -> impl Iterator<Item = (u64, Value)> {
        self.summaries.iter().map(|(seq, payload)| (*seq, serde_json::from_str(payload).unwrap()))
    }

    /// The sums of the increases, by series.
    fn sums(&self) -> BTreeMap<String, i64> {
        let mut sums = BTreeMap::new();
        for (_, summary) in self.parsed() {
            let series = summary["series"].as_str().unwrap().to_owned();
            *sums.entry(series).or_insert(0) += summary["increase"].as_i64().unwrap_or_default();
        }
        sums
    }

    /// Fails unless the numbers have no gap, each total is the sum up to it, and no published total
    /// goes back.
    pub(crate) fn assert_sound(&self) {
        let mut sums: BTreeMap<String, i64> = BTreeMap::new();
        for (expected, (seq, summary)) in (1..).zip(self.parsed()) {
            assert_eq!(seq, expected, "the numbers have a gap: {:?}", self.summaries.keys());
            let sum = sums.entry(summary["series"].as_str().unwrap().to_owned()).or_default();
            *sum += summary["increase"].as_i64().unwrap_or_default();
            if let Some(total) = summary["total"].as_i64() {
                assert_eq!(total, *sum, "the total is not the sum up to it: {summary}");
            }
        }
        for (series, totals) in &self.totals {
            assert!(totals.is_sorted(), "the published total of {series} goes back: {totals:?}");
        }
        assert!(!self.totals.is_empty(), "no totals were published");
    }
}

/// Waits until the broker has acknowledged all that the site has closed, and nothing is open.
fn until_delivered(site: &Site, subscriber: &Subscriber, series: &str, total: i64) {
    let expected = BTreeMap::from([(series.to_owned(), total)]);
    Ledger::until_all(subscriber, &expected);
    until("the site knows that all is delivered", || {
        let outbox = &site.boxes[site.leader()].try_status()?["outbox"];
        (outbox["waiting"] == 0 && outbox["delivered"] == outbox["numbered"]).then_some(())
    });
}

#[test]
fn a_summary_says_what_the_contract_says() {
    let broker = Broker::start();
    let subscriber = broker.subscribe();
    let site = Site::start_with(1, "1s", &broker.config());
    site.set("window.grace", "200ms");
    site.boxes[0].add("line1/press3/parts", 37);
    let prefix = format!("tally/{SITE}/summary/line1/press3/parts");
    let message = until("a summary comes", || subscriber.on(&prefix).first().cloned());
    let summary = message.json();
    let status = site.boxes[0].status();
    for (key, value) in [
        ("v", Value::from(1)),
        ("site", SITE.into()),
        ("site_id", status["site_id"].clone()),
        ("seq", 1.into()),
        ("series", "line1/press3/parts".into()),
        ("kind", "counter".into()),
        ("span", 1000.into()),
        ("increase", 37.into()),
        ("total", 37.into()),
        ("late", false.into()),
    ] {
        assert_eq!(summary[key], value, "{key} of {summary}");
    }
    assert_eq!(summary["start"].as_u64().unwrap() % 1000, 0);
    let online = until("the status comes", || subscriber.at(&format!("tally/{SITE}/status")).pop());
    assert_eq!(online.json()["state"], "online");
}

#[test]
fn a_broker_that_is_killed_is_given_everything_numbered_again() {
    let mut broker = Broker::start();
    let subscriber = broker.subscribe();
    // The subscription survives the kill below; what the broker was sent since then does not.
    broker.save();
    let site = Site::start_with(3, "1s", &broker.config());
    site.set("window.grace", "200ms");
    site.boxes[0].add("a", 5);
    until_delivered(&site, &subscriber, "a", 5);

    let mut total = 5;
    let in_flight = (0..ATTEMPTS).any(|_| {
        let leader = until_connected(&site);
        // From here on it takes in and acknowledges nothing: what is published is in flight.
        broker.pause();
        site.boxes[1].add("a", 7);
        total += 7;
        let in_flight = until("summaries are numbered and not acknowledged, or another box leads", || {
            let outbox = &site.boxes[leader].try_status()?["outbox"];
            if outbox["numbered"].as_u64() > outbox["delivered"].as_u64() {
                return Some(true);
            }
            // One that is not connected numbers nothing.
            (site.leader() != leader).then_some(false)
        });
        if !in_flight {
            broker.resume();
            until_delivered(&site, &subscriber, "a", total);
        }
        in_flight
    });
    assert!(in_flight, "another box came to lead again and again");
    broker.kill();
    // Counting goes on without a broker; what it comes to waits.
    site.boxes[2].add("a", 11);
    until("the summaries wait", || {
        (site.boxes[site.leader()].try_status()?["outbox"]["waiting"].as_u64()? >= 2).then_some(())
    });
    broker.run();
    until_delivered(&site, &subscriber, "a", total + 11);
    Ledger::of(&subscriber).assert_sound();
}

#[test]
fn a_new_leader_goes_on_where_the_old_one_stopped() {
    let broker = Broker::start();
    let subscriber = broker.subscribe();
    let mut site = Site::start_with(3, "1s", &broker.config());
    site.set("window.grace", "200ms");
    for round in 0..3 {
        let leader = site.leader();
        // This add has no time to be published by the leader that took it.
        site.boxes[leader].add("a", 3);
        site.boxes[leader].kill();
        let mut client = site.boxes[(leader + 1) % 3].client();
        until("another leads", || {
            let answer =
                client.post_keyed("/v1/counters/a", r#"{"add":1}"#, &format!("round-{round}")).ok()?;
            (answer.status == 200).then_some(())
        });
        site.start_all();
    }
    assert_eq!(site.boxes[0].total("a"), 12);
    Ledger::until_all(&subscriber, &BTreeMap::from([("a".to_owned(), 12)])).assert_sound();
}

#[test]
fn what_the_broker_denies_is_held_over_a_failure_and_delivered_when_it_is_allowed() {
    let own = |topic: &str| format!("tally/{SITE}/{topic}");
    let topics = [own("status"), own("summary/good"), own("total/#"), "marker".to_owned()];
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let broker = Broker::start_with_rules(&topics);
    let subscriber = broker.subscribe();
    let mut site = Site::start_with(3, "1s", &broker.config());
    site.set("window.grace", "200ms");
    site.boxes[0].add("bad", 5);
    site.boxes[1].add("good", 7);
    Ledger::until_all(&subscriber, &BTreeMap::from([("good".to_owned(), 7)]));
    let held = |site: &Site| {
        until("the site holds what is denied", || {
            let status = site.boxes[site.leader()].try_status()?;
            (status["outbox"]["held"].as_u64()? >= 1).then_some(())
        })
    };
    held(&site);
    let leader = site.leader();
    site.boxes[leader].kill();
    held(&site);
    until("delivered passes over it", || {
        let outbox = &site.boxes[site.leader()].try_status()?["outbox"];
        (outbox["delivered"] == outbox["numbered"] && outbox["numbered"].as_u64()? >= 2).then_some(())
    });
    let shown = until("the way out shows it", || {
        let status = site.boxes[site.leader()].try_status()?;
        status["upstream"]["held_first"].get(0).cloned()
    });
    assert_eq!(
        (shown["series"].as_str(), shown["topic"].as_str()),
        (Some("bad"), Some(own("summary/bad").as_str()))
    );
    assert_eq!(shown["cause"], "not authorized (0x87)");

    broker.allow(&["#"]);
    site.start_all();
    until("nothing is held any more", || {
        let status = site.boxes[site.leader()].try_status()?;
        (status["outbox"]["held"] == 0 && status["outbox"]["waiting"] == 0).then_some(())
    });
    // On either topic; the sum is exact.
    let summaries = [own("summary/bad"), own("undeliverable")];
    until("it arrives", || {
        let came = summaries.iter().flat_map(|topic| subscriber.on(topic));
        let by_seq: BTreeMap<u64, i64> = came
            .map(|message| {
                (message.json()["seq"].as_u64().unwrap(), message.json()["increase"].as_i64().unwrap())
            })
            .collect();
        (by_seq.values().sum::<i64>() == 5).then_some(())
    });
}

#[test]
fn two_sites_of_one_name_at_one_broker_say_so_in_status_and_metrics() {
    let broker = Broker::start();
    let sites = [0; 2].map(|_| Site::start_with(1, "1s", &broker.config()));
    let ids = [0, 1].map(|at| sites[at].boxes[0].status()["site_id"].clone());
    assert_ne!(ids[0], ids[1]);
    for (site, other) in sites.iter().zip(ids.iter().rev()) {
        until("the other site is told", || {
            let heard = &site.boxes[0].try_status()?["upstream"]["other_site"];
            (heard["site_id"] == *other && heard["state"] == "online").then_some(())
        });
        let metrics = site.boxes[0].client().get("/metrics").unwrap().text();
        for line in [
            "tallyd_upstream_other_site 1\n",
            "tallyd_upstream_connected 1\n",
            "tallyd_upstream_state{state=\"connected\"} 1\n",
            "tallyd_upstream_state{state=\"connecting\"} 0\n",
        ] {
            assert!(metrics.contains(line), "{line}: {metrics}");
        }
    }
}
