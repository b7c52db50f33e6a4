//! A peer with a certificate of the site that says anything at all, and peers that have none: everything is counted by
//! reason, told in the log now and then, and the site goes on.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tally_core::id::{LogIndex, NodeId, Subterm, Term};
use tally_core::raft::{Body, EntryRange, Message, Position};
use tallyd::identity::{Identity, Keys};
use tallyd::node::wire::{Frame, SnapshotPart};
use tallyd::site::{ConfigurationRecord, entry};
use tallyd::storage::SnapshotHead;
use tallyd::transport::{Incarnations, Lane, Transport, TransportMetrics};
use tokio::sync::mpsc;

use crate::boxes::{Site, TestBox};
use crate::harness::{free_port, until};
use crate::net::standstill::{ATTEMPTS, Standstill};

/// A peer that this test plays, on a thread of its own.
struct Peer {
    transport: Arc<Transport>,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Peer {
    /// With the identity and keys of this directory, in its so many-th incarnation.
    fn start(directory: &Path, port: u16, boot: u64, to: Option<&TestBox>) -> Peer {
        let mut identity = Identity::load(directory).unwrap().unwrap();
        if let Some(to) = to {
            identity.members.retain(|member| [identity.node, 1].contains(&member.id.0));
            for member in identity.members.iter_mut().filter(|member| member.id.0 == 1) {
                member.address = format!("127.0.0.1:{}", to.quic);
            }
        }
        let (keys, incarnations) = (Keys::load(directory).unwrap(), Incarnations::load(directory, boot));
        let listen = format!("127.0.0.1:{port}").parse().unwrap();
        let (started, start) = std::sync::mpsc::channel();
        let (end, ended) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let (events, mut received) = mpsc::channel(64);
                let metrics = Arc::new(TransportMetrics::default());
                let transport =
                    Transport::start(&identity, keys, listen, events, metrics, incarnations).await;
                let transport = Arc::new(transport.unwrap());
                started.send(Arc::clone(&transport)).unwrap();
                // What it is told does not interest it.
                tokio::spawn(async move { while received.recv().await.is_some() {} });
                let _ = ended.await;
                transport.close().await;
            });
        });
        Peer { transport: start.recv().unwrap(), end: Some(end), thread: Some(thread) }
    }

    fn say(&self, to: u64, lane: Lane, frame: &[u8]) {
        let frame = Bytes::copy_from_slice(frame);
        let to = NodeId(to);
        until("a frame is taken", || self.transport.send(to, lane, frame.clone()).ok());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.end.take().map(|end| end.send(()));
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// A counter with a reason, as `/metrics` shows it.
fn counted(one: &TestBox, name: &str, reason: &str) -> u64 {
    let text = one.client().get("/metrics").unwrap().text();
    let start = format!("{name}{{reason=\"{reason}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(start.as_str()));
    line.unwrap_or_else(|| panic!("no {start:?} in\n{text}")).parse().unwrap()
}

fn until_counted(one: &TestBox, name: &str, reason: &str, before: u64) {
    until(&format!("{} counts {reason}", one.name), || (counted(one, name, reason) > before).then_some(()));
}

/// Where what is said for this reason is counted.
fn counter_of(reason: &str) -> &'static str {
    if reason.starts_with("un") || reason.starts_with("bad") { MALFORMED } else { IGNORED }
}

/// What no box says, and as which reason it is counted.
fn nonsense() -> Vec<(Lane, Vec<u8>, &'static str)> {
    let plain = |term, body| Frame::plain(Message { term: Term(term), body }).encode().to_vec();
    let at = |index, term| Position { index: LogIndex(index), term: Term(term), subterm: Subterm(0) };
    let append = |term, previous: Position, first, last, commit| {
        let range = EntryRange {
            term: Term(term),
            subterm: Subterm(0),
            first: LogIndex(first),
            last: LogIndex(last),
        };
        let body = Body::Append { previous, entries: Some(range), commit: LogIndex(commit) };
        let payloads = vec![Bytes::from_static(b"x")];
        Frame::Raft { message: Message { term: Term(term), body }, payloads }.encode().to_vec()
    };
    let proposed = |body: &[u8]| Frame::Propose([&[0], body].concat().into()).encode().to_vec();
    let head = SnapshotHead { position: at(1 << 40, 1), total: u64::MAX, crc: 0 };
    let part = |bytes: &'static [u8]| {
        let bytes = Bytes::from_static(bytes);
        Frame::SnapshotPart(SnapshotPart { term: Term(1), head, offset: 0, bytes }).encode().to_vec()
    };
    let mut huge_count = append(1, at(1, 1), 2, 2, 1);
    huge_count.truncate(6);
    huge_count.extend_from_slice(&[0xff; 9]);
    vec![
        (Lane::Control, vec![], "unreadable-frame"),
        (Lane::Control, vec![0xff; 1000], "unreadable-frame"),
        (Lane::Entries, huge_count, "unreadable-frame"),
        (Lane::Entries, vec![5; 1 << 20], "unreadable-frame"),
        (Lane::Requests, Frame::Propose(Bytes::from_static(b"\0\xee")).encode().to_vec(), "unreadable-body"),
        (Lane::Requests, Frame::Propose(Bytes::new()).encode().to_vec(), "unreadable-body"),
        (
            Lane::Requests,
            proposed(&entry::configuration(&ConfigurationRecord::default())),
            "bad-configuration",
        ),
        (Lane::Requests, proposed(&entry::bootstrap(&[])), "bad-configuration"),
        (Lane::Control, plain(u64::MAX, Body::TimeoutNow), "implausible"),
        (Lane::Control, plain(1 << 61, Body::Vote { last: at(9, 1), transfer: true }), "implausible"),
        (Lane::Control, plain(1 << 62, Body::Vote { last: at(9, 1), transfer: true }), "implausible"),
        (Lane::Entries, append(1 << 62, at(1, 1), 2, 2, u64::MAX), "implausible"),
        (Lane::Entries, append(1, at(u64::MAX - 1, 1), u64::MAX, u64::MAX, 1), "implausible"),
        (
            Lane::Control,
            plain(0, Body::Appended { matched: LogIndex(9), received: LogIndex(1) }),
            "implausible",
        ),
        (
            Lane::Control,
            Frame::Members { index: LogIndex(9), members: vec![] }.encode().to_vec(),
            "implausible",
        ),
        (Lane::Snapshot, part(b""), "part-not-awaited"),
        (Lane::Snapshot, part(b"anything"), "part-not-awaited"),
    ]
}

const MALFORMED: &str = "tallyd_peer_frames_malformed_total";
const IGNORED: &str = "tallyd_raft_ignored_total";
const REFUSED: &str = "tallyd_peer_refused_total";

#[test]
fn a_member_that_says_anything_is_counted_by_reason_and_the_site_goes_on() {
    let mut site = Site::provision(3, "1s", "");
    site.boxes[0].start();
    site.boxes[1].start();
    site.until_ready();
    let third = &site.boxes[2];
    assert_eq!(site.boxes[0].add("parts", 5), 5);
    let peer = Peer::start(&third.directory, third.quic, 1, None);
    let borne = (1..=ATTEMPTS).any(|attempt| stood_by(&site, &peer, attempt));
    assert!(borne, "this machine stood still again and again, so nothing can be said");
    assert_eq!(site.boxes[1].add("parts", 2), 7);
    drop(peer);
    site.boxes[2].start();
    // The box itself hears that somebody lived under its name meanwhile.
    site.boxes[2].until_log("(own-earlier-incarnation)");
}

/// Says all that to two boxes, and so does a copy of the one who says it: whether each thing was counted and nobody
/// stepped down; `false` if the machine spoilt it.
fn stood_by(site: &Site, peer: &Peer, attempt: usize) -> bool {
    let (listeners, third) = (&site.boxes[..2], &site.boxes[2]);
    let term = || listeners.iter().map(|one| one.status()["term"].as_u64().unwrap()).max();
    let counts = |one: &TestBox| -> Vec<u64> {
        nonsense().iter().map(|(_, _, reason)| counted(one, counter_of(reason), reason)).collect()
    };
    let before: Vec<Vec<u64>> = listeners.iter().map(counts).collect();
    let cloned: Vec<u64> = listeners.iter().map(|one| counted(one, REFUSED, "cloned")).collect();
    let standstill = Standstill::watch();
    let term_before = term();
    for _ in 0..50 {
        for (lane, frame, _) in nonsense() {
            peer.say(1, lane, &frame);
            peer.say(2, lane, &frame);
        }
    }
    for (one, before) in listeners.iter().zip(before) {
        for ((_, _, reason), before) in nonsense().into_iter().zip(before) {
            until_counted(one, counter_of(reason), reason, before);
        }
        for told in ["(unreadable-frame)", "(unreadable-body)", "(implausible)"] {
            one.until_log(told);
            let lines = one.log().lines().filter(|line| line.contains(told)).count();
            assert!(lines < 10 * attempt, "{} wrote {lines} lines about {told}", one.name);
        }
    }
    // A second process under the same identity.
    let copy = Peer::start(&third.directory, free_port(), 9, None);
    for (one, before) in listeners.iter().zip(cloned) {
        until_counted(one, REFUSED, "cloned", before);
    }
    site.boxes[0].until_log("(cloned)");
    site.boxes[1].add("meanwhile", 1);
    let term_after = term();
    drop(copy);
    let same = term_after == term_before;
    assert!(same || standstill.was_long(), "somebody stepped down: {term_before:?}, then {term_after:?}");
    same
}

#[test]
fn boxes_of_another_site_are_counted_and_told_in_the_log() {
    let mut site = Site::start(1);
    let other = Site::provision(2, "1s", "");
    // A site of one has an address where it was provisioned with one, and listens.
    let (one, stranger) = (&mut site.boxes[0], &other.boxes[1]);
    let peer = Peer::start(&stranger.directory, stranger.quic, 1, Some(one));
    until("the stranger is counted", || {
        let counts =
            ["other-site", "unknown-key", "handshake-failed"].map(|reason| counted(one, REFUSED, reason));
        (counts.iter().sum::<u64>() > 0).then_some(())
    });
    one.until_log("no connection with 127.0.0.1:");
    assert_eq!(one.add("parts", 1), 1);
    drop(peer);
}
