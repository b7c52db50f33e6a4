//! What must hold, by room. The harness checks after each step that nobody commits something else.

mod anything;
mod changing;
mod elections;
mod histories;
mod persisting;
mod reading;
mod replicating;
mod snapshots;
mod transferring;
mod witnessing;
