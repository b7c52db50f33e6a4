//! The upstream against a real Mosquitto on loopback, with an outbox that is as simple as can be.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tally_core::report::Amount;
use tally_core::time::SiteTime;
use tokio::sync::watch;

use super::*;
use crate::identity::SiteId;
use crate::site::{SeriesId, Summary};

const PATIENCE: Duration = Duration::from_secs(20);

struct Broker {
    directory: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
    extra: String,
}

impl Broker {
    fn start(extra: &str) -> Broker {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let directory = tempfile::tempdir().unwrap();
        let mut broker = Broker { directory, port, child: None, extra: extra.to_owned() };
        broker.run();
        broker
    }

    fn run(&mut self) {
        let file = self.path("mosquitto.conf");
        let text = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}/\n\
             max_queued_messages 0\nuser root\n{}\n",
            self.port,
            self.directory.path().display(),
            self.extra
        );
        std::fs::write(&file, text).unwrap();
        let started = Command::new("mosquitto")
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(started.expect("these tests need Mosquitto: `cargo xtask verify` installs it"));
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(std::time::Instant::now() < deadline, "Mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(self.child.as_ref().unwrap());
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn config(&self) -> UpstreamConfig {
        let url = format!("mqtt://127.0.0.1:{}", self.port).parse().unwrap();
        UpstreamConfig { url: Some(url), ..UpstreamConfig::default() }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `mosquitto_sub` on everything of the site; what it received, in order.
struct Subscriber {
    child: Child,
    received: watch::Receiver<Vec<Value>>,
}

impl Subscriber {
    async fn start(port: u16, extra: &[&str]) -> Subscriber {
        let mut child = Command::new("mosquitto_sub")
            .args(["-V", "5", "-h", "127.0.0.1", "-q", "1", "-F", "%j", "-t", "tally/#", "-t", "ready", "-p"])
            .arg(port.to_string())
            .args(extra)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, received) = watch::channel(Vec::new());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let value = serde_json::from_str::<Value>(&line).unwrap();
                sender.send_modify(|all| all.push(value));
            }
        });
        let mut subscriber = Subscriber { child, received };
        // Only once it hears its own marker is it certain to be subscribed.
        let mark = async {
            loop {
                let _ = tokio::task::spawn_blocking(move || {
                    Command::new("mosquitto_pub")
                        .args(["-h", "127.0.0.1", "-t", "ready", "-m", "1", "-p"])
                        .arg(port.to_string())
                        .status()
                })
                .await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = mark => {}
            () = subscriber.until(|all| all.iter().any(|one| one["topic"] == "ready")) => {}
        }
        subscriber
    }

    async fn until(&mut self, holds: impl FnMut(&Vec<Value>) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, self.received.wait_for(holds)).await.map(|_| ());
        assert!(waited.is_ok(), "received only {:#?}", &*self.received.borrow());
    }

    fn on(&self, prefix: &str) -> Vec<Value> {
        self.received
            .borrow()
            .iter()
            .filter(|one| one["topic"].as_str().unwrap().starts_with(prefix))
            .cloned()
            .collect()
    }

    fn seqs(&self) -> Vec<u64> {
        self.on("tally/s/summary/").iter().map(|one| payload(one)["seq"].as_u64().unwrap()).collect()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn payload(message: &Value) -> Value {
    match &message["payload"] {
        Value::String(text) => serde_json::from_str(text).unwrap(),
        other => other.clone(),
    }
}

fn states(messages: &[Value]) -> Vec<String> {
    let status = messages.iter().filter(|one| one["topic"] == "tally/s/status");
    status.map(|one| payload(one)["state"].as_str().unwrap().to_owned()).collect()
}

/// A site's outbox: shared by the boxes, which all know the same.
#[derive(Clone)]
struct Site(Arc<Mutex<State>>, watch::Sender<u64>);

#[derive(Default)]
struct State {
    /// All summaries ever, their numbers being their places.
    all: Vec<Summary>,
    numbered: usize,
    delivered: u64,
    /// Of the box started last.
    shared: Option<Shared>,
    numbered_at_once_max: usize,
    leader: BTreeMap<&'static str, u64>,
}

impl Site {
    fn new() -> Site {
        Site(Arc::default(), watch::Sender::new(0))
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.0.lock().unwrap());
        self.1.send_modify(|version| *version += 1);
        result
    }

    /// Closes windows: one summary for each of the named series (by number), increasing it by one.
    fn count(&self, series: impl IntoIterator<Item = u32>) {
        self.change(|state| {
            for id in series {
                let before = state.all.iter().filter(|one| one.series == SeriesId(id)).count();
                state.all.push(Summary {
                    seq: None,
                    series: SeriesId(id),
                    start: SiteTime(60_000 * before as u64),
                    span_ms: 60_000,
                    amount: Amount::Counter(1),
                    total: Some(before as i128 + 1),
                    late: false,
                    synced: true,
                });
            }
        });
    }

    fn lead(&self, name: &'static str, term: u64) {
        self.change(|state| state.leader = BTreeMap::from([(name, term)]));
    }

    fn delivered(&self) -> u64 {
        self.0.lock().unwrap().delivered
    }

    async fn until_delivered(&self, number: u64) {
        let mut changes = self.1.subscribe();
        let wait = changes.wait_for(|_| self.delivered() >= number);
        let waited = tokio::time::timeout(PATIENCE, wait).await.map(|_| ());
        assert!(
            waited.is_ok(),
            "only {} delivered, {:?}",
            self.delivered(),
            self.0.lock().unwrap().shared.as_ref().map(Shared::status)
        );
    }

    fn start(&self, name: &'static str, config: &UpstreamConfig) -> Upstream {
        let changes = self.1.subscribe();
        let outbox = Box { site: self.clone(), name, changes, believes: None };
        let upstream = spawn(outbox, "s", SiteId(0xabcd_ef01_2345_6789), config).unwrap();
        self.0.lock().unwrap().shared = Some(upstream.shared().clone());
        upstream
    }
}

struct Box {
    site: Site,
    name: &'static str,
    changes: watch::Receiver<u64>,
    /// What a paused box takes itself for until a fence tells it better.
    believes: Option<Arc<Mutex<Option<u64>>>>,
}

impl Outbox for Box {
    fn leads(&self) -> Option<u64> {
        if let Some(believes) = &self.believes {
            return *believes.lock().unwrap();
        }
        self.site.0.lock().unwrap().leader.get(self.name).copied()
    }

    async fn changed(&mut self) {
        self.changes.changed().await.unwrap();
    }

    async fn fence(&self) -> Result<(), String> {
        if let Some(believes) = &self.believes {
            *believes.lock().unwrap() = self.site.0.lock().unwrap().leader.get(self.name).copied();
            self.site.change(|_| ());
        }
        Ok(())
    }

    async fn number(&self, count: u32) -> Result<(), String> {
        self.site.change(|state| {
            state.numbered = state.all.len().min(state.numbered + count as usize);
            let outstanding = state.numbered - state.delivered as usize;
            state.numbered_at_once_max = state.numbered_at_once_max.max(outstanding);
        });
        Ok(())
    }

    async fn delivered(&self, up_to: u64) -> Result<(), String> {
        self.site.change(|state| {
            assert!(up_to <= state.numbered as u64, "delivered what has no number");
            state.delivered = state.delivered.max(up_to);
        });
        Ok(())
    }

    fn position(&self) -> Position {
        let state = self.site.0.lock().unwrap();
        Position {
            delivered: state.delivered,
            numbered_last: state.numbered as u64,
            unnumbered: state.all.len() - state.numbered,
        }
    }

    fn numbered(&self, after: u64, limit: usize) -> Vec<Numbered> {
        let state = self.site.0.lock().unwrap();
        let first = after.max(state.delivered);
        (first + 1..=state.numbered as u64)
            .take(limit)
            .map(|seq| {
                let summary = Summary { seq: Some(seq), ..state.all[seq as usize - 1].clone() };
                Numbered { seq, name: format!("series/{}", summary.series.0), summary }
            })
            .collect()
    }

    fn state(&self) -> SiteState {
        let state = self.site.0.lock().unwrap();
        let outbox = state.all.len() - state.delivered as usize;
        SiteState { leader: Some(self.name.to_owned()), boxes: 1, outbox, time: 1 }
    }
}

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
    assert_eq!(subscriber.seqs(), (1..=2500).collect::<Vec<u64>>());
    assert_eq!(site.0.lock().unwrap().numbered_at_once_max, 1000);

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
            all.iter().any(|one| one["topic"] == "tally/s/summary/series/0" && payload(one)["seq"] == 600)
        })
        .await;
    let totals: Vec<i64> =
        subscriber.on("tally/s/total/").iter().map(|one| payload(one)["total"].as_i64().unwrap()).collect();
    assert!(totals.is_sorted(), "{totals:?}");
    assert_eq!(totals.last(), Some(&600));
    let mut seqs = subscriber.seqs();
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
    broker.kill();
    site.count([2; 50]);
    broker.run();
    let mut subscriber = Subscriber::start(broker.port, &[]).await;
    site.until_delivered(100).await;
    subscriber
        .until(|all| {
            all.iter().any(|one| one["topic"] == "tally/s/summary/series/2" && payload(one)["seq"] == 100)
        })
        .await;
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
    let believes = Arc::new(Mutex::new(Some(1)));
    let paused = Box {
        site: site.clone(),
        name: "box1",
        changes: site.1.subscribe(),
        believes: Some(Arc::clone(&believes)),
    };
    let old = spawn(paused, "s", SiteId(0xabcd_ef01_2345_6789), &broker.config()).unwrap();
    let mut changes = site.1.subscribe();
    changes.wait_for(|_| believes.lock().unwrap().is_none()).await.unwrap();
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

/// Mosquitto 2.0.11 resets the connection over a denied message; others answer it and stay.
#[tokio::test]
async fn a_denied_summary_is_tried_until_it_is_taken_and_nothing_is_skipped() {
    let rules = tempfile::tempdir().unwrap();
    let file = rules.path().join("acl");
    let allowed =
        ["status", "total/#", "summary/series/0"].map(|topic| format!("topic readwrite tally/s/{topic}\n"));
    std::fs::write(&file, allowed.concat()).unwrap();
    let broker = Broker::start(&format!("acl_file {}", file.display()));
    let site = Site::new();
    site.lead("box1", 1);
    let upstream = site.start("box1", &broker.config());
    site.count([0, 1, 0]);
    site.until_delivered(1).await;
    trouble(&upstream, "").await;
    assert_eq!(site.delivered(), 1);
    std::fs::write(&file, "topic readwrite #\n").unwrap();
    broker.signal(rustix::process::Signal::HUP);
    site.until_delivered(3).await;
    assert_eq!(upstream.shared().status().last_error, None);
    upstream.stop(false).await;
}

#[tokio::test]
async fn a_refused_summary_is_tried_again_on_the_same_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("mqtt://{}", listener.local_addr().unwrap()).parse().unwrap();
    let published = Arc::new(Mutex::new(Vec::new()));
    let broker = tokio::spawn(refusing_broker(listener, 2, Arc::clone(&published)));
    let site = Site::new();
    site.lead("box1", 1);
    let upstream = site.start("box1", &UpstreamConfig { url: Some(url), ..UpstreamConfig::default() });
    site.count([0, 1, 2]);
    let what = trouble(&upstream, "QuotaExceeded").await;
    assert!(what.contains("number 2"), "{what}");
    site.until_delivered(3).await;
    let status = upstream.shared().status();
    assert_eq!((status.refused, status.connections, status.acknowledged), (2, 1, 3));
    let topics = published.lock().unwrap().clone();
    assert!(topics.iter().filter(|topic| topic.ends_with("summary/series/1")).count() > 2, "{topics:?}");
    upstream.stop(false).await;
    broker.abort();
}

/// Waits for a trouble in the status that contains a text.
async fn trouble(upstream: &Upstream, text: &str) -> String {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            match upstream.shared().status().last_error {
                Some(trouble) if trouble.what.contains(text) => return trouble.what,
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{:?}", upstream.shared().status()))
}

/// The least of a broker: refuses the summary of series 1 a few times over its quota, takes all else.
async fn refusing_broker(
    listener: tokio::net::TcpListener,
    mut refusals: usize,
    published: Arc<Mutex<Vec<String>>>,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const QUOTA_EXCEEDED: u8 = 0x97;
    let (mut stream, _) = listener.accept().await.unwrap();
    loop {
        let Ok(first) = stream.read_u8().await else { return };
        let mut length = 0;
        for shift in [0, 7, 14] {
            let byte = stream.read_u8().await.unwrap();
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        match first >> 4 {
            1 => stream.write_all(&[0x20, 3, 0, 0, 0]).await.unwrap(),
            3 => {
                let end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                let topic = String::from_utf8(body[2..end].to_vec()).unwrap();
                let refused = topic.ends_with("summary/series/1") && refusals > 0;
                refusals -= usize::from(refused);
                published.lock().unwrap().push(topic);
                let reason = if refused { QUOTA_EXCEEDED } else { 0 };
                stream.write_all(&[0x40, 3, body[end], body[end + 1], reason]).await.unwrap();
            }
            12 => stream.write_all(&[0xd0, 0]).await.unwrap(),
            _ => return,
        }
    }
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
    assert!(status.contains("NotAuthorized") && status.contains("upstream.url"), "{status}");
    assert!(!status.contains("hushhush"), "{status}");
    upstream.stop(false).await;
}

#[tokio::test]
async fn mqtts_checks_the_brokers_certificate() {
    let keys = tempfile::tempdir().unwrap();
    write_certificate(keys.path(), &write_authority(keys.path(), "ca"));
    write_authority(keys.path(), "rogue");
    let tls = format!("keyfile {0}/key.pem\ncertfile {0}/cert.pem", keys.path().display());
    let broker = Broker::start(&tls);
    let site = Site::new();
    site.lead("box1", 1);
    site.count([0]);
    let url: BrokerUrl = format!("mqtts://localhost:{}", broker.port).parse().unwrap();
    let config = |name: &str| UpstreamConfig {
        url: Some(url.clone()),
        ca_file: Some(keys.path().join(name)),
        ..UpstreamConfig::default()
    };
    let refused = site.start("box1", &config("rogue.pem"));
    trouble(&refused, "certificate").await;
    assert_eq!((refused.shared().status().connections, site.delivered()), (0, 0));
    refused.stop(false).await;
    let upstream = site.start("box1", &config("ca.pem"));
    site.until_delivered(1).await;
    upstream.stop(true).await;
}

fn write_authority(directory: &Path, name: &str) -> rcgen::Issuer<'static, rcgen::KeyPair> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(directory.join(format!("{name}.pem")), certificate.pem()).unwrap();
    rcgen::Issuer::new(params, key)
}

fn write_certificate(directory: &Path, authority: &rcgen::Issuer<'static, rcgen::KeyPair>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    std::fs::write(directory.join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
}
