//! What must hold in every history; one file an invariant. Each looks at every step that concerns it
//! and panics at the first that breaks it.

mod check_quorum;
mod commit_told;
mod committed;
mod conservation;
mod delivery;
mod digest_equality;
mod election_safety;
mod exactly_once;
mod leader_append_only;
mod leader_completeness;
mod lease;
mod log_matching;
pub(crate) mod membership;
pub(crate) mod memory;
mod only_voters_campaign;
mod persist_before_send;
mod pre_vote;
pub(crate) mod progress;
mod quorum;
mod reads;
mod replication_set;
mod site_time;
mod state_machine_safety;
pub(crate) mod transfer;
mod witness;

use check_quorum::CheckQuorum;
pub(crate) use commit_told::the_commit_index_is_told;
pub(crate) use committed::{Committed, Held, Holders, Learner, held};
pub(crate) use conservation::Conservation;
pub(crate) use delivery::Delivery;
pub(crate) use digest_equality::DigestEquality;
pub(crate) use election_safety::ElectionSafety;
pub(crate) use exactly_once::ExactlyOnce;
pub(crate) use leader_append_only::LeaderAppendOnly;
pub(crate) use leader_completeness::a_leader_has_what_is_committed;
use lease::Lease;
pub(crate) use log_matching::LogMatching;
pub(crate) use only_voters_campaign::only_voters_campaign;
pub(crate) use persist_before_send::what_is_said_is_durable;
use pre_vote::PreVotes;
pub(crate) use reads::Reads;
use replication_set::ReplicationSet;
pub(crate) use replication_set::a_sub_quorum_has_the_subterm;
pub(crate) use site_time::SiteTimes;
pub(crate) use state_machine_safety::what_is_applied_is_committed;
pub(crate) use witness::{a_record_goes_on, what_a_witness_says_is_stored};

/// What is looked at in a whole history.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) election_safety: ElectionSafety,
    pub(crate) leader_append_only: LeaderAppendOnly,
    pub(crate) log_matching: LogMatching,
    pub(crate) committed: Committed,
    pub(crate) digest_equality: DigestEquality,
    pub(crate) exactly_once: ExactlyOnce,
    pub(crate) conservation: Conservation,
    pub(crate) delivery: Delivery,
    pub(crate) reads: Reads,
    pub(crate) site_times: SiteTimes,
}

/// What is looked at in one incarnation of a box.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    pub(crate) pre_votes: PreVotes,
    pub(crate) lease: Lease,
    pub(crate) check_quorum: CheckQuorum,
    pub(crate) replication_set: ReplicationSet,
}
