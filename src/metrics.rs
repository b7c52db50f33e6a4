//! Counters that all modules raise and that `/metrics` and the status read. Each is an atomic: raising one
//! takes no lock.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::dropped::DroppedMessages;

/// A counter that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Raises the counter by one.
    pub fn raise(&self) {
        self.add(1);
    }

    /// Raises the counter.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Replaces the value by a figure that was counted elsewhere (by the kernel, say).
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of the node and the accumulator.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Dropped messages of members.
    pub dropped: DroppedMessages,
    /// Changes of the leader that this box knows, or of the term.
    pub leader_changes: Counter,
    /// Campaigns that this box began.
    pub campaigns: Counter,
    /// Times that this box became the leader.
    pub leaderships: Counter,
    /// Times that this box led and its loop woke later than an election timeout.
    pub leader_lateness: Counter,
    /// Times that this box found its state to differ from another box's.
    pub digest_mismatches: Counter,
    /// Cells of this box's batches that the site refused.
    pub cells_refused: Counter,
    /// Adds of waiting clients that were answered with a receipt.
    pub adds_answered: Counter,
    /// Groups that could not be written.
    pub disk_failures: Counter,
    /// Times that the disk did not answer in time.
    pub disk_hangs: Counter,
    /// Snapshots of this box that could not be written.
    pub snapshot_failures: Counter,
    /// Entries applied.
    pub entries_applied: Counter,
    /// Entries that were malformed and changed nothing.
    pub entries_malformed: Counter,
    /// Requests of HTTP clients.
    pub api_requests: Counter,
    /// Requests of HTTP clients that were answered with a problem.
    pub api_problems: Counter,
    /// Connections of HTTP clients that were refused because all connections were busy.
    pub api_turned_away: Counter,
}
