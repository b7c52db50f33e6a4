//! When a snapshot is due, and the installation of a snapshot from a leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use tally_core::id::{LogIndex, NodeId};
use tally_core::raft::{Body, Handled, LogView, Message, Persist, Position};
use tracing::{info, warn};

use super::disk::Job;
use super::disk_health::DiskFault;
use super::snapshot_transfer::{Incoming, Outgoing};
use super::{Node, members, room};
use crate::dropped::Reason;
use crate::site::Site;
use crate::storage::WriteError;

/// However large a snapshot is, the log since it seldom grows beyond this: a restart reads it, into
/// memory at first.
const REPLAY_BYTES_MAX: u64 = 128 << 20;

/// After how many bytes of log a snapshot is due, when the last one had `last` bytes: twice its size,
/// so that snapshots add no more than half to what the log writes. At least `least`, since small ones
/// are not worth the syncs. Up to [`REPLAY_BYTES_MAX`], but never less than the size of the last one:
/// however large the state, no more than half of what is written is snapshots.
fn due_bytes(least: u64, last: u64) -> u64 {
    last.saturating_mul(2).min(REPLAY_BYTES_MAX).max(last).max(least)
}

/// A restart applies up to so many entries, even if they are tiny and many share a block: about a second.
const REPLAY_ENTRIES_MAX: u64 = 1_000_000;
/// An entry with its share of a group takes about so many bytes at least.
const ENTRY_BYTES_LEAST: u64 = 64;

/// After how many entries a snapshot is due, however few bytes they are. More after a large snapshot, so that
/// here, too, no more than half of what is written is snapshots.
fn due_entries(last_bytes: u64) -> u64 {
    (last_bytes / ENTRY_BYTES_LEAST).max(REPLAY_ENTRIES_MAX)
}

/// The box's own snapshots, and one that is coming in.
#[derive(Debug)]
pub(super) struct Snapshots {
    /// The position that the latest own snapshot covers.
    pub(super) last: LogIndex,
    pub(super) last_bytes: u64,
    /// One is wanted, however little the log has grown: what is on this disk may be wrong, or another box asks for it.
    pub(super) wanted: bool,
    /// A snapshot whose position is applied and not durable yet: it is saved once the log is durable up to there.
    awaiting: Option<(Position, Bytes)>,
    /// The snapshot that is being saved, and its size.
    saving: Option<(LogIndex, u64)>,
    /// After a failure: the next try waits until the log has this many bytes.
    not_before_bytes: u64,
    /// And a try for the sake of space waits until this instant.
    pub(super) retry_at: Option<Instant>,
    /// Whether the log already says that the state is too large for `storage.bytes_max`.
    pub(super) told_large: bool,
    pub(super) incoming: Option<Incoming>,
    /// Snapshots that are being sent to followers.
    pub(super) outgoing: BTreeMap<NodeId, Outgoing>,
    /// A received snapshot, not yet durable: the disk is to install it.
    installing: Option<(Position, Bytes)>,
    /// The ticket of the write that installs it.
    install_ticket: Option<u64>,
}

impl Snapshots {
    /// Begins with the latest snapshot on disk: the index that it covers, and its size.
    pub(super) fn new(last: LogIndex, last_bytes: u64) -> Snapshots {
        Snapshots {
            last,
            last_bytes,
            wanted: false,
            awaiting: None,
            saving: None,
            not_before_bytes: 0,
            retry_at: None,
            told_large: false,
            incoming: None,
            outgoing: BTreeMap::new(),
            installing: None,
            install_ticket: None,
        }
    }

    /// The snapshot to save now, if the log is durable up to it. What is applied is committed, so the entry with which
    /// the snapshot ends stays in the log.
    fn take_durable(&mut self, durable: LogIndex) -> Option<(Position, Bytes)> {
        let (position, bytes) = self.awaiting.take_if(|(position, _)| position.index <= durable)?;
        self.saving = Some((position.index, bytes.len() as u64));
        Some((position, bytes))
    }

    /// A leader sent a snapshot that is ahead of everything applied here.
    pub(super) fn on_received(&mut self, position: Position, bytes: Bytes) {
        self.last = position.index;
        self.last_bytes = bytes.len() as u64;
        // The log that it belongs to is gone.
        self.awaiting = None;
        self.installing = Some((position, bytes));
        self.install_ticket = None;
    }

    /// The state turned out to be wrong: a waiting snapshot is not saved.
    pub(super) fn distrust(&mut self) {
        self.awaiting = None;
    }

    /// The index that the newest snapshot covers, on disk or being written.
    pub(super) fn newest(&self) -> LogIndex {
        self.saving.map_or(self.last, |(index, _)| index.max(self.last))
    }

    /// Whether a snapshot is being written.
    pub(super) fn is_busy(&self) -> bool {
        self.saving.is_some() || self.awaiting.is_some() || self.installing.is_some()
    }

    /// The snapshot that was being saved is given up for one from a leader.
    pub(super) fn on_superseded(&mut self) {
        self.saving = None;
    }

    /// The snapshot that the disk is to install with this group: the same again after a failure.
    pub(super) fn install_with(&mut self, persist: &Persist) -> Option<(Position, Bytes)> {
        let installing = self.installing.as_ref().filter(|(position, _)| persist.reset == Some(*position))?;
        self.install_ticket = Some(persist.ticket);
        Some(installing.clone())
    }

    /// What was written under this ticket is durable.
    pub(super) fn on_installed(&mut self, ticket: u64) {
        if self.install_ticket.take_if(|asked| *asked == ticket).is_some() {
            self.installing = None;
        }
    }
}

impl Node {
    /// Writes a snapshot if the log has grown enough since the last one.
    pub(super) fn snapshot_if_due(&mut self) {
        self.forget_transfers();
        // A wrong state is kept nowhere; on a full disk a snapshot frees what it covers.
        let is_unhealthy = self.disk_health.trouble().is_some_and(|trouble| trouble.kind != DiskFault::Full);
        if is_unhealthy || self.state_check.is_out() {
            return;
        }
        if self.is_snapshot_due() {
            let applied = self.site().applied();
            let Some(position) = self.tail.position(applied) else { return };
            // Here and now, though it may not be durable: behind a disk that is slower than the others' something is
            // applied that is not durable at any time, and the log would grow for as long as that goes on.
            let bytes = self.site().snapshot();
            self.snapshots.awaiting = Some((position, bytes.into()));
        }
        if let Some((position, bytes)) = self.snapshots.take_durable(self.raft.durable_index()) {
            self.disk.ask(Job::Save { position, bytes });
        }
    }

    fn is_snapshot_due(&self) -> bool {
        let Snapshots { last, last_bytes, wanted, not_before_bytes, .. } = self.snapshots;
        if self.snapshots.saving.is_some() || self.snapshots.awaiting.is_some() {
            return false;
        }
        let grown = self.storage_metrics.replay_bytes.load(Ordering::Relaxed);
        let entries = self.raft.durable_index().0.saturating_sub(last.0);
        let bytes_max = self.storage_metrics.bytes_max.load(Ordering::Relaxed);
        let due = due_bytes(self.config.snapshot_log_bytes, last_bytes);
        let much = grown >= due.min(room::log_bytes_max(bytes_max, last_bytes));
        // A failed one wrote to the flash, too: however quickly the log grows, the next try waits.
        let is_too_early = self.snapshots.retry_at.is_some_and(|at| at > self.moment.now);
        let is_usual = much || wanted || entries >= due_entries(last_bytes);
        let usual = is_usual && grown >= not_before_bytes && !is_too_early;
        (usual || self.needs_room(grown)) && self.site().applied() > last
    }

    pub(super) fn on_saved(&mut self, result: Result<LogIndex, WriteError>) {
        let Some((index, bytes)) = self.snapshots.saving.take() else { return };
        match result {
            Ok(first) => {
                // A leader may have sent a newer one meanwhile.
                if index > self.snapshots.last {
                    (self.snapshots.last, self.snapshots.last_bytes) = (index, bytes);
                }
                self.snapshots.not_before_bytes = 0;
                self.snapshots.wanted = false;
                self.snapshots.retry_at = None;
                self.tell_room();
                // The log on disk keeps some entries before the snapshot for followers a little behind.
                self.log_begins(first);
            }
            Err(error) => {
                warn!("cannot write a snapshot; the log keeps growing: {error}");
                self.shared.metrics.snapshot_failures.raise();
                let grown = self.storage_metrics.replay_bytes.load(Ordering::Relaxed);
                self.snapshots.not_before_bytes = grown + self.config.snapshot_log_bytes / 4;
                self.snapshot_failed_for_now();
            }
        }
    }

    pub(super) fn install(&mut self, whole: Incoming) {
        let metrics = Arc::clone(&self.shared.metrics);
        let refuse = |why: &str| metrics.dropped.drop_because(whole.from, Reason::BadSnapshot, why);
        let site = match Site::restore(&self.founding, &whole.bytes) {
            Ok(site) if site.applied() == whole.head.position.index => site,
            Ok(_) => return refuse("its index is not the announced one"),
            Err(error) => return refuse(&error.to_string()),
        };
        let message = Message { term: whole.term, body: Body::Snapshot { last: whole.head.position } };
        self.renew_time();
        let now = self.now();
        let configuration = match site.configuration().map(members::from_parts).transpose() {
            Ok(configuration) => configuration,
            Err(error) => return refuse(&error.to_string()),
        };
        match self.raft.handle_message(now, whole.from, &message, configuration.as_ref(), &self.tail) {
            Ok(Handled::Install(position)) => {
                info!("installed a snapshot up to entry {}", position.index);
                self.tail = super::Tail::new(position, Vec::new());
                self.snapshots.on_received(position, whole.bytes.into());
                *self.site() = site;
                self.state_check.on_state_replaced();
                self.shared.state_ok.store(true, Ordering::Relaxed);
                self.shared.clock.skipped();
                self.know_members();
                self.after_apply();
            }
            Ok(_) => {}
            Err(why) => self.refuse(whole.from, why.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_snapshot_is_followed_by_more_log_within_bounds() {
        const MIB: u64 = 1 << 20;
        for (last, due) in [(0, 16), (3, 16), (8, 16), (9, 18), (64, 128), (77, 128), (128, 128), (500, 500)]
        {
            assert_eq!(due_bytes(16 * MIB, last * MIB), due * MIB, "after one of {last} MiB");
        }
    }

    #[test]
    fn many_tiny_entries_are_replaced_by_a_snapshot_too() {
        assert_eq!(due_entries(0), 1_000_000);
        assert_eq!(due_entries(77 << 20), 1_261_568);
    }

    fn at(index: u64) -> Position {
        Position { index: LogIndex(index), ..Position::ZERO }
    }

    #[test]
    fn a_snapshot_of_what_is_not_durable_waits_for_that_and_for_no_more() {
        let mut snapshots = Snapshots::new(LogIndex(3), 10);
        snapshots.awaiting = Some((at(9), Bytes::from_static(b"state")));
        assert!(snapshots.take_durable(LogIndex(8)).is_none());
        assert!(snapshots.take_durable(LogIndex(12)).is_some_and(|(position, _)| position == at(9)));
        assert_eq!(snapshots.saving, Some((LogIndex(9), 5)));
        assert!(snapshots.take_durable(LogIndex(12)).is_none(), "once");
    }

    #[test]
    fn a_snapshot_that_waits_is_given_up_for_one_that_a_leader_sent() {
        let mut snapshots = Snapshots::new(LogIndex(3), 10);
        snapshots.awaiting = Some((at(9), Bytes::from_static(b"state")));
        snapshots.on_received(at(20), Bytes::from_static(b"of the leader"));
        assert!(snapshots.take_durable(LogIndex(20)).is_none());
        assert_eq!((snapshots.last, snapshots.saving), (LogIndex(20), None));
    }
}
