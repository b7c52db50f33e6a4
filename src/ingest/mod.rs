//! The ways in: each takes counts from one kind of sender, by sections of the configuration of its own, and ends in the
//! accumulator.
//!
//! A new one is a file or a folder here with an [`Ingest`], and a line where `ways_in!` is called below.

use std::error::Error;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::accumulator::Accumulator;
use crate::clock::SiteClock;
use crate::environment::Says;
use crate::figures::Family;

pub mod poll;
pub mod statsd;

/// A way in at work: a listener, say, or all that poll something of one kind.
pub trait Ingest: Debug + Sized + Send + 'static {
    /// What the configuration says of it: `[ingest.NAME]`, or all of `[[ingest.NAME]]`. What a value's type does not
    /// take is an error of the reader, which names file, line and key, and for an unknown key the nearest known one.
    type Section: Clone + Debug + Default + PartialEq + DeserializeOwned;
    /// What it shows of itself in the status, under its name: of `[ingest.NAME]` an object, of `[[ingest.NAME]]` a list
    /// with an object for each. `tallyd status` shows an object's plain members and what stands in `refused`, a list of
    /// `{reason, count, example}`; of a list how many there are, and for each that has an `error` what it `reads` and
    /// the error.
    type Status: Serialize;
    /// Why it does not start.
    type Error: Error + Send + Sync + 'static;

    /// Its keys that a variable of the environment can override, in full; those of lists have none.
    const KEYS: &'static [(&'static str, Says)] = &[];

    /// Checks what the reader of the configuration cannot: one key against another, patterns, bounds.
    ///
    /// # Errors
    /// What is wrong, behind the full key, such as `ingest.poll[2].pattern: `.
    fn check(section: &Self::Section) -> Result<(), String>;

    /// The keys of which `new` says something else, in full: a reload tells that they need a restart.
    fn changed(running: &Self::Section, new: &Self::Section) -> Vec<&'static str>;

    /// Begins to count, on the runtime. `None`: the configuration turns it off.
    ///
    /// # Errors
    /// What only a person can mend, such as a port that is taken: the daemon does not start then. A counterpart that does
    /// not answer is none: the way in tries again, and its status says so.
    fn start(section: &Self::Section, to: &Destination<'_>) -> Result<Option<Self>, Self::Error>;

    /// How it does: what it reads, with which error since when. Called twice a second.
    fn status(&self) -> Self::Status;

    /// Its families for `/metrics`, all with `tallyd_NAME_` before their names. Called as often.
    fn figures(&self) -> Vec<Family>;

    /// Takes in nothing more and counts what it has read, as quickly as it can; what hangs is left. All ways in stop at
    /// the same time, before what counts is committed and saved.
    fn stop(self) -> impl Future<Output = ()> + Send;
}

/// Where ways in count to, and for which box.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// The box, as `NAME/NUMBER`: what it alone reads is told by that from what others read.
    pub node: &'a str,
    /// Where counts go.
    pub accumulator: &'a Arc<Accumulator>,
    /// Site time.
    pub clock: &'a Arc<SiteClock>,
}

/// Why a way in did not start.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct IngestError(Box<dyn Error + Send + Sync>);

/// Makes of the list of the ways in all that depends on it.
macro_rules! ways_in {
    ($($(#[$doc:meta])* $name:ident: $way:ty,)*) => {
        /// `[ingest]`: the ways in.
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct IngestSection {
            $($(#[$doc])* pub $name: <$way as Ingest>::Section,)*
        }

        impl IngestSection {
            /// The keys that a variable of the environment can override, by way in.
            pub(crate) const KEYS: &'static [&'static [(&'static str, Says)]] = &[$(<$way as Ingest>::KEYS,)*];

            /// Checks what the reader of the configuration cannot.
            ///
            /// # Errors
            /// What is wrong, behind the full key.
            pub fn check(&self) -> Result<(), String> {
                $(<$way as Ingest>::check(&self.$name)?;)*
                Ok(())
            }

            /// The keys of which `new` says something else.
            pub(crate) fn changed(&self, new: &IngestSection) -> Vec<&'static str> {
                [$(<$way as Ingest>::changed(&self.$name, &new.$name),)*].concat()
            }
        }

        /// All ways in, at work.
        #[derive(Debug)]
        pub struct WaysIn {
            $($name: Option<$way>,)*
        }

        impl WaysIn {
            /// Starts those that the configuration does not turn off; to be called on the runtime.
            ///
            /// # Errors
            /// One cannot start; then none counts.
            pub fn start(section: &IngestSection, to: &Destination<'_>) -> Result<WaysIn, IngestError> {
                Ok(WaysIn {
                    $($name: <$way as Ingest>::start(&section.$name, to)
                        .map_err(|error| IngestError(Box::new(error)))?,)*
                })
            }

            /// Shows of each its name, its status and its figures.
            pub fn show(&self, mut show: impl FnMut(&'static str, Value, Vec<Family>)) {
                $(if let Some(way) = &self.$name {
                    let status = serde_json::to_value(way.status()).unwrap_or_default();
                    show(stringify!($name), status, way.figures());
                })*
            }

            /// Stops them all, at the same time.
            pub async fn stop(self) {
                tokio::join!($(async {
                    if let Some(way) = self.$name {
                        way.stop().await;
                    }
                },)*);
            }
        }
    };
}

ways_in! {
    /// `[ingest.statsd]`: UDP.
    statsd: statsd::Statsd,
    /// `[[ingest.poll]]`: numbers in files.
    poll: poll::Polls,
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
