//! Moves frames between the boxes of the site over QUIC, and identifies the boxes by their pinned keys. It does not
//! interpret frames.
//!
//! Between two boxes there is a connection, or for a moment two. In it each lane is a stream in each
//! direction, made of frames preceded by their length; datagrams are sent separately. Either side dials.
//!
//! * `frame`: frames in a stream of bytes. `queue`: what waits to be sent, bounded.
//! * `address`: which IP versions the socket has, and which addresses of a peer are dialled.
//! * `tls`, `config`, `congestion`: who may connect; how QUIC is tuned.
//! * `peer`: the connections to a box and which of them is used. `link`: one connection at work.
//! * `incarnations`: the check of a connecting box's incarnation: restarted, emptied, or a copy.
//! * `stranger`: connections with boxes that want to become members.
//! * `dial`, `accept`: how connections are made. `refusal`: why one was refused, counted and logged.

mod accept;
mod address;
mod config;
mod congestion;
mod dial;
pub mod frame;
mod incarnations;
mod link;
mod peer;
mod queue;
mod refusal;
mod stranger;
mod tls;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tally_core::id::NodeId;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::figures::Counter;
use crate::identity::{Identity, Keys, MemberRecord};

use incarnations::Hello;
pub use incarnations::{
    Compared, INCARNATION_BYTES, Incarnation, Incarnations, SeenIncarnations, read_seen, seen_text,
};
use peer::Peer;
pub(crate) use refusal::CLOSE_REFUSED;
use refusal::RefusalLog;
pub use refusal::{REFUSALS, Refusal};
pub(crate) use stranger::{BUSY, DialError, Guest, NOT_HERE, address_of, key_of, likely_addresses};

/// A stream of frames to each peer; the lanes do not hold each other up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Votes, acknowledgements, transfers: small frames with the highest priority.
    Control,
    /// Entries of the log.
    Entries,
    /// Requests between boxes: batches, reads.
    Requests,
    /// Chunks of snapshots, with the lowest priority.
    Snapshot,
}

impl Lane {
    /// All lanes; a lane's index is its number in the protocol.
    pub const ALL: [Lane; 4] = [Lane::Control, Lane::Entries, Lane::Requests, Lane::Snapshot];

    /// The longest frame, in bytes. A peer that announces a longer one loses its connection.
    pub const fn frame_bytes_max(self) -> usize {
        match self {
            Lane::Control => 64 * 1024,
            Lane::Entries | Lane::Requests => 4 * 1024 * 1024,
            Lane::Snapshot => 1024 * 1024,
        }
    }

    const fn index(self) -> usize {
        self as usize
    }

    fn from_index(index: u8) -> Option<Lane> {
        Lane::ALL.get(usize::from(index)).copied()
    }
}

/// What the transport tells the node. The channel is bounded: while it is full, streams are not read
/// (so peers are held back) and datagrams are dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// From now on frames to this peer use a new connection. Repeated without a
    /// `Disconnected` before it when a connection was replaced (the peer restarted, say): frames
    /// that were sent before and not answered may be lost.
    Connected(NodeId),
    /// The connection to this peer ended; frames that waited to be sent are dropped.
    Disconnected(NodeId),
    /// This member says that this box's number was retired: it was removed from the site, or replaced.
    Retired(NodeId),
    /// A frame arrived.
    Received {
        /// The sender, authenticated by its key.
        from: NodeId,
        /// The lane of the frame; `None` for a datagram.
        lane: Option<Lane>,
        /// The frame, in memory of its own.
        frame: Bytes,
    },
}

/// A peer as status shows it.
#[derive(Clone, Debug, Serialize)]
pub struct PeerStatus {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Whether frames can be sent to the peer.
    pub connected: bool,
    /// Its address: that of the connection if there is one, else the configured one.
    pub address: String,
    /// Smoothed round-trip time of the connection in microseconds.
    pub rtt_us: Option<u64>,
    /// The largest packet that the path carries, bytes, as far as it was tried.
    pub mtu: Option<u16>,
    /// Bytes that wait to be sent, all lanes.
    pub queued_bytes: u64,
    /// Why either side refused the latest connection; `None` once a connection succeeded.
    pub refused: Option<Refusal>,
}

/// Why a frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no connection to this peer now.
    #[error("not connected")]
    NotConnected,
    /// The queue of this peer and lane is full.
    #[error("the queue is full")]
    Full,
    /// Longer than [`Lane::frame_bytes_max`].
    #[error("the frame is too long for its lane")]
    TooLarge,
    /// No other member has this number.
    #[error("not a peer")]
    NotAPeer,
}

/// Why the transport could not start.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The UDP port could not be bound.
    #[error("cannot listen on {address} (UDP, [cluster] listen): {source}; {remedy}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The system's error.
        source: std::io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// `node.key` is not the key that `identity.json` lists for this box.
    #[error(
        "node.key is not the key that identity.json lists for {0:?}; copy the box's files again from the \
         directory that `tallyd provision` made"
    )]
    OtherKey(String),
    /// TLS could not be set up.
    #[error("cannot set up TLS with node.key and node.crt: {0}")]
    Tls(String),
}

/// The counters of the transport.
#[derive(Debug, Default)]
pub struct TransportMetrics {
    /// Frames sent, without datagrams.
    pub frames_sent: Counter,
    /// Bytes of these frames.
    pub frame_bytes_sent: Counter,
    /// Frames received, without datagrams.
    pub frames_received: Counter,
    /// Bytes of these frames.
    pub frame_bytes_received: Counter,
    /// Datagrams sent.
    pub datagrams_sent: Counter,
    /// Datagrams received.
    pub datagrams_received: Counter,
    /// Datagrams that were received and dropped because the node was behind.
    pub datagrams_dropped: Counter,
    /// Connections made, dialled and accepted.
    pub connections_made: Counter,
    /// Connections that ended, for whatever reason.
    pub connections_ended: Counter,
    /// Dials begun.
    pub dials: Counter,
    /// Dials that failed.
    pub dials_failed: Counter,
    refused: [Counter; REFUSALS.len()],
}

impl TransportMetrics {
    /// The counter of refused connections for a reason.
    pub fn refusals_of(&self, reason: Refusal) -> &Counter {
        &self.refused[reason as usize]
    }

    /// The numbers of refused connections, by the names of all reasons.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        REFUSALS.iter().map(|reason| (reason.as_str(), self.refusals_of(*reason).get()))
    }

    /// All other counters: name, what it counts, value.
    pub fn counters(&self) -> [(&'static str, &'static str, u64); 11] {
        [
            ("frames_sent", "Frames sent.", &self.frames_sent),
            ("frame_bytes_sent", "Bytes of frames.", &self.frame_bytes_sent),
            ("frames_received", "Frames received.", &self.frames_received),
            ("frame_bytes_received", "Bytes of frames.", &self.frame_bytes_received),
            ("datagrams_sent", "Datagrams sent.", &self.datagrams_sent),
            ("datagrams_received", "Datagrams received.", &self.datagrams_received),
            ("datagrams_dropped", "Datagrams dropped because the node was behind.", &self.datagrams_dropped),
            ("connections_made", "Connections made, dialled or accepted.", &self.connections_made),
            ("connections_ended", "Connections that ended.", &self.connections_ended),
            ("dials", "Dials begun.", &self.dials),
            ("dials_failed", "Dials that failed.", &self.dials_failed),
        ]
        .map(|(name, help, counter)| (name, help, counter.get()))
    }
}

/// The box's end of all its connections. Dropping the transport closes them.
#[derive(Debug)]
pub struct Transport {
    shared: Arc<TransportShared>,
    me: NodeId,
    keys: Keys,
    tasks: Mutex<Tasks>,
}

#[derive(Debug, Default)]
struct Tasks {
    all: JoinSet<()>,
    /// Those that dial a peer.
    dialling: Vec<(NodeId, AbortHandle)>,
}

/// What all tasks of the transport share.
#[derive(Debug)]
struct TransportShared {
    me: NodeId,
    server_name: String,
    /// Changed rarely, read with each frame.
    peers: RwLock<Vec<Arc<Peer>>>,
    pins: Arc<tls::Pins>,
    endpoint: quinn::Endpoint,
    versions: address::Versions,
    events: mpsc::Sender<Event>,
    metrics: Arc<TransportMetrics>,
    refusals: RefusalLog,
    incarnations: Incarnations,
    /// Where boxes that want to join come out, if anybody serves them.
    strangers: OnceLock<mpsc::Sender<quinn::Connection>>,
    /// Another key of this box, for those who do not know the one that it goes by.
    other_key: Mutex<Option<Keys>>,
}

impl Transport {
    /// Listens on a UDP address and begins to dial the other members.
    ///
    /// # Errors
    /// Keys and identity do not belong together, TLS cannot be set up, or the address cannot be listened at.
    pub async fn start(
        identity: &Identity,
        keys: Keys,
        listen: SocketAddr,
        events: mpsc::Sender<Event>,
        metrics: Arc<TransportMetrics>,
        incarnations: Incarnations,
    ) -> Result<Transport, TransportError> {
        if !identity.matches(&keys) {
            return Err(TransportError::OtherKey(identity.me().name.clone()));
        }
        let pins = Arc::new(tls::Pins::new(identity));
        let (endpoint, versions) = config::endpoint(&keys, &pins, listen)?;
        let me = identity.node_id();
        let server_name = crate::identity::server_name(identity.site_id);
        let refusals = RefusalLog::new(metrics.clone());
        let peers = RwLock::default();
        let shared = Arc::new(TransportShared {
            me,
            server_name,
            peers,
            pins,
            endpoint,
            versions,
            events,
            metrics,
            refusals,
            incarnations,
            strangers: OnceLock::new(),
            other_key: Mutex::default(),
        });
        let mut tasks = Tasks::default();
        tasks.all.spawn(accept::accept(shared.clone()));
        let transport = Transport { shared, me, keys, tasks: Mutex::new(tasks) };
        transport.set_members(&identity.members)?;
        Ok(transport)
    }

    /// Sets the members. New members are dialled and may connect; a removed member
    /// loses its connections. A member with a changed address or key is treated as new.
    ///
    /// # Errors
    /// TLS cannot be set up for a new member.
    pub fn set_members(&self, members: &[MemberRecord]) -> Result<(), TransportError> {
        self.shared.pins.replace(members);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut peers = self.shared.peers.write().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|peer| {
            let stays = members.iter().any(|member| peer.is(member));
            if !stays {
                peer.close(refusal::CLOSE_REFUSED, refusal::NOT_A_MEMBER);
                tasks.dialling.retain(|(id, task)| {
                    if *id == peer.id {
                        task.abort();
                    }
                    *id != peer.id
                });
            }
            stays
        });
        for member in members.iter().filter(|member| member.id != self.me) {
            if peers.iter().any(|peer| peer.is(member)) {
                continue;
            }
            let client = config::client(&self.keys, &self.shared.pins, member.id)?;
            let peer = Arc::new(Peer::new(self.me, member, client));
            if !peer.address.is_empty() {
                let task = tasks.all.spawn(dial::keep_connected(self.shared.clone(), peer.clone()));
                tasks.dialling.push((peer.id, task));
            }
            peers.push(peer);
        }
        Ok(())
    }

    /// A member that does not know this box's key is dialled by this one, too: while a key is replaced, some know the
    /// old one and some the new one.
    pub fn show_also(&self, keys: Keys) {
        *self.shared.other_key.lock().unwrap_or_else(PoisonError::into_inner) = Some(keys);
    }

    /// The members with these numbers, ascending, were removed: one that comes back is told so.
    pub fn retire(&self, numbers: Vec<NodeId>) {
        self.shared.pins.retire(numbers);
    }

    /// The counters.
    pub fn metrics(&self) -> Arc<TransportMetrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Queues a frame. Never blocks.
    ///
    /// # Errors
    /// No such member, no connection to it, or its queue is full.
    pub fn send(&self, to: NodeId, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        self.peer(to).ok_or(SendError::NotAPeer)?.queue(lane).push(frame)
    }

    /// Whether [`Transport::send`] would accept a frame of moderate size now.
    pub fn has_room(&self, to: NodeId, lane: Lane) -> bool {
        self.peer(to).is_some_and(|peer| peer.queue(lane).has_room())
    }

    /// Sends a frame that may be lost, and that overtakes all other frames. A frame that does not fit into a packet
    /// goes on the control lane.
    ///
    /// # Errors
    /// No such member, no connection to it, or the frame is too large.
    pub fn datagram(&self, to: NodeId, frame: Bytes) -> Result<(), SendError> {
        let peer = self.peer(to).ok_or(SendError::NotAPeer)?;
        if peer.send_datagram(&frame)? {
            self.shared.metrics.datagrams_sent.raise();
            return Ok(());
        }
        peer.queue(Lane::Control).push(frame)
    }

    /// The other members, by number.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.shared
            .peers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|peer| peer.status())
            .collect()
    }

    /// Closes all connections, which tells the peers that this box stops, and frees the port. Queued frames may be lost.
    pub async fn close(&self) {
        self.shut();
        // The peers are told by the first packet; waiting longer only frees the port in good order.
        let _ = tokio::time::timeout(Duration::from_millis(250), self.shared.endpoint.wait_idle()).await;
    }

    fn shut(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).all.abort_all();
        self.shared.endpoint.close(refusal::CLOSE_GOING, b"the box is stopping");
    }

    fn peer(&self, id: NodeId) -> Option<Arc<Peer>> {
        self.shared.peer(id)
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.shut();
    }
}

impl TransportShared {
    fn hello(&self) -> Hello {
        Hello { node: self.me, incarnation: self.incarnations.own() }
    }

    fn other_key(&self) -> Option<Keys> {
        self.other_key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds a connection of a peer that is one still: whom [`Transport::set_members`] lets go has none afterwards.
    fn add_link<T>(&self, peer: &Arc<Peer>, add: impl FnOnce(&Peer) -> T) -> Option<T> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.iter().any(|known| Arc::ptr_eq(known, peer)).then(|| add(peer))
    }

    // At most eight others: a walk is quicker than a hash.
    fn peer(&self, id: NodeId) -> Option<Arc<Peer>> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.iter().find(|peer| peer.id == id).cloned()
    }
}

#[cfg(test)]
#[path = "transport_tests.rs"]
mod tests;
