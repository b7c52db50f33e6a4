//! The open windows of series: which one an amount joins or opens, and closing them.

use tally_core::report::{Amount, Kind};

use super::{Clock, Closed, Parked, Row, Table, empty_sample};
use crate::site::packed::Packed;
use crate::site::view::Refusal;

/// The window that an amount goes to.
pub(super) enum WindowPlace {
    Row,
    Parked(u64),
    Opens { start: u64, end: u64 },
    Late { start: u64, end: u64 },
}

impl Table {
    pub(super) fn locate(&self, id: u32, at: u64, clock: &Clock) -> Result<WindowPlace, Refusal> {
        let row = &self.rows[id as usize];
        if row.contains(at) {
            return Ok(WindowPlace::Row);
        }
        if self.is_too_far(at, clock) {
            return Err(Refusal::WindowInFuture);
        }
        // After site time was set back, what was closed before is in the future, and no error.
        let in_future = at > clock.latest_start;
        let before = self.parked.range((id, 0)..=(id, at)).next_back();
        if let Some((key, _)) = before.filter(|(_, parked)| at < parked.end) {
            return Ok(WindowPlace::Parked(key.1));
        }
        let span = u64::from(row.span_ms);
        let start = at - at % span;
        let end = start.saturating_add(span);
        Ok(if row.has_window() && row.start == start {
            // It was opened with another span.
            WindowPlace::Row
        } else if self.parked.contains_key(&(id, start)) {
            WindowPlace::Parked(start)
        } else if end <= self.closed || clock.is_due(end) || in_future {
            WindowPlace::Late { start, end }
        } else {
            WindowPlace::Opens { start, end }
        })
    }

    // The sums of the three below are parts of what `add_to_total` has checked: they cannot overflow.

    pub(super) fn add_to_row(&mut self, id: u32, amount: &Amount) {
        let ties = self.ties;
        let row = &mut self.rows[id as usize];
        match amount {
            Amount::Counter(sum) => row.window = row.window.saturating_add(*sum),
            Amount::Updown { up, down } => {
                let side = &mut self.updowns[row.side as usize];
                side.up = side.up.saturating_add(*up);
                side.down = side.down.saturating_add(*down);
            }
            Amount::Sample(sample) => {
                let side = &mut self.samples[row.side as usize];
                let merged = side.window.map_or(Ok(*sample), |window| window.merged_by(*sample, ties));
                side.window = merged.ok().or(side.window);
            }
        }
    }

    pub(super) fn add_to_parked(&mut self, id: u32, start: u64, amount: &Amount) {
        if let Some(parked) = self.parked.get_mut(&(id, start))
            && let Some(merged) = parked.amount.merged(*amount, self.ties)
        {
            parked.amount = merged;
        }
    }

    pub(super) fn open(&mut self, id: u32, start: u64, end: u64, amount: &Amount) {
        self.ends.insert(end);
        let row = &self.rows[id as usize];
        if row.has_window() && row.start > start {
            self.parked.insert((id, start), Parked { end, amount: Packed::new(*amount) });
            return;
        }
        if row.has_window() {
            let key = (id, row.start);
            let parked = Parked { end: row.end, amount: self.take_row_window(id) };
            self.parked.insert(key, parked);
        }
        let row = &mut self.rows[id as usize];
        (row.start, row.end) = (start, end);
        self.add_to_row(id, amount);
    }

    /// Empties the row's window and returns what was in it.
    fn take_row_window(&mut self, id: u32) -> Packed {
        let row = &mut self.rows[id as usize];
        (row.start, row.end) = (0, 0);
        let window = core::mem::take(&mut row.window);
        Packed::new(match row.kind {
            Kind::Counter => Amount::Counter(window),
            Kind::Updown => {
                let side = &mut self.updowns[row.side as usize];
                Amount::Updown { up: core::mem::take(&mut side.up), down: core::mem::take(&mut side.down) }
            }
            Kind::Sample => {
                let side = &mut self.samples[row.side as usize];
                Amount::Sample(side.window.take().unwrap_or(empty_sample(&side.all)))
            }
        })
    }

    /// Closes every open window that ends at `until` or before, in order of end, start and series.
    pub(in crate::site) fn close(&mut self, until: u64) -> Vec<Closed> {
        self.closed = self.closed.max(until);
        if self.ends.first().is_none_or(|end| *end > until) {
            return Vec::new();
        }
        self.ends = self.ends.split_off(&until.saturating_add(1));
        let mut closed = Vec::new();
        for id in 0..self.rows.len() as u32 {
            let Row { start, end, .. } = self.rows[id as usize];
            if start < end && end <= until {
                closed.push(Closed { series: id, start, end, amount: self.take_row_window(id) });
            }
        }
        self.parked.retain(|(series, start), parked| {
            if parked.end > until {
                return true;
            }
            let amount = core::mem::replace(&mut parked.amount, Packed::Counter(0));
            closed.push(Closed { series: *series, start: *start, end: parked.end, amount });
            false
        });
        closed.sort_unstable_by_key(|closed| (closed.end, closed.start, closed.series));
        closed
    }

    /// Closes every open window that begins after `start`: site time was set back from there.
    pub(in crate::site) fn close_beyond(&mut self, start: u64) -> Vec<Closed> {
        let ids: Vec<u32> = (0..self.rows.len() as u32).collect();
        self.close_of(&ids, |begin| begin > start)
    }

    /// Closes all open windows of these series.
    pub(super) fn close_all_of(&mut self, ids: &[u32]) -> Vec<Closed> {
        self.close_of(ids, |_| true)
    }

    /// Closes the open windows of these series, in ascending order, whose beginnings are meant.
    fn close_of(&mut self, ids: &[u32], is_meant: impl Fn(u64) -> bool) -> Vec<Closed> {
        let mut closed = Vec::new();
        for id in ids {
            let Row { start, end, .. } = self.rows[*id as usize];
            if start < end && is_meant(start) {
                closed.push(Closed { series: *id, start, end, amount: self.take_row_window(*id) });
            }
        }
        self.parked.retain(|(series, begin), parked| {
            if !is_meant(*begin) || ids.binary_search(series).is_err() {
                return true;
            }
            let amount = core::mem::replace(&mut parked.amount, Packed::Counter(0));
            closed.push(Closed { series: *series, start: *begin, end: parked.end, amount });
            false
        });
        self.ends = self.parked.values().map(|parked| parked.end).collect();
        self.ends.extend(self.rows.iter().filter(|row| row.has_window()).map(|row| row.end));
        closed.sort_unstable_by_key(|closed| (closed.end, closed.start, closed.series));
        closed
    }

    /// The latest end of an open window that is not after `limit`.
    pub(in crate::site) fn latest_end(&self, limit: u64) -> Option<u64> {
        self.ends.range(..=limit).next_back().copied()
    }

    /// What the open windows of a series hold together.
    #[cfg(test)]
    pub(in crate::site) fn open_amounts(&self, id: u32) -> Vec<Amount> {
        let row = &self.rows[id as usize];
        let mut amounts: Vec<Amount> =
            self.parked.range((id, 0)..=(id, u64::MAX)).map(|(_, parked)| parked.amount.amount()).collect();
        if row.has_window() {
            amounts.push(match row.kind {
                Kind::Counter => Amount::Counter(row.window),
                Kind::Updown => {
                    let side = &self.updowns[row.side as usize];
                    Amount::Updown { up: side.up, down: side.down }
                }
                Kind::Sample => Amount::Sample(self.samples[row.side as usize].window.unwrap()),
            });
        }
        amounts
    }
}
