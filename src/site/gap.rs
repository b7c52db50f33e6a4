//! Numbers that are not given: those that the site gave before it was put back to an older state.
//!
//! The broker knows of them ([`crate::upstream`] tells it the last number before a summary with it goes out). A subscriber
//! has their summaries, so that other ones under the same numbers would be taken for repeats.

use super::Site;
use super::digest::mix;
use crate::codec::{Malformed, Reader};

/// The highest number that is passed over: far more than a site gives, and whole numbers in JSON go up to 2^53.
pub const NUMBER_PASSED_MAX: u64 = 1 << 52;

/// The latest gap in the numbers, and how many were ever passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberGap {
    /// The last number before it.
    pub after: u64,
    /// The last number in it.
    pub up_to: u64,
    /// When it came about, site time.
    pub at: u64,
    /// How many numbers were passed over in all, in earlier gaps, too.
    pub passed_over: u64,
}

impl NumberGap {
    pub(super) fn put(gap: Option<NumberGap>, out: &mut Vec<u8>) {
        let NumberGap { after, up_to, at, passed_over } =
            gap.unwrap_or(NumberGap { after: 0, up_to: 0, at: 0, passed_over: 0 });
        for number in [after, up_to, at, passed_over] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// `last`: the last number given.
    pub(super) fn read(reader: &mut Reader<'_>, last: u64) -> Result<Option<NumberGap>, Malformed> {
        let (after, up_to) = (reader.u64()?, reader.u64()?);
        let gap = NumberGap { after, up_to, at: reader.u64()?, passed_over: reader.u64()? };
        if up_to == 0 {
            return if (after, gap.at, gap.passed_over) == (0, 0, 0) { Ok(None) } else { Err(Malformed) };
        }
        if after >= up_to || up_to > last || gap.passed_over < up_to - after || gap.passed_over > up_to {
            return Err(Malformed);
        }
        Ok(Some(gap))
    }
}

impl Site {
    /// The latest gap in the numbers, if there is one.
    #[must_use]
    pub const fn number_gap(&self) -> Option<NumberGap> {
        self.gap
    }

    /// Gives no number up to this one any more. Only with everything delivered: what has a number is published first.
    pub(super) fn pass_over(&mut self, up_to: u64) {
        let after = self.outbox.last();
        let is_ahead = up_to > after && up_to <= NUMBER_PASSED_MAX;
        if !is_ahead || self.outbox.delivered_up_to() != after {
            return;
        }
        self.outbox.pass_over(up_to);
        let now = self.stamp.site.0;
        let before = self.gap.map_or(0, |gap| gap.passed_over);
        self.gap = Some(NumberGap { after, up_to, at: now, passed_over: before + (up_to - after) });
        // What was counted between the older state and now is not here: the totals may be less than they were.
        for id in self.series_ids().collect::<Vec<_>>() {
            let since = &mut self.table.since[id.0 as usize];
            *since = now.max(*since + 1);
            self.table.changed[id.0 as usize] = self.applied.0 + 1;
        }
        self.digest = mix(mix(self.digest, after), up_to);
    }
}

#[cfg(test)]
mod tests {
    use super::super::level::Level;
    use super::super::testing::*;
    use super::super::{BootstrapSettings, Site, entry};
    use super::*;
    use tally_core::report::Amount;

    #[test]
    fn numbers_are_passed_over_only_ahead_and_once_everything_is_delivered() {
        let mut driver = Driver::new();
        let mut reporter = driver.open("press3", 1);
        driver.add(&mut reporter, "parts", Amount::Counter(5));
        driver.pass(MINUTE + 3000);
        driver.close_due();
        let since = driver.site.since(driver.site.find("parts").unwrap());
        assert_eq!(driver.number_all().len(), 1);
        driver.apply(&entry::pass_over(9));
        assert_eq!((driver.site.numbered_last(), driver.site.number_gap()), (1, None), "1 is not delivered");
        driver.apply(&entry::delivered(1));
        for impossible in [0, 1, NUMBER_PASSED_MAX + 1, u64::MAX] {
            driver.apply(&entry::pass_over(impossible));
            assert_eq!(driver.site.numbered_last(), 1, "{impossible}");
        }
        driver.apply(&entry::pass_over(9));
        let gap = driver.site.number_gap().unwrap();
        assert_eq!((gap.after, gap.up_to, gap.passed_over), (1, 9, 8));
        assert!(
            driver.site.since(driver.site.find("parts").unwrap()) > since,
            "its total may be less than it was"
        );
        let bytes = driver.site.snapshot();
        let restored = Site::restore(&founding(), &bytes).unwrap();
        assert_eq!((restored.number_gap(), restored.snapshot() == bytes), (Some(gap), true));
        driver.add(&mut reporter, "parts", Amount::Counter(1));
        driver.pass(MINUTE + 3000);
        driver.close_due();
        let next = driver.number_all();
        assert_eq!((next[0].seq, next[0].total), (Some(10), Some(6)), "what was counted goes on");
        driver.apply(&entry::delivered(10));
        driver.apply(&entry::pass_over(12));
        assert_eq!(driver.site.number_gap().unwrap().passed_over, 10);
    }

    #[test]
    fn before_level_four_no_number_is_passed_over() {
        let founding = BootstrapSettings { level: Level::THREE, ..founding() };
        let mut driver = Driver { site: Site::new(&founding), ..Driver::new() };
        driver.apply(&entry::pass_over(9));
        assert_eq!((driver.site.numbered_last(), driver.site.number_gap()), (0, None));
        let bytes = driver.site.snapshot();
        assert_eq!(bytes[8], 5, "a box of the release before can read it");
        assert_eq!(Site::restore(&founding, &bytes).unwrap().snapshot(), bytes);
    }

    #[test]
    fn a_gap_that_cannot_be_is_damage() {
        let read = |numbers: [u64; 4]| {
            let bytes = numbers.map(u64::to_le_bytes).concat();
            NumberGap::read(&mut Reader::new(&bytes), 9)
        };
        assert_eq!(read([0; 4]), Ok(None));
        assert!(read([1, 9, 5, 8]).is_ok() && read([1, 9, 5, 9]).is_ok());
        for wrong in [[0, 0, 5, 0], [9, 9, 5, 1], [1, 10, 5, 9], [1, 9, 5, 7], [1, 9, 5, 10]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
