//! Majorities: the value that a majority of voters has reached, in each half of a configuration.

use super::configuration::{CONFIGURATION_MEMBERS_MAX, Configuration};
use super::set::Set;
use crate::id::NodeId;

/// The greatest value that a majority has reached; of a joint configuration the lower one of its halves.
/// Nothing (zero) without voters.
pub(super) fn reached(configuration: &Configuration, value: &dyn Fn(NodeId) -> u64) -> u64 {
    let half = |half: Set| nth_of(configuration, half, half.len() / 2, value);
    let incoming = half(configuration.incoming);
    if configuration.is_joint() { incoming.min(half(configuration.outgoing)) } else { incoming }
}

/// The value that at least `n + 1` of these voters have reached: the `n`-th in descending order, counted from
/// zero. Nothing (zero) if there are fewer. By counting: there are few voters, and sorting is several kilobytes
/// of code on a microcontroller.
#[inline(never)]
pub(super) fn nth_of(configuration: &Configuration, of: Set, n: usize, value: &dyn Fn(NodeId) -> u64) -> u64 {
    let mut values = [0; CONFIGURATION_MEMBERS_MAX];
    for (place, id) in values.iter_mut().zip(configuration.named(of)) {
        *place = value(id);
    }
    let holders = |least: u64| values.iter().filter(|value| **value >= least).count();
    values.iter().copied().filter(|least| *least > 0 && holders(*least) > n).max().unwrap_or(0)
}

#[cfg(test)]
#[path = "quorum_tests.rs"]
mod tests;
