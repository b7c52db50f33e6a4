//! The body of `POST /v1/reports`, JSON or CBOR, as a checked report.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tally_core::id::{Epoch, ReportNumber, SeriesName, SourceId};
use tally_core::meter::{GLITCH_WINDOW_MS, GLITCH_WINDOW_MS_MAX, MeterRule};
use tally_core::report::{Amount, Last, SAMPLE_COUNT_MAX, SAMPLE_SUM_MAX, Sample, Sum};
use tally_core::time::SiteTime;

use super::decimal;
use super::map_only::MapOnly;
use super::problem::{Name, Problem};
use crate::identity::is_name;
use crate::request::{NamedReport, ReportAmount, ReportCell, ReportReading, UNTIMED};
use crate::site::{METER_NAME_BYTES_MAX, is_meter_name};

/// The most cells of one report.
pub const CELLS_MAX: usize = 1000;

/// The longest name of a meter's incarnation, in bytes.
const INCARNATION_BYTES_MAX: usize = 64;
/// Times of 48 bits, as in the log.
const TIME_MAX: u64 = (1 << 48) - 1;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `application/cbor`.
    Cbor,
}

impl Format {
    /// By the content type; JSON where there is none or another.
    pub(super) fn of(content_type: Option<&[u8]>) -> Format {
        let media = content_type.unwrap_or_default().split(|byte| *byte == b';').next().unwrap_or_default();
        if media.trim_ascii().eq_ignore_ascii_case(b"application/cbor") { Format::Cbor } else { Format::Json }
    }
}

/// Reads and checks a report. What depends on the site is checked where it is encoded: see [`UNTIMED`].
///
/// # Errors
/// What is wrong, and in which cell.
pub fn parse(body: &[u8], format: Format) -> Result<NamedReport, Problem> {
    match format {
        Format::Json => checked(
            serde_json::from_slice::<MapOnly<ReportBody<Box<RawValue>>>>(body)
                .map(|MapOnly(report)| report)
                .map_err(|error| Problem::malformed(format!("the body: {error}")))?,
        ),
        Format::Cbor => checked(
            serde_cbor::from_slice::<MapOnly<ReportBody<CborNumber>>>(body)
                .map(|MapOnly(report)| report)
                .map_err(|error| Problem::malformed(format!("the body as CBOR: {error}")))?,
        ),
    }
}

fn checked<S: ToSum>(body: ReportBody<S>) -> Result<NamedReport, Problem> {
    if !is_name(&body.source) {
        let detail = format!("source: {:?} is not 1 to 32 of a-z, 0-9 and -", shortened(&body.source));
        return Err(Problem::malformed(detail));
    }
    let epoch = body.epoch.parse().map(Epoch).map_err(|_| {
        let detail = format!(
            "epoch: {:?} is not what POST /v1/sources/{}/epochs answered, a decimal number as a string",
            shortened(&body.epoch),
            body.source
        );
        Problem::malformed(detail)
    })?;
    let number = ReportNumber::new(body.number)
        .ok_or_else(|| Problem::malformed("number: reports of an epoch are numbered from 1"))?;
    if body.cells.count > CELLS_MAX {
        let detail = format!(
            "cells: {} of them, a report has at most {CELLS_MAX}; send the others in the next report",
            body.cells.count
        );
        return Err(Problem::new(Name::TooLarge, detail));
    }
    let mut cells = Vec::with_capacity(body.cells.kept.len());
    for (place, cell) in body.cells.kept.into_iter().enumerate() {
        cells.push(cell.checked().map_err(|why| Problem::malformed(format!("cells[{place}]: {why}")))?);
    }
    Ok(NamedReport { source: body.source, epoch, number, cells })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound = "S: Deserialize<'de>")]
struct ReportBody<S> {
    source: String,
    epoch: String,
    number: u64,
    cells: Cells<S>,
}

/// Not more cells than a report may have, and how many there were.
struct Cells<S> {
    kept: Vec<CellBody<S>>,
    count: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound = "S: Deserialize<'de>")]
struct CellBody<S> {
    series: String,
    window: Option<u64>,
    add: Option<Whole>,
    sample: Option<MapOnly<SamplePart<S>>>,
    meter: Option<String>,
    reading: Option<u64>,
    heard: Option<u64>,
    incarnation: Option<String>,
    ceiling: Option<u64>,
    noise: Option<u64>,
    glitch_window: Option<u64>,
    step_max: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound = "S: Deserialize<'de>")]
struct SamplePart<S> {
    count: u64,
    sum: S,
    min: f64,
    max: f64,
    last: f64,
    last_at: Option<u64>,
}

impl<S: ToSum> CellBody<S> {
    fn checked(self) -> Result<ReportCell, String> {
        SeriesName::new(&self.series).map_err(|error| format!("series: {error}"))?;
        if self.is_reading() {
            return self.checked_reading();
        }
        let window = self.window.map(SiteTime);
        let amount = match (self.add, self.sample) {
            (Some(Whole(0)), None) => return Err("add: 0 adds nothing; leave the cell out".into()),
            (Some(Whole(add)), None) => ReportAmount::Add(add),
            (None, Some(MapOnly(sample))) => ReportAmount::Amount(Amount::Sample(sample.checked()?)),
            _ => return Err("a cell has one of \"add\", \"sample\" and \"reading\"".into()),
        };
        Ok(ReportCell { series: self.series, window, amount })
    }

    /// Whether it has anything that only a reading has.
    fn is_reading(&self) -> bool {
        let numbers = [self.reading, self.heard, self.ceiling, self.noise, self.glitch_window, self.step_max];
        self.meter.is_some() || self.incarnation.is_some() || numbers.iter().any(Option::is_some)
    }

    fn checked_reading(self) -> Result<ReportCell, String> {
        let (Some(meter), Some(value)) = (self.meter, self.reading) else {
            return Err(
                "a reading has \"meter\" and \"reading\"; \"heard\" and the rest say more of it".into()
            );
        };
        if self.add.is_some() || self.sample.is_some() || self.window.is_some() {
            return Err(
                "a reading has no \"add\", \"sample\" or \"window\": \"heard\" says when it was so".into()
            );
        }
        if !is_meter_name(&meter) {
            return Err(format!("meter: 1 to {METER_NAME_BYTES_MAX} bytes without control characters"));
        }
        if self.heard.is_some_and(|heard| heard > TIME_MAX) {
            return Err("heard: Unix milliseconds of site time".into());
        }
        if self.incarnation.as_ref().is_some_and(|name| !(1..=INCARNATION_BYTES_MAX).contains(&name.len())) {
            return Err(format!("incarnation: 1 to {INCARNATION_BYTES_MAX} bytes, such as a boot id"));
        }
        if let Some(ceiling) = self.ceiling.filter(|ceiling| value > *ceiling) {
            return Err(format!("reading: {value} is above the ceiling {ceiling}"));
        }
        let glitch_window_ms = self.glitch_window.unwrap_or(GLITCH_WINDOW_MS);
        if glitch_window_ms > GLITCH_WINDOW_MS_MAX {
            return Err(format!("glitch_window: 0 to {GLITCH_WINDOW_MS_MAX} milliseconds"));
        }
        let CellBody { ceiling, noise, step_max, heard, incarnation, .. } = self;
        let rule = MeterRule { ceiling, noise, glitch_window_ms, step_max };
        let reading = ReportReading { meter, value, heard: heard.map(SiteTime), incarnation, rule };
        Ok(ReportCell { series: self.series, window: None, amount: ReportAmount::Reading(reading) })
    }
}

impl<S: ToSum> SamplePart<S> {
    fn checked(self) -> Result<Sample, String> {
        let sum = self.sum.to_sum().ok_or("sample: sum: not a number within range")?;
        if self.count > SAMPLE_COUNT_MAX {
            return Err(format!("sample: count: {} is more than {SAMPLE_COUNT_MAX}", self.count));
        }
        if sum.0.unsigned_abs() > SAMPLE_SUM_MAX.0.unsigned_abs() {
            return Err(format!("sample: sum: more than {:e} in magnitude", SAMPLE_SUM_MAX.as_f64()));
        }
        // One that could stand for "no time" would be taken for that.
        if self.last_at.is_some_and(|at| at > TIME_MAX) {
            return Err("sample: last_at: Unix milliseconds of site time".into());
        }
        let at = self.last_at.map_or(UNTIMED, SiteTime);
        let last = Last { at, source: SourceId(0), value: self.last + 0.0 };
        let sample = Sample { count: self.count, sum, min: self.min + 0.0, max: self.max + 0.0, last };
        if sample.is_plausible() {
            return Ok(sample);
        }
        Err("sample: count is 1 or more, min <= last <= max, all finite and at most 1e18 in magnitude, and sum \
             is one of such values"
            .into())
    }
}

/// A whole number of either sign; what does not fit 64 bits is no single amount.
struct Whole(i128);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WholeVisitor;
        impl Visitor<'_> for WholeVisitor {
            type Value = Whole;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of at most 64 bits")
            }
            fn visit_u64<E>(self, value: u64) -> Result<Whole, E> {
                Ok(Whole(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Whole, E> {
                Ok(Whole(value.into()))
            }
        }
        deserializer.deserialize_any(WholeVisitor)
    }
}

/// A sum as its format writes it.
trait ToSum {
    fn to_sum(&self) -> Option<Sum>;
}

impl ToSum for Box<RawValue> {
    fn to_sum(&self) -> Option<Sum> {
        decimal::parse(self.get())
    }
}

/// CBOR has integers and floats; the nearest decimal of nine places is taken of a float.
enum CborNumber {
    Whole(i128),
    Float(f64),
}

impl ToSum for CborNumber {
    fn to_sum(&self) -> Option<Sum> {
        match *self {
            CborNumber::Whole(value) => value.checked_mul(Sum::UNITS).map(Sum),
            // The product with a count can be beyond what one value may be.
            CborNumber::Float(value) => decimal::parse(&format!("{value}")),
        }
    }
}

impl<'de> Deserialize<'de> for CborNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberVisitor;
        impl Visitor<'_> for NumberVisitor {
            type Value = CborNumber;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_u64<E>(self, value: u64) -> Result<CborNumber, E> {
                Ok(CborNumber::Whole(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<CborNumber, E> {
                Ok(CborNumber::Whole(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<CborNumber, E> {
                Ok(CborNumber::Float(value))
            }
        }
        deserializer.deserialize_any(NumberVisitor)
    }
}

impl<'de, S: Deserialize<'de>> Deserialize<'de> for Cells<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CellsVisitor<S>(std::marker::PhantomData<S>);
        impl<'de, S: Deserialize<'de>> Visitor<'de> for CellsVisitor<S> {
            type Value = Cells<S>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {CELLS_MAX} cells")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Cells<S>, A::Error> {
                let mut kept = Vec::new();
                while kept.len() < CELLS_MAX {
                    match list.next_element()? {
                        Some(MapOnly(cell)) => kept.push(cell),
                        None => return Ok(Cells { count: kept.len(), kept }),
                    }
                }
                let mut count = kept.len();
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Cells { kept, count })
            }
        }
        deserializer.deserialize_seq(CellsVisitor(std::marker::PhantomData))
    }
}

/// As much of a text from outside as belongs in an error.
fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
#[path = "report_body_tests.rs"]
mod tests;
