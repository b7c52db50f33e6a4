//! Leaps of site time: how far apart what was heard just before one and just after it can seem.
//!
//! After an outage a leader goes on with site time as the log has it, and jumps ahead when it knows the boxes' clocks. What
//! was heard under it before that was heard just now, though its time says otherwise.

use tally_core::time::SiteTime;

use crate::codec::{Malformed, Reader};

/// The latest leap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Leap {
    /// When the present leader began, site time.
    led_since: u64,
    /// What was heard after `from`, up to `to`, may have been heard up to `by_ms` later than that.
    from: u64,
    to: u64,
    by_ms: u64,
}

impl Leap {
    /// A leader begins.
    pub(super) fn begin_term(&mut self, now: SiteTime) {
        self.led_since = now.0;
    }

    /// Site time jumped ahead, by so much more than what passed since `before`. Returns since when the leader's times
    /// were behind.
    pub(super) fn jump(&mut self, before: SiteTime, by_ms: u64) -> SiteTime {
        let since = self.led_since;
        // A second jump of the same leader: what came before the first is two jumps behind.
        let is_second = self.by_ms > 0 && self.from == since;
        self.from = since;
        self.to = before.0;
        self.by_ms = by_ms.saturating_add(if is_second { self.by_ms } else { 0 });
        SiteTime(since)
    }

    /// An operator set site time back.
    pub(super) fn step_back(&mut self, to: SiteTime) {
        *self = Leap { led_since: self.led_since.min(to.0), ..Leap::default() };
    }

    /// How much later than its time says something can have been heard, in milliseconds.
    pub(super) fn slack_ms(&self, heard: SiteTime) -> u64 {
        if self.from < heard.0 && heard.0 <= self.to { self.by_ms } else { 0 }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        for number in [self.led_since, self.from, self.to, self.by_ms] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Leap, Malformed> {
        Ok(Leap { led_since: reader.u64()?, from: reader.u64()?, to: reader.u64()?, by_ms: reader.u64()? })
    }
}
