//! What is known of the names that come in: which series each is, what its rates left over and where
//! its gauge stands. A line that was seen before costs a scan, a hash and an add.

use std::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use tally_core::id::SourceId;
use tally_core::report::{ADD_MAX, Amount, Kind, Sample, Sum};
use tally_core::time::SiteTime;

use super::number::{Decimal, Fraction};
use super::parse::{self, Line, Reason, What};
use crate::accumulator::{Bulk, Slot};
use crate::site::Refusal;

/// Spellings (names with their tags, as sent) that are remembered. Names from the network are
/// hostile: when there are more, all are forgotten, which costs time and no counts.
const SPELLINGS_MAX: usize = 65_536;
/// Likewise, in bytes of their texts.
const SPELLINGS_BYTES_MAX: usize = 8 << 20;

/// Names and series. As many series as the accumulator admits, so it is bounded by that.
#[derive(Debug, Default)]
pub struct Book {
    hasher: DefaultHashBuilder,
    spellings: HashTable<Spelling>,
    spellings_bytes: usize,
    by_name: HashMap<Box<str>, usize>,
    series: Vec<Series>,
    /// Where names are put together.
    text: Vec<u8>,
}

/// A name and its tags as they were sent, and the series that they mean.
#[derive(Debug)]
struct Spelling {
    text: Box<[u8]>,
    name_bytes: usize,
    kind: Kind,
    series: usize,
}

#[derive(Debug)]
struct Series {
    slot: Slot,
    kind: Kind,
    /// Counters: what sampling rates left over.
    left: Fraction,
    /// Gauges: where they stand at this box.
    gauge: Sum,
}

impl Book {
    /// Takes what a line says; a value that is refused does not hold up its neighbours. Returns how
    /// many values were taken.
    pub fn take(
        &mut self,
        bulk: &mut Bulk<'_>,
        now: SiteTime,
        line: &[u8],
        mut refused: impl FnMut(Reason),
    ) -> u64 {
        let parsed = Line::parse(line).and_then(|line| Ok((line, self.find(bulk, &line)?)));
        let (line, series) = match parsed {
            Ok((line, series)) => (line, &mut self.series[series]),
            Err(reason) => {
                refused(reason);
                return 0;
            }
        };
        let mut taken = 0;
        for value in line.each_value() {
            let result = match line.what {
                What::Count => series.count(bulk, value, line.rate),
                What::Gauge => series.gauge(bulk, now, value),
                // A rate changes nothing here: a sample is what was observed.
                What::Observe => parse::sample(value).and_then(|(value, _)| series.observe(bulk, now, value)),
            };
            match result {
                Ok(()) => taken += 1,
                Err(reason) => refused(reason),
            }
        }
        taken
    }

    fn find(&mut self, bulk: &mut Bulk<'_>, line: &Line<'_>) -> Result<usize, Reason> {
        let kind = match line.what {
            What::Count => Kind::Counter,
            What::Gauge | What::Observe => Kind::Sample,
        };
        let hash = hash_of(&self.hasher, line.name, line.tags, kind);
        let known = self.spellings.find(hash, |known| {
            let (name, tags) = known.text.split_at(known.name_bytes);
            name == line.name && tags == line.tags && known.kind == kind
        });
        match known {
            Some(known) => Ok(known.series),
            None => {
                something_counts(line)?;
                let series = self.learn(bulk, line, kind)?;
                self.remember(hash, line, kind, series);
                Ok(series)
            }
        }
    }

    /// The series of a line that was not seen before.
    fn learn(&mut self, bulk: &mut Bulk<'_>, line: &Line<'_>, kind: Kind) -> Result<usize, Reason> {
        let name = line.series(&mut self.text)?;
        let known = self.by_name.get(name.as_str()).copied();
        if let Some(known) = known.filter(|&known| self.series[known].kind == kind) {
            return Ok(known);
        }
        let slot = bulk.slot(name, kind).map_err(reason_of)?;
        let series = Series { slot, kind, left: Fraction::ZERO, gauge: Sum::default() };
        match known {
            Some(known) => {
                self.series[known] = series;
                self.forget_spellings();
                Ok(known)
            }
            None => {
                self.by_name.insert(name.as_str().into(), self.series.len());
                self.series.push(series);
                Ok(self.series.len() - 1)
            }
        }
    }

    fn remember(&mut self, hash: u64, line: &Line<'_>, kind: Kind, series: usize) {
        let text = [line.name, line.tags].concat().into_boxed_slice();
        if self.spellings.len() >= SPELLINGS_MAX || self.spellings_bytes + text.len() > SPELLINGS_BYTES_MAX {
            self.forget_spellings();
        }
        self.spellings_bytes += text.len();
        let spelling = Spelling { text, name_bytes: line.name.len(), kind, series };
        let Book { hasher, spellings, .. } = self;
        spellings.insert_unique(hash, spelling, |spelling| {
            let (name, tags) = spelling.text.split_at(spelling.name_bytes);
            hash_of(hasher, name, tags, spelling.kind)
        });
    }

    #[cfg(test)]
    pub(super) fn spellings_kept(&self) -> usize {
        self.spellings.len()
    }

    fn forget_spellings(&mut self) {
        self.spellings.clear();
        self.spellings_bytes = 0;
    }
}

impl Series {
    fn count(&mut self, bulk: &mut Bulk<'_>, value: &[u8], rate: Decimal) -> Result<(), Reason> {
        if rate == Decimal::ONE
            && let Some(number) = parse::plain_count(value)
        {
            return if number > 0 { bulk.count(self.slot, number).map_err(reason_of) } else { Ok(()) };
        }
        let (whole, part) = parse::count(value)?.over(rate, ADD_MAX).ok_or(Reason::TooLarge)?;
        let mut left = self.left;
        let number = whole + left.carry(part);
        if number > 0 {
            bulk.count(self.slot, number).map_err(reason_of)?;
        }
        self.left = left;
        Ok(())
    }

    fn gauge(&mut self, bulk: &mut Bulk<'_>, now: SiteTime, value: &[u8]) -> Result<(), Reason> {
        let (value, moves) = parse::sample(value)?;
        let sum = Sum::from_value(value).ok_or(Reason::TooLarge)?;
        if !moves {
            self.observe(bulk, now, value)?;
            self.gauge = sum;
            return Ok(());
        }
        // In units of 10^-9, so that ten moves of 0.1 make 1.
        let moved = Sum(self.gauge.0 + sum.0);
        self.observe(bulk, now, moved.as_f64())?;
        self.gauge = moved;
        Ok(())
    }

    fn observe(&self, bulk: &mut Bulk<'_>, now: SiteTime, value: f64) -> Result<(), Reason> {
        // The batch puts the box's own source in.
        let sample = Sample::observed(value, now, SourceId(0)).ok_or(Reason::TooLarge)?;
        bulk.add(self.slot, Amount::Sample(sample)).map_err(reason_of)
    }
}

/// A line of which nothing counts makes no series and decides no kind: its first value's reason.
fn something_counts(line: &Line<'_>) -> Result<(), Reason> {
    let read = |value| match line.what {
        What::Count => parse::count(value).map(drop),
        What::Gauge | What::Observe => parse::sample(value).map(drop),
    };
    let mut first = Ok(());
    for result in line.each_value().map(read) {
        if result.is_ok() {
            return Ok(());
        }
        first = first.and(result);
    }
    first
}

fn hash_of(hasher: &DefaultHashBuilder, name: &[u8], tags: &[u8], kind: Kind) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write(name);
    if !tags.is_empty() {
        hasher.write(tags);
    }
    hasher.write_u8(kind as u8);
    hasher.finish()
}

fn reason_of(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::WrongKind { .. } => Reason::WrongKind,
        Refusal::TooManySeries | Refusal::TooManyMeters => Reason::TooManySeries,
        Refusal::Overflow => Reason::Overflow,
        Refusal::WindowInFuture | Refusal::Malformed => Reason::BadValue,
    }
}
