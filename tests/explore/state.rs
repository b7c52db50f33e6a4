//! One state of a site, what can happen in it, and what comes of that.

use std::cell::Cell;
use std::hash::Hash;
use std::rc::Rc;

use tally_core::id::{LogIndex, NodeId};
use tally_core::raft::{Body, Config, Configuration, ConfigurationEntry, Role};
use tally_core::time::Duration;

use crate::bounds::{Bounds, Choice, Met, Rules};
use crate::explored::{Explored, Wish};
use crate::hash::Wide;
use crate::hashing::{hash_configuration, hash_node, hash_packet};
use crate::invariants::Settled;
use crate::node::{Disk, Node, Packet};
use crate::witness::WitnessNode;

mod steps;

/// A leader looks after its quorum twice in an election timeout: the least that the core allows.
const ELECTION_TIMEOUT: Duration = Duration::from_millis(1000);
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);

/// Whether the receiver of a message has not heard its leader for an election timeout.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Late {
    No,
    Yes,
    /// Always so, and not worth telling.
    Untold,
}

/// A read that a leader took, and what it has to see.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Read {
    at: NodeId,
    round: u64,
    index: LogIndex,
    committed: usize,
}

/// All namings of the nodes; the first one is the nodes' own.
pub(crate) type Namings = Rc<[Vec<u64>]>;

/// What is hashed under each naming, once it is asked for.
type Hashes = Rc<[Cell<Option<u128>>]>;

fn not_yet_hashed(namings: &Namings) -> Hashes {
    namings.iter().map(|_| Cell::new(None)).collect()
}

fn known_or(hashes: &Hashes, which: usize, hash: impl FnOnce() -> u128) -> u128 {
    let known = hashes[which].get().unwrap_or_else(hash);
    hashes[which].set(Some(known));
    known
}

#[derive(Clone)]
struct OnItsWay {
    packet: Rc<Packet>,
    /// Under the nodes' own names: which packet it is.
    hash: u128,
    hashes: Hashes,
}

pub(crate) struct State<C: Explored> {
    bounds: Bounds,
    rules: Rules,
    namings: Namings,
    /// What leaders may be asked for.
    wishes: &'static [Wish],
    nodes: Vec<Rc<Node<C>>>,
    hashes: Vec<Hashes>,
    /// What each node is without any names.
    faces: Vec<u64>,
    witness: Option<Rc<WitnessNode<C::Bug>>>,
    wire: Vec<OnItsWay>,
    settled: Rc<Settled>,
    reads: Vec<Read>,
    pub(crate) met: Rc<Met>,
}

impl<C: Explored> Clone for State<C> {
    fn clone(&self) -> Self {
        State {
            bounds: self.bounds,
            rules: self.rules,
            namings: Rc::clone(&self.namings),
            wishes: self.wishes,
            nodes: self.nodes.clone(),
            hashes: self.hashes.clone(),
            faces: self.faces.clone(),
            witness: self.witness.clone(),
            wire: self.wire.clone(),
            settled: Rc::clone(&self.settled),
            reads: self.reads.clone(),
            met: Rc::clone(&self.met),
        }
    }
}

/// Why a history must not be, or that a choice is not there to be made.
#[derive(Debug)]
pub(crate) enum Stop {
    Impossible,
    Violation(String),
}

impl From<String> for Stop {
    fn from(what: String) -> Stop {
        Stop::Violation(what)
    }
}

/// Where a story is told; `None` while searching.
pub(crate) type Story<'a> = Option<&'a mut Vec<String>>;

fn tell(story: &mut Story<'_>, line: impl FnOnce() -> String) {
    if let Some(lines) = story {
        lines.push(line());
    }
}

impl<C: Explored> State<C> {
    /// Nodes with these disks start.
    pub(crate) fn new(
        bounds: Bounds,
        rules: Rules,
        namings: Namings,
        wishes: &'static [Wish],
        disks: &[Disk],
        witness: Option<NodeId>,
    ) -> Self {
        let mut state = State {
            bounds,
            rules,
            namings,
            wishes,
            nodes: Vec::new(),
            hashes: Vec::new(),
            faces: Vec::new(),
            witness: witness.map(|id| Rc::new(WitnessNode::new(id))),
            wire: Vec::new(),
            settled: Rc::default(),
            reads: Vec::new(),
            met: Rc::default(),
        };
        for (disk, id) in disks.iter().zip(1..) {
            let mut node = Node::new(NodeId(id), Configuration::EMPTY);
            node.disk = disk.clone();
            node.start(config(node.id));
            state.nodes.push(Rc::new(node));
            state.hashes.push(Rc::default());
            state.faces.push(0);
        }
        for place in 0..state.nodes.len() {
            state.drive(place, &mut None).expect("nothing is wrong at the start");
        }
        state
    }

    /// The same state, from which this much may happen.
    pub(crate) fn bounded(self, bounds: Bounds, rules: Rules) -> Self {
        State { bounds, rules, met: Rc::default(), ..self }
    }

    /// The least of its hashes under all namings that call the nodes in the order of their faces: a site and the same
    /// site with its nodes exchanged have one hash.
    pub(crate) fn hash(&self) -> u128 {
        let in_order = |naming: &[u64]| {
            let earlier = |one: usize, other: usize| naming[one] < naming[other];
            let alike =
                |one: usize, other: usize| self.namings.iter().any(|naming| naming[one] == other as u64 + 1);
            let places = 0..naming.len();
            places.clone().all(|one| {
                let sorted = |other| {
                    !earlier(one, other) || !alike(one, other) || self.faces[one] <= self.faces[other]
                };
                places.clone().all(sorted)
            })
        };
        let namings = self.namings.iter().enumerate().filter(|(_, naming)| in_order(naming));
        namings.map(|(which, naming)| self.hash_under(which, naming)).min().expect("some order is right")
    }

    fn hash_under(&self, which: usize, naming: &[u64]) -> u128 {
        let name = |id: NodeId| naming[place_of(id)];
        let mut rest = Wide::new(7);
        self.bounds.hash(&mut rest);
        self.settled.committed.hash(&mut rest);
        let ConfigurationEntry { index, configuration } = &self.settled.configuration;
        (index, hash_configuration(configuration, &name)).hash(&mut rest);
        let leaders = self.settled.leaders.iter().map(|(term, id)| Wide::of(&(term, name(*id))));
        let reads = self.reads.iter().map(|r| Wide::of(&(name(r.at), r.round, r.index, r.committed)));
        let nodes = self.nodes.iter().zip(&self.hashes);
        let nodes = nodes.map(|(node, hashes)| known_or(hashes, which, || hash_node(node, naming)));
        let hash = |on: &OnItsWay| known_or(&on.hashes, which, || hash_packet(&on.packet, naming));
        let wire = self.wire.iter().map(hash);
        let witness = self.witness.iter().map(|witness| witness.hash(&name));
        leaders.chain(reads).chain(nodes).chain(witness).chain(wire).fold(rest.wide(), u128::wrapping_add)
    }

    /// The messages on their way, and which they are.
    pub(crate) fn on_their_way(&self) -> impl Iterator<Item = (&Packet, u128)> {
        self.wire.iter().map(|on_its_way| (&*on_its_way.packet, on_its_way.hash))
    }

    /// All that can happen now.
    pub(crate) fn choices(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        if self.wire.len() > usize::from(self.bounds.in_flight) {
            choices.extend(self.wire.iter().map(|on_its_way| Choice::Drop(on_its_way.hash)));
            return choices;
        }
        for (place, on_its_way) in self.wire.iter().enumerate() {
            let packet = on_its_way.hash;
            if self.wire[..place].iter().any(|other| other.hash == packet) {
                continue;
            }
            choices.push(Choice::Deliver { packet, late: false });
            if self.may_be_late(&on_its_way.packet) {
                choices.push(Choice::Deliver { packet, late: true });
            }
            if self.bounds.duplicates > 0 {
                choices.push(Choice::DeliverCopy(packet));
            }
        }
        for node in &self.nodes {
            self.choices_of(node, &mut choices);
        }
        if let Some(witness) = self.witness.as_ref().filter(|witness| witness.storing.is_some()) {
            choices.push(Choice::Persist(witness.id));
            if self.bounds.crashes > 0 {
                choices.extend([0, 1].map(|stored| Choice::Crash(witness.id, stored)));
            }
        }
        choices
    }

    fn choices_of(&self, node: &Node<C>, choices: &mut Vec<Choice>) {
        let (id, bounds) = (node.id, &self.bounds);
        let Some(core) = &node.core else { return };
        let leads = core.role() == Role::Leader;
        if node.write.is_some() {
            choices.push(Choice::Persist(id));
        }
        if leads {
            let affordable = [
                (bounds.proposals > 0, Choice::Propose(id)),
                (bounds.reads > 0, Choice::Read(id)),
                (bounds.ticks > 0, Choice::Tick(id)),
            ];
            choices.extend(affordable.iter().filter(|(may, _)| *may).map(|(_, choice)| *choice));
            let configuration = core.configuration().configuration;
            if !configuration.is_joint() && bounds.changes > 0 {
                choices.extend((0..self.wishes.len()).map(|wish| Choice::Change(id, wish)));
            } else if configuration.is_joint() && !configuration.leaves_by_itself() {
                choices.push(Choice::Leave(id));
            }
        } else if bounds.expiries > 0 && core.term().0 < u64::from(bounds.terms) {
            choices.push(Choice::Expire(id));
        }
        if bounds.compactions > 0 && core.commit() > node.log.base.index {
            choices.push(Choice::Compact(id));
        }
        if bounds.crashes > 0 {
            let records = node.write.as_ref().map_or(0, crate::node::Write::records);
            choices.extend((0..=records).map(|there| Choice::Crash(id, there)));
        }
        if let Some(write) = node.write.as_ref().filter(|_| bounds.failures > 0) {
            choices.extend((0..=write.records()).map(|there| Choice::Fail(id, there)));
        }
    }

    /// A request for a vote can find its receiver with a leader that it has not heard for long.
    fn may_be_late(&self, packet: &Packet) -> bool {
        let receiver = self.nodes.get(place_of(packet.to)).and_then(|node| node.core.as_ref());
        matches!(packet.message.body, Body::PreVote { .. } | Body::Vote { .. })
            && receiver.is_some_and(|core| core.leader().is_some() && core.role() != Role::Leader)
    }
}

pub(crate) fn place_of(id: NodeId) -> usize {
    usize::try_from(id.0 - 1).expect("sites are small")
}

fn config(id: NodeId) -> Config {
    Config {
        id,
        election_timeout: ELECTION_TIMEOUT,
        heartbeat_interval: HEARTBEAT_INTERVAL,
        seed: 1,
        append_bytes_max: 100,
        inflight_bytes_max: 300,
        uncommitted_bytes_max: 1000,
    }
}
