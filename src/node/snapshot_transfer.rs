//! Transfers of snapshots from and to other boxes. A leader offers a snapshot, and the follower asks for it window by
//! window, so that only the receiver has more than a window of it in memory. A transfer that was interrupted continues
//! where it stopped, also with another leader. Reads for it wait for the log's writes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tally_core::id::{NodeId, Term};
use tally_core::raft::{Body, Message, Position};
use tracing::{info, warn};

use super::Node;
use super::disk::Job;
use super::wire::{Frame, PART_BYTES, SnapshotPart};
use crate::dropped::Reason;
use crate::storage::{ReadError, SnapshotHead};
use crate::transport::{Lane, SendError};

/// The largest snapshot that is taken from a leader: what all bounds of a site together allow.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;
/// So much is asked for at once.
const WINDOW_BYTES: usize = 4 * PART_BYTES;
/// A transfer gets no more than this of the disk and the network, in bytes a second.
const RATE: f64 = (8 << 20) as f64;
/// Whether a full queue has room again is seen this often.
const AGAIN: Duration = Duration::from_millis(5);
/// An offer is repeated only when nothing was asked for in this time.
const STALLED: Duration = Duration::from_secs(5);
/// A transfer that nobody asks for is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// A snapshot that is sent to a follower; the disk thread has its file open.
#[derive(Debug)]
pub(super) struct Outgoing {
    head: SnapshotHead,
    term: Term,
    /// When it was offered or asked for last.
    progressed: Instant,
    /// The connection broke since.
    broken: bool,
    /// The follower has part of it.
    begun: bool,
    /// When the next window may go.
    next_at: Instant,
    window: PartsWindow,
}

/// The one window of a transfer that is in memory: however often a follower asks, there are no more.
#[derive(Debug)]
enum PartsWindow {
    None,
    /// The disk reads what begins at this offset.
    Read(u64),
    /// What is left of it waits for its time, or for room in the queue.
    Sending(VecDeque<SnapshotPart>, Instant),
}

impl Outgoing {
    fn new(head: SnapshotHead, term: Term, now: Instant) -> Outgoing {
        let window = PartsWindow::None;
        Outgoing { head, term, progressed: now, broken: false, begun: false, next_at: now, window }
    }

    /// Offers the snapshot again: the follower asks anew, since parts under way may be lost.
    fn offer_again(&mut self, now: Instant) -> SnapshotPart {
        self.progressed = now;
        self.broken = false;
        self.window = PartsWindow::None;
        SnapshotPart { term: self.term, head: self.head, offset: 0, bytes: Bytes::new() }
    }

    /// The follower asks for a window: `Ok` if it is to be read for it.
    fn on_wanted(&mut self, position: Position, offset: u64, now: Instant) -> Result<(), Reason> {
        if self.head.position != position || offset >= self.head.total {
            return Err(Reason::Stale);
        }
        if !matches!(self.window, PartsWindow::None) {
            return Err(Reason::Busy);
        }
        self.window = PartsWindow::Read(offset);
        self.progressed = now;
        // After the last window the follower has it, or is offered what is newest then.
        self.begun = offset + (WINDOW_BYTES as u64) < self.head.total;
        Ok(())
    }

    /// What begins at this offset is read: it goes as soon as it may, unless it is not wanted any more.
    fn read(&mut self, offset: u64, bytes: &Bytes, now: Instant) {
        if !matches!(self.window, PartsWindow::Read(wanted) if wanted == offset) {
            return;
        }
        let part = |from: usize| {
            let bytes = bytes.slice(from..(from + PART_BYTES).min(bytes.len()));
            SnapshotPart { term: self.term, head: self.head, offset: offset + from as u64, bytes }
        };
        let parts = (0..bytes.len()).step_by(PART_BYTES).map(part).collect();
        let at = self.next_at.max(now);
        self.next_at = at + Duration::from_secs_f64(bytes.len() as f64 / RATE);
        self.window = PartsWindow::Sending(parts, at);
    }

    /// Sends what may go now.
    fn send(&mut self, now: Instant, mut send: impl FnMut(&SnapshotPart) -> Result<(), SendError>) {
        let PartsWindow::Sending(parts, at) = &mut self.window else { return };
        if *at > now {
            return;
        }
        while let Some(part) = parts.front() {
            match send(part) {
                Ok(()) => _ = parts.pop_front(),
                Err(SendError::Full) => return *at = now + AGAIN,
                // The core offers it again when the connection is back.
                Err(_) => parts.clear(),
            }
        }
        self.window = PartsWindow::None;
    }

    /// When there is something to send.
    fn due(&self) -> Option<Instant> {
        match self.window {
            PartsWindow::Sending(_, at) => Some(at),
            PartsWindow::None | PartsWindow::Read(_) => None,
        }
    }
}

/// A snapshot that is coming in.
#[derive(Debug)]
pub struct Incoming {
    pub from: NodeId,
    pub term: Term,
    pub head: SnapshotHead,
    pub bytes: Vec<u8>,
    /// Where what was asked for ends.
    asked_to: u64,
}

/// What a part came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    Nothing,
    /// Ask for more, from this offset on.
    Ask(u64),
    /// All of it is here.
    Whole,
    /// All of it is here and it is not what it should be: nothing is left of it.
    Damaged,
    /// The part was not requested, or is larger than any snapshot: nothing changed.
    Unfit,
}

impl Incoming {
    /// Takes a part in. An offer, which has no bytes, of what is on its way already goes on where that
    /// stopped.
    pub fn take(incoming: &mut Option<Incoming>, from: NodeId, part: &SnapshotPart) -> Taken {
        let SnapshotPart { term, head, offset, ref bytes } = *part;
        if incoming.as_ref().is_some_and(|current| term < current.term) {
            return Taken::Unfit;
        }
        if offset == 0 && bytes.is_empty() {
            if head.total == 0 || head.total > SNAPSHOT_BYTES_MAX {
                return Taken::Unfit;
            }
            let before = incoming.take().filter(|current| current.head == head);
            let bytes = before.map(|current| current.bytes).unwrap_or_default();
            let current = incoming.insert(Incoming { from, term, head, bytes, asked_to: 0 });
            return current.ask();
        }
        let Some(current) = incoming else { return Taken::Unfit };
        let fits = (current.from, current.head) == (from, head)
            && current.bytes.len() as u64 == offset
            && (bytes.len() as u64) <= head.total - offset;
        if !fits {
            return Taken::Unfit;
        }
        current.bytes.extend_from_slice(bytes);
        let have = current.bytes.len() as u64;
        if have == head.total {
            if crc32c::crc32c(&current.bytes) == head.crc {
                return Taken::Whole;
            }
            *incoming = None;
            return Taken::Damaged;
        }
        if have < current.asked_to { Taken::Nothing } else { current.ask() }
    }

    fn ask(&mut self) -> Taken {
        let have = self.bytes.len() as u64;
        self.asked_to = have + WINDOW_BYTES as u64;
        Taken::Ask(have)
    }
}

impl Node {
    /// The core wants a follower to get the latest snapshot.
    pub(super) fn offer_snapshot(&mut self, to: NodeId, message: Message) {
        // What this box has on its disk may be as wrong as its state.
        if self.state_check.is_out() {
            return;
        }
        let now = self.moment.now;
        if let Some(outgoing) = self.snapshots.outgoing.get_mut(&to) {
            outgoing.term = message.term;
            if !outgoing.broken && now < outgoing.progressed + STALLED {
                return;
            }
            // What a follower has begun to take it gets whole, though there may be a newer one.
            if outgoing.begun {
                return self.send_offer(to);
            }
        }
        self.disk.ask(Job::OpenSnapshot { to, message });
    }

    /// The disk has opened the snapshot that a follower needs.
    pub(super) fn on_opened(
        &mut self,
        to: NodeId,
        message: Message,
        result: Result<Option<SnapshotHead>, ReadError>,
    ) {
        match result {
            Ok(Some(_)) if self.state_check.is_out() => self.disk.ask(Job::CloseSnapshot { to }),
            Ok(Some(head)) => {
                info!(
                    "box {to} is far behind, or its state is wrong: offering it the snapshot up to entry {}",
                    head.position.index
                );
                let outgoing = Outgoing::new(head, message.term, self.moment.now);
                self.snapshots.outgoing.insert(to, outgoing);
                self.send_offer(to);
            }
            Ok(None) => warn!("box {to} needs a snapshot, and this box has none"),
            Err(error) => warn!("cannot read the snapshot for box {to}: {error}"),
        }
    }

    fn send_offer(&mut self, to: NodeId) {
        let Some(outgoing) = self.snapshots.outgoing.get_mut(&to) else { return };
        let part = outgoing.offer_again(self.moment.now);
        self.send(to, Lane::Snapshot, &Frame::SnapshotPart(part));
    }

    /// The connection to a box broke or is a new one: what was under way may be lost.
    pub(super) fn snapshot_broken(&mut self, peer: NodeId) {
        if let Some(outgoing) = self.snapshots.outgoing.get_mut(&peer) {
            outgoing.broken = true;
        }
    }

    /// A follower asks for a window of the snapshot that it was offered.
    pub(super) fn on_snapshot_want(&mut self, from: NodeId, position: Position, offset: u64) {
        let outgoing = self.snapshots.outgoing.get_mut(&from);
        let wanted = outgoing.map(|outgoing| outgoing.on_wanted(position, offset, self.moment.now));
        match wanted.unwrap_or(Err(Reason::Stale)) {
            Ok(()) => self.disk.ask(Job::ReadSnapshot { to: from, offset, bytes_max: WINDOW_BYTES }),
            Err(why) => self.refuse(from, why),
        }
    }

    /// The disk has read a window.
    pub(super) fn on_snapshot_read(&mut self, to: NodeId, offset: u64, result: Result<Bytes, ReadError>) {
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(error) => {
                self.snapshots.outgoing.remove(&to);
                self.disk.ask(Job::CloseSnapshot { to });
                return warn!("cannot read the snapshot for box {to}: {error}");
            }
        };
        if let Some(outgoing) = self.snapshots.outgoing.get_mut(&to) {
            outgoing.read(offset, &bytes, self.moment.now);
        }
    }

    /// Sends of the snapshots that are on their way what may go now.
    pub(super) fn send_snapshots(&mut self) {
        let (now, Some(links)) = (self.moment.now, &self.links) else { return };
        for (to, outgoing) in &mut self.snapshots.outgoing {
            outgoing.send(now, |part| {
                // Not encoded in vain.
                if !links.has_room(*to, Lane::Snapshot) {
                    return Err(SendError::Full);
                }
                links.send(*to, Lane::Snapshot, Frame::SnapshotPart(part.clone()).encode())
            });
        }
    }

    /// When a part of one may go.
    pub(super) fn snapshots_due(&self) -> Option<Instant> {
        self.snapshots.outgoing.values().filter_map(Outgoing::due).min()
    }

    /// Closes the files that nobody asks for any more.
    pub(super) fn forget_transfers(&mut self) {
        let (disk, now) = (&self.disk, self.moment.now);
        self.snapshots.outgoing.retain(|to, outgoing| {
            let wanted = now.saturating_duration_since(outgoing.progressed) < FORGOTTEN;
            if !wanted {
                disk.ask(Job::CloseSnapshot { to: *to });
            }
            wanted
        });
    }

    pub(super) fn on_snapshot_part(&mut self, from: NodeId, part: &SnapshotPart) {
        if self.take_state_part(from, part) {
            return;
        }
        if part.bytes.is_empty() && part.head.position.index <= self.raft.commit_index() {
            // The core's answer tells the leader that this box is further than it thought.
            let message = Message { term: part.term, body: Body::Snapshot { last: part.head.position } };
            let now = self.now();
            if let Err(why) = self.raft.handle_message(now, from, &message, None, &self.tail) {
                self.refuse(from, why.into());
            }
            return;
        }
        match Incoming::take(&mut self.snapshots.incoming, from, part) {
            Taken::Nothing => {}
            Taken::Ask(offset) => {
                self.send(from, Lane::Requests, &Frame::SnapshotWant { last: part.head.position, offset });
            }
            Taken::Whole => {
                if let Some(whole) = self.snapshots.incoming.take() {
                    self.install(whole);
                }
            }
            Taken::Damaged => {
                let detail = "its checksum is wrong; requesting it again";
                self.shared.metrics.dropped.drop_because(from, Reason::BadSnapshot, detail);
            }
            Taken::Unfit => self.refuse(from, Reason::PartNotAwaited),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tally_core::id::LogIndex;

    const FROM: NodeId = NodeId(1);

    fn head(bytes: &[u8]) -> SnapshotHead {
        let position = Position { index: LogIndex(9), ..Position::ZERO };
        SnapshotHead { position, total: bytes.len() as u64, crc: crc32c::crc32c(bytes) }
    }

    fn part(head: SnapshotHead, offset: usize, bytes: &[u8]) -> SnapshotPart {
        SnapshotPart { term: Term(3), head, offset: offset as u64, bytes: Bytes::copy_from_slice(bytes) }
    }

    proptest! {
        /// Parts get lost, come twice and late; offers are repeated when nothing comes.
        #[test]
        fn a_snapshot_comes_whole_over_a_bad_connection_and_goes_on_where_it_stopped(
            windows in 1usize..5,
            rest in 1usize..PART_BYTES,
            fates in prop::collection::vec(0u8..8, 64),
        ) {
            let bytes: Vec<u8> =
                (0..(windows - 1) * WINDOW_BYTES + rest).map(|at| (at / 7) as u8).collect();
            let head = head(&bytes);
            let mut incoming = None;
            let mut fates = fates.into_iter();
            let mut late: Option<SnapshotPart> = None;
            let mut most = 0;
            for _ in 0..100 {
                let mut asked = Incoming::take(&mut incoming, FROM, &part(head, 0, b""));
                while let Taken::Ask(offset) = asked {
                    prop_assert!(offset as usize >= most, "it never goes back");
                    most = offset as usize;
                    asked = Taken::Nothing;
                    let window = &bytes[most..(most + WINDOW_BYTES).min(bytes.len())];
                    for (number, sent) in window.chunks(PART_BYTES).enumerate() {
                        let sent = part(head, most + number * PART_BYTES, sent);
                        let fate = fates.next().unwrap_or(7);
                        if fate == 0 {
                            continue;
                        }
                        if fate == 1 {
                            late = Some(sent.clone());
                        }
                        // A late one may be just the one that is missing.
                        let late = late.take_if(|_| fate > 2);
                        for sent in late.into_iter().chain([sent]) {
                            match Incoming::take(&mut incoming, FROM, &sent) {
                                Taken::Nothing | Taken::Unfit => {}
                                Taken::Whole => {
                                    prop_assert_eq!(&incoming.unwrap().bytes, &bytes);
                                    return Ok(());
                                }
                                next => asked = next,
                            }
                        }
                    }
                }
            }
            prop_assert!(false, "it never came whole");
        }
    }

    #[test]
    fn what_does_not_belong_there_is_left_out_and_damage_is_noticed() {
        let head = head(b"abcdef");
        let mut incoming = None;
        assert_eq!(Incoming::take(&mut incoming, FROM, &part(head, 0, b"abc")), Taken::Unfit, "no offer");
        assert_eq!(Incoming::take(&mut incoming, FROM, &part(head, 0, b"")), Taken::Ask(0));
        assert_eq!(Incoming::take(&mut incoming, NodeId(2), &part(head, 0, b"abc")), Taken::Unfit);
        assert_eq!(Incoming::take(&mut incoming, FROM, &part(head, 0, b"abcdefg")), Taken::Unfit);
        assert_eq!(Incoming::take(&mut incoming, FROM, &part(head, 0, b"abc")), Taken::Nothing);
        // Another leader has the same one.
        assert_eq!(Incoming::take(&mut incoming, NodeId(2), &part(head, 0, b"")), Taken::Ask(3));
        assert_eq!(Incoming::take(&mut incoming, NodeId(2), &part(head, 3, b"dex")), Taken::Damaged);
        assert!(incoming.is_none());
        let huge = SnapshotHead { total: SNAPSHOT_BYTES_MAX + 1, ..head };
        assert_eq!(Incoming::take(&mut incoming, FROM, &part(huge, 0, b"")), Taken::Unfit);
        let old = SnapshotPart { term: Term(2), ..part(head, 0, b"") };
        assert_eq!(Incoming::take(&mut incoming, FROM, &part(head, 0, b"")), Taken::Ask(0));
        assert_eq!(Incoming::take(&mut incoming, NodeId(2), &old), Taken::Unfit, "of an old term");
    }

    #[test]
    fn however_often_a_follower_asks_one_window_is_read_for_it_at_a_time() {
        let window = WINDOW_BYTES as u64;
        let head = SnapshotHead { total: 3 * window, ..head(b"") };
        let (now, bytes) = (Instant::now(), Bytes::from(vec![7; WINDOW_BYTES]));
        let mut outgoing = Outgoing::new(head, Term(3), now);
        assert_eq!(outgoing.on_wanted(head.position, 0, now), Ok(()));
        for offset in [0, window, 17] {
            assert_eq!(outgoing.on_wanted(head.position, offset, now), Err(Reason::Busy), "it is being read");
        }
        outgoing.read(0, &bytes, now);
        assert_eq!(outgoing.due(), Some(now));
        let mut sent = Vec::new();
        outgoing.send(now, |part| {
            if sent.len() == 2 {
                return Err(SendError::Full);
            }
            sent.push(part.offset);
            Ok(())
        });
        assert_eq!(outgoing.on_wanted(head.position, window, now), Err(Reason::Busy), "it is on its way");
        outgoing.send(now, |_| panic!("it looks for room a little later"));
        outgoing.send(now + AGAIN, |part| {
            sent.push(part.offset);
            Ok(())
        });
        assert_eq!(sent, [0, 1, 2, 3].map(|part| part * PART_BYTES as u64), "each part once, in order");
        assert_eq!(outgoing.on_wanted(head.position, window, now), Ok(()));
        outgoing.read(window, &bytes, now);
        assert!(outgoing.due().is_some_and(|at| at > now), "at a bounded rate");
        outgoing.send(now, |_| panic!("not before its time"));
    }

    #[test]
    fn a_transfer_that_is_offered_anew_or_has_no_connection_lets_go_of_the_window_that_was_under_way() {
        let head = SnapshotHead { total: 3 * WINDOW_BYTES as u64, ..head(b"") };
        let (now, bytes) = (Instant::now(), Bytes::from(vec![7; WINDOW_BYTES]));
        let mut outgoing = Outgoing::new(head, Term(3), now);
        assert_eq!(outgoing.on_wanted(head.position, 0, now), Ok(()));
        outgoing.read(0, &bytes, now);
        outgoing.offer_again(now);
        assert_eq!(outgoing.due(), None);
        assert_eq!(outgoing.on_wanted(head.position, 0, now), Ok(()));
        outgoing.offer_again(now);
        assert_eq!(outgoing.on_wanted(head.position, 17, now), Ok(()));
        outgoing.read(0, &bytes, now);
        assert_eq!(outgoing.due(), None, "it asked for another one since");
        outgoing.read(17, &bytes, now);
        let due = outgoing.due().unwrap();
        outgoing.send(due, |_| Err(SendError::NotConnected));
        assert_eq!(outgoing.due(), None);
        assert_eq!(outgoing.on_wanted(head.position, 0, now), Ok(()));
    }
}
