//! A site under a script: nodes, their disks, the messages between them; everything that happens
//! becomes a line of the trace.

use std::collections::BTreeSet;

use tally_core::id::{LogIndex, NodeId, Term};
use tally_core::raft::{Config, Configuration, Handled, Member, MemberRole, Role};
use tally_core::time::{Duration, Instant};

use crate::describe;
use crate::invariants::{Settled, what_is_said_is_durable};
use crate::node::{Core, Node, Packet};
use crate::operations::ScriptedCore;
use crate::witness::WitnessNode;

/// A script that makes nodes answer each other for ever is stopped after so many messages.
const DELIVERIES_MAX: usize = 20_000;

/// What the trace showed of a node last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shown {
    role: Role,
    term: Term,
    leader: Option<NodeId>,
    commit: LogIndex,
    configuration: Configuration,
    transfer: Option<NodeId>,
    witness_for: Option<NodeId>,
}

/// A read that a leader took.
struct Read {
    at: NodeId,
    term: Term,
    round: u64,
    index: LogIndex,
}

/// What scripts can set before there are nodes.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) append_bytes: u32,
    pub(crate) inflight_bytes: u32,
    pub(crate) uncommitted_bytes: u64,
}

pub(crate) struct Site {
    pub(crate) settings: Settings,
    pub(crate) nodes: Vec<Box<Node<ScriptedCore>>>,
    pub(crate) witnesses: Vec<WitnessNode>,
    shown: Vec<Option<Shown>>,
    pub(crate) wire: Vec<Packet>,
    pub(crate) stash: Vec<Packet>,
    /// What is sent here is lost.
    pub(crate) cut: BTreeSet<(NodeId, NodeId)>,
    /// What is sent here arrives only when the script says so.
    pub(crate) delayed: BTreeSet<(NodeId, NodeId)>,
    /// Groups wait for the script.
    pub(crate) held_disks: BTreeSet<NodeId>,
    /// The lane for entries and snapshots is full.
    pub(crate) full_lanes: BTreeSet<NodeId>,
    reads: Vec<Read>,
    settled: Settled,
    trace: Vec<String>,
    /// Only changes of roles and commit indexes are told.
    pub(crate) quiet: bool,
}

/// Why a command could not be carried out, or which invariant broke.
pub(crate) type Outcome = Result<(), String>;

impl Site {
    pub(crate) fn new() -> Site {
        Site {
            settings: Settings { append_bytes: 100, inflight_bytes: 300, uncommitted_bytes: 1000 },
            nodes: Vec::new(),
            witnesses: Vec::new(),
            shown: Vec::new(),
            wire: Vec::new(),
            stash: Vec::new(),
            cut: BTreeSet::new(),
            delayed: BTreeSet::new(),
            held_disks: BTreeSet::new(),
            full_lanes: BTreeSet::new(),
            reads: Vec::new(),
            settled: Settled::default(),
            trace: Vec::new(),
            quiet: false,
        }
    }

    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        std::mem::take(&mut self.trace)
    }

    pub(crate) fn tell(&mut self, line: String) {
        self.trace.push(line);
    }

    pub(crate) fn detail(&mut self, line: impl FnOnce() -> String) {
        if !self.quiet {
            self.trace.push(line());
        }
    }

    /// Nodes 1 to `voters` vote, those after observe, the one after them is the witness.
    pub(crate) fn found(&mut self, voters: u64, observers: u64, witnesses: u64) -> Outcome {
        let role = |id| match id {
            _ if id <= voters => MemberRole::Voter,
            _ if id <= voters + observers => MemberRole::Observer,
            _ => MemberRole::Witness,
        };
        let ids = 1..=voters + observers + witnesses;
        let members: Vec<Member> = ids.map(|id| Member { id: NodeId(id), role: role(id) }).collect();
        let configuration = Configuration::new(&members).map_err(|error| error.to_string())?;
        let (witnesses, nodes): (Vec<Member>, Vec<Member>) =
            members.into_iter().partition(|member| member.role == MemberRole::Witness);
        self.nodes = nodes.iter().map(|member| Box::new(Node::new(member.id, configuration))).collect();
        self.witnesses = witnesses.iter().map(|member| WitnessNode::new(member.id)).collect();
        self.shown = vec![None; self.nodes.len()];
        self.ids().into_iter().try_for_each(|id| self.start(id))
    }

    /// A further node with an empty disk, which belongs to no group yet.
    pub(crate) fn join(&mut self) -> Outcome {
        let id = self.next_id();
        self.nodes.push(Box::new(Node::new(id, Configuration::EMPTY)));
        self.shown.push(None);
        self.start(id)
    }

    /// A further witness with an empty record, which nobody knows yet.
    pub(crate) fn join_witness(&mut self) {
        let id = self.next_id();
        self.witnesses.push(WitnessNode::new(id));
    }

    pub(crate) fn start(&mut self, id: NodeId) -> Outcome {
        let config = Config {
            id,
            election_timeout: Duration::from_millis(1000),
            heartbeat_interval: Duration::from_millis(200),
            seed: 1,
            append_bytes_max: self.settings.append_bytes,
            inflight_bytes_max: self.settings.inflight_bytes,
            uncommitted_bytes_max: self.settings.uncommitted_bytes,
        };
        let node = self.node(id);
        if node.core.is_some() {
            return Err(format!("{id} is running"));
        }
        node.start(config);
        let place = self.place(id);
        self.shown[place] = self.summary(id);
        self.drive(id)
    }

    pub(crate) fn crash(&mut self, id: NodeId, records: usize) {
        self.node(id).crash(records);
        self.reads.retain(|read| read.at != id);
    }

    /// Lets the clocks of these nodes go on, and what is due on them happen; with `deliver`, messages
    /// take no time.
    pub(crate) fn advance(&mut self, span: Duration, ids: &[NodeId], deliver: bool) -> Outcome {
        let mut left = span;
        for _ in 0..DELIVERIES_MAX {
            let due = ids.iter().filter_map(|id| {
                let node = &self.nodes[self.place(*id)];
                Some((node.core.as_ref()?.due().since(node.clock), *id))
            });
            let next = due.filter(|(wait, _)| *wait <= left).min();
            let wait = next.map_or(left, |(wait, _)| wait);
            ids.iter().for_each(|id| self.node(*id).clock += wait);
            left = left - wait;
            let Some((_, id)) = next else { return Ok(()) };
            self.timeout(id)?;
            if deliver {
                self.deliver_all()?;
            }
        }
        Err("a timer runs out again and again at the same time".to_owned())
    }

    /// What is due at this node's clock happens.
    pub(crate) fn timeout(&mut self, id: NodeId) -> Outcome {
        self.node(id).timeout();
        self.drive(id)
    }

    /// This node's timer runs out; nobody has heard a leader for long.
    pub(crate) fn campaign(&mut self, id: NodeId) -> Outcome {
        for node in &mut self.nodes {
            node.clock += Duration::from_millis(2000);
        }
        let node = self.node(id);
        node.clock = node.core.as_ref().map_or(node.clock, |core| node.clock.max(core.due()));
        self.timeout(id)
    }

    /// This node's clock goes on to what is due there next.
    pub(crate) fn expire(&mut self, id: NodeId) -> Outcome {
        let node = self.node(id);
        let due = node.core.as_ref().ok_or_else(|| format!("{id} is down"))?.due();
        if due == Instant(u64::MAX) {
            return Err(format!("nothing is ever due at {id}"));
        }
        node.clock = node.clock.max(due);
        self.timeout(id)
    }

    /// Everything arrives, and what is sent in answer, except on delayed links.
    pub(crate) fn deliver_all(&mut self) -> Outcome {
        for _ in 0..DELIVERIES_MAX {
            let next = self.wire.iter().position(|packet| !self.delayed.contains(&(packet.from, packet.to)));
            let Some(place) = next else { return Ok(()) };
            let packet = self.wire.remove(place);
            self.arrive(packet)?;
        }
        Err("the network never becomes quiet".to_owned())
    }

    pub(crate) fn arrive(&mut self, packet: Packet) -> Outcome {
        let Packet { from, to, .. } = packet;
        if self.witness(to).is_some() {
            return self.arrive_at_witness(&packet);
        }
        let node = self.node(to);
        if node.core.is_none() {
            self.detail(|| format!("{to} <- {from} {}: {to} is down", describe::packet(&packet)));
            return Ok(());
        }
        let handled = node.receive(&packet);
        self.detail(|| {
            let what = match handled {
                Ok(Handled::Nothing) => String::new(),
                Ok(Handled::Append(entries)) => format!(": appends {}", describe::range(&entries)),
                Ok(Handled::Install(last)) => format!(": installs {}", describe::position(last)),
                Err(why) => format!(": ignored, {}", describe::ignored(why)),
            };
            format!("{to} <- {from} {}{what}", describe::packet(&packet))
        });
        self.drive(to)
    }

    /// What a node wants after an input, in the order in which a driver does it.
    pub(crate) fn drive(&mut self, id: NodeId) -> Outcome {
        loop {
            let place = self.place(id);
            if let Some(noop) = self.nodes[place].take_events() {
                self.settled.begins_to_lead(&self.nodes[place], noop)?;
            }
            self.show(id);
            self.send(id)?;
            self.settled.look(&self.nodes[place], &self.nodes)?;
            if !self.nodes[place].begin_write() {
                return Ok(());
            }
            let Some(write) = &self.nodes[place].write else { return Ok(()) };
            let what = describe::write(write);
            if self.held_disks.contains(&id) {
                self.detail(|| format!("{id} begins to write {what}"));
                return Ok(());
            }
            self.detail(|| format!("{id} writes {what}"));
            self.nodes[place].finish_write();
        }
    }

    pub(crate) fn take_read(&mut self, id: NodeId) -> Outcome {
        match self.node(id).read_index() {
            Ok(tally_core::raft::Read { round, index }) => {
                let term = self.node(id).core.as_ref().map_or(Term(0), Core::term);
                self.reads.push(Read { at: id, term, round, index });
                self.detail(|| {
                    format!("{id} takes a read of entry {index}, to be confirmed by round {round}")
                });
            }
            Err(why) => self.tell(format!("{id} refuses the read: {why}")),
        }
        self.drive(id)
    }

    pub(crate) fn node(&mut self, id: NodeId) -> &mut Node<ScriptedCore> {
        let place = self.place(id);
        &mut self.nodes[place]
    }

    /// Those with a log.
    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    /// With a log or without.
    pub(crate) fn everyone(&self) -> Vec<NodeId> {
        let mut all = self.ids();
        all.extend(self.witnesses.iter().map(|witness| witness.id));
        all.sort_unstable();
        all
    }

    pub(crate) fn witness(&mut self, id: NodeId) -> Option<&mut WitnessNode> {
        self.witnesses.iter_mut().find(|witness| witness.id == id)
    }

    fn next_id(&self) -> NodeId {
        NodeId(self.everyone().len() as u64 + 1)
    }

    fn place(&self, id: NodeId) -> usize {
        self.nodes.iter().position(|node| node.id == id).expect("commands name members")
    }

    fn send(&mut self, id: NodeId) -> Outcome {
        let bulk = !self.full_lanes.contains(&id);
        let place = self.place(id);
        for to in self.everyone().into_iter().filter(|to| *to != id) {
            while let Some(packet) = self.nodes[place].next_message(to, bulk) {
                what_is_said_is_durable(&self.nodes[place], to, &packet.message)?;
                if !packet.message.is_plausible() {
                    return Err(format!("{id} sends what nobody would take: {:?}", packet.message));
                }
                self.put_on_wire(packet);
            }
        }
        Ok(())
    }

    pub(crate) fn put_on_wire(&mut self, packet: Packet) {
        let lost = self.cut.contains(&(packet.from, packet.to));
        self.detail(|| {
            let lost = if lost { ": lost" } else { "" };
            format!("{} -> {} {}{lost}", packet.from, packet.to, describe::packet(&packet))
        });
        if !lost {
            self.wire.push(packet);
        }
    }

    /// Tells what changed at a node since it was shown last.
    fn show(&mut self, id: NodeId) {
        let place = self.place(id);
        let Some(now) = self.summary(id) else { return };
        let before = self.shown[place].replace(now);
        let same_role = |b: Shown| (b.role, b.term, b.leader) == (now.role, now.term, now.leader);
        if !before.is_some_and(same_role) {
            let role = describe::role(now.role, now.leader);
            self.tell(format!("{id} is now {role}, term {}", now.term));
        }
        if before.is_some_and(|before| before.configuration != now.configuration) {
            self.tell(format!("{id} is now in the configuration {:?}", now.configuration));
        }
        if let (Some(to), None) = (before.and_then(|before| before.transfer), now.transfer)
            && now.role == Role::Leader
        {
            self.tell(format!("{id} gives up handing over to {to}"));
        }
        let stands_for = before.and_then(|before| before.witness_for);
        match now.witness_for {
            to if to == stands_for || now.role != Role::Leader => {}
            Some(voter) => self.tell(format!("{id} has the witness in the place of {voter}")),
            None => self.tell(format!("{id} has the witness outside again")),
        }
        if before.is_none_or(|before| before.commit != now.commit) {
            self.tell(format!("{id} commits {}", now.commit));
        }
        let confirmed = self.node(id).read_confirmed();
        let ended = |read: &mut Read| read.at == id && (now.role != Role::Leader || now.term != read.term);
        for read in self.reads.extract_if(.., ended).collect::<Vec<_>>() {
            self.tell(format!("{id} fails the read of entry {}", read.index));
        }
        let served = |read: &mut Read| read.at == id && read.round <= confirmed;
        for read in self.reads.extract_if(.., served).collect::<Vec<_>>() {
            self.tell(format!("{id} confirms the read of entry {}", read.index));
        }
    }

    fn summary(&self, id: NodeId) -> Option<Shown> {
        let status = self.nodes[self.place(id)].status()?;
        Some(Shown {
            role: status.role,
            term: status.term,
            leader: status.leader,
            commit: status.commit,
            configuration: status.configuration.configuration,
            transfer: status.transfer,
            witness_for: status.witness_for,
        })
    }
}
