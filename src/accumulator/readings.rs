//! Readings of meters that wait for a batch: the latest of each, and those before it that say more than it does.
//!
//! What a reading comes to is decided where it is applied. Here the same rule is run over what this box has read, only
//! to know which readings can be left out: of two in a row that show growth the second says it all, unless they are of
//! different windows. A fall, a restart and what came of it are kept.

use std::collections::VecDeque;
use std::sync::PoisonError;

use tally_core::id::{SeriesName, SourceId};
use tally_core::meter::{self, Meter, MeterRule, Moment, Outcome, Pending, Reading};
use tally_core::report::Kind;
use tally_core::time::SiteTime;

use super::batch::Batch;
use super::{Accumulator, Bulk, Inner, NotTaken, Slot};
use crate::site::entry::{ReadingCell, ReportWriter};
use crate::site::{METER_NAME_BYTES_MAX, Refusal, is_meter_name};

/// Readings of one meter that wait at most; beyond it the newest gives way to the next.
const READINGS_MAX: usize = 64;
/// The most readings among the cells of a batch.
pub(super) const BATCH_READINGS_MAX: usize = 2_048;

/// A meter as this box reads it. Valid as long as the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeterSlot(u32);

/// What is done with readings: known when this box has its epoch, by which it knows the site as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadingsMode {
    /// Not known yet: they wait.
    #[default]
    Unknown,
    /// Some box of the site does not know readings yet: nothing is sent.
    Refused,
    /// They are sent.
    Taken,
}

/// All meters that this box reads.
#[derive(Debug, Default)]
pub(super) struct Readings {
    meters: Vec<MeterState>,
    /// Meters with readings that wait, in the order in which the first came.
    dirty: VecDeque<MeterSlot>,
    pub(super) mode: ReadingsMode,
    /// The last batch had no room for all.
    left_over: bool,
}

/// A number that was read from a meter.
#[derive(Clone, Copy, Debug)]
pub struct MeterRead {
    /// The number.
    pub value: u64,
    /// When, site time.
    pub heard: SiteTime,
    /// When, by a clock of this process that never jumps, in milliseconds.
    pub local_ms: u64,
    /// Names the incarnation of the meter; 0: not known.
    pub incarnation: u64,
    /// It is to be sent though it shows no more than before.
    pub stands: bool,
}

#[derive(Debug)]
struct MeterState {
    name: Box<str>,
    slot: Slot,
    /// As this box alone would have it.
    local: Option<Meter>,
    waiting: VecDeque<Waiting>,
    /// The value before the newest that waits.
    before: Option<u64>,
    /// When the latest one that went into a batch was heard.
    sent: SiteTime,
    /// Why the site did not take the latest one.
    refused: Option<Refusal>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    value: u64,
    heard: SiteTime,
    incarnation: u64,
    rule: MeterRule,
    window: SiteTime,
    is_plain: bool,
}

impl Readings {
    /// The batch is frozen: what it has no room for waits on.
    pub(super) fn froze(&mut self) {
        self.left_over = self.waiting() > 0;
    }

    /// Whether the last batch had no room for all.
    pub(super) fn left_over(&self) -> bool {
        self.left_over
    }

    /// The number of meters with readings for the next batch.
    pub(super) fn waiting(&self) -> usize {
        if self.mode == ReadingsMode::Taken { self.dirty.len() } else { 0 }
    }
}

impl Bulk<'_> {
    /// The slot of a meter and its series, made if it is new. `name` is checked: see [`is_meter_name`].
    ///
    /// # Errors
    /// The series is of another kind, or there is no room for it or for another meter.
    pub fn meter(&mut self, name: &str, series: SeriesName<'_>) -> Result<MeterSlot, NotTaken> {
        debug_assert!(is_meter_name(name), "1 to {METER_NAME_BYTES_MAX} bytes");
        let slot = self.slot(series, Kind::Counter)?;
        let meters_max = self.inner.limits.names_max;
        let meters = &mut self.inner.readings.meters;
        if let Some(place) = meters.iter().position(|meter| meter.slot == slot && &*meter.name == name) {
            return Ok(MeterSlot(place as u32));
        }
        if meters.len() >= meters_max {
            return Err(NotTaken::Refused(Refusal::TooManyMeters));
        }
        // The meter keeps its slot for as long as the process runs.
        self.inner.slots.wait(slot)?;
        let meters = &mut self.inner.readings.meters;
        let (waiting, sent) = (VecDeque::new(), SiteTime(0));
        let name = name.into();
        meters.push(MeterState { name, slot, local: None, waiting, before: None, sent, refused: None });
        Ok(MeterSlot(meters.len() as u32 - 1))
    }

    /// How readings are handled.
    pub fn readings_mode(&self) -> ReadingsMode {
        self.inner.readings.mode
    }

    /// Why the site did not take the latest reading that it judged; `None`: it took it.
    pub fn reading_refused(&self, meter: MeterSlot) -> Option<Refusal> {
        self.inner.readings.meters[meter.0 as usize].refused
    }

    /// Whether the site holds a jump of this meter until a later reading confirms it.
    pub fn reading_is_held(&self, meter: MeterSlot) -> bool {
        let state = &self.inner.readings.meters[meter.0 as usize];
        let Some(series) = self.inner.slots.name(state.slot) else { return false };
        self.site.is_some_and(|site| {
            site.lock().unwrap_or_else(PoisonError::into_inner).holds_jump(series, &state.name)
        })
    }

    /// Adds a reading. Skips one that shows no more than an earlier reading of this box.
    pub fn read(&mut self, slot: MeterSlot, read: &MeterRead, rule: &MeterRule) -> Outcome {
        let MeterRead { value, heard, incarnation, .. } = *read;
        let window = self.inner.limits.base.start_of(heard);
        let readings = &mut self.inner.readings;
        let state = &mut readings.meters[slot.0 as usize];
        // Site time may be set back, or not be known yet: what was read later is later all the same.
        let local = SiteTime(read.local_ms);
        let reading = Reading { value, heard: local, source: SourceId(0), incarnation };
        let known = state.local;
        let step = meter::step(known.as_ref(), &reading, rule, Moment { now: local, grace_ms: 0 });
        state.local = Some(step.meter);
        let is_plain = step.is_plain() && known.is_none_or(|known| known.pending == Pending::None);
        let is_new = known.is_none_or(|known| {
            (known.base, known.pending, known.incarnation)
                != (step.meter.base, step.meter.pending, step.meter.incarnation)
        });
        if !is_new && !read.stands {
            return step.outcome;
        }
        if state.waiting.is_empty() {
            readings.dirty.push_back(slot);
        }
        let before = known.map(|known| known.base);
        state.push(Waiting { value, heard, incarnation, rule: *rule, window, is_plain }, before);
        step.outcome
    }

    /// Forgets readings that wait: they were counted otherwise.
    pub fn forget_readings(&mut self, slot: MeterSlot) {
        let state = &mut self.inner.readings.meters[slot.0 as usize];
        state.waiting.clear();
        // The next one is the first of all that are sent.
        state.local = None;
        self.inner.readings.dirty.retain(|other| *other != slot);
    }
}

impl Accumulator {
    /// Notes what the site said to the readings of a batch.
    pub fn readings_answered(&self, batch: &Batch, refused: &[(u32, Refusal)]) {
        if batch.readings.is_empty() {
            return;
        }
        let mut inner = self.guard();
        for (place, meter) in &batch.readings {
            let why = refused.binary_search_by_key(place, |(place, _)| *place);
            let state = &mut inner.readings.meters[meter.0 as usize];
            state.refused = why.ok().map(|found| refused[found].1);
        }
    }
}

impl MeterState {
    fn push(&mut self, next: Waiting, before: Option<u64>) {
        let replaces = self.waiting.back().is_some_and(|last| {
            let within_step = next.rule.step_max.is_none_or(|most| {
                self.before.is_some_and(|before| next.value.saturating_sub(before) <= most)
            });
            let says_more = next.value >= last.value
                && next.incarnation == last.incarnation
                && next.window == last.window;
            last.is_plain && next.is_plain && says_more && within_step
        });
        if replaces || self.waiting.len() >= READINGS_MAX {
            self.waiting.pop_back();
        } else {
            self.before = before;
        }
        self.waiting.push_back(next);
    }
}

impl Inner {
    /// Writes readings into a report, those first that wait longest; their times are as far as possible.
    pub(super) fn write_readings(
        &mut self,
        (earliest, latest): (SiteTime, SiteTime),
        bytes_max: usize,
        report: &mut ReportWriter,
        batch: &mut Batch,
    ) {
        let Inner { readings, slots, limits, .. } = self;
        if readings.mode != ReadingsMode::Taken {
            return;
        }
        let mut room = BATCH_READINGS_MAX;
        while let Some(meter) = readings.dirty.front().copied() {
            let state = &mut readings.meters[meter.0 as usize];
            let slot = state.slot;
            while room > 0
                && report.len() < bytes_max
                && let Some(next) = state.waiting.pop_front()
            {
                // They were heard since this process started, in this order, whatever its clock said then.
                let heard = next.heard.clamp(earliest, latest).max(state.sent);
                state.sent = heard;
                let Waiting { value, incarnation, rule, .. } = next;
                // A meter's slot is never given to another series.
                let Some(place) = slots.freeze(slot) else { continue };
                let series = place.series_ref(Kind::Counter);
                let cell = ReadingCell { series, meter: &state.name, value, heard, incarnation, rule };
                batch.push_reading(report.cells(), meter, slot);
                report.reading(&cell, limits.base.start_of(heard));
                room -= 1;
            }
            if !state.waiting.is_empty() {
                break;
            }
            readings.dirty.pop_front();
        }
    }
}

#[cfg(test)]
#[path = "readings_tests.rs"]
mod tests;
