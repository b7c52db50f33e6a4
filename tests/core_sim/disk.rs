//! A box's disk: what was synced stays, what was not may be lost or torn.

use std::rc::Rc;

use tally_core::id::LogIndex;
use tally_core::raft::{Configuration, ConfigurationEntry, Durable, HardState, Persist, Position};

use crate::log::{Entry, Log};
use crate::plan::Micros;
use crate::rng::Rng;

/// The state up to some entry.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) last: Position,
    pub(crate) bytes: Box<[u8]>,
    /// The configuration in force there; `None` as long as it is the one that the site began with.
    pub(crate) configuration: Option<Configuration>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) snapshot: Option<Rc<Snapshot>>,
    pub(crate) log: Log,
    /// Groups fail while this is set.
    pub(crate) fails: bool,
    /// Syncs take this many times as long.
    pub(crate) slowness: u64,
    /// Until then no sync ends.
    pub(crate) hangs_until: Micros,
}

/// A group on its way to the disk, with what it writes.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) persist: Persist,
    pub(crate) entries: Vec<Entry>,
    /// The snapshot that replaces the log.
    pub(crate) reset: Option<Rc<Snapshot>>,
}

impl Write {
    /// The single records of the group, in order.
    fn records(&self) -> u64 {
        let parts =
            [self.persist.hard_state.is_some(), self.reset.is_some(), self.persist.truncate_after.is_some()];
        parts.into_iter().map(u64::from).sum::<u64>() + self.entries.len() as u64
    }
}

impl Disk {
    /// What a start finds; `first` is the configuration that the box began with.
    pub(crate) fn durable(&self, first: &Configuration) -> Durable {
        let snapshot = self.snapshot.as_ref().map_or(Position::ZERO, |snapshot| snapshot.last);
        let brought = self.snapshot.as_ref().and_then(|snapshot| snapshot.configuration);
        let mut configuration = match brought {
            Some(configuration) => ConfigurationEntry { index: snapshot.index, configuration },
            None => ConfigurationEntry { index: LogIndex::ZERO, configuration: *first },
        };
        let mut previous_configuration = None;
        for entry in self.log.entries().filter(|entry| entry.position.index > snapshot.index) {
            if let Some(held) = &entry.configuration {
                previous_configuration = Some(configuration);
                configuration = ConfigurationEntry { index: entry.position.index, configuration: **held };
            }
        }
        Durable {
            hard_state: self.hard_state,
            snapshot,
            last: self.end(),
            configuration,
            previous_configuration,
        }
    }

    /// The whole group is synced.
    pub(crate) fn sync(&mut self, write: &Write) {
        self.write(write, write.records());
    }

    /// A crash or an error in the middle: some of the group may be there. Whether anything is lost.
    pub(crate) fn tear(&mut self, write: &Write, rng: &mut Rng) -> bool {
        let records = rng.between(0, write.records());
        self.write(write, records);
        records > 0 && records < write.records()
    }

    /// Whether this entry is durable here, in the log or in the snapshot.
    pub(crate) fn holds(&self, position: Position) -> bool {
        let in_snapshot =
            self.snapshot.as_ref().is_some_and(|snapshot| snapshot.last.index >= position.index);
        in_snapshot || self.log.get(position.index).is_some_and(|entry| entry.position == position)
    }

    /// The end of what is durable.
    pub(crate) fn end(&self) -> Position {
        let snapshot = self.snapshot.as_ref().map_or(Position::ZERO, |snapshot| snapshot.last);
        let last = self.log.last();
        if last.index > snapshot.index { last } else { snapshot }
    }

    fn write(&mut self, write: &Write, mut records: u64) {
        let mut next = || {
            let there = records > 0;
            records = records.saturating_sub(1);
            there
        };
        if let Some(hard_state) = write.persist.hard_state
            && next()
        {
            self.hard_state = hard_state;
        }
        if let Some(snapshot) = &write.reset
            && next()
        {
            self.snapshot = Some(Rc::clone(snapshot));
            self.log = Log::new(snapshot.last, []);
        }
        if let Some(last) = write.persist.truncate_after
            && next()
        {
            let _ = self.log.truncate(last);
        }
        for entry in &write.entries {
            if !next() {
                return;
            }
            self.log.put(entry.clone());
        }
    }
}
