//! The connections to one peer, and which of them is used for sending.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendDatagramError, SendStream};
use tally_core::id::{KeyHash, NodeId};
use tokio::sync::watch;

use super::address::display_form;
use super::queue::Queue;
use super::refusal::CLOSE_SUPERSEDED;
use super::{Incarnation, Lane, PeerStatus, Refusal, SendError};
use crate::identity::MemberRecord;

/// Two dials, one from each side, have crossed when the second was begun before the first was a
/// connection, or so shortly after that the other side may see it the other way round.
const CROSSED: Duration = Duration::from_millis(100);

/// A peer that proved who it is may still not pile up connections.
const LINKS_MAX: usize = 4;

/// Another member of the site.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    pub(super) name: String,
    pub(super) address: String,
    key: KeyHash,
    pub(super) client: quinn::ClientConfig,
    /// Whether this box's number is the lower one: it decides where the two sides could disagree.
    pub(super) decides: bool,
    queues: [Queue; Lane::ALL.len()],
    links: Mutex<Links>,
    /// Held while links change and the node is told, so that it is told in order.
    pub(super) announcing: tokio::sync::Mutex<()>,
    connected: watch::Sender<bool>,
    /// Why either side refused the latest connection; `None` once a connection succeeded.
    refused: Mutex<Option<Refusal>>,
}

#[derive(Debug, Default)]
struct Links {
    live: Vec<Link>,
    /// Serial of the one in use.
    current: Option<u64>,
    serial_last: u64,
}

/// A live connection.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) serial: u64,
    pub(super) connection: Connection,
    incarnation: Incarnation,
    made: Made,
}

/// How and when a connection was made.
#[derive(Clone, Copy, Debug)]
struct Made {
    begun: Instant,
    done: Instant,
    by_decider: bool,
}

/// A connection whose peer is known, not yet in use.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) connection: Connection,
    /// The control lane, opened already: that tells the dialling side that it was accepted.
    pub(super) control: SendStream,
    /// The peer's control lane, read up to its first frame.
    pub(super) first: RecvStream,
    /// Which incarnation of the peer it is.
    pub(super) incarnation: Incarnation,
    pub(super) dialled_here: bool,
    /// When it was dialled, or knocked.
    pub(super) begun: Instant,
}

/// What adding a connection came to.
#[derive(Debug)]
pub(super) struct Added {
    pub(super) link: Link,
    /// Whether it is in use from now on.
    pub(super) in_use: bool,
    /// The one that is now superfluous: it or the one in use before.
    pub(super) superfluous: Option<Link>,
}

/// The result of the end of a connection.
#[derive(Debug)]
pub(super) enum Removed {
    /// It was not in use.
    Unused,
    /// It was in use; this one is now.
    Replaced(Link),
    /// It was the last.
    Disconnected,
}

impl Peer {
    pub(super) fn new(me: NodeId, member: &MemberRecord, client: quinn::ClientConfig) -> Peer {
        Peer {
            id: member.id,
            name: member.name.clone(),
            address: member.address.clone(),
            key: member.key,
            client,
            decides: me < member.id,
            queues: Lane::ALL.map(Queue::new),
            links: Mutex::default(),
            announcing: tokio::sync::Mutex::default(),
            connected: watch::Sender::new(false),
            refused: Mutex::default(),
        }
    }

    /// Whether the peer is this member, at this address and with this key.
    pub(super) fn is(&self, member: &MemberRecord) -> bool {
        self.id == member.id && self.address == member.address && self.key == member.key
    }

    /// Records that one side refused a connection.
    pub(super) fn note_refusal(&self, why: Refusal) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    /// Closes all connections to the peer.
    pub(super) fn close(&self, code: quinn::VarInt, why: &[u8]) {
        for link in &self.lock().live {
            link.connection.close(code, why);
        }
    }

    pub(super) fn queue(&self, lane: Lane) -> &Queue {
        &self.queues[lane.index()]
    }

    /// Whether there is a connection, as it changes.
    pub(super) fn watch_connected(&self) -> watch::Receiver<bool> {
        self.connected.subscribe()
    }

    /// Sends a datagram on the connection in use; false if it cannot go as a datagram.
    pub(super) fn send_datagram(&self, frame: &Bytes) -> Result<bool, SendError> {
        let links = self.lock();
        let link = links.in_use().ok_or(SendError::NotConnected)?;
        match link.connection.send_datagram(frame.clone()) {
            Ok(()) => Ok(true),
            Err(SendDatagramError::ConnectionLost(_)) => Err(SendError::NotConnected),
            Err(_) => Ok(false),
        }
    }

    /// Adds a connection. The newer of two is used, except that of two crossed dials both sides
    /// use the decider's, so that they agree.
    pub(super) fn add(
        &self,
        connection: Connection,
        incarnation: Incarnation,
        dialled_here: bool,
        begun: Instant,
    ) -> Added {
        let mut links = self.lock();
        links.serial_last += 1;
        let made = Made { begun, done: Instant::now(), by_decider: dialled_here == self.decides };
        let link = Link { serial: links.serial_last, connection, incarnation, made };
        let before = links.in_use().cloned();
        let in_use = before.as_ref().is_none_or(|before| link.made.supersedes(before.made));
        links.live.push(link.clone());
        let superfluous = if in_use { before } else { Some(link.clone()) };
        if in_use {
            links.current = Some(link.serial);
        }
        links.close_the_oldest();
        drop(links);
        if in_use {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.give_queues(Some(link.serial));
            self.connected.send_replace(true);
        }
        Added { link, in_use, superfluous }
    }

    /// A connection has ended.
    pub(super) fn remove(&self, serial: u64) -> Removed {
        let mut links = self.lock();
        links.live.retain(|link| link.serial != serial);
        if links.current != Some(serial) {
            return Removed::Unused;
        }
        let next = links.live.iter().max_by_key(|link| link.serial).cloned();
        links.current = next.as_ref().map(|link| link.serial);
        drop(links);
        self.give_queues(next.as_ref().map(|link| link.serial));
        match next {
            Some(link) => Removed::Replaced(link),
            None => {
                self.connected.send_replace(false);
                Removed::Disconnected
            }
        }
    }

    /// Sends an empty datagram over the connections of other incarnations of this peer, which is acknowledged
    /// and otherwise ignored, and returns the number of packets received over them; `None` if there are none.
    pub(super) fn probe_other(&self, incarnation: Incarnation) -> Option<u64> {
        let links = self.lock();
        let others = links.live.iter().filter(|link| link.incarnation != incarnation);
        let open = others.filter(|link| link.connection.close_reason().is_none());
        let probe = |link: &Link| {
            // What cannot be sent is not acknowledged.
            let _ = link.connection.send_datagram(Bytes::new());
            link.connection.stats().udp_rx.datagrams
        };
        open.map(probe).reduce(|sum, more| sum + more)
    }

    /// Closes a connection, unless it is in use (again).
    pub(super) fn retire(&self, serial: u64) {
        let links = self.lock();
        if links.current == Some(serial) {
            return;
        }
        if let Some(link) = links.live.iter().find(|link| link.serial == serial) {
            link.connection.close(CLOSE_SUPERSEDED, b"another connection is in use");
        }
    }

    pub(super) fn status(&self) -> PeerStatus {
        let links = self.lock();
        let connection = links.in_use().map(|link| &link.connection);
        let queued: usize = self.queues.iter().map(Queue::bytes).sum();
        PeerStatus {
            id: self.id.0,
            name: self.name.clone(),
            connected: connection.is_some(),
            address: connection
                .map_or_else(|| self.address.clone(), |live| display_form(live.remote_address()).to_string()),
            rtt_us: connection.map(|live| live.rtt().as_micros() as u64),
            mtu: connection.map(|live| live.stats().path.current_mtu),
            queued_bytes: queued as u64,
            refused: *self.refused.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn give_queues(&self, owner: Option<u64>) {
        for queue in &self.queues {
            queue.set_owner(owner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Links> {
        // Nothing in here panics while holding the lock.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Links {
    fn in_use(&self) -> Option<&Link> {
        self.live.iter().find(|link| Some(link.serial) == self.current)
    }

    fn close_the_oldest(&mut self) {
        if self.live.len() <= LINKS_MAX {
            return;
        }
        let current = self.current;
        if let Some(oldest) = self.live.iter().find(|link| Some(link.serial) != current) {
            oldest.connection.close(CLOSE_SUPERSEDED, b"too many connections");
        }
    }
}

impl Made {
    /// Whether this, the newer one, is to be used instead of `before`.
    fn supersedes(self, before: Made) -> bool {
        let crossed = self.by_decider != before.by_decider && self.begun < before.done + CROSSED;
        !crossed || self.by_decider
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(by_decider: bool, begun: Instant, done: Instant) -> Made {
        Made { begun, done, by_decider }
    }

    #[test]
    fn both_sides_of_crossed_dials_use_the_deciders() {
        let start = Instant::now();
        let (soon, later) = (start + Duration::from_millis(3), start + Duration::from_millis(8));
        let (deciders, others) = (made(true, start, soon), made(false, start, later));
        assert!(!others.supersedes(deciders), "the other's came second and is not used");
        let (deciders, others) = (made(true, start, later), made(false, start, soon));
        assert!(deciders.supersedes(others), "the decider's came second and is used");
    }

    #[test]
    fn otherwise_the_newest_is_used() {
        let start = Instant::now();
        for (before, after) in [(true, true), (false, false)] {
            let (old, new) = (made(before, start, start), made(after, start, start));
            assert!(new.supersedes(old), "a peer that dials again was restarted");
        }
        let after = start + CROSSED;
        assert!(made(false, after, after).supersedes(made(true, start, start)));
    }
}
