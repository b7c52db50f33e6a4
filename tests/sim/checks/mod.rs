//! What must hold in every history; one file an invariant. Each looks at every step that concerns it
//! and panics at the first that breaks it.

mod committed;
mod conservation;
mod delivery;
mod durability;
mod elections;
mod log_matching;
mod machines;
mod reads;

pub(crate) use committed::{Committed, Learner};
pub(crate) use conservation::Conservation;
pub(crate) use delivery::Delivery;
pub(crate) use durability::what_is_said_is_durable;
pub(crate) use elections::Elections;
pub(crate) use log_matching::LogMatching;
pub(crate) use machines::Machines;
pub(crate) use reads::Reads;

#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) elections: Elections,
    pub(crate) log_matching: LogMatching,
    pub(crate) committed: Committed,
    pub(crate) machines: Machines,
    pub(crate) conservation: Conservation,
    pub(crate) delivery: Delivery,
    pub(crate) reads: Reads,
}
