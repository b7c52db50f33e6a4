//! The product as its users run it: real processes, real disks, real kills.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "all of it is a test: a panic is the failure report"
)]

mod bad_input;
mod counting;
mod harness;
mod killing;
mod starting;
