//! A member's core, and peers that say anything at any time: the messages go through the decoder, as from the network,
//! and between them time passes, the disk works or fails, the operator has wishes and the power goes.

mod node;

use bytes::Bytes;
use tally_core::id::{LogIndex, NodeId, Subterm, Term};
use tally_core::raft::{
    Body, Change, Configuration, EntryRange, Leave, Member, MemberRole, Message, NodeSet, Position,
};
use tally_core::time::{Duration, Instant};
use tallyd::clock::Wall;
use tallyd::node::wire::{Frame, HeartbeatAnswerExtra, HeartbeatExtra, SnapshotPart};
use tallyd::node::{Incoming, Taken, configuration_in};
use tallyd::storage::SnapshotHead;

use crate::input::{Input, put_part};
use node::Node;

const STEPS_MAX: usize = 200;

/// The last one of them that a byte can be.
const MESSAGE: u8 = 0;
const TIME: u8 = 1;
const WRITTEN: u8 = 2;
const FAILED: u8 = 3;
const PROPOSE: u8 = 4;
const WISH: u8 = 5;
const COMPACT: u8 = 6;
const CRASH: u8 = 7;

/// The first byte chooses who is in the group.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut node = Node::new(group(input.byte()));
    let mut incoming = None;
    node.step();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            return;
        }
        match input.byte() % 8 {
            MESSAGE => {
                let from = NodeId(u64::from(input.byte() % 8));
                let frame = Bytes::copy_from_slice(input.part());
                if let Ok(frame) = Frame::decode(&frame) {
                    on_frame(&mut node, &mut incoming, from, frame);
                }
            }
            TIME => node.pass(input.u16() % 2048),
            WRITTEN => node.finish_write(),
            FAILED => node.fail_write(input.byte() & 1 == 1),
            PROPOSE => {
                let now = node.now;
                let entries = u64::from(input.byte() % 4);
                if let Ok(range) = node.core.propose(now, entries, entries * 10) {
                    node.put_own(&range, None);
                }
            }
            WISH => wish(&mut node, input.byte()),
            COMPACT => node.compact(u64::from(input.byte() % 4)),
            _ => node.crash(input.byte() & 1 == 1),
        }
        node.step();
    }
}

fn group(choice: u8) -> Configuration {
    use MemberRole::{Observer, Voter, Witness};
    let members: &[(u64, MemberRole)] = match choice % 6 {
        0 => &[(1, Voter), (2, Voter), (3, Voter)],
        1 => &[(1, Voter), (2, Voter), (3, Witness)],
        2 => &[(1, Voter)],
        3 => &[(2, Voter), (3, Voter), (1, Observer)],
        4 => &[(1, Voter), (2, Voter), (3, Voter), (4, Voter), (5, Witness), (6, Observer)],
        _ => return Configuration::EMPTY,
    };
    let members: Vec<Member> = members.iter().map(|&(id, role)| Member { id: NodeId(id), role }).collect();
    Configuration::new(&members).expect("a configuration")
}

fn on_frame(node: &mut Node, incoming: &mut Option<Incoming>, from: NodeId, frame: Frame) {
    match frame {
        Frame::Raft { message, payloads } => {
            let Ok(held) = payloads.first().and_then(configuration_in).transpose() else {
                return;
            };
            node.receive(from, &message, &payloads, held);
        }
        Frame::Heartbeat(message, _) | Frame::HeartbeatAnswer(message, _) => {
            node.receive(from, &message, &[], None)
        }
        Frame::ReadIndex { .. } => {
            let now = node.now;
            let _ = node.core.read_index(now);
            node.core.request_heartbeat(from);
        }
        Frame::Transfer { to } => {
            let (now, best) = (node.now, node.core.successor());
            if let Some(to) = to.or(best) {
                let _ = node.core.transfer(now, to);
            }
        }
        Frame::SnapshotPart(part) => on_part(node, incoming, from, &part),
        _ => {}
    }
}

fn on_part(node: &mut Node, incoming: &mut Option<Incoming>, from: NodeId, part: &SnapshotPart) {
    let message = |term, head: SnapshotHead| Message { term, body: Body::Snapshot { last: head.position } };
    if part.bytes.is_empty() && part.head.position.index <= node.core.commit_index() {
        return node.receive(from, &message(part.term, part.head), &[], None);
    }
    if Incoming::take(incoming, from, part) == Taken::Whole
        && let Some(whole) = incoming.take()
    {
        assert_eq!(whole.bytes.len() as u64, whole.head.total);
        let held = whole.bytes.first().map(|choice| group(*choice)).filter(|group| !group.is_empty());
        node.receive(whole.from, &message(whole.term, whole.head), &[], held);
    }
    assert!(incoming.as_ref().is_none_or(|incoming| incoming.bytes.len() as u64 <= incoming.head.total));
}

/// What operators and the driver ask for.
fn wish(node: &mut Node, what: u8) {
    let (now, id) = (node.now, NodeId(u64::from(what >> 4)));
    let change = match what % 16 {
        0 => Change::AddObserver(id),
        1 => Change::Promote(id),
        2 => Change::Demote(id),
        3 => Change::Remove(id),
        4 => Change::AddWitness(id),
        5 => {
            if let Ok((range, held)) = node.core.leave_joint(now) {
                node.put_own(&range, Some(held));
            }
            return;
        }
        6 => return node.core.resign(now),
        7 => return node.core.forget_leader(now),
        8 => return node.core.snapshot_lost(id),
        9 => {
            let timeouts = (Duration(100_000 << (what >> 4)), Duration(20_000));
            return node.core.set_timeouts(now, timeouts.0, timeouts.1).expect("timeouts in order");
        }
        _ => {
            let _ = node.core.transfer(now, id);
            return;
        }
    };
    let leave = if what & 0x80 == 0 { Leave::ByItself } else { Leave::WhenAsked };
    if let Ok((range, held)) = node.core.change_membership(now, &[change], leave) {
        node.put_own(&range, Some(held));
    }
}

/// A script as the fuzzer's bytes.
struct Script(Vec<u8>);

impl Script {
    fn of(group: u8) -> Script {
        Script(vec![group])
    }

    fn does(mut self, bytes: &[u8]) -> Script {
        self.0.extend_from_slice(bytes);
        self
    }

    fn passes(self, ms: u16) -> Script {
        let [low, high] = ms.to_le_bytes();
        self.does(&[TIME, low, high, WRITTEN])
    }

    fn hears(mut self, from: u8, frame: &Frame) -> Script {
        self.0.extend_from_slice(&[MESSAGE, from]);
        put_part(&mut self.0, &frame.encode());
        self.does(&[WRITTEN])
    }

    fn told(self, from: u8, term: u64, body: Body) -> Script {
        let message = Message { term: Term(term), body };
        let frame = match body {
            Body::Heartbeat { .. } => {
                let (told, wall) = (Default::default(), Wall::default());
                let (sent, timeout) = (Instant(1), Duration(200_000));
                Frame::Heartbeat(
                    message,
                    HeartbeatExtra { told, wall, sent, timeout, asks_for_broker: false },
                )
            }
            Body::HeartbeatAnswer { .. } => Frame::HeartbeatAnswer(message, HeartbeatAnswerExtra::default()),
            _ => Frame::plain(message),
        };
        self.hears(from, &frame)
    }

    /// Elected in this term, by these.
    fn leads(self, term: u64, voters: &[u8]) -> Script {
        let script = self.passes(1000);
        let asked =
            |script: Script, body| voters.iter().fold(script, |script, &from| script.told(from, term, body));
        let script = asked(script, Body::PreVoteAnswer { granted: true });
        asked(script, Body::VoteAnswer { granted: true })
    }

    fn acknowledged(self, from: u8, term: u64, index: u64) -> Script {
        self.told(from, term, Body::Appended { matched: LogIndex(index), received: LogIndex(index) })
    }
}

fn at(index: u64, term: u64, subterm: u64) -> Position {
    Position { index: LogIndex(index), term: Term(term), subterm: Subterm(subterm) }
}

fn append(term: u64, previous: Position, of: (u64, u64), count: u64, commit: u64) -> Frame {
    let (first, last) = (previous.index.next(), LogIndex(previous.index.0 + count));
    let range = EntryRange { term: Term(of.0), subterm: Subterm(of.1), first, last };
    let entries = (count > 0).then_some(range);
    let body = Body::Append { previous, entries, commit: LogIndex(commit) };
    let payloads = (0..count).map(|_| Bytes::from_static(&[0, 7])).collect();
    Frame::Raft { message: Message { term: Term(term), body }, payloads }
}

fn snapshot(term: u64, position: Position) -> [Frame; 2] {
    let bytes = Bytes::from_static(&[4, 1, 2, 3]);
    let head = SnapshotHead { position, total: bytes.len() as u64, crc: crc32c::crc32c(&bytes) };
    let part = |bytes| Frame::SnapshotPart(SnapshotPart { term: Term(term), head, offset: 0, bytes });
    [part(Bytes::new()), part(bytes)]
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let leader = Script::of(0).leads(1, &[2]).acknowledged(2, 1, 1).does(&[PROPOSE, 3]).acknowledged(2, 1, 3);
    let changes = Script::of(0)
        .leads(1, &[2])
        .acknowledged(2, 1, 1)
        .does(&[WISH, 0x40])
        .acknowledged(2, 1, 2)
        .acknowledged(4, 1, 2)
        .does(&[WISH, 0x41])
        .acknowledged(2, 1, 3)
        .passes(60)
        .does(&[WISH, 0x33, WISH, 5, COMPACT, 1]);
    let follower = Script::of(0)
        .hears(2, &append(1, Position::ZERO, (1, 1), 2, 1))
        .told(2, 1, Body::Heartbeat { commit: LogIndex(2), round: 1 })
        .hears(3, &append(2, at(2, 1, 1), (2, 1), 1, 2))
        .hears(3, &append(2, at(9, 2, 1), (2, 1), 1, 2))
        .does(&[FAILED, 1, COMPACT, 0, CRASH, 1])
        .told(2, 3, Body::Vote { last: at(3, 2, 1), transfer: true });
    let [offer, part] = snapshot(3, at(40, 3, 1));
    let behind =
        Script::of(3).hears(2, &offer).hears(2, &part).hears(2, &append(3, at(40, 3, 1), (3, 1), 2, 41));
    let mut voters = NodeSet::default();
    voters.insert(NodeId(1));
    let witness = Script::of(1)
        .leads(1, &[2])
        .acknowledged(2, 1, 1)
        .passes(1500)
        .leads(2, &[3])
        .does(&[PROPOSE, 1])
        .told(3, 2, Body::WitnessAppended { subterm: Subterm(1), taken: true })
        .told(3, 2, Body::HeartbeatAnswer { round: 3 })
        .acknowledged(2, 2, 3);
    let transferred = Script::of(4)
        .leads(1, &[2, 3, 4])
        .acknowledged(2, 1, 1)
        .acknowledged(3, 1, 1)
        .acknowledged(4, 1, 1)
        .does(&[WISH, 0x2a])
        .told(2, 2, Body::TimeoutNow)
        .told(2, 2, Body::Vote { last: at(1, 1, 1), transfer: true });
    let alone =
        Script::of(2).passes(1).does(&[PROPOSE, 2, WRITTEN, WISH, 0x40, WRITTEN, COMPACT, 0, CRASH, 1]);
    let stranger =
        Script::of(5).hears(2, &append(1, Position::ZERO, (1, 1), 2, 1)).told(3, 9, Body::TimeoutNow);
    let scripts = [leader, changes, follower, behind, witness, transferred, alone, stranger];
    let mut seeds: Vec<Vec<u8>> = scripts.into_iter().map(|script| script.0).collect();
    let each = crate::frames::samples();
    seeds.push(each.iter().fold(Script::of(0), |script, frame| script.hears(2, frame)).0);
    seeds.push(each.iter().fold(Script::of(0).leads(4, &[2, 3]), |script, frame| script.hears(2, frame)).0);
    seeds
}
