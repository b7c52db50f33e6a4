//! What a history runs of `tally-core`: the core of a box and that of a witness, as they are meant or with a deliberate
//! bug. Which of them is behind a table of methods, so that the simulation is compiled once.

use tally_core::id::{LogIndex, NodeId, Term};
use tally_core::raft::{
    Change, Config, Configuration, Durable, EntryRange, Event, Handled, Ignored, Leave, MembershipError,
    Message, Mutation, NoMutation, Persist, Position, ProposeError, Raft, Reaction, Read, ReadError, Role,
    Status, TransferError, Witness, WitnessRecord,
};
use tally_core::time::Instant;

use crate::log::Log;
use crate::plan::MEMBERS;

/// Makes the cores of a history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) box_with: fn(Config, Durable, Instant) -> Box<dyn Core>,
    pub(crate) witness_with: fn(WitnessRecord) -> Box<dyn WitnessCore>,
}

impl Cores {
    /// As they are meant.
    pub(crate) const PLAIN: Cores = Cores::of::<NoMutation>();

    pub(crate) const fn of<M: Mutation>() -> Cores {
        Cores { box_with: start::<M>, witness_with: |record| Box::new(Witness::<M>::new(record)) }
    }
}

/// A core that remembers few runs, so that it has to ask, and that has not room for all there are.
type BoxCore<M> = Raft<MEMBERS, 3, M>;

fn start<M: Mutation>(config: Config, durable: Durable, now: Instant) -> Box<dyn Core> {
    Box::new(BoxCore::<M>::new(config, durable, now).expect("a durable state starts"))
}

/// What a box calls of its core; documented there.
pub(crate) trait Core {
    fn handle_message(
        &mut self,
        now: Instant,
        from: NodeId,
        message: &Message,
        configuration: Option<&Configuration>,
        log: &Log,
    ) -> Result<Handled, Ignored>;
    fn poll_message(&mut self, now: Instant, to: NodeId, bulk: bool, log: &Log) -> Option<Message>;
    fn peers(&self) -> Vec<NodeId>;
    fn handle_timeout(&mut self, now: Instant);
    fn poll_timeout(&self) -> Instant;
    fn poll_persist(&mut self) -> Option<Persist>;
    fn handle_persisted(&mut self, now: Instant, ticket: u64);
    fn handle_persist_failed(&mut self, now: Instant, ticket: u64);
    fn poll_event(&mut self) -> Option<Event>;
    fn propose(&mut self, now: Instant, entries: u64, bytes: u64) -> Result<EntryRange, ProposeError>;
    fn read_index(&mut self, now: Instant) -> Result<Read, ReadError>;
    fn read_confirmed(&self) -> u64;
    fn change_membership(
        &mut self,
        now: Instant,
        changes: &[Change],
        leave: Leave,
    ) -> Result<(EntryRange, Configuration), MembershipError>;
    fn leave_joint(&mut self, now: Instant) -> Result<(EntryRange, Configuration), MembershipError>;
    fn transfer(&mut self, now: Instant, to: NodeId) -> Result<(), TransferError>;
    fn successor(&self) -> Option<NodeId>;
    fn resign(&mut self, now: Instant);
    fn request_heartbeat(&mut self, to: NodeId);
    fn compacted(&mut self, snapshot: Position) -> bool;
    fn role(&self) -> Role;
    fn term(&self) -> Term;
    fn leader(&self) -> Option<NodeId>;
    fn last(&self) -> Position;
    fn commit_index(&self) -> LogIndex;
    fn durable_index(&self) -> LogIndex;
    fn configuration(&self) -> &Configuration;
    fn configuration_index(&self) -> LogIndex;
    fn status(&self) -> Status<MEMBERS>;
}

/// What a witness calls of its core; documented there.
pub(crate) trait WitnessCore {
    fn handle(&mut self, from: NodeId, message: &Message) -> Result<Reaction, Ignored>;
    fn stored(&mut self) -> Option<(NodeId, Message)>;
    fn not_stored(&mut self);
}

impl<M: Mutation> Core for BoxCore<M> {
    fn handle_message(
        &mut self,
        now: Instant,
        from: NodeId,
        message: &Message,
        configuration: Option<&Configuration>,
        log: &Log,
    ) -> Result<Handled, Ignored> {
        Raft::handle_message(self, now, from, message, configuration, log)
    }

    fn poll_message(&mut self, now: Instant, to: NodeId, bulk: bool, log: &Log) -> Option<Message> {
        Raft::poll_message(self, now, to, bulk, log)
    }

    fn peers(&self) -> Vec<NodeId> {
        Raft::peers(self).collect()
    }

    fn handle_timeout(&mut self, now: Instant) {
        Raft::handle_timeout(self, now)
    }

    fn poll_timeout(&self) -> Instant {
        Raft::poll_timeout(self)
    }

    fn poll_persist(&mut self) -> Option<Persist> {
        Raft::poll_persist(self)
    }

    fn handle_persisted(&mut self, now: Instant, ticket: u64) {
        Raft::handle_persisted(self, now, ticket)
    }

    fn handle_persist_failed(&mut self, now: Instant, ticket: u64) {
        Raft::handle_persist_failed(self, now, ticket)
    }

    fn poll_event(&mut self) -> Option<Event> {
        Raft::poll_event(self)
    }

    fn propose(&mut self, now: Instant, entries: u64, bytes: u64) -> Result<EntryRange, ProposeError> {
        Raft::propose(self, now, entries, bytes)
    }

    fn read_index(&mut self, now: Instant) -> Result<Read, ReadError> {
        Raft::read_index(self, now)
    }

    fn read_confirmed(&self) -> u64 {
        Raft::read_confirmed(self)
    }

    fn change_membership(
        &mut self,
        now: Instant,
        changes: &[Change],
        leave: Leave,
    ) -> Result<(EntryRange, Configuration), MembershipError> {
        Raft::change_membership(self, now, changes, leave)
    }

    fn leave_joint(&mut self, now: Instant) -> Result<(EntryRange, Configuration), MembershipError> {
        Raft::leave_joint(self, now)
    }

    fn transfer(&mut self, now: Instant, to: NodeId) -> Result<(), TransferError> {
        Raft::transfer(self, now, to)
    }

    fn successor(&self) -> Option<NodeId> {
        Raft::successor(self)
    }

    fn resign(&mut self, now: Instant) {
        Raft::resign(self, now)
    }

    fn request_heartbeat(&mut self, to: NodeId) {
        Raft::request_heartbeat(self, to)
    }

    fn compacted(&mut self, snapshot: Position) -> bool {
        Raft::compacted(self, snapshot)
    }

    fn role(&self) -> Role {
        Raft::role(self)
    }

    fn term(&self) -> Term {
        Raft::term(self)
    }

    fn leader(&self) -> Option<NodeId> {
        Raft::leader(self)
    }

    fn last(&self) -> Position {
        Raft::last(self)
    }

    fn commit_index(&self) -> LogIndex {
        Raft::commit_index(self)
    }

    fn durable_index(&self) -> LogIndex {
        Raft::durable_index(self)
    }

    fn configuration(&self) -> &Configuration {
        Raft::configuration(self)
    }

    fn configuration_index(&self) -> LogIndex {
        Raft::configuration_index(self)
    }

    fn status(&self) -> Status<MEMBERS> {
        Raft::status(self)
    }
}

impl<M: Mutation> WitnessCore for Witness<M> {
    fn handle(&mut self, from: NodeId, message: &Message) -> Result<Reaction, Ignored> {
        Witness::handle(self, from, message)
    }

    fn stored(&mut self) -> Option<(NodeId, Message)> {
        Witness::stored(self)
    }

    fn not_stored(&mut self) {
        Witness::not_stored(self)
    }
}
