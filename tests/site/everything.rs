//! Everything that could stop a site, its uplink or a box that comes up, one after the other, under load: counting never
//! stops, and what was acknowledged is what is held and what arrives.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::boxes::{Place, SITE, Site, TestBox};
use crate::broker::{Broker, Subscriber};
use crate::harness::{Process, free_port, until};
use crate::http::Client;
use crate::logs::{full_pipe, until_lines_are_lost};

/// Acknowledged adds by thread, and when to end.
#[derive(Debug, Default)]
struct Load {
    acknowledged: [AtomicU64; 3],
    ends: AtomicBool,
}

impl Load {
    /// Adds at one box, with a key each; without an answer again with the same key, at the next box.
    fn run(&self, place: usize, ports: [u16; 3]) {
        let mut at = place;
        let mut client = Client::new(ports[at]);
        for number in 0.. {
            if self.ends.load(Ordering::Relaxed) {
                return;
            }
            let key = format!("load-{place}-{number}");
            until("an add is acknowledged", || {
                match client.post_keyed("/v1/counters/load", r#"{"add":1}"#, &key) {
                    Ok(answer) if answer.status == 200 => return Some(()),
                    Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.text()),
                    Err(_) => {}
                }
                at = (at + 1) % ports.len();
                client = Client::new(ports[at]);
                None
            });
            self.acknowledged[place].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn total(&self) -> u64 {
        self.acknowledged.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// A site under load, and what came of it at the broker.
struct Trial<'a> {
    site: Site,
    load: &'a Load,
    subscriber: Subscriber,
    by_statsd: u64,
}

impl Trial<'_> {
    /// Every client goes on, StatsD is read at each box, and summaries arrive.
    fn goes_on(&mut self, after: &str) {
        for one in &self.site.boxes {
            one.statsd("statsd:1|c\nstatsd:1|c");
            self.by_statsd += 2;
        }
        for (place, count) in self.load.acknowledged.iter().enumerate() {
            let before = count.load(Ordering::Relaxed);
            until(&format!("client {place} goes on after {after}"), || {
                (count.load(Ordering::Relaxed) >= before + 5).then_some(())
            });
        }
        let arrived = |trial: &Self| sums(&trial.subscriber).get("load").copied().unwrap_or(0);
        let before = arrived(self);
        until(&format!("summaries arrive after {after}"), || (arrived(self) > before).then_some(()));
    }

    fn leader_status(&self) -> Option<Value> {
        self.site.boxes.iter().filter_map(TestBox::try_status).find(|status| status["role"] == "leader")
    }
}

/// What the summaries that arrived come to, each number once.
fn sums(subscriber: &Subscriber) -> BTreeMap<String, i64> {
    let mut by_seq = BTreeMap::new();
    for topic in ["summary/", "undeliverable"] {
        for message in subscriber.on(&format!("tally/{SITE}/{topic}")) {
            let summary = message.json();
            let series = summary["series"].as_str().unwrap().to_owned();
            by_seq.insert(
                summary["seq"].as_u64().unwrap(),
                (series, summary["increase"].as_i64().unwrap_or(0)),
            );
        }
    }
    let mut sums = BTreeMap::new();
    for (series, increase) in by_seq.into_values() {
        *sums.entry(series).or_default() += increase;
    }
    sums
}

/// Three boxes of an older site at host names that have both families of addresses.
fn provisioned(broker: &Broker) -> Site {
    let place = || {
        let address = format!("localhost:{}", free_port());
        Place { address, http: free_port(), statsd: free_port(), namespace: None }
    };
    let extra = format!("{}\n[storage]\nbytes_max = \"8MiB\"\n", broker.config());
    let site = Site::provision_in(vec![place(), place(), place()], "1s", &extra);
    for one in &site.boxes {
        let file = one.directory.join("identity.json");
        let mut identity: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        identity.as_object_mut().unwrap().remove("level");
        std::fs::write(&file, serde_json::to_vec(&identity).unwrap()).unwrap();
    }
    site
}

/// With variables as Kubernetes makes them for a service of that name, and empty ones.
fn start(one: &mut TestBox, log: &Path, error: impl Into<Stdio>) {
    let mut command = one.command();
    command.envs([("TALLYD_API_SERVICE_HOST", "10.0.0.1"), ("TALLYD_API_PORT", "tcp://10.0.0.1:7480")]);
    command.envs([("TALLYD_NODE_NAME", ""), ("TALLYD_UPSTREAM_URL", ""), ("TALLYD_LOG", "trace")]);
    one.process = Some(Process::start_with_error(&mut command, log, error.into()));
}

/// So many samples that the log comes to more than it may have on the disk.
fn fill_the_log(one: &TestBox) {
    let mut client = one.client();
    let epoch = client.post("/v1/sources/filler/epochs", "").unwrap().ok()["epoch"].clone();
    for number in 1..=250 {
        let cell = |place: u32| {
            let value = f64::from(number * 1000 + place) / 7.0;
            let sample = json!({"count": 3, "sum": value * 3.0, "min": value, "max": value, "last": value});
            json!({"series": format!("filler/{}", place % 100), "sample": sample})
        };
        let cells: Vec<Value> = (0..1000).map(cell).collect();
        let report =
            json!({"source": "filler", "epoch": epoch, "number": number, "cells": cells}).to_string();
        until("a report is taken", || {
            let answer = client.post("/v1/reports", &report).ok()?;
            (answer.status == 200).then_some(())
        });
    }
}

#[test]
fn three_boxes_count_on_through_everything_that_could_stop_them() {
    let own = |topic: &str| format!("tally/{SITE}/{topic}");
    // Not `denied`, nor the name that MQTT could not carry, nor `undeliverable`.
    let taken = ["status", "summary/load", "summary/statsd", "summary/filler/#", "total/#"];
    let mut topics: Vec<String> = taken.into_iter().map(own).collect();
    topics.push("marker".to_owned());
    let broker = Broker::start_with_rules(&topics.iter().map(String::as_str).collect::<Vec<_>>());
    let (load, scratch) = (Load::default(), tempfile::tempdir().unwrap());
    let mut trial =
        Trial { site: provisioned(&broker), load: &load, subscriber: broker.subscribe(), by_statsd: 0 };
    let log = scratch.path().join("log");
    let ((_reader, blocks), full) = (full_pipe(true), std::fs::File::create("/dev/full").unwrap());
    start(&mut trial.site.boxes[0], &log, blocks);
    start(&mut trial.site.boxes[1], &log, full);
    start(&mut trial.site.boxes[2], &log, std::io::pipe().unwrap().1);
    trial.site.until_ready();
    let ports = [0, 1, 2].map(|at| trial.site.boxes[at].http);
    std::thread::scope(|scope| {
        let load = &load;
        let threads = [0, 1, 2].map(|place| scope.spawn(move || load.run(place, ports)));
        // Also where a failed assertion ends it.
        let _ends = Ends(load);
        everything(&mut trial, &broker);
        load.ends.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        the_sums_agree(&trial, &broker);
    });
}

struct Ends<'a>(&'a Load);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.ends.store(true, Ordering::Relaxed);
    }
}

fn everything(trial: &mut Trial<'_>, broker: &Broker) {
    trial.goes_on("a start at names of both families, with variables of a service manager");
    for at in 0..3 {
        until("the site is raised", || {
            (trial.site.boxes[at].try_status()?["level"]["site"].as_u64()? == 2).then_some(())
        });
    }
    trial.goes_on("it was raised to a level");

    let body = json!({"id": 9, "name": "box9", "address": format!("10.0.0.9:{:0>300}", 7400), "key": "ab".repeat(32)});
    for one in &trial.site.boxes {
        assert_eq!(one.client().post("/v1/members", &body.to_string()).unwrap().status, 400);
    }
    trial.goes_on("a member that no box could read");

    for one in &trial.site.boxes {
        one.statsd("temp\u{ffff}:1|c\ndenied:1|c");
        let answer = one.client().post("/v1/counters/temp%EF%BF%BF", r#"{"add":1}"#).unwrap();
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    until("what the broker denies is held", || {
        (trial.leader_status()?["outbox"]["held"].as_u64()? >= 2).then_some(())
    });
    trial.goes_on("names and topics that the broker does not take");

    until_lines_are_lost(&trial.site.boxes[0]);
    trial.goes_on("a log that blocks");

    fill_the_log(&trial.site.boxes[trial.site.follower()]);
    for one in &trial.site.boxes {
        let storage = until("it tells of its disk", || Some(one.try_status()?["storage"].clone()));
        assert!(storage["bytes_written"].as_u64().unwrap() > 8 << 20, "{storage}");
        assert!(storage["bytes_used"].as_u64() <= storage["bytes_max"].as_u64(), "{storage}");
    }
    trial.goes_on("more log than may be on the disk");

    for signal in [Signal::HUP, Signal::USR1, Signal::USR2, Signal::PIPE] {
        for one in &trial.site.boxes {
            one.process.as_ref().unwrap().signal(signal);
        }
    }
    trial.goes_on("signals without a meaning");

    let leader = trial.site.leader();
    trial.site.boxes[leader].terminate();
    trial.site.boxes[leader].start();
    trial.site.until_ready();
    trial.goes_on("an orderly restart of the leader");

    let spin = || Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
    let burners: Vec<_> = (0..4).map(|_| spin()).collect();
    trial.goes_on("other programs took the processor");
    for mut burner in burners {
        burner.kill().unwrap();
        burner.wait().unwrap();
    }

    broker.pause();
    until("the broker does not answer", || {
        (trial.leader_status()?["outbox"]["waiting"].as_u64()? >= 3).then_some(())
    });
    broker.resume();
    trial.goes_on("a broker that stood still");
}

fn the_sums_agree(trial: &Trial<'_>, broker: &Broker) {
    let acknowledged = trial.load.total();
    for one in &trial.site.boxes {
        one.until_total("load", acknowledged as i64);
        one.until_total("statsd", trial.by_statsd as i64);
        one.until_total("denied", 3);
        one.until_total("temp%25EF%25BF%25BF", 3);
    }
    trial.site.assert_same_digests();
    broker.allow(&["#"]);
    until("all summaries have arrived, those that were denied as well", || {
        let sums = sums(&trial.subscriber);
        let of = |series: &str| sums.get(series).copied().unwrap_or(0);
        let all = (of("load"), of("statsd"), of("denied"), of("temp%EF%BF%BF"));
        (all == (acknowledged as i64, trial.by_statsd as i64, 3, 3)).then_some(())
    });
}
