//! The index of the log in memory: which entry is where. It is the same after writing and after recovery.

use std::collections::VecDeque;

use tally_core::id::{LogIndex, Subterm, Term};
use tally_core::raft::Position;

use super::Entry;

/// Where a group with entries lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    /// Its first entry. It holds live entries up to the one before the next spot's first.
    pub(super) first: LogIndex,
    /// The number of its segment.
    pub(super) segment: u64,
    /// Where in the segment's file, in bytes.
    pub(super) offset: u64,
    /// How long without padding, in bytes.
    pub(super) bytes: u32,
}

/// Entries from `first` on are of this term and subterm.
#[derive(Clone, Copy, Debug)]
struct IndexRun {
    first: LogIndex,
    term: Term,
    subterm: Subterm,
}

/// The extent of the log, its terms, and its groups.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The position before the first entry.
    base: Position,
    last: Position,
    spots: VecDeque<Spot>,
    runs: VecDeque<IndexRun>,
}

impl Index {
    /// An empty log after that position.
    pub(super) fn new(base: Position) -> Index {
        Index { base, last: base, ..Index::default() }
    }

    pub(super) fn base(&self) -> Position {
        self.base
    }

    pub(super) fn last(&self) -> Position {
        self.last
    }

    /// The position of an entry that is there, or of the one before the first.
    pub(super) fn position(&self, index: LogIndex) -> Option<Position> {
        if index == self.base.index {
            return Some(self.base);
        }
        if index < self.base.index || index > self.last.index {
            return None;
        }
        let at = self.runs.partition_point(|run| run.first <= index);
        let run = self.runs.get(at.checked_sub(1)?)?;
        Some(Position { index, term: run.term, subterm: run.subterm })
    }

    /// Drops the entries after `to`, which may lie before the first (they were compacted away).
    pub(super) fn truncate(&mut self, to: Position) {
        while self.spots.back().is_some_and(|spot| spot.first > to.index) {
            self.spots.pop_back();
        }
        while self.runs.back().is_some_and(|run| run.first > to.index) {
            self.runs.pop_back();
        }
        if to.index < self.base.index {
            self.base = to;
        }
        self.last = to;
    }

    /// Forgets everything; the log goes on after `to`.
    pub(super) fn reset(&mut self, to: Position) {
        *self = Index::new(to);
    }

    /// Takes the entries of a group that follow the log's end.
    pub(super) fn append(&mut self, spot: Spot, entries: &[Entry]) {
        if entries.is_empty() {
            return;
        }
        self.spots.push_back(spot);
        for entry in entries {
            let Position { index, term, subterm } = entry.position;
            if self.runs.back().is_none_or(|run| run.term != term || run.subterm != subterm) {
                self.runs.push_back(IndexRun { first: index, term, subterm });
            }
            self.last = entry.position;
        }
    }

    /// The spot that holds the entry, its first and its last live entry.
    pub(super) fn find(&self, index: LogIndex) -> Option<(Spot, LogIndex)> {
        if index <= self.base.index || index > self.last.index {
            return None;
        }
        let at = self.spots.partition_point(|spot| spot.first <= index);
        let spot = *self.spots.get(at.checked_sub(1)?)?;
        let end = self.spots.get(at).map_or(self.last.index, |next| next.first.prev());
        Some((spot, end))
    }

    /// The last live entry in the segments up to that number.
    pub(super) fn end_of_segment(&self, number: u64) -> LogIndex {
        let at = self.spots.partition_point(|spot| spot.segment <= number);
        self.spots.get(at).map_or(self.last.index, |next| next.first.prev())
    }

    /// Whether there are live entries in the segments up to that number.
    pub(super) fn begins_in_segment(&self, number: u64) -> bool {
        self.spots.front().is_some_and(|spot| spot.segment <= number)
    }

    /// Forgets what lies in the segments up to that number.
    pub(super) fn drop_segment(&mut self, number: u64) {
        let end = self.end_of_segment(number);
        let Some(base) = self.position(end) else { return };
        while self.spots.front().is_some_and(|spot| spot.segment <= number) {
            self.spots.pop_front();
        }
        while self.runs.get(1).is_some_and(|run| run.first <= end.next()) {
            self.runs.pop_front();
        }
        if end == self.last.index {
            self.runs.clear();
        }
        self.base = base;
    }

    /// Bytes of the groups that begin after that index.
    pub(super) fn bytes_after(&self, index: LogIndex) -> u64 {
        let newer = self.spots.iter().rev().take_while(|spot| spot.first > index);
        newer.map(|spot| u64::from(spot.bytes).next_multiple_of(super::BLOCK_BYTES as u64)).sum()
    }
}
