use std::cell::Cell;
use std::collections::BTreeSet;
use std::vec::Vec as List;

use super::super::configuration::ConfigurationParts;
use super::*;
use proptest::prelude::*;

/// The dumb twin: tries each value and counts, in each half, who has it.
fn reached_by_counting(halves: &[List<u64>], values: &[u64]) -> u64 {
    let value_of = |id: u64| values[usize::try_from(id).unwrap() - 1];
    let decides =
        |half: &List<u64>, value| half.iter().filter(|id| value_of(**id) >= value).count() * 2 > half.len();
    let holds = |value: u64| halves.iter().all(|half| half.is_empty() || decides(half, value));
    values.iter().copied().filter(|value| holds(*value)).max().unwrap_or(0)
}

fn ids(half: &[u64]) -> List<NodeId> {
    half.iter().copied().map(NodeId).collect()
}

fn joint(incoming: &[u64], outgoing: &[u64]) -> Configuration {
    let (voters, outgoing) = (&ids(incoming)[..], &ids(outgoing)[..]);
    Configuration::from_parts(&ConfigurationParts { voters, outgoing, ..ConfigurationParts::default() })
        .unwrap()
}

fn some_of_nine(least: usize) -> impl Strategy<Value = List<u64>> {
    proptest::collection::btree_set(1u64..=9, least..=9)
        .prop_map(|set: BTreeSet<u64>| set.into_iter().collect())
}

/// Says how many cases there were: `cargo xtask verify` adds them up.
fn tell(cases: &Cell<u64>) {
    std::println!("proof: quorum arithmetic: {} cases", cases.get());
}

#[test]
fn a_joint_majority_is_what_counting_finds() {
    let values = proptest::collection::vec(0u64..6, 9);
    let cases = Cell::new(0);
    proptest!(|(incoming in some_of_nine(1), outgoing in some_of_nine(0), values in values)| {
        cases.set(cases.get() + 1);
        let configuration = joint(&incoming, &outgoing);
        let value = |id: NodeId| values[usize::try_from(id.0).unwrap() - 1];
        prop_assert_eq!(reached(&configuration, &value), reached_by_counting(&[incoming, outgoing], &values));
    });
    tell(&cases);
}

/// What lets voters change at all: whoever decides in the old configuration, in the joint one or in the new
/// one shares a voter with whoever decides in the next.
#[test]
fn two_decisions_in_a_row_share_a_voter() {
    let decides = |configuration: &Configuration, set: u32| {
        reached(configuration, &|id| u64::from(set >> (id.0 - 1) & 1)) > 0
    };
    let cases = Cell::new(0);
    proptest!(|(old in some_of_nine(1), new in some_of_nine(1), one in 0u32..512, other in 0u32..512)| {
        cases.set(cases.get() + 1);
        let (joint, old, new) = (joint(&new, &old), joint(&old, &[]), joint(&new, &[]));
        for (before, after) in [(&old, &joint), (&joint, &joint), (&joint, &new)] {
            prop_assert!(!(decides(before, one) && decides(after, other)) || one & other != 0);
        }
    });
    tell(&cases);
}

#[test]
fn the_nth_is_what_sorting_finds() {
    let values = proptest::collection::vec(0u64..6, 9);
    let cases = Cell::new(0);
    proptest!(|(of in some_of_nine(1), n in 0usize..9, values in values)| {
        cases.set(cases.get() + 1);
        let configuration = joint(&of, &[]);
        let half = configuration.incoming;
        let value = |id: NodeId| values[usize::try_from(id.0).unwrap() - 1];
        let twin =
            (0..=5u64).rev().find(|least| of.iter().filter(|id| value(NodeId(**id)) >= *least).count() > n);
        prop_assert_eq!(nth_of(&configuration, half, n, &value), twin.unwrap_or(0));
    });
    tell(&cases);
}
