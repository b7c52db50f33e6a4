//! Snapshots: when one is due, and those on their way from and to other boxes.

use std::sync::Arc;

use bytes::Bytes;
use tally_core::id::{LogIndex, NodeId, Term};
use tally_core::raft::{Body, Handled, LogView, Message, Position};
use tracing::{info, warn};

use super::Node;
use super::disk::Job;
use super::wire::{Frame, PART_BYTES, SnapshotPart};
use crate::site::Site;
use crate::storage::{ReadError, WriteError};
use crate::transport::{Lane, Transport};

/// The largest snapshot that is taken from a leader: what all bounds of a site together allow.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// The box's own snapshots, and one that is coming in.
#[derive(Debug)]
pub(super) struct Snapshots {
    /// What the latest own one covers.
    pub(super) last: LogIndex,
    pub(super) last_bytes: u64,
    saving: bool,
    /// Where bytes written to the log stood when the last one was saved.
    log_bytes_then: u64,
    incoming: Option<Incoming>,
    /// Taken in, not yet durable: what the disk is to install.
    pub(super) installing: Option<(Position, Vec<u8>)>,
}

#[derive(Debug)]
struct Incoming {
    from: NodeId,
    term: Term,
    last: Position,
    total: u64,
    bytes: Vec<u8>,
}

impl Snapshots {
    pub(super) fn new(last: LogIndex) -> Snapshots {
        Snapshots { last, last_bytes: 0, saving: false, log_bytes_then: 0, incoming: None, installing: None }
    }
}

impl Node {
    /// Writes a snapshot if the log has grown enough since the last one.
    pub(super) fn snapshot_if_due(&mut self) {
        let written = self.storage_metrics.stats().bytes_written;
        let grown = written.saturating_sub(self.snapshots.log_bytes_then);
        let due = self.config.snapshot_log_bytes.max(4 * self.snapshots.last_bytes);
        let applied = self.site().applied();
        if self.snapshots.saving
            || grown < due
            || applied <= self.snapshots.last
            || applied > self.raft.durable_index()
        {
            return;
        }
        let Some(position) = self.tail.position(applied) else { return };
        let bytes = self.site().snapshot();
        self.snapshots.saving = true;
        self.snapshots.last_bytes = bytes.len() as u64;
        self.snapshots.last = applied;
        self.disk.ask(Job::Save { position, bytes });
    }

    pub(super) fn on_saved(&mut self, result: Result<LogIndex, WriteError>, _log_bytes: u64) {
        self.snapshots.saving = false;
        self.snapshots.log_bytes_then = self.storage_metrics.stats().bytes_written;
        match result {
            Ok(first) => {
                // The log on disk keeps some entries before the snapshot for followers a little behind.
                let Some(base) = self.tail.position(first.prev()) else { return };
                if base.index.0 > 0 && self.raft.compacted(base) {
                    self.tail.forget_through(base.index);
                }
            }
            Err(error) => warn!("no snapshot was written: {error}"),
        }
    }

    /// The disk has read the snapshot that a follower needs: sends it in parts, as there is room.
    pub(super) fn on_loaded(
        &mut self,
        to: NodeId,
        message: Message,
        result: Result<Option<(Position, Vec<u8>)>, ReadError>,
    ) {
        let Some(transport) = self.transport.clone() else { return };
        match result {
            Ok(Some((last, bytes))) => {
                info!("box {to} is far behind: sending it the snapshot up to entry {}", last.index);
                tokio::spawn(send_parts(transport, to, message.term, last, bytes.into()));
            }
            Ok(None) => warn!("box {to} needs a snapshot and there is none"),
            Err(error) => warn!("the snapshot for box {to} cannot be read: {error}"),
        }
    }

    pub(super) fn on_snapshot_part(&mut self, from: NodeId, part: SnapshotPart) {
        let SnapshotPart { term, last, total, offset, bytes } = part;
        if offset == 0 && total <= SNAPSHOT_BYTES_MAX {
            self.snapshots.incoming = Some(Incoming { from, term, last, total, bytes: Vec::new() });
        }
        let Some(incoming) = &mut self.snapshots.incoming else { return };
        let fits = (incoming.from, incoming.term, incoming.last, incoming.total) == (from, term, last, total)
            && incoming.bytes.len() as u64 == offset
            && offset + bytes.len() as u64 <= total;
        if !fits {
            return;
        }
        incoming.bytes.extend_from_slice(&bytes);
        if incoming.bytes.len() as u64 == total
            && let Some(whole) = self.snapshots.incoming.take()
        {
            self.install(whole);
        }
    }

    fn install(&mut self, whole: Incoming) {
        let site = match Site::restore(&self.founding, &whole.bytes) {
            Ok(site) if site.applied() == whole.last.index => site,
            Ok(_) => return warn!("box {} sent a snapshot of another index than it said", whole.from),
            Err(error) => return warn!("box {} sent a snapshot that cannot be used: {error}", whole.from),
        };
        let message = Message { term: whole.term, body: Body::Snapshot { last: whole.last } };
        let now = self.now();
        match self.raft.handle_message(now, whole.from, &message, None, &self.tail) {
            Ok(Handled::Install(position)) => {
                info!("took in a snapshot up to entry {}", position.index);
                self.tail = super::Tail::new(position, Vec::new());
                self.snapshots.last = position.index;
                self.snapshots.last_bytes = whole.bytes.len() as u64;
                self.snapshots.installing = Some((position, whole.bytes));
                *self.site() = site;
                self.after_apply();
            }
            Ok(_) => {}
            Err(_) => self.shared.metrics.raft_ignored.raise(),
        }
    }
}

async fn send_parts(transport: Arc<Transport>, to: NodeId, term: Term, last: Position, bytes: Bytes) {
    let total = bytes.len() as u64;
    let mut offset = 0;
    while offset < bytes.len() {
        let end = (offset + PART_BYTES).min(bytes.len());
        let part = SnapshotPart { term, last, total, offset: offset as u64, bytes: bytes.slice(offset..end) };
        let frame = Frame::SnapshotPart(part).encode();
        if transport.send_when_ready(to, Lane::Snapshot, frame).await.is_err() {
            // The core offers it again when the connection is back.
            return;
        }
        offset = end;
    }
}
