//! How a box becomes a member of a site by a token, without files being carried.
//!
//! * `token`: what people type, and what both ends derive from it. `frames`: what is said. `proof`: what is signed.
//! * `site_side`, `joiner`: both ends of the exchange, without I/O: frames go in, frames and decisions come out.
//! * `serve`, `dial`: the same over QUIC.
//!
//! The two ends prove to each other that they hold the token, over the connection that they share: both proofs name
//! the exporter of its TLS session, which somebody in the middle cannot make the same on both sides.

pub(crate) mod dial;
pub mod frames;
pub mod joiner;
mod proof;
pub(crate) mod serve;
pub mod site_side;
pub mod token;
mod wire;

pub use proof::{EXPORTER_BYTES, Proofs};
pub use token::{Token, TokenError};

#[cfg(test)]
#[path = "join/exchange_tests.rs"]
mod tests;
