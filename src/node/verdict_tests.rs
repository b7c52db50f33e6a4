use super::*;
use crate::node::Tolerates;
use tally_core::id::NodeId;

fn member(number: u64, connected: bool) -> MemberStatus {
    MemberStatus {
        id: NodeId(number),
        name: format!("box{number}"),
        membership: Some(MemberRole::Voter),
        connected,
        votes: true,
        ..MemberStatus::default()
    }
}

/// A site of three as box1, its leader, sees it; `away`: who is not connected.
fn site(away: &[u64]) -> NodeStatus {
    let members: Vec<_> = (1..=3).map(|number| member(number, !away.contains(&number))).collect();
    NodeStatus {
        node_id: 1,
        role: NodeRole::Leader,
        leader: Some("box1".to_owned()),
        ready: true,
        tolerates: Tolerates {
            failures: 1_u64.saturating_sub(away.len() as u64),
            text: "in words".to_owned(),
        },
        members,
        ..NodeStatus::default()
    }
}

fn says(status: &NodeStatus) -> String {
    let up = status.members.iter().filter(|member| writes(member)).count();
    let known = Known { majority: up > status.members.len() / 2, ..Known::default() };
    let verdict = verdict(status, &known, false);
    assert_eq!(verdict.counts, verdict.text.starts_with("works; "), "{}", verdict.text);
    assert_eq!(verdict.counts, verdict.why.is_none() && verdict.advice.is_none());
    verdict.text
}

#[test]
fn a_site_that_works_says_what_it_tolerates_and_who_is_away() {
    assert_eq!(says(&site(&[])), "works; tolerates 1 failing");
    assert_eq!(says(&site(&[3])), "works; tolerates none: box3 is away");
    let mut status = site(&[]);
    status.members.truncate(1);
    status.tolerates.failures = 0;
    assert_eq!(says(&status), "works; tolerates none: the site has one box");
    let mut status = site(&[]);
    status.members.truncate(2);
    status.tolerates.failures = 0;
    assert_eq!(says(&status), "works; tolerates none: all 2 boxes are needed");
    let mut status = site(&[]);
    status.members.extend([4, 5].map(|number| member(number, false)));
    assert_eq!(says(&status), "works; tolerates 1 failing; box4 and box5 are away");
    let mut status = site(&[]);
    status.members[1].disk_ok = Some(false);
    status.tolerates.failures = 0;
    assert_eq!(says(&status), "works; tolerates none: the disk of box2 takes no writes");
    let known = Known { witness_for: Some("box2"), majority: true, ..Known::default() };
    let mut status = site(&[]);
    status.tolerates.failures = 0;
    assert_eq!(verdict(&status, &known, false).text, "works; tolerates none: box2 is catching up");
}

#[test]
fn without_a_majority_it_says_whom_to_bring_back() {
    assert_eq!(
        says(&site(&[2, 3])),
        "does NOT count: in words; do: start box2 or box3 or mend the network to them"
    );
    let mut status = site(&[]);
    status.members.iter_mut().skip(1).for_each(|member| member.disk_ok = Some(false));
    assert_eq!(says(&status), "does NOT count: in words; do: mend the disk of box2 or box3");
}

#[test]
fn a_disk_that_takes_nothing_comes_first_and_the_others_are_named_if_they_go_on() {
    let mut status = site(&[]);
    status.members[0].disk_ok = Some(false);
    status.leader = None;
    status.storage.state = Some(DiskFault::Hung);
    status.storage.what = Some("a write to the log has not finished for 10000 ms".to_owned());
    status.storage.advice = Some("wait for it");
    assert_eq!(
        says(&status),
        "does NOT count: this box's disk is hung (a write to the log has not finished for 10000 ms); do: wait for it; \
         meanwhile count at another box, the others go on"
    );
    status.members.truncate(1);
    assert!(says(&status).ends_with("10000 ms); do: wait for it"), "alone, there is no other box");
}

#[test]
fn a_write_that_takes_long_is_told_before_the_disk_counts_as_hung_where_nothing_goes_on_without_it() {
    let mut status = site(&[]);
    status.storage.waiting_ms = 4_000;
    assert_eq!(says(&status), "works; tolerates 1 failing", "the others go on");
    status.members.truncate(1);
    assert!(says(&status).starts_with("does NOT count: the disk has not finished a write for 4.0 s; do: "));
    status.storage.waiting_ms = 300;
    assert!(says(&status).starts_with("works; "));
}

#[test]
fn every_state_in_which_nothing_is_committed_says_what_to_do() {
    let of = |change: &dyn Fn(&mut NodeStatus)| {
        let mut status = site(&[]);
        change(&mut status);
        says(&status)
    };
    for (text, why) in [
        (of(&|status| status.leader = None), "no leader, an election is going on"),
        (of(&|status| status.state_check.state = StateVerdict::OutOfService), "this box's state differed"),
        (of(&|status| status.refused = Some("too many sources".to_owned())), "too many sources"),
        (of(&|status| status.role = NodeRole::None), "this box is not a member of the site yet"),
        (of(&|status| status.ready = false), "this box has just started"),
    ] {
        assert!(text.starts_with(&format!("does NOT count: {why}")) && text.contains("; do: "), "{text}");
    }
    let known = Known { majority: true, ..Known::default() };
    let removed = verdict(&site(&[]), &known, true);
    assert!(removed.text.starts_with("does NOT count: this box was removed from the site; do: stop it"));
    let mut status = site(&[]);
    status.leader = None;
    let known = Known { refused_by_witness: true, ..known };
    assert!(verdict(&status, &known, false).text.starts_with("does NOT count: in words; do: "));
}
