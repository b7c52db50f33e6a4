//! Spans of site time that were lived through and then stepped back from: windows in there were summarised once, so
//! what they get when site time comes by again is an addend, marked late.

use super::view::Stamp;
use crate::codec::{Malformed, Reader};

/// So many spans are told apart; beyond, the two oldest become one.
const SPANS_MAX: usize = 8;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    /// Where the present unbroken run of site time began.
    run: u64,
    /// From (included) and to (excluded), in the order in which they were left.
    spans: Vec<(u64, u64)>,
}

impl Passed {
    pub(super) const fn new() -> Passed {
        Passed { run: 0, spans: Vec::new() }
    }

    /// Site time went on from one stamp to the next. A jump by more than `slack_ms` begins a run: what it jumped over
    /// was not lived through.
    pub(super) fn advance(&mut self, before: Stamp, now: Stamp, slack_ms: u64) {
        let passed_ms = now.elapsed.since_ms(before.elapsed);
        if now.site.0 > before.site.0.saturating_add(passed_ms).saturating_add(slack_ms) {
            self.run = now.site.0;
        }
    }

    /// An operator stepped ahead.
    pub(super) fn step_ahead(&mut self, to: u64) {
        self.run = to;
    }

    /// An operator stepped back to `to`. Windows that ended at `closed` or before were summarised, and those that begin
    /// from `ahead.0` on and before `ahead.1` are summarised now.
    pub(super) fn step_back(&mut self, to: u64, closed: u64, ahead: (u64, u64)) {
        for (from, until) in [(self.run.max(to), closed), (self.run.max(ahead.0), ahead.1)] {
            if from < until {
                self.spans.push((from, until));
            }
        }
        while self.spans.len() > SPANS_MAX {
            let oldest = self.spans.remove(0);
            let next = &mut self.spans[0];
            *next = (next.0.min(oldest.0), next.1.max(oldest.1));
        }
        // A run that was stepped back into goes on.
        self.run = self.run.min(to);
    }

    /// Whether a part of a window was summarised before.
    pub(super) fn overlaps(&self, start: u64, end: u64) -> bool {
        self.spans.iter().any(|(from, until)| start < *until && end > *from)
    }

    /// Whether a moment was lived through before.
    pub(super) fn contains(&self, at: u64) -> bool {
        self.spans.iter().any(|(from, until)| (*from..*until).contains(&at))
    }

    /// All windows up to there are closed again.
    pub(super) fn forget(&mut self, closed: u64) {
        self.spans.retain(|(_, until)| *until > closed);
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.run.to_le_bytes());
        out.push(self.spans.len() as u8);
        for (from, until) in &self.spans {
            out.extend_from_slice(&from.to_le_bytes());
            out.extend_from_slice(&until.to_le_bytes());
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Passed, Malformed> {
        let run = reader.u64()?;
        let count = usize::from(reader.u8()?);
        if count > SPANS_MAX {
            return Err(Malformed);
        }
        let spans = (0..count).map(|_| Ok((reader.u64()?, reader.u64()?))).collect::<Result<Vec<_>, _>>()?;
        if spans.iter().any(|(from, until)| from >= until) {
            return Err(Malformed);
        }
        Ok(Passed { run, spans })
    }
}
