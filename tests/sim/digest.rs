//! One seed gives one history: a hash of all that happens in it, for who compares.

use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hasher};

use crate::coverage::Coverage;
use crate::events::Event;
use crate::plan::Micros;
use crate::sim::Setting;
use crate::world;

#[derive(Default)]
pub(crate) struct Digest(DefaultHasher);

impl Digest {
    /// Something happens.
    pub(crate) fn note(&mut self, now: Micros, event: &Event) {
        write!(self, "{now} {event:?}").expect("a hash takes everything");
    }

    /// All of it, with what was counted of it.
    pub(crate) fn finish(mut self, coverage: &Coverage) -> u64 {
        write!(self, "{} {coverage}", coverage.events).expect("a hash takes everything");
        self.0.finish()
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

const SEEDS: [u64; 6] = [3, 77, 1204, 5, 8, 41];

/// Nothing that a thread, or an earlier history, leaves behind leads to another one: no map that is in another order
/// each time, no clock, no count that goes on.
#[test]
fn a_seed_gives_the_same_history_on_any_thread_and_after_any_other() {
    let on_a_thread = |seeds: Vec<u64>| {
        let played = std::thread::spawn(move || {
            seeds.into_iter().map(|seed| (seed, world::digest(seed, Setting::PLAIN))).collect()
        });
        let mut played: Vec<(u64, u64)> = played.join().expect("the invariants hold in them");
        played.sort_unstable();
        played
    };
    let first = on_a_thread(SEEDS.to_vec());
    let again = on_a_thread(SEEDS.into_iter().rev().collect());
    assert_eq!(first, again, "a seed and what its history comes to");
    let mut different: Vec<u64> = first.into_iter().map(|(_, digest)| digest).collect();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), SEEDS.len(), "the hash is of what happens");
}
