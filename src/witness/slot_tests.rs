use super::*;
use crate::node::{ToWitness, decode_to_witness, encode_from_witness};
use tally_core::id::{KeyHash, LogIndex, Subterm, Term};
use tally_core::raft::{Body, MemberRole, Message, NodeSet};

const BOX: NodeId = NodeId(1);

/// A slot with an identity of its own, whose site does not run.
async fn slot(dir: &Path) -> Slot {
    let mut identity = Identity::found_single(dir, "plant7", "w", "").unwrap();
    let mut me = identity.members[0].clone();
    (me.id, me.role, me.address) = (NodeId(3), MemberRole::Witness, "127.0.0.1:9".to_owned());
    let peer = |id: u64| MemberRecord {
        id: NodeId(id),
        name: format!("box{id}"),
        address: String::new(),
        role: MemberRole::Voter,
        key: key(id),
    };
    (identity.node, identity.members) = (3, vec![peer(1), peer(2), me]);
    Slot::open(dir, identity, SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap()
}

fn key(id: u64) -> KeyHash {
    KeyHash([id as u8; 32])
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn vote(term: u64) -> Bytes {
    let mut votes = NodeSet::default();
    votes.insert(BOX);
    let body = Body::WitnessVote { pre: false, last_term: Term(term - 1), last_subterm: Subterm(0), votes };
    encode_from_witness(Message { term: Term(term), body })
}

#[test]
fn nothing_is_answered_that_the_disk_did_not_take() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut slot = slot(dir.path()).await;
        let in_the_way = dir.path().join("witness.state.new");
        std::fs::create_dir(&in_the_way).unwrap();
        assert_eq!(slot.take(BOX, &vote(5)).await, None);
        assert_eq!((slot.shared.failures.get(), slot.shared.view().writes), (1, 0));
        assert!(slot.shared.view().trouble.is_some());
        std::fs::remove_dir(in_the_way).unwrap();
        let answer = Message { term: Term(5), body: Body::VoteAnswer { granted: true } };
        assert_eq!(slot.take(BOX, &vote(5)).await, Some((BOX, encode_from_witness(answer))));
        // The same again costs no write.
        assert_eq!(slot.take(BOX, &vote(5)).await, Some((BOX, encode_from_witness(answer))));
        let view = slot.shared.view().clone();
        assert_eq!((view.writes, view.record.term, view.trouble), (1, Term(5), None));
    });
}

#[test]
fn what_is_not_for_a_witness_is_ignored_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut slot = slot(dir.path()).await;
        for garbage in [&b""[..], b"\xff", b"\x0b", b"\x0c\x80\x80"] {
            assert_eq!(slot.take(BOX, &Bytes::from_static(garbage)).await, None);
        }
        assert_eq!(slot.shared.dropped.sum(true), 4);
        let to_a_box = Message { term: Term(9), body: Body::TimeoutNow };
        assert_eq!(slot.take(BOX, &encode_from_witness(to_a_box)).await, None);
        assert_eq!(slot.take(BOX, &Bytes::from_static(b"\x11\x05")).await, None, "a request to read");
        assert_eq!((slot.shared.dropped.sum(false), slot.shared.view().writes), (2, 0));
    });
}

#[test]
fn a_ping_is_answered_as_boxes_read_it_and_costs_no_write() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut slot = slot(dir.path()).await;
        let ping = Message { term: Term(4), body: Body::WitnessPing { round: 7 } };
        let (to, answer) = slot.take(BOX, &encode_from_witness(ping)).await.unwrap();
        let pong = Message { term: Term(4), body: Body::HeartbeatAnswer { round: 7 } };
        assert_eq!((to, &answer), (BOX, &encode_from_witness(pong)));
        // A box takes it for the answer to a heartbeat, clock and all.
        assert_eq!(decode_to_witness(&answer), Ok(ToWitness::Other));
        assert_eq!(slot.shared.view().writes, 0);
    });
}

#[test]
fn members_are_learnt_from_a_leader_and_an_older_list_undoes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut slot = slot(dir.path()).await;
        let record = |id: u64, name: &str, key, role| MemberRecord {
            id: NodeId(id),
            name: name.to_owned(),
            address: format!("127.0.0.1:{id}"),
            key,
            role,
        };
        use MemberRole::{Voter, Witness};
        let own = slot.shared.identity.me().key;
        let boxes = |ids: &[u64]| -> Vec<MemberRecord> {
            let boxes = ids.iter().map(|id| record(*id, &format!("box{id}"), key(*id), Voter));
            boxes.chain([record(3, "w", own, Witness)]).collect()
        };
        async fn hear(slot: &mut Slot, index: LogIndex, members: Vec<MemberRecord>) {
            let mut members = members;
            members.sort_by_key(|member| member.id);
            let frame = crate::node::wire::Frame::Members { index, members }.encode();
            assert_eq!(slot.take(BOX, &frame).await, None);
        }
        let names = |slot: &Slot| -> Vec<String> {
            slot.shared.members().iter().map(|member| member.name.clone()).collect()
        };
        hear(&mut slot, LogIndex(9), boxes(&[1, 4])).await;
        assert_eq!(names(&slot), ["box1", "w", "box4"]);
        let kept = Identity::load(dir.path()).unwrap().unwrap();
        assert_eq!((&kept.members, kept.me()), (&*slot.shared.members(), slot.shared.identity.me()));
        // Of a leader that was cut off; without this witness; under another key: nothing of it is taken.
        hear(&mut slot, LogIndex(8), boxes(&[1, 2])).await;
        hear(&mut slot, LogIndex(10), boxes(&[1, 2])[..2].to_vec()).await;
        let other = [record(1, "box1", key(1), Voter), record(3, "w", key(7), Witness)];
        hear(&mut slot, LogIndex(11), other.to_vec()).await;
        assert_eq!((names(&slot).len(), slot.shared.dropped.sum(false)), (3, 3));
        assert!(slot.shared.transport.peers().iter().any(|peer| peer.name == "box4"));
    });
}
