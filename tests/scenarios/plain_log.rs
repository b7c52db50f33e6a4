//! A driver's log without payloads, except the configurations. Copies share their entries until one is changed.

use std::rc::Rc;

use tally_core::id::LogIndex;
use tally_core::raft::{Configuration, ConfigurationEntry, EntryRange, LogView, Position};

/// Every entry has so many bytes.
pub(crate) const ENTRY_BYTES: u64 = 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlainLog {
    pub(crate) base: Position,
    entries: Rc<Vec<Position>>,
    /// That of the base, or the one the site began with, and those of the entries.
    configurations: Rc<Vec<ConfigurationEntry>>,
}

impl PlainLog {
    /// An empty log that begins after a snapshot; at zero, with the configuration that the site begins with.
    pub(crate) fn after(base: Position, configuration: Configuration) -> PlainLog {
        let at_base = ConfigurationEntry { index: base.index, configuration };
        PlainLog { base, entries: Rc::default(), configurations: Rc::new(vec![at_base]) }
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
            if self.configurations.last().is_some_and(|entry| entry.index > last) {
                Rc::make_mut(&mut self.configurations).retain(|entry| entry.index <= last);
            }
        }
    }

    /// Of a node that has just started: what it knows of configurations.
    pub(crate) fn configurations(&self) -> (ConfigurationEntry, Option<ConfigurationEntry>) {
        let mut latest = self.configurations.iter().rev().copied();
        (latest.next().unwrap_or_default(), latest.next())
    }

    /// The configuration that the entry at this index holds.
    pub(crate) fn configuration_in(&self, index: LogIndex) -> Option<Configuration> {
        let mut held = self.configurations.iter().filter(|entry| entry.index > self.base.index);
        held.find(|entry| entry.index == index).map(|entry| entry.configuration)
    }

    /// The configuration in force at this index.
    pub(crate) fn configuration_at(&self, index: LogIndex) -> ConfigurationEntry {
        self.configurations.iter().rev().find(|entry| entry.index <= index).copied().unwrap_or_default()
    }

    /// The entry at this index, the last one, holds a configuration.
    pub(crate) fn put_configuration(&mut self, index: LogIndex, configuration: Configuration) {
        Rc::make_mut(&mut self.configurations).push(ConfigurationEntry { index, configuration });
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

    /// Puts an entry of a leader's own at the end.
    pub(crate) fn put_own(&mut self, at: Position) {
        self.put(&EntryRange { term: at.term, subterm: at.subterm, first: at.index, last: at.index });
    }

    pub(crate) fn compact(&mut self, base: Position) {
        let mut configurations =
            vec![ConfigurationEntry { index: base.index, ..self.configuration_at(base.index) }];
        configurations.extend(self.configurations.iter().filter(|entry| entry.index > base.index));
        self.configurations = Rc::new(configurations);
        Rc::make_mut(&mut self.entries).retain(|entry| entry.index > base.index);
        self.base = base;
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
