//! Leadership transfer: to a voter that has the whole log, by asking it to campaign at once.

use core::fmt;

use super::{Handled, Ignored, Mutation, Raft, Role};
use crate::id::NodeId;
use crate::time::Instant;

/// Why leadership is not transferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferError {
    /// Ask the leader.
    NotLeader,
    /// It leads already.
    ToItself,
    /// It is no voter, or has no log to lead with.
    NotVoter(NodeId),
    /// It has not caught up or does not answer.
    NotCaughtUp {
        /// Who.
        id: NodeId,
        /// How many entries it lacks.
        behind: u64,
    },
    /// Leadership is being transferred to this one.
    InProgress(NodeId),
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransferError::NotLeader => f.write_str("this node does not lead"),
            TransferError::ToItself => f.write_str("this node leads already"),
            TransferError::NotVoter(id) => write!(f, "node {id} is no voter that could lead"),
            TransferError::NotCaughtUp { id, behind } => {
                write!(f, "node {id} does not answer or has not caught up: it lacks {behind} entries")
            }
            TransferError::InProgress(id) => write!(f, "leadership is being transferred to node {id}"),
        }
    }
}

impl core::error::Error for TransferError {}

/// A leader transfers leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transfer {
    pub(super) to: NodeId,
    /// It leads on if it leads still.
    pub(super) until: Instant,
}

impl<const NODES: usize, const RUNS: usize, M: Mutation> Raft<NODES, RUNS, M> {
    /// A leader transfers leadership to a voter that has caught up. It takes no proposals until it is led, or for an election
    /// timeout; [`Event::TransferFailed`](super::Event::TransferFailed) tells that it leads on.
    ///
    /// # Errors
    /// Why leadership stays.
    pub fn transfer(&mut self, now: Instant, to: NodeId) -> Result<(), TransferError> {
        self.clock(now);
        if !self.leads_knowingly() {
            return Err(TransferError::NotLeader);
        }
        if to == self.config.id {
            return Err(TransferError::ToItself);
        }
        if let Some(transfer) = self.transfer {
            return Err(TransferError::InProgress(transfer.to));
        }
        let slot = self.successor_slot(to).ok_or(TransferError::NotVoter(to))?;
        let behind = self.log.last().index.0.saturating_sub(self.peers[slot].matched.0);
        let caught_up = self.peers[slot].has_caught_up(self.now, self.config.election_timeout);
        if !caught_up && !M::TRANSFER_TO_LAGGING {
            return Err(TransferError::NotCaughtUp { id: to, behind });
        }
        self.transfer = Some(Transfer { to, until: self.now + self.config.election_timeout });
        self.go_on_with_transfer();
        Ok(())
    }

    /// To whom a leader would best transfer leadership: the voter that has most of its log, of those that answer.
    #[must_use]
    pub fn successor(&self) -> Option<NodeId> {
        let timeout = self.config.election_timeout;
        let fit = self.peers.iter().filter(|peer| peer.is_voter() && peer.has_caught_up(self.now, timeout));
        let best = fit.reduce(|best, peer| if peer.matched >= best.matched { peer } else { best })?;
        (self.role == Role::Leader).then_some(best.id)
    }

    /// At every tick and whenever the successor acknowledges: asks it to campaign once it has everything.
    pub(super) fn go_on_with_transfer(&mut self) {
        let Some(transfer) = self.transfer else { return };
        let Some(slot) = self.successor_slot(transfer.to).filter(|_| self.now < transfer.until) else {
            self.transfer = None;
            self.transfer_failed = Some(transfer.to);
            return;
        };
        let has_all = self.peers[slot].matched == self.log.last().index;
        self.peers[slot].timeout_now_due |= has_all || M::TRANSFER_TO_LAGGING;
    }

    #[inline(never)]
    fn successor_slot(&self, to: NodeId) -> Option<usize> {
        self.slot(to).filter(|slot| self.peers[*slot].is_voter())
    }

    /// A leader ends that cannot go on: the best of the others need not wait for a timeout.
    pub(super) fn pass_on(&mut self) {
        let Some(slot) = self.successor().and_then(|id| self.slot(id)) else { return };
        self.peers[slot].timeout_now_due = true;
    }

    /// The leader transfers leadership to this node.
    pub(super) fn handle_timeout_now(&mut self, slot: usize) -> Result<Handled, Ignored> {
        let from_leader = self.role == Role::Follower && self.leader == Some(self.peers[slot].id);
        if !from_leader || !self.may_campaign() {
            return Err(Ignored::NotAwaited);
        }
        self.campaign();
        self.by_transfer = true;
        Ok(Handled::Nothing)
    }
}
