//! What the histories came through: a simulation that never meets a fault proves nothing.

use std::collections::BTreeMap;

use crate::kinds::MUST_HAPPEN;

#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    counts: BTreeMap<&'static str, u64>,
    /// All that happened.
    pub(crate) events: u64,
}

impl Coverage {
    pub(crate) fn count(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    pub(crate) fn add(&mut self, what: &'static str, count: u64) {
        *self.counts.entry(what).or_default() += count;
    }

    pub(crate) fn merge(&mut self, other: &Coverage) {
        self.events += other.events;
        for (what, count) in &other.counts {
            self.add(what, *count);
        }
    }

    pub(crate) fn missing(&self) -> Vec<&'static str> {
        MUST_HAPPEN.into_iter().filter(|what| !self.counts.contains_key(what)).collect()
    }
}

impl std::fmt::Display for Coverage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.counts.iter().try_for_each(|(what, count)| writeln!(f, "{count:>10}  {what}"))
    }
}
