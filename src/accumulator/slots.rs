//! The series that this box counts, and what is pending of each.
//!
//! A series has a *slot* here. Those that the site knows keep theirs. Of names that the site does not know there are so
//! many at most; when another comes, the one that has been idle longest gives its slot up: nothing is pending of it,
//! nobody waits for it and it is not in the batch in flight. So junk names can fill the table with what is pending, and
//! only until the site has answered.

mod state;

use std::collections::VecDeque;
use std::mem;

use hashbrown::HashMap;
use tally_core::id::{SERIES_NAME_BYTES_FIRST_MAX, SeriesName};
use tally_core::report::{Amount, Kind};
use tally_core::time::SiteTime;

#[cfg(test)]
pub(super) use state::WINDOWS_APART_MAX;
pub(super) use state::{Cell, SlotState};

use super::{Limits, RequestError};
use crate::deliberate::{self, Bug};
use crate::site::{Refusal, SeriesId, Site};

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

/// What was counted under a name that its series has no more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Orphan {
    pub(super) id: SeriesId,
    pub(super) cell: Cell,
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

impl Slot {
    /// No slot at all.
    pub(super) const NONE: Slot = Slot { index: u32::MAX, generation: 0 };

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

    /// Names left since this box knew of so many changes of names. What was counted for a series that was removed goes
    /// with it; returns how many cells that were. What was counted for one that was renamed is still that one's: see
    /// [`Orphan`].
    pub(super) fn follow_names(&mut self, site: &Site, as_of: u32, orphans: &mut Vec<Orphan>) -> u64 {
        let mut lost = 0;
        for index in 0..self.states.len() as u32 {
            let state = &mut self.states[index as usize];
            let stays = match state.series {
                Some(id) => site.find(&state.name) == Some(id) && site.is_still(id, as_of),
                None => !site.has_left_since(&state.name, as_of),
            };
            if stays {
                continue;
            }
            let renamed = state.series.filter(|id| site.is_still(*id, as_of));
            self.dirty_count -= usize::from(state.pending.is_some());
            while let Some(cell) = state.take_cell() {
                match renamed {
                    Some(id) => orphans.push(Orphan { id, cell }),
                    None => lost += 1,
                }
            }
            self.unknown -= usize::from(state.series.is_none());
            let now = site.find(&state.name);
            (state.series, state.kind) = (now, now.map_or(state.kind, |id| site.kind(id)));
            self.unknown += usize::from(now.is_none());
            self.list(index);
        }
        lost
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

fn wrong_kind(is: Kind, asked: Kind) -> NotTaken {
    NotTaken::Refused(Refusal::WrongKind { is, asked })
}
