//! What the entries of the log say: a leader's stamp, then a body that a box encoded.
//!
//! An entry's payload is empty (a leader's no-op) or stamp and body. The stamp is site time and
//! elapsed time as varints and a flag byte; the body's first byte is its kind. What a body means
//! never changes at a feature level ([`super::Level`]); new kinds and rules come with a new one.

mod reading;

use tally_core::id::{Epoch, ReportNumber, SeriesName, SourceId};
use tally_core::report::{Amount, Kind};
use tally_core::time::{Elapsed, SiteTime};

use super::admission::JoinRequest;
use super::body::DecodedBody;
use super::digest;
use super::layers::{Body, StampedEntry};
use super::level::Level;
use super::members::{self, ConfigurationRecord, MemberChange, MemberRecord};
use super::tokens::{self, TokenChange};
use super::view::SeriesId;
use crate::codec::{Malformed, put_bytes, put_varint, put_varint_u128, zigzag};
pub use reading::ReadingCell;
pub(super) use reading::*;

/// The longest name of a source, in bytes.
pub const SOURCE_NAME_BYTES_MAX: usize = 96;

/// The most cells of one report, keyed adds included.
pub const REPORT_CELLS_MAX: u32 = 1 << 16;

/// Whose name a source's name is: the two kinds do not share names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceKind {
    /// A box of the site.
    Box,
    /// A device or a program.
    Named,
}

/// Why an entry cannot be read. Its log position must not be passed: another box may read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Not in the form that this version writes.
    #[error("the entry is malformed: it ends early, or has content that no version writes")]
    Malformed,
    /// A kind of entry that this version does not know.
    #[error("the entry has kind {0}, which this version does not know: a newer version wrote it")]
    UnknownKind(u8),
    /// A feature level that this version cannot apply.
    #[error(
        "the site was raised to feature level {0}; this program supports levels up to {max}: update this box",
        max = Level::MAX
    )]
    Level(Level),
    /// An index that is not the one after the last applied.
    #[error("the entry has index {index}, and the last applied entry has {applied}")]
    NotNext {
        /// Its index.
        index: u64,
        /// The last one applied.
        applied: u64,
    },
}

impl From<Malformed> for EntryError {
    fn from(_: Malformed) -> Self {
        EntryError::Malformed
    }
}

/// What kind of body it is, for those who only pass it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// Opens an epoch.
    Open,
    /// A report.
    Report,
    /// Closes windows.
    Close,
    /// Numbers summaries.
    Number,
    /// Summaries were delivered.
    Delivered,
    /// Changes a setting.
    Set,
    /// Only the stamp counts.
    Tick,
    /// The members that the site was provisioned with.
    Bootstrap,
    /// Changes the members.
    Member,
    /// A configuration of the group.
    Configuration,
    /// An operator sets site time.
    StepClock,
    /// Raises the feature level.
    Level,
    /// A number that the broker does not take is held.
    SetAside,
    /// A held number was delivered after all.
    Released,
    /// Makes or revokes a join token.
    Token,
    /// A box joins by a token.
    Join,
}

pub(super) const OPEN: u8 = 1;
pub(super) const REPORT: u8 = 2;
pub(super) const CLOSE: u8 = 3;
pub(super) const NUMBER: u8 = 4;
pub(super) const DELIVERED: u8 = 5;
pub(super) const SET: u8 = 6;
pub(super) const TICK: u8 = 7;
pub(super) const BOOTSTRAP: u8 = 8;
pub(super) const MEMBER: u8 = 9;
pub(super) const CONFIGURATION: u8 = 10;
pub(super) const STEP_CLOCK: u8 = 11;
pub(super) const LEVEL: u8 = 12;
pub(super) const SET_ASIDE: u8 = 13;
pub(super) const RELEASED: u8 = 14;
pub(super) const TOKEN: u8 = 15;
pub(super) const JOIN: u8 = 16;

pub(super) const MEMBER_PUT: u8 = 0;
pub(super) const MEMBER_ROLE: u8 = 1;
pub(super) const MEMBER_REMOVE: u8 = 2;

pub(super) const CELL_KIND: u8 = 0b0000_0011;
/// In place of a kind: an add of either sign.
pub(super) const CELL_SIGNED: u8 = 3;
pub(super) const CELL_NAMED: u8 = 0b0000_0100;
pub(super) const CELL_WINDOW: u8 = 0b0000_1000;
pub(super) const CELL_KEYED: u8 = 0b0001_0000;
pub(super) const CELL_READING: u8 = 0b0010_0000;
/// The source named no window: it is the one that the box which took the report held for open.
pub(super) const CELL_OPEN: u8 = 0b0100_0000;
pub(super) const CELL_KNOWN: u8 = 0b0111_1111;

/// Opens an epoch of a source, which is made if it is not known. `epoch` is taken unless the
/// nonce opened one before. A name of more than [`SOURCE_NAME_BYTES_MAX`] bytes is refused where
/// it is applied.
#[must_use]
pub fn open(kind: SourceKind, name: &str, nonce: u128, epoch: Epoch) -> Body {
    let mut out = Vec::with_capacity(name.len() + 32);
    out.push(OPEN);
    out.push(match kind {
        SourceKind::Box => 0,
        SourceKind::Named => 1,
    });
    out.extend_from_slice(&nonce.to_le_bytes());
    out.extend_from_slice(&epoch.0.to_le_bytes());
    put_bytes(&mut out, name.as_bytes());
    out.into()
}

/// Closes every open window that ends at `until` or before. See `Site::close_due`.
#[must_use]
pub fn close(until: SiteTime) -> Body {
    with_number(CLOSE, until.0)
}

/// Gives the next `count` summaries their numbers, or as many as there are and may be.
#[must_use]
pub fn number(count: u32) -> Body {
    with_number(NUMBER, u64::from(count))
}

/// Everything numbered up to `up_to` was delivered.
#[must_use]
pub fn delivered(up_to: u64) -> Body {
    with_number(DELIVERED, up_to)
}

/// The broker does not take a number: it is held while those after it go on. `cause`: see
/// [`super::Held`]. Only proposed at feature level 2.
#[must_use]
pub fn set_aside(seq: u64, cause: u8) -> Body {
    let mut out = Vec::with_capacity(12);
    out.push(SET_ASIDE);
    put_varint(&mut out, seq);
    out.push(cause);
    out.into()
}

/// A held number was delivered after all. Only proposed at feature level 2.
#[must_use]
pub fn released(seq: u64) -> Body {
    with_number(RELEASED, seq)
}

/// Changes a setting. The nonce names the request in [`super::Applied::Set`].
#[must_use]
pub fn set(nonce: u64, key: &str, value: &str) -> Body {
    let mut out = Vec::with_capacity(key.len() + value.len() + 16);
    out.push(SET);
    out.extend_from_slice(&nonce.to_le_bytes());
    put_bytes(&mut out, key.as_bytes());
    put_bytes(&mut out, value.as_bytes());
    out.into()
}

/// Carries nothing but its stamp.
#[must_use]
pub fn tick() -> Body {
    vec![TICK].into()
}

/// The members that the site was provisioned with, by number: taken if the site knows none yet.
#[must_use]
pub fn bootstrap(members: &[MemberRecord]) -> Body {
    let mut out = vec![BOOTSTRAP];
    members::put_records(&mut out, members);
    out.into()
}

/// Changes the members. The nonce names the request in [`super::Applied::Member`].
#[must_use]
pub fn member(nonce: u64, change: &MemberChange) -> Body {
    let mut out = vec![MEMBER];
    out.extend_from_slice(&nonce.to_le_bytes());
    match change {
        MemberChange::Put(record) => {
            out.push(MEMBER_PUT);
            members::put_record(&mut out, record);
        }
        MemberChange::Role { name, role } => {
            out.push(MEMBER_ROLE);
            out.push(members::role_code(*role));
            put_bytes(&mut out, name.as_bytes());
        }
        MemberChange::Remove { name } => {
            out.push(MEMBER_REMOVE);
            put_bytes(&mut out, name.as_bytes());
        }
    }
    out.into()
}

/// Makes or revokes a join token. The nonce names the request in [`super::Applied::Token`]. Only proposed at feature
/// level 3.
#[must_use]
pub fn token(nonce: u64, change: &TokenChange) -> Body {
    let mut out = vec![TOKEN];
    out.extend_from_slice(&nonce.to_le_bytes());
    tokens::put_change(&mut out, change);
    out.into()
}

/// A box joins by a token. Only proposed at feature level 3.
#[must_use]
pub fn join(request: &JoinRequest) -> Body {
    let mut out = vec![JOIN];
    request.put(&mut out);
    out.into()
}

/// A configuration of the group, by its leader alone.
#[must_use]
pub fn configuration(parts: &ConfigurationRecord) -> Body {
    let mut out = vec![CONFIGURATION];
    members::put_parts(&mut out, parts);
    out.into()
}

/// The configuration that an entry brings, if it is such an entry.
#[must_use]
pub fn configuration_of(entry: &StampedEntry) -> Option<ConfigurationRecord> {
    let (_, body) = entry.split().ok()?;
    match DecodedBody::decode(body).ok()? {
        DecodedBody::Configuration(parts) => Some(parts),
        _ => None,
    }
}

/// What an entry says of who the members are, if it is such an entry.
pub(super) fn members_of_entry(entry: &StampedEntry) -> Option<SaidOfMembers> {
    let (_, body) = entry.split().ok()?;
    // Most entries are of another kind, and long.
    if !matches!(body.first(), Some(&MEMBER | &BOOTSTRAP | &TOKEN | &JOIN)) {
        return None;
    }
    match DecodedBody::decode(body).ok()? {
        DecodedBody::Bootstrap(records) => Some(SaidOfMembers::Bootstrap(records)),
        DecodedBody::Member { change, .. } => Some(SaidOfMembers::Change(change)),
        DecodedBody::Token { change, .. } => Some(SaidOfMembers::Token(change)),
        DecodedBody::Join(request) => Some(SaidOfMembers::Join(request)),
        _ => None,
    }
}

/// See [`members_of_entry`].
#[derive(Debug)]
pub(super) enum SaidOfMembers {
    Bootstrap(Vec<MemberRecord>),
    Change(MemberChange),
    Token(TokenChange),
    Join(JoinRequest),
}

/// An operator's word: site time becomes what the leader stamps on this entry, back even. The leader
/// asks [`is_step_clock`] and stamps what the boxes' clocks say.
#[must_use]
pub fn step_clock() -> Body {
    vec![STEP_CLOCK].into()
}

/// Whether a body is that word.
#[must_use]
pub fn is_step_clock(body: &[u8]) -> bool {
    body == [STEP_CLOCK]
}

/// Raises the feature level. By a leader, once every member can apply it.
#[must_use]
pub fn level(level: Level) -> Body {
    with_number(LEVEL, u64::from(level.get()))
}

fn with_number(kind: u8, number: u64) -> Body {
    let mut out = Vec::with_capacity(11);
    out.push(kind);
    put_varint(&mut out, number);
    out.into()
}

/// Whether a body is well formed, by the very code that applies it: a leader asks before it appends a
/// body, whoever made it.
///
/// # Errors
/// Why no box of this release could apply it.
pub fn check(body: &[u8]) -> Result<BodyKind, EntryError> {
    Ok(match DecodedBody::read(body)? {
        DecodedBody::Open { .. } => BodyKind::Open,
        DecodedBody::Report(_) => BodyKind::Report,
        DecodedBody::Close { .. } => BodyKind::Close,
        DecodedBody::Number { .. } => BodyKind::Number,
        DecodedBody::Delivered { .. } => BodyKind::Delivered,
        DecodedBody::Set { .. } => BodyKind::Set,
        DecodedBody::Tick => BodyKind::Tick,
        DecodedBody::Bootstrap(_) => BodyKind::Bootstrap,
        DecodedBody::Member { .. } => BodyKind::Member,
        DecodedBody::Configuration(_) => BodyKind::Configuration,
        DecodedBody::StepClock => BodyKind::StepClock,
        DecodedBody::Level(_) => BodyKind::Level,
        DecodedBody::SetAside { .. } => BodyKind::SetAside,
        DecodedBody::Released { .. } => BodyKind::Released,
        DecodedBody::Token { .. } => BodyKind::Token,
        DecodedBody::Join(_) => BodyKind::Join,
    })
}

/// How a cell names its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeriesRef<'a> {
    /// Known to the sender's replica.
    Id(SeriesId),
    /// By name; made with this kind if it is not there. The amount must be of the kind.
    Name(SeriesName<'a>, Kind),
}

/// An add with an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeyedAdd<'a> {
    /// To which series.
    pub series: SeriesRef<'a>,
    /// The window it was counted in.
    pub window: SiteTime,
    /// What to add.
    pub amount: Amount,
    /// A cryptographic hash of the key.
    pub key: u128,
    /// A check of series and amount.
    pub check: u64,
    /// The elapsed time that the box had last applied when it took the request in.
    pub taken: Elapsed,
}

/// Writes the body of a report, cell by cell: at most [`REPORT_CELLS_MAX`] of them.
#[derive(Clone, Debug)]
pub struct ReportWriter {
    out: Vec<u8>,
    hash_at: usize,
    window: Option<SiteTime>,
    is_window_open: bool,
    cells: u32,
    keyed: u32,
}

impl ReportWriter {
    /// A report without cells. `hash` is of its content, however the source makes it: the same
    /// report sent again must have the same. See also [`ReportWriter::finish_hashed`].
    #[must_use]
    pub fn new(source: SourceId, epoch: Epoch, number: ReportNumber, hash: u64) -> ReportWriter {
        let mut out = Vec::with_capacity(256);
        out.push(REPORT);
        put_varint(&mut out, source.0);
        put_varint(&mut out, number.get());
        out.extend_from_slice(&epoch.0.to_le_bytes());
        let hash_at = out.len();
        out.extend_from_slice(&hash.to_le_bytes());
        ReportWriter { out, hash_at, window: None, is_window_open: false, cells: 0, keyed: 0 }
    }

    /// Whether the window of the cells that follow is the one that this box holds for open, because their source named
    /// none: where they are applied it may be an earlier one, if this box's clock is ahead. Only for a site at
    /// [`Level::TWO`].
    pub fn window_is_open(&mut self, is_open: bool) {
        self.is_window_open = is_open;
    }

    /// Adds a cell. Its place, by which a receipt names it if it is refused, is what
    /// [`ReportWriter::cells`] said before. A sample's `last.source` is not written: it is the
    /// report's source.
    pub fn cell(&mut self, series: SeriesRef<'_>, window_start: SiteTime, amount: &Amount) {
        self.put_cell(0, series, window_start, amount);
        self.cells += 1;
    }

    /// Adds an add of either sign, to a counter or an updown, whichever the series is where it is applied. One that is
    /// not there becomes of the reference's kind. Only for a site at [`Level::TWO`].
    pub fn signed(&mut self, series: SeriesRef<'_>, window_start: SiteTime, add: i128) {
        self.put_head(CELL_SIGNED, series, window_start);
        put_varint_u128(&mut self.out, zigzag(add));
        self.cells += 1;
    }

    /// Adds an add with a key. Keyed adds have places of their own: the order in which they were
    /// written is the order of their outcomes.
    pub fn keyed(&mut self, add: &KeyedAdd<'_>) {
        self.put_cell(CELL_KEYED, add.series, add.window, &add.amount);
        self.out.extend_from_slice(&add.key.to_le_bytes());
        self.out.extend_from_slice(&add.check.to_le_bytes());
        put_varint(&mut self.out, add.taken.0);
        self.keyed += 1;
    }

    /// The body.
    #[must_use]
    pub fn finish(self) -> Body {
        self.out.into()
    }

    /// The body with a hash of its cells in place of the one given at the start, and that hash.
    #[must_use]
    pub fn finish_hashed(mut self) -> (Body, u64) {
        let cells_at = self.hash_at + 8;
        let hash = digest::of_bytes(&self.out[cells_at..]);
        self.out[self.hash_at..cells_at].copy_from_slice(&hash.to_le_bytes());
        (self.out.into(), hash)
    }

    /// Bytes of the body so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether there is neither a cell nor a keyed add yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.cells == 0 && self.keyed == 0
    }

    /// How many cells without a key so far.
    #[must_use]
    pub const fn cells(&self) -> u32 {
        self.cells
    }

    /// How many keyed adds so far.
    #[cfg(test)]
    pub(crate) const fn keyed_adds(&self) -> u32 {
        self.keyed
    }

    fn put_cell(&mut self, flags: u8, series: SeriesRef<'_>, window: SiteTime, amount: &Amount) {
        self.put_head(flags | kind_code(amount.kind()), series, window);
        put_amount(&mut self.out, amount);
    }

    fn put_head(&mut self, mut tag: u8, series: SeriesRef<'_>, window: SiteTime) {
        if matches!(series, SeriesRef::Name(..)) {
            tag |= CELL_NAMED;
        }
        if self.is_window_open {
            tag |= CELL_OPEN;
        }
        let same_window = self.window == Some(window);
        if !same_window {
            tag |= CELL_WINDOW;
        }
        self.out.push(tag);
        match series {
            SeriesRef::Id(id) => put_varint(&mut self.out, u64::from(id.0)),
            SeriesRef::Name(name, kind) => {
                self.out.push(kind_code(kind));
                put_bytes(&mut self.out, name.as_str().as_bytes());
            }
        }
        if !same_window {
            put_varint(&mut self.out, window.0);
            self.window = Some(window);
        }
    }
}

const fn kind_code(kind: Kind) -> u8 {
    match kind {
        Kind::Counter => 0,
        Kind::Updown => 1,
        Kind::Sample => 2,
    }
}

fn put_amount(out: &mut Vec<u8>, amount: &Amount) {
    match amount {
        Amount::Counter(sum) => put_varint_u128(out, *sum),
        Amount::Updown { up, down } => {
            put_varint_u128(out, *up);
            put_varint_u128(out, *down);
        }
        Amount::Sample(sample) => {
            put_varint(out, sample.count);
            put_varint_u128(out, zigzag(sample.sum.0));
            put_varint(out, sample.last.at.0);
            for value in [sample.min, sample.max, sample.last.value] {
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
    }
}
