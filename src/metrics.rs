//! What the node, the accumulator and the API count, for `/metrics` and the status.

use crate::dropped::DroppedMessages;
use crate::figures::Counter;

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
