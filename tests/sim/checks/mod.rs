//! What must hold in every history; one file an invariant. Each looks at every step that concerns it
//! and panics at the first that breaks it.

mod committed;
mod conservation;
mod delivery;
mod digest_equality;
mod election_safety;
mod exactly_once;
mod leader_append_only;
mod leader_completeness;
mod log_matching;
pub(crate) mod memory;
mod persist_before_send;
pub(crate) mod progress;
mod reads;
mod site_time;
mod state_machine_safety;
mod witness;

pub(crate) use committed::{Committed, Held, Holders, Learner, held};
pub(crate) use conservation::Conservation;
pub(crate) use delivery::Delivery;
pub(crate) use digest_equality::DigestEquality;
pub(crate) use election_safety::ElectionSafety;
pub(crate) use exactly_once::ExactlyOnce;
pub(crate) use leader_append_only::LeaderAppendOnly;
pub(crate) use leader_completeness::a_leader_has_what_is_committed;
pub(crate) use log_matching::LogMatching;
pub(crate) use persist_before_send::what_is_said_is_durable;
pub(crate) use reads::Reads;
pub(crate) use site_time::SiteTimes;
pub(crate) use state_machine_safety::what_is_applied_is_committed;
pub(crate) use witness::{a_record_goes_on, what_a_witness_says_is_stored};

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
