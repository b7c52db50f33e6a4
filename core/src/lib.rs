//! Exact counting without a clock, an allocator or a file: the parts of Tallyd that run
//! the same on a box, in a simulator and on a microcontroller.
//!
//! * [`id`], [`time`]: names of things and of moments, as newtypes over integers.
//! * [`report`]: amounts and how they merge; how a source numbers its reports.
//! * [`meter`]: turns the readings of a cumulative value into increases.
//! * [`window`]: spans of site time and their alignment.
//! * [`raft`]: consensus that never sees a payload.
//!
//! `raft` uses only `id` and `time`; nothing here depends on the daemon.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod id;
pub mod meter;
pub mod raft;
pub mod report;
pub mod time;
pub mod window;
