//! Frames between boxes: the core's messages with the payloads and clocks that the driver adds, and
//! the boxes' own requests. Decoding bounds everything and borrows payloads from the frame.

use bytes::{BufMut, Bytes, BytesMut};
use tally_core::id::{LogIndex, NodeId, Subterm, Term};
use tally_core::raft::{Body, EntryRange, Message, NodeSet, Position};

pub use super::digests::Points;
pub use super::heartbeat_wire::{Condition, HeartbeatAnswerExtra, HeartbeatExtra};
use super::heartbeat_wire::{answer, heartbeat, put_answer, put_heartbeat_extra};
use super::successors::TransferReason;
use crate::codec::{Malformed, Reader, put_bytes, put_varint};
use crate::site::{Level, MemberRecord, put_records, read_records};
use crate::storage::SnapshotHead;

/// Most bytes of payload in one append; also the most that one entry may have.
pub const APPEND_BYTES_MAX: u32 = 1 << 20;
/// Most bytes of one part of a snapshot.
pub const PART_BYTES: usize = 256 << 10;

/// The longest name of a release.
const RELEASE_BYTES_MAX: usize = 32;

/// A message between two boxes.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// A message of the core, with the payloads of its entries if it appends some.
    Raft { message: Message, payloads: Vec<Bytes> },
    /// A heartbeat, with the fields that accompany it.
    Heartbeat(Message, HeartbeatExtra),
    /// The answer to a heartbeat, with the fields that accompany it.
    HeartbeatAnswer(Message, HeartbeatAnswerExtra),
    /// A request to put a body, tagged or plain, into the log.
    Propose(Bytes),
    /// A request for the index that a linearizable read must see.
    ReadIndex { id: u64 },
    /// Its answer; `None`: this box does not lead, or cannot tell.
    ReadAnswer { id: u64, index: Option<LogIndex> },
    /// A part of a snapshot on its way to a follower.
    SnapshotPart(SnapshotPart),
    /// A follower asks for more of a snapshot that it was offered, from this offset on.
    SnapshotWant { last: Position, offset: u64 },
    /// A request to transfer leadership, to this box or to the best one. It has no answer: the requester sees the
    /// change.
    Transfer { to: Option<NodeId> },
    /// To a witness, which has no log, and to a box, which may be behind: who the members are, by the sender's log up to that
    /// index.
    Members { index: LogIndex, members: Vec<MemberRecord> },
    /// The leader transfers leadership to this box, and why: for the others' logs, and so that it is not moved
    /// again at once.
    TransferAnnounced { to: NodeId, reason: TransferReason },
    /// The highest feature level that the sender can apply, and its release; empty: it does not say.
    Level { level: Level, release: String },
    /// Digests of the sender's state at some indexes.
    Digests(Points),
    /// A request, by a box whose state is wrong, for a snapshot of that index or a later one.
    StateWant { index: LogIndex },
}

/// A part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPart {
    /// The leader's term.
    pub term: Term,
    /// The snapshot that this is a part of.
    pub head: SnapshotHead,
    /// Where this part begins.
    pub offset: u64,
    /// The part. An offer has none, and begins at 0.
    pub bytes: Bytes,
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
const TRANSFER: u8 = 20;
const SNAPSHOT_WANT: u8 = 30;
const MEMBERS: u8 = 21;
const HANDS_OVER: u8 = 22;
const LEVEL: u8 = 23;
const DIGESTS: u8 = 24;
const STATE_WANT: u8 = 25;

impl Frame {
    /// A message of the core alone.
    pub fn plain(message: Message) -> Frame {
        Frame::Raft { message, payloads: Vec::new() }
    }

    /// Encodes the frame.
    pub fn encode(&self) -> Bytes {
        match self {
            Frame::Raft { message, payloads } => encode_message(message, payloads).into(),
            Frame::Heartbeat(message, heartbeat) => {
                let mut out = encode_message(message, &[]);
                put_heartbeat_extra(&mut out, heartbeat);
                out.into()
            }
            Frame::HeartbeatAnswer(message, answer) => {
                let mut out = encode_message(message, &[]);
                put_answer(&mut out, answer);
                out.into()
            }
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
            Frame::Transfer { to } => {
                let mut out = vec![TRANSFER];
                // No box has the number 0.
                put_varint(&mut out, to.map_or(0, |to| to.0));
                out.into()
            }
            Frame::Members { index, members } => {
                let mut out = vec![MEMBERS];
                put_varint(&mut out, index.0);
                put_records(&mut out, members);
                out.into()
            }
            Frame::TransferAnnounced { to, reason } => {
                let mut out = vec![HANDS_OVER];
                put_varint(&mut out, to.0);
                out.push(reason.number());
                out.into()
            }
            Frame::Digests(points) => {
                let mut out = vec![DIGESTS];
                points.put(&mut out);
                out.into()
            }
            Frame::StateWant { index } => {
                let mut out = vec![STATE_WANT];
                put_varint(&mut out, index.0);
                out.into()
            }
            Frame::Level { level, release } => {
                let mut out = vec![LEVEL];
                put_varint(&mut out, level.get().into());
                put_bytes(&mut out, release.as_bytes());
                out.into()
            }
            Frame::SnapshotPart(part) => {
                let mut out = Vec::with_capacity(64 + part.bytes.len());
                out.push(SNAPSHOT_PART);
                put_varint(&mut out, part.term.0);
                put_position(&mut out, part.head.position);
                put_varint(&mut out, part.head.total);
                put_varint(&mut out, part.head.crc.into());
                put_varint(&mut out, part.offset);
                out.extend_from_slice(&part.bytes);
                out.into()
            }
            Frame::SnapshotWant { last, offset } => {
                let mut out = vec![SNAPSHOT_WANT];
                put_position(&mut out, *last);
                put_varint(&mut out, *offset);
                out.into()
            }
        }
    }

    /// Decodes what a peer sent.
    ///
    /// # Errors
    /// [`Malformed`] for bytes that are no frame.
    pub fn decode(frame: &Bytes) -> Result<Frame, Malformed> {
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
            TRANSFER => {
                let to = reader.varint()?;
                reader.done()?;
                Frame::Transfer { to: (to > 0).then_some(NodeId(to)) }
            }
            MEMBERS => {
                let index = LogIndex(reader.varint()?);
                let members = read_records(&mut reader)?;
                reader.done()?;
                Frame::Members { index, members }
            }
            HANDS_OVER => {
                let (to, reason) = (NodeId(reader.varint()?), TransferReason::numbered(reader.u8()?));
                reader.done()?;
                Frame::TransferAnnounced { to, reason: reason.ok_or(Malformed)? }
            }
            DIGESTS => {
                let points = Points::read(&mut reader)?;
                reader.done()?;
                Frame::Digests(points)
            }
            STATE_WANT => {
                let index = LogIndex(reader.varint()?);
                reader.done()?;
                Frame::StateWant { index }
            }
            LEVEL => {
                let level = u32::try_from(reader.varint()?).ok().and_then(Level::new);
                // Whatever else follows is of a later release; the first ones said nothing more than the level.
                let release = reader.text().unwrap_or_default();
                let plain = |text: &&str| {
                    text.len() <= RELEASE_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
                };
                let release = Some(release).filter(plain).unwrap_or_default().to_owned();
                Frame::Level { level: level.ok_or(Malformed)?, release }
            }
            SNAPSHOT_PART => {
                let term = Term(reader.varint()?);
                let (position, total) = (position(&mut reader)?, reader.varint()?);
                let crc = u32::try_from(reader.varint()?).map_err(|_| Malformed)?;
                let offset = reader.varint()?;
                let bytes = frame.slice_ref(reader.rest());
                let head = SnapshotHead { position, total, crc };
                Frame::SnapshotPart(SnapshotPart { term, head, offset, bytes })
            }
            SNAPSHOT_WANT => {
                let (last, offset) = (position(&mut reader)?, reader.varint()?);
                reader.done()?;
                Frame::SnapshotWant { last, offset }
            }
            _ => decode_message(kind, reader, frame)?,
        })
    }
}

/// A message to a witness.
#[derive(Debug, PartialEq)]
pub(crate) enum ToWitness {
    /// A message of the core.
    Core(Message),
    /// Who the members are, by a leader's log up to that index.
    Members(LogIndex, Vec<MemberRecord>),
    /// A message that is not for a witness.
    Other,
}

/// Decodes a frame from a peer to a witness.
pub(crate) fn decode_to_witness(frame: &Bytes) -> Result<ToWitness, Malformed> {
    Ok(match Frame::decode(frame)? {
        Frame::Raft { message, payloads } if payloads.is_empty() => ToWitness::Core(message),
        Frame::Members { index, members } => ToWitness::Members(index, members),
        _ => ToWitness::Other,
    })
}

/// Encodes a witness's answer. A witness has neither a clock nor an election timeout to announce.
pub(crate) fn encode_from_witness(message: Message) -> Bytes {
    match message.body {
        Body::HeartbeatAnswer { .. } => {
            Frame::HeartbeatAnswer(message, HeartbeatAnswerExtra::default()).encode()
        }
        _ => Frame::plain(message).encode(),
    }
}

fn encode_message(message: &Message, payloads: &[Bytes]) -> Vec<u8> {
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
        }
        Body::HeartbeatAnswer { round } => put_varint(&mut out, round),
    }
    out
}

fn decode_message(kind: u8, mut reader: Reader<'_>, frame: &Bytes) -> Result<Frame, Malformed> {
    let term = Term(reader.varint()?);
    let mut payloads = Vec::new();
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
            let body = Body::Heartbeat { commit: LogIndex(reader.varint()?), round: reader.varint()? };
            // A heartbeat that carries nothing beside itself is none.
            let heartbeat = heartbeat(&mut reader)?;
            reader.done()?;
            return Ok(Frame::Heartbeat(Message { term, body }, heartbeat));
        }
        HEARTBEAT_ANSWER => {
            let body = Body::HeartbeatAnswer { round: reader.varint()? };
            let answer = answer(&mut reader)?;
            reader.done()?;
            return Ok(Frame::HeartbeatAnswer(Message { term, body }, answer));
        }
        _ => return Err(Malformed),
    };
    reader.done()?;
    Ok(Frame::Raft { message: Message { term, body }, payloads })
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

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
