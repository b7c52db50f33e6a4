use super::super::heartbeat_wire::TIME_MS_MAX;
use super::*;
use crate::clock::{LeaderTime, Wall};
use proptest::prelude::*;
use tally_core::id::KeyHash;
use tally_core::raft::MemberRole;
use tally_core::time::{Duration, Instant, SiteTime};

fn records() -> impl Strategy<Value = (String, KeyHash, u8)> {
    ("[a-z0-9-]{1,32}", any::<[u8; 32]>().prop_map(KeyHash), 0u8..3)
}

/// Numbered in order, as they are told.
fn members(of: Vec<(String, KeyHash, u8)>) -> Vec<MemberRecord> {
    let role = |role| [MemberRole::Voter, MemberRole::Observer, MemberRole::Witness][usize::from(role)];
    let record = |(id, (name, key, kind)): (u64, (String, KeyHash, u8))| {
        let address = format!("10.0.0.{id}:7400");
        MemberRecord { id: NodeId(id), name, address, key, role: role(kind) }
    };
    (1..).zip(of).map(record).collect()
}

fn positions() -> impl Strategy<Value = Position> {
    any::<(u64, u64, u64)>().prop_map(|(index, term, subterm)| Position {
        index: LogIndex(index >> 1),
        term: Term(term),
        subterm: Subterm(subterm),
    })
}

fn walls() -> impl Strategy<Value = Wall> {
    any::<(u64, bool)>().prop_map(|(us, synced)| Wall { us, synced })
}

fn plain(body: Body) -> Frame {
    Frame::plain(Message { term: Term(7), body })
}

fn appends() -> impl Strategy<Value = Frame> {
    let payloads = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..5);
    (positions(), any::<u64>(), payloads).prop_map(|(previous, commit, payloads)| {
        let range = EntryRange {
            term: Term(3),
            subterm: Subterm(1),
            first: previous.index.next(),
            last: LogIndex(previous.index.0 + payloads.len() as u64),
        };
        let entries = (!payloads.is_empty()).then_some(range);
        let body = Body::Append { previous, entries, commit: LogIndex(commit) };
        let payloads = payloads.into_iter().map(Bytes::from).collect();
        Frame::Raft { message: Message { term: Term(9), body }, payloads }
    })
}

/// Raft's own messages without payloads.
fn plain_messages() -> impl Strategy<Value = Frame> {
    prop_oneof![
        positions().prop_map(|last| plain(Body::PreVote { last })),
        (positions(), any::<bool>()).prop_map(|(last, transfer)| plain(Body::Vote { last, transfer })),
        Just(plain(Body::TimeoutNow)),
        any::<bool>().prop_map(|granted| plain(Body::VoteAnswer { granted })),
        any::<bool>().prop_map(|granted| plain(Body::PreVoteAnswer { granted })),
        any::<(u64, u64)>().prop_map(|(matched, received)| {
            plain(Body::Appended { matched: LogIndex(matched), received: LogIndex(received) })
        }),
        (any::<u64>(), positions())
            .prop_map(|(previous, hint)| { plain(Body::Rejected { previous: LogIndex(previous), hint }) }),
    ]
}

fn witness_messages() -> impl Strategy<Value = Frame> {
    let nodes = prop::collection::btree_set(any::<u64>(), 0..=8);
    (any::<(u8, bool, u64, u64)>(), nodes).prop_map(|((which, flag, term, subterm), ids)| {
        let mut nodes = NodeSet::default();
        assert!(ids.into_iter().all(|id| nodes.insert(NodeId(id))));
        let (last_term, last_subterm) = (Term(term), Subterm(subterm));
        plain(match which % 4 {
            0 => Body::WitnessVote { pre: flag, last_term, last_subterm, votes: nodes },
            1 => Body::WitnessAppend { subterm: last_subterm, voters: nodes },
            2 => Body::WitnessAppended { subterm: last_subterm, taken: flag },
            _ => Body::WitnessPing { round: term },
        })
    })
}

fn heartbeats() -> impl Strategy<Value = Frame> {
    let told = (0..=TIME_MS_MAX, any::<bool>(), prop::option::of(1..=TIME_MS_MAX)).prop_map(
        |(site, synced, held)| LeaderTime { site: SiteTime(site), synced, held: held.map(SiteTime) },
    );
    (any::<([u64; 4], bool)>(), told, walls()).prop_map(|((numbers, asks_for_broker), told, wall)| {
        let [commit, round, sent, timeout] = numbers;
        let body = Body::Heartbeat { commit: LogIndex(commit), round };
        let (sent, timeout) = (Instant(sent), Duration(timeout));
        let extra = HeartbeatExtra { told, wall, sent, timeout, asks_for_broker };
        Frame::Heartbeat(Message { term: Term(7), body }, extra)
    })
}

fn heartbeat_answers() -> impl Strategy<Value = Frame> {
    (any::<[u64; 5]>(), any::<[Option<bool>; 2]>(), walls()).prop_map(|(numbers, [disk_ok, broker], wall)| {
        let [round, sent, sync, timeout, median] = numbers;
        let message = Message { term: Term(7), body: Body::HeartbeatAnswer { round } };
        let (sent, sync, timeout) = (Instant(sent), Duration(sync), Duration(timeout));
        let condition = Condition { disk_ok, broker, sync_median: Duration(median) };
        Frame::HeartbeatAnswer(message, HeartbeatAnswerExtra { wall, sent, sync, timeout, condition })
    })
}

/// What nodes say to each other beside Raft.
fn node_messages() -> impl Strategy<Value = Frame> {
    prop_oneof![
        prop::option::of(1..u64::MAX).prop_map(|to| Frame::Transfer { to: to.map(NodeId) }),
        (any::<u64>(), prop::sample::select(&TransferReason::ALL))
            .prop_map(|(to, reason)| Frame::TransferAnnounced { to: NodeId(to), reason }),
        (any::<u64>(), prop::collection::vec(records(), 0..4))
            .prop_map(|(index, of)| Frame::Members { index: LogIndex(index), members: members(of) }),
        prop::collection::vec(any::<u8>(), 0..99).prop_map(|body| Frame::Propose(body.into())),
        any::<u64>().prop_map(|id| Frame::ReadIndex { id }),
        (any::<u64>(), prop::option::of(0..u64::MAX))
            .prop_map(|(id, index)| Frame::ReadAnswer { id, index: index.map(LogIndex) }),
        (positions(), any::<u64>(), any::<u32>(), any::<u64>()).prop_map(|(position, total, crc, offset)| {
            let head = SnapshotHead { position, total, crc };
            let bytes = Bytes::from_static(b"part");
            Frame::SnapshotPart(SnapshotPart { term: Term(1), head, offset, bytes })
        }),
        (positions(), any::<u64>()).prop_map(|(last, offset)| Frame::SnapshotWant { last, offset }),
        any::<u64>().prop_map(|index| Frame::StateWant { index: LogIndex(index) }),
        prop::collection::vec(any::<(u64, u64)>(), 0..40)
            .prop_map(|pairs| Frame::Digests(Points::of(&pairs))),
    ]
}

fn messages() -> impl Strategy<Value = Frame> {
    prop_oneof![
        1 => appends(),
        7 => plain_messages(),
        4 => witness_messages(),
        1 => heartbeats(),
        1 => heartbeat_answers(),
        10 => node_messages(),
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

#[test]
fn a_time_that_no_entry_can_carry_is_malformed() {
    let message = Message { term: Term(1), body: Body::Heartbeat { commit: LogIndex(1), round: 1 } };
    for (site, held, is_fine) in
        [(TIME_MS_MAX, 1, true), (TIME_MS_MAX + 1, 1, false), (u64::MAX, 1, false), (1, u64::MAX, false)]
    {
        let told = LeaderTime { site: SiteTime(site), synced: true, held: Some(SiteTime(held)) };
        let (sent, timeout, asks_for_broker) = (Instant(1), Duration(1), false);
        let frame = Frame::Heartbeat(
            message,
            HeartbeatExtra { told, wall: Wall::default(), sent, timeout, asks_for_broker },
        );
        assert_eq!(Frame::decode(&frame.encode()).is_ok(), is_fine, "{site} {held}");
    }
}
