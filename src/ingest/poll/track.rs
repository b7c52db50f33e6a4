//! The pure part of polling: what a file's text says, and what a reading adds to a counter.

use regex::bytes::Regex;
use serde::{Deserialize, Serialize};

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
    /// The pattern matches without its first group taking part.
    #[error("`pattern` matches, but its first group does not")]
    NoGroup,
    /// The group is no whole number of 64 bits.
    #[error("the first group of `pattern` is {0:?}, a counter is a whole number from 0 to 2^64 - 1")]
    NotACount(String),
    /// The group is no number that can be observed.
    #[error("the first group of `pattern` is {0:?}, a sample is a finite number of at most 10^18")]
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
pub(super) fn read(text: &[u8], pattern: &Regex, kind: PollKind) -> Result<Reading, ReadingError> {
    let captures = pattern.captures(text).ok_or(ReadingError::NoMatch)?;
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

/// How far a counter that is kept elsewhere has been counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracker {
    ceiling: Option<u64>,
    last: Option<u64>,
}

impl Tracker {
    /// `ceiling`: the value at which the counter begins again at 0 (4294967296 for one of 32 bits).
    pub fn new(ceiling: Option<u64>) -> Tracker {
        Tracker { ceiling, last: None }
    }

    /// What a reading adds to what was counted. The first one sets the base and adds nothing. One
    /// that goes back began again at 0: at a restart, or at the ceiling if there is one.
    pub fn increase(&self, reading: u64) -> Result<u64, ReadingError> {
        if let Some(ceiling) = self.ceiling.filter(|&ceiling| reading > ceiling) {
            return Err(ReadingError::AboveCeiling { reading, ceiling });
        }
        Ok(match (self.last, self.ceiling) {
            (None, _) => 0,
            (Some(last), _) if reading >= last => reading - last,
            // `last` was not above the ceiling, and `reading` is below `last`.
            (Some(last), Some(ceiling)) => ceiling - last + reading,
            (Some(_), None) => reading,
        })
    }

    /// The increase up to this reading has been counted.
    pub fn counted(&mut self, reading: u64) {
        self.last = Some(reading);
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
        assert_eq!(read(stat, &ctxt, PollKind::Counter), Ok(Reading::Count(123_456_789)));
        assert_eq!(read(stat, &ctxt, PollKind::Sample), Ok(Reading::Value(123_456_789.0)));
        assert_eq!(
            read(b"0.52 0.58 0.59 1/389 9\n", &pattern(r"^(\S+)"), PollKind::Sample),
            Ok(Reading::Value(0.52))
        );
        assert_eq!(read(b"-5\n", &pattern(r"^(-?\d+)"), PollKind::Sample), Ok(Reading::Value(-5.0)));
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
            assert_eq!(read(text, &any, kind), Err(error), "{text:?}");
        }
    }

    /// Feeds readings to a tracker and returns the increases.
    fn increases(ceiling: Option<u64>, readings: &[u64]) -> Vec<u64> {
        let mut tracker = Tracker::new(ceiling);
        let step = |&reading: &u64| {
            let increase = tracker.increase(reading).unwrap();
            tracker.counted(reading);
            increase
        };
        readings.iter().map(step).collect()
    }

    #[test]
    fn increases_are_counted_from_the_first_reading_on() {
        for (ceiling, readings, expected) in [
            (None, &[1_000][..], &[0][..]),
            (None, &[1_000, 1_000, 1_010], &[0, 0, 10]),
            // A reboot: the new value is the increase since zero.
            (None, &[1_000, 7, 9], &[0, 7, 2]),
            (None, &[1_000, 0, 9], &[0, 0, 9]),
            (None, &[0, u64::MAX, 5], &[0, u64::MAX, 5]),
            // A wrap of 8 bits.
            (Some(256), &[250, 255, 4], &[0, 5, 5]),
            (Some(256), &[250, 256, 0, 1], &[0, 6, 0, 1]),
            (Some(1 << 32), &[u64::from(u32::MAX), 0], &[0, 1]),
            (Some(u64::MAX), &[u64::MAX, u64::MAX - 1], &[0, u64::MAX - 1]),
        ] {
            assert_eq!(increases(ceiling, readings), expected, "{ceiling:?} {readings:?}");
        }
    }

    #[test]
    fn a_reading_above_the_ceiling_is_refused_and_moves_nothing() {
        let mut tracker = Tracker::new(Some(256));
        tracker.counted(200);
        assert_eq!(tracker.increase(257), Err(ReadingError::AboveCeiling { reading: 257, ceiling: 256 }));
        assert_eq!(tracker.increase(201), Ok(1));
    }

    #[test]
    fn what_could_not_be_counted_is_in_the_next_increase() {
        let mut tracker = Tracker::new(None);
        tracker.counted(10);
        assert_eq!(tracker.increase(15), Ok(5));
        // Not taken by the accumulator: `counted` is not called.
        assert_eq!(tracker.increase(18), Ok(8));
    }

    proptest! {
        #[test]
        fn a_wrapping_counter_is_followed_exactly(
            bits in 4u32..40, start in any::<u64>(), steps in prop::collection::vec(0u64..16, 1..100),
        ) {
            let ceiling = 1u64 << bits;
            let mut true_count = start % ceiling;
            let mut readings = vec![true_count];
            for step in &steps {
                true_count += step;
                readings.push(true_count % ceiling);
            }
            let counted: u64 = increases(Some(ceiling), &readings).iter().sum();
            prop_assert_eq!(counted, steps.iter().sum::<u64>());
        }

        #[test]
        fn no_text_panics(text in prop::collection::vec(any::<u8>(), 0..100)) {
            let any = pattern(r"(\S+)");
            let _ = read(&text, &any, PollKind::Counter);
            let _ = read(&text, &any, PollKind::Sample);
        }
    }
}
