//! Whole sites as real processes on a real disk with a real Mosquitto: what holds when boxes are killed,
//! input is bad, and brokers come and go.

#![allow(clippy::unwrap_used, reason = "everything here is a test: a panic is the failure report")]

mod adaptive_timeout;
mod bad_input;
mod boxes;
mod broker;
mod browser;
#[cfg(debug_assertions)]
mod clocks;
mod counting;
mod crashes;
mod damage;
mod doors;
mod everything;
mod figures;
mod harness;
mod hostile;
mod http;
mod joining;
mod joining_refused;
mod lasts;
mod load;
mod logs;
mod members;
mod members_refused;
mod names;
mod net;
mod page;
mod polling;
mod replaced;
mod reports;
mod restarts;
mod seeing;
mod service;
mod starting;
#[cfg(debug_assertions)]
mod state_check;
mod statsd;
#[cfg(debug_assertions)]
mod stepped;
mod stops;
mod transfers;
mod upstream;
mod waiting_witness;
mod wear;
mod witness;
