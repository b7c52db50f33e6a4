//! A box's end of the simulated network: the node puts frames here, and the world delivers them.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use tally_core::id::NodeId;
use tallyd::identity::MemberRecord;
use tallyd::node::Links;
use tallyd::transport::{Lane, PeerStatus, SendError, TransportError};

/// A frame on its way; without a lane it is a datagram.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) to: NodeId,
    pub(crate) lane: Option<Lane>,
    pub(crate) frame: Bytes,
}

#[derive(Debug, Default)]
pub(crate) struct Outlet(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    connected: BTreeSet<NodeId>,
    /// The peers to whom no long frame gets through now.
    congested: BTreeSet<NodeId>,
    sent: Vec<Sent>,
    /// Whom it lets in and dials: everybody whom the node has named, itself among them.
    pinned: Vec<MemberRecord>,
    /// Whose connection was closed because it is not pinned any more, as it was.
    closed: Vec<NodeId>,
}

impl Outlet {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("one thread plays a history")
    }

    pub(crate) fn connect(&self, peer: NodeId) {
        self.state().connected.insert(peer);
    }

    pub(crate) fn disconnect(&self, peer: NodeId) {
        self.state().connected.remove(&peer);
    }

    pub(crate) fn congest(&self, peer: NodeId, is_congested: bool) {
        let mut state = self.state();
        if is_congested {
            state.congested.insert(peer);
        } else {
            state.congested.remove(&peer);
        }
    }

    pub(crate) fn congest_none(&self) {
        self.state().congested.clear();
    }

    /// Whether it connects to this box, under the key that this has.
    pub(crate) fn pins(&self, peer: &MemberRecord) -> bool {
        self.state().pinned.iter().any(|member| (member.id, member.key) == (peer.id, peer.key))
    }

    /// Everybody whom it connects to.
    pub(crate) fn pinned(&self) -> Vec<NodeId> {
        self.state().pinned.iter().map(|member| member.id).collect()
    }

    /// Whose connections are to end.
    pub(crate) fn closed(&self) -> Vec<NodeId> {
        std::mem::take(&mut self.state().closed)
    }

    pub(crate) fn take(&self) -> Vec<Sent> {
        std::mem::take(&mut self.state().sent)
    }
}

impl State {
    fn can_send(&self, to: NodeId) -> Result<(), SendError> {
        match self.connected.contains(&to) {
            true => Ok(()),
            false if self.pinned.iter().any(|member| member.id == to) => Err(SendError::NotConnected),
            false => Err(SendError::NotAPeer),
        }
    }
}

fn is_bulk(lane: Lane) -> bool {
    matches!(lane, Lane::Entries | Lane::Snapshot)
}

impl Links for Outlet {
    fn send(&self, to: NodeId, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        let mut state = self.state();
        state.can_send(to)?;
        if frame.len() > lane.frame_bytes_max() {
            return Err(SendError::TooLarge);
        }
        if is_bulk(lane) && state.congested.contains(&to) {
            return Err(SendError::Full);
        }
        state.sent.push(Sent { to, lane: Some(lane), frame });
        Ok(())
    }

    fn datagram(&self, to: NodeId, frame: Bytes) -> Result<(), SendError> {
        let mut state = self.state();
        state.can_send(to)?;
        state.sent.push(Sent { to, lane: None, frame });
        Ok(())
    }

    fn has_room(&self, to: NodeId, lane: Lane) -> bool {
        let state = self.state();
        state.connected.contains(&to) && !(is_bulk(lane) && state.congested.contains(&to))
    }

    fn peers(&self) -> Vec<PeerStatus> {
        let state = self.state();
        let of = |id: &NodeId| PeerStatus {
            id: id.0,
            name: format!("box{}", id.0),
            connected: true,
            address: String::new(),
            mtu: None,
            rtt_us: Some(1_000),
            queued_bytes: 0,
            refused: None,
        };
        state.connected.iter().map(of).collect()
    }

    fn set_members(&self, members: &[MemberRecord]) -> Result<(), TransportError> {
        let mut state = self.state();
        let before = std::mem::replace(&mut state.pinned, members.to_vec());
        // A member with another address or key is a new one.
        let is_kept = |one: &MemberRecord| {
            members.iter().any(|new| (new.id, new.key, &new.address) == (one.id, one.key, &one.address))
        };
        for gone in before.iter().filter(|one| !is_kept(one)) {
            state.connected.remove(&gone.id);
            state.closed.push(gone.id);
        }
        Ok(())
    }
}
