//! Everything that could stop a site, its uplink or a box that comes up, one after the other, under load: counting never
//! stops, and what was acknowledged is what is held and what arrives.
//!
//! * `clients`: who counts all the time. `coming_up`: boxes on a network without IPv4, an older site. `doors`: what comes
//!   in. `polled`: files. `machine`: room, time and signals. `brokers`: what is at the other end.

mod brokers;
mod clients;
mod coming_up;
mod doors;
mod machine;
mod polled;

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

use crate::boxes::{SITE, Site, TestBox};
use crate::broker::Subscriber;
use crate::doors::metric;
use crate::harness::until;
use crate::net::lab::in_lab;
use crate::net::lan::Lan;
use crate::net::small_disk::SmallDisk;
use brokers::NamedBroker;
use clients::Clients;
use polled::Polled;

const BOXES: usize = 3;
/// A small partition: what the log may have of it is a quarter, which is the least.
const MEBIBYTES: u64 = 32;

/// A site under load, and what came of it at the broker.
struct Trial<'a> {
    site: Site,
    clients: &'a Clients,
    broker: NamedBroker,
    subscriber: Subscriber,
    polled: Polled,
    by_statsd: u64,
    began: Instant,
}

impl Trial<'_> {
    /// Every client goes on, StatsD is read at each box, and summaries arrive.
    fn goes_on(&mut self, after: &str) {
        self.counts_go_on(after);
        let arrived = |trial: &Self| sums(&trial.subscriber).get("load").copied().unwrap_or(0);
        let before = arrived(self);
        until(&format!("summaries arrive after {after}"), || (arrived(self) > before).then_some(()));
    }

    /// Every client goes on, and StatsD is read at each box.
    fn counts_go_on(&mut self, after: &str) {
        eprintln!("{:.1?}: {after}", self.began.elapsed());
        for one in &self.site.boxes {
            one.statsd("statsd:1|c\nstatsd:1|c");
            self.by_statsd += 2;
        }
        self.clients.until_all_go_on(after);
    }

    fn leader_status(&self) -> Option<Value> {
        self.site.boxes.iter().filter_map(TestBox::try_status).find(|status| status["role"] == "leader")
    }
}

/// A topic of the site.
fn own(topic: &str) -> String {
    format!("tally/{SITE}/{topic}")
}

/// What the summaries that arrived come to, each number once.
fn sums(subscriber: &Subscriber) -> BTreeMap<String, i64> {
    let mut by_seq = BTreeMap::new();
    for topic in ["summary/", "undeliverable"] {
        for message in subscriber.on(&own(topic)) {
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

#[test]
fn three_boxes_count_on_through_everything_that_could_stop_them() {
    in_lab("everything::three_boxes_count_on_through_everything_that_could_stop_them", || {
        let scratch = tempfile::tempdir().unwrap();
        let lan = Lan::lay(scratch.path(), BOXES);
        lan.name_all();
        let _name_server = lan.mute_name_server();
        // Not `denied`, nor the names that MQTT could not carry, nor `undeliverable`.
        let taken = ["status", "load", "statsd", "filler/#", "polled/#", "long/#", "total/#"];
        let mut topics: Vec<String> = taken
            .map(|topic| match topic {
                "status" | "total/#" => own(topic),
                series => own(&format!("summary/{series}")),
            })
            .to_vec();
        topics.push("marker".to_owned());
        let broker = NamedBroker::start(&topics.iter().map(String::as_str).collect::<Vec<_>>());
        let polled = Polled::new();
        let mut site = Site::provision_in(lan.places(), "1s", &broker.config());
        polled.configure(&site.boxes);
        site.age();
        let disk = SmallDisk::mount(scratch.path(), "small", MEBIBYTES);
        site.boxes[0].directory = disk.take_in(&site.boxes[0].directory);
        let clients = Clients::default();
        let subscriber = broker.broker.subscribe();
        let mut trial = Trial {
            site,
            clients: &clients,
            broker,
            subscriber,
            polled,
            by_statsd: 0,
            began: Instant::now(),
        };
        let _blocked = coming_up::start(&mut trial.site);
        let places = lan.places();
        std::thread::scope(|scope| {
            let (clients, places) = (&clients, &places);
            let threads = [0, 1, 2].map(|number| scope.spawn(move || clients.run(number, places)));
            let _ends = clients.ends();
            everything(&mut trial, &lan, &disk);
            coming_up::a_box_alone(scratch.path());
            clients.end();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            the_sums_agree(&trial);
        });
    });
}

fn everything(trial: &mut Trial<'_>, lan: &Lan, disk: &SmallDisk) {
    coming_up::a_box_without_ipv6(trial);
    coming_up::the_site_is_raised(trial);
    doors::what_no_box_could_read(trial);
    doors::names_that_the_broker_does_not_take(trial);
    coming_up::logs_that_nobody_reads(trial);
    polled::files_of_all_kinds(trial);
    machine::little_room(trial, disk);
    machine::signals_without_a_meaning(trial);
    machine::orderly_restarts(trial);
    brokers::one_that_stands_still(trial);
    brokers::one_that_can_do_little(trial);
    brokers::one_of_qos_0(trial);
    // Another box leads then, which has not waited for a broker in vain.
    machine::a_leader_that_is_late(trial);
    brokers::one_with_another_certificate_or_no_address(trial, lan);
    machine::a_starved_machine(trial);
    coming_up::the_logs_have_warnings_only(trial);
    polled::counts_on(trial, 1);
}

fn the_sums_agree(trial: &Trial<'_>) {
    let (acknowledged, by_statsd) = (trial.clients.total() as i64, trial.by_statsd as i64);
    let boxes = BOXES as i64;
    let grown = trial.polled.grown() as i64 * boxes;
    let mut all = vec![
        ("load".to_owned(), "load".to_owned(), acknowledged),
        ("statsd".to_owned(), "statsd".to_owned(), by_statsd),
        ("denied".to_owned(), "denied".to_owned(), boxes),
        (brokers::long_series(), brokers::long_series(), boxes),
    ];
    all.extend(doors::of_noncharacters().into_iter().map(|(name, asked)| (name, asked, boxes)));
    all.extend(polled::series().map(|series| (series.clone(), series, grown)));
    for one in &trial.site.boxes {
        all.iter().for_each(|(_, asked, total)| one.until_total(asked, *total));
        assert_eq!(metric(one, "tallyd_entries_malformed_total"), 0.0);
    }
    trial.site.assert_same_digests();
    trial.broker.broker.allow(&["#"]);
    let mut told = Vec::new();
    until("all summaries have arrived, those that were denied as well", || {
        let sums = sums(&trial.subscriber);
        let wrong = all.iter().filter(|(name, _, total)| sums.get(name) != Some(total));
        let wrong: Vec<_> = wrong.map(|(name, _, total)| (name, *total, sums.get(name).copied())).collect();
        if wrong != told {
            eprintln!("counted, and arrived: {wrong:?}");
            told.clone_from(&wrong);
        }
        wrong.is_empty().then_some(())
    });
    brokers::the_retained_totals_are_right(trial);
}
