//! Consensus without payloads, clock, allocator or thread.
mod message;
pub use message::*;
