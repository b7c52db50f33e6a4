//! Majorities: what most voters have reached.

use heapless::Vec;

/// The greatest value that a majority has reached, each voter standing for one; `None` without voters.
pub(super) fn reached<T: Ord + Copy, const N: usize>(mut voters: Vec<T, N>) -> Option<T> {
    voters.sort_unstable_by(|a, b| b.cmp(a));
    // The majority's last member in descending order: of 4 the third, of 5 the third.
    voters.get(voters.len() / 2).copied()
}

/// Whether the voters that said yes are a majority of them all.
pub(super) const fn is_majority(yes: usize, voters: usize) -> bool {
    yes > voters / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The dumb twin: tries each value and counts who has it.
    fn reached_by_counting(voters: &[u64]) -> Option<u64> {
        let has_majority =
            |value: u64| voters.iter().filter(|reached| **reached >= value).count() * 2 > voters.len();
        voters.iter().copied().filter(|value| has_majority(*value)).max()
    }

    proptest! {
        #[test]
        fn a_majority_is_what_counting_finds(voters in proptest::collection::vec(0u64..6, 0..=9)) {
            let packed: Vec<u64, 9> = voters.iter().copied().collect();
            prop_assert_eq!(reached(packed), reached_by_counting(&voters));
        }

        #[test]
        fn two_majorities_share_a_voter(voters in 1usize..=9, one in 0u32..512, other in 0u32..512) {
            let all = (1u32 << voters) - 1;
            let (one, other) = (one & all, other & all);
            let wins = |set: u32| is_majority(set.count_ones() as usize, voters);
            prop_assert!(!(wins(one) && wins(other)) || one & other != 0);
        }
    }
}
