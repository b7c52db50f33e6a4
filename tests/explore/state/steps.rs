//! What comes of a choice: a step from one state to the next.

use std::collections::VecDeque;
use std::rc::Rc;

use tally_core::id::{NodeId, Term};
use tally_core::raft::{Body, Configuration, EntryRange, Handled, Role};

use super::{
    ELECTION_TIMEOUT, Late, OnItsWay, Read, State, Stop, Story, config, not_yet_hashed, place_of, tell,
};
use crate::bounds::{Choice, Met, Rules};
use crate::describe;
use crate::explored::Explored;
use crate::hashing::{face, hash_packet};
use crate::invariants::{Settled, what_is_said_is_durable};
use crate::members;
use crate::node::{Node, Packet};
use crate::plain_log::ENTRY_BYTES;

impl<C: Explored> State<C> {
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
            | Choice::Compact(id)
            | Choice::Change(id, _)
            | Choice::Leave(id) => {
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
        let configuration = node.log.configurations().0.index;
        let handled = node.receive(packet);
        if node.commit() < commit {
            return Err(Stop::Violation(format!(
                "commit only rises: that of {} goes back from {commit}",
                node.id
            )));
        }
        if node.log.configurations().0.index < configuration {
            Met::one(&self.met.dropped);
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
        members::was_counted(&self.nodes[place], commit, &self.nodes)?;
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
                self.finish_write(place_of(id))?;
            }
            Choice::Fail(_, records) => {
                spend(&mut bounds.failures)?;
                let write = node.write.as_ref().ok_or(Stop::Impossible)?;
                let (what, of) = (describe::write(write), write.records());
                tell(story, || format!("{id} fails to write {what}: {records} of {of} records are there"));
                node.fail_write(records);
            }
            Choice::Crash(_, records) => self.crash(id, records, story)?,
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
            Choice::Change(_, which) => self.change(id, which, story)?,
            Choice::Leave(_) => {
                let core = node.core.as_mut().ok_or(Stop::Impossible)?;
                let (range, held) = core.leave_joint(node.clock).map_err(|_| Stop::Impossible)?;
                put_configuration(node, &range, held);
                Met::one(&self.met.left);
                tell(story, || format!("{id} is asked to leave: {} holds {held:?}", describe::range(&range)));
            }
            _ => return Err(Stop::Impossible),
        }
        Ok(())
    }

    fn crash(&mut self, id: NodeId, records: usize, story: &mut Story<'_>) -> Result<(), Stop> {
        spend(&mut self.bounds.crashes)?;
        let node = Rc::make_mut(&mut self.nodes[place_of(id)]);
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
        Ok(())
    }

    fn change(&mut self, id: NodeId, which: usize, story: &mut Story<'_>) -> Result<(), Stop> {
        spend(&mut self.bounds.changes)?;
        let wish = self.wishes[which];
        let node = Rc::make_mut(&mut self.nodes[place_of(id)]);
        let core = node.core.as_mut().ok_or(Stop::Impossible)?;
        let (range, held) = core.change(node.clock, &wish).map_err(|_| Stop::Impossible)?;
        if !self.rules.harm_only {
            members::may_change(&self.nodes[place_of(id)], &wish, &self.nodes)?;
        }
        let node = Rc::make_mut(&mut self.nodes[place_of(id)]);
        put_configuration(node, &range, held);
        Met::one(&self.met.changed);
        tell(story, || {
            format!("{id} is asked for {:?}: {} holds {held:?}", wish.changes, describe::range(&range))
        });
        Ok(())
    }

    /// A group is durable; what is counted for that reason is counted rightly.
    fn finish_write(&mut self, place: usize) -> Result<(), Stop> {
        let node = Rc::make_mut(&mut self.nodes[place]);
        let commit = node.commit();
        node.finish_write();
        Ok(members::was_counted(&self.nodes[place], commit, &self.nodes)?)
    }

    /// What a node wants after an input, and whether all is well then; and what arrives at once.
    pub(super) fn drive(&mut self, place: usize, story: &mut Story<'_>) -> Result<(), Stop> {
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
            let before = node.log.configurations().0;
            if let Some(noop) = node.take_events() {
                let by = &before.configuration;
                self.settled.begins_to_lead(node, noop)?;
                members::was_elected(node.id, noop.term, by, &self.nodes, self.witness.as_deref())?;
                Met::one(&self.met.elected);
                if by.is_joint() {
                    Met::one(&self.met.elected_jointly);
                }
                if self.settled.leaders.last_key_value().is_some_and(|(term, _)| *term > noop.term) {
                    Met::one(&self.met.elected_late);
                }
            }
            let latest = self.nodes[place].log.configurations().0;
            if latest.index > before.index && before.configuration.is_joint() {
                Met::one(&self.met.left);
                tell(story, || format!("    {} leaves by {:?}", self.nodes[place].id, latest.configuration));
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
            self.finish_write(place)?;
        }
        if !self.rules.harm_only {
            members::look(&self.nodes[place], &self.nodes, self.settled.committed.len())?;
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
                if !self.rules.harm_only {
                    members::is_written_in_time(&packet, &self.nodes)?;
                }
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

/// As the driver stores the payload that it gets.
fn put_configuration<C: Explored>(node: &mut Node<C>, range: &EntryRange, held: Configuration) {
    node.log.put(range);
    node.log.put_configuration(range.first, held);
}

fn spend(of: &mut u8) -> Result<(), Stop> {
    *of = of.checked_sub(1).ok_or(Stop::Impossible)?;
    Ok(())
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
