//! Brokers that deny topics, can do less than others, show another certificate, stand still or have no address.

use std::path::Path;
use std::process::Command;

use super::{Trial, own};
use crate::broker::Broker;
use crate::harness::{free_port, until};
use crate::net::lan::{BROKER, HERE, Lan};

/// A broker that boxes reach by name and TLS, with a certificate that it signed itself; the tests' own subscriber
/// reaches it at another port, without.
#[derive(Debug)]
pub(super) struct NamedBroker {
    pub(super) broker: Broker,
    port: u16,
    keys: tempfile::TempDir,
}

impl NamedBroker {
    /// One that lets everybody publish to these topics only.
    pub(super) fn start(topics: &[&str]) -> NamedBroker {
        let keys = tempfile::tempdir().unwrap();
        // As openssl makes them: an authority's, for another name.
        for name in ["own", "other"] {
            let made = Command::new("openssl")
                .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
                .args(["-subj", "/CN=other.example", "-days", "2"])
                .arg("-keyout")
                .arg(key(keys.path(), name))
                .arg("-out")
                .arg(certificate(keys.path(), name))
                .output()
                .expect("these tests need openssl");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        let broker = Broker::start_with_rules(topics);
        let mut named = NamedBroker { broker, port: free_port(), keys };
        named.become_one_of("own", "", "");
        named
    }

    /// It restarts: with that certificate, with these lines for all of it, and with these for where the boxes connect.
    fn become_one_of(&mut self, name: &str, lines: &str, lines_for_boxes: &str) {
        let (certificate, key) = (certificate(self.keys.path(), name), key(self.keys.path(), name));
        self.broker.restart_with(&format!(
            "{lines}\nlistener {} {HERE}\ncertfile {}\nkeyfile {}\n{lines_for_boxes}\n",
            self.port,
            certificate.display(),
            key.display(),
        ));
    }

    /// The configuration of a box that publishes here.
    pub(super) fn config(&self) -> String {
        let file = certificate(self.keys.path(), "own");
        format!("[upstream]\nurl = \"mqtts://{BROKER}:{}\"\nca_file = \"{}\"\n", self.port, file.display())
    }
}

fn certificate(keys: &Path, name: &str) -> std::path::PathBuf {
    keys.join(format!("{name}.pem"))
}

fn key(keys: &Path, name: &str) -> std::path::PathBuf {
    keys.join(format!("{name}.key"))
}

/// Longer with its name than the broker takes for a while.
pub(super) fn long_series() -> String {
    format!("long/{}", "n".repeat(195))
}

/// A broker that stands still; what it denies is told on, as it was said first.
pub(super) fn one_that_stands_still(trial: &mut Trial<'_>) {
    trial.broker.broker.pause();
    until("the broker does not answer", || {
        (trial.leader_status()?["outbox"]["waiting"].as_u64()? >= 8).then_some(())
    });
    trial.broker.broker.resume();
    trial.goes_on("a broker that stood still");
    until_held_for(trial, "denied", "not authorized (0x87)");
}

/// The leader says why a series is held.
fn until_held_for(trial: &Trial<'_>, series: &str, cause: &str) {
    until(&format!("{series} is held: {cause}"), || {
        let status = trial.leader_status()?;
        let held = status["upstream"]["held_first"].as_array()?;
        held.iter().any(|one| one["series"] == series && one["cause"] == cause).then_some(())
    });
}

fn until_trouble(trial: &Trial<'_>, words: &[&str]) {
    until(&format!("the way out says {words:?}"), || {
        let status = trial.leader_status()?;
        let what = status["upstream"]["last_error"]["what"].as_str()?;
        words.iter().all(|word| what.contains(word)).then_some(())
    });
}

/// A broker that keeps no retained messages, takes one message at a time, and only short ones.
pub(super) fn one_that_can_do_little(trial: &mut Trial<'_>) {
    let lines = "retain_available false\nmax_inflight_messages 1\nmax_keepalive 12\nmax_packet_size 2000\n\
                 message_size_limit 300";
    trial.broker.become_one_of("own", lines, "");
    let limits = until("the leader knows what that broker can do", || {
        let upstream = trial.leader_status()?["upstream"].clone();
        (upstream["state"] == "connected" && upstream["limits"]["retains"] == false)
            .then(|| upstream["limits"].clone())
    });
    let of = |what: &str| limits[what].as_u64();
    assert_eq!(
        (of("receive_max"), of("keep_alive_s"), of("packet_bytes_max")),
        (Some(1), Some(12), Some(2000)),
        "{limits}"
    );
    for one in &trial.site.boxes {
        one.statsd(&format!("{}:1|c", long_series()));
    }
    until_held_for(trial, &long_series(), "packet too large (0x95)");
    trial.goes_on("a broker that can do little");
    until_held_for(trial, "denied", "not authorized (0x87)");
    trial.broker.become_one_of("own", "", "");
    trial.goes_on("a broker that can do all again");
}

/// A broker that takes messages of QoS 0 only is named, and what to do about it; counting goes on meanwhile.
pub(super) fn one_of_qos_0(trial: &mut Trial<'_>) {
    trial.broker.become_one_of("own", "", "max_qos 0");
    until_trouble(trial, &["QoS not supported (0x9B)", "max_qos"]);
    trial.counts_go_on("a broker of QoS 0");
    trial.broker.become_one_of("own", "", "");
    trial.goes_on("a broker of QoS 1");
}

/// Somebody else is at the broker's address, and then it has none, nor has anything else: whoever asks for a name
/// gets no answer.
pub(super) fn one_with_another_certificate_or_no_address(trial: &mut Trial<'_>, lan: &Lan) {
    trial.broker.become_one_of("other", "", "");
    until_trouble(trial, &["the broker's certificate is not accepted", "upstream.ca_file"]);
    lan.name_nothing();
    trial.counts_go_on("a broker with another certificate, and look-ups that hang");
    trial.broker.become_one_of("own", "", "");
    trial.counts_go_on("look-ups that hang");
    lan.name_all();
    trial.goes_on("names that were found again");
}

/// Those who look now see each series' total: retained, as of its latest summary.
pub(super) fn the_retained_totals_are_right(trial: &Trial<'_>) {
    let newcomer = trial.broker.broker.subscribe_as("a-newcomer");
    for (series, total) in [("load", trial.clients.total()), ("statsd", trial.by_statsd)] {
        until(&format!("the retained total of {series} is {total}"), || {
            let latest = newcomer.on(&own(&format!("total/{series}"))).pop()?.json();
            (latest["total"] == total).then_some(())
        });
    }
}
