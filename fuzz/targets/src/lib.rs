//! What each fuzz target does with bytes: it gives them to one way in of the daemon, as a peer, a client, a device or a
//! disk would, and checks what must hold whatever they are. The fuzzers (`fuzz/`) and the test that replays the
//! corpus run the same functions. A violation is a panic.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "all of it is a test: a panic is the failure report"
)]

mod config;
mod doors;
mod entries;
mod files;
mod frames;
mod http;
mod input;
mod join;
mod memory;
mod raft;
mod recovery;
mod site_snapshot;
mod statsd;
mod witness;

/// A way in, and what is known to be interesting for it.
#[derive(Clone, Copy, Debug)]
pub struct FuzzTarget {
    /// As the fuzzer and the folder of its corpus are called.
    pub name: &'static str,
    /// Gives the bytes to it; panics if something is violated.
    pub run: fn(&[u8]),
    /// Inputs that the real encoders make: what a fuzzer begins with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [FuzzTarget; 12] = [
    FuzzTarget { name: "frames", run: frames::run, seeds: frames::seeds },
    FuzzTarget { name: "join", run: join::run, seeds: join::seeds },
    FuzzTarget { name: "raft", run: raft::run, seeds: raft::seeds },
    FuzzTarget { name: "witness", run: witness::run, seeds: witness::seeds },
    FuzzTarget { name: "entries", run: entries::run, seeds: entries::seeds },
    FuzzTarget { name: "site_snapshot", run: site_snapshot::run, seeds: site_snapshot::seeds },
    FuzzTarget { name: "recovery", run: recovery::run, seeds: recovery::seeds },
    FuzzTarget { name: "http", run: http::run, seeds: http::seeds },
    FuzzTarget { name: "doors", run: doors::run, seeds: doors::seeds },
    FuzzTarget { name: "statsd", run: statsd::run, seeds: statsd::seeds },
    FuzzTarget { name: "config", run: config::run, seeds: config::seeds },
    FuzzTarget { name: "files", run: files::run, seeds: files::seeds },
];

/// The fuzzer of the target of that name.
#[macro_export]
macro_rules! fuzzer {
    ($name:literal) => {
        ::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
            static TARGET: ::std::sync::LazyLock<$crate::FuzzTarget> =
                ::std::sync::LazyLock::new(|| $crate::target($name).expect("a target of that name"));
            (TARGET.run)(bytes)
        });
    };
}

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<FuzzTarget> {
    TARGETS.into_iter().find(|target| target.name == name)
}
