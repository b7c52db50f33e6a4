//! Linearizable reads: a read is served once a majority has confirmed, after the read was asked
//! for, that this node leads. Reads share rounds of heartbeats.

use core::fmt;

use super::peer::Measure;
use super::{Handled, Ignored, Mutation, Raft, Role};
use crate::id::LogIndex;
use crate::time::Instant;

/// A read that was asked for: serve it when [`read_confirmed`](Raft::read_confirmed) has come to `round` and
/// `index` is applied; fail it when leadership ends before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Rounds rise for as long as the process lives.
    pub round: u64,
    /// What the read must see.
    pub index: LogIndex,
}

/// Why a read cannot be confirmed here and now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// Ask the leader.
    NotLeader,
    /// This leader has not yet committed an entry of its own term, so it does not know what is
    /// committed: ask again soon.
    TooEarly,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReadError::NotLeader => "this node does not lead",
            ReadError::TooEarly => "this leader has not yet committed an entry of its term",
        })
    }
}

impl core::error::Error for ReadError {}

/// The rounds of heartbeats that confirm reads.
#[derive(Clone, Debug, Default)]
pub(super) struct Rounds {
    /// What heartbeats carry.
    pub(super) current: u64,
    /// A heartbeat carried it: an answer may date from before a read that is asked for now.
    pub(super) has_left: bool,
    /// The latest round promised to a read: `current` or the next.
    pub(super) wanted: u64,
    pub(super) confirmed: u64,
}

impl Rounds {
    /// What was promised in an older term is never confirmed in this one under the same number.
    pub(super) fn begin_term(&mut self) {
        self.current = self.wanted + 1;
        self.wanted = self.current;
        self.has_left = false;
    }

    /// The round of a heartbeat that leaves now.
    pub(super) fn leaves(&mut self) -> u64 {
        self.has_left = true;
        self.current
    }

    fn ask(&mut self) -> u64 {
        self.wanted = self.wanted.max(self.current + u64::from(self.has_left));
        self.wanted
    }

    /// Begins the promised round; `false` if it was begun.
    fn begin_wanted(&mut self) -> bool {
        let begins = self.wanted > self.current;
        if begins {
            self.current = self.wanted;
            self.has_left = false;
        }
        begins
    }
}

impl<const NODES: usize, const RUNS: usize, M: Mutation> Raft<NODES, RUNS, M> {
    /// Asks for a linearizable read. Reads that come while a round is on its way share the next one. The
    /// only voter of a site confirms at once.
    ///
    /// # Errors
    /// Why this node cannot vouch for reads now.
    pub fn read_index(&mut self, now: Instant) -> Result<Read, ReadError> {
        self.clock(now);
        if !self.leads_knowingly() {
            return Err(ReadError::NotLeader);
        }
        if self.commit < self.term_start && !M::READ_TOO_EARLY {
            return Err(ReadError::TooEarly);
        }
        let idle = self.rounds.confirmed >= self.rounds.current;
        let asked = if M::READ_BY_OLD_ROUND { self.rounds.current } else { self.rounds.ask() };
        let read = Read { round: asked, index: self.commit };
        if idle || !self.rounds.has_left {
            self.begin_round();
        }
        self.confirm_rounds();
        Ok(read)
    }

    /// Reads of rounds up to here are confirmed. Take the events before: reads from before a
    /// [`SteppedDown`](super::Event::SteppedDown) have failed.
    #[must_use]
    pub const fn read_confirmed(&self) -> u64 {
        self.rounds.confirmed
    }

    pub(super) fn handle_heartbeat_answer(&mut self, slot: usize, round: u64) -> Result<Handled, Ignored> {
        if self.role != Role::Leader {
            return Err(Ignored::NotAwaited);
        }
        if round > self.rounds.current {
            return Err(Ignored::Malformed);
        }
        let peer = &mut self.peers[slot];
        peer.round = peer.round.max(round);
        self.confirm_rounds();
        Ok(Handled::Nothing)
    }

    /// Heartbeats with the latest round that was promised, to all.
    #[inline(never)]
    pub(super) fn begin_round(&mut self) {
        self.rounds.begin_wanted();
        for peer in self.peers.iter_mut() {
            peer.heartbeat_due = true;
        }
    }

    pub(super) fn confirm_rounds(&mut self) {
        let own = self.rounds.current;
        let reached = self.reached(own, Measure::Round, self.silently_confirmed(own, Measure::Round));
        self.rounds.confirmed = self.rounds.confirmed.max(reached);
        if self.rounds.confirmed >= self.rounds.current && self.rounds.wanted > self.rounds.current {
            self.begin_round();
        }
    }
}
