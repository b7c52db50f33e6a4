//! Encodes and decodes the whole state: fixed-width integers in a fixed order, module by module.
//!
//! Equal states have equal bytes, whatever their history, and a restored site goes on as the
//! one whose bytes it was given would.

use tally_core::id::LogIndex;
use tally_core::report::{Amount, Kind};
use tally_core::time::{Elapsed, SiteTime};

use super::access::AccessTokens;
use super::departures::Departures;
use super::gap::NumberGap;
use super::history::History;
use super::keys::Keys;
use super::leap::Leap;
use super::level::Level;
use super::members::Members;
use super::meters::Meters;
use super::outbox::Outbox;
use super::packed::{Packed, put_sample, read_sample};
use super::passed::Passed;
use super::requests::Requests;
use super::series::{Parked, Row, RowState, Sampled, Table, Updown};
use super::set_aside::{HELD_BYTES, SetAside};
use super::settings::Settings;
use super::sources::Sources;
use super::tokens::Tokens;
use super::view::Stamp;
use super::{BootstrapSettings, Site, SnapshotError};
use crate::codec::{Malformed, Reader, put_bytes};
use crate::deliberate::{self, Bug};

const MAGIC: [u8; 8] = *b"tallysnp";
/// With access tokens, of a site from level 5 on.
pub(super) const VERSION: u32 = 7;
/// With names that left and since when series count, of a site at level 4.
const VERSION_WITHOUT_ACCESS: u32 = 6;
/// With join tokens, of a site at level 3.
const VERSION_WITHOUT_DEPARTURES: u32 = 5;
/// Of a site at level 2, which has no tokens, and so may have boxes that read no later version.
const VERSION_WITHOUT_TOKENS: u32 = 4;
/// Of a site at feature level 1, without levels.
const VERSION_WITHOUT_LEVEL: u32 = 3;
/// Members without those who are leaving; no requests.
const VERSION_WITHOUT_LEAVING: u32 = 2;
const VERSION_WITHOUT_MEMBERS: u32 = 1;

impl Site {
    /// The whole state as bytes; the same bytes on boxes that applied the same entries.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        self.written(&self.tokens)
    }

    /// The same for a backup: join tokens open the site's doors, and a file goes round.
    #[must_use]
    pub fn snapshot_without_tokens(&self) -> Vec<u8> {
        self.written(&Tokens::default())
    }

    fn written(&self, tokens: &Tokens) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.snapshot_size_guess());
        out.extend_from_slice(&MAGIC);
        let version = version_of(self.level);
        out.extend_from_slice(&version.to_le_bytes());
        for number in [
            self.site_id,
            self.applied.0,
            self.digest,
            self.stamp.site.0,
            self.stamp.elapsed.0,
            u64::from(self.stamp.synced),
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let (values, spans) = self.settings.parts();
        out.push(values.len() as u8);
        for value in values {
            out.extend_from_slice(&value.to_le_bytes());
        }
        put_bytes(&mut out, spans.as_bytes());
        self.sources.put(&mut out);
        self.table.put(&mut out);
        self.outbox.put(&mut out);
        self.history.put(&mut out);
        self.keys.put(&mut out);
        self.members.put(&mut out);
        self.requests.put(&mut out);
        self.put_newest(&mut out);
        if version > VERSION_WITHOUT_TOKENS {
            tokens.put(&mut out);
            self.members.put_joined(&mut out);
        }
        if version > VERSION_WITHOUT_DEPARTURES {
            self.table.put_states(&mut out);
            self.departures.put(&mut out);
            NumberGap::put(self.gap, &mut out);
            self.leap.put(&mut out);
        }
        if version > VERSION_WITHOUT_ACCESS {
            self.access.put(&mut out);
        }
        out
    }

    /// What came with level 2.
    fn put_newest(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.level.get().to_le_bytes());
        self.table.passed.put(out);
        self.meters.put(out);
        self.set_aside.put(out);
    }

    /// The state that a snapshot of this site holds.
    ///
    /// # Errors
    /// Why these bytes are no snapshot of this site that this release can read.
    pub fn restore(founding: &BootstrapSettings, bytes: &[u8]) -> Result<Site, SnapshotError> {
        let mut reader = Reader::new(bytes);
        if reader.array::<8>().ok() != Some(MAGIC) {
            return Err(SnapshotError::Damaged("it does not begin like one"));
        }
        let version = reader.u32().map_err(damaged("its version"))?;
        if !matches!(version, VERSION_WITHOUT_MEMBERS..=VERSION) {
            return Err(SnapshotError::Version(version));
        }
        let found = reader.u64().map_err(damaged("its site"))?;
        if found != founding.site_id {
            return Err(SnapshotError::Foreign { found, expected: founding.site_id });
        }
        let (applied, digest, stamp) = read_head(&mut reader).map_err(damaged("its head"))?;
        let settings = read_settings(founding, &mut reader)?;
        let sources = Sources::read(&mut reader).map_err(damaged("its sources"))?;
        let mut table = Table::read(founding.site_id, &mut reader).map_err(damaged("its series"))?;
        table.respan(&settings);
        let is_kind = |series: u32, amount: &Amount| {
            table.rows.get(series as usize).is_some_and(|row| row.kind == amount.kind())
        };
        let outbox = Outbox::read(&mut reader, is_kind).map_err(damaged("its outbox"))?;
        let history = History::read(&mut reader, is_kind).map_err(damaged("its history"))?;
        let keys = Keys::read(founding.site_id, &mut reader).map_err(damaged("its keys"))?;
        let mut members = match version {
            VERSION_WITHOUT_MEMBERS => Members::default(),
            _ => {
                let leaving = version > VERSION_WITHOUT_LEAVING;
                Members::read(&mut reader, leaving).map_err(damaged("its members"))?
            }
        };
        let requests = match version {
            VERSION_WITHOUT_LEVEL.. => Requests::read(&mut reader).map_err(damaged("its requests"))?,
            _ => Requests::default(),
        };
        let (level, meters, set_aside) = match version {
            VERSION_WITHOUT_TOKENS.. => {
                let level = read_level(&mut reader)?;
                table.passed = Passed::read(&mut reader).map_err(damaged("its clock"))?;
                let meters = read_meters(founding.site_id, &table, &mut reader)?;
                (level, meters, read_set_aside(&outbox, &table, &mut reader)?)
            }
            _ => (Level::ONE, Meters::new(founding.site_id), SetAside::default()),
        };
        // Its next snapshot must have the same bytes.
        if version_of(level) != version.max(VERSION_WITHOUT_TOKENS) {
            return Err(SnapshotError::Damaged("its level"));
        }
        let mut tokens = Tokens::default();
        if version > VERSION_WITHOUT_TOKENS {
            tokens = Tokens::read(&mut reader).map_err(damaged("its tokens"))?;
            members.read_joined(&mut reader).map_err(damaged("its joined members"))?;
        }
        let has_departures = version > VERSION_WITHOUT_DEPARTURES;
        if has_departures {
            table.read_states(&mut reader).map_err(damaged("its series"))?;
        }
        table.link().map_err(damaged("its names"))?;
        let (mut departures, mut gap, mut leap) = (Departures::default(), None, Leap::default());
        if has_departures {
            let state = |id: u32| match table.rows.get(id as usize)?.state {
                RowState::Live => Some(true),
                RowState::Leaving => Some(false),
                RowState::Vacant => None,
            };
            departures = Departures::read(&mut reader, state).map_err(damaged("its names that left"))?;
            gap = NumberGap::read(&mut reader, outbox.last()).map_err(damaged("its gap in the numbers"))?;
            leap = Leap::read(&mut reader).map_err(damaged("its leap of time"))?;
        }
        let mut access = AccessTokens::default();
        if version > VERSION_WITHOUT_ACCESS {
            access = AccessTokens::read(&mut reader).map_err(damaged("its access tokens"))?;
        }
        reader.done().map_err(damaged("its end"))?;
        let mut site = Site {
            site_id: founding.site_id,
            applied,
            stamp,
            digest,
            level,
            settings,
            sources,
            table,
            outbox,
            history,
            keys,
            members,
            requests,
            meters,
            set_aside,
            departures,
            gap,
            tokens,
            leap,
            access,
        };
        site.set_level(level);
        Ok(site)
    }

    fn snapshot_size_guess(&self) -> usize {
        // A vector that doubles at 50 MB would need 150.
        let series = self.table.rows.len() * 220;
        let windows =
            self.table.parked.len() * 100 + self.outbox.bytes() as usize + self.history.bytes() as usize;
        series
            + windows
            + self.sources.len() * 512
            + self.keys.len() as usize * 52
            + self.meters.len() * 200
            + self.set_aside.len() * HELD_BYTES
            + 4096
    }
}

/// The version in which a site at this level is written. All its boxes can read it: a level is raised when all
/// support it.
fn version_of(level: Level) -> u32 {
    if level >= Level::FIVE {
        VERSION
    } else if level >= Level::FOUR {
        VERSION_WITHOUT_ACCESS
    } else if level >= Level::THREE {
        VERSION_WITHOUT_DEPARTURES
    } else {
        VERSION_WITHOUT_TOKENS
    }
}

fn damaged(part: &'static str) -> impl Fn(Malformed) -> SnapshotError {
    move |_| SnapshotError::Damaged(part)
}

fn read_head(reader: &mut Reader<'_>) -> Result<(LogIndex, u64, Stamp), Malformed> {
    let (applied, digest) = (LogIndex(reader.u64()?), reader.u64()?);
    let (site, elapsed) = (SiteTime(reader.u64()?), Elapsed(reader.u64()?));
    let synced = match reader.u64()? {
        0 => false,
        1 => true,
        _ => return Err(Malformed),
    };
    if site.0 > super::layers::STAMP_MAX || elapsed.0 > super::layers::STAMP_MAX {
        return Err(Malformed);
    }
    Ok((applied, digest, Stamp { site, elapsed, synced }))
}

fn read_set_aside(
    outbox: &Outbox,
    table: &Table,
    reader: &mut Reader<'_>,
) -> Result<SetAside, SnapshotError> {
    let is_kind = |series: u32, amount: &Amount| {
        table.rows.get(series as usize).is_some_and(|row| row.kind == amount.kind())
    };
    SetAside::read(reader, outbox.last(), is_kind).map_err(damaged("its set-aside summaries"))
}

/// A level that this program cannot apply is of a newer release, like an unknown version.
fn read_level(reader: &mut Reader<'_>) -> Result<Level, SnapshotError> {
    let level = reader.u32().ok().and_then(Level::new).ok_or(SnapshotError::Damaged("its level"))?;
    if level > Level::MAX { Err(SnapshotError::Level(level)) } else { Ok(level) }
}

fn read_meters(seed: u64, table: &Table, reader: &mut Reader<'_>) -> Result<Meters, SnapshotError> {
    let is_counter =
        |series: u32| table.rows.get(series as usize).is_some_and(|row| row.kind == Kind::Counter);
    Meters::read(seed, reader, is_counter).map_err(damaged("its meters"))
}

fn read_settings(founding: &BootstrapSettings, reader: &mut Reader<'_>) -> Result<Settings, SnapshotError> {
    let parts = |reader: &mut Reader<'_>| {
        let count = reader.u8()?;
        let values = (0..count).map(|_| reader.u64()).collect::<Result<Vec<u64>, Malformed>>()?;
        Ok((values, reader.text()?.to_string()))
    };
    let (values, spans) = parts(reader).map_err(damaged("its settings"))?;
    Settings::from_parts(founding.base_span, &values, &spans)
        .map_err(|_| SnapshotError::Damaged("its settings"))
}

impl Table {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.closed.to_le_bytes());
        self.names.put(out);
        for (row, changed) in self.rows.iter().zip(&self.changed) {
            out.push(row.kind as u8);
            out.extend_from_slice(&row.total.to_le_bytes());
            out.extend_from_slice(&changed.to_le_bytes());
            out.extend_from_slice(&row.start.to_le_bytes());
            out.extend_from_slice(&row.end.to_le_bytes());
            match row.kind {
                Kind::Counter => out.extend_from_slice(&row.window.to_le_bytes()),
                Kind::Updown => {
                    let side = &self.updowns[row.side as usize];
                    out.extend_from_slice(&side.ups.to_le_bytes());
                    out.extend_from_slice(&side.up.to_le_bytes());
                    out.extend_from_slice(&side.down.to_le_bytes());
                }
                Kind::Sample => {
                    let side = &self.samples[row.side as usize];
                    put_sample(out, &side.all);
                    out.extend_from_slice(&side.magnitude.to_le_bytes());
                    if let Some(window) = &side.window {
                        put_sample(out, window);
                    }
                }
            }
        }
        if deliberate::is(Bug::SnapshotForgetsParked) {
            return out.extend_from_slice(&0u32.to_le_bytes());
        }
        out.extend_from_slice(&(self.parked.len() as u32).to_le_bytes());
        for ((series, start), parked) in &self.parked {
            out.extend_from_slice(&series.to_le_bytes());
            out.extend_from_slice(&start.to_le_bytes());
            out.extend_from_slice(&parked.end.to_le_bytes());
            parked.amount.put(out);
        }
    }

    /// Since when each counts, and which are in use.
    fn put_states(&self, out: &mut Vec<u8>) {
        for (row, since) in self.rows.iter().zip(&self.since) {
            out.push(row.state as u8);
            out.extend_from_slice(&row.born.to_le_bytes());
            out.extend_from_slice(&since.to_le_bytes());
        }
    }

    fn read_states(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        for (row, since) in self.rows.iter_mut().zip(&mut self.since) {
            row.state = match reader.u8()? {
                0 => RowState::Live,
                1 => RowState::Leaving,
                2 => RowState::Vacant,
                _ => return Err(Malformed),
            };
            row.born = reader.u32()?;
            *since = reader.u64()?;
            // What is out of use counts nothing.
            if row.state != RowState::Live && row.start < row.end {
                return Err(Malformed);
            }
        }
        Ok(())
    }

    /// Takes the names of all series in use into use.
    fn link(&mut self) -> Result<(), Malformed> {
        let of = |state| {
            let rows = (0u32..).zip(&self.rows).filter(move |(_, row)| row.state == state);
            rows.map(|(id, _)| id)
        };
        let live: Vec<u32> = of(RowState::Live).collect();
        self.vacant = of(RowState::Vacant).collect();
        let is_out_of_use = |(series, _): &(u32, u64)| !self.is_live(*series);
        if self.parked.keys().any(is_out_of_use)
            || self.vacant.iter().any(|id| !self.names.get(*id).is_empty())
        {
            return Err(Malformed);
        }
        self.live = live.len();
        self.names.link_all(live)
    }

    /// The spans are not read: the settings give them.
    fn read(seed: u64, reader: &mut Reader<'_>) -> Result<Table, Malformed> {
        let mut table = Table::new(seed);
        table.closed = reader.u64()?;
        table.names = super::names::Names::read(seed, reader)?;
        for _ in 0..table.names.len() {
            table.read_row(reader)?;
        }
        let parked = reader.u32()?;
        let mut before = None;
        for _ in 0..parked {
            let key = (reader.u32()?, reader.u64()?);
            let end = reader.u64()?;
            let amount = Packed::read(reader)?;
            let row = table.rows.get(key.0 as usize).ok_or(Malformed)?;
            if before >= Some(key) || key.1 >= end || amount.amount().kind() != row.kind {
                return Err(Malformed);
            }
            before = Some(key);
            table.ends.insert(end);
            table.parked.insert(key, Parked { end, amount });
        }
        Ok(table)
    }

    fn read_row(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        let kind = match reader.u8()? {
            0 => Kind::Counter,
            1 => Kind::Updown,
            2 => Kind::Sample,
            _ => return Err(Malformed),
        };
        let total = reader.i128()?;
        self.changed.push(reader.u64()?);
        let (start, end) = (reader.u64()?, reader.u64()?);
        if start >= end && (start, end) != (0, 0) {
            return Err(Malformed);
        }
        let (mut window, mut side) = (0, 0);
        match kind {
            Kind::Counter => window = reader.u128()?,
            Kind::Updown => {
                side = self.updowns.len() as u32;
                let (ups, up, down) = (reader.i128()?, reader.u128()?, reader.u128()?);
                self.updowns.push(Updown { ups, up, down });
            }
            Kind::Sample => {
                side = self.samples.len() as u32;
                let all = read_sample(reader)?;
                let magnitude = reader.i128()?;
                let window = if start < end { Some(read_sample(reader)?) } else { None };
                if magnitude < 0 || total != i128::from(all.count) {
                    return Err(Malformed);
                }
                self.samples.push(Sampled { all, magnitude, window });
            }
        }
        // What the hot path takes for granted: no part is more than the whole.
        if kind == Kind::Counter && u128::try_from(total).map_or(true, |total| window > total) {
            return Err(Malformed);
        }
        if start < end {
            self.ends.insert(end);
        }
        let (born, state) = (0, RowState::Live);
        self.since.push(0);
        self.rows.push(Row { total, window, start, end, span_ms: 1, side, born, kind, state });
        Ok(())
    }
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
