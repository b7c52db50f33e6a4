//! What all boxes share: the time, what is due, chance, the network, the checks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use tally_core::id::NodeId;
use tally_core::raft::{Message, Position};

use crate::checks::Checks;
use crate::client::{Answer, Request};
use crate::coverage::Coverage;
use crate::network::{Network, Packet};
use crate::plan::{Micros, Plan};
use crate::rng::Rng;

/// What happens at some moment.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Packet {
        from: NodeId,
        to: NodeId,
        packet: Packet,
    },
    /// A client's request reaches a box.
    ToBox {
        to: NodeId,
        request: Request,
    },
    ToClient {
        client: usize,
        answer: Answer,
    },
    ClientWakes {
        client: usize,
    },
    /// Of one life of a box: forgotten when it crashes.
    Own {
        node: NodeId,
        boot: u64,
        what: Own,
    },
    Restart {
        node: NodeId,
    },
    /// Power goes at a box.
    Crash {
        node: NodeId,
    },
    Trouble,
    /// A disk works again.
    DiskRecovers {
        node: NodeId,
    },
}

/// What a box does for itself.
#[derive(Clone, Debug)]
pub(crate) enum Own {
    Wake,
    /// The outstanding group was synced, or failed.
    Synced,
    /// A snapshot of the box itself is durable.
    Snapshotted {
        position: Position,
        bytes: Rc<[u8]>,
    },
    /// A snapshot that was received is durable.
    Staged {
        from: NodeId,
        message: Message,
        position: Position,
        bytes: Rc<[u8]>,
    },
}

impl Event {
    /// Which box it happens at, if it cannot while the box is paused.
    pub(crate) fn node(&self) -> Option<NodeId> {
        match self {
            Event::Packet { to, .. } | Event::ToBox { to, .. } => Some(*to),
            Event::Own { node, .. } => Some(*node),
            _ => None,
        }
    }
}

struct Due {
    at: Micros,
    sequence: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

pub(crate) struct Sim {
    pub(crate) now: Micros,
    queue: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    pub(crate) rng: Rng,
    pub(crate) plan: Plan,
    pub(crate) network: Network,
    pub(crate) checks: Checks,
    pub(crate) coverage: Coverage,
    /// Nothing goes wrong any more.
    pub(crate) healed: bool,
    /// The latest events, for the report of a failure.
    pub(crate) trace: bool,
}

impl Sim {
    pub(crate) fn new(seed: u64, trace: bool) -> Sim {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng);
        let network = Network::new(&plan);
        Sim {
            now: 0,
            queue: BinaryHeap::new(),
            sequence: 0,
            rng,
            plan,
            network,
            checks: Checks::default(),
            coverage: Coverage::default(),
            healed: false,
            trace,
        }
    }

    pub(crate) fn after(&mut self, span: Micros, event: Event) {
        self.sequence += 1;
        let due = Due { at: self.now + span, sequence: self.sequence, event };
        self.queue.push(Reverse(due));
    }

    pub(crate) fn next(&mut self) -> Option<Event> {
        let Reverse(due) = self.queue.pop()?;
        self.now = due.at;
        Some(due.event)
    }

    pub(crate) fn send(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        for delay in self.network.route(from, to, &mut self.rng, &mut self.coverage) {
            self.after(delay, Event::Packet { from, to, packet: packet.clone() });
        }
    }

    /// Tells what happened, when a single seed is looked at.
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>9} {}", self.now, what());
        }
    }
}
