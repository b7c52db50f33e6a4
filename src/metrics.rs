//! What the node, the accumulator and the API count, for `/metrics` and the status.

use crate::dropped::DroppedMessages;
use crate::figures::Counter;

/// What the node and the accumulator count.
#[derive(Debug, Default)]
pub struct Metrics {
    /// What members said that led to nothing.
    pub dropped: DroppedMessages,
    /// How often the leader that this box knows changed, or the term did.
    pub leader_changes: Counter,
    /// How often this box began to campaign.
    pub campaigns: Counter,
    /// How often this box became the leader.
    pub leaderships: Counter,
    /// How often this box led and its loop woke later than an election timeout.
    pub leader_lateness: Counter,
    /// How often this box saw its state differ from another box's.
    pub digest_mismatches: Counter,
    /// Cells of this box's batches that were refused where they were applied.
    pub cells_refused: Counter,
    /// Adds of waiting clients that were answered with a receipt.
    pub adds_answered: Counter,
    /// Groups that the disk did not take.
    pub disk_failures: Counter,
    /// How often the disk did not answer in time.
    pub disk_hangs: Counter,
    /// Snapshots of this box that could not be written.
    pub snapshot_failures: Counter,
    /// Entries applied.
    pub entries_applied: Counter,
    /// Of these, how many could not be read and changed nothing.
    pub entries_malformed: Counter,
    /// Requests of HTTP clients.
    pub api_requests: Counter,
    /// Of these, how many were answered with a problem.
    pub api_problems: Counter,
    /// Connections of HTTP clients that were turned away because all were busy.
    pub api_turned_away: Counter,
}
