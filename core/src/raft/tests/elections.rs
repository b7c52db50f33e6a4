use super::super::harness::*;
use super::super::*;
use crate::id::LogIndex;
use crate::time::Duration;

#[test]
fn a_site_of_one_leads_at_once_and_commits_when_its_disk_has_it() {
    let mut net = Net::new(1, 0);
    net.node(1).slow_disk = true;
    net.settle();
    assert_eq!(net.raft(1).role(), Role::Candidate, "its own vote is not durable yet");
    net.finish_write(1);
    net.settle();
    assert_eq!(net.raft(1).role(), Role::Leader);
    assert_eq!(net.commits(), [0]);
    net.finish_write(1);
    net.settle();
    assert_eq!(net.commits(), [1]);
    assert_eq!(net.now, Instant(0));
}

#[test]
fn a_leader_shows_itself_at_once_and_begins_with_an_entry_of_its_own() {
    let net = &mut Net::elect(3, 0);
    assert_eq!(net.commits()[0], 1);
    assert!(net.node(1).events.contains(&Event::BecameLeader { noop: at(1, 1) }));
    for id in 2..=3 {
        assert_eq!(net.raft(id).leader(), Some(NodeId(1)));
        assert_eq!(net.raft(id).last(), at(1, 1));
    }
}

#[test]
fn a_pre_vote_is_not_granted_while_a_leader_is_heard() {
    let net = &mut Net::elect(3, 0);
    net.pass(50_000);
    let ask = Body::PreVote { last: at(9, 1) };
    net.cuts.insert((1, 2));
    net.node(2).slow_disk = false;
    net.tell(3, 2, 2, ask);
    assert_eq!(net.sent(2, 3), [Body::PreVoteAnswer { granted: false }]);
    assert_eq!(net.raft(2).term(), Term(1), "a pre-vote changes nothing");
    net.now += crate::time::Duration(TIMEOUT);
    net.tell(3, 2, 2, ask);
    assert_eq!(net.sent(2, 3), [Body::PreVoteAnswer { granted: true }]);
}

#[test]
fn a_vote_is_not_given_while_a_leader_is_heard() {
    let net = &mut Net::elect(3, 0);
    assert_eq!(net.say(3, 2, 7, Body::Vote { last: at(9, 1), transfer: false }), Err(Ignored::Leased));
    assert_eq!(net.say(3, 1, 7, Body::Vote { last: at(9, 1), transfer: false }), Err(Ignored::Leased));
    assert_eq!((net.raft(1).term(), net.raft(2).term()), (Term(1), Term(1)));
}

#[test]
fn a_node_that_was_cut_off_does_not_disturb_when_it_comes_back() {
    let net = &mut Net::elect(3, 0);
    net.cut_off(3);
    net.pass(20 * TIMEOUT);
    assert_eq!(net.raft(3).term(), Term(1));
    net.heal();
    net.pass(5 * TIMEOUT);
    assert_eq!(net.leader(), Some(1));
    assert_eq!(net.raft(1).term(), Term(1));
    assert_eq!(net.raft(3).role(), Role::Follower);
}

#[test]
fn a_node_stuck_at_a_higher_term_comes_back_with_one_election() {
    // Node 3 had its campaign's term on disk, and its requests were lost.
    let net = &mut Net::elect(3, 0);
    net.node(3).disk_hard_state = HardState { term: Term(5), vote: Some(NodeId(3)) };
    net.restart(3);
    net.pass(5 * TIMEOUT);
    let leader = net.leader().unwrap();
    let term = net.raft(leader).term();
    assert!(term > Term(5), "{term}");
    net.propose(leader, 3).unwrap();
    net.pass(TIMEOUT);
    net.assert_same_logs();
    assert!((1..=3).all(|id| net.raft(id).term() == term));
}

#[test]
fn a_leader_that_hears_no_majority_steps_down() {
    let net = &mut Net::elect(3, 0);
    net.cut_off(1);
    net.pass(2 * TIMEOUT);
    assert_ne!(net.raft(1).role(), Role::Leader);
    assert!(net.node(1).events.contains(&Event::SteppedDown { term: Term(1) }));
    assert!(net.propose(1, 1).is_err());
}

#[test]
fn a_leader_that_is_heard_and_hears_nobody_steps_down() {
    let net = &mut Net::elect(3, 0);
    net.cuts.extend([(2, 1), (3, 1)]);
    net.pass(TIMEOUT + HEARTBEAT);
    assert_ne!(net.raft(1).role(), Role::Leader);
    net.pass(5 * TIMEOUT);
    assert!(matches!(net.leader(), Some(2 | 3)));
}

#[test]
fn an_observer_is_no_part_of_the_majority_and_never_campaigns() {
    let net = &mut Net::elect(2, 2);
    net.cut_off(2);
    net.propose(1, 1).unwrap();
    net.settle();
    assert_eq!(net.commits()[0], 1, "two observers and a leader are no majority of two voters");
    net.pass(5 * TIMEOUT);
    assert_eq!(net.leader(), None);
    assert_eq!(net.raft(3).poll_timeout(), Instant(u64::MAX));
    assert_eq!(net.say(3, 1, 9, Body::Vote { last: at(1, 1), transfer: false }), Err(Ignored::NotVoter));
    assert_eq!(net.say(3, 1, 9, Body::VoteAnswer { granted: true }), Err(Ignored::NotVoter));
}

#[test]
fn who_has_less_in_its_log_gets_no_vote() {
    let state = |term| HardState { term: Term(term), vote: None };
    for (candidate, granted) in
        [(at(3, 2), true), (at(4, 2), true), (at(1, 3), true), (at(2, 2), false), (at(9, 1), false)]
    {
        let net =
            &mut Net::with_logs(2, 0, std::vec![(state(3), std::vec![]), (state(3), std::vec![1, 2, 2])]);
        net.tell(1, 2, 4, Body::Vote { last: candidate, transfer: false });
        assert_eq!(net.sent(2, 1), [Body::VoteAnswer { granted }], "{candidate:?}");
    }
    // A later subterm decides before the length does.
    let net = &mut Net::with_logs(2, 0, std::vec![(state(3), std::vec![]), (state(3), std::vec![1, 2, 2])]);
    let last = Position { subterm: crate::id::Subterm(1), ..at(2, 2) };
    net.tell(1, 2, 4, Body::Vote { last, transfer: false });
    assert_eq!(net.sent(2, 1), [Body::VoteAnswer { granted: true }]);
}

#[test]
fn a_term_has_one_vote_whatever_is_asked_again() {
    let net = &mut Net::new(3, 0);
    let ask = Body::Vote { last: Position::ZERO, transfer: false };
    net.tell(1, 3, 1, ask);
    net.tell(2, 3, 1, ask);
    net.tell(1, 3, 1, ask);
    assert_eq!(net.sent(3, 2), [Body::VoteAnswer { granted: false }]);
    net.restart(3);
    net.tell(2, 3, 1, ask);
    assert_eq!(net.sent(3, 2), [Body::VoteAnswer { granted: false }], "the vote survives a restart");
}

#[test]
fn requests_that_were_lost_are_asked_again() {
    let net = &mut Net::new(3, 0);
    net.lose = |_| true;
    net.campaign(1);
    assert_eq!(net.raft(1).role(), Role::PreCandidate);
    net.heal();
    (2..=3).for_each(|id| net.restart(id));
    net.pass(HEARTBEAT);
    assert_eq!(net.leader(), Some(1));
}

#[test]
fn a_leader_steps_down_in_a_newer_term() {
    let net = &mut Net::elect(3, 0);
    net.say(2, 1, 4, Body::HeartbeatAnswer { round: 0 }).unwrap_err();
    assert_eq!((net.raft(1).role(), net.raft(1).term()), (Role::Follower, Term(4)));
}

#[test]
fn a_leader_that_resigns_leaves_the_others_to_go_first() {
    let net = &mut Net::elect(3, 0);
    let now = net.now;
    net.raft(1).resign(now);
    net.settle();
    assert!(net.node(1).events.contains(&Event::SteppedDown { term: Term(1) }));
    net.pass(4 * TIMEOUT);
    assert!(matches!(net.leader(), Some(2 | 3)), "{net:?}");
}

#[test]
fn no_event_is_lost_however_late_it_is_asked_for() {
    let net = &mut Net::elect(3, 0);
    net.node(1).events.clear();
    let now = net.now;
    let node = net.node(1);
    let (two, log) = (NodeId(2), PlainLog::default());
    let newer = Message { term: Term(4), body: Body::Heartbeat { commit: LogIndex(0), round: 0 } };
    assert!(node.raft.handle_message(now, two, &newer, None, &log).is_ok());
    assert!(node.raft.handle_message(now, two, &Message { term: Term(5), ..newer }, None, &log).is_ok());
    net.settle();
    let changed = Event::LeaderChanged { leader: Some(two), term: Term(5) };
    assert_eq!(net.node(1).events, [Event::SteppedDown { term: Term(1) }, changed]);
}

#[test]
fn a_site_that_cannot_be_is_refused() {
    let durable = Durable::default();
    let start = |config: Config, durable| Raft::<3, 4>::new(config, durable, Instant(0)).unwrap_err();
    let placed = |index, voters| ConfigurationEntry {
        index: LogIndex(index),
        configuration: Configuration::new(&members(voters, 0)).unwrap(),
    };
    let four = Durable { configuration: placed(0, 4), ..durable };
    let too_many = ConfigurationError::TooManyMembers { most: 3 };
    assert_eq!(start(config(1), four), SetupError::Configuration(too_many));
    let hasty = Config { heartbeat_interval: config(1).election_timeout, ..config(1) };
    assert_eq!(start(hasty, durable), SetupError::Timeouts);
    let ahead = Durable { last: at(3, 2), ..durable };
    assert_eq!(start(config(1), ahead), SetupError::Inconsistent);
    let beyond = Durable { configuration: placed(1, 1), ..durable };
    assert_eq!(start(config(1), beyond), SetupError::Inconsistent);
}

#[test]
fn the_timeouts_change_while_it_runs() {
    let net = &mut Net::elect(3, 0);
    net.pass(2 * HEARTBEAT);
    let (now, long, short) = (net.now, Duration(5 * TIMEOUT), Duration(TIMEOUT));
    let before = net.raft(2).poll_timeout();
    assert_eq!(net.raft(2).set_timeouts(now, short, short), Err(SetupError::Timeouts));
    assert_eq!(net.raft(2).set_timeouts(now, short, Duration(0)), Err(SetupError::Timeouts));
    net.raft(2).set_timeouts(now, long, Duration(HEARTBEAT)).unwrap();
    assert_eq!(net.raft(2).poll_timeout(), before + Duration(4 * TIMEOUT), "so much longer");
    assert_eq!(net.raft(2).timeouts(), (long, Duration(HEARTBEAT)));
    net.raft(2).set_timeouts(now, short, Duration(HEARTBEAT)).unwrap();
    assert_eq!(net.raft(2).poll_timeout(), before + Duration(4 * TIMEOUT), "until a leader is heard");
    net.pass(HEARTBEAT);
    assert!(net.raft(2).poll_timeout() < net.now + Duration(2 * TIMEOUT));
    let now = net.now;
    net.raft(1).set_timeouts(now, long, Duration(HEARTBEAT / 4)).unwrap();
    assert_eq!(net.raft(1).poll_timeout(), now + Duration(HEARTBEAT / 4), "a leader shows itself sooner");
}

#[test]
fn who_forgets_the_leader_votes_for_another_one_and_follows_the_same_one_again() {
    let net = &mut Net::elect(3, 0);
    net.pass(2 * HEARTBEAT);
    let ask = Body::PreVote { last: at(1, 1) };
    net.tell(3, 2, 2, ask);
    assert_eq!(net.sent(2, 3), [Body::PreVoteAnswer { granted: false }]);
    let now = net.now;
    let due = net.raft(2).poll_timeout();
    net.raft(2).forget_leader(now);
    assert_eq!((net.raft(2).leader(), net.raft(2).poll_timeout()), (None, due));
    net.tell(3, 2, 2, ask);
    assert_eq!(net.sent(2, 3), [Body::PreVoteAnswer { granted: true }]);
    net.pass(HEARTBEAT);
    assert_eq!((net.raft(2).leader(), net.raft(2).term()), (Some(NodeId(1)), Term(1)));
    net.raft(1).forget_leader(now);
    assert_eq!(net.raft(1).role(), Role::Leader, "a leader does not forget itself");
    net.propose(1, 2).unwrap();
    net.pass(HEARTBEAT);
    assert_eq!(net.commits(), [3; 3]);
}

#[test]
fn longer_timeouts_count_at_once_and_shorter_ones_from_the_next_heartbeat_on() {
    let net = &mut Net::elect(3, 0);
    let now = net.now;
    for id in 1..=3 {
        let set = net.raft(id).set_timeouts(now, Duration(10 * TIMEOUT), Duration(2 * TIMEOUT));
        assert_eq!(set, Ok(()));
    }
    // Three of the old timeouts pass between two heartbeats, and nobody campaigns.
    let term = net.raft(1).term();
    net.pass(20 * TIMEOUT);
    assert_eq!((net.leader(), net.raft(1).term()), (Some(1), term));
    for id in 1..=3 {
        let now = net.now;
        net.raft(id).set_timeouts(now, Duration(TIMEOUT), Duration(HEARTBEAT)).unwrap();
    }
    net.pass(TIMEOUT);
    assert_eq!(net.raft(1).term(), term);
    net.node(1).down = true;
    net.pass(8 * TIMEOUT);
    assert!(net.leader().is_some_and(|leader| leader != 1), "the shorter timeouts are in force");
}

#[test]
fn a_refusal_by_a_node_that_was_never_in_a_term_is_heard() {
    let refuses = |granted| Message { term: Term(0), body: Body::PreVoteAnswer { granted } };
    assert!(refuses(false).is_plausible());
    assert!(!refuses(true).is_plausible(), "nobody campaigns in term 0");
    let net = &mut Net::new(3, 0);
    net.now += Duration(2 * TIMEOUT);
    let now = net.now;
    net.raft(1).handle_timeout(now);
    assert_eq!((net.raft(1).role(), net.raft(1).term()), (Role::PreCandidate, Term(0)));
    net.tell(2, 1, 0, Body::PreVoteAnswer { granted: false });
    assert_eq!(net.raft(1).role(), Role::PreCandidate);
}

#[test]
fn a_term_that_no_site_can_come_to_is_not_believed() {
    let net = &mut Net::elect(3, 0);
    let ask = Body::Vote { last: at(9, 1), transfer: true };
    assert_eq!(net.say(3, 2, (1 << 62) - 1, ask), Err(Ignored::Malformed));
    assert_eq!(net.say(3, 2, (1 << 32) + 2, ask), Err(Ignored::Malformed));
    assert_eq!(net.raft(2).term(), Term(1));
    let ping = Message { term: Term(1 << 33), body: Body::WitnessPing { round: 1 } };
    assert_eq!(
        Witness::<NoMutation>::new(WitnessRecord::default()).handle(NodeId(1), &ping),
        Err(Ignored::Malformed)
    );
    net.tell(3, 2, (1 << 32) + 1, ask);
    assert_eq!(net.raft(2).term(), Term((1 << 32) + 1));
}
