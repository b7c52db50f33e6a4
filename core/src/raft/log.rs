//! The log as the core knows it: the newest runs of equal term and subterm. The driver's log is the
//! authority for what is older.

use heapless::Vec;

use super::message::{EntryRange, LogView, Position};
use crate::id::{LogIndex, Subterm, Term};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TermRun {
    pub(super) term: Term,
    pub(super) subterm: Subterm,
    /// The run may begin earlier if it is the oldest one known.
    pub(super) first: LogIndex,
}

impl TermRun {
    const fn key(&self) -> (Term, Subterm) {
        (self.term, self.subterm)
    }

    const fn at(&self, index: LogIndex) -> Position {
        Position { index, term: self.term, subterm: self.subterm }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Log<const RUNS: usize> {
    /// Everything up to here is in a snapshot.
    pub(super) base: Position,
    pub(super) last: LogIndex,
    /// Oldest first; at least one if there are entries after `base`.
    pub(super) runs: Vec<TermRun, RUNS>,
}

impl<const RUNS: usize> Log<RUNS> {
    const HAS_ROOM: () = assert!(RUNS > 0, "a log needs room for one run at least");

    pub(super) fn new(base: Position, last: Position) -> Self {
        let () = Self::HAS_ROOM;
        let mut log = Log { base, last: base.index, runs: Vec::new() };
        if last.index > base.index {
            log.restart_runs(last);
        }
        log
    }

    pub(super) const fn base(&self) -> Position {
        self.base
    }

    #[inline(never)]
    pub(super) fn last(&self) -> Position {
        self.runs.last().map_or(self.base, |run| run.at(self.last))
    }

    /// The position at an index from the base to the last one.
    pub(super) fn position(&self, index: LogIndex, view: &impl LogView) -> Option<Position> {
        if index == self.base.index {
            return Some(self.base);
        }
        if index < self.base.index || index > self.last {
            return None;
        }
        match self.runs.iter().rev().find(|run| run.first <= index) {
            Some(run) => Some(run.at(index)),
            None => view.position(index).filter(|position| position.index == index),
        }
    }

    /// The last index, at most `cap`, of the run of equal term and subterm that `index` is in.
    pub(super) fn run_end(&self, index: LogIndex, cap: LogIndex, view: &impl LogView) -> Option<LogIndex> {
        let key = self.position(index, view)?.key();
        // Keys never fall along a log.
        self.partition(index, cap.min(self.last), view, key).map(|end| end.index)
    }

    /// The latest position at or below `index` whose term and subterm are at most `key`.
    pub(super) fn latest_at_most(
        &self,
        index: LogIndex,
        key: (Term, Subterm),
        view: &impl LogView,
    ) -> Option<Position> {
        let mut cap = index.min(self.last);
        for run in self.runs.iter().rev() {
            if run.first <= cap && run.key() <= key {
                return Some(run.at(cap));
            }
            cap = cap.min(run.first.prev());
        }
        self.partition(self.base.index, cap, view, key)
    }

    /// The last position of `from..=to` whose term and subterm are at most `key`: they are in a (possibly
    /// empty) front part of it. A look-up per halving.
    fn partition(
        &self,
        from: LogIndex,
        to: LogIndex,
        view: &impl LogView,
        key: (Term, Subterm),
    ) -> Option<Position> {
        let (mut found, mut low, mut beyond) = (None, from.0, to.next().0);
        // Mostly it is the last.
        let mut looked_at = to.0;
        while low < beyond {
            let position = self.position(LogIndex(looked_at), view);
            if let Some(position) = position.filter(|position| position.key() <= key) {
                found = Some(position);
                low = looked_at + 1;
            } else {
                beyond = looked_at;
            }
            looked_at = low + beyond.saturating_sub(low) / 2;
        }
        found
    }

    /// Takes entries that follow the last one.
    pub(super) fn append(&mut self, range: &EntryRange) {
        debug_assert_eq!(range.first, self.last.next());
        self.last = range.last;
        if self.runs.last().is_some_and(|run| run.key() == range.key()) {
            return;
        }
        if self.runs.is_full() {
            self.forget_oldest_run();
        }
        let run = TermRun { term: range.term, subterm: range.subterm, first: range.first };
        let pushed = self.runs.push(run);
        debug_assert!(pushed.is_ok(), "a run was removed if there was no room");
    }

    /// Drops everything after `last`, which is in the log.
    pub(super) fn truncate(&mut self, last: Position) {
        debug_assert!(last.index <= self.last && last.index >= self.base.index);
        self.last = last.index;
        while self.runs.last().is_some_and(|run| run.first > last.index) {
            self.runs.pop();
        }
        if self.runs.is_empty() && last.index > self.base.index {
            self.restart_runs(last);
        }
    }

    /// Forgets what a snapshot covers; entries after it stay.
    pub(super) fn compact(&mut self, base: Position) {
        debug_assert!(base.index <= self.last);
        self.base = base;
        if base.index >= self.last {
            return self.reset(base);
        }
        while self.runs.get(1).is_some_and(|next| next.first <= base.index.next()) {
            self.forget_oldest_run();
        }
        if let Some(oldest) = self.runs.first_mut() {
            oldest.first = oldest.first.max(base.index.next());
        }
    }

    /// Begins anew after a snapshot.
    pub(super) fn reset(&mut self, base: Position) {
        self.base = base;
        self.last = base.index;
        self.runs.clear();
    }

    fn forget_oldest_run(&mut self) {
        for place in 1..self.runs.len() {
            self.runs[place - 1] = self.runs[place];
        }
        self.runs.pop();
    }

    fn restart_runs(&mut self, last: Position) {
        self.last = last.index;
        self.runs.clear();
        let run = TermRun { term: last.term, subterm: last.subterm, first: last.index };
        let pushed = self.runs.push(run);
        debug_assert!(pushed.is_ok(), "one run has room");
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
