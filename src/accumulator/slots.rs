//! The series that this box counts, and what is pending of each.
//!
//! A series has a *slot* here. Those that the site knows keep theirs. Of names that the site does not know there are so
//! many at most; when another comes, the one that has been idle longest gives its slot up: nothing is pending of it,
//! nobody waits for it and it is not in the batch in flight. So junk names can fill the table with what is pending, and
//! only until the site has answered.

use std::collections::VecDeque;
use std::mem;

use hashbrown::HashMap;
use tally_core::id::{SERIES_NAME_BYTES_FIRST_MAX, SeriesName};
use tally_core::report::{Amount, Kind, MergeError};
use tally_core::time::SiteTime;

use super::{Limits, RequestError};
use crate::deliberate::{self, Bug};
use crate::site::entry::SeriesRef;
use crate::site::{Refusal, SeriesId, Site};

/// Without a quorum a box keeps at most this many windows per series apart; then neighbours merge.
pub(super) const WINDOWS_APART_MAX: usize = 64;

/// A series as this box counts it. Valid until it is refused as [`NotTaken::Evicted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    index: u32,
    /// How many series had the place before.
    generation: u32,
}

/// Why nothing was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// As the site would refuse it.
    #[error("{0}")]
    Refused(Refusal),
    /// The name has so many bytes, more than it may have while boxes of an older release are members.
    #[error(
        "a series name has at most {SERIES_NAME_BYTES_FIRST_MAX} bytes until all boxes of the site are \
         updated; this one has {0}"
    )]
    LongName(usize),
    /// As many names that the site does not know are here as may be, and something is pending of each.
    #[error("the series is new, and too many new series wait at this box for the site's answer")]
    TooManyNew,
    /// The slot was given to another series: look the name up again.
    #[error("this box has forgotten the series meanwhile")]
    Evicted,
}

/// What the site knows of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The number and the kind of the series.
    Series(SeriesId, Kind),
    /// Nothing; whether there is room for another series.
    Nothing { room: bool },
}

impl Known {
    /// By this box's copy of the site.
    pub(super) fn to(site: &Site, name: &str) -> Known {
        match site.find(name) {
            Some(id) => Known::Series(id, site.kind(id)),
            None => Known::Nothing { room: (site.series_len() as u64) < site.settings().series_max() },
        }
    }
}

impl From<NotTaken> for RequestError {
    fn from(why: NotTaken) -> RequestError {
        match why {
            NotTaken::Refused(refusal) => RequestError::Refused(refusal),
            NotTaken::LongName(bytes) => RequestError::LongName { bytes },
            // A slot is looked up and used under one lock, so it is never evicted in between.
            NotTaken::TooManyNew | NotTaken::Evicted => RequestError::TooManyNew,
        }
    }
}

/// What was counted in one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cell {
    pub(super) window: SiteTime,
    pub(super) amount: Amount,
    /// When the latest part of it came, among all that came: of values of the same millisecond the later is the last.
    arrival: u64,
}

/// All slots.
#[derive(Debug, Default)]
pub(super) struct Slots {
    states: Vec<SlotState>,
    by_name: HashMap<Box<str>, u32>,
    /// How many of them the site does not know.
    unknown: usize,
    /// Slots that may be idle and unknown, in the order in which they came to be that.
    idle: VecDeque<u32>,
    /// Slots in the order in which something came to be pending. Those of which it was taken out of turn are still
    /// here: see `SlotState::queued`.
    dirty: VecDeque<u32>,
    /// Slots with something in `pending`.
    dirty_count: usize,
    /// The last batch had no room for all of them.
    left_over: bool,
    /// Those in the batch in flight.
    frozen: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct SlotState {
    pub(super) name: Box<str>,
    kind: Kind,
    generation: u32,
    /// As the site numbers it, once that is known here.
    pub(super) series: Option<SeriesId>,
    window: SiteTime,
    pending: Option<Amount>,
    /// Of what is pending: see `Cell`.
    arrival: u64,
    /// Stands in `dirty`.
    queued: bool,
    /// Stands in `idle`.
    listed: bool,
    /// Is in the batch in flight.
    frozen: bool,
    /// Adds of clients that wait for its next batch.
    waiting: u32,
    /// Cells of it that the batch that is being frozen has to have room for.
    pub(super) planned: usize,
    /// What was pending when its window ended before it got into a batch, in the order in which it came.
    older: VecDeque<Cell>,
}

impl Slot {
    /// Its place: two slots of different series have the same one at different times only.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

impl Slots {
    /// The slot of a series. `known` tells what the site knows of a name.
    pub(super) fn of(
        &mut self,
        name: SeriesName<'_>,
        kind: Kind,
        limits: &Limits,
        known: impl FnOnce(&str) -> Known,
    ) -> Result<Slot, NotTaken> {
        let name = name.as_str();
        let Some(index) = self.by_name.get(name).copied() else {
            return self.make(name, kind, limits, known);
        };
        let state = &mut self.states[index as usize];
        if state.kind != kind && state.series.is_none() {
            // Of what kind it is only the site can say; what was counted here of another kind may be refused.
            if let Known::Series(id, is) = known(name) {
                (state.series, state.kind) = (Some(id), is);
                self.unknown -= 1;
            } else if state.is_idle() {
                (state.kind, state.generation) = (kind, state.generation.wrapping_add(1));
            }
        }
        let state = &self.states[index as usize];
        if state.kind == kind { Ok(state.slot(index)) } else { Err(wrong_kind(state.kind, kind)) }
    }

    fn make(
        &mut self,
        name: &str,
        kind: Kind,
        limits: &Limits,
        known: impl FnOnce(&str) -> Known,
    ) -> Result<Slot, NotTaken> {
        if name.len() > limits.name_bytes_max {
            return Err(NotTaken::LongName(name.len()));
        }
        let series = match known(name) {
            Known::Series(..) if deliberate::is(Bug::JunkStays) => None,
            Known::Series(_, is) if is != kind => return Err(wrong_kind(is, kind)),
            Known::Series(id, _) => Some(id),
            // What will be refused is not worth an entry of the log.
            Known::Nothing { room: false } => return Err(NotTaken::Refused(Refusal::TooManySeries)),
            Known::Nothing { room: true } => None,
        };
        let evicted = if series.is_none() && self.unknown >= limits.names_max {
            Some(self.evict().ok_or(NotTaken::TooManyNew)?)
        } else {
            None
        };
        let index = match evicted {
            Some(index) => index,
            None => u32::try_from(self.states.len()).map_err(|_| NotTaken::TooManyNew)?,
        };
        let generation = evicted.map_or(0, |index| self.states[index as usize].generation.wrapping_add(1));
        let state = SlotState::new(name, kind, generation, series);
        let slot = state.slot(index);
        match self.states.get_mut(index as usize) {
            Some(place) => *place = state,
            None => self.states.push(state),
        }
        self.by_name.insert(name.into(), index);
        self.unknown += usize::from(series.is_none());
        self.list(index);
        Ok(slot)
    }

    /// Frees the place of the name that has been idle longest, if there is one.
    fn evict(&mut self) -> Option<u32> {
        loop {
            let index = self.idle.pop_front().filter(|_| !deliberate::is(Bug::JunkStays))?;
            let state = &mut self.states[index as usize];
            state.listed = false;
            if state.series.is_none() && state.is_idle() {
                self.by_name.remove(&state.name);
                self.unknown -= 1;
                return Some(index);
            }
            // It is listed again when it is idle.
        }
    }

    /// A slot that may be idle now.
    fn list(&mut self, index: u32) {
        let state = &mut self.states[index as usize];
        if state.series.is_none() && !mem::replace(&mut state.listed, true) {
            self.idle.push_back(index);
        }
    }

    fn get(&mut self, slot: Slot) -> Result<&mut SlotState, NotTaken> {
        let state = self.states.get_mut(slot.index()).filter(|state| state.generation == slot.generation);
        state.ok_or(NotTaken::Evicted)
    }

    /// The name of a slot that was not evicted.
    pub(super) fn name(&self, slot: Slot) -> Option<&str> {
        self.states
            .get(slot.index())
            .filter(|state| state.generation == slot.generation)
            .map(|state| &*state.name)
    }

    /// The site's number of the series, if this box knows it.
    pub(super) fn series(&self, slot: Slot) -> Option<SeriesId> {
        self.states.get(slot.index()).filter(|state| state.generation == slot.generation)?.series
    }

    /// Somebody waits for an add that will be in its next batch.
    pub(super) fn wait(&mut self, slot: Slot) -> Result<(), NotTaken> {
        self.get(slot)?.waiting += 1;
        Ok(())
    }

    /// One of those got into a batch, or was taken back.
    pub(super) fn wait_no_more(&mut self, slot: Slot) {
        if let Ok(state) = self.get(slot) {
            state.waiting = state.waiting.saturating_sub(1);
            self.list(slot.index);
        }
    }

    /// The hot path: `n` more in the window that is open. `false`: not done, see [`Slots::add`].
    #[inline]
    pub(super) fn count(&mut self, slot: Slot, window: SiteTime, n: u64) -> bool {
        if let Some(state) = self.states.get_mut(slot.index())
            && state.generation == slot.generation
            && state.window == window
            && let Some(Amount::Counter(sum)) = &mut state.pending
            && let Some(more) = sum.checked_add(u128::from(n))
        {
            *sum = more;
            return true;
        }
        false
    }

    /// Adds what came as the `arrival`th of all.
    pub(super) fn add(
        &mut self,
        slot: Slot,
        window: SiteTime,
        amount: Amount,
        arrival: u64,
    ) -> Result<(), NotTaken> {
        let state = self.get(slot)?;
        if state.kind != amount.kind() {
            return Err(wrong_kind(state.kind, amount.kind()));
        }
        let cell = Cell { window, amount, arrival };
        let Some(pending) = state.pending_cell() else {
            state.put(cell);
            self.dirty_count += 1;
            let state = &mut self.states[slot.index()];
            if !mem::replace(&mut state.queued, true) {
                self.dirty.push_back(slot.index);
            }
            return Ok(());
        };
        if pending.joins(&cell) {
            let merged = pending.merged(cell)?;
            state.put(merged);
        } else if window < pending.window {
            state.keep_older(cell)?;
        } else {
            state.keep_older(pending)?;
            state.put(cell);
        }
        Ok(())
    }

    /// Slots of which something is pending.
    pub(super) fn dirty_count(&self) -> usize {
        self.dirty_count
    }

    /// Whether the last batch had no room for all.
    pub(super) fn left_over(&self) -> bool {
        self.left_over
    }

    /// The batch is frozen: what it has no room for waits on.
    pub(super) fn froze(&mut self) {
        self.left_over = self.dirty_count > 0;
    }

    /// A slot goes into the batch that is being frozen.
    pub(super) fn freeze(&mut self, slot: Slot) -> Option<&mut SlotState> {
        let state = self.states.get_mut(slot.index()).filter(|state| state.generation == slot.generation)?;
        if !mem::replace(&mut state.frozen, true) {
            self.frozen.push(slot.index);
        }
        Some(state)
    }

    /// The batch in flight is settled; `known` tells what the site knows of a name.
    pub(super) fn settle(&mut self, known: impl Fn(&str) -> Known) {
        for index in mem::take(&mut self.frozen) {
            let state = &mut self.states[index as usize];
            state.frozen = false;
            if state.series.is_none()
                && let Known::Series(id, kind) = known(&state.name)
            {
                // Another box may have made it of another kind meanwhile; what is pending here will
                // be refused where it is applied, what comes now is refused here.
                (state.series, state.kind) = (Some(id), kind);
                self.unknown -= 1;
            }
            self.list(index);
        }
    }

    /// Takes out all cells of a slot, one a call: of whom somebody waits.
    pub(super) fn take_cell_of(&mut self, slot: Slot) -> Option<Cell> {
        let cell = self.get(slot).ok()?.take_cell();
        self.dirty_count -= usize::from(cell.is_some() && self.states[slot.index()].pending.is_none());
        cell
    }

    /// Removes and returns the next cell, of the slot that has waited longest.
    pub(super) fn take_cell(&mut self) -> Option<(Slot, Cell)> {
        loop {
            let index = *self.dirty.front()?;
            let state = &mut self.states[index as usize];
            let cell = state.take_cell();
            let slot = state.slot(index);
            if state.pending.is_none() {
                self.dirty.pop_front();
                state.queued = false;
                self.dirty_count -= usize::from(cell.is_some());
            }
            match cell {
                Some(cell) => return Some((slot, cell)),
                // Its cells went out of turn, with somebody who waited for one.
                None => self.list(index),
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_clean(&self) -> bool {
        self.dirty.is_empty() && self.dirty_count == 0
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.states.len()
    }
}

impl SlotState {
    fn new(name: &str, kind: Kind, generation: u32, series: Option<SeriesId>) -> SlotState {
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

    fn slot(&self, index: u32) -> Slot {
        Slot { index, generation: self.generation }
    }

    fn is_idle(&self) -> bool {
        // One that is queued still has its place in `dirty`, which another series must not inherit.
        self.pending.is_none() && !self.queued && !self.frozen && self.waiting == 0
    }

    fn pending_cell(&self) -> Option<Cell> {
        self.pending.map(|amount| Cell { window: self.window, amount, arrival: self.arrival })
    }

    fn put(&mut self, cell: Cell) {
        (self.window, self.pending, self.arrival) = (cell.window, Some(cell.amount), cell.arrival);
    }

    /// Keeps what an ended window came to; beyond the bound the newest neighbours merge.
    fn keep_older(&mut self, cell: Cell) -> Result<(), NotTaken> {
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
    pub(super) fn cells(&self) -> usize {
        self.older.len() + usize::from(self.pending.is_some())
    }

    /// What came first, by what came to it last: two whose times are taken for the same later are still in order.
    fn take_cell(&mut self) -> Option<Cell> {
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
    pub(super) fn series_ref(&self, kind: Kind) -> SeriesRef<'_> {
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
    fn joins(&self, other: &Cell) -> bool {
        self.window == other.window && self.amount.kind() == other.amount.kind()
    }

    /// Both together, in the order in which they came, whichever that is.
    fn merged(self, other: Cell) -> Result<Cell, NotTaken> {
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

fn wrong_kind(is: Kind, asked: Kind) -> NotTaken {
    NotTaken::Refused(Refusal::WrongKind { is, asked })
}
