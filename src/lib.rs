//! The daemon. `ARCHITECTURE.md` shows the house; each module's header says what its room is for.

pub mod accumulator;
pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod deliberate;
pub mod dropped;
pub mod environment;
pub mod identity;
pub mod ingest;
pub mod logging;
pub mod metrics;
pub mod mqtt;
pub mod node;
pub mod outside;
pub mod random;
pub mod reload;
pub mod resolve;
pub mod service;
pub mod signals;
pub mod site;
pub mod storage;
pub mod transport;
pub mod upstream;
pub mod witness;
