//! Meters: the last accepted reading of each pair of meter and series, which turns readings into increases.
//!
//! [`tally_core::meter::step`] evaluates a reading; this module keeps the state that it is compared with.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashTable;
use tally_core::id::SourceId;
use tally_core::meter::{
    GLITCH_WINDOW_MS_MAX, Meter, MeterRule, Moment, Outcome, Pending, Reading, Step, step,
};
use tally_core::time::{Elapsed, SiteTime};

use super::digest::{mix, mix_bytes};
use super::leap::Leap;
use super::view::{HeldJump, Refusal, SeriesId};
use crate::codec::{Malformed, Reader, put_bytes};
use crate::deliberate::{self, Bug};

/// The longest name of a meter, in bytes.
pub const METER_NAME_BYTES_MAX: usize = 128;

/// How old the note of a meter's last reading can be before it is renewed.
const GRAIN_MS: u64 = 60_000;

/// How many falls one entry settles at most.
const SETTLED_MAX: usize = 256;

/// Whether a text can name a meter: 1 to [`METER_NAME_BYTES_MAX`] bytes without control characters.
#[must_use]
pub fn is_meter_name(name: &str) -> bool {
    (1..=METER_NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// A reading as a cell says it.
#[derive(Clone, Copy, Debug)]
pub(super) struct MeterReading<'a> {
    pub(super) meter: &'a str,
    pub(super) reading: Reading,
    pub(super) rule: MeterRule,
}

impl MeterReading<'_> {
    /// Whether it can be one at all.
    pub(super) fn is_sane(&self) -> bool {
        let below = |ceiling: u64| self.reading.value <= ceiling;
        is_meter_name(self.meter)
            && self.rule.ceiling.is_none_or(below)
            && self.rule.glitch_window_ms <= GLITCH_WINDOW_MS_MAX
    }
}

/// Room for meters, and what makes room: asked before anything is changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// The most meters.
    pub(super) meters_max: u64,
    /// One that has been silent for so long gives way to a new one.
    pub(super) silent_age_ms: u64,
    pub(super) now: Elapsed,
}

/// All meters.
#[derive(Debug)]
pub(super) struct Meters {
    rows: BTreeMap<u64, Row>,
    next_id: u64,
    index: HashTable<u64>,
    /// By when they were last heard, elapsed time with a grain.
    ages: BTreeSet<(u64, u64)>,
    /// Falls, by when they become restarts.
    due: BTreeSet<(u64, u64)>,
    held: BTreeSet<u64>,
    seed: u64,
}

#[derive(Debug)]
struct Row {
    series: u32,
    name: Box<str>,
    meter: Meter,
    /// Elapsed time at which it was last heard.
    since: u64,
}

impl Meters {
    pub(super) const fn new(seed: u64) -> Meters {
        Meters {
            rows: BTreeMap::new(),
            next_id: 0,
            index: HashTable::new(),
            ages: BTreeSet::new(),
            due: BTreeSet::new(),
            held: BTreeSet::new(),
            seed,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// What is known of a meter for a series.
    pub(super) fn find(&self, series: SeriesId, name: &str) -> Option<&Meter> {
        self.rows.get(&self.id(series.0, name)?).map(|row| &row.meter)
    }

    /// Whether another meter finds room.
    pub(super) fn has_room(&self, room: &Room) -> bool {
        (self.rows.len() as u64) < room.meters_max
            || self.ages.first().is_some_and(|(since, _)| room.is_silent(*since))
    }

    /// What a reading comes to; changes nothing.
    pub(super) fn judge(
        &self,
        series: SeriesId,
        told: &MeterReading<'_>,
        (moment, leap): (Moment, &Leap),
        room: &Room,
    ) -> Result<Step, Refusal> {
        let known = self.find(series, told.meter);
        if known.is_none() && !self.has_room(room) {
            return Err(Refusal::TooManyMeters);
        }
        match known {
            Some(known) if may_be_before(known, &told.reading, moment, leap) => {
                Ok(Step { meter: *known, increase: 0, outcome: Outcome::Late })
            }
            _ => Ok(step(known, &told.reading, &told.rule, moment)),
        }
    }

    /// Keeps what a reading that was counted has made of its meter. Returns the digest.
    pub(super) fn keep(
        &mut self,
        series: SeriesId,
        name: &str,
        step: &Step,
        room: &Room,
        digest: u64,
    ) -> u64 {
        if step.outcome == Outcome::Late {
            return digest;
        }
        let id = match self.id(series.0, name) {
            Some(id) => id,
            None => self.create(series.0, name, step.meter, room),
        };
        if let Some(row) = self.rows.get_mut(&id)
            && room.now.since_ms(Elapsed(row.since)) >= GRAIN_MS
        {
            self.ages.remove(&(row.since, id));
            row.since = room.now.0;
            self.ages.insert((row.since, id));
        }
        self.replace(id, step.meter);
        mix_meter(mix(digest, id), &step.meter)
    }

    /// Falls that are restarts by now, though no reading said so: the series and what is to be counted. Returns the
    /// digest as well.
    pub(super) fn settle(&mut self, now: SiteTime, mut digest: u64) -> (Vec<(SeriesId, u128)>, u64) {
        let mut settled = Vec::new();
        while let Some(&(due, id)) = self.due.first()
            && due <= now.0
            && settled.len() < SETTLED_MAX
        {
            let Some(row) = self.rows.get(&id) else { break };
            let (series, mut meter) = (row.series, row.meter);
            settled.push((SeriesId(series), meter.settle()));
            self.replace(id, meter);
            digest = mix_meter(mix(digest, id), &meter);
        }
        (settled, digest)
    }

    /// Site time was set back.
    pub(super) fn step_clock(&mut self, to: SiteTime) {
        let ids: Vec<u64> = self.rows.keys().copied().collect();
        for id in ids {
            let Some(row) = self.rows.get(&id) else { continue };
            let mut meter = row.meter;
            meter.step_clock(to);
            self.replace(id, meter);
        }
    }

    /// Forgets all meters that are counted in these series, in ascending order.
    pub(super) fn forget_series(&mut self, series: &[u32]) {
        let of = self.rows.iter().filter(|(_, row)| series.binary_search(&row.series).is_ok());
        for (id, since) in of.map(|(id, row)| (*id, row.since)).collect::<Vec<(u64, u64)>>() {
            self.forget(since, id);
        }
    }

    /// Site time jumped ahead: what waits since `since` waits on for as long as it was to.
    pub(super) fn jump_ahead(&mut self, since: SiteTime, by_ms: u64) {
        let later = |at: SiteTime| SiteTime(at.0.saturating_add(by_ms));
        let waiting: Vec<u64> = self.due.iter().map(|(_, id)| *id).chain(self.held.iter().copied()).collect();
        for id in waiting {
            let Some(mut meter) = self.rows.get(&id).map(|row| row.meter) else { continue };
            match &mut meter.pending {
                Pending::Fall { at, due, .. } if *at > since => (*at, *due) = (later(*at), later(*due)),
                Pending::Jump { at, .. } if *at > since => *at = later(*at),
                Pending::None | Pending::Fall { .. } | Pending::Jump { .. } => {}
            }
            self.replace(id, meter);
        }
    }

    /// Jumps that wait for a reading that confirms them.
    pub(super) fn held_jumps(&self) -> impl Iterator<Item = HeldJump> + '_ {
        self.held.iter().filter_map(|id| {
            let row = self.rows.get(id)?;
            let Pending::Jump { value, at, .. } = row.meter.pending else { return None };
            Some(HeldJump {
                meter: row.name.to_string(),
                series: SeriesId(row.series),
                from: row.meter.base,
                to: value,
                heard: at,
            })
        })
    }

    /// Whether a jump of this meter is among them.
    pub(super) fn holds(&self, series: SeriesId, name: &str) -> bool {
        self.id(series.0, name).is_some_and(|id| self.held.contains(&id))
    }

    pub(super) fn held_len(&self) -> usize {
        self.held.len()
    }

    fn id(&self, series: u32, name: &str) -> Option<u64> {
        let is_it =
            |id: &u64| self.rows.get(id).is_some_and(|row| row.series == series && &*row.name == name);
        self.index.find(hash(self.seed, series, name), is_it).copied()
    }

    fn create(&mut self, series: u32, name: &str, meter: Meter, room: &Room) -> u64 {
        while self.rows.len() as u64 >= room.meters_max
            && let Some(&(since, id)) = self.ages.first()
            && room.is_silent(since)
        {
            self.forget(since, id);
        }
        let id = self.next_id;
        self.next_id += 1;
        self.insert(id, Row { series, name: name.into(), meter, since: room.now.0 });
        id
    }

    fn insert(&mut self, id: u64, row: Row) {
        self.ages.insert((row.since, id));
        let hash_of = hash(self.seed, row.series, &row.name);
        let meter = row.meter;
        self.rows.insert(id, row);
        let (seed, rows) = (self.seed, &self.rows);
        let again = |id: &u64| rows.get(id).map_or(0, |row| hash(seed, row.series, &row.name));
        self.index.insert_unique(hash_of, id, again);
        self.index(id, &meter);
    }

    fn forget(&mut self, since: u64, id: u64) {
        self.ages.remove(&(since, id));
        let Some(row) = self.rows.remove(&id) else { return };
        self.unindex(id, &row.meter);
        if let Ok(found) = self.index.find_entry(hash(self.seed, row.series, &row.name), |other| *other == id)
        {
            found.remove();
        }
    }

    fn replace(&mut self, id: u64, meter: Meter) {
        let Some(row) = self.rows.get_mut(&id) else { return };
        let before = core::mem::replace(&mut row.meter, meter);
        self.unindex(id, &before);
        self.index(id, &meter);
    }

    fn index(&mut self, id: u64, meter: &Meter) {
        match meter.pending {
            Pending::None => {}
            Pending::Fall { due, .. } => {
                self.due.insert((due.0, id));
            }
            Pending::Jump { .. } => {
                self.held.insert(id);
            }
        }
    }

    fn unindex(&mut self, id: u64, meter: &Meter) {
        match meter.pending {
            Pending::None => {}
            Pending::Fall { due, .. } => {
                self.due.remove(&(due.0, id));
            }
            Pending::Jump { .. } => {
                self.held.remove(&id);
            }
        }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.next_id.to_le_bytes());
        out.extend_from_slice(&(self.rows.len() as u32).to_le_bytes());
        for (id, row) in &self.rows {
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&row.series.to_le_bytes());
            put_bytes(out, row.name.as_bytes());
            out.extend_from_slice(&row.since.to_le_bytes());
            put_meter(out, &row.meter);
        }
    }

    pub(super) fn read(
        seed: u64,
        reader: &mut Reader<'_>,
        is_counter: impl Fn(u32) -> bool,
    ) -> Result<Meters, Malformed> {
        let mut meters = Meters::new(seed);
        meters.next_id = reader.u64()?;
        let count = reader.u32()?;
        let mut before = None;
        for _ in 0..count {
            let (id, series) = (reader.u64()?, reader.u32()?);
            let name = reader.text()?;
            let since = reader.u64()?;
            let meter = read_meter(reader)?;
            if before >= Some(id)
                || id >= meters.next_id
                || !is_counter(series)
                || !is_meter_name(name)
                || meters.id(series, name).is_some()
            {
                return Err(Malformed);
            }
            before = Some(id);
            meters.insert(id, Row { series, name: name.into(), meter, since });
        }
        Ok(meters)
    }
}

/// Whether a reading of another source, which shows less or an incarnation before, may have been taken before what is
/// known, since site time jumped ahead in between: then it is no fall.
fn may_be_before(known: &Meter, told: &Reading, moment: Moment, leap: &Leap) -> bool {
    let Some(latest) = leap.latest(known.heard).filter(|_| told.source != known.source) else { return false };
    if deliberate::is(Bug::MetersMissJumps) {
        return false;
    }
    let is_other = known.incarnation != 0 && told.incarnation != 0 && known.incarnation != told.incarnation;
    let is_within = told.heard.min(moment.now).0 <= latest.0.saturating_add(moment.grace_ms);
    (is_other || told.value < known.base) && is_within
}

impl Room {
    const fn is_silent(&self, since: u64) -> bool {
        self.now.since_ms(Elapsed(since)) >= self.silent_age_ms
    }
}

fn hash(seed: u64, series: u32, name: &str) -> u64 {
    mix_bytes(mix(seed, u64::from(series)), name.as_bytes())
}

const FALL: u8 = 1;
const JUMP: u8 = 2;
const JUMP_FROM_ZERO: u8 = 3;

/// What is pending, as a code and four numbers.
const fn parts(pending: &Pending) -> (u8, [u64; 4]) {
    match *pending {
        Pending::None => (0, [0; 4]),
        Pending::Fall { value, gain, at, due } => (FALL, [value, at.0, gain, due.0]),
        Pending::Jump { value, from_zero: None, at } => (JUMP, [value, at.0, 0, 0]),
        Pending::Jump { value, from_zero: Some(gain), at } => (JUMP_FROM_ZERO, [value, at.0, gain, 0]),
    }
}

fn mix_meter(digest: u64, meter: &Meter) -> u64 {
    let Meter { base, heard, source, incarnation, pending } = meter;
    let (code, numbers) = parts(pending);
    let digest = [*base, heard.0, source.0, *incarnation, u64::from(code)].into_iter().fold(digest, mix);
    if code == 0 { digest } else { numbers.into_iter().fold(digest, mix) }
}

fn put_meter(out: &mut Vec<u8>, meter: &Meter) {
    let Meter { base, heard, source, incarnation, pending } = meter;
    for number in [*base, heard.0, source.0, *incarnation] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let (code, numbers) = parts(pending);
    out.push(code);
    if code != 0 {
        numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    }
}

fn read_meter(reader: &mut Reader<'_>) -> Result<Meter, Malformed> {
    let (base, heard) = (reader.u64()?, SiteTime(reader.u64()?));
    let (source, incarnation) = (SourceId(reader.u64()?), reader.u64()?);
    let pending = match reader.u8()? {
        0 => Pending::None,
        code => {
            let (value, at) = (reader.u64()?, SiteTime(reader.u64()?));
            let (gain, due) = (reader.u64()?, SiteTime(reader.u64()?));
            match (code, gain, due) {
                (FALL, gain, due) => Pending::Fall { value, gain, at, due },
                (JUMP, 0, SiteTime(0)) => Pending::Jump { value, from_zero: None, at },
                (JUMP_FROM_ZERO, gain, SiteTime(0)) => Pending::Jump { value, from_zero: Some(gain), at },
                _ => return Err(Malformed),
            }
        }
    };
    Ok(Meter { base, heard, source, incarnation, pending })
}

#[cfg(test)]
#[path = "meters_tests.rs"]
mod tests;
