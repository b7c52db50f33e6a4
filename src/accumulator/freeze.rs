//! How a batch is made of what waits: bounded in cells and bytes, and with all of what its waiters wait for.

use std::mem;

use tally_core::report::Amount;
use tally_core::time::SiteTime;

use super::batch::{Batch, Waiter};
use super::slots::{Cell, Orphan, SlotState};
use super::{Accumulator, Inner, Key, Outcome, Slot, Waiting};
use crate::clock::JUMP_MS_MAX;
use crate::site::entry::{KeyedAdd, ReportWriter, SeriesRef};

/// Most cells in one batch, with and without keys: bounds the time to apply it.
pub(super) const BATCH_CELLS_MAX: usize = 8_192;
/// A batch that has so many bytes takes no more in; an entry has at most twice as many.
pub(super) const BATCH_BYTES_MAX: usize = 512 << 10;
/// A cell has at most so many bytes besides the name of its series: of a sample, with its window.
const CELL_BYTES_MAX: usize = 112;

/// When what was counted here can have been.
#[derive(Clone, Copy, Debug)]
pub(super) struct Possible {
    /// The windows of the earliest and of the latest time.
    windows: (SiteTime, SiteTime),
    times: (SiteTime, SiteTime),
}

impl Possible {
    #[cfg(test)]
    pub(super) fn at_all() -> Possible {
        let times = (SiteTime(0), SiteTime(u64::MAX));
        Possible { windows: times, times }
    }
}

/// What the batch that is being frozen has to have room for, for its waiters' sake.
#[derive(Debug, Default)]
pub(super) struct Planned {
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
        let times = self.clock.possible().unwrap_or((SiteTime(0), SiteTime(u64::MAX)));
        let mut inner = self.guard();
        let base = inner.limits.base;
        let possible = Possible { windows: (base.start_of(times.0), base.start_of(times.1)), times };
        let mut batch = Batch::default();
        let planned = inner.take_waiting(possible, &mut report, &mut batch);
        for slot in planned.slots {
            while let Some(cell) = inner.slots.take_cell_of(slot) {
                inner.write(slot, cell, possible, &mut report, &mut batch);
            }
        }
        while batch.cells.len() < BATCH_CELLS_MAX && report.len() < BATCH_BYTES_MAX {
            let Some(Orphan { id, cell }) = inner.orphans.pop() else { break };
            let window = within(possible.windows, cell.window);
            let amount = amount_within(possible.times, cell.amount);
            report.cell(SeriesRef::Id(id), window, &amount);
            batch.push_orphan(amount.kind());
        }
        inner.write_readings(times, BATCH_BYTES_MAX, &mut report, &mut batch);
        while batch.cells.len() < BATCH_CELLS_MAX && report.len() < BATCH_BYTES_MAX {
            let Some((slot, cell)) = inner.slots.take_cell() else { break };
            inner.write(slot, cell, possible, &mut report, &mut batch);
        }
        inner.slots.froze();
        inner.readings.froze();
        (batch.body, batch.hash) = report.finish_hashed();
        batch
    }
}

impl Inner {
    /// Takes in those who wait, as far as there is room for all that they wait for: keyed adds are written, other
    /// adds are merged into their slots, of which all cells are to be written then. So of values of the same series and
    /// millisecond a keyed one counts as the earlier.
    pub(super) fn take_waiting(
        &mut self,
        possible: Possible,
        report: &mut ReportWriter,
        batch: &mut Batch,
    ) -> Planned {
        let mut planned = Planned::default();
        let mut waiting = mem::take(&mut self.waiting).into_iter();
        while planned.cells + batch.keyed.len() < BATCH_CELLS_MAX
            && planned.bytes + report.len() < BATCH_BYTES_MAX
            && batch.waiters.len() < BATCH_CELLS_MAX
        {
            let Some(Waiting { slot, window, amount, arrival, key, answer, .. }) = waiting.next() else {
                break;
            };
            let (window, amount) = (within(possible.windows, window), amount_within(possible.times, amount));
            let waiter = Waiter { slot, window, kind: amount.kind(), series: None, answer };
            self.slots.wait_no_more(slot);
            match key {
                None => match self.add_arrived(slot, window, amount, arrival) {
                    Ok(()) => {
                        batch.waiters.push(waiter);
                        planned.need(slot, self.slots.freeze(slot));
                    }
                    Err(why) => waiter.tell(Outcome::Failed(why.into())),
                },
                Some(Key { hash, check, taken }) => {
                    let Some(state) = self.slots.freeze(slot) else { continue };
                    let series = state.series_ref(amount.kind());
                    report.keyed(&KeyedAdd { series, window, amount, key: hash, check, taken });
                    batch.keyed.push(waiter);
                }
            }
        }
        self.waiting = waiting.collect();
        planned
    }

    fn write(
        &mut self,
        slot: Slot,
        cell: Cell,
        possible: Possible,
        report: &mut ReportWriter,
        batch: &mut Batch,
    ) {
        let Some(state) = self.slots.freeze(slot) else { return };
        state.planned = 0;
        let window = within(possible.windows, cell.window);
        let amount = amount_within(possible.times, cell.amount);
        report.cell(state.series_ref(amount.kind()), window, &amount);
        batch.cells.push((slot, window, amount.kind()));
    }
}

impl Planned {
    /// All cells of this slot, as many as there are now.
    fn need(&mut self, slot: Slot, state: Option<&mut SlotState>) {
        let Some(state) = state else { return };
        if state.planned == 0 {
            self.slots.push(slot);
        }
        let cells = state.cells();
        let name = if state.series.is_none() { state.name.len() } else { 0 };
        let more = cells - mem::replace(&mut state.planned, cells);
        self.cells += more;
        self.bytes += more * (CELL_BYTES_MAX + name);
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
