use super::super::harness::*;
use super::super::*;
use crate::id::{LogIndex, Subterm};
use std::vec;

fn set(ids: &[u64]) -> NodeSet {
    let mut set = NodeSet::default();
    assert!(ids.iter().all(|id| set.insert(NodeId(*id))));
    set
}

fn record(net: &Net) -> (u64, u64, NodeSet) {
    let record = net.witness.core.record();
    (record.last_term.0, record.last_subterm.0, record.voters)
}

fn crash(net: &mut Net, id: u64) {
    net.restart(id);
    net.node(id).down = true;
}

fn recover(net: &mut Net, id: u64) {
    net.restart(id);
    net.drive(id);
}

/// Proposes an entry and lets it settle; whether the leader committed it.
fn commits(net: &mut Net, leader: u64) -> bool {
    let range = net.propose(leader, 1).unwrap();
    net.settle();
    net.raft(leader).commit_index() >= range.last
}

#[test]
fn in_normal_running_the_witness_hears_nothing() {
    let net = &mut Net::witnessed(2);
    let (asked, writes) = (net.witness.asked, net.witness.writes);
    for _ in 0..30 {
        assert!(commits(net, 1));
        net.pass(TIMEOUT / 2);
    }
    assert_eq!((net.witness.asked, net.witness.writes), (asked, writes));
    assert_eq!(writes, 0, "node 2 voted, so the witness was not asked");
}

#[test]
fn a_silent_follower_is_swapped_for_the_witness_by_one_write_and_comes_back_without_one() {
    let net = &mut Net::witnessed(2);
    crash(net, 2);
    assert!(!commits(net, 1), "half of two");
    net.pass(2 * TIMEOUT);
    assert_eq!((net.leader(), net.witness.writes), (Some(1), 1));
    assert_eq!(record(net), (1, 1, set(&[1])));
    assert_eq!(net.raft(1).status().witness_for, Some(NodeId(2)));
    assert_eq!(net.raft(1).last(), Position { index: LogIndex(3), term: Term(1), subterm: Subterm(1) });
    let asked = net.witness.asked;
    for _ in 0..20 {
        assert!(commits(net, 1), "without asking anybody");
        net.pass(TIMEOUT / 2);
    }
    assert_eq!((net.witness.asked, net.witness.writes), (asked, 1));
    recover(net, 2);
    net.pass(3 * TIMEOUT);
    assert_eq!(net.raft(1).status().witness_for, None);
    assert_eq!(net.raft(1).last().subterm, Subterm(2));
    let status = net.raft(1).status();
    assert_eq!((status.subterm_start, status.peers[0].matched), (status.last.index, status.last.index));
    assert_eq!((net.witness.asked, net.witness.writes), (asked, 1), "none for a recovery");
    assert_eq!(net.commits(), [24; 2]);
    net.cut_off(2);
    assert!(!commits(net, 1), "the witness counts no more");
}

#[test]
fn a_voter_whose_disk_fails_is_swapped_for_the_witness_and_comes_back_with_its_disk() {
    let net = &mut Net::witnessed(2);
    net.node(2).slow_disk = true;
    assert!(!commits(net, 1), "the disk of 2 takes its time");
    net.pass(3 * TIMEOUT);
    assert_eq!((net.raft(1).status().witness_for, net.witness.writes), (None, 0), "it may be slow only");
    net.fail_write(2);
    net.pass(2 * TIMEOUT);
    assert_eq!((net.raft(1).status().witness_for, net.witness.writes), (Some(NodeId(2)), 1));
    assert!(commits(net, 1));
    assert_eq!(net.raft(2).leader(), Some(NodeId(1)), "it follows in silence");
    net.node(2).slow_disk = false;
    net.finish_write(2);
    net.pass(3 * TIMEOUT);
    assert_eq!((net.raft(1).status().witness_for, net.witness.writes), (None, 1));
    net.assert_same_logs();
}

#[test]
fn who_survives_the_leader_is_elected_with_the_witness_by_two_writes() {
    let net = &mut Net::witnessed(2);
    assert!(commits(net, 1));
    net.pass(HEARTBEAT);
    crash(net, 1);
    net.pass(3 * TIMEOUT);
    assert_eq!((net.leader(), net.witness.writes), (Some(2), 2), "a vote and a record");
    assert_eq!((net.raft(2).term(), record(net)), (Term(2), (2, 0, set(&[2]))), "from its first subterm on");
    assert!(commits(net, 2));
    recover(net, 1);
    net.pass(3 * TIMEOUT);
    assert_eq!((net.leader(), net.witness.writes), (Some(2), 2));
    net.assert_same_logs();
}

#[test]
fn a_candidate_asks_the_witness_only_after_a_sub_quorum_and_only_if_it_takes_it() {
    let net = &mut Net::witnessed(4);
    net.now += crate::time::Duration(2 * TIMEOUT);
    let now = net.now;
    net.raft(2).handle_timeout(now);
    net.drive(2);
    assert_eq!(net.raft(2).role(), Role::PreCandidate);
    assert_eq!(net.sent(2, WITNESS), [], "its own vote is not a sub-quorum of five");
    net.tell(3, 2, 2, Body::PreVoteAnswer { granted: true });
    let votes = set(&[2, 3]);
    let (last_term, last_subterm) = (Term(1), Subterm(0));
    assert_eq!(net.sent(2, WITNESS), [Body::WitnessVote { pre: true, last_term, last_subterm, votes }]);
    net.tell(WITNESS, 2, 2, Body::PreVoteAnswer { granted: true });
    assert_eq!(net.raft(2).role(), Role::Candidate);
    assert_eq!(net.sent(2, WITNESS), []);
    net.tell(3, 2, 2, Body::VoteAnswer { granted: true });
    assert_eq!(net.sent(2, WITNESS), [Body::WitnessVote { pre: false, last_term, last_subterm, votes }]);
    net.tell(4, 2, 2, Body::VoteAnswer { granted: true });
    assert_eq!(net.raft(2).role(), Role::Leader, "three of five, whatever the witness says");
    assert_eq!(net.raft(2).status().witness_for, None);
}

#[test]
fn the_witness_is_written_to_when_a_sub_quorum_has_an_entry_of_the_subterm() {
    let net = &mut Net::witnessed(4);
    net.cut_off(4);
    net.pass(TIMEOUT - 2 * HEARTBEAT);
    net.lose = |sent| {
        let late = matches!(sent.message.body, Body::Appended { matched, .. } if matched.0 >= 2);
        late && sent.to == 1
    };
    net.pass(4 * HEARTBEAT);
    assert_eq!(net.raft(1).status().witness_for, Some(NodeId(4)));
    assert_eq!(net.raft(1).last(), Position { index: LogIndex(2), term: Term(1), subterm: Subterm(1) });
    assert_eq!(net.witness.writes, 0, "the leader alone is no sub-quorum of five");
    net.heal();
    net.cut_off(4);
    net.pass(TIMEOUT);
    assert_eq!((net.witness.writes, record(net)), (1, (1, 1, set(&[1, 2, 3]))));
    net.cut_off(3);
    assert!(commits(net, 1), "1, 2 and the witness");
    net.heal();
    net.cut_off(2);
    net.cut_off(3);
    assert!(!commits(net, 1), "1, 4 and the witness, but 4 is not in the set");
}

#[test]
fn the_witness_refuses_who_may_lack_what_it_counted_for() {
    let net = &mut Net::witnessed(2);
    crash(net, 2);
    net.pass(2 * TIMEOUT);
    assert!(commits(net, 1));
    crash(net, 1);
    recover(net, 2);
    net.pass(4 * TIMEOUT);
    assert_eq!(net.leader(), None, "nobody leads until node 1 returns");
    assert_eq!(net.raft(2).term(), Term(1), "and nothing is written for trying");
    assert_eq!(net.witness.writes, 1);
    assert!(net.raft(2).status().refused_by_witness || net.raft(2).role() == Role::Follower);
    recover(net, 1);
    net.pass(4 * TIMEOUT);
    assert_eq!(net.leader(), Some(1));
    net.assert_same_logs();
}

#[test]
fn a_lost_answer_of_the_witness_does_not_hang_the_leader() {
    let net = &mut Net::witnessed(2);
    crash(net, 2);
    net.lose = |sent| matches!(sent.message.body, Body::WitnessAppended { .. });
    net.pass(2 * TIMEOUT);
    assert_eq!((net.witness.writes, net.leader()), (1, Some(1)));
    assert!(!commits(net, 1));
    net.heal();
    net.pass(2 * HEARTBEAT);
    assert_eq!(net.witness.writes, 1, "the same is acknowledged again");
    assert!(commits(net, 1));
}

#[test]
fn an_answer_about_an_older_subterm_does_not_count() {
    let net = &mut Net::witnessed(2);
    crash(net, 2);
    net.lose = |sent| sent.to == WITNESS && matches!(sent.message.body, Body::WitnessAppend { .. });
    net.pass(2 * TIMEOUT);
    let stale = Body::WitnessAppended { subterm: Subterm(0), taken: true };
    assert_eq!(net.say(WITNESS, 1, 1, stale), Err(Ignored::Stale));
    let refused = Body::WitnessAppended { subterm: Subterm(1), taken: false };
    assert_eq!(net.say(WITNESS, 1, 1, refused), Err(Ignored::Stale));
    assert!(!commits(net, 1));
    net.tell(WITNESS, 1, 1, Body::WitnessAppended { subterm: Subterm(1), taken: true });
    assert!(commits(net, 1));
}

#[test]
fn reads_are_confirmed_by_a_ping_before_the_swap_and_by_nobody_after_it() {
    let net = &mut Net::witnessed(2);
    crash(net, 2);
    net.pass(TIMEOUT - 2 * HEARTBEAT);
    let now = net.now;
    let read = net.raft(1).read_index(now).unwrap();
    net.pass(HEARTBEAT);
    assert_eq!((net.witness.writes, net.raft(1).status().witness_for), (0, None));
    assert!(net.raft(1).read_confirmed() >= read.round, "the witness answered a ping");
    net.pass(2 * TIMEOUT);
    let asked = net.witness.asked;
    let now = net.now;
    let read = net.raft(1).read_index(now).unwrap();
    assert!(net.raft(1).read_confirmed() >= read.round, "its set is the leader and the witness");
    net.pass(TIMEOUT);
    assert_eq!(net.witness.asked, asked);
}

#[test]
fn a_silent_witness_outside_the_set_confirms_nothing() {
    let net = &mut Net::witnessed(2);
    net.cut_off(1);
    let now = net.now;
    let read = net.raft(1).read_index(now).unwrap();
    net.pass(2 * TIMEOUT);
    assert!(net.raft(1).read_confirmed() < read.round);
    assert_ne!(net.raft(1).role(), Role::Leader, "and does not let it lead on");
}

#[test]
fn without_a_witness_that_answers_two_nodes_stop_when_one_does() {
    let net = &mut Net::witnessed(2);
    net.witness.down = true;
    assert!(commits(net, 1), "it is not needed while both run");
    crash(net, 2);
    net.pass(3 * TIMEOUT);
    assert_eq!(net.leader(), None);
    net.witness.down = false;
    net.pass(4 * TIMEOUT);
    assert_eq!(net.leader(), Some(1));
}

#[test]
fn leadership_never_goes_to_the_witness() {
    let net = &mut Net::witnessed(2);
    let now = net.now;
    assert_eq!(net.raft(1).transfer(now, NodeId(WITNESS)), Err(TransferError::NotVoter(NodeId(WITNESS))));
    let append = Body::Append { previous: Position::ZERO, entries: None, commit: LogIndex(0) };
    assert_eq!(net.say(WITNESS, 1, 5, append), Err(Ignored::NotVoter));
    assert_eq!(net.say(2, 1, 1, Body::WitnessPing { round: 0 }), Err(Ignored::NotAwaited));
}

#[test]
fn a_dead_voter_is_replaced_by_way_of_the_other_one_alone() {
    let net = &mut Net::witnessed(2);
    crash(net, 2);
    net.pass(3 * TIMEOUT);
    let (dead, witness) = (Change::Remove(NodeId(2)), Change::Remove(NodeId(WITNESS)));
    net.change(1, &[dead, witness]).unwrap();
    net.pass(2 * HEARTBEAT);
    assert_eq!(net.raft(1).configuration().ids().collect::<vec::Vec<_>>(), [NodeId(1)]);
    let fresh = net.join();
    net.change(1, &[Change::AddObserver(NodeId(fresh))]).unwrap();
    net.pass(2 * HEARTBEAT);
    let back = [Change::Promote(NodeId(fresh)), Change::AddWitness(NodeId(WITNESS))];
    net.change(1, &back).unwrap();
    net.pass(2 * HEARTBEAT);
    assert!(!net.raft(1).configuration().is_joint());
    let writes = net.witness.writes;
    crash(net, 1);
    net.pass(4 * TIMEOUT);
    assert_eq!((net.leader(), net.witness.writes), (Some(fresh), writes + 2));
    assert!(commits(net, fresh));
}
