//! One slot: what is pending of its series, window by window.

use std::collections::VecDeque;

use tally_core::id::SeriesName;
use tally_core::report::{Amount, Kind, MergeError};
use tally_core::time::SiteTime;

use super::{NotTaken, Slot};
use crate::deliberate::{self, Bug};
use crate::site::entry::SeriesRef;
use crate::site::{Refusal, SeriesId};

/// Without a quorum a box keeps at most this many windows per series apart; then neighbours merge.
pub(in crate::accumulator) const WINDOWS_APART_MAX: usize = 64;

/// What was counted in one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::accumulator) struct Cell {
    pub(in crate::accumulator) window: SiteTime,
    pub(in crate::accumulator) amount: Amount,
    /// When the latest part of it came, among all that came: of values of the same millisecond the later is the last.
    pub(super) arrival: u64,
}

/// The state of a slot.
#[derive(Debug)]
pub(in crate::accumulator) struct SlotState {
    pub(in crate::accumulator) name: Box<str>,
    pub(super) kind: Kind,
    pub(super) generation: u32,
    /// As the site numbers it, once that is known here.
    pub(in crate::accumulator) series: Option<SeriesId>,
    pub(super) window: SiteTime,
    pub(super) pending: Option<Amount>,
    /// Of what is pending: see `Cell`.
    pub(super) arrival: u64,
    /// Stands in `dirty`.
    pub(super) queued: bool,
    /// Stands in `idle`.
    pub(super) listed: bool,
    /// Is in the batch in flight.
    pub(super) frozen: bool,
    /// Adds of clients that wait for its next batch.
    pub(super) waiting: u32,
    /// Cells of it that the batch that is being frozen has to have room for.
    pub(in crate::accumulator) planned: usize,
    /// What was pending when its window ended before it got into a batch, in the order in which it came.
    pub(super) older: VecDeque<Cell>,
}

impl SlotState {
    pub(super) fn new(name: &str, kind: Kind, generation: u32, series: Option<SeriesId>) -> SlotState {
        SlotState {
            name: name.into(),
            kind,
            generation,
            series,
            window: SiteTime(0),
            pending: None,
            arrival: 0,
            queued: false,
            listed: false,
            frozen: false,
            waiting: 0,
            planned: 0,
            older: VecDeque::new(),
        }
    }

    pub(super) fn slot(&self, index: u32) -> Slot {
        Slot { index, generation: self.generation }
    }

    pub(super) fn is_idle(&self) -> bool {
        // One that is queued still has its place in `dirty`, which another series must not inherit.
        self.pending.is_none() && !self.queued && !self.frozen && self.waiting == 0
    }

    pub(super) fn pending_cell(&self) -> Option<Cell> {
        self.pending.map(|amount| Cell { window: self.window, amount, arrival: self.arrival })
    }

    pub(super) fn put(&mut self, cell: Cell) {
        (self.window, self.pending, self.arrival) = (cell.window, Some(cell.amount), cell.arrival);
    }

    /// Keeps what an ended window came to; beyond the bound the newest neighbours merge.
    pub(super) fn keep_older(&mut self, cell: Cell) -> Result<(), NotTaken> {
        if let Some(same) = self.older.iter_mut().rev().find(|older| older.joins(&cell)) {
            *same = same.merged(cell)?;
            return Ok(());
        }
        if self.older.len() >= WINDOWS_APART_MAX - 1
            && let Some(last) = self.older.back_mut()
            && let Ok(both) = last.merged(cell)
        {
            *last = Cell { window: last.window, ..both };
            return Ok(());
        }
        self.older.push_back(cell);
        Ok(())
    }

    /// How many cells it has.
    pub(in crate::accumulator) fn cells(&self) -> usize {
        self.older.len() + usize::from(self.pending.is_some())
    }

    /// What came first, by what came to it last: two whose times are taken for the same later are still in order.
    pub(super) fn take_cell(&mut self) -> Option<Cell> {
        let pending = self.pending_cell()?;
        let first = (0..self.older.len()).min_by_key(|place| self.older[*place].arrival);
        if let Some(first) = first.filter(|first| self.older[*first].arrival < pending.arrival) {
            return self.older.remove(first);
        }
        self.pending = None;
        if let Some(next) = self.older.pop_back() {
            self.put(next);
        }
        Some(pending)
    }

    /// The reference to a series in a report.
    pub(in crate::accumulator) fn series_ref(&self, kind: Kind) -> SeriesRef<'_> {
        match self.series {
            Some(id) => SeriesRef::Id(id),
            None => SeriesRef::Name(
                SeriesName::new(&self.name).expect("a slot is made from a checked name"),
                kind,
            ),
        }
    }
}

impl Cell {
    /// Whether two can become one.
    pub(super) fn joins(&self, other: &Cell) -> bool {
        self.window == other.window && self.amount.kind() == other.amount.kind()
    }

    /// Both together, in the order in which they came, whichever that is.
    pub(super) fn merged(self, other: Cell) -> Result<Cell, NotTaken> {
        let (first, second) = if self.arrival <= other.arrival { (self, other) } else { (other, self) };
        let (mut earlier, mut later) = (first.amount, second.amount);
        if deliberate::is(Bug::LargestIsLast)
            && let (Amount::Sample(one), Amount::Sample(other)) = (&mut earlier, &mut later)
            && one.last.value > other.last.value
        {
            other.last = one.last;
        }
        match earlier.merged(later) {
            // More values in one cell are refused where it is applied, with all that is in it.
            Ok(Amount::Sample(sample)) if !sample.is_bounded() => Err(NotTaken::Refused(Refusal::Overflow)),
            Ok(amount) => Ok(Cell { window: self.window, amount, arrival: second.arrival }),
            Err(MergeError::Overflow | MergeError::Kinds) => Err(NotTaken::Refused(Refusal::Overflow)),
        }
    }
}
