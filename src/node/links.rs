//! The node's connection to the other boxes. Nothing here blocks: a frame that cannot be taken now is refused, and the
//! caller decides what to do with it.

use std::fmt::Debug;

use bytes::Bytes;
use tally_core::id::NodeId;

use crate::identity::MemberRecord;
use crate::transport::{Lane, PeerStatus, SendError, Transport, TransportError};

/// What carries frames to the other boxes: the transport, or a simulated network.
pub trait Links: Debug + Send + Sync {
    /// Queues a frame.
    ///
    /// # Errors
    /// Why it is not taken; it will not arrive.
    fn send(&self, to: NodeId, lane: Lane, frame: Bytes) -> Result<(), SendError>;

    /// Sends a frame that may be lost, and overtakes everything.
    ///
    /// # Errors
    /// Why it is not taken; it will not arrive.
    fn datagram(&self, to: NodeId, frame: Bytes) -> Result<(), SendError>;

    /// Whether [`send`](Self::send) would take a frame of moderate size now.
    fn has_room(&self, to: NodeId, lane: Lane) -> bool;

    /// How the other members are connected.
    fn peers(&self) -> Vec<PeerStatus>;

    /// From now on these are the members, this box among them.
    ///
    /// # Errors
    /// No connection to one of them could be set up.
    fn set_members(&self, members: &[MemberRecord]) -> Result<(), TransportError>;

    /// The members with these numbers, ascending, were removed: one that comes back is told so where that can be said.
    fn retire(&self, _numbers: Vec<NodeId>) {}
}

impl Links for Transport {
    fn send(&self, to: NodeId, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        Transport::send(self, to, lane, frame)
    }

    fn datagram(&self, to: NodeId, frame: Bytes) -> Result<(), SendError> {
        Transport::datagram(self, to, frame)
    }

    fn has_room(&self, to: NodeId, lane: Lane) -> bool {
        Transport::has_room(self, to, lane)
    }

    fn peers(&self) -> Vec<PeerStatus> {
        Transport::peers(self)
    }

    fn set_members(&self, members: &[MemberRecord]) -> Result<(), TransportError> {
        Transport::set_members(self, members)
    }

    fn retire(&self, numbers: Vec<NodeId>) {
        Transport::retire(self, numbers);
    }
}
