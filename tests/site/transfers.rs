//! Leadership goes where it serves: to a box that reaches the broker.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::boxes::{SITE, Site, TestBox};
use crate::broker::Broker;
use crate::harness::{tallyd, until};
use crate::net::standstill::ATTEMPTS;
use crate::upstream::Ledger;

/// Less than the leader waits before it tries the broker again by itself, when that was away for long.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A box's own way to the broker, which can be cut: connections end, and new ones end at once.
#[derive(Debug)]
struct Way {
    port: u16,
    shared: Arc<WayShared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct WayShared {
    cut: AtomicBool,
    ended: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl Way {
    fn to(broker: u16) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::<WayShared>::default();
        let served = shared.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if served.ended.load(Ordering::SeqCst) {
                    return;
                }
                // A broker that is not there ends the connection, too.
                let _ = served.pass(stream, broker);
            }
        });
        Way { port, shared, thread: Some(thread) }
    }

    fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
        self.shared.end_streams();
    }

    fn mend(&self) {
        self.shared.cut.store(false, Ordering::SeqCst);
    }
}

impl WayShared {
    fn pass(&self, near: TcpStream, broker: u16) -> io::Result<()> {
        // Under the lock, so that what is let through now is ended by a cut that comes now.
        let mut streams = self.streams.lock().unwrap();
        if self.cut.load(Ordering::SeqCst) {
            return near.shutdown(Shutdown::Both);
        }
        let far = TcpStream::connect(("127.0.0.1", broker))?;
        for (from, to) in [(near.try_clone()?, far.try_clone()?), (far.try_clone()?, near.try_clone()?)] {
            std::thread::spawn(move || copy(from, to));
        }
        streams.extend([near, far]);
        Ok(())
    }

    fn end_streams(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            // It may be over already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

impl Drop for Way {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        self.shared.end_streams();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A site of three with a way to the broker for each box.
fn site_with_ways(broker: &Broker) -> (Site, Vec<Way>) {
    let mut site = Site::provision(3, "1s", "");
    let ways: Vec<Way> = site.boxes.iter().map(|_| Way::to(broker.port)).collect();
    for (one, way) in site.boxes.iter_mut().zip(&ways) {
        let url = format!("mqtt://127.0.0.1:{}", way.port);
        one.start_with(&[("TALLYD_UPSTREAM_URL", Path::new(&url))]);
    }
    site.until_ready();
    site.set("window.grace", "200ms");
    (site, ways)
}

/// Waits until the leader is connected to the broker; which box that is.
pub(crate) fn until_connected(site: &Site) -> usize {
    until("the leader is connected to the broker", || {
        let leader = site.leader();
        (site.boxes[leader].try_status()?["upstream"]["state"] == "connected").then_some(leader)
    })
}

fn transfers(site: &Site, at: usize) -> Value {
    site.boxes[at].status()["transfers"].clone()
}

#[test]
fn a_leader_that_does_not_reach_the_broker_hands_over_to_the_box_that_does() {
    let broker = Broker::start();
    let subscriber = broker.subscribe();
    let (site, ways) = site_with_ways(&broker);
    until_connected(&site);
    site.boxes[0].add("a", 3);
    let (leader, successor) = until_transferred(&site, &ways);
    let cut = 3 - leader - successor;
    site.boxes[cut].add("a", 4);
    let told = transfers(&site, leader);
    assert_eq!((&told["broker"], &told["failed"]), (&Value::from(1), &Value::from(0)), "{told}");
    assert_eq!(told["last"]["to"], site.boxes[successor].name);
    let metrics = site.boxes[leader].client().get("/metrics").unwrap().text();
    assert!(metrics.contains("tallyd_leadership_transfers_total{reason=\"broker\"} 1\n"), "{metrics}");
    site.boxes[successor].until_log("is transferring leadership to this box");
    assert_eq!(until_connected(&site), successor);
    let all = [("a".to_owned(), 7)].into();
    Ledger::until_all(&subscriber, &all).assert_sound();
    let states: Vec<String> = subscriber.at(&format!("tally/{SITE}/status")).iter().map(state).collect();
    assert!(!states.contains(&"offline".to_owned()), "it was never offline: {states:?}");

    // Where the leader is well nothing moves back.
    ways[leader].mend();
    ways[cut].mend();
    site.boxes[cut].add("a", 2);
    Ledger::until_all(&subscriber, &[("a".to_owned(), 9)].into()).assert_sound();
    assert_eq!(by_broker(&site), 1);
}

/// Cuts the leader and one of the others off the broker until leadership is transferred to the third; from
/// whom, and to whom. On a machine that stands still for a while the third may come to lead by an election:
/// then it is tried again.
fn until_transferred(site: &Site, ways: &[Way]) -> (usize, usize) {
    for _ in 0..3 {
        let leader = until_connected(site);
        let successor = (leader + 2) % 3;
        let cut = Instant::now();
        ways.iter().enumerate().filter(|(at, _)| *at != successor).for_each(|(_, way)| way.cut());
        until("the box that reaches the broker leads", || (site.leader() == successor).then_some(()));
        let from = (0..3).find(|at| transfers(site, *at)["broker"] == 1);
        if let Some(from) = from {
            until_connected(site);
            let time = cut.elapsed();
            eprintln!("{time:.1?} after the leader lost the broker the next one was connected to it");
            return (from, successor);
        }
        ways.iter().for_each(Way::mend);
    }
    panic!("leadership came to that box three times without a transfer");
}

/// How often leadership was transferred for the broker's sake.
fn by_broker(site: &Site) -> u64 {
    (0..3).map(|at| transfers(site, at)["broker"].as_u64().unwrap()).sum()
}

fn state(message: &crate::broker::Message) -> String {
    message.json()["state"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_broker_that_nobody_reaches_moves_nothing_and_is_found_again_at_once() {
    let mut broker = Broker::start();
    let (site, _ways) = site_with_ways(&broker);
    until_connected(&site);
    broker.kill();
    let killed_ms = wall_ms();
    let tried = (0..ATTEMPTS).any(|_| others_tried_in_vain(&site, killed_ms));
    assert!(tried, "another box came to lead again and again");
    let back_ms = wall_ms();
    broker.run();
    // The leader does not wait for its own next try when another box has reached the broker.
    until("a box reaches the broker", || {
        let reached = |one: &TestBox| {
            let upstream = one.try_status()?["upstream"].clone();
            let probe = &upstream["probe"];
            let probed = probe["reached"] == true && probe["at"].as_u64()? >= back_ms;
            Some(probed || upstream["state"] == "connected")
        };
        site.boxes.iter().any(|one| reached(one) == Some(true)).then_some(())
    });
    let found = Instant::now();
    until_connected(&site);
    assert!(found.elapsed() < AT_ONCE, "connected {:?} after a box had reached it", found.elapsed());
    assert_eq!(by_broker(&site), 0);
    assert!((0..3).all(|at| transfers(&site, at)["failed"] == 0));
}

/// Whether the two that do not lead were asked, tried several times and did not reach the broker, which died then;
/// `false` if another box came to lead meanwhile: then each of them is asked anew.
fn others_tried_in_vain(site: &Site, killed_ms: u64) -> bool {
    let leader = site.leader();
    let mut tries: [BTreeSet<u64>; 3] = Default::default();
    until("both others have tried several times in vain", || {
        if site.leader() != leader {
            return Some(false);
        }
        for at in (0..3).filter(|at| *at != leader) {
            let probe = site.boxes[at].try_status()?["upstream"]["probe"].clone();
            let since_then = probe["at"].as_u64().filter(|tried| *tried > killed_ms);
            assert!(since_then.is_none() || probe["reached"] == false, "{probe}");
            tries[at].extend(since_then);
        }
        let enough = |at: usize| at == leader || tries[at].len() >= 3;
        (0..3).all(enough).then_some(true)
    })
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

#[test]
fn an_add_without_a_quorum_is_certainly_not_done_and_said_so() {
    let mut site = Site::start(3);
    let survivor = site.follower();
    for at in (0..3).filter(|at| *at != survivor) {
        site.boxes[at].kill();
    }
    let mut client = site.boxes[survivor].client();
    let refused = until("the box that is left says that it hears no leader", || {
        let answer = client.post("/v1/counters/before", "{\"add\":1}").ok()?;
        answer.text().contains("had no leader").then_some(answer)
    });
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    assert!(refused.problem().ends_with("not-committed"), "{}", refused.text());
    // However many boxes it asks, and however short it waits for each.
    let url: Vec<String> = site.boxes.iter().map(|one| format!("http://127.0.0.1:{}", one.http)).collect();
    let output = tallyd().args(["add", "a", "--timeout", "4s", "--url", &url.join(",")]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(client.get("/readyz").unwrap().status == 503);
    site.start_all();
    assert_eq!(site.boxes[survivor].total("a"), 0, "what was said not to be done was not");
}
