use super::super::harness::*;
use super::super::*;
use crate::id::LogIndex;
use std::vec;
use std::vec::Vec;

fn append(previous: Position, entries: Option<EntryRange>, commit: u64) -> Body {
    Body::Append { previous, entries, commit: LogIndex(commit) }
}

fn state(term: u64) -> HardState {
    HardState { term: Term(term), vote: None }
}

fn peer(net: &mut Net, id: u64) -> PeerStatus {
    let leader = net.leader().unwrap();
    net.raft(leader).status().peers.iter().copied().find(|peer| peer.id == NodeId(id)).unwrap()
}

#[test]
fn an_old_terms_entry_is_not_committed_by_counting() {
    // Figure 8 of the Raft paper: entry 2 of term 2 is on a majority, and the leader of term 4 has
    // brought it there; it is committed only with an entry of term 4.
    let net =
        &mut Net::with_logs(3, 0, vec![(state(3), vec![1, 2]), (state(3), vec![1]), (state(3), vec![1])]);
    net.lose = |sent| {
        // Entries of the new term are lost, those of the old one arrive.
        matches!(sent.message.body, Body::Append { entries: Some(range), .. } if range.term > Term(2))
    };
    net.campaign(1);
    net.pass(3 * TIMEOUT);
    assert_eq!(net.leader(), Some(1));
    assert!((2..=3).all(|id| net.raft(id).last() == at(2, 2)), "{net:?}");
    assert_eq!(peer(net, 2).matched, LogIndex(2));
    assert_eq!(net.commits(), [0; 3]);
    net.heal();
    net.pass(3 * TIMEOUT);
    assert_eq!(net.commits(), [3; 3]);
}

#[test]
fn logs_that_went_apart_are_repaired() {
    // Figure 7 of the Raft paper, with five of its logs.
    let logs: [&[u64]; 5] = [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    let net = &mut Net::with_logs(5, 0, logs.iter().map(|log| (state(7), log.to_vec())).collect());
    net.campaign(1);
    net.pass(TIMEOUT);
    assert_eq!(net.leader(), Some(1));
    net.assert_same_logs();
    assert_eq!(net.commits(), [11; 5]);
    assert!(net.nodes.iter().all(|node| node.disk.entries == net.nodes[0].log.entries));
}

#[test]
fn whole_terms_are_skipped_when_logs_went_apart() {
    let long: Vec<u64> = core::iter::repeat_n(2, 300).collect();
    let net = &mut Net::with_logs(2, 0, vec![(state(4), vec![1, 3]), (state(4), [vec![1], long].concat())]);
    net.campaign(1);
    assert_eq!(net.leader(), Some(1), "term 3 is later than term 2, whatever the length");
    net.assert_same_logs();
    let rejected = net.node(1).ignored.len();
    assert!(rejected < 3, "a few rejections, not one an entry");
}

#[test]
fn elections_without_end_leave_more_terms_than_the_core_remembers() {
    // Harness cores remember 4 runs; 14 leaders put an entry each into their own logs.
    let alone: Vec<u64> = (1..=14).map(|term| 2 * term).collect();
    let other = vec![2, 4, 6, 8, 10, 11, 11, 13, 13, 13, 13, 15];
    let logs = [alone, other, vec![2, 4, 5]];
    let net = &mut Net::with_logs(3, 0, logs.map(|log| (state(28), log)).to_vec());
    net.campaign(1);
    net.pass(TIMEOUT);
    assert_eq!(net.leader(), Some(1));
    net.assert_same_logs();
    assert_eq!(net.commits(), [15; 3]);
}

#[test]
fn many_elections_with_replicated_and_uncommitted_entries_heal() {
    // No answer to an append arrives, so that nothing is committed, for RUNS + 10 terms.
    let net = &mut Net::new(3, 0);
    net.lose = |sent| matches!(sent.message.body, Body::Appended { .. });
    for turn in 0..14 {
        net.campaign(1 + turn % 3);
        net.pass(2 * TIMEOUT);
    }
    assert_eq!(net.commits(), [0; 3]);
    let longest = net.nodes.iter().map(|node| node.raft.last().index.0).max().unwrap();
    assert!(longest >= 6, "{net:?}");
    net.heal();
    net.pass(10 * TIMEOUT);
    net.assert_same_logs();
    assert!(net.commits()[0] > longest.min(6));
}

#[test]
fn an_append_that_is_a_part_of_the_log_never_truncates() {
    let net = &mut Net::new(3, 0);
    net.tell(1, 2, 1, append(Position::ZERO, Some(range(1, 6, 1)), 0));
    for (previous, entries) in [
        (Position::ZERO, Some(range(1, 2, 1))),
        (at(2, 1), Some(range(3, 4, 1))),
        (Position::ZERO, None),
        (at(3, 1), None),
    ] {
        assert_eq!(net.say(1, 2, 1, append(previous, entries, 0)), Ok(Handled::Nothing));
        assert_eq!(net.raft(2).last(), at(6, 1));
    }
    let longer = net.say(1, 2, 1, append(at(3, 1), Some(range(4, 8, 1)), 0));
    assert_eq!(longer, Ok(Handled::Append(range(7, 8, 1))), "only what is new");
}

#[test]
fn what_is_committed_is_never_truncated_whatever_a_message_says() {
    let net = &mut Net::new(3, 0);
    net.tell(1, 2, 2, append(Position::ZERO, Some(range(1, 6, 1)), 4));
    assert_eq!(net.raft(2).commit_index(), LogIndex(4));
    for body in [
        append(at(4, 2), Some(range(5, 5, 2)), 0),
        append(at(5, 2), Some(range(6, 6, 2)), 0),
        append(at(3, 1), Some(range(4, 9, 2)), 0),
    ] {
        let before = net.raft(2).last();
        let _ = net.say(1, 2, 2, body);
        assert_eq!(net.node(2).log.position(LogIndex(4)), Some(at(4, 1)));
        assert!(net.raft(2).last().index >= LogIndex(4) && net.raft(2).commit_index() == LogIndex(4));
        assert!(net.raft(2).last().index >= before.index.min(LogIndex(4)));
    }
}

#[test]
fn a_follower_takes_the_commit_index_only_as_far_as_its_log_matches() {
    let net =
        &mut Net::with_logs(3, 0, vec![(state(2), vec![]), (state(2), vec![1, 2, 2, 2]), (state(2), vec![])]);
    net.tell(1, 2, 3, Body::Heartbeat { commit: LogIndex(4), round: 0 });
    assert_eq!(net.commits()[1], 0, "nothing is known to match");
    net.tell(1, 2, 3, append(at(1, 1), None, 4));
    assert_eq!(net.commits()[1], 1);
    net.tell(1, 2, 3, append(at(1, 1), Some(range(2, 3, 3)), 4));
    net.tell(1, 2, 3, Body::Heartbeat { commit: LogIndex(9), round: 0 });
    assert_eq!(net.commits()[1], 3);
}

#[test]
fn appends_are_sent_ahead_within_the_bounds() {
    let net = &mut Net::elect(2, 0);
    net.propose(1, 90).unwrap();
    net.drive(1);
    let sent = net.sent(1, 2);
    assert_eq!(sent.len(), 3, "300 bytes at most on their way, in messages of 100: {sent:?}");
    assert_eq!(sent[2], append(at(21, 1), Some(range(22, 31, 1)), 1));
    let now = net.now;
    assert!(net.raft(1).poll_message(now, NodeId(2), true, &PlainLog::default()).is_none());
    net.pass(3 * TIMEOUT);
    assert_eq!(net.commits()[0], 91);
}

#[test]
fn no_more_messages_than_the_window_has_places() {
    let net = &mut Net::elect(2, 0);
    let mut sent = 0;
    for _ in 0..40 {
        net.propose(1, 1).unwrap();
        net.drive(1);
        sent += net.sent(1, 2).len();
    }
    assert_eq!(sent, INFLIGHT_MESSAGES_MAX);
}

#[test]
fn a_full_window_still_carries_the_commit_index() {
    let net = &mut Net::elect(3, 0);
    net.cuts.insert((3, 1));
    net.propose(1, 90).unwrap();
    net.settle();
    assert_eq!(net.commits()[0], 91, "node 2 answers");
    assert!(net.raft(3).last().index < LogIndex(91));
    net.now += crate::time::Duration(HEARTBEAT);
    let now = net.now;
    net.raft(1).handle_timeout(now);
    net.settle();
    assert_eq!(net.commits()[2], net.raft(3).last().index.0);
}

#[test]
fn a_lost_append_is_repaired_by_the_next_ones_rejection() {
    let net = &mut Net::elect(2, 0);
    net.propose(1, 1).unwrap();
    net.drive(1);
    net.wire.clear();
    net.propose(1, 1).unwrap();
    net.settle();
    assert_eq!(net.commits()[0], 3);
}

#[test]
fn a_lost_append_at_the_end_is_repaired_without_new_ones() {
    let net = &mut Net::elect(2, 0);
    net.propose(1, 3).unwrap();
    net.drive(1);
    net.wire.clear();
    net.pass(2 * TIMEOUT);
    assert_eq!(net.commits(), [4, 4]);
}

#[test]
fn a_lost_answer_is_repaired_without_sending_the_entries_again() {
    let net = &mut Net::elect(2, 0);
    net.lose = |sent| matches!(sent.message.body, Body::Appended { .. });
    net.propose(1, 3).unwrap();
    net.settle();
    net.lose = |sent| matches!(sent.message.body, Body::Append { entries: Some(_), .. });
    net.pass(2 * TIMEOUT);
    assert_eq!(net.commits(), [4, 4]);
}

#[test]
fn who_starts_again_in_an_idle_site_learns_what_is_committed() {
    let net = &mut Net::elect(3, 1);
    net.propose(1, 5).unwrap();
    net.pass(TIMEOUT);
    net.lose = |sent| matches!(sent.message.body, Body::Append { entries: Some(_), .. });
    for id in 2..=4 {
        net.restart(id);
        assert_eq!(net.raft(id).commit_index(), LogIndex(0));
        net.pass(2 * HEARTBEAT);
        assert_eq!(net.raft(id).commit_index(), LogIndex(6), "{net:?}");
    }
    assert_eq!(net.raft(1).last(), at(6, 1), "without a new entry, and without sending the old ones");
}

#[test]
fn a_heartbeat_that_overtakes_entries_does_not_have_them_sent_again() {
    let net = &mut Net::elect(2, 0);
    net.propose(1, 9).unwrap();
    net.drive(1);
    let append = net.wire.pop_front().unwrap();
    net.tell(1, 2, 1, Body::Heartbeat { commit: LogIndex(10), round: 0 });
    net.settle();
    assert_eq!(peer(net, 2).state, PeerState::Replicate);
    assert_eq!(peer(net, 2).next, LogIndex(11));
    net.wire.push_back(append);
    net.settle();
    assert_eq!(net.commits()[0], 10);
}

#[test]
fn a_slow_disk_is_not_sent_the_same_entries_again() {
    let net = &mut Net::elect(2, 0);
    net.node(2).slow_disk = true;
    net.propose(1, 3).unwrap();
    net.settle();
    net.lose = |sent| matches!(sent.message.body, Body::Append { entries: Some(_), .. });
    net.pass(5 * TIMEOUT);
    assert_eq!(peer(net, 2).next, LogIndex(5));
    assert_eq!(net.commits()[0], 1);
    net.finish_write(2);
    net.settle();
    assert_eq!(net.commits()[0], 4);
}

#[test]
fn a_stale_rejection_and_a_stale_answer_change_nothing() {
    let net = &mut Net::elect(2, 0);
    net.propose(1, 3).unwrap();
    net.settle();
    let before = peer(net, 2);
    assert_eq!(before.matched, LogIndex(4));
    let stale = Body::Rejected { previous: LogIndex(2), hint: at(1, 1) };
    assert_eq!(net.say(2, 1, 1, stale), Err(Ignored::Stale));
    let _ = net.say(2, 1, 1, Body::Appended { matched: LogIndex(1), received: LogIndex(1) });
    assert_eq!((peer(net, 2).matched, peer(net, 2).next), (before.matched, before.next));
    assert_eq!(
        net.say(2, 1, 1, Body::Appended { matched: LogIndex(9), received: LogIndex(9) }),
        Err(Ignored::Malformed)
    );
}

#[test]
fn an_acknowledgement_of_an_older_term_does_not_count() {
    let net = &mut Net::elect(3, 0);
    net.pass(2 * HEARTBEAT);
    for (from, to) in [(1, 2), (2, 1)] {
        let now = net.now;
        net.raft(from).transfer(now, NodeId(to)).unwrap();
        net.settle();
        net.pass(2 * HEARTBEAT);
        assert_eq!(net.leader(), Some(to));
    }
    net.cut_off(1);
    let range = net.propose(1, 2).unwrap();
    net.settle();
    let older = Body::Appended { matched: range.last, received: range.last };
    assert_eq!(net.say(2, 1, 1, older), Err(Ignored::Stale));
    assert_eq!(net.raft(1).commit_index(), range.first.prev());
}

#[test]
fn messages_that_come_twice_and_in_any_order_do_no_harm() {
    let net = &mut Net::elect(3, 0);
    for turn in 0..30 {
        net.propose(1, 1 + turn % 3).unwrap();
        net.drive(1);
        let mut wire: Vec<Sent> = net.wire.drain(..).collect();
        wire.reverse();
        let twice = [wire.clone(), wire].concat();
        net.wire.extend(twice);
        net.settle();
    }
    net.pass(2 * TIMEOUT);
    net.assert_same_logs();
    assert_eq!(net.commits(), [61; 3]);
}

#[test]
fn a_leader_takes_no_more_than_may_wait() {
    let net = &mut Net::elect(3, 0);
    net.cut_off(1);
    net.propose(1, 100).unwrap();
    assert_eq!(net.propose(1, 1), Err(ProposeError::Full));
    assert_eq!(net.propose(1, 0), Err(ProposeError::Empty));
    net.heal();
    net.pass(HEARTBEAT);
    net.settle();
    net.pass(2 * TIMEOUT);
    assert_eq!(net.commits()[0], 101);
    // One large proposal is taken if nothing waits.
    net.propose(1, 500).unwrap();
    assert_eq!(net.propose(1, 1), Err(ProposeError::Full));
    assert_eq!(net.propose(2, 1), Err(ProposeError::NotLeader));
}

#[test]
fn many_small_proposals_are_released_as_they_are_committed() {
    let net = &mut Net::elect(1, 0);
    net.node(1).slow_disk = true;
    for _ in 0..100 {
        net.propose(1, 1).unwrap();
    }
    assert_eq!(net.propose(1, 1), Err(ProposeError::Full));
    net.node(1).slow_disk = false;
    net.drive(1);
    assert_eq!(net.commits(), [101]);
    assert!(net.propose(1, 100).is_ok());
}

#[test]
fn who_waits_for_the_commit_index_is_told_at_once() {
    let net = &mut Net::elect(3, 0);
    net.pass(TIMEOUT);
    net.raft(1).request_heartbeat(NodeId(2));
    net.propose(1, 1).unwrap();
    net.settle();
    let commits = net.commits();
    assert_eq!((commits[0], commits[1], commits[2]), (2, 2, 1));
}

#[test]
fn a_full_bulk_lane_holds_entries_back_and_nothing_else() {
    let net = &mut Net::elect(2, 0);
    net.node(1).bulk_full = true;
    net.propose(1, 3).unwrap();
    net.pass(3 * TIMEOUT);
    assert_eq!(net.leader(), Some(1));
    assert_eq!(net.raft(2).last(), at(1, 1));
    net.node(1).bulk_full = false;
    net.settle();
    assert_eq!(net.commits()[0], 4);
}

#[test]
fn observers_get_everything_and_count_for_nothing() {
    let net = &mut Net::elect(3, 1);
    net.propose(1, 5).unwrap();
    net.pass(TIMEOUT);
    assert_eq!(net.commits(), [6; 4]);
}

#[test]
fn a_leader_of_the_same_term_who_is_not_the_known_one_is_ignored() {
    let net = &mut Net::elect(3, 0);
    assert_eq!(net.say(3, 2, 1, append(Position::ZERO, None, 0)), Err(Ignored::Malformed));
    assert_eq!(net.say(3, 1, 1, append(Position::ZERO, None, 0)), Err(Ignored::Malformed));
    let stranger = Message { term: Term(1), body: append(Position::ZERO, None, 0) };
    let now = net.now;
    let log = PlainLog::default();
    for (id, term, why) in
        [(1, 1, Ignored::UnknownSender), (77, 1, Ignored::Malformed), (77, 0, Ignored::UnknownSender)]
    {
        let message = Message { term: Term(term), ..stranger };
        assert_eq!(net.raft(1).handle_message(now, NodeId(id), &message, None, &log), Err(why));
    }
}

#[test]
fn five_nodes_fit_into_four_kibibytes() {
    assert!(size_of::<Raft<5>>() <= 4096, "{}", size_of::<Raft<5>>());
}

fn entries_sent(bodies: &[Body]) -> usize {
    bodies.iter().filter(|body| matches!(body, Body::Append { entries: Some(_), .. })).count()
}

#[test]
fn the_last_append_is_repaired_before_an_election_timeout_if_it_is_lost() {
    let net = &mut Net::elect(2, 0);
    net.pass(2 * HEARTBEAT);
    net.propose(1, 1).unwrap();
    net.drive(1);
    assert_eq!(entries_sent(&net.sent(1, 2)), 1, "and is lost");
    net.pass(2 * HEARTBEAT);
    assert_eq!(net.commits()[0], 2, "asked for after a heartbeat interval");
    // An answer that is lost is asked for as well.
    net.lose = |sent| matches!(sent.message.body, Body::Appended { .. });
    net.propose(1, 1).unwrap();
    net.settle();
    net.heal();
    net.pass(2 * HEARTBEAT);
    assert_eq!(net.commits()[0], 3);
}

#[test]
fn an_append_that_is_slow_to_arrive_is_not_sent_again_and_holds_nothing_up() {
    let net = &mut Net::elect(2, 0);
    net.pass(2 * HEARTBEAT);
    net.propose(1, 1).unwrap();
    net.drive(1);
    for _ in 0..3 {
        net.now += Duration(HEARTBEAT);
        let now = net.now;
        net.raft(1).handle_timeout(now);
        net.drive(1);
    }
    let last = net.raft(1).last();
    let asks = |sent: &&Sent| matches!(sent.message.body, Body::Append { previous, entries: None, .. } if previous == last);
    assert!(net.wire.iter().filter(asks).count() > 0);
    net.propose(1, 1).unwrap();
    net.drive(1);
    let bodies: Vec<Body> = net.wire.iter().map(|sent| sent.message.body).collect();
    assert_eq!(entries_sent(&bodies), 2, "one each, the second without waiting");
    net.settle();
    assert_eq!((net.commits()[0], peer(net, 2).state), (3, PeerState::Replicate));
}

#[test]
fn what_arrived_and_waits_for_a_slow_disk_is_asked_for_once() {
    let net = &mut Net::elect(2, 0);
    net.pass(2 * HEARTBEAT);
    net.node(2).slow_disk = true;
    net.propose(1, 1).unwrap();
    net.settle();
    let mut asked = 0;
    for _ in 0..4 {
        net.now += Duration(HEARTBEAT);
        let now = net.now;
        net.raft(1).handle_timeout(now);
        net.drive(1);
        asked += net.wire.iter().filter(|sent| matches!(sent.message.body, Body::Append { .. })).count();
        net.settle();
    }
    assert_eq!((asked, peer(net, 2).state), (1, PeerState::Replicate));
    net.finish_write(2);
    net.settle();
    assert_eq!(net.commits()[0], 2);
}
