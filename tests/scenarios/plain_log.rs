//! A driver's log without payloads. Copies share their entries until one is changed.

use std::hash::{Hash, Hasher};
use std::rc::Rc;

use tally_core::id::LogIndex;
use tally_core::raft::{EntryRange, LogView, Position};

/// Every entry has so many bytes.
pub(crate) const ENTRY_BYTES: u64 = 10;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlainLog {
    pub(crate) base: Position,
    entries: Rc<Vec<Position>>,
}

impl PlainLog {
    /// An empty log that begins after a snapshot.
    pub(crate) fn after(base: Position) -> PlainLog {
        PlainLog { base, entries: Rc::default() }
    }

    pub(crate) fn last(&self) -> Position {
        self.entries.last().copied().unwrap_or(self.base)
    }

    pub(crate) fn entries(&self) -> &[Position] {
        &self.entries
    }

    pub(crate) fn get(&self, index: LogIndex) -> Option<Position> {
        let place = index.0.checked_sub(self.base.index.0 + 1)?;
        self.entries.get(usize::try_from(place).ok()?).copied()
    }

    pub(crate) fn range(&self, first: LogIndex, last: LogIndex) -> Vec<Position> {
        let entry = |index| self.get(LogIndex(index)).expect("the core names what is in the log");
        (first.0..=last.0).map(entry).collect()
    }

    pub(crate) fn truncate(&mut self, last: LogIndex) {
        if self.last().index > last {
            Rc::make_mut(&mut self.entries).retain(|entry| entry.index <= last);
        }
    }

    pub(crate) fn push(&mut self, entry: Position) {
        assert_eq!(self.last().index.next(), entry.index, "a gap in a log");
        Rc::make_mut(&mut self.entries).push(entry);
    }

    /// Puts the entries in; what stood there and after is dropped.
    pub(crate) fn put(&mut self, range: &EntryRange) {
        self.truncate(range.first.prev());
        for index in range.first.0..=range.last.0 {
            self.push(Position { index: LogIndex(index), term: range.term, subterm: range.subterm });
        }
    }

    pub(crate) fn compact(&mut self, base: Position) {
        Rc::make_mut(&mut self.entries).retain(|entry| entry.index > base.index);
        self.base = base;
    }
}

impl Hash for PlainLog {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.base.hash(hasher);
        self.entries.hash(hasher);
    }
}

impl LogView for PlainLog {
    fn position(&self, index: LogIndex) -> Option<Position> {
        if index == self.base.index { Some(self.base) } else { self.get(index) }
    }

    fn fit(&self, first: LogIndex, last: LogIndex, bytes_max: u32) -> (LogIndex, u32) {
        let entry = u32::try_from(ENTRY_BYTES).expect("entries are small");
        let most = u32::try_from(last.0 - first.0 + 1).unwrap_or(u32::MAX);
        let count = (bytes_max / entry).clamp(1, most);
        (LogIndex(first.0 + u64::from(count) - 1), count * entry)
    }
}
