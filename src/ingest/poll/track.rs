//! The pure part of polling: what a file's text says, and what a reading adds to a counter.

use regex::bytes::Regex;
use serde::{Deserialize, Serialize};
use tally_core::id::SourceId;
use tally_core::meter::{self, Meter, MeterRule, Moment, Step};
use tally_core::time::SiteTime;

use crate::accumulator::MeterRead;

/// What a polled number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PollKind {
    /// A cumulative count kept elsewhere: its increases are counted.
    Counter,
    /// A value that is observed.
    Sample,
}

/// One reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// Of a counter.
    Count(u64),
    /// Of a sample.
    Value(f64),
}

/// Why a file's text gave no reading. The text of an error does not change with the file's content
/// beyond the number it shows, so that a lasting state is logged once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadingError {
    /// The pattern is nowhere in the file.
    #[error("`pattern` matches nothing in the file")]
    NoMatch,
    /// It may be further on in the file.
    #[error("`pattern` matches nothing in the first 1 MiB of the file, which is all that is read")]
    NoMatchInPart,
    /// The pattern matches without its first group taking part.
    #[error("`pattern` matches, but its first group does not")]
    NoGroup,
    /// The group is no whole number of 64 bits.
    #[error("the first group of `pattern` is {0:?}; a counter must be a whole number from 0 to 2^64 - 1")]
    NotACount(String),
    /// The group is no number that can be observed.
    #[error("the first group of `pattern` is {0:?}; a sample must be a finite number of at most 10^18")]
    NotAValue(String),
    /// A counter beyond the value at which it begins again.
    #[error("the reading {reading} is above `ceiling` ({ceiling})")]
    AboveCeiling {
        /// What was read.
        reading: u64,
        /// What was configured.
        ceiling: u64,
    },
}

/// Finds the number in a file's text.
pub(super) fn read(
    text: &[u8],
    is_whole: bool,
    pattern: &Regex,
    kind: PollKind,
) -> Result<Reading, ReadingError> {
    let nothing = if is_whole { ReadingError::NoMatch } else { ReadingError::NoMatchInPart };
    let captures = pattern.captures(text).ok_or(nothing)?;
    let group = captures.get(1).ok_or(ReadingError::NoGroup)?.as_bytes();
    let digits = std::str::from_utf8(group).ok();
    match kind {
        PollKind::Counter => digits
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .map(Reading::Count)
            .ok_or_else(|| ReadingError::NotACount(shown(group))),
        PollKind::Sample => digits
            .and_then(|digits| digits.parse::<f64>().ok())
            .filter(|value| tally_core::report::Sum::from_value(*value).is_some())
            .map(Reading::Value)
            .ok_or_else(|| ReadingError::NotAValue(shown(group))),
    }
}

fn shown(group: &[u8]) -> String {
    String::from_utf8_lossy(&group[..group.len().min(40)]).into_owned()
}

/// How far a counter that is kept elsewhere has been counted by this process alone: where the site does not take
/// readings yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracker {
    meter: Option<Meter>,
}

impl Tracker {
    /// What a reading comes to, by the same rule by which the site takes readings. Nothing is changed before
    /// [`Tracker::counted`].
    pub fn judge(&self, read: &MeterRead, rule: &MeterRule) -> Step {
        let MeterRead { value, incarnation, .. } = *read;
        // One reader: what it reads later is later, wherever site time is set to.
        let heard = SiteTime(read.local_ms);
        let reading = meter::Reading { value, heard, source: SourceId(0), incarnation };
        meter::step(self.meter.as_ref(), &reading, rule, Moment { now: heard, grace_ms: 0 })
    }

    /// What it came to has been counted.
    pub fn counted(&mut self, step: &Step) {
        self.meter = Some(step.meter);
    }
}

/// Refuses a reading that cannot be one.
pub(super) fn below_ceiling(reading: u64, rule: &MeterRule) -> Result<(), ReadingError> {
    match rule.ceiling.filter(|&ceiling| reading > ceiling) {
        Some(ceiling) => Err(ReadingError::AboveCeiling { reading, ceiling }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> Regex {
        regex::bytes::RegexBuilder::new(text).multi_line(true).build().unwrap()
    }

    #[test]
    fn the_first_group_is_the_number() {
        let stat = b"cpu  1 2 3\nintr 77 0 0\nctxt 123456789\nbtime 1\n";
        let ctxt = pattern(r"^ctxt (\d+)");
        assert_eq!(read(stat, true, &ctxt, PollKind::Counter), Ok(Reading::Count(123_456_789)));
        assert_eq!(read(stat, true, &ctxt, PollKind::Sample), Ok(Reading::Value(123_456_789.0)));
        assert_eq!(
            read(b"0.52 0.58 0.59 1/389 9\n", true, &pattern(r"^(\S+)"), PollKind::Sample),
            Ok(Reading::Value(0.52))
        );
        assert_eq!(read(b"-5\n", true, &pattern(r"^(-?\d+)"), PollKind::Sample), Ok(Reading::Value(-5.0)));
    }

    #[test]
    fn a_text_without_the_number_is_an_error_that_says_so() {
        let any = pattern(r"^n (\S+)?");
        for (text, kind, error) in [
            (&b"m 1"[..], PollKind::Counter, ReadingError::NoMatch),
            (b"", PollKind::Counter, ReadingError::NoMatch),
            (b"n ", PollKind::Counter, ReadingError::NoGroup),
            (b"n -1", PollKind::Counter, ReadingError::NotACount("-1".to_owned())),
            (b"n +1", PollKind::Counter, ReadingError::NotACount("+1".to_owned())),
            (b"n 1.5", PollKind::Counter, ReadingError::NotACount("1.5".to_owned())),
            (
                b"n 18446744073709551616",
                PollKind::Counter,
                ReadingError::NotACount("18446744073709551616".to_owned()),
            ),
            (b"n nan", PollKind::Sample, ReadingError::NotAValue("nan".to_owned())),
            (b"n inf", PollKind::Sample, ReadingError::NotAValue("inf".to_owned())),
            (b"n 1e19", PollKind::Sample, ReadingError::NotAValue("1e19".to_owned())),
            (b"n \xff", PollKind::Sample, ReadingError::NoGroup),
        ] {
            assert_eq!(read(text, true, &any, kind), Err(error), "{text:?}");
        }
    }

    fn read_at(value: u64, local_ms: u64) -> MeterRead {
        MeterRead { value, heard: SiteTime(0), local_ms, incarnation: 0, stands: false }
    }

    #[test]
    fn what_could_not_be_counted_is_in_the_next_increase() {
        let mut tracker = Tracker::default();
        let judge = |tracker: &Tracker, value| tracker.judge(&read_at(value, value), &MeterRule::DEFAULT);
        let first = judge(&tracker, 10);
        assert_eq!(first.increase, 0);
        tracker.counted(&first);
        assert_eq!(judge(&tracker, 15).increase, 5);
        // Not taken by the accumulator: `counted` is not called.
        assert_eq!(judge(&tracker, 18).increase, 8);
    }

    #[test]
    fn a_reading_above_the_ceiling_is_refused() {
        let rule = MeterRule { ceiling: Some(256), ..MeterRule::DEFAULT };
        assert_eq!(below_ceiling(256, &rule), Ok(()));
        assert_eq!(below_ceiling(257, &rule), Err(ReadingError::AboveCeiling { reading: 257, ceiling: 256 }));
    }

    proptest! {
        #[test]
        fn a_wrapping_counter_is_followed_exactly(
            bits in 6u32..40, start in any::<u64>(), steps in prop::collection::vec(0u64..16, 1..100),
        ) {
            let ceiling = 1u64 << bits;
            let rule = MeterRule { ceiling: Some(ceiling), glitch_window_ms: 0, ..MeterRule::DEFAULT };
            let mut true_count = start % ceiling;
            let mut tracker = Tracker::default();
            let first = tracker.judge(&read_at(true_count, 0), &rule);
            tracker.counted(&first);
            let mut counted = 0;
            for step in &steps {
                true_count += step;
                let step = tracker.judge(&read_at(true_count % ceiling, 0), &rule);
                tracker.counted(&step);
                counted += step.increase;
            }
            prop_assert_eq!(counted, u128::from(steps.iter().sum::<u64>()));
        }

        #[test]
        fn no_text_panics(text in prop::collection::vec(any::<u8>(), 0..100)) {
            let any = pattern(r"(\S+)");
            let _ = read(&text, true, &any, PollKind::Counter);
            let _ = read(&text, false, &any, PollKind::Sample);
        }
    }
}
