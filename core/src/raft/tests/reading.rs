use super::super::harness::*;
use super::super::*;
use crate::id::LogIndex;

fn read(net: &mut Net, id: u64) -> Result<Read, ReadError> {
    let now = net.now;
    net.raft(id).read_index(now)
}

#[test]
fn a_read_is_confirmed_by_a_majority_that_was_asked_after_it() {
    let net = &mut Net::elect(3, 0);
    let read = read(net, 1).unwrap();
    assert_eq!(read.index, LogIndex(1));
    assert!(net.raft(1).read_confirmed() < read.round);
    net.settle();
    assert_eq!(net.raft(1).read_confirmed(), read.round);
}

#[test]
fn an_answer_to_a_heartbeat_from_before_the_read_confirms_nothing() {
    let net = &mut Net::elect(3, 0);
    let first = read(net, 1).unwrap();
    net.drive(1);
    // The heartbeats of the first round have left when the second read comes.
    let second = read(net, 1).unwrap();
    assert!(second.round > first.round);
    let answer = Body::HeartbeatAnswer { round: first.round };
    net.tell(2, 1, 1, answer);
    assert_eq!(net.raft(1).read_confirmed(), first.round);
    net.settle();
    assert_eq!(net.raft(1).read_confirmed(), second.round);
}

#[test]
fn reads_share_a_round() {
    let net = &mut Net::elect(3, 0);
    let rounds: std::vec::Vec<u64> = (0..10).map(|_| read(net, 1).unwrap().round).collect();
    assert!(rounds.iter().all(|round| *round == rounds[0]));
    net.drive(1);
    assert_eq!(net.wire.len(), 2, "one heartbeat to each");
}

#[test]
fn no_read_before_an_entry_of_the_own_term_is_committed() {
    let net = &mut Net::new(3, 0);
    net.lose = |sent| matches!(sent.message.body, Body::Appended { .. });
    net.campaign(1);
    assert_eq!(net.raft(1).role(), Role::Leader);
    assert_eq!(read(net, 1), Err(ReadError::TooEarly));
    assert_eq!(read(net, 2), Err(ReadError::NotLeader));
    net.heal();
    net.pass(3 * TIMEOUT);
    assert!(read(net, 1).is_ok());
}

#[test]
fn a_deposed_leader_confirms_no_read() {
    let net = &mut Net::elect(3, 0);
    net.cut_off(1);
    let lost = read(net, 1).unwrap();
    net.campaign(2);
    assert_eq!(net.leader(), Some(2));
    net.settle();
    assert!(net.raft(1).read_confirmed() < lost.round);
    net.heal();
    net.pass(3 * TIMEOUT);
    assert!(net.node(1).events.contains(&Event::SteppedDown { term: Term(1) }));
    assert!(net.raft(1).read_confirmed() < lost.round);
    // Should it lead again, its new rounds have other numbers.
    net.campaign(1);
    net.pass(TIMEOUT);
    if net.leader() == Some(1) {
        assert!(read(net, 1).unwrap().round > lost.round);
    }
}

#[test]
fn the_only_voter_confirms_at_once_whatever_its_observers_do() {
    for observers in [0, 2] {
        let net = &mut Net::new(1, observers);
        net.settle();
        for _ in 0..3 {
            let read = read(net, 1).unwrap();
            assert_eq!(net.raft(1).read_confirmed(), read.round);
            net.drive(1);
        }
    }
}

#[test]
fn a_round_whose_heartbeats_are_lost_is_repeated() {
    let net = &mut Net::elect(3, 0);
    net.lose = |_| true;
    let read = read(net, 1).unwrap();
    net.drive(1);
    net.heal();
    net.pass(HEARTBEAT);
    assert!(net.raft(1).read_confirmed() >= read.round);
}

#[test]
fn an_answer_to_a_round_that_never_was_is_ignored() {
    let net = &mut Net::elect(3, 0);
    assert_eq!(net.say(2, 1, 1, Body::HeartbeatAnswer { round: 1 << 40 }), Err(Ignored::Malformed));
    assert_eq!(net.say(1, 2, 1, Body::HeartbeatAnswer { round: 1 }), Err(Ignored::NotAwaited));
}
