//! What can happen in a history.

use tally_core::id::NodeId;
use tallyd::node::{Done, Input};

use crate::guests::Guest;
use crate::links::Sent;
use crate::plan::Micros;
use crate::upstreams::UpstreamEvent;
use crate::witnesses::{WitnessEvent, is_witness};

#[derive(Debug)]
pub(crate) enum Event {
    /// A frame arrives, if its connection is still there.
    Frame {
        from: NodeId,
        to: NodeId,
        serial: u64,
        sent: Sent,
    },
    /// A box hears that it is connected.
    Linked {
        at: NodeId,
        peer: NodeId,
        serial: u64,
    },
    /// A box hears nothing any more of what it was connected to.
    Unlinked {
        at: NodeId,
        peer: NodeId,
        serial: u64,
    },
    /// Connections that can be made are made.
    Dial,
    /// A node is due, if it still is at this time.
    Wake {
        at: NodeId,
        incarnation: u64,
        due: Micros,
    },
    /// The disk begins its next job.
    DiskBegins {
        at: NodeId,
        incarnation: u64,
    },
    /// The disk is done with one.
    DiskDone {
        at: NodeId,
        incarnation: u64,
        done: Vec<Done>,
    },
    /// Something is asked of a box.
    Ask {
        place: usize,
        input: Option<Input>,
    },
    Adder(usize),
    Reporter(usize),
    Reader,
    Counts(usize),
    Operator,
    Witness {
        at: NodeId,
        event: WitnessEvent,
    },
    /// Somebody wishes for other members.
    Change,
    Upstream(UpstreamEvent),
    Guest(Guest),
    /// The whole site stands still, and time does not.
    Sleep,
    Trouble,
    Start {
        at: NodeId,
    },
    DiskRecovers {
        at: NodeId,
    },
}

/// Which box an event happens at, if it cannot while that is paused; and whether its disk is at work for it.
pub(crate) fn concerned(event: &Event) -> Option<(NodeId, bool)> {
    match event {
        Event::Frame { to: at, .. } | Event::Unlinked { at, .. } if is_witness(*at) => None,
        Event::Frame { to, .. } => Some((*to, false)),
        Event::Linked { at, .. } | Event::Unlinked { at, .. } | Event::Wake { at, .. } => Some((*at, false)),
        Event::DiskBegins { at, .. } | Event::DiskDone { at, .. } => Some((*at, true)),
        Event::Ask { place, .. } => Some((NodeId(*place as u64 + 1), false)),
        Event::Upstream(event) => event.place().map(|place| (NodeId(place as u64 + 1), false)),
        _ => None,
    }
}
