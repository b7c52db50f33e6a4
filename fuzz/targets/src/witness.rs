//! A witness: any messages to it, its record on disk, and its file.

use bytes::Bytes;
use tally_core::id::{NodeId, Subterm, Term};
use tally_core::raft::{Body, Message, NodeSet, Reaction, WITNESS_RECORD_BYTES, Witness, WitnessRecord};
use tallyd::node::wire::Frame;
use tallyd::witness::store;

use crate::input::{Input, put_part};

/// Bytes as they are, then bytes as a file of which only the checksums are made right, then messages to the
/// witness that the file makes.
pub(crate) fn run(bytes: &[u8]) {
    let _ = store::decode(bytes);
    let mut input = Input::new(bytes);
    let file = sealed(input.take(store::FILE_BYTES));
    let record = match store::decode(&file) {
        Ok((boot, writes, record)) => {
            let again = store::encode(boot, writes, &record);
            let back = store::decode(&again).expect("what it writes it reads");
            assert_eq!(back, (boot, writes, record));
            record
        }
        Err(_) => WitnessRecord::default(),
    };
    let mut witness: Witness = Witness::new(record);
    while !input.is_empty() {
        let (from, fate) = (NodeId(u64::from(input.byte())), input.byte());
        let frame = Bytes::copy_from_slice(input.part());
        let Ok(Frame::Raft { message, .. }) = Frame::decode(&frame) else { continue };
        step(&mut witness, from, &message, fate);
    }
}

fn step(witness: &mut Witness, from: NodeId, message: &Message, fate: u8) {
    let before = *witness.record();
    match witness.handle(from, message) {
        Err(_) | Ok(Reaction::Answer(_)) => assert_eq!(*witness.record(), before, "nothing was stored"),
        Ok(Reaction::Store(next)) => {
            assert_eq!(*witness.record(), before, "it is not stored yet");
            never_takes_back(&before, &next);
            let back = WitnessRecord::decode(&next.encode());
            assert_eq!(back, Ok(next), "what it is to store it must be able to read");
            if fate & 1 == 0 {
                let (to, answer) = witness.stored().expect("an answer is owed");
                assert_eq!(to, from);
                assert!(answer.is_plausible(), "{answer:?}");
                assert_eq!(*witness.record(), next);
            } else {
                witness.not_stored();
                assert_eq!(*witness.record(), before);
            }
        }
    }
}

/// A vote is given once a term, and what was counted for is replaced by what is newer only.
fn never_takes_back(before: &WitnessRecord, next: &WitnessRecord) {
    assert!(next.term >= before.term, "the term went back");
    if next.term == before.term && before.vote.is_some() {
        assert_eq!(next.vote, before.vote, "a second vote in a term");
    }
    let key = |record: &WitnessRecord| (record.last_term, record.last_subterm);
    assert!(key(next) >= key(before), "an older set");
    if key(next) == key(before) {
        assert_eq!(next.voters, before.voters, "another set in the same subterm");
    }
}

/// The same with checksums that fit.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut file = bytes.to_vec();
    file.resize(store::FILE_BYTES, 0);
    let head = store::FILE_BYTES - WITNESS_RECORD_BYTES;
    for (from, to) in [(0, head), (head, store::FILE_BYTES)] {
        let crc = crc32c::crc32c(&file[from..to - 4]);
        file[to - 4..to].copy_from_slice(&crc.to_le_bytes());
    }
    file
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut voters = NodeSet::default();
    voters.insert(NodeId(1));
    voters.insert(NodeId(2));
    let record = WitnessRecord {
        term: Term(4),
        vote: Some(NodeId(1)),
        last_term: Term(3),
        last_subterm: Subterm(2),
        voters,
    };
    let bodies = |term: u64| {
        [
            Body::WitnessVote {
                pre: true,
                last_term: Term(term - 1),
                last_subterm: Subterm(2),
                votes: voters,
            },
            Body::WitnessVote {
                pre: false,
                last_term: Term(term - 1),
                last_subterm: Subterm(2),
                votes: voters,
            },
            Body::WitnessAppend { subterm: Subterm(1), voters },
            Body::WitnessPing { round: 9 },
        ]
        .map(|body| Message { term: Term(term), body })
    };
    let say = |out: &mut Vec<u8>, from: u8, fate: u8, message: Message| {
        out.extend_from_slice(&[from, fate]);
        put_part(out, &Frame::plain(message).encode());
    };
    let conversation = |record: &WitnessRecord, fate: u8| {
        let mut out = store::encode(3, 7, record).to_vec();
        for (from, term) in [(1, 5), (2, 5), (2, 6), (1, 4)] {
            bodies(term).into_iter().for_each(|message| say(&mut out, from, fate, message));
        }
        out
    };
    vec![
        store::encode(3, 7, &record).to_vec(),
        conversation(&record, 0),
        conversation(&record, 1),
        conversation(&WitnessRecord::default(), 0),
    ]
}
