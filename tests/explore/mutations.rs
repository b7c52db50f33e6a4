//! Deliberate bugs of the core: the exploration finds each of these. What it cannot see (bugs of liveness and of bounds)
//! is for the simulation and the scenarios. Some bugs break a rule that safety does not hang on: the rule is looked at
//! (see `members`), and that no harm comes of it is explored too.

use std::time::Duration;

use tally_core::raft::{Mutation, Raft};

use crate::bounds::Rules;
use crate::search::search;
use crate::sites::Site;
use crate::{bug_sites, member_sites, sites};

/// As long as this at most for each bug; it takes less than a second for most.
const TIME: Duration = Duration::from_secs(30);

/// Explores one site with a bug; the invariant that is broken is named.
fn is_caught<M: Mutation>(bug: &str, site: &Site, invariant: &str) {
    let found = search(&site.start::<Raft<5, 2, M>>(0), TIME);
    let Some((what, story)) = &found.violation else {
        panic!("{bug}: not found in {site}: {found} {:?}\n{}", found.met, site.prologue::<Raft<5, 2, M>>())
    };
    println!("{bug}: found in {site}\nafter {found}\n{}\n{what}\n", story.join("\n"));
    assert!(what.starts_with(invariant), "{bug} is found as {what}");
    // `cargo xtask verify` adds these up.
    println!("proof: mutations: {bug} caught by the exploration");
}

/// Explores one site with a bug that breaks a rule, and nothing else.
fn does_no_harm<M: Mutation>(bug: &str, site: &Site) {
    let site = Site { rules: Rules { harm_only: true, ..site.rules }, ..*site };
    let found = search(&site.start::<Raft<5, 2, M>>(0), TIME);
    println!("{bug}: no harm in {site}\n{found}\n    {:?}", found.met);
    if let Some((what, story)) = found.violation {
        panic!("{bug}: {what}\n{}\n{}", site.prologue::<Raft<5, 2, M>>(), story.join("\n"));
    }
    assert!(found.met.elected.get() > 0, "{bug}: nobody was elected, so nothing is shown");
}

macro_rules! bugs {
    ($($test:ident: $bug:ident in $room:ident::$site:ident breaks $invariant:literal,)*) => {
        $(
            #[test]
            fn $test() {
                is_caught::<bug::$bug>(stringify!($bug), &$room::$site, $invariant);
            }
        )*
        declare! { $($bug)* RETURN_LAGGING }
    };
}

macro_rules! declare {
    ($($bug:ident)*) => {
        mod bug {
            $(
                #[allow(non_camel_case_types, reason = "named as the constant is")]
                #[derive(Clone, Copy, Debug)]
                pub(super) enum $bug {}
                impl tally_core::raft::Mutation for $bug {
                    const $bug: bool = true;
                }
            )*
        }
    };
}

macro_rules! harmless {
    ($($(#[$why:meta])* $test:ident: $bug:ident in $room:ident::$site:ident,)*) => {
        $(
            $(#[$why])*
            #[test]
            fn $test() {
                does_no_harm::<bug::$bug>(stringify!($bug), &$room::$site);
            }
        )*
    };
}

bugs! {
    to_say_before_durable_is_found: SAY_BEFORE_DURABLE in sites::ELECTIONS breaks "persist before send",
    to_acknowledge_before_durable_is_found: ACKNOWLEDGE_BEFORE_DURABLE in sites::SNAPSHOTS breaks "persist before send",
    to_count_own_before_durable_is_found: COUNT_OWN_BEFORE_DURABLE in sites::REPLICATION breaks "durability",
    to_vouch_for_replaced_is_found: VOUCH_FOR_REPLACED in sites::REPLICATION breaks "persist before send",
    to_commit_an_old_term_is_found: COMMIT_OLD_TERM in sites::FIGURE_8 breaks "leader completeness",
    to_grant_twice_is_found: GRANT_TWICE in sites::ELECTIONS breaks "election safety",
    to_grant_to_any_log_is_found: GRANT_TO_ANY_LOG in sites::PIPELINE breaks "leader completeness",
    to_forget_a_vote_is_found: FORGET_VOTE_AT_START in sites::ELECTIONS breaks "election safety",
    to_take_a_stale_acknowledgement_is_found: TAKE_STALE_ACKNOWLEDGEMENT in sites::COMEBACK breaks "durability",
    to_truncate_by_an_old_append_is_found: OLD_APPEND_TRUNCATES in sites::COPIES breaks "durability",
    to_truncate_by_an_empty_append_is_found: EMPTY_APPEND_TRUNCATES in sites::TICKS breaks "durability",
    to_append_without_comparing_is_found: APPEND_WITHOUT_COMPARING in sites::FIGURE_8 breaks "log matching",
    to_commit_beyond_the_match_is_found: COMMIT_BEYOND_MATCHED in sites::READS breaks "state machine safety",
    to_take_an_old_snapshot_is_found: TAKE_OLD_SNAPSHOT in sites::LATE_SNAPSHOTS breaks "commit only rises",
    to_read_too_early_is_found: READ_TOO_EARLY in sites::READS breaks "linearizable reads",
    to_read_by_an_old_round_is_found: READ_BY_OLD_ROUND in sites::READS breaks "linearizable reads",
    to_count_a_silent_witness_is_found: COUNT_SILENT_WITNESS in sites::WITNESS_CRASHES breaks "leader completeness",
    to_ask_the_witness_first_is_found: WITNESS_ASKED_FIRST in sites::WITNESS_CRASHES breaks "leader completeness",
    to_count_the_witness_beside_anybody_is_found: WITNESS_BESIDE_ANYBODY in sites::WITNESS_CRASHES breaks "leader completeness",
    to_ignore_the_set_as_a_witness_is_found: WITNESS_IGNORES_SET in sites::WITNESS_CRASHES breaks "leader completeness",
    to_answer_as_a_witness_before_it_is_stored_is_found: WITNESS_SAYS_BEFORE_STORED in sites::WITNESS_CRASHES breaks "election safety",
    to_read_by_a_silent_witness_is_found: READ_BY_SILENT_WITNESS in sites::WITNESS_SWAPS breaks "linearizable reads",
    to_count_observers_is_found: COUNT_OBSERVERS in bug_sites::OBSERVED breaks "durability",
    to_count_a_removed_leader_is_found: COUNT_REMOVED_LEADER in member_sites::THREE_TO_TWO breaks "durability",
    to_lead_on_when_removed_is_found: REMOVED_LEADER_STAYS in member_sites::THREE_TO_TWO breaks "only voters lead",
    to_campaign_without_a_vote_is_found: NON_VOTER_CAMPAIGNS in member_sites::TWO_TO_THREE breaks "only voters lead",
    to_take_one_half_for_enough_is_found: ONE_HALF_IS_ENOUGH in bug_sites::LEFT_ALONE breaks "durability",
    to_leave_a_joint_configuration_early_is_found: LEAVE_JOINT_EARLY in bug_sites::LEFT_ALONE breaks "leader completeness",
    to_change_too_early_is_found: CHANGE_TOO_EARLY in bug_sites::NEW_LEADER breaks "changes begin late",
    to_change_while_changing_is_found: CHANGE_WHILE_CHANGING in bug_sites::LEFT_ALONE breaks "leader completeness",
    to_promote_who_lags_is_found: PROMOTE_LAGGING in member_sites::ONE_TO_TWO breaks "promoted when caught up",
    to_keep_a_dropped_configuration_is_found: KEEP_DROPPED_CONFIGURATION in bug_sites::GONE_BACK breaks "durability",
    to_hide_a_configuration_in_a_range_is_found: CONFIGURATION_WITHIN_SUBTERM in bug_sites::AFTER_A_LOSS breaks "durability",
    to_vote_twice_as_a_witness_is_found: WITNESS_VOTES_TWICE in bug_sites::TWO_CANDIDATES breaks "election safety",
    to_count_the_witness_across_subterms_is_found: WITNESS_ACROSS_SUBTERMS in bug_sites::SWAPPED_BACK breaks "leader completeness",
    to_take_an_old_record_is_found: WITNESS_TAKES_OLD_RECORD in bug_sites::LATE_RECORD breaks "leader completeness",
    to_swap_within_a_subterm_is_found: SWAP_WITHIN_SUBTERM in bug_sites::FOUR_AND_A_WITNESS breaks "leader completeness",
    to_forget_the_subterm_as_a_witness_is_found: FORGET_SUBTERM in bug_sites::SWAPPED_BACK breaks "leader completeness",
    to_write_to_the_witness_too_early_is_found: WITNESS_BEFORE_SUB_QUORUM in sites::WITNESS_CRASHES breaks "witness written in time",
}

harmless! {
    /// It leads in its term by the votes of majorities, and counts itself no more: what it commits, voters have.
    a_removed_leader_that_stays_does_no_harm: REMOVED_LEADER_STAYS in bug_sites::LEADER_REMOVED,
    /// It needs the votes of a majority of the voters, none of which is its own, and a log that is up to date to them.
    a_candidate_without_a_vote_does_no_harm: NON_VOTER_CAMPAIGNS in bug_sites::LEADER_REMOVED,
    /// Every change of voters is joint and begins from a committed configuration: majorities of both overlap in that,
    /// whoever began it. The rule is that of changes by one voter without a joint configuration (thesis, 4.1).
    a_change_too_early_does_no_harm: CHANGE_TOO_EARLY in bug_sites::NEW_LEADER,
    /// Who lags is counted for what it has.
    a_voter_that_lags_does_no_harm: PROMOTE_LAGGING in bug_sites::HASTY,
    /// A replication set may be any: entries of its subterm are counted by what is acknowledged.
    a_lagging_voter_in_the_set_does_no_harm: RETURN_LAGGING in bug_sites::SWAPPED,
    /// A newer record only makes the witness refuse more, and it is counted for what a sub-quorum has.
    a_record_too_early_does_no_harm: WITNESS_BEFORE_SUB_QUORUM in bug_sites::TWO_CANDIDATES,
    /// Beside two boxes the set that has the witness is the leader alone, in any subterm; it takes four to do harm.
    a_swap_within_a_subterm_does_no_harm_to_two: SWAP_WITHIN_SUBTERM in bug_sites::SWAPPED,
}
