use proptest::prelude::*;
use tally_core::raft::Member;

use super::*;

fn of(voters: u64, observers: u64, witness: bool) -> Configuration {
    let member = |id: u64| {
        let role = if id <= voters { MemberRole::Voter } else { MemberRole::Observer };
        Member { id: NodeId(id), role }
    };
    let mut members: Vec<Member> = (1..=voters + observers).map(member).collect();
    members.extend(witness.then_some(Member { id: NodeId(9), role: MemberRole::Witness }));
    Configuration::new(&members).unwrap()
}

fn helping(configuration: &Configuration, changes: &[Change], waiting: &[u64], witness: bool) -> Vec<u64> {
    let waiting: Vec<NodeId> = waiting.iter().map(|id| NodeId(*id)).collect();
    let holds = Holds { has_witness: witness, ..Holds::default() };
    holds.votes_that_help(configuration, changes, &waiting).map(|id| id.0).collect()
}

const NOBODY: [u64; 0] = [];

#[test]
fn the_second_box_waits_for_the_third_and_then_both_vote() {
    assert_eq!(helping(&of(1, 1, false), &[], &[2], false), NOBODY);
    assert_eq!(helping(&of(1, 2, false), &[], &[2, 3], false), [2, 3]);
    assert_eq!(helping(&of(3, 1, false), &[], &[4], false), NOBODY);
    assert_eq!(helping(&of(3, 2, false), &[], &[4, 5], false), [4, 5]);
    assert_eq!(helping(&of(2, 1, false), &[], &[3], false), [3], "two that were provisioned");
}

#[test]
fn beside_a_witness_an_even_number_votes() {
    assert_eq!(helping(&of(1, 1, false), &[], &[2], true), [2]);
    assert_eq!(helping(&of(2, 1, true), &[], &[3], true), [3]);
}

#[test]
fn who_takes_the_place_of_a_voter_votes_when_that_one_leaves() {
    let leaves = [Change::Remove(NodeId(3))];
    assert_eq!(helping(&of(3, 1, false), &leaves, &[4], false), [4]);
    assert_eq!(helping(&of(3, 1, false), &[], &[4], false), NOBODY);
}

#[test]
fn why_a_vote_waits_is_told_with_what_makes_it_come() {
    let text = why_it_waits("box2", 1);
    assert!(text.contains("a third box or a witness") && text.contains("member promote box2"), "{text}");
    assert!(text.contains("both are needed"), "{text}");
    assert!(why_it_waits("box4", 3).contains("another box"));
}

proptest! {
    #[test]
    fn no_vote_that_comes_in_makes_the_site_tolerate_less(
        voters in 1u64..6,
        waiting in 0u64..3,
        promoted in 0u64..2,
        removed in 0u64..2,
    ) {
        let configuration = of(voters, waiting + promoted, false);
        let mut changes: Vec<Change> = (0..promoted).map(|at| Change::Promote(NodeId(voters + waiting + 1 + at))).collect();
        let removed = removed.min(voters - 1);
        changes.extend((0..removed).map(|at| Change::Remove(NodeId(voters - at))));
        let waiting: Vec<u64> = (voters + 1..=voters + waiting).collect();
        let then = voters + promoted - removed;
        let with = then + helping(&configuration, &changes, &waiting, false).len() as u64;
        let tolerates = |voters: u64| (voters - 1) / 2;
        prop_assert!(with == then || (!with.is_multiple_of(2) && tolerates(with) > tolerates(then)));
        // All that helps comes in.
        prop_assert_eq!(tolerates(with), tolerates(then + waiting.len() as u64));
    }
}
