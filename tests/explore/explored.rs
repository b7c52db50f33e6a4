//! The calls of the core that only the exploration makes.

use tally_core::id::NodeId;
use tally_core::raft::{
    Change, Configuration, ConfigurationEntry, EntryRange, Leave, MembershipError, Mutation, Position, Raft,
    Read, ReadError,
};
use tally_core::time::Instant;

use crate::hash::Wide;
use crate::node::Core;

/// Wishes for other members that are granted together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) changes: &'static [Change],
    pub(crate) leave: Leave,
}

pub(crate) trait Explored: Core {
    /// The deliberate bugs that it has, for a witness to have too.
    type Bug: Mutation;
    fn leader(&self) -> Option<NodeId>;
    fn feed(&self, now: Instant, name: &dyn Fn(NodeId) -> u64, hasher: &mut Wide);
    fn read_index(&mut self, now: Instant) -> Result<Read, ReadError>;
    fn read_confirmed(&self) -> u64;
    fn compacted(&mut self, at: Position) -> bool;
    fn change(&mut self, now: Instant, wish: &Wish) -> Result<(EntryRange, Configuration), MembershipError>;
    fn leave_joint(&mut self, now: Instant) -> Result<(EntryRange, Configuration), MembershipError>;
    fn configuration(&self) -> ConfigurationEntry;
}

impl<const NODES: usize, const RUNS: usize, M: Mutation> Explored for Raft<NODES, RUNS, M> {
    type Bug = M;

    fn leader(&self) -> Option<NodeId> {
        Raft::leader(self)
    }

    fn feed(&self, now: Instant, name: &dyn Fn(NodeId) -> u64, hasher: &mut Wide) {
        self.canonical(now, name, hasher);
    }

    fn read_index(&mut self, now: Instant) -> Result<Read, ReadError> {
        Raft::read_index(self, now)
    }

    fn read_confirmed(&self) -> u64 {
        Raft::read_confirmed(self)
    }

    fn compacted(&mut self, at: Position) -> bool {
        Raft::compacted(self, at)
    }

    fn change(&mut self, now: Instant, wish: &Wish) -> Result<(EntryRange, Configuration), MembershipError> {
        self.change_membership(now, wish.changes, wish.leave)
    }

    fn leave_joint(&mut self, now: Instant) -> Result<(EntryRange, Configuration), MembershipError> {
        Raft::leave_joint(self, now)
    }

    fn configuration(&self) -> ConfigurationEntry {
        let (index, configuration) = (self.configuration_index(), *Raft::configuration(self));
        ConfigurationEntry { index, configuration }
    }
}
