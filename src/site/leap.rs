//! Leaps of site time: how far apart what was heard just before one and just after it can seem.
//!
//! After an outage a leader goes on with site time as the log has it, and jumps ahead when it knows the boxes' clocks. What
//! was heard under it before that was heard just now, though its time says otherwise.

use tally_core::time::{Elapsed, SiteTime};

use super::view::Stamp;
use crate::codec::{Malformed, Reader};

/// Leaders that follow each other within so long may all have been behind: none of them led for long enough to know the
/// clocks.
const TOGETHER_MS: u64 = 60_000;

/// The latest leap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Leap {
    /// When the present leader began, or the first of those that followed each other so quickly: site time, and elapsed
    /// time.
    led_since: u64,
    began: Elapsed,
    /// What was heard after `from`, up to `to`, may have been heard at any time up to `landed`.
    from: u64,
    to: u64,
    landed: u64,
}

impl Leap {
    /// A leader begins.
    pub(super) fn begin_term(&mut self, now: Stamp) {
        if self.led_since == 0 || now.elapsed.since_ms(self.began) > TOGETHER_MS {
            self.led_since = now.site.0;
            self.began = now.elapsed;
        }
    }

    /// Site time jumped ahead from one stamp to the next. Returns since when the leader's times were behind.
    pub(super) fn jump(&mut self, before: SiteTime, now: SiteTime) -> SiteTime {
        (self.from, self.to, self.landed) = (self.led_since, before.0, now.0);
        SiteTime(self.led_since)
    }

    /// An operator set site time back.
    pub(super) fn step_back(&mut self, to: SiteTime) {
        *self = Leap { led_since: self.led_since.min(to.0), began: self.began, ..Leap::default() };
    }

    /// What was heard then: up to when it can have been heard, by the time after the leap. `None`: it was heard then.
    pub(super) fn latest(&self, heard: SiteTime) -> Option<SiteTime> {
        (self.from < heard.0 && heard.0 <= self.to).then_some(SiteTime(self.landed))
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        for number in [self.led_since, self.began.0, self.from, self.to, self.landed] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Leap, Malformed> {
        let (led_since, began) = (reader.u64()?, Elapsed(reader.u64()?));
        Ok(Leap { led_since, began, from: reader.u64()?, to: reader.u64()?, landed: reader.u64()? })
    }
}
