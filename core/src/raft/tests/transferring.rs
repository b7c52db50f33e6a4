use super::super::harness::*;
use super::super::*;
use crate::id::LogIndex;

fn transfer(net: &mut Net, from: u64, to: u64) -> Result<(), TransferError> {
    let now = net.now;
    net.raft(from).transfer(now, NodeId(to))
}

fn calm(voters: u64, observers: u64) -> Net {
    let mut net = Net::elect(voters, observers);
    net.pass(2 * HEARTBEAT);
    net
}

#[test]
fn leadership_goes_to_the_voter_that_is_named_at_once() {
    let net = &mut calm(3, 0);
    assert!(net.raft(1).successor().is_some());
    transfer(net, 1, 3).unwrap();
    assert_eq!(net.raft(1).status().transfer, Some(NodeId(3)));
    net.drive(1);
    assert_eq!(net.sent(1, 3), [Body::TimeoutNow]);
    net.tell(1, 3, 1, Body::TimeoutNow);
    let asked = Body::Vote { last: at(1, 1), transfer: true };
    assert_eq!((net.sent(3, 1), net.sent(3, 2)), (std::vec![asked], std::vec![asked]), "no pre-vote");
    net.tell(3, 2, 2, asked);
    assert_eq!(net.sent(2, 3), [Body::VoteAnswer { granted: true }], "although it hears a leader");
    net.tell(2, 3, 2, Body::VoteAnswer { granted: true });
    assert_eq!(net.raft(3).role(), Role::Leader);
}

#[test]
fn who_hands_over_takes_no_proposals_and_goes_on_when_nobody_takes_over() {
    let net = &mut calm(3, 0);
    net.lose = |sent| sent.message.body == Body::TimeoutNow;
    transfer(net, 1, 2).unwrap();
    assert_eq!(net.propose(1, 1), Err(ProposeError::Transferring));
    assert_eq!(net.change(1, &[Change::Remove(NodeId(3))]), Err(MembershipError::Transferring));
    assert_eq!(transfer(net, 1, 3), Err(TransferError::InProgress(NodeId(2))));
    net.pass(TIMEOUT / 2);
    assert!(net.propose(1, 1).is_err());
    net.node(1).events.clear();
    net.pass(TIMEOUT / 2 + HEARTBEAT);
    assert_eq!(net.node(1).events, [Event::TransferFailed { to: NodeId(2) }]);
    assert!(net.propose(1, 1).is_ok());
}

#[test]
fn the_last_entries_reach_the_successor_before_it_is_asked_to_campaign() {
    let net = &mut calm(3, 0);
    net.propose(1, 2).unwrap();
    transfer(net, 1, 2).unwrap();
    net.drive(1);
    assert!(!net.wire.iter().any(|sent| sent.message.body == Body::TimeoutNow), "{:?}", net.wire);
    net.settle();
    assert_eq!(net.leader(), Some(2));
    net.pass(HEARTBEAT);
    assert_eq!(net.commits(), [4; 3]);
}

#[test]
fn leadership_does_not_go_to_who_cannot_lead() {
    let net = &mut calm(3, 1);
    net.cut_off(3);
    net.propose(1, 4).unwrap();
    net.pass(2 * TIMEOUT);
    assert_eq!(transfer(net, 1, 1), Err(TransferError::ToItself));
    assert_eq!(transfer(net, 1, 4), Err(TransferError::NotVoter(NodeId(4))));
    assert_eq!(transfer(net, 1, 9), Err(TransferError::NotVoter(NodeId(9))));
    assert_eq!(transfer(net, 2, 1), Err(TransferError::NotLeader));
    assert_eq!(transfer(net, 1, 3), Err(TransferError::NotCaughtUp { id: NodeId(3), behind: 4 }));
    assert_eq!(net.raft(1).successor(), Some(NodeId(2)));
}

#[test]
fn only_its_leader_makes_a_node_campaign() {
    let net = &mut calm(3, 0);
    assert_eq!(net.say(3, 2, 1, Body::TimeoutNow), Err(Ignored::NotAwaited));
    assert_eq!(net.say(9, 2, 1, Body::TimeoutNow), Err(Ignored::UnknownSender));
    assert_eq!(net.say(1, 2, 0, Body::TimeoutNow), Err(Ignored::Malformed));
    assert_eq!(net.raft(2).role(), Role::Follower);
}

#[test]
fn a_leader_whose_disk_fails_passes_on() {
    let net = &mut calm(3, 0);
    net.node(1).slow_disk = true;
    net.propose(1, 1).unwrap();
    net.settle();
    net.fail_write(1);
    net.settle();
    assert!(matches!(net.leader(), Some(2 | 3)), "without waiting for a timeout");
    net.pass(TIMEOUT);
    assert_eq!(net.commits()[1..], [3, 3]);
    assert_eq!(net.raft(1).commit_index(), LogIndex(3));
}
