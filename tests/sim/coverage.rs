//! What the histories came through: a simulation that never meets a fault proves nothing.

use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage(BTreeMap<&'static str, u64>);

/// Each of these must have happened in a full run.
const MUST_HAPPEN: [&str; 37] = [
    "leaders elected",
    "leaders that stepped down",
    "crashes",
    "crashes of all boxes",
    "crashes with unsynced writes",
    "groups torn by a crash",
    "groups that failed",
    "short reigns",
    "leaders that nobody heard",
    "pauses",
    "boxes cut off",
    "one-way cuts",
    "bridges",
    "disks slowed",
    "messages lost",
    "messages duplicated",
    "messages cut",
    "logs truncated in memory",
    "logs truncated on disk",
    "snapshots taken",
    "snapshots offered",
    "snapshots installed",
    "staged snapshots lost by a crash",
    "look-ups beyond the remembered runs",
    "appends rejected",
    "probes without entries",
    "bulk lanes full",
    "proposals refused as full",
    "reads served",
    "reads lost with a leadership",
    "reports acknowledged",
    "reports acknowledged as repeated",
    "reports abandoned",
    "summaries delivered",
    "messages ignored as stale",
    "votes ignored under a lease",
    "restarts from a snapshot",
];

impl Coverage {
    pub(crate) fn count(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    pub(crate) fn add(&mut self, what: &'static str, count: u64) {
        *self.0.entry(what).or_default() += count;
    }

    pub(crate) fn merge(&mut self, other: &Coverage) {
        for (what, count) in &other.0 {
            self.add(what, *count);
        }
    }

    pub(crate) fn missing(&self) -> Vec<&'static str> {
        MUST_HAPPEN.into_iter().filter(|what| !self.0.contains_key(what)).collect()
    }
}

impl std::fmt::Display for Coverage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(what, count)| writeln!(f, "{count:>10}  {what}"))
    }
}
