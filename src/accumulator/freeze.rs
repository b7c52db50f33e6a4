//! How a batch is made of what waits: bounded in cells and bytes, and with all of what its waiters wait for.

use std::mem;

use tally_core::report::Amount;
use tally_core::time::SiteTime;

use super::batch::{Batch, Waiter};
use super::{Accumulator, Inner, Key, Outcome, Slot, SlotState, Waiting};
use crate::clock::JUMP_MS_MAX;
use crate::node::RequestError;
use crate::site::entry::{KeyedAdd, ReportWriter};

/// Most cells in one batch, with and without keys: bounds the time to apply it.
pub(super) const BATCH_CELLS_MAX: usize = 8_192;
/// A batch that has so many bytes takes no more in; an entry has at most twice as many.
pub(super) const BATCH_BYTES_MAX: usize = 512 << 10;
/// A cell has at most so many bytes besides the name of its series: of a sample, with its window.
const CELL_BYTES_MAX: usize = 112;

/// What the batch that is being frozen has to have room for, for its waiters' sake.
#[derive(Debug, Default)]
struct Planned {
    slots: Vec<Slot>,
    cells: usize,
    bytes: usize,
}

impl Accumulator {
    /// Takes out what waits and writes it as a report: first what clients wait for, then what was counted longest ago.
    /// What it has no room for waits on. The caller sees to it that there is something.
    ///
    /// A box that has not heard of site time yet goes by its own clock, which may be years off: by now it is known
    /// what time it can have been.
    pub fn freeze(&self, mut report: ReportWriter) -> Batch {
        let possible = self.clock.possible().unwrap_or((SiteTime(0), SiteTime(u64::MAX)));
        let mut inner = self.guard();
        let windows = (inner.base.start_of(possible.0), inner.base.start_of(possible.1));
        let mut batch = Batch::default();
        let planned = inner.take_waiting(windows, &mut report, &mut batch);
        for slot in planned.slots {
            let state = &mut inner.slots[slot.0 as usize];
            state.planned = 0;
            while let Some((window, amount)) = state.take_cell() {
                state.write(slot, (window, amount), windows, &mut report, &mut batch);
            }
            inner.dirty_count -= 1;
        }
        inner.write_readings(possible, BATCH_BYTES_MAX, &mut report, &mut batch);
        while batch.cells.len() < BATCH_CELLS_MAX && report.len() < BATCH_BYTES_MAX {
            let Some((slot, cell)) = inner.take_cell() else { break };
            inner.slots[slot.0 as usize].write(slot, cell, windows, &mut report, &mut batch);
        }
        inner.left_over = inner.dirty_count + inner.readings.waiting() > 0;
        (batch.body, batch.hash) = report.finish_hashed();
        batch
    }
}

impl Inner {
    /// Takes in those who wait, as far as there is room for all that they wait for: keyed adds are written, other
    /// adds are merged into their slots, of which all cells are to be written then.
    fn take_waiting(
        &mut self,
        windows: (SiteTime, SiteTime),
        report: &mut ReportWriter,
        batch: &mut Batch,
    ) -> Planned {
        let mut planned = Planned::default();
        let mut waiting = mem::take(&mut self.waiting).into_iter();
        while planned.cells + batch.keyed.len() < BATCH_CELLS_MAX
            && planned.bytes + report.len() < BATCH_BYTES_MAX
            && batch.waiters.len() < BATCH_CELLS_MAX
        {
            let Some(Waiting { slot, window, amount, key, answer, .. }) = waiting.next() else { break };
            let (window, amount) = (within(windows, window), amount_within(windows, amount));
            let waiter = Waiter { slot, window, answer };
            match key {
                None => match self.add(slot, window, amount) {
                    Ok(()) => {
                        batch.waiters.push(waiter);
                        planned.need(slot, &mut self.slots[slot.0 as usize]);
                    }
                    Err(refusal) => waiter.tell(Outcome::Failed(RequestError::Refused(refusal))),
                },
                Some(Key { hash, check, taken }) => {
                    let series = self.slots[slot.0 as usize].series_ref();
                    report.keyed(&KeyedAdd { series, window, amount, key: hash, check, taken });
                    batch.keyed.push(waiter);
                }
            }
        }
        self.waiting = waiting.collect();
        planned
    }

    /// Takes out the next cell: of the slot that waits longest.
    pub(super) fn take_cell(&mut self) -> Option<(Slot, (SiteTime, Amount))> {
        loop {
            let slot = *self.dirty.front()?;
            let state = &mut self.slots[slot.0 as usize];
            let cell = state.take_cell();
            if state.pending.is_none() {
                self.dirty.pop_front();
                state.queued = false;
                self.dirty_count -= usize::from(cell.is_some());
            }
            // None: its cells went out of turn, with somebody who waited for one.
            if let Some(cell) = cell {
                return Some((slot, cell));
            }
        }
    }
}

impl Planned {
    /// All cells of this slot, as many as there are now.
    fn need(&mut self, slot: Slot, state: &mut SlotState) {
        if state.planned == 0 {
            self.slots.push(slot);
        }
        let cells = state.older.len() + 1;
        let name = if state.series.is_none() { state.name.len() } else { 0 };
        let more = cells - mem::replace(&mut state.planned, cells);
        self.cells += more;
        self.bytes += more * (CELL_BYTES_MAX + name);
    }
}

impl SlotState {
    /// Ended windows first.
    fn take_cell(&mut self) -> Option<(SiteTime, Amount)> {
        self.older.pop().or_else(|| self.pending.take().map(|amount| (self.window, amount)))
    }

    fn write(
        &self,
        slot: Slot,
        (window, amount): (SiteTime, Amount),
        windows: (SiteTime, SiteTime),
        report: &mut ReportWriter,
        batch: &mut Batch,
    ) {
        let window = within(windows, window);
        report.cell(self.series_ref(), window, &amount_within(windows, amount));
        batch.cells.push((slot, window));
    }
}

/// What cannot be is taken for the nearest time that can. Site time may have jumped since, by as much as it does
/// at once: what is earlier by no more may be right.
fn within((earliest, latest): (SiteTime, SiteTime), at: SiteTime) -> SiteTime {
    if at.0.saturating_add(JUMP_MS_MAX) < earliest.0 { earliest } else { at.min(latest) }
}

/// A sample says when it was taken.
pub(super) fn amount_within(possible: (SiteTime, SiteTime), amount: Amount) -> Amount {
    match amount {
        Amount::Sample(mut sample) => {
            sample.last.at = within(possible, sample.last.at);
            Amount::Sample(sample)
        }
        other => other,
    }
}
