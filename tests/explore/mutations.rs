//! Deliberate bugs of the core: the exploration finds each of these. What it cannot see (bugs of liveness, of bounds, of
//! membership) is for the simulation and the scenarios.

use std::time::Duration;

use tally_core::raft::{Mutation, Raft};

use crate::search::search;
use crate::sites::{self, Site};

/// As long as this at most for each bug; it takes less than a second for most.
const TIME: Duration = Duration::from_secs(30);

/// Explores one site with a bug; the invariant that is broken is named.
fn is_caught<M: Mutation>(bug: &str, site: &Site, invariant: &str) {
    let found = search(&site.start::<Raft<3, 2, M>>(0), TIME);
    let Some((what, story)) = &found.violation else { panic!("{bug}: not found in {}: {found}", site.name) };
    println!("{bug}: found in {} after {found}\n{}\n{what}\n", site.name, story.join("\n"));
    assert!(what.starts_with(invariant), "{bug} is found as {what}");
    // `cargo xtask verify` adds these up.
    println!("proof: mutations: {bug} caught by the exploration");
}

macro_rules! bugs {
    ($($test:ident: $bug:ident in $site:ident breaks $invariant:literal,)*) => {
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
        $(
            #[test]
            fn $test() {
                is_caught::<bug::$bug>(stringify!($bug), &sites::$site, $invariant);
            }
        )*
    };
}

bugs! {
    to_say_before_durable_is_found: SAY_BEFORE_DURABLE in ELECTIONS breaks "persist before send",
    to_acknowledge_before_durable_is_found: ACKNOWLEDGE_BEFORE_DURABLE in SNAPSHOTS breaks "persist before send",
    to_count_own_before_durable_is_found: COUNT_OWN_BEFORE_DURABLE in REPLICATION breaks "durability",
    to_vouch_for_replaced_is_found: VOUCH_FOR_REPLACED in REPLICATION breaks "persist before send",
    to_commit_an_old_term_is_found: COMMIT_OLD_TERM in FIGURE_8 breaks "leader completeness",
    to_grant_twice_is_found: GRANT_TWICE in ELECTIONS breaks "election safety",
    to_grant_to_any_log_is_found: GRANT_TO_ANY_LOG in PIPELINE breaks "leader completeness",
    to_forget_a_vote_is_found: FORGET_VOTE_AT_START in ELECTIONS breaks "election safety",
    to_take_a_stale_acknowledgement_is_found: TAKE_STALE_ACKNOWLEDGEMENT in COMEBACK breaks "durability",
    to_truncate_by_an_old_append_is_found: OLD_APPEND_TRUNCATES in COPIES breaks "durability",
    to_truncate_by_an_empty_append_is_found: EMPTY_APPEND_TRUNCATES in TICKS breaks "durability",
    to_append_without_comparing_is_found: APPEND_WITHOUT_COMPARING in FIGURE_8 breaks "log matching",
    to_commit_beyond_the_match_is_found: COMMIT_BEYOND_MATCHED in READS breaks "state machine safety",
    to_take_an_old_snapshot_is_found: TAKE_OLD_SNAPSHOT in LATE_SNAPSHOTS breaks "commit only rises",
    to_read_too_early_is_found: READ_TOO_EARLY in READS breaks "linearizable reads",
    to_read_by_an_old_round_is_found: READ_BY_OLD_ROUND in READS breaks "linearizable reads",
    to_count_a_silent_witness_is_found: COUNT_SILENT_WITNESS in WITNESS_CRASHES breaks "leader completeness",
    to_ask_the_witness_first_is_found: WITNESS_ASKED_FIRST in WITNESS_CRASHES breaks "leader completeness",
    to_count_the_witness_beside_anybody_is_found: WITNESS_BESIDE_ANYBODY in WITNESS_CRASHES breaks "leader completeness",
    to_ignore_the_set_as_a_witness_is_found: WITNESS_IGNORES_SET in WITNESS_CRASHES breaks "leader completeness",
    to_answer_as_a_witness_before_it_is_stored_is_found: WITNESS_SAYS_BEFORE_STORED in WITNESS_CRASHES breaks "state machine safety",
    to_read_by_a_silent_witness_is_found: READ_BY_SILENT_WITNESS in WITNESS_SWAPS breaks "linearizable reads",
}
