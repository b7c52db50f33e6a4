//! What is known of the names that come in: which series each is, what its rates left over and where
//! its gauge stands. A line that was seen before costs a scan, a hash and an add.

use std::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashTable};
use tally_core::id::SourceId;
use tally_core::report::{ADD_MAX, Amount, Kind, Sample, Sum};
use tally_core::time::SiteTime;

use super::number::{Decimal, Fraction};
use super::parse::{self, Line, Reason, What};
use crate::accumulator::{Bulk, NotTaken, Slot};
use crate::site::Refusal;

/// Spellings (names with their tags, as sent) that are remembered. Names from the network are
/// hostile: when there are more, all are forgotten, which costs time and no counts.
const CACHED_NAMES_MAX: usize = 65_536;
/// Likewise, in bytes of their texts.
const CACHED_NAMES_BYTES_MAX: usize = 8 << 20;

/// One sampled observation stands for so many at most: a lower rate is a mistake, and a few of them would fill a
/// series' count.
const WEIGHT_MAX: u64 = 1_000_000_000;

/// Names and series. A series has the place here that its slot has in the accumulator, which bounds them.
#[derive(Debug, Default)]
pub struct SeriesCache {
    hasher: DefaultHashBuilder,
    cached_names: HashTable<CachedName>,
    cached_names_bytes: usize,
    series: Vec<Option<Series>>,
    /// Where names are put together.
    text: Vec<u8>,
}

/// A name and its tags as they were sent, and the series that they mean.
#[derive(Debug)]
struct CachedName {
    text: Box<[u8]>,
    name_bytes: usize,
    kind: Kind,
    slot: Slot,
}

#[derive(Debug)]
struct Series {
    slot: Slot,
    /// What sampling rates left over: of a counter's amount, of how many observations one stands for.
    left: Fraction,
    /// Gauges: where they stand at this box.
    gauge: Sum,
}

/// What a line says of all its values.
#[derive(Clone, Copy, Debug)]
struct Terms {
    what: What,
    rate: Decimal,
    /// When it happened.
    at: SiteTime,
    /// In the window of that time, not in the one that is open now.
    past: bool,
}

impl SeriesCache {
    /// Takes what a line says; a value that is refused does not hold up its neighbours, but one that is no number
    /// does: such a line is refused whole. Returns how many values were taken.
    pub fn take(&mut self, bulk: &mut Bulk<'_>, line: &[u8], mut refused: impl FnMut(Reason)) -> u64 {
        let found = Line::parse(line).and_then(|line| {
            if line.is_packed() {
                line.has_numbers()?;
            }
            Ok((line, self.find(bulk, &line)?))
        });
        let (line, mut slot) = match found {
            Ok(found) => found,
            Err(reason) => {
                refused(reason);
                return 0;
            }
        };
        let mut taken = 0;
        for value in line.each_value() {
            let result = match self.take_value(bulk, slot, &line, value) {
                // Another name had its place meanwhile.
                Err(NotCounted::Evicted) => match self.find_again(bulk, &line, slot) {
                    Ok(again) => {
                        slot = again;
                        self.take_value(bulk, slot, &line, value)
                    }
                    Err(reason) => Err(NotCounted::Reason(reason)),
                },
                result => result,
            };
            match result {
                Ok(()) => taken += 1,
                Err(NotCounted::Reason(reason)) => refused(reason),
                // One lock holds over both looks.
                Err(NotCounted::Evicted) => refused(Reason::TooManySeries),
            }
        }
        taken
    }

    #[inline]
    fn take_value(
        &mut self,
        bulk: &mut Bulk<'_>,
        slot: Slot,
        line: &Line<'_>,
        value: &[u8],
    ) -> Result<(), NotCounted> {
        let Some(Some(series)) = self.series.get_mut(slot.index()).filter(|series| is_of(series, slot))
        else {
            return Err(NotCounted::Evicted);
        };
        if line.time_s.is_none()
            && line.what == What::Count
            && line.rate == Decimal::ONE
            && let Some(number) = parse::plain_count(value)
        {
            if number > 0 {
                bulk.count(slot, number)?;
            }
            return Ok(());
        }
        series.take(bulk, &Terms::of(bulk, slot, line), value)
    }

    fn find(&mut self, bulk: &mut Bulk<'_>, line: &Line<'_>) -> Result<Slot, Reason> {
        let kind = kind_of(line);
        let hash = hash_of(&self.hasher, line.name, line.tags, kind);
        match self.cached_names.find(hash, |known| known.is(line, kind)) {
            Some(known) => Ok(known.slot),
            None => {
                something_counts(line)?;
                let slot = self.learn(bulk, line, kind)?;
                self.remember(hash, line, kind, slot);
                Ok(slot)
            }
        }
    }

    /// The series of a line whose slot was given to another; what its rates left over goes with it if it is still here.
    fn find_again(&mut self, bulk: &mut Bulk<'_>, line: &Line<'_>, gone: Slot) -> Result<Slot, Reason> {
        let kind = kind_of(line);
        let hash = hash_of(&self.hasher, line.name, line.tags, kind);
        if let Ok(known) = self.cached_names.find_entry(hash, |known| known.is(line, kind)) {
            let (cached_name, _) = known.remove();
            self.cached_names_bytes -= cached_name.text.len();
        }
        let kept =
            self.series.get_mut(gone.index()).filter(|series| is_of(series, gone)).and_then(Option::take);
        let slot = self.learn(bulk, line, kind)?;
        self.remember(hash, line, kind, slot);
        if let (Some(kept), Some(Some(series))) = (kept, self.series.get_mut(slot.index())) {
            (series.left, series.gauge) = (kept.left, kept.gauge);
        }
        Ok(slot)
    }

    /// The series of a line that was not seen before.
    fn learn(&mut self, bulk: &mut Bulk<'_>, line: &Line<'_>, kind: Kind) -> Result<Slot, Reason> {
        let name = line.series(&mut self.text)?;
        let slot = bulk.slot(name, kind).map_err(reason_of)?;
        if self.series.len() <= slot.index() {
            self.series.resize_with(slot.index() + 1, || None);
        }
        let place = &mut self.series[slot.index()];
        if !is_of(place, slot) {
            *place = Some(Series { slot, left: Fraction::ZERO, gauge: Sum::default() });
        }
        Ok(slot)
    }

    fn remember(&mut self, hash: u64, line: &Line<'_>, kind: Kind, slot: Slot) {
        let text = [line.name, line.tags].concat().into_boxed_slice();
        if self.cached_names.len() >= CACHED_NAMES_MAX
            || self.cached_names_bytes + text.len() > CACHED_NAMES_BYTES_MAX
        {
            self.forget_cached_names();
        }
        self.cached_names_bytes += text.len();
        let cached_name = CachedName { text, name_bytes: line.name.len(), kind, slot };
        let SeriesCache { hasher, cached_names, .. } = self;
        cached_names.insert_unique(hash, cached_name, |cached_name| {
            let (name, tags) = cached_name.text.split_at(cached_name.name_bytes);
            hash_of(hasher, name, tags, cached_name.kind)
        });
    }

    #[cfg(test)]
    pub(super) fn cached_names_kept(&self) -> usize {
        self.cached_names.len()
    }

    #[cfg(test)]
    pub(super) fn series_kept(&self) -> usize {
        self.series.len()
    }

    fn forget_cached_names(&mut self) {
        self.cached_names.clear();
        self.cached_names_bytes = 0;
    }
}

/// Whether the place belongs to the series of this slot.
fn is_of(place: &Option<Series>, slot: Slot) -> bool {
    place.as_ref().is_some_and(|series| series.slot == slot)
}

impl CachedName {
    fn is(&self, line: &Line<'_>, kind: Kind) -> bool {
        let (name, tags) = self.text.split_at(self.name_bytes);
        name == line.name && tags == line.tags && self.kind == kind
    }
}

/// Why a value was not counted.
enum NotCounted {
    Reason(Reason),
    /// The slot was given to another series.
    Evicted,
}

impl From<Reason> for NotCounted {
    fn from(reason: Reason) -> NotCounted {
        NotCounted::Reason(reason)
    }
}

impl From<NotTaken> for NotCounted {
    fn from(why: NotTaken) -> NotCounted {
        if why == NotTaken::Evicted { NotCounted::Evicted } else { NotCounted::Reason(reason_of(why)) }
    }
}

impl Terms {
    fn of(bulk: &Bulk<'_>, slot: Slot, line: &Line<'_>) -> Terms {
        let said = line.time_s.and_then(|time_s| time_s.checked_mul(1000)).map(SiteTime);
        let past = said.filter(|at| bulk.open_at(slot, *at));
        let at = past.unwrap_or(bulk.now());
        Terms { what: line.what, rate: line.rate, at, past: past.is_some() }
    }
}

impl Series {
    fn take(&mut self, bulk: &mut Bulk<'_>, terms: &Terms, value: &[u8]) -> Result<(), NotCounted> {
        match terms.what {
            What::Count => self.count(bulk, terms, value),
            What::Gauge => self.gauge(bulk, terms, value),
            What::Observe => {
                // One that was sampled stands for several of the same value.
                let (weight, left) = self.scaled(Decimal::ONE, terms.rate, WEIGHT_MAX)?;
                let (value, _) = parse::sample(value)?;
                self.observe(bulk, terms, value, weight)?;
                self.left = left;
                Ok(())
            }
        }
    }

    fn count(&mut self, bulk: &mut Bulk<'_>, terms: &Terms, value: &[u8]) -> Result<(), NotCounted> {
        let (number, left) = self.scaled(parse::count(value)?, terms.rate, ADD_MAX)?;
        if number > 0 {
            self.add(bulk, terms, Amount::Counter(u128::from(number)))?;
        }
        self.left = left;
        Ok(())
    }

    /// A number divided by a rate, whole, with what was left over before; and what is now.
    fn scaled(&self, number: Decimal, rate: Decimal, max: u64) -> Result<(u64, Fraction), Reason> {
        if rate == Decimal::ONE && number == Decimal::ONE {
            return Ok((1, self.left));
        }
        let (whole, part) = number.over(rate, max).ok_or(Reason::TooLarge)?;
        let mut left = self.left;
        let whole = whole + left.carry(part);
        Ok((whole, left))
    }

    fn gauge(&mut self, bulk: &mut Bulk<'_>, terms: &Terms, value: &[u8]) -> Result<(), NotCounted> {
        let (value, moves) = parse::sample(value)?;
        let sum = Sum::from_value(value).ok_or(Reason::TooLarge)?;
        if !moves {
            self.observe(bulk, terms, value, 1)?;
            self.gauge = sum;
            return Ok(());
        }
        // In units of 10^-9, so that ten moves of 0.1 make 1.
        let moved = Sum(self.gauge.0 + sum.0);
        self.observe(bulk, terms, moved.as_f64(), 1)?;
        self.gauge = moved;
        Ok(())
    }

    /// `weight` observations of a value.
    fn observe(&self, bulk: &mut Bulk<'_>, terms: &Terms, value: f64, weight: u64) -> Result<(), NotCounted> {
        // The batch puts the box's own source in.
        let mut sample = Sample::observed(value, terms.at, SourceId(0)).ok_or(Reason::TooLarge)?;
        sample.count = weight;
        sample.sum = Sum(sample.sum.0.checked_mul(i128::from(weight)).ok_or(Reason::TooLarge)?);
        if !sample.is_bounded() {
            return Err(Reason::TooLarge.into());
        }
        self.add(bulk, terms, Amount::Sample(sample))
    }

    fn add(&self, bulk: &mut Bulk<'_>, terms: &Terms, amount: Amount) -> Result<(), NotCounted> {
        let added =
            if terms.past { bulk.add_at(self.slot, terms.at, amount) } else { bulk.add(self.slot, amount) };
        Ok(added?)
    }
}

fn kind_of(line: &Line<'_>) -> Kind {
    match line.what {
        What::Count => Kind::Counter,
        What::Gauge | What::Observe => Kind::Sample,
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

fn reason_of(why: NotTaken) -> Reason {
    match why {
        NotTaken::Refused(Refusal::WrongKind { .. }) => Reason::WrongKind,
        NotTaken::Refused(Refusal::TooManySeries | Refusal::TooManyMeters)
        | NotTaken::TooManyNew
        | NotTaken::Evicted => Reason::TooManySeries,
        NotTaken::Refused(Refusal::Overflow) => Reason::Overflow,
        // No slot says that it was removed: it is only where a batch is applied.
        NotTaken::Refused(Refusal::WindowInFuture | Refusal::Malformed | Refusal::Removed) => {
            Reason::BadValue
        }
        NotTaken::LongName(_) => Reason::LongNameYet,
    }
}
