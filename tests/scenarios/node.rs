//! A node as its driver runs it: the core, the log, the disk. Together with `operations` the only
//! file that calls the core; shared by the scenarios and the exploration.

use std::rc::Rc;

use tally_core::id::{LogIndex, NodeId, Term};
use tally_core::raft::{
    Body, Config, Configuration, Durable, EntryRange, Event, Handled, HardState, Ignored, Message, Mutation,
    Persist, Position, ProposeError, Raft, Role,
};
use tally_core::time::Instant;

use crate::plain_log::PlainLog;

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) message: Message,
    /// What the payload of the first entry, or the snapshot, holds.
    pub(crate) configuration: Option<Rc<Configuration>>,
}

/// The calls of the core that a driver makes: the seam at which a deliberate bug can be put in.
pub(crate) trait Core: Clone {
    fn start(config: Config, durable: Durable, now: Instant) -> Self;
    fn receive(&mut self, now: Instant, packet: &Packet, log: &PlainLog) -> Result<Handled, Ignored>;
    fn timeout(&mut self, now: Instant);
    fn due(&self) -> Instant;
    fn event(&mut self) -> Option<Event>;
    fn message(&mut self, now: Instant, to: NodeId, bulk: bool, log: &PlainLog) -> Option<Message>;
    fn persist(&mut self) -> Option<Persist>;
    fn persisted(&mut self, now: Instant, ticket: u64);
    fn persist_failed(&mut self, now: Instant, ticket: u64);
    fn propose(&mut self, now: Instant, entries: u64, bytes: u64) -> Result<EntryRange, ProposeError>;
    fn commit(&self) -> LogIndex;
    fn role(&self) -> Role;
    fn term(&self) -> Term;
}

impl<const NODES: usize, const RUNS: usize, M: Mutation> Core for Raft<NODES, RUNS, M> {
    fn start(config: Config, durable: Durable, now: Instant) -> Self {
        Raft::new(config, durable, now).expect("what was durable starts")
    }

    fn receive(&mut self, now: Instant, packet: &Packet, log: &PlainLog) -> Result<Handled, Ignored> {
        self.handle_message(now, packet.from, &packet.message, packet.configuration.as_deref(), log)
    }

    fn timeout(&mut self, now: Instant) {
        self.handle_timeout(now);
    }

    fn due(&self) -> Instant {
        self.poll_timeout()
    }

    fn event(&mut self) -> Option<Event> {
        self.poll_event()
    }

    fn message(&mut self, now: Instant, to: NodeId, bulk: bool, log: &PlainLog) -> Option<Message> {
        self.poll_message(now, to, bulk, log)
    }

    fn persist(&mut self) -> Option<Persist> {
        self.poll_persist()
    }

    fn persisted(&mut self, now: Instant, ticket: u64) {
        self.handle_persisted(now, ticket);
    }

    fn persist_failed(&mut self, now: Instant, ticket: u64) {
        self.handle_persist_failed(now, ticket);
    }

    fn propose(&mut self, now: Instant, entries: u64, bytes: u64) -> Result<EntryRange, ProposeError> {
        Raft::propose(self, now, entries, bytes)
    }

    fn commit(&self) -> LogIndex {
        self.commit_index()
    }

    fn role(&self) -> Role {
        Raft::role(self)
    }

    fn term(&self) -> Term {
        Raft::term(self)
    }
}

/// What survives a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
    pub(crate) log: PlainLog,
    /// What the newest snapshot covers; not below the log's base.
    pub(crate) snapshot: Position,
}

impl Disk {
    pub(crate) fn hard_state(&self) -> HardState {
        HardState { term: self.term, vote: self.vote }
    }

    fn durable(&self) -> Durable {
        let (configuration, previous_configuration) = self.log.configurations();
        let (hard_state, snapshot, last) = (self.hard_state(), self.log.base, self.log.last());
        Durable { hard_state, snapshot, last, configuration, previous_configuration }
    }

    /// Whether this entry is durable here, in the log or in the snapshot.
    pub(crate) fn holds(&self, position: Position) -> bool {
        position.index <= self.log.base.index || self.log.get(position.index) == Some(position)
    }
}

/// A group on its way to the disk, with what it writes.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) persist: Persist,
    /// The entries of the log, with what they hold, at the moment at which the group was taken.
    pub(crate) entries: Vec<(Position, Option<Configuration>)>,
    /// What the snapshot holds that the log is replaced by.
    pub(crate) base_configuration: Configuration,
}

impl Write {
    /// The single records of the group, in the order in which they are written.
    pub(crate) fn records(&self) -> usize {
        let Persist { hard_state, reset, truncate_after, .. } = self.persist;
        let parts = [hard_state.is_some(), reset.is_some(), truncate_after.is_some()];
        parts.into_iter().filter(|there| *there).count() + self.entries.len()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Node<C> {
    pub(crate) id: NodeId,
    /// Its own monotonic clock; it means nothing to others.
    pub(crate) clock: Instant,
    pub(crate) core: Option<C>,
    pub(crate) log: PlainLog,
    pub(crate) disk: Disk,
    pub(crate) write: Option<Write>,
}

impl<C: Core> Node<C> {
    /// With an empty disk, but for the configuration that the site begins with: empty if this node is to join it.
    pub(crate) fn new(id: NodeId, configuration: Configuration) -> Self {
        let log = PlainLog::after(Position::ZERO, configuration);
        let disk = Disk { term: Term(0), vote: None, log: log.clone(), snapshot: Position::ZERO };
        Node { id, clock: Instant(0), core: None, log, disk, write: None }
    }

    pub(crate) fn start(&mut self, config: Config) {
        assert!(self.core.is_none(), "node {} runs already", self.id);
        self.log = self.disk.log.clone();
        self.core = Some(C::start(config, self.disk.durable(), self.clock));
    }

    /// Power goes. Of the group that was being written, so many records are on the disk.
    pub(crate) fn crash(&mut self, records: usize) {
        self.core = None;
        if let Some(write) = self.write.take() {
            self.put_on_disk(&write, records);
        }
        self.log = self.disk.log.clone();
    }

    pub(crate) fn receive(&mut self, packet: &Packet) -> Result<Handled, Ignored> {
        let Some(core) = &mut self.core else { return Ok(Handled::Nothing) };
        let handled = core.receive(self.clock, packet, &self.log)?;
        match handled {
            Handled::Append(range) => {
                self.log.put(&range);
                if let Body::Append { entries: Some(whole), .. } = packet.message.body
                    && let Some(configuration) = packet.configuration.as_deref()
                    && whole.first == range.first
                {
                    self.log.put_configuration(range.first, *configuration);
                }
            }
            Handled::Install(base) => {
                let configuration = packet.configuration.as_deref().copied().unwrap_or_default();
                self.log = PlainLog::after(base, configuration);
            }
            Handled::Nothing => {}
        }
        Ok(handled)
    }

    pub(crate) fn timeout(&mut self) {
        if let Some(core) = &mut self.core {
            core.timeout(self.clock);
        }
    }

    /// Takes the events; tells of the first entry of a leadership that began.
    pub(crate) fn take_events(&mut self) -> Option<Position> {
        let core = self.core.as_mut()?;
        let mut began = None;
        while let Some(event) = core.event() {
            match event {
                Event::BecameLeader { noop } => {
                    self.log.put_own(noop);
                    began = Some(noop);
                }
                Event::OwnEntry { entry, configuration } => {
                    self.log.put_own(entry);
                    configuration.iter().for_each(|held| self.log.put_configuration(entry.index, *held));
                }
                _ => {}
            }
        }
        began
    }

    /// What the node wants to send to this one now. The driver sends the newest snapshot that there is.
    pub(crate) fn next_message(&mut self, to: NodeId, bulk: bool) -> Option<Packet> {
        let core = self.core.as_mut()?;
        let mut message = core.message(self.clock, to, bulk, &self.log)?;
        let configuration = match &mut message.body {
            Body::Snapshot { last } => {
                *last = self.disk.snapshot.max(*last);
                Some(self.log.configuration_at(last.index).configuration)
            }
            Body::Append { entries: Some(range), .. } => self.log.configuration_in(range.first),
            _ => None,
        };
        Some(Packet { from: self.id, to, message, configuration: configuration.map(Rc::new) })
    }

    /// Takes a group for the disk; `false` if there is none, or one is outstanding.
    pub(crate) fn begin_write(&mut self) -> bool {
        let Some(persist) = self.core.as_mut().and_then(Core::persist) else { return false };
        assert!(self.write.is_none(), "one group is outstanding at a time");
        let entries = persist.entries.map_or_else(Vec::new, |(first, last)| self.log.range(first, last));
        let held = |entry: Position| (entry, self.log.configuration_in(entry.index));
        let entries = entries.into_iter().map(held).collect();
        let base_configuration = self.log.configuration_at(self.log.base.index).configuration;
        self.write = Some(Write { persist, entries, base_configuration });
        true
    }

    /// The outstanding group is durable.
    pub(crate) fn finish_write(&mut self) {
        let Some(write) = self.write.take() else { return };
        self.put_on_disk(&write, usize::MAX);
        if let Some(core) = &mut self.core {
            core.persisted(self.clock, write.persist.ticket);
        }
    }

    /// The disk reports an error; so many records of the group are there all the same.
    pub(crate) fn fail_write(&mut self, records: usize) {
        let Some(write) = self.write.take() else { return };
        self.put_on_disk(&write, records);
        if let Some(core) = &mut self.core {
            core.persist_failed(self.clock, write.persist.ticket);
        }
    }

    pub(crate) fn propose(&mut self, entries: u64, bytes_each: u64) -> Result<EntryRange, ProposeError> {
        let Some(core) = &mut self.core else { return Err(ProposeError::NotLeader) };
        let range = core.propose(self.clock, entries, entries * bytes_each)?;
        self.log.put(&range);
        Ok(range)
    }

    /// The commit index; zero while the node is down.
    pub(crate) fn commit(&self) -> LogIndex {
        self.core.as_ref().map_or(LogIndex::ZERO, Core::commit)
    }

    fn put_on_disk(&mut self, write: &Write, mut records: usize) {
        let mut next = || {
            let there = records > 0;
            records = records.saturating_sub(1);
            there
        };
        let Persist { hard_state, reset, truncate_after, .. } = write.persist;
        if let Some(hard_state) = hard_state.filter(|_| next()) {
            self.disk.term = hard_state.term;
            self.disk.vote = hard_state.vote;
        }
        if let Some(base) = reset.filter(|_| next()) {
            self.disk.log = PlainLog::after(base, write.base_configuration);
            self.disk.snapshot = self.disk.snapshot.max(base);
        }
        if let Some(last) = truncate_after.filter(|_| next()) {
            self.disk.log.truncate(last);
        }
        for (entry, configuration) in write.entries.iter().take_while(|_| next()) {
            self.disk.log.push(*entry);
            configuration.iter().for_each(|held| self.disk.log.put_configuration(entry.index, *held));
        }
    }
}
