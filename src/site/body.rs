//! Reading what [`super::entry`] writes: borrowed from the entry, bounded, never a panic.

use tally_core::id::{Epoch, ReportNumber, SourceId};
use tally_core::meter::{GLITCH_WINDOW_MS, MeterRule, Reading};
use tally_core::report::{Amount, Kind, Last, Sample, Sum};
use tally_core::time::{Elapsed, SiteTime};

use super::admission::JoinRequest;
use super::entry::{
    BOOTSTRAP, CELL_KEYED, CELL_KIND, CELL_KNOWN, CELL_NAMED, CELL_OPEN, CELL_READING, CELL_SIGNED,
    CELL_WINDOW, CLOSE, CONFIGURATION, DELIVERED, EntryError, JOIN, LEVEL, MEMBER, MEMBER_PUT, MEMBER_REMOVE,
    MEMBER_ROLE, NUMBER, OPEN, READING_CEILING, READING_GLITCH_WINDOW, READING_INCARNATION, READING_KNOWN,
    READING_NOISE, READING_STEP_MAX, RELEASED, REPORT, REPORT_CELLS_MAX, SET, SET_ASIDE, STEP_CLOCK,
    SourceKind, TICK, TOKEN,
};
use super::layers::StampedEntry;
use super::level::Level;
use super::members::{self, ConfigurationRecord, MemberChange, MemberRecord};
use super::meters::MeterReading;
use super::tokens::{self, TokenChange};
use super::view::{SeriesId, Stamp};
use crate::codec::{Malformed, Reader, unzigzag};

/// A body, read but not judged.
#[derive(Clone, Debug)]
pub(super) enum DecodedBody<'a> {
    Open { kind: SourceKind, name: &'a str, nonce: u128, epoch: Epoch },
    Report(Report<'a>),
    Close { until: SiteTime },
    Number { count: u32 },
    Delivered { up_to: u64 },
    Set { nonce: u64, key: &'a str, value: &'a str },
    Tick,
    Bootstrap(Vec<MemberRecord>),
    Member { nonce: u64, change: MemberChange },
    Configuration(ConfigurationRecord),
    StepClock,
    Level(Level),
    SetAside { seq: u64, cause: u8 },
    Released { seq: u64 },
    Token { nonce: u64, change: TokenChange },
    Join(JoinRequest),
}

/// A report, its cells not read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report<'a> {
    pub(super) source: SourceId,
    pub(super) epoch: Epoch,
    pub(super) number: ReportNumber,
    pub(super) hash: u64,
    cells: Reader<'a>,
}

/// A cell as its bytes say; `name` is not checked yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell<'a> {
    pub(super) series: CellSeries<'a>,
    pub(super) window: SiteTime,
    /// The source named no window: a box chose it.
    pub(super) is_open: bool,
    /// Of a reading: nothing.
    pub(super) amount: Amount,
    /// The amount is an updown's, or a counter's if the series is one: that is decided where it is applied.
    pub(super) is_signed: bool,
    pub(super) key: Option<CellKey>,
    pub(super) reading: Option<MeterReading<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum CellSeries<'a> {
    Id(SeriesId),
    Name(&'a [u8], Kind),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct CellKey {
    pub(super) key: u128,
    pub(super) check: u64,
    pub(super) taken: Elapsed,
}

/// An entry, its cells included, as far as it can be read at all: what apply goes by, and what a leader checks
/// before it appends.
pub(super) fn read(entry: &StampedEntry) -> Result<(Stamp, DecodedBody<'_>), EntryError> {
    let (stamp, body) = entry.split()?;
    Ok((stamp, DecodedBody::read(body)?))
}

impl<'a> DecodedBody<'a> {
    /// Reads a body with all that is in it.
    pub(super) fn read(body: &'a [u8]) -> Result<DecodedBody<'a>, EntryError> {
        let body = DecodedBody::decode(body)?;
        if let DecodedBody::Report(report) = &body {
            report.check_cells()?;
        }
        Ok(body)
    }

    /// Reads a body; a report's cells stay as they are.
    pub(super) fn decode(body: &'a [u8]) -> Result<DecodedBody<'a>, EntryError> {
        let mut reader = Reader::new(body);
        let body = match reader.u8()? {
            OPEN => {
                let kind = match reader.u8()? {
                    0 => SourceKind::Box,
                    1 => SourceKind::Named,
                    _ => return Err(EntryError::Malformed),
                };
                let nonce = reader.u128()?;
                let epoch = Epoch(reader.u64()?);
                DecodedBody::Open { kind, nonce, epoch, name: reader.text()? }
            }
            REPORT => {
                let source = SourceId(reader.varint()?);
                let number = ReportNumber::new(reader.varint()?).ok_or(EntryError::Malformed)?;
                let epoch = Epoch(reader.u64()?);
                let hash = reader.u64()?;
                return Ok(DecodedBody::Report(Report { source, epoch, number, hash, cells: reader }));
            }
            CLOSE => DecodedBody::Close { until: SiteTime(reader.varint()?) },
            NUMBER => DecodedBody::Number {
                count: u32::try_from(reader.varint()?).map_err(|_| EntryError::Malformed)?,
            },
            DELIVERED => DecodedBody::Delivered { up_to: reader.varint()? },
            SET => DecodedBody::Set { nonce: reader.u64()?, key: reader.text()?, value: reader.text()? },
            TICK => DecodedBody::Tick,
            BOOTSTRAP => DecodedBody::Bootstrap(members::read_records(&mut reader)?),
            MEMBER => DecodedBody::Member { nonce: reader.u64()?, change: read_change(&mut reader)? },
            CONFIGURATION => DecodedBody::Configuration(members::read_parts(&mut reader)?),
            STEP_CLOCK => DecodedBody::StepClock,
            LEVEL => {
                let level = u32::try_from(reader.varint()?).ok().and_then(Level::new);
                let level = level.ok_or(EntryError::Malformed)?;
                // Whatever a newer release wants to say with it: this one cannot go on.
                if level > Level::MAX {
                    return Err(EntryError::Level(level));
                }
                DecodedBody::Level(level)
            }
            SET_ASIDE => DecodedBody::SetAside { seq: reader.varint()?, cause: reader.u8()? },
            RELEASED => DecodedBody::Released { seq: reader.varint()? },
            TOKEN => DecodedBody::Token { nonce: reader.u64()?, change: tokens::read_change(&mut reader)? },
            JOIN => DecodedBody::Join(JoinRequest::read(&mut reader)?),
            kind => return Err(EntryError::UnknownKind(kind)),
        };
        reader.done()?;
        Ok(body)
    }
}

fn read_change(reader: &mut Reader<'_>) -> Result<MemberChange, EntryError> {
    Ok(match reader.u8()? {
        MEMBER_PUT => MemberChange::Put(members::read_record(reader)?),
        MEMBER_ROLE => {
            let role = members::read_role(reader)?;
            MemberChange::Role { role, name: reader.text()?.to_owned() }
        }
        MEMBER_REMOVE => MemberChange::Remove { name: reader.text()?.to_owned() },
        _ => return Err(EntryError::Malformed),
    })
}

impl<'a> Report<'a> {
    /// The cells from the first on.
    pub(super) fn cells(&self) -> Cells<'a> {
        Cells { reader: self.cells, window: None, source: self.source }
    }

    /// Whether every cell can be read: asked before the first one changes anything.
    pub(super) fn check_cells(&self) -> Result<(), EntryError> {
        let mut cells = self.cells();
        let mut count = 0;
        while cells.next_plain().is_some() || cells.next()?.is_some() {
            count += 1;
            if count > REPORT_CELLS_MAX {
                return Err(EntryError::Malformed);
            }
        }
        Ok(())
    }
}

/// Reads cells one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cells<'a> {
    reader: Reader<'a>,
    window: Option<SiteTime>,
    source: SourceId,
}

impl<'a> Cells<'a> {
    /// The next cell if it is the usual one: a count for a known series, without a key. Otherwise
    /// `None`, and nothing was read: ask [`Cells::next`].
    #[inline]
    pub(super) fn next_plain(&mut self) -> Option<(SeriesId, SiteTime, u64)> {
        let mut reader = self.reader;
        let tag = reader.u8().ok()?;
        if tag & !CELL_WINDOW != 0 {
            return None;
        }
        let id = u32::try_from(reader.varint().ok()?).ok()?;
        let window = if tag & CELL_WINDOW == 0 { self.window? } else { SiteTime(reader.varint().ok()?) };
        let sum = reader.varint().ok()?;
        self.window = Some(window);
        self.reader = reader;
        Some((SeriesId(id), window, sum))
    }

    /// The next cell, `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<Cell<'a>>, Malformed> {
        if self.reader.left() == 0 {
            return Ok(None);
        }
        let tag = self.reader.u8()?;
        if tag & !CELL_KNOWN != 0 {
            return Err(Malformed);
        }
        let series = if tag & CELL_NAMED == 0 {
            let id = self.reader.varint()?;
            CellSeries::Id(SeriesId(u32::try_from(id).map_err(|_| Malformed)?))
        } else {
            let kind = kind_of(self.reader.u8()?)?;
            CellSeries::Name(self.reader.bytes()?, kind)
        };
        if tag & CELL_WINDOW != 0 {
            self.window = Some(SiteTime(self.reader.varint()?));
        }
        let window = self.window.ok_or(Malformed)?;
        let is_open = tag & CELL_OPEN != 0;
        if tag & CELL_READING != 0 {
            // Of no kind but a counter's, and without a key.
            if tag & (CELL_KEYED | CELL_KIND) != 0 {
                return Err(Malformed);
            }
            let (amount, reading) = (Amount::Counter(0), Some(self.reading(window)?));
            return Ok(Some(Cell { series, window, is_open, amount, is_signed: false, key: None, reading }));
        }
        let is_signed = tag & CELL_KIND == CELL_SIGNED;
        let amount = if is_signed { self.signed()? } else { self.amount(tag & CELL_KIND)? };
        let key = if tag & CELL_KEYED == 0 { None } else { Some(self.key()?) };
        Ok(Some(Cell { series, window, is_open, amount, is_signed, key, reading: None }))
    }

    fn reading(&mut self, window: SiteTime) -> Result<MeterReading<'a>, Malformed> {
        let reader = &mut self.reader;
        let meter = reader.text()?;
        let heard = SiteTime(window.0.saturating_add(reader.varint()?));
        let value = reader.varint()?;
        let said = reader.u8()?;
        if said & !READING_KNOWN != 0 {
            return Err(Malformed);
        }
        let incarnation = if said & READING_INCARNATION == 0 { 0 } else { reader.u64()? };
        let mut number = |flag: u8| if said & flag == 0 { Ok(None) } else { reader.varint().map(Some) };
        let rule = MeterRule {
            ceiling: number(READING_CEILING)?,
            noise: number(READING_NOISE)?,
            glitch_window_ms: number(READING_GLITCH_WINDOW)?.unwrap_or(GLITCH_WINDOW_MS),
            step_max: number(READING_STEP_MAX)?,
        };
        let reading = Reading { value, heard, source: self.source, incarnation };
        Ok(MeterReading { meter, reading, rule })
    }

    fn signed(&mut self) -> Result<Amount, Malformed> {
        self.reader.varint_u128().map(|add| Amount::updown(unzigzag(add)))
    }

    fn amount(&mut self, kind: u8) -> Result<Amount, Malformed> {
        let reader = &mut self.reader;
        Ok(match kind_of(kind)? {
            Kind::Counter => Amount::Counter(reader.varint_u128()?),
            Kind::Updown => Amount::Updown { up: reader.varint_u128()?, down: reader.varint_u128()? },
            Kind::Sample => {
                let count = reader.varint()?;
                let sum = Sum(unzigzag(reader.varint_u128()?));
                let at = SiteTime(reader.varint()?);
                let (min, max, value) = (reader.f64()?, reader.f64()?, reader.f64()?);
                let last = Last { at, source: self.source, value };
                Amount::Sample(Sample { count, sum, min, max, last })
            }
        })
    }

    fn key(&mut self) -> Result<CellKey, Malformed> {
        let reader = &mut self.reader;
        Ok(CellKey { key: reader.u128()?, check: reader.u64()?, taken: Elapsed(reader.varint()?) })
    }
}

const fn kind_of(code: u8) -> Result<Kind, Malformed> {
    match code {
        0 => Ok(Kind::Counter),
        1 => Ok(Kind::Updown),
        2 => Ok(Kind::Sample),
        _ => Err(Malformed),
    }
}
