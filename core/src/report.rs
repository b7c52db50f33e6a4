//! Amounts and how they merge; how the reports of an epoch are numbered and judged.
//!
//! Merging is associative for every kind, and commutative but for one thing: of two values that one
//! source observed in the same millisecond, the later to arrive is `last`. Sums of samples are
//! fixed-point integers, not floats; `last` is decided by time, then by source, then by arrival.

use core::cmp::Ordering;
use core::fmt;

use crate::id::{ReportNumber, SourceId};
use crate::time::SiteTime;

/// The largest amount of one add: 2^53 - 1, what every JSON reader can hold. A merged cell can be more.
pub const ADD_MAX: u64 = (1 << 53) - 1;

/// The largest magnitude of one sampled value.
pub const SAMPLE_MAGNITUDE_MAX: f64 = 1e18;

/// The most values of one reported sample: 2^53 - 1, like one add. More would let a few reports fill
/// a series' count, after which it takes nothing more.
pub const SAMPLE_COUNT_MAX: u64 = ADD_MAX;

/// The largest magnitude of the sum of one reported sample: of nearly 10,000 values that are as large as any. More would let a
/// few reports fill a series' sum, after which it takes nothing more.
pub const SAMPLE_SUM_MAX: Sum = Sum(10_000 * 1_000_000_000_000_000_000 * Sum::UNITS);

/// What a series holds, for life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Adds of 1 or more; the total never falls.
    Counter,
    /// Adds of either sign.
    Updown,
    /// Observed values: count, sum, min, max, last.
    Sample,
}

impl Kind {
    /// The name in every interface.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Updown => "updown",
            Kind::Sample => "sample",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A sum of samples in units of 10^-9: exact for decimals of up to nine places, whatever the order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sum(pub i128);

impl Sum {
    /// How many units make 1.
    pub const UNITS: i128 = 1_000_000_000;

    /// The nearest sum to one value (halves away from zero), which is finite and at most
    /// [`SAMPLE_MAGNITUDE_MAX`] in magnitude; otherwise `None`.
    #[must_use]
    pub fn from_value(value: f64) -> Option<Sum> {
        if !value.is_finite() || value.abs() > SAMPLE_MAGNITUDE_MAX {
            return None;
        }
        // The cast cuts towards zero, so a half in the value's direction rounds to nearest.
        let units = value * 1e9;
        let half = if value < 0.0 { -0.5 } else { 0.5 };
        // From 2^52 on every float is whole, and adding a half could round up.
        let whole = if units.abs() < 4_503_599_627_370_496.0 { units + half } else { units };
        Some(Sum(whole as i128))
    }

    /// The nearest float.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let units = Sum::UNITS.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, mut fraction) = (magnitude / units, magnitude % units);
        write!(f, "{sign}{whole}")?;
        if fraction == 0 {
            return Ok(());
        }
        let mut places = 9;
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            places -= 1;
        }
        write!(f, ".{fraction:0places$}")
    }
}

/// What was observed since the previous report. `count` is 1 or more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub sum: Sum,
    /// The least of them.
    pub min: f64,
    /// The greatest of them.
    pub max: f64,
    /// The latest of them.
    pub last: Last,
}

/// The latest value of a sample, ordered by time, then by source, then by arrival ([`Ties`]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Last {
    /// When it was observed.
    pub at: SiteTime,
    /// Who observed it.
    pub source: SourceId,
    /// What was observed.
    pub value: f64,
}

/// Which of two values with the same time and the same source is the latest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ties {
    /// The larger: the rule of sites at feature level 1.
    Larger,
    /// The one that arrived later.
    #[default]
    Later,
}

impl Last {
    /// `other` arrived after this one.
    fn latest(self, other: Last, ties: Ties) -> Last {
        let order = (self.at, self.source).cmp(&(other.at, other.source));
        let tie = match ties {
            Ties::Larger => self.value.total_cmp(&other.value),
            Ties::Later => Ordering::Less,
        };
        if order.then(tie).is_lt() { other } else { self }
    }
}

impl Sample {
    /// One observed value; `None` if it is not finite or too large. Negative zero becomes zero.
    #[must_use]
    pub fn observed(value: f64, at: SiteTime, source: SourceId) -> Option<Sample> {
        let value = value + 0.0;
        let sum = Sum::from_value(value)?;
        Some(Sample { count: 1, sum, min: value, max: value, last: Last { at, source, value } })
    }

    /// Both together; `other` arrived later.
    ///
    /// # Errors
    /// [`Overflow`] if the sum does not fit.
    pub fn merged(self, other: Sample) -> Result<Sample, Overflow> {
        self.merged_by(other, Ties::Later)
    }

    /// Both together, with a rule for ties of `last`; `other` arrived later.
    ///
    /// # Errors
    /// [`Overflow`] if the sum does not fit.
    pub fn merged_by(self, other: Sample, ties: Ties) -> Result<Sample, Overflow> {
        Ok(Sample {
            count: self.count.checked_add(other.count).ok_or(Overflow)?,
            sum: Sum(self.sum.0.checked_add(other.sum.0).ok_or(Overflow)?),
            min: if other.min < self.min { other.min } else { self.min },
            max: if other.max > self.max { other.max } else { self.max },
            last: self.last.latest(other.last, ties),
        })
    }

    /// Whether the parts can belong together: what a report from outside must show.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        let bounded = |value: f64| value.is_finite() && value.abs() <= SAMPLE_MAGNITUDE_MAX;
        self.count > 0
            && bounded(self.min)
            && bounded(self.max)
            && bounded(self.last.value)
            && self.min <= self.last.value
            && self.last.value <= self.max
            && self.sum.as_f64().abs() <= SAMPLE_MAGNITUDE_MAX * self.count as f64 * 1.000_001
    }

    /// Whether it has no more than one sample may bring at once: [`SAMPLE_COUNT_MAX`] and [`SAMPLE_SUM_MAX`].
    #[must_use]
    pub const fn is_bounded(&self) -> bool {
        self.count <= SAMPLE_COUNT_MAX && self.sum.0.unsigned_abs() <= SAMPLE_SUM_MAX.0.unsigned_abs()
    }
}

/// What a series did in some span: a cell of a report, an open window, a summary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// The sum of adds.
    Counter(u128),
    /// The sums of positive and of negative adds, both as magnitudes.
    Updown {
        /// What was added.
        up: u128,
        /// What was taken away.
        down: u128,
    },
    /// Observed values.
    Sample(Sample),
}

/// A sum left the range of its type; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sum would overflow")
    }
}

impl core::error::Error for Overflow {}

/// Why two amounts do not merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeError {
    /// They are of different kinds.
    Kinds,
    /// The sum would overflow.
    Overflow,
}

impl From<Overflow> for MergeError {
    fn from(_: Overflow) -> Self {
        MergeError::Overflow
    }
}

impl Amount {
    /// One signed add to an updown.
    #[must_use]
    pub fn updown(add: i128) -> Amount {
        let magnitude = add.unsigned_abs();
        if add < 0 {
            Amount::Updown { up: 0, down: magnitude }
        } else {
            Amount::Updown { up: magnitude, down: 0 }
        }
    }

    /// The kind of series it belongs to.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Amount::Counter(_) => Kind::Counter,
            Amount::Updown { .. } => Kind::Updown,
            Amount::Sample(_) => Kind::Sample,
        }
    }

    /// Both together; `other` arrived later. Neither is changed on an error.
    ///
    /// # Errors
    /// [`MergeError`] if the kinds differ or the sum does not fit.
    pub fn merged(self, other: Amount) -> Result<Amount, MergeError> {
        self.merged_by(other, Ties::Later)
    }

    /// Both together, with a rule for ties of a sample's `last`.
    ///
    /// # Errors
    /// [`MergeError`] if the kinds differ or the sum does not fit.
    pub fn merged_by(self, other: Amount, ties: Ties) -> Result<Amount, MergeError> {
        let add = |a: u128, b: u128| a.checked_add(b).ok_or(MergeError::Overflow);
        Ok(match (self, other) {
            (Amount::Counter(a), Amount::Counter(b)) => Amount::Counter(add(a, b)?),
            (Amount::Updown { up, down }, Amount::Updown { up: more_up, down: more_down }) => {
                Amount::Updown { up: add(up, more_up)?, down: add(down, more_down)? }
            }
            (Amount::Sample(a), Amount::Sample(b)) => Amount::Sample(a.merged_by(b, ties)?),
            _ => return Err(MergeError::Kinds),
        })
    }

    /// What it adds to the series' total (for samples: to the count).
    ///
    /// # Errors
    /// [`Overflow`] if it does not fit.
    pub fn increase(&self) -> Result<i128, Overflow> {
        let signed = |value: u128| i128::try_from(value).map_err(|_| Overflow);
        match self {
            Amount::Counter(sum) => signed(*sum),
            Amount::Updown { up, down } => signed(*up)?.checked_sub(signed(*down)?).ok_or(Overflow),
            Amount::Sample(sample) => Ok(i128::from(sample.count)),
        }
    }
}

/// How far an epoch's reports have come at the site, and what the last one was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbering {
    /// The last number applied; `None` before the first report.
    pub last: Option<ReportNumber>,
    /// A hash of the last report's content.
    pub last_hash: u64,
}

/// What a report is to the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The next one: apply it.
    Next,
    /// The last one again: give its receipt, change nothing.
    Repeated,
    /// The last one's number with other content: refuse.
    Changed,
    /// Any other number: refuse.
    OutOfOrder,
}

impl Numbering {
    /// Judges a report by its number and a hash of its content.
    #[must_use]
    pub fn judge(&self, number: ReportNumber, hash: u64) -> Judgement {
        let next = self.last.map_or(ReportNumber::FIRST, ReportNumber::next);
        if number == next && self.last != Some(number) {
            Judgement::Next
        } else if self.last == Some(number) {
            if hash == self.last_hash { Judgement::Repeated } else { Judgement::Changed }
        } else {
            Judgement::OutOfOrder
        }
    }

    /// Takes the next report; call it only after [`Judgement::Next`].
    pub fn advance(&mut self, number: ReportNumber, hash: u64) {
        self.last = Some(number);
        self.last_hash = hash;
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
