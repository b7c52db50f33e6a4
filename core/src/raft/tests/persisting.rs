use super::super::harness::*;
use super::super::*;
use crate::id::LogIndex;
use std::vec;

fn append(previous: Position, entries: EntryRange) -> Body {
    Body::Append { previous, entries: Some(entries), commit: LogIndex::ZERO }
}

#[test]
fn a_vote_is_durable_before_it_is_sent() {
    let net = &mut Net::new(3, 0);
    net.node(2).slow_disk = true;
    net.tell(1, 2, 1, Body::Vote { last: Position::ZERO, transfer: false });
    assert_eq!(net.sent(2, 1), []);
    let vote = HardState { term: Term(1), vote: Some(NodeId(1)) };
    assert_eq!(net.node(2).writing.unwrap().hard_state, Some(vote));
    net.finish_write(2);
    net.drive(2);
    assert_eq!(net.sent(2, 1), [Body::VoteAnswer { granted: true }]);
}

#[test]
fn a_candidate_asks_nobody_before_its_own_vote_is_durable() {
    let net = &mut Net::new(3, 0);
    net.node(1).slow_disk = true;
    net.campaign(1);
    assert_eq!(net.raft(1).role(), Role::Candidate);
    assert!(net.sent(1, 2).is_empty() && net.raft(2).term() == Term(0));
    net.finish_write(1);
    net.settle();
    assert_eq!(net.leader(), Some(1));
}

#[test]
fn only_what_is_durable_is_acknowledged() {
    let net = &mut Net::new(3, 0);
    net.tell(1, 2, 1, Body::Heartbeat { commit: LogIndex(0), round: 1 });
    net.sent(2, 1);
    net.node(2).slow_disk = true;
    net.tell(1, 2, 1, append(Position::ZERO, range(1, 3, 1)));
    assert_eq!(net.sent(2, 1), []);
    net.tell(1, 2, 1, append(at(3, 1), range(4, 5, 1)));
    assert_eq!(net.sent(2, 1), []);
    net.finish_write(2);
    net.drive(2);
    assert_eq!(net.sent(2, 1), [Body::Appended { matched: LogIndex(3), received: LogIndex(5) }]);
    net.finish_write(2);
    net.drive(2);
    assert_eq!(net.sent(2, 1), [Body::Appended { matched: LogIndex(5), received: LogIndex(5) }]);
}

#[test]
fn a_leader_counts_its_own_entry_when_its_disk_has_it_and_sends_it_before() {
    let net = &mut Net::elect(3, 0);
    net.node(1).slow_disk = true;
    net.cut_off(3);
    net.propose(1, 1).unwrap();
    net.settle();
    assert_eq!(net.raft(2).last(), at(2, 1), "sent while it is written here");
    assert_eq!(net.commits()[0], 1);
    net.finish_write(1);
    assert_eq!(net.commits()[0], 2);
}

#[test]
fn two_followers_with_the_entry_on_disk_commit_it_without_the_leaders_disk() {
    let net = &mut Net::elect(3, 0);
    net.node(1).slow_disk = true;
    net.propose(1, 1).unwrap();
    net.settle();
    assert_eq!(net.commits()[0], 2);
}

#[test]
fn one_group_is_outstanding_at_a_time() {
    let net = &mut Net::elect(3, 0);
    net.node(1).slow_disk = true;
    net.propose(1, 1).unwrap();
    net.drive(1);
    let first = net.node(1).writing.unwrap();
    net.propose(1, 2).unwrap();
    assert_eq!(net.raft(1).poll_persist(), None);
    let now = net.now;
    net.raft(1).handle_persisted(now, first.ticket + 1);
    assert_eq!(net.raft(1).poll_persist(), None, "another ticket means nothing");
    net.finish_write(1);
    let next = net.raft(1).poll_persist().unwrap();
    assert_eq!((next.entries, next.truncate_after), (Some((LogIndex(3), LogIndex(4))), None));
}

#[test]
fn what_takes_the_place_of_dropped_entries_is_not_taken_for_durable() {
    // Entries 1 to 3 of term 1 are being written when a leader of term 2 replaces 2 and 3: the same
    // indexes again, which the finished write does not cover.
    let net = &mut Net::new(3, 0);
    net.tell(1, 2, 1, Body::Heartbeat { commit: LogIndex(0), round: 1 });
    net.tell(3, 2, 2, Body::Heartbeat { commit: LogIndex(0), round: 1 });
    net.wire.clear();
    net.restart(2);
    net.tell(3, 2, 2, Body::Heartbeat { commit: LogIndex(0), round: 1 });
    net.wire.clear();
    net.node(2).slow_disk = true;
    net.tell(3, 2, 2, append(Position::ZERO, range(1, 3, 1)));
    assert_eq!(net.node(2).writing.unwrap().entries, Some((LogIndex(1), LogIndex(3))));
    net.tell(1, 2, 3, append(at(1, 1), range(2, 3, 3)));
    net.finish_write(2);
    assert_eq!(net.raft(2).durable_index(), LogIndex(1));
    net.drive(2);
    assert_eq!(net.sent(2, 1), [], "the new term is not durable");
    let second = net.node(2).writing.unwrap();
    assert_eq!(second.truncate_after, Some(LogIndex(1)));
    assert_eq!(second.entries, Some((LogIndex(2), LogIndex(3))));
    net.finish_write(2);
    net.drive(2);
    assert_eq!(net.sent(2, 1), [Body::Appended { matched: LogIndex(3), received: LogIndex(3) }]);
    assert_eq!(net.node(2).disk.entries, [at(1, 1), at(2, 3), at(3, 3)]);
}

#[test]
fn a_leader_whose_disk_fails_steps_down_and_stands_aside_until_it_works() {
    let net = &mut Net::elect(3, 0);
    net.node(1).slow_disk = true;
    net.propose(1, 1).unwrap();
    net.settle();
    net.fail_write(1);
    assert_eq!(net.raft(1).role(), Role::Follower);
    net.cut_off(1);
    net.pass(5 * TIMEOUT);
    assert_eq!(net.raft(1).role(), Role::Follower, "it does not campaign");
    net.tell(2, 1, 99, Body::Vote { last: at(99, 98), transfer: false });
    assert_eq!(net.raft(1).hard_state.vote, None, "it does not vote");
    let retry = net.node(1).writing.expect("what failed is offered again");
    assert_eq!(retry.entries, Some((LogIndex(2), LogIndex(2))));
    net.node(1).slow_disk = false;
    net.finish_write(1);
    net.pass(3 * TIMEOUT);
    assert_eq!(net.raft(1).role(), Role::PreCandidate, "it campaigns again");
}

#[test]
fn a_failed_write_that_dropped_entries_drops_them_again() {
    let state = HardState { term: Term(1), vote: None };
    let net = &mut Net::with_logs(3, 0, vec![(state, vec![]), (state, vec![1, 1, 1]), (state, vec![])]);
    net.node(2).slow_disk = true;
    net.tell(1, 2, 2, append(at(1, 1), range(2, 2, 2)));
    assert_eq!(net.node(2).writing.unwrap().truncate_after, Some(LogIndex(1)));
    net.fail_write(2);
    net.drive(2);
    let again = net.node(2).writing.unwrap();
    assert_eq!((again.truncate_after, again.entries), (Some(LogIndex(1)), Some((LogIndex(2), LogIndex(2)))));
    assert_eq!(again.hard_state, Some(HardState { term: Term(2), vote: None }));
}

#[test]
fn what_a_failed_write_may_have_left_is_dropped_before_the_next() {
    let net = &mut Net::new(3, 0);
    net.tell(1, 2, 1, append(Position::ZERO, range(1, 1, 1)));
    net.node(2).slow_disk = true;
    net.tell(1, 2, 1, append(at(1, 1), range(2, 3, 1)));
    net.fail_write(2);
    net.drive(2);
    let again = net.node(2).writing.unwrap();
    assert_eq!((again.truncate_after, again.entries), (Some(LogIndex(1)), Some((LogIndex(2), LogIndex(3)))));
}

#[test]
fn a_vote_in_a_term_that_is_durable_is_made_durable_too() {
    let net = &mut Net::new(3, 0);
    let behind = Body::Vote { last: Position::ZERO, transfer: false };
    net.node(2).disk_hard_state = HardState { term: Term(1), vote: None };
    net.restart(2);
    net.node(2).slow_disk = true;
    net.tell(1, 2, 1, behind);
    assert_eq!(net.sent(2, 1), []);
    let vote = HardState { term: Term(1), vote: Some(NodeId(1)) };
    assert_eq!(net.node(2).writing.unwrap().hard_state, Some(vote));
}

#[test]
fn a_slow_disk_is_not_asked_for_one_term_after_another() {
    let net = &mut Net::new(3, 0);
    net.node(1).slow_disk = true;
    net.campaign(1);
    let term = net.raft(1).term();
    net.cut_off(1);
    net.pass(10 * TIMEOUT);
    assert_eq!(net.raft(1).term(), term);
}
