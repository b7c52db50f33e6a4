//! What clients ask of a site, as every room passes it on, and why a request has no result.

use std::collections::BTreeSet;

use ring::digest::{SHA256, digest};
use tally_core::id::{Epoch, ReportNumber, SERIES_NAME_BYTES_FIRST_MAX};
use tally_core::meter::MeterRule;
use tally_core::report::Amount;
use tally_core::time::SiteTime;

use crate::site::entry::{ReadingCell, SeriesRef};
use crate::site::{JoinRefused, MemberRefused, Refusal, TokenRefused};

/// One add of a client that waits.
#[derive(Clone, Debug)]
pub struct Add {
    /// To which series.
    pub series: String,
    /// How much; of the series' kind. The caller has checked its bounds.
    pub amount: Amount,
    /// The client's idempotency key, 1 to 64 bytes.
    pub key: Option<String>,
}

/// An add that is committed and applied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Added {
    /// The series' total with it (samples: how many values).
    pub total: i128,
    /// The site time of the answer; for a known key, of the first answer.
    pub time: SiteTime,
}

/// The time of a sample's last value that its source did not give. It counts as observed as late as it can have been:
/// when its report came in, or at the end of its window if that was earlier.
pub const UNTIMED: SiteTime = SiteTime(u64::MAX);

/// A report of a named source.
#[derive(Clone, Debug)]
pub struct NamedReport {
    /// The source's name.
    pub source: String,
    /// Its epoch.
    pub epoch: Epoch,
    /// The report's number in it.
    pub number: ReportNumber,
    /// What it reports.
    pub cells: Vec<ReportCell>,
}

impl NamedReport {
    /// Series to which it makes a negative add: a new one among them becomes an updown, in whatever order they come.
    pub(crate) fn falling(&self) -> BTreeSet<&str> {
        let falls = |cell: &&ReportCell| matches!(cell.amount, ReportAmount::Add(add) if add < 0);
        self.cells.iter().filter(falls).map(|cell| &*cell.series).collect()
    }
}

/// A cell of a named source's report.
#[derive(Clone, Debug)]
pub struct ReportCell {
    /// The series' name, checked.
    pub series: String,
    /// Start of the window; absent: the open one.
    pub window: Option<SiteTime>,
    /// What it adds.
    pub amount: ReportAmount,
}

/// A name of a meter's incarnation, as readings say it: a hash, never 0.
pub(crate) fn incarnation_hash(name: &[u8]) -> u64 {
    let digest = digest(&SHA256, name);
    digest.as_ref().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)).max(1)
}

/// A reading of a meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportReading {
    /// The meter's name, checked.
    pub meter: String,
    /// What it showed.
    pub value: u64,
    /// When it was heard; absent: now.
    pub heard: Option<SiteTime>,
    /// Names the incarnation of the meter.
    pub incarnation: Option<String>,
    /// How its readings are to be understood.
    pub rule: MeterRule,
}

impl NamedReport {
    /// Whether it has readings of meters.
    pub(crate) fn has_readings(&self) -> bool {
        self.cells.iter().any(|cell| matches!(cell.amount, ReportAmount::Reading(_)))
    }
}

impl ReportReading {
    /// As the log has it.
    pub(crate) fn as_cell<'a>(&'a self, series: SeriesRef<'a>, heard: SiteTime) -> ReadingCell<'a> {
        let incarnation = self.incarnation.as_ref().map_or(0, |name| incarnation_hash(name.as_bytes()));
        ReadingCell { series, meter: &self.meter, value: self.value, heard, incarnation, rule: self.rule }
    }
}

/// What a cell adds.
#[derive(Clone, Debug, PartialEq)]
pub enum ReportAmount {
    /// To a counter or an updown, whichever the series is; a new series becomes a counter if it is
    /// positive and an updown if it is negative.
    Add(i128),
    /// Of a kind of its own.
    Amount(Amount),
    /// What the meter has grown by, to a counter.
    Reading(ReportReading),
}

/// Why a request has no result.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// The site refuses it.
    #[error("the site refused the request: {0}")]
    Refused(Refusal),
    /// The key was used for another series or amount.
    #[error("this Idempotency-Key was used for another series or amount; nothing was added")]
    KeyReused,
    /// No room for another key.
    #[error("the site already remembers keys.max idempotency keys; nothing was added; retry later")]
    KeyTableFull,
    /// No room for another source.
    #[error("the site already remembers sources.max sources; no epoch was opened; raise that setting")]
    TooManySources,
    /// A key of 1 to 64 bytes is needed.
    #[error("an Idempotency-Key must have 1 to 64 bytes")]
    BadKey,
    /// The name is longer than it may be while some boxes are of an older release.
    #[error(
        "a series name has at most {SERIES_NAME_BYTES_FIRST_MAX} bytes until all boxes of the site are \
         updated; this one has {bytes}; nothing was added"
    )]
    LongName {
        /// How many bytes it has.
        bytes: usize,
    },
    /// As many new names are here as may be.
    #[error(
        "the series is new, and too many new series wait at this box for the site's answer; nothing was \
         added; retry, or try another box"
    )]
    TooManyNew,
    /// Too many requests wait here.
    #[error("too many requests wait at this box; nothing was added; retry, or try another box")]
    TooBusy,
    /// Certainly not done.
    #[error("not committed: {why}")]
    NotCommitted {
        /// Why.
        why: String,
    },
    /// May have been done or not.
    #[error("outcome unknown: {why}")]
    OutcomeUnknown {
        /// Why.
        why: String,
    },
}

/// Why a report was not judged.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReportError {
    /// No source of that name has opened an epoch.
    #[error("this box knows no source of this name; open an epoch first")]
    UnknownSource,
    /// A cell names what is no series.
    #[error("cell {0}: {1}")]
    BadCell(usize, String),
    /// It did not get through.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Why the members were not changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MemberError {
    /// The site refuses it.
    #[error(transparent)]
    Refused(#[from] MemberRefused),
    /// It did not get through.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Why the tokens were not changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TokenError {
    /// The site refuses it.
    #[error(transparent)]
    Refused(#[from] TokenRefused),
    /// It did not get through.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Why a box did not become a member.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum JoinError {
    /// The site refuses it.
    #[error(transparent)]
    Refused(#[from] JoinRefused),
    /// It did not get through.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Why a setting was not changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SetError {
    /// The key or the value is not valid.
    #[error("{0}")]
    Invalid(String),
    /// It did not get through.
    #[error(transparent)]
    Request(#[from] RequestError),
}
