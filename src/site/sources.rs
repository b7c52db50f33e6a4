//! Sources, their epochs and how far each epoch's reports have come.
//!
//! A source that reports is live: its latest epochs take reports. One that was silent for long is
//! folded: of its epochs only the last numbers are kept, for a source that wants to know what
//! became of its frozen report. Ages run on elapsed time, with a grain of a minute.

use std::collections::{BTreeMap, BTreeSet};

use tally_core::id::{Epoch, ReportNumber, SourceId};
use tally_core::report::{Judgement, Numbering};
use tally_core::time::Elapsed;

use super::digest::mix;
use super::entry::{SOURCE_NAME_BYTES_MAX, SourceKind};
use super::level::Level;
use super::refused::Refused;
use super::settings::Settings;
use super::view::{LastApplied, OpenRefused};
use crate::codec::{Malformed, Reader, put_bytes};

/// How many of a source's epochs take reports.
const EPOCHS_MAX: usize = 4;
/// How old the note of a source's last report can be before it is renewed.
const GRAIN_MS: u64 = 60_000;
/// How many sources one entry folds or forgets at most.
const AGED_MAX: usize = 64;
/// How many boxes a site remembers as sources: as many as could ever be members, with those that were removed.
const BOXES_MAX: usize = 4096 + super::MEMBERS_MAX;
/// Bytes of all lists of refused cells together. A report whose list finds no room gets its
/// receipt once: the same report again is told the last number instead.
const REFUSED_BYTES_MAX: usize = 4 << 20;

/// All sources.
#[derive(Debug, Default)]
pub(super) struct Sources {
    by_id: BTreeMap<u64, Source>,
    by_name: BTreeMap<(SourceKind, Box<str>), u64>,
    /// Live ones by when they were last heard; folded ones by when they were folded.
    live: BTreeSet<(u64, u64)>,
    folded: BTreeSet<(u64, u64)>,
    last_id: u64,
    refused_bytes: usize,
    /// The site's.
    pub(super) level: Level,
}

#[derive(Debug)]
struct Source {
    kind: SourceKind,
    name: Box<str>,
    /// Elapsed time: last heard or, of a folded one, when it was folded.
    since: u64,
    is_folded: bool,
    /// Oldest first.
    epochs: Vec<EpochState>,
}

#[derive(Debug)]
struct EpochState {
    epoch: u64,
    /// Takes reports; of one that does not, only the last number is kept.
    is_open: bool,
    nonce: u128,
    numbering: Numbering,
    refused: Refused,
}

/// What a report is, and what its answer needs.
#[derive(Debug)]
pub(super) enum Judged<'a> {
    /// Apply it, then call [`Sources::advance`].
    Next,
    Repeated(&'a Refused),
    Changed(ReportNumber),
    OutOfOrder(Option<ReportNumber>),
    Unknown(LastApplied),
}

impl Sources {
    pub(super) fn judge(
        &self,
        source: SourceId,
        epoch: Epoch,
        number: ReportNumber,
        hash: u64,
    ) -> Judged<'_> {
        let Some(found) = self.by_id.get(&source.0) else { return Judged::Unknown(LastApplied::Unknown) };
        let Some(state) = found.epochs.iter().find(|state| state.epoch == epoch.0) else {
            return Judged::Unknown(LastApplied::Unknown);
        };
        let last = state.numbering.last;
        if !state.is_open {
            return Judged::Unknown(last.map_or(LastApplied::None, LastApplied::Number));
        }
        match (state.numbering.judge(number, hash), last) {
            (Judgement::Next, _) => Judged::Next,
            (Judgement::Repeated, _) => Judged::Repeated(&state.refused),
            (Judgement::Changed, Some(last)) => Judged::Changed(last),
            (Judgement::Changed | Judgement::OutOfOrder, last) => Judged::OutOfOrder(last),
        }
    }

    /// Notes that the next report of an epoch was applied, and which of its cells were refused.
    pub(super) fn advance(
        &mut self,
        source: SourceId,
        epoch: Epoch,
        numbered: (ReportNumber, u64),
        refused: Refused,
        now: Elapsed,
    ) {
        let Some(found) = self.by_id.get_mut(&source.0) else { return };
        if now.since_ms(Elapsed(found.since)) >= GRAIN_MS {
            self.live.remove(&(found.since, source.0));
            found.since = now.0;
            self.live.insert((now.0, source.0));
        }
        let Some(state) = found.epochs.iter_mut().find(|state| state.epoch == epoch.0) else { return };
        state.numbering.advance(numbered.0, numbered.1);
        self.refused_bytes -= state.refused.bytes();
        let room = REFUSED_BYTES_MAX - self.refused_bytes;
        state.refused = if refused.bytes() > room { Refused::Dropped } else { refused };
        self.refused_bytes += state.refused.bytes();
    }

    /// Opens an epoch, or finds the one that the nonce opened before.
    pub(super) fn open(
        &mut self,
        kind: SourceKind,
        name: &str,
        nonce: u128,
        epoch: Epoch,
        now: Elapsed,
        settings: &Settings,
    ) -> Result<(SourceId, Epoch), OpenRefused> {
        if name.is_empty() || name.len() > SOURCE_NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(OpenRefused::BadName);
        }
        let known = self.find(kind, name);
        if let Some(found) = known.and_then(|id| self.by_id.get(&id.0))
            && let Some(state) = found.epochs.iter().find(|state| state.is_open && state.nonce == nonce)
        {
            let id = known.unwrap_or_default();
            return Ok((id, Epoch(state.epoch)));
        }
        let id = match known {
            Some(id) => id.0,
            None => self.create(kind, name, now, settings)?,
        };
        self.revive(id, now);
        let Some(found) = self.by_id.get_mut(&id) else { return Err(OpenRefused::TooManySources) };
        // Random ones do not meet; if they do, neither source must take the other's numbers over.
        let mut epoch = epoch.0;
        while found.epochs.iter().any(|state| state.epoch == epoch) {
            epoch = mix(epoch, id);
        }
        if found.epochs.len() == EPOCHS_MAX {
            self.refused_bytes -= found.epochs.remove(0).refused.bytes();
        }
        let numbering = Numbering::default();
        found.epochs.reserve_exact(1);
        found.epochs.push(EpochState { epoch, is_open: true, nonce, numbering, refused: Refused::None });
        Ok((SourceId(id), Epoch(epoch)))
    }

    fn create(
        &mut self,
        kind: SourceKind,
        name: &str,
        now: Elapsed,
        settings: &Settings,
    ) -> Result<u64, OpenRefused> {
        let is_full = match kind {
            // A box that cannot open an epoch counts nothing: there are few of them, and they are exempt.
            SourceKind::Box if self.level >= Level::TWO => self.of_kind(kind) >= BOXES_MAX,
            _ => self.by_id.len() as u64 >= settings.sources_max(),
        };
        if is_full {
            // Room for a living one is worth more than the memory of one long gone.
            let oldest = self.folded.first().copied().ok_or(OpenRefused::TooManySources)?;
            self.forget(oldest);
        }
        self.last_id += 1;
        let id = self.last_id;
        let name: Box<str> = name.into();
        self.by_name.insert((kind, name.clone()), id);
        self.live.insert((now.0, id));
        self.by_id.insert(id, Source { kind, name, since: now.0, is_folded: false, epochs: Vec::new() });
        Ok(id)
    }

    fn revive(&mut self, id: u64, now: Elapsed) {
        let Some(found) = self.by_id.get_mut(&id) else { return };
        self.folded.remove(&(found.since, id));
        self.live.remove(&(found.since, id));
        // Its old epochs stay closed: what was told of them still holds.
        found.is_folded = false;
        found.since = now.0;
        self.live.insert((now.0, id));
    }

    /// Folds the long silent and forgets the long folded, a bounded number of them.
    pub(super) fn age(&mut self, now: Elapsed, settings: &Settings) {
        for _ in 0..AGED_MAX {
            let Some(&(since, id)) = self.live.first() else { break };
            if now.since_ms(Elapsed(since)) < settings.sources_silent_age_ms() {
                break;
            }
            self.live.remove(&(since, id));
            self.folded.insert((now.0, id));
            let Some(found) = self.by_id.get_mut(&id) else { break };
            found.is_folded = true;
            found.since = now.0;
            for state in &mut found.epochs {
                self.refused_bytes -= state.refused.bytes();
                state.refused = Refused::None;
                state.is_open = false;
                state.nonce = 0;
                state.numbering.last_hash = 0;
            }
        }
        for _ in 0..AGED_MAX {
            let Some(&(since, id)) = self.folded.first() else { break };
            if now.since_ms(Elapsed(since)) < settings.sources_folded_age_ms() {
                break;
            }
            self.forget((since, id));
        }
    }

    fn forget(&mut self, folded: (u64, u64)) {
        self.folded.remove(&folded);
        if let Some(gone) = self.by_id.remove(&folded.1) {
            self.by_name.remove(&(gone.kind, gone.name));
        }
    }

    /// How many of a kind there are. Asked where a new one comes, which is rare.
    fn of_kind(&self, kind: SourceKind) -> usize {
        self.by_id.values().filter(|source| source.kind == kind).count()
    }

    pub(super) fn find(&self, kind: SourceKind, name: &str) -> Option<SourceId> {
        self.by_name.get(&(kind, Box::from(name))).map(|id| SourceId(*id))
    }

    /// Epochs that take reports, oldest first.
    pub(super) fn epochs_of(&self, source: SourceId) -> Vec<(Epoch, Option<ReportNumber>)> {
        let epochs = self.by_id.get(&source.0).map(|found| found.epochs.as_slice()).unwrap_or_default();
        let open = epochs.iter().filter(|state| state.is_open);
        open.map(|state| (Epoch(state.epoch), state.numbering.last)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn name(&self, source: SourceId) -> Option<(SourceKind, &str)> {
        self.by_id.get(&source.0).map(|found| (found.kind, &*found.name))
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.last_id.to_le_bytes());
        out.extend_from_slice(&(self.by_id.len() as u32).to_le_bytes());
        for (id, source) in &self.by_id {
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&[u8::from(source.kind == SourceKind::Named), u8::from(source.is_folded)]);
            out.extend_from_slice(&source.since.to_le_bytes());
            put_bytes(out, source.name.as_bytes());
            out.push(source.epochs.len() as u8);
            for state in &source.epochs {
                out.extend_from_slice(&state.epoch.to_le_bytes());
                out.push(u8::from(state.is_open));
                out.extend_from_slice(&state.nonce.to_le_bytes());
                let last = state.numbering.last.map_or(0, ReportNumber::get);
                out.extend_from_slice(&last.to_le_bytes());
                out.extend_from_slice(&state.numbering.last_hash.to_le_bytes());
                state.refused.put(out);
            }
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Sources, Malformed> {
        let mut sources = Sources { last_id: reader.u64()?, ..Sources::default() };
        let count = reader.u32()?;
        let mut before = 0;
        for _ in 0..count {
            let id = reader.u64()?;
            if id <= before || id > sources.last_id {
                return Err(Malformed);
            }
            before = id;
            let source = Source::read(reader)?;
            sources.refused_bytes += source.epochs.iter().map(|state| state.refused.bytes()).sum::<usize>();
            let ages = if source.is_folded { &mut sources.folded } else { &mut sources.live };
            ages.insert((source.since, id));
            if sources.by_name.insert((source.kind, source.name.clone()), id).is_some() {
                return Err(Malformed);
            }
            sources.by_id.insert(id, source);
        }
        if sources.refused_bytes > REFUSED_BYTES_MAX { Err(Malformed) } else { Ok(sources) }
    }
}

impl Source {
    fn read(reader: &mut Reader<'_>) -> Result<Source, Malformed> {
        let kind = if reader.bool()? { SourceKind::Named } else { SourceKind::Box };
        let is_folded = reader.bool()?;
        let since = reader.u64()?;
        let name: Box<str> = reader.text()?.into();
        let count = reader.u8()?;
        if usize::from(count) > EPOCHS_MAX {
            return Err(Malformed);
        }
        let mut epochs = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let epoch = reader.u64()?;
            let is_open = reader.bool()?;
            let nonce = reader.u128()?;
            let last = ReportNumber::new(reader.u64()?);
            let numbering = Numbering { last, last_hash: reader.u64()? };
            epochs.push(EpochState { epoch, is_open, nonce, numbering, refused: Refused::read(reader)? });
        }
        Ok(Source { kind, name, since, is_folded, epochs })
    }
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
