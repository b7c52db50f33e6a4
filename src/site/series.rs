//! Series: totals and open windows; where an amount is added.
//!
//! A cell joins the open window of its series that contains the cell's window start. If there is
//! none, it opens the window of the series' span that contains it, unless that ended at or before
//! the last closing, or the grace before now: then it is late. So a series has few open windows at
//! any moment, whatever comes in. One of them, the newest as a rule, lies in the series' row, where
//! the hot path finds it; the others are parked in a map.

mod windows;

use std::collections::{BTreeMap, BTreeSet};

use tally_core::report::{Amount, Kind, Sample, Sum, Ties};
use tally_core::time::SiteTime;

use windows::WindowPlace;

use super::level::Level;
use super::names::Names;
use super::packed::Packed;
use super::passed::Passed;
use super::settings::Settings;
use super::view::{Refusal, SampleView, SeriesId, SeriesView, Stamp};
use crate::deliberate::{self, Bug};

/// All series.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) names: Names,
    pub(super) rows: Vec<Row>,
    /// The log index that last changed each; apart from the rows, so that it is quickly scanned.
    pub(super) changed: Vec<u64>,
    /// Site time at which each began to count; 0: before feature level 3.
    pub(super) since: Vec<u64>,
    /// How many rows are in use.
    pub(super) live: usize,
    /// Rows that are free for others.
    pub(super) vacant: BTreeSet<u32>,
    pub(super) updowns: Vec<Updown>,
    pub(super) samples: Vec<Sampled>,
    /// Free places among the updowns and the samples.
    free_sides: (Vec<u32>, Vec<u32>),
    /// Open windows beside the rows' own, by series and start.
    pub(super) parked: BTreeMap<(u32, u64), Parked>,
    /// When open windows end.
    pub(super) ends: BTreeSet<u64>,
    /// Every window that ends here or before is closed.
    pub(super) closed: u64,
    /// What was lived through before an operator stepped back.
    pub(super) passed: Passed,
    /// Which of two simultaneous values is a sample's last: by the feature level.
    pub(super) ties: Ties,
}

/// A series, in one cache line. Its open window is empty if `start == end`.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) total: i128,
    /// A counter's sum in the open window; the other kinds have theirs at their side.
    pub(super) window: u128,
    pub(super) start: u64,
    pub(super) end: u64,
    /// The span of windows that it opens, in milliseconds.
    pub(super) span_ms: u32,
    /// Its place among the updowns or samples.
    pub(super) side: u32,
    /// How many series had been removed or renamed when it was made: who knew of fewer means another one.
    pub(super) born: u32,
    pub(super) kind: Kind,
    pub(super) state: RowState,
}

/// Whether a row is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowState {
    Live,
    /// Its series was removed; its last summaries are not delivered yet.
    Leaving,
    Vacant,
}

/// What an updown has beside its row.
#[derive(Clone, Debug, Default)]
pub(super) struct Updown {
    /// All that was ever added. With the total it bounds both parts of any sum of its windows.
    pub(super) ups: i128,
    pub(super) up: u128,
    pub(super) down: u128,
}

/// What a sample series has beside its row.
#[derive(Clone, Debug)]
pub(super) struct Sampled {
    pub(super) all: Sample,
    /// The sum of the magnitudes of all sums ever: it bounds the sum of any of its windows.
    pub(super) magnitude: i128,
    pub(super) window: Option<Sample>,
}

#[derive(Clone, Debug)]
pub(super) struct Parked {
    pub(super) end: u64,
    pub(super) amount: Packed,
}

/// What windows a cell can join, by the time of its entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    now: u64,
    grace_ms: u64,
    latest_start: u64,
    index: u64,
    level: Level,
    /// The amounts are a box's own.
    pub(super) of_box: bool,
    /// Of how many removed or renamed series the source of the amounts knew.
    pub(super) as_of: u32,
    /// How many there were.
    pub(super) born: u32,
}

/// Where an amount was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    Open,
    /// In the total only: the caller makes a late summary of this window.
    Late {
        start: u64,
        end: u64,
    },
}

/// A window that was closed.
#[derive(Clone, Debug)]
pub(super) struct Closed {
    pub(super) series: u32,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) amount: Packed,
}

impl Clock {
    pub(super) fn new(stamp: Stamp, settings: &Settings, index: u64, level: Level, of_box: bool) -> Clock {
        let ahead = settings.window_base().as_millis() * 2;
        let latest_start = stamp.site.0.saturating_add(ahead);
        Clock {
            now: stamp.site.0,
            grace_ms: settings.window_grace_ms(),
            latest_start,
            index,
            level,
            of_box,
            as_of: u32::MAX,
            born: 0,
        }
    }

    /// The same for amounts of a source that knew of so many removed or renamed series, of so many.
    pub(super) fn as_of(self, as_of: u32, born: u32) -> Clock {
        Clock { as_of, born, ..self }
    }

    fn is_due(&self, end: u64) -> bool {
        end.saturating_add(self.grace_ms) <= self.now
    }
}

impl Row {
    const fn has_window(&self) -> bool {
        self.start < self.end
    }

    const fn contains(&self, at: u64) -> bool {
        self.start <= at && at < self.end
    }
}

impl Table {
    pub(super) const fn new(seed: u64) -> Table {
        Table {
            names: Names::new(seed),
            rows: Vec::new(),
            changed: Vec::new(),
            since: Vec::new(),
            live: 0,
            vacant: BTreeSet::new(),
            updowns: Vec::new(),
            samples: Vec::new(),
            free_sides: (Vec::new(), Vec::new()),
            parked: BTreeMap::new(),
            ends: BTreeSet::new(),
            closed: 0,
            passed: Passed::new(),
            ties: Ties::Larger,
        }
    }

    /// The hot path: a counter's cell in the window that its row has open. Returns the new total;
    /// `None`: not such a cell, nothing was changed, see [`Table::add`].
    #[inline]
    pub(super) fn count(
        &mut self,
        id: SeriesId,
        window: SiteTime,
        sum: u64,
        (index, as_of): (u64, u32),
    ) -> Option<i128> {
        let row = self.rows.get_mut(id.0 as usize)?;
        if row.kind != Kind::Counter || !row.contains(window.0) || sum == 0 || row.born > as_of {
            return None;
        }
        let total = row.total.checked_add(i128::from(sum))?;
        row.total = total;
        // At most the total, so it cannot overflow either.
        row.window += u128::from(sum);
        self.changed[id.0 as usize] = index;
        Some(total)
    }

    /// Adds to a series that is there. Refused: nothing was changed.
    pub(super) fn add(
        &mut self,
        id: SeriesId,
        window: SiteTime,
        amount: &Amount,
        clock: &Clock,
    ) -> Result<Placed, Refusal> {
        check_amount(amount)?;
        // Whom a source means by an id was found out before; by name, it need not know of the series at all.
        let row = self.rows.get(id.0 as usize).ok_or(Refusal::Malformed)?;
        if row.state != RowState::Live {
            return Err(Refusal::Removed);
        }
        if row.kind != amount.kind() {
            return Err(Refusal::WrongKind { is: row.kind, asked: amount.kind() });
        }
        let target = self.locate(id.0, window.0, clock)?;
        self.add_to_total(id.0, amount).ok_or(Refusal::Overflow)?;
        self.changed[id.0 as usize] = clock.index;
        match target {
            WindowPlace::Late { start, end } => return Ok(Placed::Late { start, end }),
            WindowPlace::Row => self.add_to_row(id.0, amount),
            WindowPlace::Parked(start) => self.add_to_parked(id.0, start, amount),
            WindowPlace::Opens { start, end } => self.open(id.0, start, end, amount),
        }
        Ok(Placed::Open)
    }

    /// Makes a series for an amount that [`Table::add`] would take. The caller bounds how many.
    pub(super) fn create(
        &mut self,
        name: &str,
        window: SiteTime,
        amount: &Amount,
        clock: &Clock,
        settings: &Settings,
    ) -> Result<SeriesId, Refusal> {
        check_amount(amount)?;
        if self.is_too_far(window.0, clock) {
            return Err(Refusal::WindowInFuture);
        }
        let side = match amount {
            Amount::Counter(_) => 0,
            Amount::Updown { .. } => put_at(&mut self.updowns, self.free_sides.0.pop(), Updown::default()),
            Amount::Sample(sample) => {
                let new = Sampled { all: empty_sample(sample), magnitude: 0, window: None };
                put_at(&mut self.samples, self.free_sides.1.pop(), new)
            }
        };
        let (span_ms, kind) = (span_ms(settings, name), amount.kind());
        let (born, state) = (clock.born, RowState::Live);
        let row = Row { total: 0, window: 0, start: 0, end: 0, span_ms, side, born, kind, state };
        let since = if clock.level >= Level::FOUR { clock.now } else { 0 };
        self.live += 1;
        if let Some(id) = self.vacant.pop_first() {
            let place = id as usize;
            (self.rows[place], self.changed[place], self.since[place]) = (row, clock.index, since);
            self.names.reuse(id, name);
            return Ok(SeriesId(id));
        }
        self.rows.push(row);
        self.changed.push(clock.index);
        self.since.push(since);
        Ok(SeriesId(self.names.push(name)))
    }

    /// The row that a source means by an id, if the id was not given to another series since.
    pub(super) fn meant(&self, id: SeriesId, as_of: u32) -> Result<&Row, Refusal> {
        let row = self.rows.get(id.0 as usize).ok_or(Refusal::Malformed)?;
        let is_meant = row.born <= as_of || deliberate::is(Bug::CountsForSuccessor);
        if row.state == RowState::Live && is_meant { Ok(row) } else { Err(Refusal::Removed) }
    }

    /// Takes series out of use; returns their open windows in the order in which they would be closed. Their totals
    /// and names are kept until [`Table::vacate`].
    pub(super) fn retire(&mut self, ids: &[u32]) -> Vec<Closed> {
        let closed = self.close_all_of(ids);
        for id in ids {
            self.names.unlink(*id);
            self.rows[*id as usize].state = RowState::Leaving;
        }
        self.live -= ids.len();
        closed
    }

    /// Nobody needs the row of a retired series any more.
    pub(super) fn vacate(&mut self, id: u32) {
        let row = &mut self.rows[id as usize];
        match row.kind {
            Kind::Counter => {}
            Kind::Updown => self.free_sides.0.push(row.side),
            Kind::Sample => self.free_sides.1.push(row.side),
        }
        (row.total, row.side, row.born, row.kind) = (0, 0, 0, Kind::Counter);
        row.state = RowState::Vacant;
        (self.changed[id as usize], self.since[id as usize]) = (0, 0);
        self.names.vacate(id);
        self.vacant.insert(id);
    }

    /// Whether a row is in use.
    pub(super) fn is_live(&self, id: u32) -> bool {
        self.rows.get(id as usize).is_some_and(|row| row.state == RowState::Live)
    }

    /// Whether no window can be open there, nor have been.
    fn is_too_far(&self, at: u64, clock: &Clock) -> bool {
        at > clock.latest_start && at >= self.closed && !self.passed.contains(at)
    }

    /// What a cell says, as far as its source can be held to it: bounds for what a report brings, and a box that is
    /// ahead of the others (it was paused or cut off while site time slewed) counts in the latest window instead of
    /// losing what it counted. So does what such a box took for a source that named no window (`is_open`).
    pub(super) fn clamp(
        &self,
        window: SiteTime,
        amount: Amount,
        clock: &Clock,
        is_open: bool,
    ) -> Result<(SiteTime, Amount), Refusal> {
        if clock.level < Level::TWO {
            return Ok((window, amount));
        }
        let of_box = (clock.of_box || is_open) && !deliberate::is(Bug::AheadIsRefused);
        let within = |at: SiteTime| match self.is_too_far(at.0, clock) {
            false => Ok(at),
            true if of_box => Ok(SiteTime(clock.now)),
            true => Err(Refusal::WindowInFuture),
        };
        let amount = match amount {
            Amount::Sample(sample) if !sample.is_bounded() => return Err(Refusal::Malformed),
            Amount::Sample(mut sample) => {
                // Of all that a box that is ahead observed alike, so that the order of arrival decides.
                sample.last.at = match of_box {
                    true => sample.last.at.min(SiteTime(clock.now)),
                    false => within(sample.last.at)?,
                };
                Amount::Sample(sample)
            }
            amount => amount,
        };
        Ok((within(window)?, amount))
    }

    /// Checks and adds; `None`: some sum would overflow, nothing was changed.
    fn add_to_total(&mut self, id: u32, amount: &Amount) -> Option<()> {
        let ties = self.ties;
        let row = &mut self.rows[id as usize];
        let total = row.total.checked_add(amount.increase().ok()?)?;
        match amount {
            Amount::Counter(_) => {}
            Amount::Updown { up, .. } => {
                let side = &mut self.updowns[row.side as usize];
                let ups = side.ups.checked_add(i128::try_from(*up).ok()?)?;
                // All that was ever taken away is bounded too.
                ups.checked_sub(total)?;
                side.ups = ups;
            }
            Amount::Sample(sample) => {
                let side = &mut self.samples[row.side as usize];
                let magnitude = side.magnitude.checked_add(sample.sum.0.checked_abs()?)?;
                side.all =
                    if side.all.count == 0 { *sample } else { side.all.merged_by(*sample, ties).ok()? };
                side.magnitude = magnitude;
            }
        }
        row.total = total;
        Some(())
    }

    /// Gives every series the span that the settings say; windows that are open keep theirs.
    pub(super) fn respan(&mut self, settings: &Settings) {
        for (id, row) in self.rows.iter_mut().enumerate() {
            row.span_ms = span_ms(settings, self.names.get(id as u32));
        }
    }

    /// A series has another name, and so perhaps other windows from now on.
    pub(super) fn rename(&mut self, id: u32, name: &str, settings: &Settings) {
        self.names.rename(id, name);
        self.rows[id as usize].span_ms = span_ms(settings, name);
    }

    pub(super) fn view(&self, id: SeriesId) -> SeriesView {
        let row = &self.rows[id.0 as usize];
        let sampled = (row.kind == Kind::Sample).then(|| &self.samples[row.side as usize].all);
        SeriesView {
            id,
            name: self.names.get(id.0).to_string(),
            kind: row.kind,
            total: row.total,
            sample: sampled.map(|all| SampleView {
                count: all.count,
                sum: all.sum,
                min: all.min,
                max: all.max,
                last: all.last,
            }),
            changed: self.changed[id.0 as usize],
            since: self.since[id.0 as usize],
        }
    }
}

/// Puts a value in a free place, or at the end; returns where.
fn put_at<T>(all: &mut Vec<T>, free: Option<u32>, value: T) -> u32 {
    match free {
        Some(place) => {
            all[place as usize] = value;
            place
        }
        None => {
            all.push(value);
            all.len() as u32 - 1
        }
    }
}

/// Whether an amount can be one at all.
fn check_amount(amount: &Amount) -> Result<(), Refusal> {
    let fits = |value: u128| if value <= i128::MAX as u128 { Ok(()) } else { Err(Refusal::Overflow) };
    match amount {
        Amount::Counter(0) | Amount::Updown { up: 0, down: 0 } => Err(Refusal::Malformed),
        Amount::Counter(sum) => fits(*sum),
        Amount::Updown { up, down } => fits(*up).and_then(|()| fits(*down)),
        Amount::Sample(sample) if sample.is_plausible() && sample.sum.0 != i128::MIN => Ok(()),
        Amount::Sample(_) => Err(Refusal::Malformed),
    }
}

/// A sample of no values: what a series has before its first.
const fn empty_sample(like: &Sample) -> Sample {
    Sample { count: 0, sum: Sum(0), min: like.min, max: like.max, last: like.last }
}

fn span_ms(settings: &Settings, name: &str) -> u32 {
    // A span is at most 31 days, which fits.
    settings.span_for(name).as_millis() as u32
}
