//! The values that readers of the site get: plain values, no references into the state.

use tally_core::id::{Epoch, KeyHash, ReportNumber, SourceId};
use tally_core::report::{Amount, Kind, Last, Sum};
use tally_core::time::{Elapsed, SiteTime};

use super::admission::{JoinRefused, Joined};
use super::level::Level;
use super::members::MemberRefused;
use super::tokens::TokenRefused;

/// A series by number: dense from 0 in order of creation, the same on every box, for life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesId(pub u32);

/// A series and its total.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesView {
    /// By number.
    pub id: SeriesId,
    /// By name.
    pub name: String,
    /// For good.
    pub kind: Kind,
    /// Counter, updown: the total. Sample: how many values.
    pub total: i128,
    /// Sample only: all values ever together.
    pub sample: Option<SampleView>,
    /// The log index that last changed it: for those who watch.
    pub changed: u64,
}

/// Samples taken together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleView {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum: Sum,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// The latest.
    pub last: Last,
}

/// What was added to one series in one window (or in several merged ones).
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Its number, once it has one.
    pub seq: Option<u64>,
    /// Which series.
    pub series: SeriesId,
    /// When the window begins.
    pub start: SiteTime,
    /// How long it is, in milliseconds.
    pub span_ms: u64,
    /// What happened in it.
    pub amount: Amount,
    /// Sum of the series' increases over all numbers up to this one; once it has a number.
    pub total: Option<i128>,
    /// The summary adds to a window that had already closed.
    pub late: bool,
    /// Whether the leader's clock was synchronised when the window was closed.
    pub synced: bool,
}

/// A numbered summary that the broker refuses, set aside for later.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// The summary, with its number.
    pub summary: Summary,
    /// Why: the MQTT 5 reason code of the refusal; 0: the connection broke over it.
    pub cause: u8,
}

/// The time that a leader stamped on an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Site time.
    pub site: SiteTime,
    /// Elapsed time.
    pub elapsed: Elapsed,
    /// Whether the leader's clock was synchronised.
    pub synced: bool,
}

/// The result of applying an entry, equal on every box; waiters receive it.
#[derive(Clone, Debug, PartialEq)]
pub enum Applied {
    /// An entry without waiters (a leader's first, a closed window, a tick).
    Nothing,
    /// A report was applied or refused.
    Report {
        /// Whose.
        source: SourceId,
        /// Of which epoch.
        epoch: Epoch,
        /// Which.
        number: ReportNumber,
        /// A hash of its content, as its entry names it.
        hash: u64,
        /// The result.
        verdict: Verdict,
    },
    /// An epoch was opened (or found open under the same nonce).
    Opened {
        /// The source's nonce.
        nonce: u128,
        /// Whose; `Err`: the site keeps no more sources.
        result: Result<(SourceId, Epoch), OpenRefused>,
    },
    /// A setting was asked for.
    Set {
        /// Names the request.
        nonce: u64,
        /// The new value in its normal form, or why it was refused.
        result: Result<String, String>,
    },
    /// A malformed body of a known kind, which no box applies.
    Malformed,
    /// Summaries got numbers, were delivered, set aside or released.
    Outbox,
    /// A change of the members was asked for.
    Member {
        /// Names the request.
        nonce: u64,
        /// Done, or why not.
        result: Result<(), MemberRefused>,
    },
    /// A change of the join tokens was asked for.
    Token {
        /// Names the request.
        nonce: u64,
        /// Done, or why not.
        result: Result<(), TokenRefused>,
    },
    /// A box asked to join.
    Joined {
        /// The hash of its public key.
        key: KeyHash,
        /// What it is now, or why not.
        result: Result<Joined, JoinRefused>,
    },
    /// The site was told its members, or another configuration of the group is in force.
    Members,
    /// The feature level is that now, or was already.
    Level(Level),
    /// An operator has set site time.
    Stepped {
        /// What it was.
        from: SiteTime,
        /// What it is.
        to: SiteTime,
    },
}

/// Why an epoch was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenRefused {
    /// As many sources as the site keeps.
    #[error("the site already remembers sources.max sources; raise that setting")]
    TooManySources,
    /// The name is empty, or longer than [`super::entry::SOURCE_NAME_BYTES_MAX`] bytes, or has
    /// control characters.
    #[error("the name is not a source name")]
    BadName,
}

/// The result of a report.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Applied, now or before: `repeated` tells which.
    Receipt {
        /// Whether it had been applied before and changed nothing now.
        repeated: bool,
        /// The cells that were refused, by their place among the cells, in order.
        refused: Vec<(u32, Refusal)>,
        /// What became of the keyed adds, in order. Empty if `repeated`.
        keyed: Vec<KeyOutcome>,
    },
    /// The last number with other content.
    Changed {
        /// The last number applied.
        last: ReportNumber,
    },
    /// Neither the next number nor the last.
    OutOfOrder {
        /// The last number applied.
        last: Option<ReportNumber>,
    },
    /// The epoch is not open.
    UnknownEpoch {
        /// How far it had come, if that is remembered.
        last: LastApplied,
    },
}

/// How far an epoch that is not open had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastApplied {
    /// The site does not know the epoch: it never did, or has forgotten it. Any of its reports may have been applied.
    Unknown,
    /// The site knows the epoch, and applied no report of it.
    None,
    /// The last report that was applied.
    Number(ReportNumber),
}

impl LastApplied {
    /// Whether a report may have been applied: a source that sends it again under another epoch could double it.
    #[must_use]
    pub fn may_include(self, number: ReportNumber) -> bool {
        match self {
            LastApplied::Unknown => true,
            LastApplied::None => false,
            LastApplied::Number(last) => last >= number,
        }
    }
}

/// Why the site refused a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The series is of another kind.
    WrongKind {
        /// What the series is.
        is: Kind,
        /// What the cell would need it to be.
        asked: Kind,
    },
    /// The total would overflow.
    Overflow,
    /// The site already has `series.max` series.
    TooManySeries,
    /// The window lies in the future.
    WindowInFuture,
    /// The cell's content is out of bounds (a sample whose parts do not belong together, say).
    Malformed,
    /// The site already has `series.max` meters.
    TooManyMeters,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::WrongKind { is, asked } => write!(f, "the series has kind {is}, not {asked}"),
            Refusal::Overflow => f.write_str("the total would overflow"),
            Refusal::TooManySeries => f.write_str("the site already has series.max series"),
            Refusal::WindowInFuture => f.write_str("the window lies in the future"),
            Refusal::Malformed => f.write_str("the parts of the sample contradict each other"),
            Refusal::TooManyMeters => f.write_str("the site already keeps series.max meters"),
        }
    }
}

/// A jump of a meter that is held until a later reading confirms it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldJump {
    /// The meter's name.
    pub meter: String,
    /// The series that it is counted in.
    pub series: SeriesId,
    /// The value up to which it is counted.
    pub from: u64,
    /// What it shows.
    pub to: u64,
    /// When that was heard.
    pub heard: SiteTime,
}

/// The result of an add with an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KeyOutcome {
    /// Added now.
    Added {
        /// The total with it.
        total: i128,
        /// The site time at which it was.
        time: SiteTime,
    },
    /// Added before under this key; nothing was added now.
    Known {
        /// The total then.
        total: i128,
        /// The site time then.
        time: SiteTime,
    },
    /// The key is known with another series or amount; nothing was added.
    Reused,
    /// The try took longer than the key's lifetime; nothing was added now, but an earlier try may have been.
    Stale,
    /// No room for a key; nothing was added.
    TableFull,
    /// Refused like a cell without a key; the key is not kept.
    Refused(Refusal),
}
