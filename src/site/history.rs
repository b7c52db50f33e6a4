//! The history of recently closed windows: limited for each series and in all; the oldest are dropped.
//!
//! Each series has a queue of its own; a queue of series ids tells the order in which windows were
//! closed. A window that its series' bound has pushed out leaves its id there, which counts in the
//! bytes until its turn comes.

use std::collections::VecDeque;

use tally_core::report::{Amount, Ties};
use tally_core::time::SiteTime;

use super::outbox::Marks;
use super::packed::Packed;
use super::series::Closed;
use super::settings::Settings;
use super::view::{SeriesId, Summary};
use crate::codec::{Malformed, Reader};

/// Bytes that a window is counted as: its record, with what a queue keeps free.
const RECORD_BYTES: u64 = 48;
/// Bytes of a place in the order.
const ORDER_BYTES: u64 = 4;
/// How far back a late window is looked for.
const LATE_SEARCH_MAX: usize = 64;
/// The most windows told to a watcher at once.
const AFTER_MAX: usize = 10_000;

/// The ring of closed windows.
#[derive(Debug, Default)]
pub(super) struct History {
    series: Vec<VecDeque<Record>>,
    order: VecDeque<u32>,
    /// The position of the order's first.
    first: u64,
    records: u64,
    heap_bytes: u64,
    /// By the feature level.
    pub(super) ties: Ties,
}

#[derive(Clone, Debug)]
struct Record {
    amount: Packed,
    start: u64,
    span_ms: u32,
    /// The low half of its position.
    position: u32,
    marks: Marks,
}

impl History {
    /// Bytes of all windows, as the bound counts them.
    pub(super) fn bytes(&self) -> u64 {
        self.records * RECORD_BYTES + self.order.len() as u64 * ORDER_BYTES + self.heap_bytes
    }

    /// Appends a window; a late amount joins the late one of its window if that is near.
    pub(super) fn push(&mut self, closed: &Closed, marks: Marks, settings: &Settings) {
        let series = closed.series as usize;
        if self.series.len() <= series {
            self.series.resize_with(series + 1, VecDeque::new);
        }
        if !(marks.late && self.merge_late(closed)) {
            let position = self.first.wrapping_add(self.order.len() as u64) as u32;
            // A span is at most 31 days.
            let span_ms = u32::try_from(closed.end - closed.start).unwrap_or(u32::MAX);
            self.append(
                closed.series,
                Record { amount: closed.amount.clone(), start: closed.start, span_ms, position, marks },
            );
        }
        self.trim_series(series, settings.history_windows_max());
        self.trim_bytes(settings.history_bytes_max());
    }

    /// Takes out what the bounds, made narrower, leave no room for.
    pub(super) fn trim(&mut self, settings: &Settings) {
        for series in 0..self.series.len() {
            self.trim_series(series, settings.history_windows_max());
            self.series[series].shrink_to_fit();
        }
        self.trim_bytes(settings.history_bytes_max());
    }

    /// Forgets the windows of a series.
    pub(super) fn forget(&mut self, series: u32) {
        if let Some(records) = self.series.get_mut(series as usize) {
            let records = core::mem::take(records);
            self.records -= records.len() as u64;
            self.heap_bytes -= records.iter().map(|record| record.amount.heap_bytes()).sum::<u64>();
        }
    }

    /// The latest windows of a series, oldest first.
    pub(super) fn latest(&self, id: SeriesId, last: usize) -> Vec<Summary> {
        let Some(records) = self.series.get(id.0 as usize) else { return Vec::new() };
        let skip = records.len().saturating_sub(last);
        records.iter().skip(skip).map(|record| record.summary(id)).collect()
    }

    /// Windows from a position on, and the position after the last of them.
    pub(super) fn after(&self, position: u64, wanted: impl Fn(SeriesId) -> bool) -> (u64, Vec<Summary>) {
        let present = self.first + self.order.len() as u64;
        let mut summaries = Vec::new();
        if position >= present {
            return (present, summaries);
        }
        let skip = position.saturating_sub(self.first);
        for (offset, series) in self.order.iter().enumerate().skip(skip as usize) {
            let position = self.first + offset as u64;
            if summaries.len() == AFTER_MAX {
                return (position, summaries);
            }
            let id = SeriesId(*series);
            if wanted(id)
                && let Some(record) = self.record(id, position)
            {
                summaries.push(record.summary(id));
            }
        }
        (present, summaries)
    }

    fn record(&self, id: SeriesId, position: u64) -> Option<&Record> {
        let records = self.series.get(id.0 as usize)?;
        // Positions are compared from the first on, since they wrap.
        let offset = |position: u32| position.wrapping_sub(self.first as u32);
        let wanted = offset(position as u32);
        let place = records.partition_point(|record| offset(record.position) < wanted);
        records.get(place).filter(|record| offset(record.position) == wanted)
    }

    fn append(&mut self, series: u32, record: Record) {
        self.heap_bytes += record.amount.heap_bytes();
        self.records += 1;
        let records = &mut self.series[series as usize];
        if records.len() == records.capacity() {
            // By a quarter: thousands of queues that double would keep half of it free.
            records.reserve_exact((records.len() / 4).max(4));
        }
        records.push_back(record);
        self.order.push_back(series);
    }

    fn merge_late(&mut self, closed: &Closed) -> bool {
        let records = self.series[closed.series as usize].iter_mut().rev().take(LATE_SEARCH_MAX);
        for record in records {
            if record.marks.late && record.start == closed.start {
                let Some(amount) = record.amount.merged(closed.amount.amount(), self.ties) else {
                    return false;
                };
                self.heap_bytes += amount.heap_bytes();
                self.heap_bytes -= record.amount.heap_bytes();
                record.amount = amount;
                return true;
            }
        }
        false
    }

    fn trim_series(&mut self, series: usize, windows_max: u64) {
        while self.series[series].len() as u64 > windows_max {
            self.drop_oldest(series);
        }
    }

    fn trim_bytes(&mut self, bytes_max: u64) {
        loop {
            let Some(series) = self.order.front().map(|series| *series as usize) else { return };
            let oldest = self.series[series].front();
            let live = oldest.is_some_and(|record| record.position == self.first as u32);
            if live && self.bytes() <= bytes_max {
                return;
            }
            if live {
                self.drop_oldest(series);
            }
            self.order.pop_front();
            self.first += 1;
        }
    }

    fn drop_oldest(&mut self, series: usize) {
        if let Some(record) = self.series[series].pop_front() {
            self.heap_bytes -= record.amount.heap_bytes();
            self.records -= 1;
        }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&(self.order.len() as u32).to_le_bytes());
        let (front, back) = self.order.as_slices();
        for series in front.iter().chain(back) {
            out.extend_from_slice(&series.to_le_bytes());
        }
        out.extend_from_slice(&(self.series.len() as u32).to_le_bytes());
        for records in &self.series {
            out.extend_from_slice(&(records.len() as u32).to_le_bytes());
            for record in records {
                out.extend_from_slice(&record.position.to_le_bytes());
                out.extend_from_slice(&record.start.to_le_bytes());
                out.extend_from_slice(&record.span_ms.to_le_bytes());
                out.extend_from_slice(&[u8::from(record.marks.late), u8::from(record.marks.synced)]);
                record.amount.put(out);
            }
        }
    }

    /// `is_kind` tells whether an amount is of a series' kind, and the series is there.
    pub(super) fn read(
        reader: &mut Reader<'_>,
        is_kind: impl Fn(u32, &Amount) -> bool,
    ) -> Result<History, Malformed> {
        let mut history = History { first: reader.u64()?, ..History::default() };
        let order = reader.u32()?;
        let bytes = reader.take((order as usize).checked_mul(4).ok_or(Malformed)?)?;
        history.order = bytes.as_chunks::<4>().0.iter().map(|id| u32::from_le_bytes(*id)).collect();
        history.first.checked_add(u64::from(order)).ok_or(Malformed)?;
        let count = reader.u32()?;
        for series in 0..count {
            let length = reader.u32()?;
            let mut records = VecDeque::new();
            let mut least = 0;
            for _ in 0..length {
                let position = reader.u32()?;
                let (start, span_ms) = (reader.u64()?, reader.u32()?);
                let marks = Marks { late: reader.bool()?, synced: reader.bool()? };
                let amount = Packed::read(reader)?;
                let offset = position.wrapping_sub(history.first as u32);
                let named = history.order.get(offset as usize) == Some(&series);
                if offset < least || !named || !is_kind(series, &amount.amount()) {
                    return Err(Malformed);
                }
                least = offset + 1;
                history.heap_bytes += amount.heap_bytes();
                records.push_back(Record { amount, start, span_ms, position, marks });
            }
            history.records += u64::from(length);
            records.shrink_to_fit();
            history.series.push(records);
        }
        if history.order.iter().any(|series| *series >= count) {
            return Err(Malformed);
        }
        Ok(history)
    }
}

impl Record {
    fn summary(&self, series: SeriesId) -> Summary {
        Summary {
            seq: None,
            series,
            start: SiteTime(self.start),
            span_ms: u64::from(self.span_ms),
            amount: self.amount.amount(),
            total: None,
            late: self.marks.late,
            synced: self.marks.synced,
        }
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
