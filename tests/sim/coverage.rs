//! What the histories came through: a simulation that never meets a fault proves nothing.

use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    counts: BTreeMap<&'static str, u64>,
    /// All that happened.
    pub(crate) events: u64,
}

/// Each of these must have happened in a full run.
pub(crate) const MUST_HAPPEN: [&str; 72] = [
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
    "leaders crashed with an unsynced tail",
    "stars around one box",
    "constrained elections",
    "chains",
    "disks that hung",
    "clocks set forward",
    "joint configurations begun",
    "joint configurations left by themselves",
    "joint configurations left when asked",
    "joint configurations interrupted by an election",
    "joint configurations that a leader crashed in",
    "observers added",
    "observers promoted",
    "promotions refused as too early",
    "voters demoted",
    "voters removed",
    "several members changed at once",
    "witnesses added",
    "witnesses removed",
    "removed leaders that stepped down",
    "removed boxes that asked for votes",
    "strangers ignored",
    "configuration entries truncated",
    "snapshots that brought a configuration",
    "transfers begun",
    "transfers that succeeded",
    "transfers that failed",
    "leaders that resigned",
    "elections decided by a witness",
    "witness records stored",
    "witnesses crashed before a record was synced",
    "witness records that failed",
    "votes refused by a witness",
    "commits that needed a witness",
    "boxes that joined by a snapshot",
];

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
