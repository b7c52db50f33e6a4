//! (room of the cli)
pub mod bench;
pub mod provision;
