//! Frames between boxes: the core's messages with the payloads and clocks that the driver adds, and
//! the boxes' own requests. Decoding bounds everything and borrows payloads from the frame.

use bytes::{BufMut, Bytes, BytesMut};
use tally_core::id::{LogIndex, NodeId, Subterm, Term};
use tally_core::raft::{Body, EntryRange, Message, NodeSet, Position};
use tally_core::time::SiteTime;

use crate::site::codec::{Malformed, Reader, put_varint};

/// Most bytes of payload in one append; also the most that one entry may have.
pub(super) const APPEND_BYTES_MAX: u32 = 1 << 20;
/// Most bytes of one part of a snapshot.
pub(super) const PART_BYTES: usize = 256 << 10;

/// What boxes say to each other.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Frame {
    /// A message of the core, with the payloads of its entries if it appends some.
    Raft { message: Message, payloads: Vec<Bytes>, clock: Option<Clock> },
    /// Please put this into the log: a tagged or plain body.
    Propose(Bytes),
    /// What must I have applied to read linearizably?
    ReadIndex { id: u64 },
    /// The answer; `None`: I do not lead, or cannot say.
    ReadAnswer { id: u64, index: Option<LogIndex> },
    /// A part of a snapshot on its way to a follower.
    SnapshotPart(SnapshotPart),
}

/// The clocks that heartbeats and their answers carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    /// Site time (from the leader; zero in an answer).
    pub(super) site: SiteTime,
    /// The sender's wall clock, Unix milliseconds.
    pub(super) wall_ms: u64,
    /// Whether that is synchronised.
    pub(super) synced: bool,
}

/// A part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SnapshotPart {
    /// The leader's term.
    pub(super) term: Term,
    /// The last entry that the snapshot covers.
    pub(super) last: Position,
    /// Bytes of the whole snapshot.
    pub(super) total: u64,
    /// Where this part begins.
    pub(super) offset: u64,
    /// The part.
    pub(super) bytes: Bytes,
}

const PRE_VOTE: u8 = 1;
const PRE_VOTE_ANSWER: u8 = 2;
const VOTE: u8 = 3;
const VOTE_ANSWER: u8 = 4;
const APPEND: u8 = 5;
const APPENDED: u8 = 6;
const REJECTED: u8 = 7;
const HEARTBEAT: u8 = 8;
const HEARTBEAT_ANSWER: u8 = 9;
const TIMEOUT_NOW: u8 = 10;
const WITNESS_VOTE: u8 = 11;
const WITNESS_APPEND: u8 = 12;
const WITNESS_APPENDED: u8 = 13;
const WITNESS_PING: u8 = 14;
const PROPOSE: u8 = 16;
const READ_INDEX: u8 = 17;
const READ_ANSWER: u8 = 18;
const SNAPSHOT_PART: u8 = 19;

impl Frame {
    /// A message of the core alone.
    pub(super) fn plain(message: Message) -> Frame {
        Frame::Raft { message, payloads: Vec::new(), clock: None }
    }

    /// As bytes.
    pub(super) fn encode(&self) -> Bytes {
        match self {
            Frame::Raft { message, payloads, clock } => encode_message(message, payloads, *clock),
            Frame::Propose(body) => {
                let mut out = BytesMut::with_capacity(1 + body.len());
                out.put_u8(PROPOSE);
                out.put_slice(body);
                out.freeze()
            }
            Frame::ReadIndex { id } => {
                let mut out = vec![READ_INDEX];
                put_varint(&mut out, *id);
                out.into()
            }
            Frame::ReadAnswer { id, index } => {
                let mut out = vec![READ_ANSWER];
                put_varint(&mut out, *id);
                // Zero is before the first entry, so plus one leaves zero for none.
                put_varint(&mut out, index.map_or(0, |index| index.0.saturating_add(1)));
                out.into()
            }
            Frame::SnapshotPart(part) => {
                let mut out = Vec::with_capacity(64 + part.bytes.len());
                out.push(SNAPSHOT_PART);
                put_varint(&mut out, part.term.0);
                put_position(&mut out, part.last);
                put_varint(&mut out, part.total);
                put_varint(&mut out, part.offset);
                out.extend_from_slice(&part.bytes);
                out.into()
            }
        }
    }

    /// From bytes that a peer sent.
    pub(super) fn decode(frame: &Bytes) -> Result<Frame, Malformed> {
        let mut reader = Reader::new(frame);
        let kind = reader.u8()?;
        Ok(match kind {
            PROPOSE => Frame::Propose(frame.slice(1..)),
            READ_INDEX => {
                let id = reader.varint()?;
                reader.done()?;
                Frame::ReadIndex { id }
            }
            READ_ANSWER => {
                let id = reader.varint()?;
                let index = reader.varint()?.checked_sub(1).map(LogIndex);
                reader.done()?;
                Frame::ReadAnswer { id, index }
            }
            SNAPSHOT_PART => {
                let term = Term(reader.varint()?);
                let last = position(&mut reader)?;
                let (total, offset) = (reader.varint()?, reader.varint()?);
                let bytes = frame.slice_ref(reader.rest());
                Frame::SnapshotPart(SnapshotPart { term, last, total, offset, bytes })
            }
            _ => decode_message(kind, reader, frame)?,
        })
    }
}

fn encode_message(message: &Message, payloads: &[Bytes], clock: Option<Clock>) -> Bytes {
    let bytes: usize = payloads.iter().map(|payload| payload.len() + 4).sum();
    let mut out = Vec::with_capacity(48 + bytes);
    let kind = match message.body {
        Body::PreVote { .. } => PRE_VOTE,
        Body::PreVoteAnswer { .. } => PRE_VOTE_ANSWER,
        Body::Vote { .. } => VOTE,
        Body::VoteAnswer { .. } => VOTE_ANSWER,
        Body::Append { .. } => APPEND,
        Body::Appended { .. } => APPENDED,
        Body::Rejected { .. } => REJECTED,
        Body::Heartbeat { .. } => HEARTBEAT,
        Body::HeartbeatAnswer { .. } => HEARTBEAT_ANSWER,
        Body::TimeoutNow => TIMEOUT_NOW,
        Body::WitnessVote { .. } => WITNESS_VOTE,
        Body::WitnessAppend { .. } => WITNESS_APPEND,
        Body::WitnessAppended { .. } => WITNESS_APPENDED,
        Body::WitnessPing { .. } => WITNESS_PING,
        // Its bytes travel in parts that name the same; see `SnapshotPart`.
        Body::Snapshot { .. } => SNAPSHOT_PART,
    };
    out.push(kind);
    put_varint(&mut out, message.term.0);
    match message.body {
        Body::PreVote { last } | Body::Snapshot { last } => put_position(&mut out, last),
        Body::Vote { last, transfer } => {
            put_position(&mut out, last);
            out.push(u8::from(transfer));
        }
        Body::TimeoutNow => {}
        Body::WitnessVote { pre, last_term, last_subterm, votes } => {
            out.push(u8::from(pre));
            put_varint(&mut out, last_term.0);
            put_varint(&mut out, last_subterm.0);
            put_nodes(&mut out, &votes);
        }
        Body::WitnessAppend { subterm, voters } => {
            put_varint(&mut out, subterm.0);
            put_nodes(&mut out, &voters);
        }
        Body::WitnessAppended { subterm, taken } => {
            put_varint(&mut out, subterm.0);
            out.push(u8::from(taken));
        }
        Body::WitnessPing { round } => put_varint(&mut out, round),
        Body::PreVoteAnswer { granted } | Body::VoteAnswer { granted } => out.push(u8::from(granted)),
        Body::Append { previous, entries, commit } => {
            put_position(&mut out, previous);
            put_varint(&mut out, commit.0);
            put_varint(&mut out, payloads.len() as u64);
            if let Some(range) = entries {
                put_varint(&mut out, range.term.0);
                put_varint(&mut out, range.subterm.0);
                for payload in payloads {
                    put_varint(&mut out, payload.len() as u64);
                    out.extend_from_slice(payload);
                }
            }
        }
        Body::Appended { matched, received } => {
            put_varint(&mut out, matched.0);
            put_varint(&mut out, received.0);
        }
        Body::Rejected { previous, hint } => {
            put_varint(&mut out, previous.0);
            put_position(&mut out, hint);
        }
        Body::Heartbeat { commit, round } => {
            put_varint(&mut out, commit.0);
            put_varint(&mut out, round);
            put_clock(&mut out, clock);
        }
        Body::HeartbeatAnswer { round } => {
            put_varint(&mut out, round);
            put_clock(&mut out, clock);
        }
    }
    out.into()
}

fn decode_message(kind: u8, mut reader: Reader<'_>, frame: &Bytes) -> Result<Frame, Malformed> {
    let term = Term(reader.varint()?);
    let mut payloads = Vec::new();
    let mut clock = None;
    let body = match kind {
        PRE_VOTE => Body::PreVote { last: position(&mut reader)? },
        PRE_VOTE_ANSWER => Body::PreVoteAnswer { granted: reader.bool()? },
        VOTE => Body::Vote { last: position(&mut reader)?, transfer: reader.bool()? },
        TIMEOUT_NOW => Body::TimeoutNow,
        WITNESS_VOTE => {
            let pre = reader.bool()?;
            let (last_term, last_subterm) = (Term(reader.varint()?), Subterm(reader.varint()?));
            Body::WitnessVote { pre, last_term, last_subterm, votes: nodes(&mut reader)? }
        }
        WITNESS_APPEND => {
            let subterm = Subterm(reader.varint()?);
            Body::WitnessAppend { subterm, voters: nodes(&mut reader)? }
        }
        WITNESS_APPENDED => {
            let subterm = Subterm(reader.varint()?);
            Body::WitnessAppended { subterm, taken: reader.bool()? }
        }
        WITNESS_PING => Body::WitnessPing { round: reader.varint()? },
        VOTE_ANSWER => Body::VoteAnswer { granted: reader.bool()? },
        APPEND => {
            let previous = position(&mut reader)?;
            let commit = LogIndex(reader.varint()?);
            let entries = entries(&mut reader, previous, frame, &mut payloads)?;
            Body::Append { previous, entries, commit }
        }
        APPENDED => {
            let matched = LogIndex(reader.varint()?);
            Body::Appended { matched, received: LogIndex(reader.varint()?) }
        }
        REJECTED => {
            let previous = LogIndex(reader.varint()?);
            Body::Rejected { previous, hint: position(&mut reader)? }
        }
        HEARTBEAT => {
            let (commit, round) = (LogIndex(reader.varint()?), reader.varint()?);
            clock = read_clock(&mut reader)?;
            Body::Heartbeat { commit, round }
        }
        HEARTBEAT_ANSWER => {
            let round = reader.varint()?;
            clock = read_clock(&mut reader)?;
            Body::HeartbeatAnswer { round }
        }
        _ => return Err(Malformed),
    };
    reader.done()?;
    Ok(Frame::Raft { message: Message { term, body }, payloads, clock })
}

fn entries(
    reader: &mut Reader<'_>,
    previous: Position,
    frame: &Bytes,
    payloads: &mut Vec<Bytes>,
) -> Result<Option<EntryRange>, Malformed> {
    let count = reader.varint()?;
    if count == 0 {
        return Ok(None);
    }
    let (term, subterm) = (Term(reader.varint()?), Subterm(reader.varint()?));
    // Each entry has at least the byte of its length: a claimed count cannot exceed the frame.
    if count > reader.left() as u64 {
        return Err(Malformed);
    }
    payloads.reserve_exact(count as usize);
    for _ in 0..count {
        payloads.push(frame.slice_ref(reader.bytes()?));
    }
    let first = previous.index.next();
    let last = LogIndex(previous.index.0.checked_add(count).ok_or(Malformed)?);
    Ok(Some(EntryRange { term, subterm, first, last }))
}

fn put_position(out: &mut Vec<u8>, position: Position) {
    put_varint(out, position.index.0);
    put_varint(out, position.term.0);
    put_varint(out, position.subterm.0);
}

fn position(reader: &mut Reader<'_>) -> Result<Position, Malformed> {
    let index = LogIndex(reader.varint()?);
    Ok(Position { index, term: Term(reader.varint()?), subterm: Subterm(reader.varint()?) })
}

fn put_nodes(out: &mut Vec<u8>, nodes: &NodeSet) {
    put_varint(out, nodes.len() as u64);
    nodes.iter().for_each(|id| put_varint(out, id.0));
}

fn nodes(reader: &mut Reader<'_>) -> Result<NodeSet, Malformed> {
    let mut nodes = NodeSet::default();
    for _ in 0..reader.varint()? {
        if !nodes.insert(NodeId(reader.varint()?)) {
            return Err(Malformed);
        }
    }
    Ok(nodes)
}

fn put_clock(out: &mut Vec<u8>, clock: Option<Clock>) {
    let Some(clock) = clock else { return };
    put_varint(out, clock.site.0);
    put_varint(out, clock.wall_ms);
    out.push(u8::from(clock.synced));
}

fn read_clock(reader: &mut Reader<'_>) -> Result<Option<Clock>, Malformed> {
    if reader.left() == 0 {
        return Ok(None);
    }
    let (site, wall_ms) = (SiteTime(reader.varint()?), reader.varint()?);
    Ok(Some(Clock { site, wall_ms, synced: reader.bool()? }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn messages() -> impl Strategy<Value = Frame> {
        let position = (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(index, term, subterm)| {
            Position { index: LogIndex(index >> 1), term: Term(term), subterm: Subterm(subterm) }
        });
        let clock = prop::option::of(
            (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(site, wall_ms, synced)| Clock {
                site: SiteTime(site),
                wall_ms,
                synced,
            }),
        );
        let append = (
            position.clone(),
            any::<u64>(),
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..5),
        )
            .prop_map(|(previous, commit, payloads)| {
                let range = EntryRange {
                    term: Term(3),
                    subterm: Subterm(1),
                    first: previous.index.next(),
                    last: LogIndex(previous.index.0 + payloads.len() as u64),
                };
                let entries = (!payloads.is_empty()).then_some(range);
                let body = Body::Append { previous, entries, commit: LogIndex(commit) };
                let payloads = payloads.into_iter().map(Bytes::from).collect();
                Frame::Raft { message: Message { term: Term(9), body }, payloads, clock: None }
            });
        let plain = |body| Frame::plain(Message { term: Term(7), body });
        prop_oneof![
            append,
            position.clone().prop_map(move |last| plain(Body::PreVote { last })),
            (position.clone(), any::<bool>())
                .prop_map(move |(last, transfer)| plain(Body::Vote { last, transfer })),
            Just(plain(Body::TimeoutNow)),
            (any::<(bool, u64, u64)>(), prop::collection::btree_set(any::<u64>(), 0..=8)).prop_map(
                move |((pre, term, subterm), ids)| {
                    let mut nodes = NodeSet::default();
                    assert!(ids.into_iter().all(|id| nodes.insert(NodeId(id))));
                    let (last_term, last_subterm) = (Term(term), Subterm(subterm));
                    match (pre, term % 2) {
                        (_, 0) => plain(Body::WitnessVote { pre, last_term, last_subterm, votes: nodes }),
                        (true, _) => plain(Body::WitnessAppend { subterm: last_subterm, voters: nodes }),
                        (false, _) => plain(Body::WitnessAppended { subterm: last_subterm, taken: pre }),
                    }
                }
            ),
            any::<u64>().prop_map(move |round| plain(Body::WitnessPing { round })),
            any::<bool>().prop_map(move |granted| plain(Body::VoteAnswer { granted })),
            any::<bool>().prop_map(move |granted| plain(Body::PreVoteAnswer { granted })),
            any::<(u64, u64)>().prop_map(move |(matched, received)| {
                plain(Body::Appended { matched: LogIndex(matched), received: LogIndex(received) })
            }),
            (any::<u64>(), position.clone()).prop_map(move |(previous, hint)| {
                plain(Body::Rejected { previous: LogIndex(previous), hint })
            }),
            (any::<u64>(), any::<u64>(), clock.clone()).prop_map(|(commit, round, clock)| {
                let body = Body::Heartbeat { commit: LogIndex(commit), round };
                Frame::Raft { message: Message { term: Term(7), body }, payloads: Vec::new(), clock }
            }),
            (any::<u64>(), clock).prop_map(|(round, clock)| {
                let message = Message { term: Term(7), body: Body::HeartbeatAnswer { round } };
                Frame::Raft { message, payloads: Vec::new(), clock }
            }),
            prop::collection::vec(any::<u8>(), 0..99).prop_map(|body| Frame::Propose(body.into())),
            any::<u64>().prop_map(|id| Frame::ReadIndex { id }),
            (any::<u64>(), prop::option::of(0..u64::MAX))
                .prop_map(|(id, index)| Frame::ReadAnswer { id, index: index.map(LogIndex) }),
            (position, any::<u64>(), any::<u64>()).prop_map(|(last, total, offset)| {
                let bytes = Bytes::from_static(b"part");
                Frame::SnapshotPart(SnapshotPart { term: Term(1), last, total, offset, bytes })
            }),
        ]
    }

    proptest! {
        #[test]
        fn every_frame_comes_back(frame in messages()) {
            prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        }

        #[test]
        fn no_bytes_at_all_make_it_panic(frame in messages(), cut in 0usize..200, at in 0usize..200, to in any::<u8>()) {
            let mut bytes = frame.encode().to_vec();
            bytes.truncate(cut.max(1));
            let place = at % bytes.len();
            bytes[place] = to;
            let _ = Frame::decode(&bytes.into());
        }
    }
}
