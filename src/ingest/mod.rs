//! The ways in: each file takes counts from one kind of sender and ends in the accumulator.

pub mod poll;
pub mod statsd;
