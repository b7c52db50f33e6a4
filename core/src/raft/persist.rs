//! The persist gate: what is durable, what is on its way there, and what therefore may be said.

use super::log::Log;
use super::message::{HardState, Persist, Position};
use crate::id::LogIndex;

#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) ticket: u64,
    pub(super) hard_state: Option<HardState>,
    pub(super) reset: bool,
    /// Where the log on disk will end.
    pub(super) end: LogIndex,
    /// When it is done, the log is durable up to here: lowered when entries are dropped meanwhile, so
    /// that what took their place is not mistaken for durable.
    pub(super) covers: LogIndex,
}

#[derive(Clone, Debug)]
pub(super) struct Gate {
    pub(super) hard_state: HardState,
    /// The log up to here is on disk as it is in memory.
    pub(super) stable: LogIndex,
    /// The log on disk may reach to here; beyond `stable` it is not the log in memory.
    pub(super) disk_end: LogIndex,
    /// The log on disk is not yet replaced by the snapshot that the log in memory begins with.
    pub(super) reset: bool,
    pub(super) in_flight: Option<InFlight>,
    pub(super) tickets: u64,
    pub(super) failed: bool,
}

impl Gate {
    pub(super) const fn new(hard_state: HardState, last: LogIndex) -> Gate {
        Gate {
            hard_state,
            stable: last,
            disk_end: last,
            reset: false,
            in_flight: None,
            tickets: 0,
            failed: false,
        }
    }

    /// Whether this hard state is on disk: until it is, nothing of its term may be said.
    pub(super) fn covers(&self, hard_state: &HardState) -> bool {
        self.hard_state == *hard_state
    }

    /// The log up to here is durable.
    pub(super) const fn stable(&self) -> LogIndex {
        self.stable
    }

    /// The last attempt failed and none has succeeded since.
    pub(super) const fn has_failed(&self) -> bool {
        self.failed
    }

    /// Entries after `last` were dropped from the log in memory.
    pub(super) fn truncated(&mut self, last: LogIndex) {
        self.stable = self.stable.min(last);
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.covers = in_flight.covers.min(last);
        }
    }

    /// The log in memory now begins after a snapshot; nothing of it is in the durable log.
    pub(super) fn was_reset(&mut self) {
        self.truncated(LogIndex::ZERO);
        self.reset = true;
    }

    /// The next group, unless one is outstanding or nothing changed.
    pub(super) fn next<const RUNS: usize>(
        &mut self,
        hard_state: HardState,
        log: &Log<RUNS>,
    ) -> Option<Persist> {
        if self.in_flight.is_some() {
            return None;
        }
        let last = log.last().index;
        debug_assert!(self.stable <= self.disk_end, "what is durable is on the disk");
        let reset = self.reset.then(|| log.base());
        let from = reset.map_or(self.stable, |base: Position| base.index);
        let persist = Persist {
            ticket: self.tickets + 1,
            // After a failure nobody knows what the disk has.
            hard_state: (self.failed || hard_state != self.hard_state).then_some(hard_state),
            reset,
            truncate_after: (reset.is_none() && self.disk_end > from).then_some(from),
            entries: (last > from).then_some((from.next(), last)),
        };
        let idle = persist.hard_state.is_none() && persist.truncate_after.is_none();
        if idle && reset.is_none() && persist.entries.is_none() {
            return None;
        }
        self.tickets += 1;
        self.reset = false;
        self.in_flight = Some(InFlight {
            ticket: persist.ticket,
            hard_state: persist.hard_state,
            reset: reset.is_some(),
            end: last,
            covers: last,
        });
        Some(persist)
    }

    /// The group is durable. `false` if the ticket is not the outstanding one.
    pub(super) fn persisted(&mut self, ticket: u64, vouches_for_replaced: bool) -> bool {
        let Some(done) = self.landed(ticket) else { return false };
        debug_assert!(done.covers <= done.end, "a group vouches for no more than it wrote");
        self.hard_state = done.hard_state.unwrap_or(self.hard_state);
        self.stable = self.stable.max(if vouches_for_replaced { done.end } else { done.covers });
        self.disk_end = done.end;
        self.failed = false;
        true
    }

    #[inline(never)]
    fn landed(&mut self, ticket: u64) -> Option<InFlight> {
        self.in_flight.take_if(|in_flight| in_flight.ticket == ticket)
    }

    /// The group may be durable in part or not at all. `false` if the ticket is not the outstanding one.
    pub(super) fn persist_failed(&mut self, ticket: u64) -> bool {
        let Some(lost) = self.landed(ticket) else { return false };
        self.reset |= lost.reset;
        self.disk_end = self.disk_end.max(lost.end);
        self.failed = true;
        true
    }
}
