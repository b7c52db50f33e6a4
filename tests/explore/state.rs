//! One state of a site, what can happen in it, and what comes of that.

use std::cell::Cell;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use tally_core::id::{LogIndex, NodeId, Term};
use tally_core::raft::{Body, Config, Configuration, Handled, HardState, Message, Persist, Role};
use tally_core::time::Duration;

use crate::describe;
use crate::explored::Explored;
use crate::hash::Wide;
use crate::invariants::{Settled, what_is_said_is_durable};
use crate::node::{Disk, Node, Packet};
use crate::plain_log::{ENTRY_BYTES, PlainLog};
use crate::witness::{WitnessNode, hash_set};

/// A leader looks after its quorum twice in an election timeout: the least that the core allows.
const ELECTION_TIMEOUT: Duration = Duration::from_millis(1000);
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);

/// What can happen, and how often at most. Everything else happens as often as it can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    /// Election timers that run out.
    pub(crate) expiries: u8,
    /// Heartbeat intervals of leaders.
    pub(crate) ticks: u8,
    /// Crashes, each with an immediate restart (a node that is away is one that hears nothing).
    pub(crate) crashes: u8,
    /// Groups that the disk fails to write, whole or in part.
    pub(crate) failures: u8,
    /// Messages that arrive twice.
    pub(crate) duplicates: u8,
    pub(crate) proposals: u8,
    pub(crate) reads: u8,
    /// Compactions up to the commit index.
    pub(crate) compactions: u8,
    /// Messages on their way at a time; one too many, and one of them is lost.
    pub(crate) in_flight: u8,
    /// No node goes into a later term.
    pub(crate) terms: u8,
}

impl Bounds {
    /// Every bound that is not zero, by so much more.
    pub(crate) fn widened(self, more: u8) -> Bounds {
        let wider = |bound: u8| if bound == 0 { 0 } else { bound.saturating_add(more) };
        Bounds {
            expiries: wider(self.expiries),
            ticks: wider(self.ticks),
            crashes: wider(self.crashes),
            failures: wider(self.failures),
            duplicates: wider(self.duplicates),
            proposals: wider(self.proposals),
            reads: wider(self.reads),
            compactions: wider(self.compactions),
            in_flight: wider(self.in_flight),
            terms: wider(self.terms),
        }
    }
}

/// What is explored of the rest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Heartbeats and their answers are sent; else they are all lost.
    pub(crate) heartbeats: bool,
    /// Groups are durable at once; else whenever the disk likes.
    pub(crate) quick_disks: bool,
    /// Pre-votes and their answers arrive at once, and nobody has heard a leader for long.
    pub(crate) quick_pre_votes: bool,
    /// Messages whose term is over at their receiver's disk stay on their way; else they are lost.
    pub(crate) keeps_stale: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The election timer of a follower or candidate runs out.
    Expire(NodeId),
    /// A leader's heartbeat interval is over.
    Tick(NodeId),
    /// The message with this hash arrives. `late`: the receiver has not heard its leader for an election timeout.
    Deliver {
        packet: u128,
        late: bool,
    },
    /// The same, and a copy of it is still on its way.
    DeliverCopy(u128),
    Drop(u128),
    Persist(NodeId),
    /// So many records of the outstanding group are on the disk.
    Crash(NodeId, usize),
    /// The disk reports an error; so many records are there all the same.
    Fail(NodeId, usize),
    Propose(NodeId),
    Read(NodeId),
    Compact(NodeId),
}

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

/// How often something was met that a search is for.
#[derive(Debug, Default)]
pub(crate) struct Met {
    pub(crate) elected: Cell<u64>,
    /// Elected in a term that was over already.
    pub(crate) elected_late: Cell<u64>,
    pub(crate) committed: Cell<u64>,
    /// Entries that gave way to another leader's.
    pub(crate) replaced: Cell<u64>,
    pub(crate) installed: Cell<u64>,
    pub(crate) lost_by_crash: Cell<u64>,
    pub(crate) reads_confirmed: Cell<u64>,
    /// Records that the witness stored, votes among them.
    pub(crate) witness_stored: Cell<u64>,
}

impl Met {
    fn one(of: &Cell<u64>) {
        of.set(of.get() + 1);
    }
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
        disks: &[(Disk, Configuration)],
    ) -> Self {
        let witness = disks.first().and_then(|(_, configuration)| configuration.witness());
        let mut state = State {
            bounds,
            rules,
            namings,
            nodes: Vec::new(),
            hashes: Vec::new(),
            faces: Vec::new(),
            witness: witness.map(|id| Rc::new(WitnessNode::new(id))),
            wire: Vec::new(),
            settled: Rc::default(),
            reads: Vec::new(),
            met: Rc::default(),
        };
        for ((disk, configuration), id) in disks.iter().zip(1..) {
            let mut node = Node::new(NodeId(id), *configuration);
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
        let leaders = self.settled.leaders.iter().map(|(term, id)| Wide::of(&(term, name(*id))));
        let reads = self.reads.iter().map(|r| Wide::of(&(name(r.at), r.round, r.index, r.committed)));
        let nodes = self.nodes.iter().zip(&self.hashes);
        let nodes = nodes.map(|(node, hashes)| known_or(hashes, which, || hash_node(node, naming)));
        let hash = |on: &OnItsWay| known_or(&on.hashes, which, || hash_packet(&on.packet, naming));
        let wire = self.wire.iter().map(hash);
        let witness = self.witness.iter().map(|witness| witness.hash(&name));
        leaders.chain(reads).chain(nodes).chain(witness).chain(wire).fold(rest.wide(), u128::wrapping_add)
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

    /// What comes of a choice.
    pub(crate) fn after(&self, choice: Choice, story: &mut Story<'_>) -> Result<Self, Stop> {
        let mut state = self.clone();
        let place = match choice {
            Choice::Drop(packet) => {
                let packet = state.take(packet)?;
                tell(story, || {
                    format!("lost: {} -> {} {}", packet.from, packet.to, describe::packet(&packet))
                });
                return Ok(state);
            }
            Choice::Deliver { packet, late } => {
                let packet = state.take(packet)?;
                state.arrive(&packet, if late { Late::Yes } else { Late::No }, story)?
            }
            Choice::DeliverCopy(packet) => {
                spend(&mut state.bounds.duplicates)?;
                let packet = Rc::clone(&state.find(packet)?.packet);
                tell(story, || "(a copy)".to_owned());
                state.arrive(&packet, Late::No, story)?
            }
            Choice::Expire(id)
            | Choice::Tick(id)
            | Choice::Persist(id)
            | Choice::Crash(id, _)
            | Choice::Fail(id, _)
            | Choice::Propose(id)
            | Choice::Read(id)
            | Choice::Compact(id) => {
                if place_of(id) >= state.nodes.len() {
                    state.act_as_witness(choice, story)?;
                    return Ok(state);
                }
                state.act(id, choice, story)?;
                Some(place_of(id))
            }
        };
        if let Some(place) = place {
            state.drive(place, story)?;
        }
        Ok(state)
    }

    /// What the witness does.
    fn act_as_witness(&mut self, choice: Choice, story: &mut Story<'_>) -> Result<(), Stop> {
        let witness = Rc::make_mut(self.witness.as_mut().ok_or(Stop::Impossible)?);
        let (record, _) = witness.storing.ok_or(Stop::Impossible)?;
        match choice {
            Choice::Persist(id) => {
                Met::one(&self.met.witness_stored);
                tell(story, || format!("the witness {id} has stored {record:?}"));
                let (to, message) = witness.stored().ok_or(Stop::Impossible)?;
                tell(story, || format!("    {id} -> {to} {}", describe::message(&message)));
                self.put_on_its_way(Packet { from: id, to, message, configuration: None });
            }
            Choice::Crash(id, stored) => {
                spend(&mut self.bounds.crashes)?;
                let there = if stored > 0 { "is there" } else { "is lost" };
                tell(story, || format!("the witness {id} crashes while it stores {record:?}, which {there}"));
                witness.crash(stored > 0);
            }
            _ => return Err(Stop::Impossible),
        }
        Ok(())
    }

    /// The witness gets a message.
    fn ask_witness(&mut self, packet: &Packet, at_once: &mut VecDeque<Packet>, story: &mut Story<'_>) {
        let Some(witness) = &mut self.witness else { return };
        let (quick, witness) = (self.rules.quick_disks, Rc::make_mut(witness));
        tell(story, || format!("{} <- {} {}", packet.to, packet.from, describe::packet(packet)));
        let mut answer = witness.receive(packet.from, &packet.message).map(|message| (packet.from, message));
        if answer.is_none() && quick && witness.storing.is_some() {
            answer = witness.stored();
            Met::one(&self.met.witness_stored);
        }
        let Some((to, message)) = answer else { return };
        let answer = Packet { from: packet.to, to, message, configuration: None };
        tell(story, || format!("    {} -> {to} {}", answer.from, describe::packet(&answer)));
        let heartbeat = matches!(answer.message.body, Body::HeartbeatAnswer { .. });
        if self.rules.quick_pre_votes && is_pre_vote(&answer) {
            at_once.push_back(answer);
        } else if !is_idle(&answer) && (self.rules.heartbeats || !heartbeat) {
            self.put_on_its_way(answer);
        }
    }

    /// A message arrives; gives the place of who has to be driven then, if not the witness.
    fn arrive(&mut self, packet: &Packet, late: Late, story: &mut Story<'_>) -> Result<Option<usize>, Stop> {
        let place = place_of(packet.to);
        if place >= self.nodes.len() {
            let mut at_once = VecDeque::new();
            self.ask_witness(packet, &mut at_once, story);
            return self.settle(at_once, story).map(|()| None);
        }
        let node = Rc::make_mut(&mut self.nodes[place]);
        if late != Late::No {
            node.clock += ELECTION_TIMEOUT;
        }
        if late == Late::Yes {
            tell(story, || format!("{} has not heard its leader for an election timeout", packet.to));
        }
        let (last, commit) = (node.log.last().index, node.commit());
        let handled = node.receive(packet);
        if node.commit() < commit {
            return Err(Stop::Violation(format!(
                "commit only rises: that of {} goes back from {commit}",
                node.id
            )));
        }
        match handled {
            Ok(Handled::Append(range)) if range.first <= last => Met::one(&self.met.replaced),
            Ok(Handled::Install(_)) => Met::one(&self.met.installed),
            _ => {}
        }
        tell(story, || {
            let what = handled
                .map_or_else(|why| format!(": ignored, {}", describe::ignored(why)), |_| String::new());
            format!("{} <- {} {}{what}", packet.to, packet.from, describe::packet(packet))
        });
        Ok(Some(place))
    }

    fn act(&mut self, id: NodeId, choice: Choice, story: &mut Story<'_>) -> Result<(), Stop> {
        let committed = self.settled.committed.len();
        let bounds = &mut self.bounds;
        let node = Rc::make_mut(&mut self.nodes[place_of(id)]);
        let leads = node.core.as_ref().is_some_and(|core| core.role() == Role::Leader);
        match choice {
            Choice::Expire(_) if !leads => {
                spend(&mut bounds.expiries)?;
                node.clock += ELECTION_TIMEOUT + ELECTION_TIMEOUT;
                node.timeout();
                tell(story, || format!("{id}'s timer runs out"));
            }
            Choice::Tick(_) if leads => {
                spend(&mut bounds.ticks)?;
                node.clock = node.core.as_ref().map_or(node.clock, |core| node.clock.max(core.due()));
                node.timeout();
                tell(story, || format!("{id}'s heartbeat interval is over"));
            }
            Choice::Persist(_) => {
                let write = node.write.as_ref().ok_or(Stop::Impossible)?;
                tell(story, || format!("{id} has written {}", describe::write(write)));
                node.finish_write();
            }
            Choice::Fail(_, records) => {
                spend(&mut bounds.failures)?;
                let write = node.write.as_ref().ok_or(Stop::Impossible)?;
                let (what, of) = (describe::write(write), write.records());
                tell(story, || format!("{id} fails to write {what}: {records} of {of} records are there"));
                node.fail_write(records);
            }
            Choice::Crash(_, records) => {
                spend(&mut bounds.crashes)?;
                tell(story, || match &node.write {
                    Some(write) => {
                        let (what, of) = (describe::write(write), write.records());
                        format!("{id} crashes while it writes {what}: {records} of {of} records are there")
                    }
                    None => format!("{id} crashes"),
                });
                if node.write.as_ref().is_some_and(|write| records < write.records()) {
                    Met::one(&self.met.lost_by_crash);
                }
                node.crash(records);
                tell(story, || format!("{id} starts with {}", describe::disk(&node.disk)));
                node.start(config(id));
                self.reads.retain(|read| read.at != id);
            }
            Choice::Propose(_) => {
                spend(&mut bounds.proposals)?;
                let range = node.propose(1, ENTRY_BYTES).map_err(|_| Stop::Impossible)?;
                tell(story, || format!("{id} takes {}", describe::range(&range)));
            }
            Choice::Read(_) => {
                spend(&mut bounds.reads)?;
                let now = node.clock;
                let core = node.core.as_mut().ok_or(Stop::Impossible)?;
                let read = core.read_index(now).map_err(|_| Stop::Impossible)?;
                self.reads.push(Read { at: id, round: read.round, index: read.index, committed });
                tell(story, || format!("{id} takes a read of entry {}", read.index));
            }
            Choice::Compact(_) => {
                spend(&mut bounds.compactions)?;
                compact(node)?;
                tell(story, || format!("{id} lets its log go up to {}", node.log.base.index));
            }
            _ => return Err(Stop::Impossible),
        }
        Ok(())
    }

    /// What a node wants after an input, and whether all is well then; and what arrives at once.
    fn drive(&mut self, place: usize, story: &mut Story<'_>) -> Result<(), Stop> {
        let mut at_once = VecDeque::new();
        self.drive_one(place, &mut at_once, story)?;
        self.settle(at_once, story)?;
        if !self.rules.keeps_stale {
            let (nodes, rules) = (&self.nodes, self.rules);
            let term = |packet: &Packet| nodes.get(place_of(packet.to)).map(|node| node.disk.term);
            self.wire.retain(|on| !term(&on.packet).is_some_and(|term| is_stale(&on.packet, term, rules)));
        }
        Ok(())
    }

    /// What arrives at once does.
    fn settle(&mut self, mut at_once: VecDeque<Packet>, story: &mut Story<'_>) -> Result<(), Stop> {
        while let Some(packet) = at_once.pop_front() {
            if place_of(packet.to) >= self.nodes.len() {
                self.ask_witness(&packet, &mut at_once, story);
            } else if let Some(place) = self.arrive(&packet, Late::Untold, story)? {
                self.drive_one(place, &mut at_once, story)?;
            }
        }
        Ok(())
    }

    fn drive_one(
        &mut self,
        place: usize,
        at_once: &mut VecDeque<Packet>,
        story: &mut Story<'_>,
    ) -> Result<(), Stop> {
        loop {
            let node = Rc::make_mut(&mut self.nodes[place]);
            if let Some(noop) = node.take_events() {
                self.settled.begins_to_lead(node, noop)?;
                Met::one(&self.met.elected);
                if self.settled.leaders.last_key_value().is_some_and(|(term, _)| *term > noop.term) {
                    Met::one(&self.met.elected_late);
                }
            }
            self.send(place, at_once, story)?;
            let node = Rc::make_mut(&mut self.nodes[place]);
            let writes = node.begin_write();
            let mut settled = Settled::clone(&self.settled);
            settled.look(&self.nodes[place], &self.nodes)?;
            if settled != *self.settled {
                if settled.committed.len() > self.settled.committed.len() {
                    Met::one(&self.met.committed);
                }
                self.settled = Rc::new(settled);
            }
            if !(writes && self.rules.quick_disks) {
                break;
            }
            Rc::make_mut(&mut self.nodes[place]).finish_write();
        }
        self.confirm_reads(place)?;
        let node = &self.nodes[place];
        self.hashes[place] = not_yet_hashed(&self.namings);
        self.faces[place] = face(node);
        tell(story, || {
            let core = node.core.as_ref().expect("nodes are started again at once");
            let role = describe::role(core.role(), core.leader());
            let (term, commit) = (core.term(), core.commit());
            format!(
                "    {} is {role}, term {term}, log {}, commit {commit}",
                node.id,
                describe::log(&node.log)
            )
        });
        Ok(())
    }

    fn send(
        &mut self,
        place: usize,
        at_once: &mut VecDeque<Packet>,
        story: &mut Story<'_>,
    ) -> Result<(), Stop> {
        let all = self.nodes.len() + usize::from(self.witness.is_some());
        for to in (1..=all as u64).map(NodeId).filter(|to| place_of(*to) != place) {
            while let Some(packet) = Rc::make_mut(&mut self.nodes[place]).next_message(to, true) {
                what_is_said_is_durable(&self.nodes[place], to, &packet.message)?;
                let heartbeat = is_heartbeat(&packet);
                if (heartbeat && !self.rules.heartbeats) || is_idle(&packet) {
                    continue;
                }
                tell(story, || format!("    {} -> {to} {}", packet.from, describe::packet(&packet)));
                if self.rules.quick_pre_votes && is_pre_vote(&packet) {
                    at_once.push_back(packet);
                    continue;
                }
                self.put_on_its_way(packet);
            }
        }
        Ok(())
    }

    pub(crate) fn put_on_its_way(&mut self, packet: Packet) {
        let hash = hash_packet(&packet, &self.namings[0]);
        let hashes = not_yet_hashed(&self.namings);
        self.wire.push(OnItsWay { packet: Rc::new(packet), hash, hashes });
    }

    fn confirm_reads(&mut self, place: usize) -> Result<(), Stop> {
        let node = &self.nodes[place];
        let Some(core) = &node.core else { return Ok(()) };
        if core.role() != Role::Leader {
            self.reads.retain(|read| read.at != node.id);
            return Ok(());
        }
        let confirmed = core.read_confirmed();
        for read in self.reads.extract_if(.., |read| read.at == node.id && read.round <= confirmed) {
            Met::one(&self.met.reads_confirmed);
            if read.index.0 < read.committed as u64 {
                return Err(Stop::Violation(format!(
                    "linearizable reads: {} confirms a read of entry {} that was asked for when {} was committed",
                    node.id, read.index, read.committed
                )));
            }
        }
        Ok(())
    }

    fn find(&self, hash: u128) -> Result<&OnItsWay, Stop> {
        self.wire.iter().find(|on_its_way| on_its_way.hash == hash).ok_or(Stop::Impossible)
    }

    fn take(&mut self, hash: u128) -> Result<Rc<Packet>, Stop> {
        let place = self.wire.iter().position(|on_its_way| on_its_way.hash == hash);
        Ok(self.wire.swap_remove(place.ok_or(Stop::Impossible)?).packet)
    }
}

fn spend(of: &mut u8) -> Result<(), Stop> {
    *of = of.checked_sub(1).ok_or(Stop::Impossible)?;
    Ok(())
}

fn place_of(id: NodeId) -> usize {
    usize::try_from(id.0 - 1).expect("sites are small")
}

/// Refusals tell nothing but a term, and whoever sent them says that again: to lose them all is to lose little.
fn is_idle(packet: &Packet) -> bool {
    matches!(packet.message.body, Body::VoteAnswer { granted: false })
}

fn is_heartbeat(packet: &Packet) -> bool {
    let body = &packet.message.body;
    matches!(body, Body::Heartbeat { .. } | Body::HeartbeatAnswer { .. } | Body::WitnessPing { .. })
}

fn is_pre_vote(packet: &Packet) -> bool {
    let body = &packet.message.body;
    matches!(body, Body::PreVote { .. } | Body::PreVoteAnswer { .. } | Body::WitnessVote { pre: true, .. })
}

/// Its term is over for its receiver, for good, and all that could come of it is an answer that is lost as well.
fn is_stale(packet: &Packet, on_disk: Term, rules: Rules) -> bool {
    let term = packet.message.term;
    match packet.message.body {
        Body::PreVote { .. } => false,
        Body::PreVoteAnswer { .. } => term <= on_disk,
        Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot { .. } => {
            term < on_disk && !rules.heartbeats
        }
        _ => term < on_disk,
    }
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

fn compact<C: Explored>(node: &mut Node<C>) -> Result<(), Stop> {
    let at = node.log.get(node.commit()).ok_or(Stop::Impossible)?;
    if !node.core.as_mut().is_some_and(|core| core.compacted(at)) {
        return Err(Stop::Impossible);
    }
    node.disk.snapshot = at;
    node.log.compact(at);
    node.disk.log.compact(at);
    Ok(())
}

/// What of a node does not depend on any names, roughly: nodes that differ in it need not be exchanged.
fn face<C: Explored>(node: &Node<C>) -> u64 {
    let mut hasher = Wide::new(0);
    if let Some(core) = &node.core {
        let led = core.leader().map(|leader| leader == node.id);
        (core.role() as u8, core.term(), core.commit(), led).hash(&mut hasher);
    }
    let voted = node.disk.vote.map(|vote| vote == node.id);
    (node.log.last(), node.disk.log.last(), node.disk.term, voted, node.write.is_some()).hash(&mut hasher);
    hasher.finish()
}

fn hash_node<C: Explored>(node: &Node<C>, naming: &[u64]) -> u128 {
    let name = |id: NodeId| naming[place_of(id)];
    let mut hasher = Wide::new(name(node.id));
    if let Some(core) = &node.core {
        core.feed(node.clock, &name, &mut hasher);
    }
    feed_log(&node.log, &name, &mut hasher);
    feed_log(&node.disk.log, &name, &mut hasher);
    (node.disk.term, node.disk.vote.map(name), node.disk.snapshot).hash(&mut hasher);
    if let Some(write) = &node.write {
        let Persist { ticket: _, hard_state, reset, truncate_after, entries } = write.persist;
        (hard_state.map(|HardState { term, vote }| (term, vote.map(name))), reset, truncate_after, entries)
            .hash(&mut hasher);
        for (entry, configuration) in &write.entries {
            (entry, configuration.is_some()).hash(&mut hasher);
        }
    }
    hasher.wide()
}

fn feed_log(log: &PlainLog, name: &dyn Fn(NodeId) -> u64, hasher: &mut Wide) {
    (log.base, log.entries()).hash(hasher);
    for index in log.base.index.0 + 1..=log.last().index.0 {
        if let Some(configuration) = log.configuration_in(LogIndex(index)) {
            (index, hash_configuration(&configuration, name)).hash(hasher);
        }
    }
}

fn hash_configuration(configuration: &Configuration, name: &dyn Fn(NodeId) -> u64) -> u128 {
    let part = |kind: u8, id: NodeId| Wide::of(&(kind, name(id)));
    let voters = configuration.voters().map(|id| part(0, id));
    let outgoing = configuration.outgoing().map(|id| part(1, id));
    let observers = configuration.observers().map(|id| part(2, id));
    let witness = configuration.witness().map(|id| part(3, id));
    let leaves = Wide::of(&configuration.leaves_by_itself());
    voters.chain(outgoing).chain(observers).chain(witness).fold(leaves, u128::wrapping_add)
}

fn hash_packet(packet: &Packet, naming: &[u64]) -> u128 {
    let name = |id: NodeId| naming[place_of(id)];
    let mut hasher = Wide::new(99);
    let Packet { from, to, message: Message { term, body }, configuration } = packet;
    (name(*from), name(*to), term).hash(&mut hasher);
    std::mem::discriminant(body).hash(&mut hasher);
    match *body {
        Body::PreVote { last } | Body::Snapshot { last } => last.hash(&mut hasher),
        Body::Vote { last, transfer } => (last, transfer).hash(&mut hasher),
        Body::PreVoteAnswer { granted } | Body::VoteAnswer { granted } => granted.hash(&mut hasher),
        Body::Append { previous, entries, commit } => {
            (previous, commit).hash(&mut hasher);
            entries.map(|range| (range.term, range.subterm, range.first, range.last)).hash(&mut hasher);
        }
        Body::Appended { matched, received } => (matched, received).hash(&mut hasher),
        Body::Rejected { previous, hint } => (previous, hint).hash(&mut hasher),
        Body::Heartbeat { commit, round } => (commit, round).hash(&mut hasher),
        Body::HeartbeatAnswer { round } => round.hash(&mut hasher),
        Body::TimeoutNow => {}
        Body::WitnessVote { pre, last_term, last_subterm, votes } => {
            (pre, last_term, last_subterm, hash_set(&votes, &name)).hash(&mut hasher);
        }
        Body::WitnessAppend { subterm, voters } => (subterm, hash_set(&voters, &name)).hash(&mut hasher),
        Body::WitnessAppended { subterm, taken } => (subterm, taken).hash(&mut hasher),
        Body::WitnessPing { round } => round.hash(&mut hasher),
    }
    configuration.as_deref().map(|held| hash_configuration(held, &name)).hash(&mut hasher);
    hasher.wide()
}
