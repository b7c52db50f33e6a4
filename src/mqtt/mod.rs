//! The MQTT connection, for whoever publishes or subscribes: the only room that names the client library.
//!
//! It knows brokers, not what is said to them: no summaries, no site, no section of the configuration but by the
//! name that it is given (`BrokerTarget::section`).
//!
//! * `url`: a broker's address. `tls`: whom to trust; `pinned`: a broker's own certificate.
//! * `target`: all of that together, checked. `options`: the same for the client library; `store`: what that asks for
//!   of earlier sessions.
//! * `connect`: the way to CONNACK, and the probe. `limits`: what the broker says that it can do.
//! * `connection`: messages out, answers in, until it ends.
//! * `errors`, `reasons`: the library's errors and MQTT's reason codes in words. `topic`: what a topic may contain.

mod connect;
mod connection;
mod errors;
mod limits;
mod options;
mod pinned;
mod reasons;
mod store;
mod target;
mod tls;
mod topic;
mod url;

pub(crate) use connect::probe;
pub(crate) use connection::Connection;
pub use connection::{Answer, Ending, Message, Refusal};
pub(crate) use limits::Learned;
pub use limits::Limits;
pub(crate) use options::{IN_FLIGHT_MAX, WILL_DELAY_S};
pub(crate) use reasons::{named, of_message};
pub use target::AccessError;
pub(crate) use target::{Access, BrokerTarget};
pub(crate) use tls::system_authorities;
pub(crate) use topic::is_allowed;
pub use url::{BrokerUrl, BrokerUrlError};

#[cfg(test)]
pub(crate) mod fake_broker;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tls_tests;
