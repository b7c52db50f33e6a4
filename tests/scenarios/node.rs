//! A node as its driver runs it: the core, the log, the disk. Together with `operations` the only
//! file that calls the core; shared by the scenarios and the exploration.

use tally_core::id::{LogIndex, NodeId, Term};
use tally_core::raft::{
    Body, Config, Durable, EntryRange, Event, Handled, HardState, Ignored, Member, Message, Persist,
    Position, ProposeError, Raft, Role,
};
use tally_core::time::Instant;

use crate::plain_log::PlainLog;

/// The calls of the core that a driver makes: the seam at which a deliberate bug can be put in.
pub(crate) trait Core: Clone {
    fn start(config: Config, members: &[Member], durable: Durable, now: Instant) -> Self;
    fn receive(
        &mut self,
        now: Instant,
        from: NodeId,
        m: &Message,
        log: &PlainLog,
    ) -> Result<Handled, Ignored>;
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

impl<const NODES: usize, const RUNS: usize> Core for Raft<NODES, RUNS> {
    fn start(config: Config, members: &[Member], durable: Durable, now: Instant) -> Self {
        Raft::new(config, members, durable, now).expect("what was durable starts")
    }

    fn receive(
        &mut self,
        now: Instant,
        from: NodeId,
        m: &Message,
        log: &PlainLog,
    ) -> Result<Handled, Ignored> {
        self.handle_message(now, from, m, log)
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
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
        Durable { hard_state: self.hard_state(), snapshot: self.log.base, last: self.log.last() }
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
    pub(crate) entries: Vec<Position>,
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
    pub(crate) fn new(id: NodeId) -> Self {
        let (log, disk) = (PlainLog::default(), Disk::default());
        Node { id, clock: Instant(0), core: None, log, disk, write: None }
    }

    pub(crate) fn start(&mut self, config: Config, members: &[Member]) {
        assert!(self.core.is_none(), "node {} runs already", self.id);
        self.log = self.disk.log.clone();
        self.core = Some(C::start(config, members, self.disk.durable(), self.clock));
    }

    /// Power goes. Of the group that was being written, so many records are on the disk.
    pub(crate) fn crash(&mut self, records: usize) {
        self.core = None;
        if let Some(write) = self.write.take() {
            self.put_on_disk(&write, records);
        }
        self.log = PlainLog::default();
    }

    pub(crate) fn receive(&mut self, from: NodeId, message: &Message) -> Result<Handled, Ignored> {
        let Some(core) = &mut self.core else { return Ok(Handled::Nothing) };
        let handled = core.receive(self.clock, from, message, &self.log)?;
        match handled {
            Handled::Append(range) => self.log.put(&range),
            Handled::Install(base) => self.log = PlainLog::after(base),
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
            if let Event::BecameLeader { noop } = event {
                let (term, subterm) = (noop.term, noop.subterm);
                self.log.put(&EntryRange { term, subterm, first: noop.index, last: noop.index });
                began = Some(noop);
            }
        }
        began
    }

    /// What the node wants to send to this one now. The driver sends the newest snapshot that there is.
    pub(crate) fn next_message(&mut self, to: NodeId, bulk: bool) -> Option<Message> {
        let core = self.core.as_mut()?;
        let mut message = core.message(self.clock, to, bulk, &self.log)?;
        if let Body::Snapshot { last } = &mut message.body {
            *last = self.disk.snapshot.max(*last);
        }
        Some(message)
    }

    /// Takes a group for the disk; `false` if there is none, or one is outstanding.
    pub(crate) fn begin_write(&mut self) -> bool {
        let Some(persist) = self.core.as_mut().and_then(Core::persist) else { return false };
        assert!(self.write.is_none(), "one group is outstanding at a time");
        let entries = persist.entries.map_or_else(Vec::new, |(first, last)| self.log.range(first, last));
        self.write = Some(Write { persist, entries });
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
            self.disk.log = PlainLog::after(base);
            self.disk.snapshot = self.disk.snapshot.max(base);
        }
        if let Some(last) = truncate_after.filter(|_| next()) {
            self.disk.log.truncate(last);
        }
        for entry in write.entries.iter().take_while(|_| next()) {
            self.disk.log.push(*entry);
        }
    }
}
