//! The log of a box in memory: what the core sees of it, with the payloads.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::plan::size;
use tally_core::id::LogIndex;
use tally_core::raft::{Configuration, EntryRange, LogView, Position};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) position: Position,
    pub(crate) payload: Rc<[u8]>,
    /// What the payload says, if it is a configuration.
    pub(crate) configuration: Option<Rc<Configuration>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) base: Position,
    entries: VecDeque<Entry>,
    /// How often the core asked for what it does not remember.
    pub(crate) look_ups: Cell<u64>,
}

impl Log {
    pub(crate) fn new(base: Position, entries: impl IntoIterator<Item = Entry>) -> Log {
        let entries = entries.into_iter().filter(|entry| entry.position.index > base.index).collect();
        Log { base, entries, look_ups: Cell::new(0) }
    }

    pub(crate) fn last(&self) -> Position {
        self.entries.back().map_or(self.base, |entry| entry.position)
    }

    pub(crate) fn get(&self, index: LogIndex) -> Option<&Entry> {
        let place = index.0.checked_sub(self.base.index.0 + 1)?;
        self.entries.get(size(place))
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The configurations that are in it, the latest first.
    pub(crate) fn configurations(&self) -> impl Iterator<Item = (LogIndex, &Configuration)> {
        let entries = self.entries.iter().rev();
        entries.filter_map(|entry| Some((entry.position.index, &**entry.configuration.as_ref()?)))
    }

    pub(crate) fn range(&self, first: LogIndex, last: LogIndex) -> Vec<Entry> {
        let entry = |index| self.get(LogIndex(index)).expect("the core names what is in the log").clone();
        (first.0..=last.0).map(entry).collect()
    }

    /// Drops what is after `last`; what that was.
    pub(crate) fn truncate(&mut self, last: LogIndex) -> VecDeque<Entry> {
        let kept = size(last.0.saturating_sub(self.base.index.0)).min(self.entries.len());
        self.entries.split_off(kept)
    }

    pub(crate) fn put(&mut self, entry: Entry) {
        assert_eq!(self.last().index.next(), entry.position.index, "a gap in a log");
        self.entries.push_back(entry);
    }

    pub(crate) fn compact(&mut self, base: Position) {
        while self.entries.front().is_some_and(|entry| entry.position.index <= base.index) {
            self.entries.pop_front();
        }
        self.base = base;
    }
}

impl LogView for Log {
    fn position(&self, index: LogIndex) -> Option<Position> {
        self.look_ups.set(self.look_ups.get() + 1);
        if index == self.base.index { Some(self.base) } else { self.get(index).map(|entry| entry.position) }
    }

    fn fit(&self, first: LogIndex, last: LogIndex, bytes_max: u32) -> (LogIndex, u32) {
        let mut bytes = 0;
        let mut end = first;
        for index in first.0..=last.0 {
            let Some(entry) = self.get(LogIndex(index)) else { break };
            let size = u32::try_from(entry.payload.len()).expect("payloads are small");
            if index > first.0 && bytes + size > bytes_max {
                break;
            }
            bytes += size;
            end = LogIndex(index);
        }
        (end, bytes)
    }
}

/// The entries of a range, with these payloads.
pub(crate) fn entries_of(range: &EntryRange, payloads: impl IntoIterator<Item = Rc<[u8]>>) -> Vec<Entry> {
    let position = |index| Position { index: LogIndex(index), term: range.term, subterm: range.subterm };
    let numbered = (range.first.0..=range.last.0).zip(payloads);
    numbered
        .map(|(index, payload)| Entry { position: position(index), payload, configuration: None })
        .collect()
}
