//! What must hold in every history; one file an invariant. Each looks at every step that concerns it
//! and panics at the first that breaks it.

mod committed;
mod conservation;
mod durability;
mod elections;
mod log_matching;
mod machines;
mod reads;

pub use committed::{Committed, Learner};
pub use conservation::Conservation;
pub use durability::what_is_said_is_durable;
pub use elections::Elections;
pub use log_matching::LogMatching;
pub use machines::Machines;
pub use reads::Reads;

#[derive(Debug, Default)]
pub struct Checks {
    pub elections: Elections,
    pub log_matching: LogMatching,
    pub committed: Committed,
    pub machines: Machines,
    pub conservation: Conservation,
    pub reads: Reads,
}
