//! The part of the log that is in memory: the newest entries with their payloads, and the terms and sizes of all
//! entries since the snapshot. The core looks entries up here.

use std::collections::VecDeque;

use bytes::Bytes;
use tally_core::id::{LogIndex, Subterm, Term};
use tally_core::raft::{EntryRange, LogView, Position};

use crate::storage::Entry;

/// How many bytes of payload stay in memory for followers that are slightly behind.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// The log in memory. Indexes `after.index + 1 ..= last` exist; of these the newest have payloads.
#[derive(Debug)]
pub(super) struct Tail {
    /// The position right before the first entry that is known here.
    after: Position,
    /// Terms, each from its first index on.
    runs: VecDeque<TailRun>,
    /// Payload bytes of each entry, oldest first.
    sizes: VecDeque<u32>,
    /// The newest payloads.
    payloads: VecDeque<Bytes>,
    payload_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct TailRun {
    first: LogIndex,
    term: Term,
    subterm: Subterm,
}

impl Tail {
    /// A log that begins after `after` and has these entries.
    pub(super) fn new(after: Position, entries: Vec<Entry>) -> Tail {
        let mut tail = Tail {
            after,
            runs: VecDeque::new(),
            sizes: VecDeque::new(),
            payloads: VecDeque::new(),
            payload_bytes: 0,
        };
        for entry in entries {
            tail.push(entry.position, entry.payload);
        }
        tail
    }

    /// The last index.
    pub(super) fn last(&self) -> LogIndex {
        LogIndex(self.after.index.0 + self.sizes.len() as u64)
    }

    /// The first index whose payload is here; one beyond the last if none is.
    pub(super) fn first_payload(&self) -> LogIndex {
        LogIndex(self.last().0 - self.payloads.len() as u64 + 1)
    }

    /// Appends one entry at the end.
    pub(super) fn push(&mut self, position: Position, payload: Bytes) {
        debug_assert_eq!(position.index, self.last().next());
        let run = TailRun { first: position.index, term: position.term, subterm: position.subterm };
        if self.runs.back().is_none_or(|last| (last.term, last.subterm) != (run.term, run.subterm)) {
            self.runs.push_back(run);
        }
        // A payload is bounded far below 4 GiB on every way in.
        self.sizes.push_back(payload.len() as u32);
        self.payload_bytes += payload.len();
        self.payloads.push_back(payload);
    }

    /// Puts entries of one range in, dropping what was at or after its first index.
    pub(super) fn replace_from(&mut self, range: EntryRange, payloads: impl Iterator<Item = Bytes>) {
        self.truncate_after(range.first.prev());
        for (offset, payload) in payloads.enumerate() {
            let index = LogIndex(range.first.0 + offset as u64);
            self.push(Position { index, term: range.term, subterm: range.subterm }, payload);
        }
        debug_assert_eq!(self.last(), range.last);
    }

    fn truncate_after(&mut self, index: LogIndex) {
        while self.last() > index && !self.sizes.is_empty() {
            self.sizes.pop_back();
            if let Some(payload) = self.payloads.pop_back() {
                self.payload_bytes -= payload.len();
            }
        }
        while self.runs.back().is_some_and(|run| run.first > index) {
            self.runs.pop_back();
        }
    }

    /// Whether the entries after this index take more than so many bytes of memory.
    pub(super) fn takes_more_than(&self, bytes: usize, index: LogIndex) -> bool {
        // Seldom; then the entries are looked at, of which there can be many.
        self.payload_bytes > bytes && {
            let count = usize::try_from(self.last().0.saturating_sub(index.0)).unwrap_or(usize::MAX);
            self.sizes.iter().rev().take(count).map(|size| *size as usize).sum::<usize>() > bytes
        }
    }

    /// The payload of an entry, if it is in memory.
    pub(super) fn payload(&self, index: LogIndex) -> Option<&Bytes> {
        let place = index.0.checked_sub(self.first_payload().0)?;
        self.payloads.get(usize::try_from(place).ok()?)
    }

    /// Entries `first..=last`, if all of their payloads are in memory.
    pub(super) fn entries(&self, first: LogIndex, last: LogIndex) -> Option<Vec<Entry>> {
        (first.0..=last.0)
            .map(|index| {
                let index = LogIndex(index);
                Some(Entry { position: self.position(index)?, payload: self.payload(index)?.clone() })
            })
            .collect()
    }

    /// Lets go of payloads that are applied and durable, the oldest first, down to the bound.
    pub(super) fn shrink(&mut self, done: LogIndex) {
        while self.payload_bytes > KEPT_BYTES_MAX && self.first_payload() <= done {
            let Some(payload) = self.payloads.pop_front() else { return };
            self.payload_bytes -= payload.len();
        }
    }

    /// Forgets everything up to an index whose entries a snapshot covers.
    pub(super) fn forget_through(&mut self, index: LogIndex) {
        let Some(after) = self.position(index) else { return };
        while self.after.index < index {
            if self.payloads.len() == self.sizes.len()
                && let Some(payload) = self.payloads.pop_front()
            {
                self.payload_bytes -= payload.len();
            }
            self.sizes.pop_front();
            self.after.index = self.after.index.next();
        }
        self.after = after;
        while self.runs.get(1).is_some_and(|next| next.first <= index.next()) {
            self.runs.pop_front();
        }
        if self.sizes.is_empty() {
            self.runs.clear();
        }
    }
}

impl LogView for Tail {
    fn position(&self, index: LogIndex) -> Option<Position> {
        if index == self.after.index {
            return Some(self.after);
        }
        if index < self.after.index || index > self.last() {
            return None;
        }
        let after = self.runs.partition_point(|run| run.first <= index);
        let run = self.runs.get(after.checked_sub(1)?)?;
        Some(Position { index, term: run.term, subterm: run.subterm })
    }

    fn fit(&self, first: LogIndex, last: LogIndex, bytes_max: u32) -> (LogIndex, u32) {
        let place = first.0.saturating_sub(self.after.index.0 + 1) as usize;
        let mut bytes = self.sizes.get(place).copied().unwrap_or(0);
        let mut end = first;
        while end < last {
            let next = self.sizes.get(place + (end.0 - first.0) as usize + 1).copied().unwrap_or(0);
            if bytes.saturating_add(next) > bytes_max {
                break;
            }
            bytes += next;
            end = end.next();
        }
        (end, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn position(index: u64, term: u64) -> Position {
        Position { index: LogIndex(index), term: Term(term), subterm: Subterm(0) }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_list(
            steps in prop::collection::vec((0u8..3, 0u64..6, 1usize..5), 1..60),
        ) {
            let mut list: Vec<(u64, u64)> = Vec::new();
            let mut first = 1u64;
            let mut term = 1;
            let mut tail = Tail::new(Position::ZERO, Vec::new());
            for (what, back, count) in steps {
                let last = first - 1 + list.len() as u64;
                match what {
                    0 => {
                        // A new leader overwrites the end.
                        term += 1;
                        let from = last.saturating_sub(back).max(first - 1) + 1;
                        list.truncate((from - first) as usize);
                        let range = EntryRange {
                            term: Term(term),
                            subterm: Subterm(0),
                            first: LogIndex(from),
                            last: LogIndex(from + count as u64 - 1),
                        };
                        let payloads = (0..count).map(|size| Bytes::from(vec![0; size]));
                        tail.replace_from(range, payloads);
                        list.extend((0..count).map(|size| (term, size as u64)));
                    }
                    1 => {
                        let through = last.saturating_sub(back).max(first - 1);
                        tail.forget_through(LogIndex(through));
                        list.drain(..(through + 1 - first) as usize);
                        first = through + 1;
                    }
                    _ => {
                        tail.push(position(last + 1, term), Bytes::from(vec![0; count]));
                        list.push((term, count as u64));
                    }
                }
                let last = first - 1 + list.len() as u64;
                prop_assert_eq!(tail.last(), LogIndex(last));
                for (place, (term, size)) in list.iter().enumerate() {
                    let index = first + place as u64;
                    prop_assert_eq!(tail.position(LogIndex(index)), Some(position(index, *term)));
                    prop_assert_eq!(tail.payload(LogIndex(index)).map(Bytes::len), Some(*size as usize));
                }
                prop_assert_eq!(tail.position(LogIndex(last + 1)), None);
                let (end, bytes) = tail.fit(LogIndex(first), LogIndex(last.max(first)), 6);
                let taken: u64 = list.iter().take((end.0 + 1 - first) as usize).map(|(_, size)| size).sum();
                prop_assert_eq!(u64::from(bytes), taken);
                prop_assert!(bytes <= 6 || end.0 == first);
            }
        }
    }

    #[test]
    fn what_is_not_durable_is_bounded_whatever_is_durable() {
        let mut tail = Tail::new(Position::ZERO, Vec::new());
        for index in 1..=100 {
            tail.push(position(index, 1), Bytes::from(vec![0; 10]));
        }
        assert!(tail.takes_more_than(99, LogIndex(90)) && !tail.takes_more_than(100, LogIndex(90)));
        assert!(tail.takes_more_than(999, LogIndex(0)) && !tail.takes_more_than(1000, LogIndex(0)));
        assert!(!tail.takes_more_than(0, LogIndex(100)) && !tail.takes_more_than(0, LogIndex(200)));
    }

    #[test]
    fn old_payloads_go_and_their_terms_stay() {
        let mut tail = Tail::new(Position::ZERO, Vec::new());
        for index in 1..=5 {
            tail.push(position(index, 1), Bytes::from(vec![0; 1 << 20]));
        }
        tail.shrink(LogIndex(2));
        assert_eq!(tail.first_payload(), LogIndex(3));
        assert_eq!(tail.position(LogIndex(1)), Some(position(1, 1)));
        assert_eq!(tail.entries(LogIndex(2), LogIndex(3)), None);
        assert_eq!(tail.entries(LogIndex(3), LogIndex(5)).unwrap().len(), 3);
    }
}
