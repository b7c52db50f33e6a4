//! The calls of the core that only scripts make.

use tally_core::id::{LogIndex, NodeId};
use tally_core::raft::{
    Change, Configuration, EntryRange, Leave, MembershipError, Position, Raft, Read, ReadError, Status,
    TransferError,
};

use crate::node::Node;

/// Scenarios run on this core. It remembers four runs, so that long histories make it ask.
pub(crate) type ScriptedCore = Raft<NODES_MAX, 4>;
pub(crate) const NODES_MAX: usize = 9;

impl Node<ScriptedCore> {
    pub(crate) fn status(&self) -> Option<Status<NODES_MAX>> {
        self.core.as_ref().map(Raft::status)
    }

    pub(crate) fn read_index(&mut self) -> Result<Read, ReadError> {
        let now = self.clock;
        self.core.as_mut().map_or(Err(ReadError::NotLeader), |core| core.read_index(now))
    }

    pub(crate) fn read_confirmed(&self) -> u64 {
        self.core.as_ref().map_or(0, Raft::read_confirmed)
    }

    pub(crate) fn request_heartbeat(&mut self, to: NodeId) {
        if let Some(core) = &mut self.core {
            core.request_heartbeat(to);
        }
    }

    /// Takes a durable snapshot up to here, if that is committed and durable.
    pub(crate) fn take_snapshot(&mut self, index: LogIndex) -> Option<Position> {
        let durable = self.core.as_ref().is_some_and(|core| core.durable_index() >= index);
        let at = self.log.get(index).filter(|_| durable && index <= self.commit())?;
        self.disk.snapshot = self.disk.snapshot.max(at);
        Some(at)
    }

    /// Forgets the log up to here, which a snapshot covers; whether the core agrees.
    pub(crate) fn compact(&mut self, at: Position) -> bool {
        let accepted = self.core.as_mut().is_some_and(|core| core.compacted(at));
        if accepted {
            self.log.compact(at);
            self.disk.log.compact(at);
        }
        accepted
    }

    pub(crate) fn snapshot_lost(&mut self, to: NodeId) {
        if let Some(core) = &mut self.core {
            core.snapshot_lost(to);
        }
    }

    pub(crate) fn resign(&mut self) {
        let now = self.clock;
        if let Some(core) = &mut self.core {
            core.resign(now);
        }
    }

    pub(crate) fn forget_leader(&mut self) {
        let now = self.clock;
        if let Some(core) = &mut self.core {
            core.forget_leader(now);
        }
    }

    /// Changes the members by these wishes; without any, leaves the joint configuration.
    pub(crate) fn change(
        &mut self,
        changes: &[Change],
        leave: Leave,
    ) -> Result<(EntryRange, Configuration), MembershipError> {
        let Some(core) = &mut self.core else { return Err(MembershipError::NotLeader) };
        let (range, configuration) = match changes {
            [] => core.leave_joint(self.clock)?,
            _ => core.change_membership(self.clock, changes, leave)?,
        };
        self.log.put(&range);
        self.log.put_configuration(range.first, configuration);
        Ok((range, configuration))
    }

    pub(crate) fn transfer(&mut self, to: NodeId) -> Result<(), TransferError> {
        let now = self.clock;
        self.core.as_mut().map_or(Err(TransferError::NotLeader), |core| core.transfer(now, to))
    }
}
