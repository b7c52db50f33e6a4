//! Names that series had: removed ones, and the old names of renamed ones.
//!
//! A name that left goes on in two ways. Its *departure* waits until the broker has what was counted under it and the
//! retained total is cleared there: a leader does that ([`super::entry::cleared`]), whichever leads then. And the name
//! is remembered, so that an amount of before it left does not bring it back.

use std::collections::{BTreeMap, VecDeque};

use super::digest::mix_bytes;
use crate::codec::{Malformed, Reader, put_bytes};

/// How many names that left are remembered apart. Beyond, the oldest are forgotten, and no amount of a box that knew
/// of none later makes a series.
const NAMES_MAX: usize = 65_536;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Departures {
    /// How many names ever left, in so many entries.
    changes: u32,
    last_id: u64,
    waiting: BTreeMap<u64, Departure>,
    /// How many of them are old names of renamed ones.
    renamed: usize,
    /// By a hash of the name: which change took it, and the site time of that.
    names: BTreeMap<u64, Gone>,
    /// The same names by change.
    order: VecDeque<(u32, u64)>,
    /// The latest change of which a name was forgotten.
    forgotten: u32,
}

/// A name that is to be cleared at the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Departure {
    pub(super) series: u32,
    pub(super) name: Box<str>,
    /// The series goes on under another name: numbers up to here are published under this one. `None`: it was removed.
    pub(super) until: Option<u64>,
    /// A number of another series of this name was given meanwhile: the retained total is that one's, or will be.
    pub(super) is_overtaken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gone {
    change: u32,
    at: u64,
}

impl Departures {
    /// How many changes there were: what a report says of the state that its box knew.
    pub(super) const fn changes(&self) -> u32 {
        self.changes
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = (u64, &Departure)> {
        self.waiting.iter().map(|(id, departure)| (*id, departure))
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn get(&self, id: u64) -> Option<&Departure> {
        self.waiting.get(&id)
    }

    /// Names leave from now on, by another entry.
    pub(super) fn change(&mut self) {
        self.changes = self.changes.saturating_add(1);
    }

    /// A name leaves at a site time.
    pub(super) fn leave(&mut self, seed: u64, series: u32, name: &str, until: Option<u64>, at: u64) {
        self.last_id += 1;
        let departure = Departure { series, name: name.into(), until, is_overtaken: false };
        self.renamed += usize::from(until.is_some());
        self.waiting.insert(self.last_id, departure);
        let (hash, change) = (hash(seed, name), self.changes);
        self.names.insert(hash, Gone { change, at });
        self.order.push_back((change, hash));
        while self.order.len() > NAMES_MAX
            && let Some((change, hash)) = self.order.pop_front()
        {
            if self.names.get(&hash).is_some_and(|gone| gone.change == change) {
                self.names.remove(&hash);
                self.forgotten = change;
            }
        }
    }

    /// The broker has nothing of it any more.
    pub(super) fn clear(&mut self, id: u64) -> Option<Departure> {
        let gone = self.waiting.remove(&id)?;
        self.renamed -= usize::from(gone.until.is_some());
        Some(gone)
    }

    /// A series of this name got a number that makes a retained total.
    pub(super) fn overtake(&mut self, seed: u64, name: &str, seq: u64) {
        // One of a forgotten name stays: that name's total is cleared, and told again with its next summary.
        if !self.names.contains_key(&hash(seed, name)) {
            return;
        }
        for departure in self.waiting.values_mut().filter(|departure| &*departure.name == name) {
            departure.is_overtaken |= departure.until.is_none_or(|until| seq > until);
        }
    }

    /// The name under which a number of a series is published, if that is not its present one.
    pub(super) fn name_at(&self, series: u32, seq: u64) -> Option<&str> {
        if self.renamed == 0 {
            return None;
        }
        let of = |departure: &&Departure| {
            departure.series == series && departure.until.is_some_and(|until| seq <= until)
        };
        self.waiting.values().find(of).map(|departure| &*departure.name)
    }

    /// Whether a name left after the change that somebody knew of, as far as is remembered.
    pub(super) fn has_left_since(&self, seed: u64, name: &str, as_of: u32) -> bool {
        if self.changes <= as_of {
            return false;
        }
        match self.names.get(&hash(seed, name)) {
            Some(gone) => as_of < gone.change,
            None => as_of < self.forgotten,
        }
    }

    /// For a site that knows no source of its past: what is to be cleared at the broker, but not what left when.
    pub(super) fn without_memory(self) -> Departures {
        Departures { names: BTreeMap::new(), order: VecDeque::new(), forgotten: 0, ..self }
    }

    /// When the name left last, site time.
    pub(super) fn left_at(&self, seed: u64, name: &str) -> Option<u64> {
        if self.names.is_empty() { None } else { self.names.get(&hash(seed, name)).map(|gone| gone.at) }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.changes.to_le_bytes());
        out.extend_from_slice(&self.forgotten.to_le_bytes());
        out.extend_from_slice(&self.last_id.to_le_bytes());
        out.extend_from_slice(&(self.waiting.len() as u32).to_le_bytes());
        for (id, departure) in &self.waiting {
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&departure.series.to_le_bytes());
            put_bytes(out, departure.name.as_bytes());
            out.extend_from_slice(&departure.until.unwrap_or(u64::MAX).to_le_bytes());
            out.push(u8::from(departure.is_overtaken));
        }
        out.extend_from_slice(&(self.order.len() as u32).to_le_bytes());
        for (change, hash) in &self.order {
            // One that left again stands for nothing here, and keeps its place.
            let at =
                self.names.get(hash).filter(|gone| gone.change == *change).map_or(u64::MAX, |gone| gone.at);
            out.extend_from_slice(&change.to_le_bytes());
            out.extend_from_slice(&hash.to_le_bytes());
            out.extend_from_slice(&at.to_le_bytes());
        }
    }

    /// `state` tells of a series whether it is in use; `None`: it is vacant, or there is none of that id.
    pub(super) fn read(
        reader: &mut Reader<'_>,
        state: impl Fn(u32) -> Option<bool>,
    ) -> Result<Departures, Malformed> {
        let mut all =
            Departures { changes: reader.u32()?, forgotten: reader.u32()?, ..Departures::default() };
        all.last_id = reader.u64()?;
        for _ in 0..reader.u32()? {
            let (id, series) = (reader.u64()?, reader.u32()?);
            let name: Box<str> = reader.text()?.into();
            let until = Some(reader.u64()?).filter(|until| *until != u64::MAX);
            let is_overtaken = reader.bool()?;
            let is_after = all.waiting.last_key_value().is_none_or(|(last, _)| *last < id);
            // A series that was renamed may have been removed since; not the other way round.
            let is_known = state(series).is_some_and(|is_live| until.is_some() || !is_live);
            if !is_after || id > all.last_id || !is_known {
                return Err(Malformed);
            }
            all.renamed += usize::from(until.is_some());
            all.waiting.insert(id, Departure { series, name, until, is_overtaken });
        }
        let count = reader.u32()?;
        if count as usize > NAMES_MAX {
            return Err(Malformed);
        }
        for _ in 0..count {
            let (change, hash, at) = (reader.u32()?, reader.u64()?, reader.u64()?);
            if change > all.changes || all.order.back().is_some_and(|(last, _)| *last > change) {
                return Err(Malformed);
            }
            all.order.push_back((change, hash));
            if at != u64::MAX {
                all.names.insert(hash, Gone { change, at });
            }
        }
        Ok(all)
    }
}

fn hash(seed: u64, name: &str) -> u64 {
    mix_bytes(seed, name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_names_are_forgotten_and_then_nobody_who_knew_of_none_later_makes_one() {
        let mut all = Departures::default();
        for n in 0..NAMES_MAX as u32 + 10 {
            all.change();
            all.leave(7, n, &format!("s{n}"), None, u64::from(n));
        }
        assert_eq!((all.order.len(), all.names.len(), all.forgotten), (NAMES_MAX, NAMES_MAX, 10));
        assert!(all.has_left_since(7, "s5000", 5000) && !all.has_left_since(7, "s5000", 5001));
        assert!(all.has_left_since(7, "never", 9) && !all.has_left_since(7, "never", 10));
        assert_eq!((all.left_at(7, "s5000"), all.left_at(7, "s3")), (Some(5000), None));
    }

    #[test]
    fn a_snapshot_comes_back_with_a_name_that_left_twice() {
        let mut all = Departures::default();
        for (name, until) in [("a", None), ("b", Some(7)), ("a", None)] {
            all.change();
            all.leave(7, 0, name, until, 5);
        }
        all.overtake(7, "b", 7);
        assert!(!all.get(2).unwrap().is_overtaken, "it is that very number");
        all.overtake(7, "b", 8);
        all.clear(1);
        let mut bytes = Vec::new();
        all.put(&mut bytes);
        let read = Departures::read(&mut Reader::new(&bytes), |_| Some(false)).unwrap();
        let mut again = Vec::new();
        read.put(&mut again);
        assert_eq!(again, bytes);
        assert_eq!(read.names, all.names);
        assert!(Departures::read(&mut Reader::new(&bytes), |_| None).is_err());
        assert!(Departures::read(&mut Reader::new(&bytes), |_| Some(true)).is_err());
        assert_eq!((all.name_at(0, 7), all.name_at(0, 8), all.name_at(1, 7)), (Some("b"), None, None));
    }
}
