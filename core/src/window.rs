//! Windows: spans of site time, aligned to the Unix epoch.

use crate::time::SiteTime;

/// The length of a window in milliseconds; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

/// The longest span a setting may name: 31 days.
pub const SPAN_MS_MAX: u64 = 31 * 24 * 3600 * 1000;

impl Span {
    /// The base span of a new site: 60 s.
    pub const DEFAULT: Span = Span(60_000);

    /// `None` for zero and for more than [`SPAN_MS_MAX`].
    #[must_use]
    pub const fn from_millis(millis: u64) -> Option<Span> {
        if millis == 0 || millis > SPAN_MS_MAX { None } else { Some(Span(millis)) }
    }

    /// In milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The start of the window of this span that `time` is in.
    #[must_use]
    pub const fn start_of(self, time: SiteTime) -> SiteTime {
        SiteTime(time.0 - time.0 % self.0)
    }

    /// The end (exclusive) of the window that starts at `start`.
    #[must_use]
    pub const fn end_of(self, start: SiteTime) -> SiteTime {
        SiteTime(start.0.saturating_add(self.0))
    }

    /// Whether windows of this span are made of whole windows of `base`.
    #[must_use]
    pub const fn is_multiple_of(self, base: Span) -> bool {
        self.0.is_multiple_of(base.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_moment_is_in_exactly_one_window(time in 0u64..1 << 50, span in 1u64..=SPAN_MS_MAX) {
            let span = Span::from_millis(span).unwrap();
            let start = span.start_of(SiteTime(time));
            prop_assert!(start.0 <= time && time < span.end_of(start).0);
            prop_assert_eq!(span.start_of(start), start);
            prop_assert_eq!(span.start_of(span.end_of(start)), span.end_of(start));
        }

        #[test]
        fn a_base_window_lies_whole_in_one_of_a_multiple(time in 0u64..1 << 50, base in 1u64..100_000, times in 1u64..100) {
            let base = Span::from_millis(base).unwrap();
            let long = Span::from_millis(base.as_millis() * times).unwrap();
            prop_assert!(long.is_multiple_of(base));
            let start = base.start_of(SiteTime(time));
            let last = SiteTime(base.end_of(start).0 - 1);
            prop_assert_eq!(long.start_of(start), long.start_of(last));
        }
    }

    #[test]
    fn no_window_has_no_length() {
        assert_eq!(Span::from_millis(0), None);
        assert_eq!(Span::from_millis(SPAN_MS_MAX + 1), None);
    }
}
