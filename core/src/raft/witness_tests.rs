use super::*;
use crate::id::LogIndex;
use proptest::prelude::*;

fn set(ids: &[u64]) -> NodeSet {
    let mut set = NodeSet::default();
    assert!(ids.iter().all(|id| set.insert(NodeId(*id))));
    set
}

fn key(term: u64, subterm: u64) -> (Term, Subterm) {
    (Term(term), Subterm(subterm))
}

fn vote(term: u64, last: (Term, Subterm), votes: &[u64]) -> Message {
    let body = Body::WitnessVote { pre: false, last_term: last.0, last_subterm: last.1, votes: set(votes) };
    Message { term: Term(term), body }
}

fn append(term: u64, subterm: u64, voters: &[u64]) -> Message {
    Message { term: Term(term), body: Body::WitnessAppend { subterm: Subterm(subterm), voters: set(voters) } }
}

fn answer(term: u64, body: Body) -> Result<Reaction, Ignored> {
    Ok(Reaction::Answer(Message { term: Term(term), body }))
}

fn appended(subterm: u64, taken: bool) -> Body {
    Body::WitnessAppended { subterm: Subterm(subterm), taken }
}

/// In term 4 it counted for 1 and 2, in subterm 1; it voted for 1 in term 3.
fn record() -> WitnessRecord {
    WitnessRecord {
        term: Term(4),
        vote: Some(NodeId(1)),
        last_term: Term(4),
        last_subterm: Subterm(1),
        voters: set(&[1, 2]),
    }
}

fn witness() -> Witness {
    Witness::new(record())
}

/// What it answers after it stored, or at once; and whether it stored.
fn ask(witness: &mut Witness, from: u64, message: &Message) -> (Body, bool) {
    match witness.handle(NodeId(from), message).unwrap() {
        Reaction::Answer(message) => (message.body, false),
        Reaction::Store(record) => {
            let (to, message) = witness.stored().unwrap();
            assert_eq!((to.0, *witness.record()), (from, record));
            (message.body, true)
        }
    }
}

#[test]
fn a_term_that_nobody_can_have_come_to_is_refused() {
    let furthest = record().term.0 + super::super::message::TERMS_AHEAD_MAX;
    let ask = |term| witness().handle(NodeId(1), &vote(term, key(4, 1), &[1, 2]));
    assert_eq!(ask(furthest + 1), Err(Ignored::Malformed));
    assert!(matches!(ask(furthest), Ok(Reaction::Store(_))));
}

#[test]
fn an_answer_comes_only_when_the_record_is_durable() {
    let mut witness = witness();
    let ask = vote(5, key(4, 2), &[1]);
    let stored = WitnessRecord { term: Term(5), vote: Some(NodeId(1)), ..record() };
    assert_eq!(witness.handle(NodeId(1), &ask), Ok(Reaction::Store(stored)));
    assert_eq!(*witness.record(), record());
    assert_eq!(witness.handle(NodeId(2), &vote(6, key(5, 0), &[2])), Err(Ignored::Busy));
    let granted = Message { term: Term(5), body: Body::VoteAnswer { granted: true } };
    assert_eq!(witness.stored(), Some((NodeId(1), granted)));
    assert_eq!((witness.stored(), *witness.record()), (None, stored));
    assert_eq!(witness.handle(NodeId(1), &ask), answer(5, granted.body), "again, without a write");
}

#[test]
fn what_could_not_be_stored_was_never_promised() {
    let mut witness = witness();
    let _ = witness.handle(NodeId(1), &vote(5, key(4, 2), &[1])).unwrap();
    witness.not_stored();
    assert_eq!((witness.stored(), *witness.record()), (None, record()));
    assert_eq!(ask(&mut witness, 2, &vote(5, key(4, 2), &[2])), (Body::VoteAnswer { granted: true }, true));
}

#[test]
fn a_vote_is_granted_by_term_subterm_and_who_voted_already() {
    for (last, votes, granted) in [
        (key(5, 0), &[3, 4][..], true),
        (key(4, 2), &[3, 4], true),
        (key(4, 1), &[1, 2], true),
        (key(4, 1), &[2], true),
        (key(4, 1), &[1, 3], false),
        (key(4, 0), &[1, 2], false),
        (key(3, 9), &[1, 2], false),
    ] {
        let mut witness = witness();
        let real = ask(&mut witness, 2, &vote(7, last, votes));
        assert_eq!(real, (Body::VoteAnswer { granted }, granted), "{last:?} {votes:?}");
        if !granted {
            assert_eq!(*witness.record(), record(), "a refusal promises nothing");
        }
    }
}

#[test]
fn one_vote_a_term() {
    let mut witness = witness();
    assert_eq!(ask(&mut witness, 2, &vote(4, key(4, 2), &[2])), (Body::VoteAnswer { granted: false }, false));
    assert_eq!(ask(&mut witness, 1, &vote(4, key(4, 2), &[1])), (Body::VoteAnswer { granted: true }, false));
    assert_eq!(ask(&mut witness, 2, &vote(3, key(3, 2), &[2])), (Body::VoteAnswer { granted: false }, false));
    assert_eq!(ask(&mut witness, 2, &vote(5, key(4, 2), &[2])), (Body::VoteAnswer { granted: true }, true));
    assert_eq!(ask(&mut witness, 1, &vote(5, key(4, 2), &[1])), (Body::VoteAnswer { granted: false }, false));
}

#[test]
fn a_pre_vote_is_answered_by_the_same_rule_and_writes_nothing() {
    for (term, from, last, granted, answered) in [
        (5, 2, key(4, 1), true, 5),
        (4, 2, key(4, 2), false, 4),
        (4, 1, key(4, 2), true, 4),
        (5, 2, key(4, 0), false, 4),
        (9, 2, key(4, 0), false, 8),
    ] {
        let mut witness = witness();
        let Body::WitnessVote { last_term, last_subterm, votes, .. } = vote(term, last, &[2]).body else {
            panic!("it is a vote")
        };
        let body = Body::WitnessVote { pre: true, last_term, last_subterm, votes };
        let message = Message { term: Term(term), body };
        assert_eq!(witness.handle(NodeId(from), &message), answer(answered, Body::PreVoteAnswer { granted }));
        assert_eq!(*witness.record(), record());
    }
}

#[test]
fn a_record_is_taken_if_it_is_newer_and_acknowledged_if_it_is_the_same() {
    for (term, subterm, voters, taken, written) in [
        (4, 2, &[1, 3][..], true, true),
        (5, 0, &[1, 3], true, true),
        (4, 1, &[1, 2], true, false),
        (4, 1, &[1, 3], false, false),
        (4, 0, &[1, 3], false, false),
        (3, 7, &[1, 3], false, false),
    ] {
        let mut witness = witness();
        let got = ask(&mut witness, 1, &append(term, subterm, voters));
        assert_eq!(got, (appended(subterm, taken), written), "{term} {subterm}");
        if written {
            let vote = (term == 4).then_some(NodeId(1));
            let (last_term, last_subterm) = key(term, subterm);
            let expected =
                WitnessRecord { term: Term(term), vote, last_term, last_subterm, voters: set(voters) };
            assert_eq!(*witness.record(), expected);
        }
    }
    // Whom an older leader asks tells it that it is old.
    assert_eq!(witness().handle(NodeId(1), &append(3, 7, &[1])), answer(4, appended(7, false)));
}

#[test]
fn a_ping_is_answered_without_a_write_and_not_confirmed_to_an_older_leader() {
    let ping = |term| Message { term: Term(term), body: Body::WitnessPing { round: 8 } };
    assert_eq!(witness().handle(NodeId(1), &ping(4)), answer(4, Body::HeartbeatAnswer { round: 8 }));
    assert_eq!(witness().handle(NodeId(1), &ping(6)), answer(6, Body::HeartbeatAnswer { round: 8 }));
    assert_eq!(witness().handle(NodeId(1), &ping(3)), answer(4, Body::HeartbeatAnswer { round: 0 }));
}

#[test]
fn what_is_not_for_a_witness_is_ignored() {
    let mut witness = witness();
    let heartbeat = Message { term: Term(9), body: Body::Heartbeat { commit: LogIndex(1), round: 1 } };
    assert_eq!(witness.handle(NodeId(1), &heartbeat), Err(Ignored::NotAwaited));
    assert_eq!(witness.handle(NodeId(1), &vote(0, key(0, 0), &[1])), Err(Ignored::Malformed));
    assert_eq!(witness.handle(NodeId(1), &vote(5, key(6, 0), &[1])), Err(Ignored::Malformed));
}

#[test]
fn a_record_fits_in_128_bytes_and_is_as_documented() {
    const { assert!(WITNESS_RECORD_BYTES <= 128) };
    let bytes = record().encode();
    assert_eq!(bytes[..4], [1, 1, 2, 0]);
    assert_eq!(
        bytes[4..36],
        [
            [4u8, 0, 0, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 0, 0, 0, 0],
            [4, 0, 0, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 0, 0, 0, 0]
        ]
        .concat()
    );
    assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of CRC-32C");
    let mut other = bytes;
    other[0] = 2;
    let checksum = crc32c(&other[..WITNESS_RECORD_BYTES - 4]).to_le_bytes();
    other[WITNESS_RECORD_BYTES - 4..].copy_from_slice(&checksum);
    assert_eq!(WitnessRecord::decode(&other), Err(RecordError::Version(2)));
}

proptest! {
    #[test]
    fn every_record_comes_back_and_no_damaged_one_does(
        (term, back, subterm) in (0u64..1 << 40, 0u64..100, any::<u64>()),
        vote in proptest::option::of(any::<u64>()),
        ids in proptest::collection::btree_set(any::<u64>(), 0..=8),
        (place, bit) in (0usize..WITNESS_RECORD_BYTES, 0u32..8),
    ) {
        let mut voters = NodeSet::default();
        prop_assert!(ids.iter().all(|id| voters.insert(NodeId(*id))));
        let last_term = Term(term.saturating_sub(back));
        let record = WitnessRecord {
            term: Term(term), vote: vote.map(NodeId), last_term, last_subterm: Subterm(subterm), voters,
        };
        let mut bytes = record.encode();
        prop_assert_eq!(WitnessRecord::decode(&bytes), Ok(record));
        bytes[place] ^= 1 << bit;
        prop_assert_eq!(WitnessRecord::decode(&bytes), Err(RecordError::Checksum));
    }
}
