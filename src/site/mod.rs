//! The replicated state machine, without I/O: the same log makes the same state on every box.
//!
//! [`Site::apply`] applies entries ([`entry`]), one after the other; everything else reads. Each
//! module below keeps one part of the state and writes it into a snapshot itself.

mod access;
mod admission;
mod apply;
mod body;
mod departures;
mod digest;
pub mod entry;
#[cfg(debug_assertions)]
mod flip;
mod gap;
mod history;
mod keys;
mod layers;
mod leap;
mod level;
mod members;
mod meters;
mod names;
mod outbox;
mod packed;
mod passed;
mod readdress;
mod refounded;
mod refused;
mod requests;
mod series;
mod set_aside;
mod settings;
mod snapshot;
mod sources;
mod tokens;
mod view;

use std::collections::BTreeMap;

use tally_core::id::{Epoch, LogIndex, NodeId, ReportNumber, SourceId};
use tally_core::report::Kind;
use tally_core::time::SiteTime;
use tally_core::window::Span;

use access::AccessTokens;
use departures::Departures;
use history::History;
use keys::Keys;
use leap::Leap;
use members::Members;
use meters::Meters;
use outbox::Outbox;
use requests::Requests;
use series::Table;
use set_aside::SetAside;
use sources::Sources;
use tokens::Tokens;

pub use crate::codec::Malformed;
pub use access::{ACCESS_MAX, AccessChange, AccessHash, AccessRecord, AccessRefused, AccessRole, NewAccess};
pub use admission::{JoinRefused, JoinRequest, Joined};
pub use entry::{EntryError, KeyedAdd, ReportWriter, SeriesRef, SourceKind};
pub use gap::{NUMBER_PASSED_MAX, NumberGap};
pub use layers::{Body, Envelope, NOBODY, StampedEntry};
pub use level::Level;
pub use members::{
    ADDRESS_BYTES_MAX, ConfigurationRecord, MEMBERS_MAX, MemberChange, MemberRecord, MemberRefused,
    NAME_BYTES_MAX, Part,
};
pub(crate) use members::{put_records, read_records};
pub use meters::{METER_NAME_BYTES_MAX, is_meter_name};
pub use readdress::readdress;
pub use set_aside::{HELD_MANY, SERIES_HELD_MAX};
pub use settings::Settings;
pub use tokens::{
    NewToken, SiteKey, TOKEN_TTL_MS_MAX, TOKEN_USES_MAX, TOKENS_MAX, TokenChange, TokenId, TokenRecord,
    TokenRefused,
};
pub use view::*;

/// The most series that one entry removes.
pub const SERIES_REMOVED_MAX: usize = 1000;

/// The facts about a site that provisioning fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapSettings {
    /// The site's name.
    pub site: String,
    /// The random id of the site, a part of every summary's identity.
    pub site_id: u64,
    /// The span of windows until a setting says otherwise.
    pub base_span: Span,
    /// The initial feature level: that of the release that provisioned the site.
    pub level: Level,
}

/// Why a snapshot was not installed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Not a snapshot, or damaged.
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
    /// A version that this program does not read.
    #[error(
        "the snapshot has version {0}; this program supports versions 1 to 7: a newer one wrote it; update \
         this box"
    )]
    Version(u32),
    /// A feature level that this program does not support.
    #[error(
        "the snapshot belongs to a site at feature level {0}; this program supports levels up to {max}: \
         update this box",
        max = Level::MAX
    )]
    Level(Level),
    /// A snapshot of another site.
    #[error("the snapshot belongs to site {found:016x}; this is site {expected:016x}")]
    Foreign {
        /// The id in the snapshot.
        found: u64,
        /// This site's.
        expected: u64,
    },
}

/// The state of a site: a function of the entries applied and of nothing else.
///
/// Methods that take a [`SeriesId`] panic on one that this site did not give out.
#[derive(Debug)]
pub struct Site {
    site_id: u64,
    applied: LogIndex,
    stamp: Stamp,
    digest: u64,
    level: Level,
    settings: Settings,
    sources: Sources,
    table: Table,
    outbox: Outbox,
    history: History,
    keys: Keys,
    members: Members,
    requests: Requests,
    meters: Meters,
    set_aside: SetAside,
    tokens: Tokens,
    departures: Departures,
    gap: Option<NumberGap>,
    /// From level 4 on.
    leap: Leap,
    access: AccessTokens,
}

impl Site {
    /// Makes a site without any entries.
    #[must_use]
    pub fn new(founding: &BootstrapSettings) -> Site {
        let site_id = founding.site_id;
        let mut site = Site {
            site_id,
            applied: LogIndex::ZERO,
            stamp: Stamp::default(),
            digest: site_id,
            level: founding.level,
            settings: Settings::new(founding.base_span),
            sources: Sources::default(),
            table: Table::new(site_id),
            outbox: Outbox::new(),
            history: History::default(),
            keys: Keys::new(site_id),
            members: Members::default(),
            requests: Requests::default(),
            meters: Meters::new(site_id),
            set_aside: SetAside::default(),
            tokens: Tokens::default(),
            departures: Departures::default(),
            gap: None,
            leap: Leap::default(),
            access: AccessTokens::default(),
        };
        site.set_level(founding.level);
        site
    }

    /// The index of the last entry applied.
    #[must_use]
    pub const fn applied(&self) -> LogIndex {
        self.applied
    }

    /// The latest time stamped on an entry; neither part ever goes back.
    #[must_use]
    pub const fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// A running hash over all effects: equal on boxes that applied the same entries.
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// Who may be a member by what these entries, in their order, say beyond what is applied: those
    /// that were provisioned, those whom the site names now, and those whom it will have named if the entries are
    /// committed. Of a change that will be refused nothing is taken: it is judged here as where it is applied.
    #[must_use]
    pub fn members_to_come(
        &self,
        provisioned: Vec<MemberRecord>,
        entries: impl Iterator<Item = StampedEntry>,
    ) -> Vec<MemberRecord> {
        let (mut members, mut tokens, now) = (self.members.clone(), self.tokens.clone(), self.stamp.elapsed);
        let mut named: BTreeMap<NodeId, MemberRecord> =
            provisioned.into_iter().map(|record| (record.id, record)).collect();
        named.extend(members.known().map(|record| (record.id, record.clone())));
        for said in entries.filter_map(|entry| entry::members_of_entry(&entry)) {
            match said {
                entry::SaidOfMembers::Bootstrap(records) => {
                    members.bootstrap(records, 0);
                }
                // Refused there as well, and told there.
                entry::SaidOfMembers::Change(change) => {
                    let _ = members.change(change, 0);
                }
                entry::SaidOfMembers::Token(change) => {
                    let _ = admission::change_tokens(&members, &mut tokens, change, now, 0);
                }
                entry::SaidOfMembers::Join(request) => {
                    let _ = admission::admit(&mut members, &mut tokens, request, now, 0);
                }
            }
            named.extend(members.known().map(|record| (record.id, record.clone())));
        }
        named.into_values().collect()
    }

    /// Removed members that the configuration in force still has, as far as this box applied it.
    #[must_use]
    pub fn members_leaving(&self) -> &[MemberRecord] {
        self.members.leaving()
    }

    /// The numbers of members that were removed, ascending: none is ever used again.
    pub fn members_retired(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.retired()
    }

    /// What all counters, updowns and samples have come to together: how much is lost with this state.
    #[must_use]
    pub fn counts(&self) -> u128 {
        self.series_ids().map(|id| self.series_total(id).unsigned_abs()).fold(0, u128::saturating_add)
    }

    /// The members by number, as agreed; none before the site's first leader has told.
    #[must_use]
    pub fn members(&self) -> &[MemberRecord] {
        self.members.list()
    }

    /// The configuration of the group whose entry was applied last; `None`: the one that the site was
    /// provisioned with.
    #[must_use]
    pub fn configuration(&self) -> Option<&ConfigurationRecord> {
        self.members.in_force()
    }

    /// The replicated settings.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The series of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<SeriesId> {
        self.table.names.find(name).map(SeriesId)
    }

    /// A series' kind.
    #[must_use]
    pub fn kind(&self, id: SeriesId) -> Kind {
        self.table.rows[id.0 as usize].kind
    }

    /// A series' name.
    #[must_use]
    pub fn name(&self, id: SeriesId) -> &str {
        self.table.names.get(id.0)
    }

    /// The present state of a series.
    #[must_use]
    pub fn series(&self, id: SeriesId) -> SeriesView {
        self.table.view(id)
    }

    /// The number of series.
    #[must_use]
    pub const fn series_len(&self) -> usize {
        self.table.live
    }

    /// The ids of all series.
    pub fn series_ids(&self) -> impl Iterator<Item = SeriesId> {
        (0..self.table.rows.len() as u32).filter(|id| self.table.is_live(*id)).map(SeriesId)
    }

    /// How many entries have removed or renamed series: a report says of how many its box knew.
    #[must_use]
    pub const fn name_changes(&self) -> u32 {
        self.departures.changes()
    }

    /// Whether an id is that of the series that it was for a box that knew of so many changes of names.
    #[must_use]
    pub fn is_still(&self, id: SeriesId, as_of: u32) -> bool {
        self.table.meant(id, as_of).is_ok()
    }

    /// Whether a series of this name was removed or renamed after so many changes of names.
    #[must_use]
    pub fn has_left_since(&self, name: &str, as_of: u32) -> bool {
        self.departures.has_left_since(self.site_id, name, as_of)
    }

    /// How many names that series had are not cleared at the broker yet.
    #[must_use]
    pub fn departures_len(&self) -> usize {
        self.departures.len()
    }

    /// The series that were removed and whose last summaries are not delivered yet, as they were.
    #[must_use]
    pub fn leaving(&self) -> Vec<(u64, SeriesView)> {
        let removed = self.departures.waiting().filter(|(_, departure)| departure.until.is_none());
        removed.map(|(id, departure)| (id, self.table.view(SeriesId(departure.series)))).collect()
    }

    /// The name under which a number of a series is published, and whether it is the present one of a series in use.
    #[must_use]
    pub fn name_of(&self, id: SeriesId, seq: u64) -> (&str, bool) {
        match self.departures.name_at(id.0, seq) {
            Some(before) => (before, false),
            None => (self.name(id), self.table.is_live(id.0)),
        }
    }

    /// Site time at which a series began to count; 0: before feature level 3.
    #[must_use]
    pub fn since(&self, id: SeriesId) -> u64 {
        self.table.since[id.0 as usize]
    }

    /// A series' total; a sample's count.
    #[must_use]
    pub fn series_total(&self, id: SeriesId) -> i128 {
        self.table.rows[id.0 as usize].total
    }

    /// The span of the windows that a series opens now.
    #[cfg(test)]
    pub(crate) fn span(&self, id: SeriesId) -> Span {
        self.settings.span_for(self.name(id))
    }

    /// Up to `limit` series by name order (by bytes): those that begin with `prefix`, after `after`.
    #[must_use]
    pub fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<SeriesView> {
        self.table.names.range(prefix, after).take(limit).map(|id| self.series(SeriesId(id))).collect()
    }

    /// Series that an entry after `index` changed and that begin with `prefix`, by id. Looks at one
    /// number for each series of the site.
    #[must_use]
    pub fn changed_since(&self, index: LogIndex, prefix: &str) -> Vec<SeriesView> {
        let changed = (0u32..).zip(&self.table.changed).filter(|(_, changed)| **changed > index.0);
        let ids = changed.map(|(id, _)| SeriesId(id)).filter(|id| self.table.is_live(id.0));
        ids.filter(|id| self.name(*id).starts_with(prefix)).map(|id| self.series(id)).collect()
    }

    /// The latest closed windows of a series in the order in which they were closed: as many as
    /// asked for and kept.
    #[must_use]
    pub fn windows(&self, id: SeriesId, last: usize) -> Vec<Summary> {
        self.history.latest(id, last)
    }

    /// Windows closed since a position, of series that begin with `prefix`, and the position to go
    /// on from. Start with `u64::MAX`, which gives the present position. At most 10,000 at once;
    /// of what has left the history meanwhile nothing is told. A late amount that joined a late
    /// window told before is not told again.
    #[must_use]
    pub fn closed_after(&self, ring_position: u64, prefix: &str) -> (u64, Vec<Summary>) {
        self.history.after(ring_position, |id| self.name(id).starts_with(prefix))
    }

    /// The named source (a device or program) of that name.
    #[must_use]
    pub fn source(&self, name: &str) -> Option<SourceId> {
        self.sources.find(SourceKind::Named, name)
    }

    /// The box of that name as a source.
    #[cfg(test)]
    pub(crate) fn box_source(&self, name: &str) -> Option<SourceId> {
        self.sources.find(SourceKind::Box, name)
    }

    /// How many sources the site remembers, folded ones included.
    #[must_use]
    pub fn sources_len(&self) -> usize {
        self.sources.len()
    }

    /// The open epochs of a source and their last numbers, oldest first.
    #[must_use]
    pub fn epochs_of(&self, source: SourceId) -> Vec<(Epoch, Option<ReportNumber>)> {
        self.sources.epochs_of(source)
    }

    /// How many idempotency keys are held.
    #[must_use]
    pub const fn keys_len(&self) -> u64 {
        self.keys.len()
    }

    /// How many meters the site keeps the last reading of.
    #[must_use]
    pub fn meters_len(&self) -> usize {
        self.meters.len()
    }

    /// How many jumps of meters wait to be confirmed.
    #[must_use]
    pub fn held_jumps_len(&self) -> usize {
        self.meters.held_len()
    }

    /// Whether a jump of this meter, which is counted in the series of that name, waits to be confirmed.
    #[must_use]
    pub fn holds_jump(&self, series: &str, meter: &str) -> bool {
        self.held_jumps_len() > 0 && self.find(series).is_some_and(|id| self.meters.holds(id, meter))
    }

    /// Up to `limit` jumps of meters that wait to be confirmed.
    #[must_use]
    pub fn held_jumps(&self, limit: usize) -> Vec<HeldJump> {
        self.meters.held_jumps().take(limit).collect()
    }

    /// How many summaries wait: numbered and undelivered, and unnumbered.
    #[must_use]
    pub fn outbox_len(&self) -> usize {
        self.outbox.len()
    }

    /// Bytes of the summaries that wait, as `outbox.bytes_max` counts them.
    #[cfg(test)]
    pub(crate) fn outbox_bytes(&self) -> u64 {
        self.outbox.bytes()
    }

    /// How many summaries have no number yet.
    #[must_use]
    pub const fn unnumbered_len(&self) -> usize {
        self.outbox.unnumbered_len()
    }

    /// How many of them can be numbered: all except those of series of which many numbers are held.
    #[must_use]
    pub fn numberable_len(&self) -> usize {
        let stopped = self.set_aside.stopped_series().map(|series| self.outbox.unnumbered_of(series));
        self.outbox.unnumbered_len() - stopped.sum::<usize>()
    }

    /// The last number given; 0 before the first.
    #[must_use]
    pub const fn numbered_last(&self) -> u64 {
        self.outbox.last()
    }

    /// The last number delivered; 0 before the first.
    #[must_use]
    pub const fn delivered(&self) -> u64 {
        self.outbox.delivered_up_to()
    }

    /// Up to `limit` numbered, undelivered summaries after a number, in order.
    #[must_use]
    pub fn numbered(&self, after_seq: u64, limit: usize) -> Vec<Summary> {
        self.outbox.numbered(after_seq, limit).cloned().collect()
    }

    /// The number of summaries that are held because the broker refuses them.
    #[must_use]
    pub fn held_len(&self) -> usize {
        self.set_aside.len()
    }

    /// Whether this number is held.
    #[must_use]
    pub fn holds(&self, seq: u64) -> bool {
        self.set_aside.has(seq)
    }

    /// Up to `limit` held summaries after a number, in order. `delivered` may be beyond them.
    #[must_use]
    pub fn held(&self, after_seq: u64, limit: usize) -> Vec<Held> {
        self.set_aside.after(after_seq, limit).cloned().collect()
    }

    /// What a leader should propose to close ([`entry::close`]) at `now`: the latest end of an open
    /// window that ended at least the grace ago. `None`: nothing is due.
    #[must_use]
    pub fn close_due(&self, now: SiteTime) -> Option<SiteTime> {
        let limit = now.0.checked_sub(self.settings.window_grace_ms())?;
        self.table.latest_end(limit).map(SiteTime)
    }
}

#[cfg(test)]
mod apply_tests;
#[cfg(test)]
mod level_tests;
#[cfg(test)]
mod name_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod removal_tests;
#[cfg(test)]
mod set_aside_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod windows_tests;
