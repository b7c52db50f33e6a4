//! What is explored of sites whose members change.

use std::cell::Cell;

use tally_core::raft::Raft;

use crate::bounds::Met;
use crate::member_sites as sites;
use crate::tests::explore;

/// Room for one more than three members: halves of a joint configuration need not share any.
type Core = Raft<5, 2>;

/// Joint configurations that are left, and in which others are elected; and the witness is needed.
const BESIDE_A_WITNESS: &[fn(&Met) -> &Cell<u64>] =
    &[|met| &met.left, |met| &met.elected_jointly, |met| &met.witness_stored];

#[test]
fn no_second_box_goes_wrong() {
    explore::<Core>(&sites::ONE_TO_TWO, &[|met| &met.left]);
}

#[test]
fn no_snapshot_for_a_second_box_goes_wrong() {
    explore::<Core>(&sites::BY_SNAPSHOT, &[|met| &met.left, |met| &met.installed]);
}

#[test]
fn no_return_goes_wrong() {
    explore::<Core>(&sites::REJOIN, &[|met| &met.left, |met| &met.elected]);
}

#[test]
fn no_replacement_of_all_goes_wrong() {
    explore::<Core>(&sites::ALL_REPLACED, &[|met| &met.left, |met| &met.elected_jointly]);
}

#[test]
fn no_third_box_goes_wrong() {
    explore::<Core>(&sites::TWO_TO_THREE, &[|met| &met.left, |met| &met.elected_jointly]);
}

#[test]
fn no_removal_goes_wrong() {
    explore::<Core>(&sites::THREE_TO_TWO, &[|met| &met.left, |met| &met.elected_jointly, |met| &met.dropped]);
}

#[test]
fn no_removal_of_several_goes_wrong() {
    explore::<Core>(&sites::THREE_TO_ONE, &[|met| &met.left, |met| &met.dropped]);
}

#[test]
fn no_replacement_in_two_goes_wrong() {
    explore::<Core>(&sites::REPLACE_OF_TWO, &[|met| &met.left, |met| &met.elected_jointly]);
}

#[test]
fn no_replacement_in_three_goes_wrong() {
    explore::<Core>(&sites::REPLACE_OF_THREE, &[|met| &met.left, |met| &met.elected_jointly]);
}

#[test]
fn no_demotion_goes_wrong() {
    explore::<Core>(&sites::DEMOTED, &[|met| &met.left, |met| &met.dropped]);
}

#[test]
fn no_replacement_beside_a_witness_goes_wrong() {
    explore::<Core>(&sites::BY_WAY_OF_ONE, BESIDE_A_WITNESS);
}

#[test]
fn no_replacement_of_a_dead_box_beside_a_witness_goes_wrong() {
    explore::<Core>(&sites::WITHOUT_THE_DEAD, BESIDE_A_WITNESS);
}

#[test]
fn no_replacement_at_once_beside_a_witness_goes_wrong() {
    explore::<Core>(&sites::BY_WAY_OF_TWO, BESIDE_A_WITNESS);
}

#[test]
fn no_witness_that_comes_or_goes_goes_wrong() {
    explore::<Core>(&sites::WITNESS_COMES, BESIDE_A_WITNESS);
}

#[test]
fn no_joint_configuration_with_a_witness_goes_wrong() {
    explore::<Core>(&sites::WITNESS_JOINT, BESIDE_A_WITNESS);
}

#[test]
fn no_joint_configuration_with_a_witness_and_slow_disks_goes_wrong() {
    explore::<Core>(&sites::WITNESS_JOINT_SLOWLY, BESIDE_A_WITNESS);
}

#[test]
fn no_swap_while_members_change_goes_wrong() {
    explore::<Core>(&sites::WITNESS_JOINT_SWAPS, &[|met| &met.left, |met| &met.witness_stored]);
}

#[test]
fn no_leader_outside_its_group_goes_wrong() {
    explore::<Core>(&sites::LEADER_OUTSIDE, BESIDE_A_WITNESS);
}

#[test]
fn no_swap_by_a_leader_outside_its_group_goes_wrong() {
    explore::<Core>(&sites::LEADER_OUTSIDE_SWAPS, &[|met| &met.left, |met| &met.witness_stored]);
}
