//! (room of the cli)
pub mod provision;
