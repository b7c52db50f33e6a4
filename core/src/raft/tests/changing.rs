use super::super::harness::*;
use super::super::*;
use crate::id::LogIndex;
use std::vec;
use std::vec::Vec;

fn observe(id: u64) -> Change {
    Change::AddObserver(NodeId(id))
}

fn promote(id: u64) -> Change {
    Change::Promote(NodeId(id))
}

fn remove(id: u64) -> Change {
    Change::Remove(NodeId(id))
}

fn configuration(voters: &[u64], outgoing: &[u64], observers: &[u64]) -> Configuration {
    let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
    Configuration::from_parts(&ConfigurationParts {
        voters: &ids(voters),
        outgoing: &ids(outgoing),
        observers: &ids(observers),
        witness: None,
        leaves_by_itself: true,
    })
    .unwrap()
}

fn own_entries(net: &mut Net, id: u64) -> Vec<(u64, u64, Configuration)> {
    let events = core::mem::take(&mut net.node(id).events);
    let entry = |event: Event| match event {
        Event::OwnEntry { entry, configuration: Some(configuration) } => {
            Some((entry.index.0, entry.subterm.0, configuration))
        }
        _ => None,
    };
    events.into_iter().filter_map(entry).collect()
}

/// A leader of three, and node 4, an observer that has caught up.
fn three_and_an_observer() -> Net {
    let mut net = Net::elect(3, 0);
    assert_eq!(net.join(), 4);
    net.change(1, &[observe(4)]).unwrap();
    net.pass(2 * HEARTBEAT);
    assert_eq!(net.commits(), [2; 4]);
    net
}

#[test]
fn a_node_of_no_group_follows_silently_and_takes_the_configuration_with_its_entry() {
    let net = &mut Net::elect(3, 0);
    assert_eq!(net.join(), 4);
    assert_eq!(net.raft(4).poll_timeout(), Instant(u64::MAX));
    let (range, _) = net.change(1, &[observe(4)]).unwrap();
    assert_eq!(range, EntryRange { subterm: crate::id::Subterm(1), ..range_of(2) });
    net.pass(2 * HEARTBEAT);
    assert_eq!(net.commits(), [2; 4]);
    let expected = configuration(&[1, 2, 3], &[], &[4]);
    for id in 1..=4 {
        assert_eq!((*net.raft(id).configuration(), net.raft(id).configuration_index().0), (expected, 2));
    }
    assert_eq!(net.raft(1).status().peers[2].role, Some(MemberRole::Observer));
}

fn range_of(index: u64) -> EntryRange {
    range(index, index, 1)
}

#[test]
fn a_configuration_that_is_stated_again_is_the_same_at_another_place_of_the_log() {
    let net = &mut Net::elect(3, 0);
    let (now, before) = (net.now, *net.raft(1).configuration());
    let (range, same) = net.raft(1).restate_configuration(now).unwrap();
    assert_eq!((range.first.0, same), (2, before));
    net.node(1).log.put(&range);
    net.node(1).log.put_configuration(range.first, same);
    assert_eq!(net.raft(1).restate_configuration(now), Err(MembershipError::InProgress));
    net.pass(2 * HEARTBEAT);
    assert_eq!(net.commits(), [2; 3]);
    for id in 1..=3 {
        assert_eq!((*net.raft(id).configuration(), net.raft(id).configuration_index().0), (before, 2));
    }
}

#[test]
fn an_observer_is_promoted_by_way_of_a_joint_configuration_that_is_left_by_itself() {
    let net = &mut three_and_an_observer();
    let (range, joint) = net.change(1, &[promote(4)]).unwrap();
    assert_eq!((range.first.0, range.last.0, range.subterm.0), (3, 3, 2));
    assert_eq!(joint, configuration(&[1, 2, 3, 4], &[1, 2, 3], &[]));
    assert_eq!(net.change(1, &[remove(2)]), Err(MembershipError::InProgress));
    net.settle();
    let left = configuration(&[1, 2, 3, 4], &[], &[]);
    assert_eq!(own_entries(net, 1), [(4, 3, left)]);
    net.pass(2 * HEARTBEAT);
    assert_eq!(net.commits(), [4; 4]);
    assert_eq!(*net.raft(4).configuration(), left);
    assert!(net.raft(4).poll_timeout() < Instant(u64::MAX), "a voter may campaign");
}

#[test]
fn a_joint_configuration_that_is_to_be_left_when_asked_is_not_left_before() {
    let net = &mut three_and_an_observer();
    let now = net.now;
    assert_eq!(net.raft(1).leave_joint(now), Err(MembershipError::NotJoint));
    let (range, joint) = net.raft(1).change_membership(now, &[promote(4)], Leave::WhenAsked).unwrap();
    net.node(1).log.put(&range);
    net.node(1).log.put_configuration(range.first, joint);
    assert_eq!(net.raft(1).leave_joint(now), Err(MembershipError::InProgress));
    net.pass(2 * TIMEOUT);
    assert_eq!((net.commits(), own_entries(net, 1)), (vec![3; 4], vec![]));
    let now = net.now;
    let (range, left) = net.raft(1).leave_joint(now).unwrap();
    assert_eq!((range.first.0, left), (4, configuration(&[1, 2, 3, 4], &[], &[])));
}

#[test]
fn in_a_joint_configuration_each_half_decides() {
    for away in [[4, 5], [2, 3]] {
        let net = &mut Net::elect(3, 2);
        net.pass(2 * HEARTBEAT);
        away.into_iter().for_each(|id| net.cut_off(id));
        let replace = [promote(4), promote(5), remove(2), remove(3)];
        let (_, joint) = net.change(1, &replace).unwrap();
        assert_eq!(joint, configuration(&[1, 4, 5], &[1, 2, 3], &[]));
        net.settle();
        assert_eq!(net.commits()[0], 1, "a majority of one half alone, without {away:?}");
        net.heal();
        net.pass(4 * TIMEOUT);
        let leader = net.leader().unwrap();
        assert_eq!(*net.raft(leader).configuration(), configuration(&[1, 4, 5], &[], &[]));
        assert_eq!(net.raft(5).commit_index(), net.raft(leader).commit_index());
    }
}

#[test]
fn an_observer_that_lags_is_not_promoted_and_it_is_said_how_far_it_is_behind() {
    let net = &mut three_and_an_observer();
    net.cut_off(4);
    for _ in 0..7 {
        net.propose(1, 1).unwrap();
        net.pass(HEARTBEAT);
    }
    let lags = MembershipError::NotCaughtUp { id: NodeId(4), behind: 7 };
    assert_eq!(net.change(1, &[promote(4)]), Err(lags));
    net.heal();
    net.pass(2 * TIMEOUT);
    assert!(net.change(1, &[promote(4)]).is_ok());
}

#[test]
fn nothing_changes_before_an_entry_of_the_leaders_term_is_committed() {
    let net = &mut Net::new(3, 1);
    net.lose = |sent| matches!(sent.message.body, Body::Appended { .. });
    net.campaign(1);
    assert_eq!(net.change(1, &[remove(4)]), Err(MembershipError::TooEarly));
    assert_eq!(net.change(2, &[remove(4)]), Err(MembershipError::NotLeader));
    net.heal();
    net.pass(TIMEOUT);
    assert!(net.change(1, &[remove(4)]).is_ok());
}

#[test]
fn a_configuration_is_in_force_until_its_entry_is_dropped() {
    let net = &mut Net::elect(3, 1);
    net.pass(2 * HEARTBEAT);
    net.cut_off(1);
    let (range, without) = net.change(1, &[remove(4)]).unwrap();
    net.settle();
    assert_eq!(*net.raft(1).configuration(), without);
    net.campaign(2);
    net.heal();
    net.pass(2 * TIMEOUT);
    let before = configuration(&[1, 2, 3], &[], &[4]);
    assert_eq!((range.first.0, *net.raft(1).configuration()), (2, before));
    assert_eq!(net.raft(1).configuration_index(), LogIndex(0));
    net.assert_same_logs();
    // A restart knows both as well.
    net.restart(1);
    assert_eq!(*net.raft(1).configuration(), before);
}

#[test]
fn a_restart_remembers_the_configuration_before_the_one_that_can_be_dropped() {
    let net = &mut Net::elect(3, 1);
    net.pass(2 * HEARTBEAT);
    net.cut_off(1);
    let (_, without) = net.change(1, &[remove(4)]).unwrap();
    net.settle();
    net.restart(1);
    assert_eq!(*net.raft(1).configuration(), without);
    net.campaign(2);
    net.heal();
    net.pass(2 * TIMEOUT);
    assert_eq!(*net.raft(1).configuration(), configuration(&[1, 2, 3], &[], &[4]));
}

#[test]
fn a_snapshot_brings_the_configuration_along() {
    let net = &mut three_and_an_observer();
    assert_eq!(net.join(), 5);
    for id in [1, 2, 3] {
        let position = net.node(id).log.position(LogIndex(2)).unwrap();
        assert!(net.raft(id).compacted(position));
        net.node(id).log.compact(position);
        net.node(id).disk.compact(position);
    }
    net.change(1, &[observe(5)]).unwrap();
    net.lose = |sent| sent.to == 5 && matches!(sent.message.body, Body::Append { entries: Some(_), .. });
    net.pass(2 * TIMEOUT);
    let node = net.node(5);
    assert_eq!(
        (node.raft.snapshot().index.0, *node.raft.configuration()),
        (2, configuration(&[1, 2, 3], &[], &[4]))
    );
    net.heal();
    net.pass(2 * TIMEOUT);
    assert_eq!(*net.raft(5).configuration(), configuration(&[1, 2, 3], &[], &[4, 5]));
}

#[test]
fn a_snapshot_from_before_any_change_takes_back_one_that_was_not_committed() {
    let net = &mut Net::elect(3, 0);
    net.cut_off(1);
    net.change(1, &[observe(4)]).unwrap();
    let (now, node, last) = (net.now, net.node(1), at(9, 2));
    let message = Message { term: Term(2), body: Body::Snapshot { last } };
    let handled = node.raft.handle_message(now, NodeId(2), &message, None, &node.log);
    assert_eq!(handled, Ok(Handled::Install(last)));
    assert_eq!(*node.raft.configuration(), configuration(&[1, 2, 3], &[], &[]));
}

#[test]
fn a_removed_leader_leads_until_that_is_committed_and_passes_on() {
    let net = &mut Net::elect(3, 0);
    net.pass(2 * HEARTBEAT);
    net.change(1, &[remove(1)]).unwrap();
    net.settle();
    assert_eq!(own_entries(net, 1), [(3, 2, configuration(&[2, 3], &[], &[]))]);
    assert_eq!(net.raft(1).role(), Role::Follower);
    assert!(matches!(net.leader(), Some(2 | 3)), "without waiting for a timeout");
    net.pass(3 * TIMEOUT);
    assert_eq!(net.raft(1).term(), Term(1), "nobody tells it of anything");
    assert_eq!(net.raft(1).poll_timeout(), Instant(u64::MAX));
}

#[test]
fn a_demoted_leader_passes_on_and_follows() {
    let net = &mut Net::elect(3, 0);
    net.pass(2 * HEARTBEAT);
    net.change(1, &[Change::Demote(NodeId(1))]).unwrap();
    net.settle();
    assert!(matches!(net.leader(), Some(2 | 3)), "without waiting for a timeout");
    net.pass(TIMEOUT);
    assert_eq!(net.raft(1).leader(), net.leader().map(NodeId));
    assert_eq!(net.raft(1).poll_timeout(), Instant(u64::MAX));
}

#[test]
fn what_a_removed_leader_has_does_not_count() {
    let net = &mut Net::elect(3, 0);
    net.pass(2 * HEARTBEAT);
    net.change(1, &[remove(1)]).unwrap();
    net.lose = |sent| matches!(sent.message.body, Body::Appended { matched, .. } if matched.0 >= 3 && sent.from == 3);
    net.settle();
    assert_eq!(
        (net.raft(1).role(), net.commits()[0]),
        (Role::Leader, 2),
        "node 2 alone has the last entry of 2 and 3"
    );
    net.heal();
    net.pass(2 * TIMEOUT);
    assert_eq!(net.raft(1).commit_index(), LogIndex(3));
    assert_ne!(net.raft(1).role(), Role::Leader);
}

#[test]
fn a_removed_node_that_does_not_know_it_disturbs_nobody() {
    let net = &mut Net::elect(3, 0);
    net.pass(2 * HEARTBEAT);
    net.cut_off(3);
    net.change(1, &[remove(3)]).unwrap();
    net.pass(2 * HEARTBEAT);
    assert_eq!(*net.raft(1).configuration(), configuration(&[1, 2], &[], &[]));
    net.heal();
    net.node(1).ignored.clear();
    net.pass(10 * TIMEOUT);
    assert_eq!((net.leader(), net.raft(1).term()), (Some(1), Term(1)));
    assert!(net.node(1).ignored.contains(&Ignored::UnknownSender));
    let events = net.node(1).events.clone();
    assert!(!events.iter().any(|event| matches!(event, Event::SteppedDown { .. })));
}

#[test]
fn an_observer_that_is_asked_by_a_node_with_a_newer_configuration_votes() {
    // Node 4 became a voter, committed by 1, 2 and 4; node 3 lags behind and knows 4 as an observer only.
    let net = &mut three_and_an_observer();
    assert_eq!(net.join(), 5);
    net.change(1, &[observe(5)]).unwrap();
    net.pass(2 * HEARTBEAT);
    net.cut_off(5);
    net.change(1, &[promote(5), promote(4)]).unwrap();
    net.settle();
    net.pass(HEARTBEAT);
    assert_eq!(*net.raft(4).configuration(), configuration(&[1, 2, 3, 4, 5], &[], &[]));
    assert_eq!(*net.raft(5).configuration(), configuration(&[1, 2, 3], &[], &[4, 5]));
    net.heal();
    net.cut_off(1);
    net.cut_off(2);
    // What 5 is asked for counts at 4, by 4's configuration.
    net.campaign(4);
    assert_eq!(net.raft(4).role(), Role::Leader, "3, 4 and 5 of five");
}

#[test]
fn a_node_without_a_configuration_votes_for_nobody() {
    let net = &mut Net::new(3, 0);
    assert_eq!(net.join(), 4);
    net.tell(1, 4, 1, Body::Vote { last: at(1, 1), transfer: false });
    assert_eq!(net.sent(4, 1), [Body::VoteAnswer { granted: false }]);
}

#[test]
fn a_joint_configuration_whose_leader_crashes_is_left_by_the_next_one() {
    let net = &mut three_and_an_observer();
    net.lose = |sent| matches!(sent.message.body, Body::Appended { matched, .. } if matched.0 >= 3);
    net.change(1, &[promote(4)]).unwrap();
    net.settle();
    net.cut_off(1);
    net.lose = |_| false;
    net.campaign(2);
    net.pass(2 * TIMEOUT);
    assert_eq!(net.leader(), Some(2));
    // The joint one is at 3, the no-op of the next leader at 4.
    assert_eq!(own_entries(net, 2), [(5, 1, configuration(&[1, 2, 3, 4], &[], &[]))]);
    assert_eq!(net.commits()[1], 5);
}

#[test]
fn a_core_without_room_for_all_members_refuses_the_entry() {
    let net = &mut Net::elect(3, 0);
    net.pass(2 * HEARTBEAT);
    let many = configuration(&[1, 2, 3, 4, 5, 6], &[], &[]);
    let body = Body::Append {
        previous: at(1, 1),
        entries: Some(EntryRange { subterm: crate::id::Subterm(1), ..range_of(2) }),
        commit: LogIndex(1),
    };
    let sent = Sent { from: 1, to: 2, message: Message { term: Term(1), body }, configuration: Some(many) };
    assert_eq!(net.deliver(sent), Err(Ignored::TooManyMembers));
    let inside = Body::Append { previous: at(1, 1), entries: Some(range_of(2)), commit: LogIndex(1) };
    let message = Message { term: Term(1), body: inside };
    assert_eq!(
        net.deliver(Sent { message, configuration: Some(configuration(&[1], &[], &[])), ..sent }),
        Err(Ignored::Malformed)
    );
    for id in 4..=5 {
        net.join();
        net.change(1, &[observe(id)]).unwrap();
        net.pass(2 * HEARTBEAT);
    }
    let full = ConfigurationError::TooManyMembers { most: 5 };
    assert_eq!(net.change(1, &[observe(6)]), Err(MembershipError::Configuration(full)));
}
