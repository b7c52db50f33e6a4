//! A lane between boxes: a stream of frames, cut anywhere; what each says; and the answer that it would be.

use bytes::Bytes;
use tally_core::id::{KeyHash, LogIndex, NodeId, Subterm, Term};
use tally_core::raft::{Body, EntryRange, MemberRole, Message, NodeSet, Position};
use tally_core::time::{Duration, Instant, SiteTime};
use tallyd::clock::LeaderTime;
use tallyd::clock::Wall;
use tallyd::node::TransferReason;
use tallyd::node::wire::{Condition, Frame, HeartbeatAnswerExtra, HeartbeatExtra, SnapshotPart};
use tallyd::site::{Envelope, MemberRecord, entry};
use tallyd::storage::SnapshotHead;
use tallyd::transport::frame::{Decoder, Encoder};
use tallyd::transport::{INCARNATION_BYTES, Incarnation, Lane};

/// The first byte says where the stream is cut.
pub(crate) fn run(bytes: &[u8]) {
    let Some((cut, stream)) = bytes.split_first() else { return };
    if let Some(head) = stream.first_chunk::<INCARNATION_BYTES>() {
        assert_eq!(Incarnation::from_bytes(*head).to_bytes(), *head);
    }
    // Alone as well: a fuzzer need not find lengths first.
    one(&Bytes::copy_from_slice(stream));
    let max = Lane::Snapshot.frame_bytes_max();
    let mut decoder = Decoder::new(max);
    let step = usize::from(*cut) + 1;
    let mut out = Vec::new();
    for part in stream.chunks(step) {
        let mut part = Bytes::copy_from_slice(part);
        loop {
            match decoder.next(&mut part) {
                Ok(Some(frame)) => out.push(frame),
                Ok(None) => break,
                // The connection is closed.
                Err(_) => return check(&out, stream),
            }
        }
        assert!(part.is_empty(), "the decoder stopped before the end of what came");
    }
    check(&out, stream);
}

fn check(frames: &[Bytes], stream: &[u8]) {
    let again = Encoder::default().encode(frames).concat();
    assert!(stream.starts_with(&again), "the frames are not those of the stream");
    frames.iter().for_each(one);
}

fn one(bytes: &Bytes) {
    let Ok(frame) = Frame::decode(bytes) else { return };
    let encoded = frame.encode();
    assert_eq!(Frame::decode(&encoded).as_ref(), Ok(&frame), "{frame:?} comes back as another one");
    match &frame {
        Frame::Raft { payloads, .. } => assert!(payloads.len() <= bytes.len(), "entries out of nothing"),
        Frame::Propose(envelope) => {
            if let Some(envelope) = Envelope::<tallyd::site::Body>::read(envelope) {
                let _ = entry::check(&envelope.inside);
            }
        }
        _ => {}
    }
}

/// A frame of each kind, as boxes send them.
pub(crate) fn samples() -> Vec<Frame> {
    let last = Position { index: LogIndex(9), term: Term(3), subterm: Subterm(1) };
    let plain = |body| Frame::plain(Message { term: Term(4), body });
    let message = |body| Message { term: Term(4), body };
    let entries = EntryRange { term: Term(4), subterm: Subterm(1), first: LogIndex(10), last: LogIndex(12) };
    let mut nodes = NodeSet::default();
    nodes.insert(NodeId(1));
    nodes.insert(NodeId(2));
    let wall = Wall { us: 1_700_000_000_000_000, synced: true };
    let told = LeaderTime {
        site: SiteTime(1_700_000_000_000),
        synced: true,
        held: Some(SiteTime(1_700_100_000_000)),
    };
    let head = SnapshotHead { position: last, total: 4, crc: crc32c::crc32c(b"part") };
    let part = |bytes: &'static [u8]| SnapshotPart {
        term: Term(4),
        head,
        offset: 0,
        bytes: Bytes::from_static(bytes),
    };
    let record = |id, role| MemberRecord {
        id: NodeId(id),
        name: format!("box{id}"),
        address: format!("10.0.0.{id}:7400"),
        key: KeyHash([id as u8; 32]),
        role,
    };
    let tick = Bytes::from([&[0][..], &entry::tick()].concat());
    let append = |payloads: Vec<Bytes>| {
        let entries = (!payloads.is_empty()).then_some(entries);
        let body = Body::Append { previous: last, entries, commit: LogIndex(8) };
        Frame::Raft { message: message(body), payloads }
    };
    vec![
        plain(Body::PreVote { last }),
        plain(Body::PreVoteAnswer { granted: true }),
        plain(Body::Vote { last, transfer: true }),
        plain(Body::VoteAnswer { granted: true }),
        append(vec![]),
        append(vec![Bytes::new(), tick.clone(), tick.clone()]),
        plain(Body::Appended { matched: LogIndex(9), received: LogIndex(12) }),
        plain(Body::Rejected { previous: LogIndex(9), hint: last }),
        Frame::Heartbeat(
            message(Body::Heartbeat { commit: LogIndex(9), round: 7 }),
            HeartbeatExtra {
                told,
                wall,
                sent: Instant(77),
                timeout: Duration(200_000),
                asks_for_broker: true,
            },
        ),
        Frame::HeartbeatAnswer(
            message(Body::HeartbeatAnswer { round: 7 }),
            HeartbeatAnswerExtra {
                wall,
                sent: Instant(77),
                sync: Duration(900),
                timeout: Duration(200_000),
                condition: Condition { disk_ok: Some(true), broker: Some(false), sync_median: Duration(300) },
            },
        ),
        plain(Body::TimeoutNow),
        Frame::TransferAnnounced { to: NodeId(2), reason: TransferReason::Broker },
        plain(Body::WitnessVote { pre: false, last_term: Term(3), last_subterm: Subterm(1), votes: nodes }),
        plain(Body::WitnessAppend { subterm: Subterm(2), voters: nodes }),
        plain(Body::WitnessAppended { subterm: Subterm(2), taken: true }),
        plain(Body::WitnessPing { round: 3 }),
        Frame::Propose(tick),
        Frame::ReadIndex { id: 5 },
        Frame::ReadAnswer { id: 5, index: Some(LogIndex(9)) },
        Frame::SnapshotPart(part(b"")),
        Frame::SnapshotPart(part(b"part")),
        Frame::SnapshotWant { last, offset: 4 },
        Frame::Transfer { to: Some(NodeId(2)) },
        Frame::Members {
            index: LogIndex(9),
            members: vec![
                record(1, MemberRole::Voter),
                record(2, MemberRole::Observer),
                record(3, MemberRole::Witness),
            ],
        },
    ]
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let frames: Vec<Bytes> = samples().iter().map(Frame::encode).collect();
    let alone = frames.iter().map(|frame| [&[255][..], frame].concat());
    let mut encoder = Encoder::default();
    let stream = encoder.encode(&frames).concat();
    let cut = |at: u8| [&[at][..], &stream].concat();
    alone.chain([cut(255), cut(2)]).collect()
}
