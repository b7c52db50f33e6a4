//! The replicated state machine, pure: what the same log makes the same on every box.

pub(crate) mod codec;
mod digest;
pub mod entry;
mod outbox;
mod readdress;
mod settings;
pub(crate) mod units;
mod view;

use tally_core::id::{Epoch, LogIndex, ReportNumber, SourceId};
use tally_core::report::Kind;
use tally_core::time::SiteTime;
use tally_core::window::Span;

pub use entry::{EntryError, KeyedAdd, ReportWriter, SeriesRef, SourceKind};
pub use readdress::readdressed;
pub use settings::Settings;
pub use view::*;

/// What provisioning decided for the life of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    /// The site's name.
    pub site: String,
    /// Random; part of every summary's identity.
    pub site_id: u64,
    /// The span of windows until a setting says otherwise.
    pub base_span: Span,
}

/// Why a snapshot was not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Not a snapshot, or damaged.
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
    /// A version that this program does not read.
    #[error("the snapshot has version {0}, this program reads version 1: a newer one wrote it")]
    Version(u32),
    /// Of a site with another id.
    #[error("the snapshot is of site {found:016x}, this is site {expected:016x}")]
    Foreign {
        /// The id in the snapshot.
        found: u64,
        /// This site's.
        expected: u64,
    },
}

/// The state of a site: a function of the entries applied and of nothing else.
#[derive(Debug)]
pub struct Site {
    site_id: u64,
    applied: LogIndex,
    stamp: Stamp,
    digest: u64,
    settings: Settings,
}

impl Site {
    /// A site to which nothing has happened.
    #[must_use]
    pub fn new(founding: &Founding) -> Site {
        Site {
            site_id: founding.site_id,
            applied: LogIndex::ZERO,
            stamp: Stamp::default(),
            digest: founding.site_id,
            settings: Settings::new(founding.base_span),
        }
    }

    /// Applies one entry, and says what came of it.
    pub fn apply(&mut self, index: LogIndex, payload: &[u8]) -> Result<Applied, EntryError> {
        if index <= self.applied {
            return Err(EntryError::NotNext { index: index.0, applied: self.applied.0 });
        }
        if !payload.is_empty() {
            let (stamp, body) = entry::split(payload)?;
            entry::check(body)?;
            self.stamp = stamp;
        }
        self.applied = index;
        Ok(Applied::Nothing)
    }

    /// The index of the last entry applied.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// The time stamped on the last entry that had one; neither part ever goes back.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// A running hash over all effects: equal on boxes that applied the same entries.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The whole state as bytes; the same bytes on boxes that applied the same entries.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        self.site_id.to_le_bytes().to_vec()
    }

    /// The state that a snapshot holds.
    pub fn restore(founding: &Founding, bytes: &[u8]) -> Result<Site, SnapshotError> {
        if bytes == founding.site_id.to_le_bytes() {
            return Ok(Site::new(founding));
        }
        Err(SnapshotError::Damaged("it is not a snapshot"))
    }

    /// The series of that name.
    #[must_use]
    pub fn find(&self, _name: &str) -> Option<SeriesId> {
        None
    }

    /// A series' kind.
    #[must_use]
    pub fn kind(&self, _id: SeriesId) -> Kind {
        Kind::Counter
    }

    /// A series' name.
    #[must_use]
    pub fn name(&self, _id: SeriesId) -> &str {
        ""
    }

    /// A series as it is.
    #[must_use]
    pub fn series(&self, id: SeriesId) -> SeriesView {
        SeriesView { id, name: String::new(), kind: Kind::Counter, total: 0, sample: None, changed: 0 }
    }

    /// How many series there are.
    #[must_use]
    pub fn series_len(&self) -> usize {
        0
    }

    /// A series' total; a sample's count.
    #[must_use]
    pub fn series_total(&self, _id: SeriesId) -> i128 {
        0
    }

    /// Series by name order, from after `after`.
    #[must_use]
    pub fn page(&self, _prefix: &str, _after: Option<&str>, _limit: usize) -> Vec<SeriesView> {
        Vec::new()
    }

    /// Series that an entry after `index` changed.
    #[must_use]
    pub fn changed_since(&self, _index: LogIndex, _prefix: &str) -> Vec<SeriesView> {
        Vec::new()
    }

    /// The latest closed windows of a series, oldest first.
    #[must_use]
    pub fn windows(&self, _id: SeriesId, _last: usize) -> Vec<Summary> {
        Vec::new()
    }

    /// Windows closed since a position, and the present position.
    #[must_use]
    pub fn closed_after(&self, _ring_position: u64, _prefix: &str) -> (u64, Vec<Summary>) {
        (0, Vec::new())
    }

    /// The replicated settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The named source (a device or program) of that name.
    #[must_use]
    pub fn source(&self, _name: &str) -> Option<SourceId> {
        None
    }

    /// The box of that name as a source.
    #[must_use]
    pub fn box_source(&self, _name: &str) -> Option<SourceId> {
        None
    }

    /// Whether an amount of that kind for that series would be refused as far as known here.
    pub fn check_series(&self, _name: &str, _kind: Kind) -> Result<(), Refusal> {
        Ok(())
    }

    /// The open epochs of a source and their last numbers, oldest first.
    #[must_use]
    pub fn epochs_of(&self, _source: SourceId) -> Vec<(Epoch, Option<ReportNumber>)> {
        Vec::new()
    }

    /// How many summaries wait: numbered and undelivered, and unnumbered.
    #[must_use]
    pub fn outbox_len(&self) -> usize {
        0
    }

    /// How many summaries have no number yet.
    #[must_use]
    pub fn unnumbered_len(&self) -> usize {
        0
    }

    /// The last number given.
    #[must_use]
    pub fn numbered_last(&self) -> u64 {
        0
    }

    /// The last number delivered.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        0
    }

    /// Numbered, undelivered summaries after a number, in order.
    #[must_use]
    pub fn numbered(&self, _after_seq: u64, _limit: usize) -> Vec<Summary> {
        Vec::new()
    }

    /// What a leader should propose to close at `now`: the latest end of an open window that
    /// ended at least the grace ago.
    #[must_use]
    pub fn close_due(&self, _now: SiteTime) -> Option<SiteTime> {
        None
    }
}
