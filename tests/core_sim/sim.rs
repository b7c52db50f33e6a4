//! What all boxes share: the time, what is due, chance, the network, the checks.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::rc::Rc;

use tally_core::id::{LogIndex, NodeId, Term};
use tally_core::raft::Message;

use crate::checks::Checks;
use crate::client::{Answer, Request};
use crate::cores::Cores;
use crate::coverage::Coverage;
use crate::disk::Snapshot;
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
    /// Of one incarnation of a box: forgotten when it crashes.
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
    /// Somebody wishes for other members.
    Change,
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
    Snapshotted(Rc<Snapshot>),
    /// A snapshot that was received is durable.
    Staged {
        from: NodeId,
        message: Message,
        snapshot: Rc<Snapshot>,
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
    /// Boxed, since the heap moves it about.
    event: Box<Event>,
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

/// What a history is besides its seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) cores: Cores,
    /// Makes some kind of trouble more frequent than chance would.
    pub(crate) bend: fn(&mut Plan),
    /// How many voters the site has at first, if not by chance.
    pub(crate) voters: Option<u64>,
}

impl Setting {
    /// The core as it is meant, and whatever plan the seed makes.
    pub(crate) const PLAIN: Setting = Setting { cores: Cores::PLAIN, bend: |_| (), voters: None };

    /// What the environment has to say for the same history.
    pub(crate) fn variables(self) -> String {
        self.voters.map_or_else(String::new, |voters| format!("TALLYD_SIM_VOTERS={voters} "))
    }
}

pub(crate) struct Sim {
    pub(crate) now: Micros,
    queue: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    pub(crate) rng: Rng,
    pub(crate) cores: Cores,
    pub(crate) plan: Plan,
    pub(crate) network: Network,
    pub(crate) checks: Checks,
    pub(crate) coverage: Coverage,
    /// Boxes that were members and, by what is committed, are not any more.
    removed: BTreeSet<NodeId>,
    members: Vec<NodeId>,
    /// Who was last asked to take over, and in which term that would be.
    pub(crate) handing_over: Option<(NodeId, Term)>,
    /// Nothing goes wrong any more.
    pub(crate) healed: bool,
    /// The latest events, for the report of a failure.
    pub(crate) trace: bool,
}

impl Sim {
    pub(crate) fn new(seed: u64, setting: Setting, trace: bool) -> Sim {
        let mut rng = Rng::new(seed);
        let mut plan = Plan::new(&mut rng, setting.voters);
        (setting.bend)(&mut plan);
        let network = Network::new(&plan);
        let members = plan.members.iter().map(|member| member.id).collect();
        Sim {
            now: 0,
            queue: BinaryHeap::new(),
            sequence: 0,
            rng,
            cores: setting.cores,
            plan,
            network,
            checks: Checks::default(),
            coverage: Coverage::default(),
            removed: BTreeSet::new(),
            members,
            handing_over: None,
            healed: false,
            trace,
        }
    }

    pub(crate) fn after(&mut self, span: Micros, event: Event) {
        self.sequence += 1;
        let due = Due { at: self.now + span, sequence: self.sequence, event: Box::new(event) };
        self.queue.push(Reverse(due));
    }

    pub(crate) fn next(&mut self) -> Option<Event> {
        let Reverse(due) = self.queue.pop()?;
        self.now = due.at;
        self.coverage.events += 1;
        Some(*due.event)
    }

    pub(crate) fn send(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        for delay in self.network.route(from, to, &mut self.rng, &mut self.coverage) {
            self.after(delay, Event::Packet { from, to, packet: packet.clone() });
        }
    }

    /// Keeps account of who is a member by what was committed after `before`.
    pub(crate) fn learn_members(&mut self, before: LogIndex) {
        for known in self.checks.committed.after(before) {
            let Some(configuration) = &known.entry.configuration else { continue };
            let gone = self.members.iter().filter(|id| configuration.role(**id).is_none());
            self.removed.extend(gone);
            self.removed.retain(|id| configuration.role(*id).is_none());
            self.members = configuration.ids().collect();
        }
    }

    /// The latest committed configuration is without this box, which was in one before.
    pub(crate) fn is_removed(&self, id: NodeId) -> bool {
        self.removed.contains(&id)
    }

    /// Tells what happened, when a single seed is looked at.
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>9} {}", self.now, what());
        }
    }
}
