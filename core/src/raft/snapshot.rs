//! Compaction, and followers that are too far behind for the log.

use super::configuration::Configuration;
use super::message::{Body, LogView, Position};
use super::peer::PeerState;
use super::{Handled, Ignored, Mutation, Raft};
use crate::id::NodeId;
use crate::time::Duration;

/// A snapshot that was not answered is offered again after 8 election timeouts, then after 16, 32, and
/// from then on 64.
const RETRY_TIMEOUTS_LOG2_MIN: u32 = 3;
pub(super) const RETRY_TIMEOUTS_LOG2_MAX: u32 = 6;

impl<const NODES: usize, const RUNS: usize, M: Mutation> Raft<NODES, RUNS, M> {
    /// The driver has a durable snapshot up to here and discards the log that it covers. `false`, and
    /// nothing is changed, if that is not committed and durable here or not newer than the last one:
    /// then the driver must keep its log.
    #[must_use]
    pub fn compacted(&mut self, snapshot: Position) -> bool {
        let accepted = snapshot.index > self.log.base().index
            && snapshot.index <= self.commit
            && snapshot.index <= self.gate.stable();
        if accepted {
            self.log.compact(snapshot);
        }
        accepted
    }

    /// The driver could not deliver a snapshot, or its connection broke: it is offered again at once.
    pub fn snapshot_lost(&mut self, to: NodeId) {
        if let Some(slot) = self.slot(to)
            && matches!(self.peers[slot].state, PeerState::Snapshot(_))
        {
            self.peers[slot].attempt.again();
        }
    }

    /// A follower's part: a snapshot came whole.
    pub(super) fn handle_snapshot(
        &mut self,
        last: &Position,
        configuration: Option<&Configuration>,
        log: &impl LogView,
    ) -> Result<Handled, Ignored> {
        if last.index <= self.commit && !M::TAKE_OLD_SNAPSHOT {
            // The leader learns from the answer that this node is further than it thought.
            self.appended_due = true;
            return Err(Ignored::Stale);
        }
        let own = self.log.position(last.index, log);
        if own.is_none() && last.index <= self.log.last().index {
            // What follows may be acknowledged, and it is not known whether it is the leader's.
            return Err(Ignored::LogUnreadable);
        }
        let has_it = own.as_ref() == Some(last);
        if !has_it && last.index <= self.matched {
            return Err(Ignored::Malformed);
        }
        let committed = core::mem::replace(&mut self.commit, last.index);
        self.matched = self.matched.max(last.index);
        if has_it {
            self.appended_due = true;
            return Ok(Handled::Nothing);
        }
        self.log.reset(*last);
        self.gate.was_reset();
        self.rejection = None;
        self.adopt_from_snapshot(last.index, configuration, committed);
        Ok(Handled::Install(*last))
    }

    /// The newest snapshot, once: it needs room in the bulk lane.
    pub(super) fn next_snapshot(&mut self, slot: usize, bulk: bool) -> Option<Body> {
        let last = self.log.base();
        let peer = &mut self.peers[slot];
        if !bulk || !peer.attempt.is_due() {
            return None;
        }
        peer.state = PeerState::Snapshot(last.index);
        peer.attempt.send(self.now);
        Some(Body::Snapshot { last })
    }
}

/// Whether a snapshot that was sent so long ago, for the so many-th time, is to be offered again.
pub(super) fn is_overdue(election_timeout: Duration, (ago, times): (Duration, u32)) -> bool {
    let log2 = RETRY_TIMEOUTS_LOG2_MIN.saturating_add(times.saturating_sub(1)).min(RETRY_TIMEOUTS_LOG2_MAX);
    ago.0 >= election_timeout.0.saturating_mul(1 << log2)
}
