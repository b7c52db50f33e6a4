use super::super::harness::*;
use super::super::*;
use crate::id::LogIndex;
use std::vec;

/// Node 3 is away while the others commit `entries`, and the leader compacts to the end.
fn far_behind(entries: u64) -> Net {
    let mut net = Net::elect(3, 0);
    net.cut_off(3);
    for _ in 0..entries {
        net.propose(1, 1).unwrap();
        net.settle();
    }
    net.pass(2 * TIMEOUT);
    compact(&mut net, 1);
    net
}

fn compact(net: &mut Net, id: u64) {
    let node = net.node(id);
    let position = node.log.position(node.raft.commit_index()).unwrap();
    assert!(node.raft.compacted(position));
    node.log.compact(position);
    node.disk.compact(position);
}

fn state_of_3(net: &mut Net) -> PeerStatus {
    net.raft(1).status().peers.iter().copied().find(|peer| peer.id == NodeId(3)).unwrap()
}

#[test]
fn who_is_behind_the_log_gets_the_snapshot_and_goes_on_from_there() {
    let net = &mut far_behind(20);
    net.heal();
    net.pass(2 * TIMEOUT);
    assert_eq!(net.node(3).log.base, at(21, 1));
    assert_eq!(net.node(3).disk.base, at(21, 1));
    assert_eq!(state_of_3(net).state, PeerState::Replicate);
    net.propose(1, 2).unwrap();
    net.pass(TIMEOUT);
    assert_eq!(net.commits(), [23; 3]);
}

#[test]
fn a_snapshot_is_offered_once_and_again_after_a_while() {
    let net = &mut far_behind(20);
    net.heal();
    net.lose = |sent| matches!(sent.message.body, Body::Snapshot { .. });
    let offered = |net: &mut Net| net.raft(1).peers[1].attempt;
    net.pass(2 * TIMEOUT);
    assert_eq!(state_of_3(net).state, PeerState::Snapshot(LogIndex(21)));
    let first = offered(net);
    net.pass(4 * TIMEOUT);
    assert_eq!(offered(net), first, "not again so soon");
    net.raft(1).snapshot_lost(NodeId(3));
    net.settle();
    assert_ne!(offered(net), first, "at once when the driver knows it lost");
    net.heal();
    net.pass(20 * TIMEOUT);
    assert_eq!(net.commits(), [21; 3]);
}

#[test]
fn a_snapshot_is_acknowledged_when_the_log_on_disk_begins_with_it() {
    let net = &mut far_behind(20);
    net.heal();
    net.pass(HEARTBEAT);
    net.restart(3);
    net.node(3).disk = PlainLog::new(Configuration::new(&members(3, 0)).unwrap(), vec![]);
    net.restart(3);
    net.tell(1, 3, 1, Body::Heartbeat { commit: LogIndex(0), round: 0 });
    net.node(3).slow_disk = true;
    net.wire.clear();
    let handled = net.say(1, 3, 1, Body::Snapshot { last: at(21, 1) });
    assert_eq!(handled, Ok(Handled::Install(at(21, 1))));
    assert_eq!(net.sent(3, 1), []);
    assert_eq!(net.node(3).writing.unwrap().reset, Some(at(21, 1)));
    // A failure in between does not forget it.
    net.fail_write(3);
    net.drive(3);
    assert_eq!(net.node(3).writing.unwrap().reset, Some(at(21, 1)));
    net.finish_write(3);
    net.drive(3);
    assert_eq!(net.sent(3, 1), [Body::Appended { matched: LogIndex(21), received: LogIndex(21) }]);
}

#[test]
fn a_write_from_before_a_snapshot_says_nothing_about_the_log_after_it() {
    let net = &mut Net::new(3, 0);
    net.tell(1, 3, 1, Body::Heartbeat { commit: LogIndex(0), round: 0 });
    net.node(3).slow_disk = true;
    let append =
        Body::Append { previous: Position::ZERO, entries: Some(range(1, 5, 1)), commit: LogIndex(0) };
    net.tell(1, 3, 1, append);
    net.tell(1, 3, 1, Body::Snapshot { last: at(9, 1) });
    net.wire.clear();
    net.finish_write(3);
    assert_eq!(net.raft(3).durable_index(), LogIndex(0));
    net.drive(3);
    assert_eq!(net.sent(3, 1), []);
    net.finish_write(3);
    assert_eq!(net.raft(3).durable_index(), LogIndex(9));
}

#[test]
fn a_stale_snapshot_and_one_of_what_is_here_replace_nothing() {
    let net = &mut Net::elect(3, 0);
    net.propose(1, 3).unwrap();
    net.pass(TIMEOUT);
    assert_eq!(net.commits(), [4; 3]);
    assert_eq!(net.say(1, 3, 1, Body::Snapshot { last: at(2, 1) }), Err(Ignored::Stale));
    net.lose = |sent| matches!(sent.message.body, Body::Heartbeat { .. });
    net.propose(1, 2).unwrap();
    net.settle();
    assert_eq!((net.raft(3).last(), net.raft(3).commit_index()), (at(6, 1), LogIndex(4)));
    assert_eq!(net.say(1, 3, 1, Body::Snapshot { last: at(5, 1) }), Ok(Handled::Nothing));
    assert_eq!((net.raft(3).last(), net.raft(3).commit_index()), (at(6, 1), LogIndex(5)));
}

#[test]
fn a_snapshot_replaces_a_log_that_went_another_way() {
    let state = HardState { term: Term(2), vote: None };
    let net = &mut Net::with_logs(3, 0, vec![(state, vec![]), (state, vec![]), (state, vec![1, 2, 2, 2])]);
    assert_eq!(net.say(1, 3, 4, Body::Snapshot { last: at(3, 3) }), Ok(Handled::Install(at(3, 3))));
    assert_eq!(net.raft(3).last(), at(3, 3));
    assert_eq!(net.node(3).disk.last(), at(3, 3));
}

#[test]
fn only_what_is_committed_and_durable_may_be_compacted() {
    let net = &mut Net::elect(3, 0);
    net.node(1).slow_disk = true;
    net.propose(1, 3).unwrap();
    net.settle();
    assert_eq!(net.commits()[0], 4);
    assert!(!net.raft(1).compacted(at(4, 1)), "not durable here");
    assert!(net.raft(1).compacted(at(1, 1)));
    assert!(!net.raft(1).compacted(at(1, 1)), "not newer");
    net.finish_write(1);
    assert!(!net.raft(1).compacted(at(5, 1)), "not committed");
    assert!(net.raft(1).compacted(at(4, 1)));
}

#[test]
fn who_has_what_is_compacted_and_only_lost_its_answers_gets_no_snapshot() {
    let net = &mut Net::elect(3, 0);
    net.lose = |sent| sent.from == 3 && matches!(sent.message.body, Body::Appended { .. });
    net.propose(1, 5).unwrap();
    net.settle();
    compact(net, 1);
    net.lose = |sent| matches!(sent.message.body, Body::Snapshot { .. });
    net.pass(3 * TIMEOUT);
    assert_eq!(state_of_3(net).state, PeerState::Replicate);
    assert_eq!(state_of_3(net).matched, LogIndex(6));
}

#[test]
fn a_node_starts_from_a_snapshot_and_the_log_after_it() {
    let net = &mut far_behind(5);
    net.propose(1, 2).unwrap();
    net.pass(TIMEOUT);
    net.restart(1);
    assert_eq!((net.raft(1).snapshot(), net.raft(1).last()), (at(6, 1), at(8, 1)));
    assert_eq!(net.commits()[0], 6);
    net.heal();
    net.pass(10 * TIMEOUT);
    let leader = net.leader().unwrap();
    net.propose(leader, 1).unwrap();
    net.pass(TIMEOUT);
    let commits = net.commits();
    assert!(commits.iter().all(|commit| *commit == commits[0] && *commit > 8), "{commits:?}");
}

#[test]
fn a_log_that_cannot_be_read_is_not_given_up_for_a_snapshot() {
    // What it acknowledged in an older term may be committed with its help.
    let hard_state = HardState { term: Term(1), vote: None };
    let net = &mut Net::with_logs(3, 0, vec![(hard_state, vec![1, 1, 1]); 3]);
    let message = Message { term: Term(2), body: Body::Snapshot { last: at(2, 1) } };
    let (now, log) = (net.now, net.node(3).log.clone());
    let raft = net.raft(3);
    let handled = raft.handle_message(now, NodeId(1), &message, None, &PlainLog::default());
    assert_eq!((handled, raft.last()), (Err(Ignored::LogUnreadable), at(3, 1)));
    assert_eq!(raft.handle_message(now, NodeId(1), &message, None, &log), Ok(Handled::Nothing));
    assert_eq!((raft.last(), raft.commit_index()), (at(3, 1), LogIndex(2)));
}
