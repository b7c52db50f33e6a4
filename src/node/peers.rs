//! Frames from and to the other boxes, and the disk's answers.

use bytes::Bytes;
use tally_core::id::NodeId;
use tally_core::raft::{Body, EntryRange, Handled, Message};
use tracing::{debug, warn};

use super::disk::{Done, Job};
use super::reads::Asker;
use super::wire::{APPEND_BYTES_MAX, Frame};
use super::{Node, members, successors};
use crate::deliberate::{self, Bug};
use crate::dropped::Reason;
use crate::site::Envelope;
use crate::site::entry::{self, BodyKind};
use crate::storage::{Entry, ReadError};
use crate::transport::{Event, Lane};

/// So much of the log may wait for this box's disk. A leader sends on whatever becomes of it, for as long as a disk is full,
/// say; what is left out here is sent again.
const UNDURABLE_BYTES_MAX: usize = 32 << 20;

impl Node {
    pub(super) fn on_transport(&mut self, event: Event) {
        match event {
            Event::Connected(peer) => {
                self.connected.insert(peer);
                self.tell_level(peer);
                self.tell_members(peer);
                self.snapshot_broken(peer);
                self.members.tell_witness_again();
                self.raft.snapshot_lost(peer);
            }
            Event::Disconnected(peer) => {
                self.connected.remove(&peer);
                self.heartbeats.adaptive.on_disconnected(peer);
                self.transfers.successors.on_disconnected(peer);
                self.state_check.on_disconnected(peer);
                self.raft.snapshot_lost(peer);
            }
            Event::Received { from, frame, .. } => match Frame::decode(&frame) {
                Ok(frame) => self.on_frame(from, frame),
                Err(_) => self.refuse(from, Reason::UnreadableFrame),
            },
        }
    }

    fn on_frame(&mut self, from: NodeId, frame: Frame) {
        match frame {
            Frame::Raft { message, payloads } => {
                self.on_message(from, &message, payloads);
            }
            Frame::Heartbeat(message, heartbeat) => self.on_heartbeat(from, &message, &heartbeat),
            Frame::HeartbeatAnswer(message, answer) => self.on_heartbeat_answer(from, &message, &answer),
            Frame::Propose(envelope) => self.on_propose(from, &envelope),
            Frame::ReadIndex { id } => self.on_read_index(from, id),
            Frame::ReadAnswer { id, index } => self.reads.on_answer(id, index),
            Frame::SnapshotPart(part) => self.on_snapshot_part(from, &part),
            Frame::SnapshotWant { last, offset } => self.on_snapshot_want(from, last, offset),
            Frame::Members { index, members } => self.on_members(from, index, members),
            Frame::TransferAnnounced { to, reason } => self.on_transfer_announced(from, to, reason),
            Frame::Level(level) => self.levels.on_level(from, level),
            Frame::Digests(points) => self.state_check.on_told(from, points),
            Frame::StateWant { index } => self.on_state_want(from, index),
            Frame::Transfer { to } => {
                if let Err(why) = self.transfer_leadership(to, successors::TransferReason::Asked) {
                    let dropped = &self.shared.metrics.dropped;
                    dropped.drop_because(from, Reason::TransferRefused, &why.to_string());
                }
            }
        }
    }

    /// What a member said led to nothing.
    pub(super) fn refuse(&self, from: NodeId, reason: Reason) {
        self.shared.metrics.dropped.count_one(from, reason);
    }

    /// Whether the core took it.
    pub(super) fn on_message(&mut self, from: NodeId, message: &Message, payloads: Vec<Bytes>) -> bool {
        let now = self.now();
        let brings_entries = matches!(message.body, Body::Append { entries: Some(_), .. });
        if brings_entries && self.tail.takes_more_than(UNDURABLE_BYTES_MAX, self.raft.durable_index()) {
            self.refuse(from, Reason::DiskBehind);
            return false;
        }
        // What is not applied for as long as the state is wrong is bounded likewise.
        if brings_entries && self.state_check.is_out() {
            let applied = self.site().applied();
            if self.tail.takes_more_than(UNDURABLE_BYTES_MAX, applied) {
                self.refuse(from, Reason::DiskBehind);
                return false;
            }
        }
        let configuration = match payloads.first().and_then(members::of_payload).transpose() {
            Ok(configuration) => configuration,
            Err(_) => {
                self.refuse(from, Reason::BadConfiguration);
                return false;
            }
        };
        match self.raft.handle_message(now, from, message, configuration.as_ref(), &self.tail) {
            Ok(Handled::Append(range)) => self.take_entries(message, range, payloads),
            Ok(Handled::Nothing) => {}
            // Only a snapshot's message leads to this, and those come in parts.
            Ok(Handled::Install(_)) => debug!("box {from} announced a snapshot without parts"),
            Err(why) => {
                self.refuse(from, why.into());
                return false;
            }
        }
        true
    }

    fn take_entries(&mut self, message: &Message, range: EntryRange, payloads: Vec<Bytes>) {
        let Body::Append { entries: Some(whole), .. } = message.body else { return };
        let skip = (range.first.0 - whole.first.0) as usize;
        let mut payloads = payloads;
        if deliberate::is(Bug::MixesPayloads) && payloads.len() > skip + 1 {
            payloads.swap(skip, skip + 1);
        }
        self.tail.replace_from(range, payloads.into_iter().skip(skip));
    }

    /// Another box asks to get a body into the log. Without an answer: that box sees it applied, or
    /// sends it again.
    fn on_propose(&mut self, from: NodeId, envelope: &Bytes) {
        let Some(envelope) = Envelope::<crate::site::Body>::read(envelope) else {
            return self.refuse(from, Reason::UnreadableBody);
        };
        match entry::check(&envelope.inside) {
            // Only leaders make these, of what they know: one from elsewhere would be in force with some boxes.
            Ok(BodyKind::Configuration | BodyKind::Bootstrap | BodyKind::Level) => {
                return self.refuse(from, Reason::BadConfiguration);
            }
            Ok(_) => {}
            Err(_) => return self.refuse(from, Reason::UnreadableBody),
        }
        if envelope.is_patient() && self.leads() {
            return self.gather(from, Envelope::plain(envelope.inside));
        }
        self.gathered.drop_copy(&envelope);
        match self.append_checked(&envelope) {
            Ok(index) => self.tell_commit_to(from, index),
            Err(why) => debug!("rejected an entry of another box: {why}"),
        }
    }

    fn on_read_index(&mut self, from: NodeId, id: u64) {
        let now = self.now();
        match self.raft.read_index(now) {
            Ok(read) => {
                self.reads.await_round(read.round, read.index, Asker::Peer(from, id));
                self.raft.request_heartbeat(from);
            }
            Err(_) => self.answer_read(from, id, None),
        }
    }

    pub(super) fn answer_read(&mut self, to: NodeId, id: u64, index: Option<tally_core::id::LogIndex>) {
        self.send(to, Lane::Requests, &Frame::ReadAnswer { id, index });
        if index.is_some() {
            self.raft.request_heartbeat(to);
        }
    }

    /// Queues a frame; `false` if it could not be.
    pub(super) fn send(&self, to: NodeId, lane: Lane, frame: &Frame) -> bool {
        self.links.as_ref().is_some_and(|links| links.send(to, lane, frame.encode()).is_ok())
    }

    /// Sends what the core has for each connected peer.
    pub(super) fn send_messages(&mut self) {
        let Some(links) = self.links.clone() else { return };
        let peers: Vec<NodeId> = self.connected.iter().copied().collect();
        for to in peers {
            loop {
                let bulk = !self.reading.contains(&to) && links.has_room(to, Lane::Entries);
                let now = self.now();
                let Some(message) = self.raft.poll_message(now, to, bulk, &self.tail) else { break };
                self.send_message(to, message);
            }
        }
    }

    fn send_message(&mut self, to: NodeId, message: Message) {
        match message.body {
            Body::Append { entries: Some(range), .. } => match self.tail.entries(range.first, range.last) {
                Some(entries) => self.send_append(to, message, entries),
                None => {
                    self.reading.insert(to);
                    let bytes_max = APPEND_BYTES_MAX as usize;
                    self.disk.ask(Job::Read { to, message, first: range.first, last: range.last, bytes_max });
                }
            },
            Body::Append { entries: None, .. } => {
                self.send(to, Lane::Entries, &Frame::plain(message));
            }
            Body::Snapshot { .. } => self.offer_snapshot(to, message),
            Body::Heartbeat { .. } => self.send_heartbeat(to, message),
            Body::HeartbeatAnswer { .. } => self.send_heartbeat_answer(to, message),
            _ => {
                self.send(to, Lane::Control, &Frame::plain(message));
            }
        }
    }

    fn send_append(&mut self, to: NodeId, message: Message, entries: Vec<Entry>) {
        let payloads = entries.into_iter().map(|entry| entry.payload).collect();
        self.send(to, Lane::Entries, &Frame::Raft { message, payloads });
    }

    pub(super) fn on_disk(&mut self, done: Done) {
        match done {
            Done::Written { ticket, result, superseded } => {
                if superseded {
                    self.snapshots.on_superseded();
                }
                self.on_written(ticket, &result);
            }
            Done::Read { to, message, result } => self.on_read(to, message, result),
            Done::Saved { result } => self.on_saved(result),
            Done::Begins { first } => self.log_begins(first),
            Done::Opened { to, message, result } => self.on_opened(to, message, result),
            Done::SnapshotRead { to, offset, result } => self.on_snapshot_read(to, offset, result),
            Done::UnsentKept { leaving, result } => self.on_unsent_kept(leaving, result),
        }
    }

    fn on_read(&mut self, to: NodeId, message: Message, result: Result<Vec<Entry>, ReadError>) {
        self.reading.remove(&to);
        let Body::Append { previous, entries: Some(range), commit } = message.body else {
            return;
        };
        let entries = match result {
            Ok(entries) => entries,
            Err(error) => return warn!("cannot read entries for box {to}: {error}"),
        };
        // The log may have been overwritten meanwhile, and less may have been read than was asked for.
        let same =
            |entry: &&Entry| (entry.position.term, entry.position.subterm) == (range.term, range.subterm);
        let entries: Vec<Entry> = entries.iter().take_while(same).cloned().collect();
        let Some(last) = entries.last().map(|entry| entry.position.index) else { return };
        let range = EntryRange { last, ..range };
        let body = Body::Append { previous, entries: Some(range), commit };
        self.send_append(to, Message { term: message.term, body }, entries);
    }
}
