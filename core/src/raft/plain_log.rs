//! For tests: a driver's log.

use std::vec::Vec;

use super::*;

/// A driver's log without payloads: every entry has ten bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct PlainLog {
    pub(super) base: Position,
    /// The entries after `base`.
    pub(super) entries: Vec<Position>,
    /// The configurations, ascending: the one at the base, and those of configuration entries.
    pub(super) configurations: Vec<ConfigurationEntry>,
}

impl PlainLog {
    pub(super) fn new(configuration: Configuration, entries: Vec<Position>) -> PlainLog {
        let first = ConfigurationEntry { index: LogIndex::ZERO, configuration };
        PlainLog { base: Position::ZERO, entries, configurations: std::vec![first] }
    }

    /// The configuration that is in the entry at this index.
    pub(super) fn configuration_in(&self, index: LogIndex) -> Option<Configuration> {
        let mut held = self.configurations.iter().filter(|entry| entry.index > self.base.index);
        held.find(|entry| entry.index == index).map(|entry| entry.configuration)
    }

    /// The configuration in force at this index.
    pub(super) fn configuration_at(&self, index: LogIndex) -> Configuration {
        let held = self.configurations.iter().rev().find(|entry| entry.index <= index);
        held.copied().unwrap_or_default().configuration
    }

    pub(super) fn put_configuration(&mut self, index: LogIndex, configuration: Configuration) {
        self.configurations.push(ConfigurationEntry { index, configuration });
    }

    pub(super) fn durable(&self, hard_state: HardState) -> Durable {
        let latest = self.configurations.iter().rev().copied();
        let mut latest = latest.take(2);
        let configuration = latest.next().unwrap_or_default();
        let previous_configuration = latest.next();
        let (snapshot, last) = (self.base, self.last());
        Durable { hard_state, snapshot, last, configuration, previous_configuration }
    }

    pub(super) fn last(&self) -> Position {
        self.entries.last().copied().unwrap_or(self.base)
    }

    pub(super) fn truncate(&mut self, last: LogIndex) {
        self.entries.retain(|entry| entry.index <= last);
        self.configurations.retain(|entry| entry.index <= last);
    }

    pub(super) fn put(&mut self, range: &EntryRange) {
        self.truncate(range.first.prev());
        assert_eq!(self.last().index.next(), range.first, "a gap in the driver's log");
        let entry = |index| Position { index: LogIndex(index), term: range.term, subterm: range.subterm };
        self.entries.extend((range.first.0..=range.last.0).map(entry));
    }

    pub(super) fn reset(&mut self, base: Position, configuration: Configuration) {
        let at_base = ConfigurationEntry { index: base.index, configuration };
        *self = PlainLog { base, entries: Vec::new(), configurations: std::vec![at_base] };
    }

    pub(super) fn compact(&mut self, base: Position) {
        let configuration = self.configuration_at(base.index);
        self.entries.retain(|entry| entry.index > base.index);
        self.configurations.retain(|entry| entry.index > base.index);
        self.configurations.insert(0, ConfigurationEntry { index: base.index, configuration });
        self.base = base;
    }
}

impl LogView for PlainLog {
    fn position(&self, index: LogIndex) -> Option<Position> {
        if index == self.base.index {
            return Some(self.base);
        }
        self.entries.iter().copied().find(|entry| entry.index == index)
    }

    fn fit(&self, first: LogIndex, last: LogIndex, bytes_max: u32) -> (LogIndex, u32) {
        let count = (u64::from(bytes_max) / 10).clamp(1, last.0 - first.0 + 1);
        (LogIndex(first.0 + count - 1), u32::try_from(count * 10).unwrap())
    }
}
