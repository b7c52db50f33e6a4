//! Applies entries, the only way in which a site changes.

mod meters;
mod series;

use tally_core::id::{LogIndex, SeriesName};
use tally_core::report::{Amount, Kind};
use tally_core::time::SiteTime;

use super::Site;
use super::body::{self, Cell, CellKey, CellSeries, DecodedBody, Report};
use super::digest::{mix, mix_bytes};
use super::entry::{EntryError, SourceKind};
use super::keys::KeyRecord;
use super::layers::StampedEntry;
use super::level::Level;
use super::outbox::Marks;
use super::packed::Packed;
use super::refused::Refused;
use super::series::{Clock, Closed, Placed};
use super::sources::Judged;
use super::view::{Applied, KeyOutcome, Refusal, SeriesId, Stamp, Verdict};
use crate::deliberate::{self, Bug};

/// The most expired keys that one entry removes.
const EXPIRED_MAX: u32 = 256;

impl Site {
    /// Applies the next entry and returns the result.
    ///
    /// An error changes nothing; the box must not continue with the next entry, because this one is of a newer
    /// release. A body of a
    /// known kind that is malformed changes nothing either, and is skipped ([`Applied::Malformed`]): no version
    /// could apply it, so stopping at it would stop every box for good.
    ///
    /// # Errors
    /// The entry is not the next one, or of a newer release.
    pub fn apply(&mut self, index: LogIndex, entry: &StampedEntry) -> Result<Applied, EntryError> {
        if index != self.applied.next() {
            return Err(EntryError::NotNext { index: index.0, applied: self.applied.0 });
        }
        let applied = if entry.is_empty() {
            self.begin_term();
            Applied::Nothing
        } else {
            match body::read(entry) {
                Ok((stamp, body)) => self.apply_stamped(index, stamp, body)?,
                Err(EntryError::Malformed) => Applied::Malformed,
                Err(error) => return Err(error),
            }
        };
        self.applied = index;
        self.digest = mix(self.digest, index.0);
        Ok(applied)
    }

    fn apply_stamped(
        &mut self,
        index: LogIndex,
        stamp: Stamp,
        body: DecodedBody<'_>,
    ) -> Result<Applied, EntryError> {
        let before = self.stamp.site;
        self.advance_stamp(stamp);
        self.keys.expire(self.stamp.elapsed, self.settings.keys_age_ms(), EXPIRED_MAX);
        self.settle_meters(index);
        match body {
            DecodedBody::StepClock => Ok(self.step_clock(before, stamp.site)),
            body => self.apply_body(index, body),
        }
    }

    /// A leader begins, and goes on from site time as the log has it until it knows the boxes' clocks.
    fn begin_term(&mut self) {
        if self.level >= Level::FOUR {
            self.leap.begin_term(self.stamp);
        }
    }

    /// Neither time goes back, whatever a leader stamps (but see [`Site::step_clock`]).
    fn advance_stamp(&mut self, stamp: Stamp) {
        let before = self.stamp;
        self.stamp = Stamp {
            site: self.stamp.site.max(stamp.site),
            elapsed: self.stamp.elapsed.max(stamp.elapsed),
            synced: stamp.synced,
        };
        self.digest = mix(mix(self.digest, self.stamp.site.0), self.stamp.elapsed.0);
        if self.level >= Level::TWO {
            self.table.passed.advance(before, self.stamp, self.settings.window_base().as_millis());
        }
        if self.level >= Level::FOUR && !deliberate::is(Bug::MetersMissJumps) {
            self.follow_jump(before);
        }
    }

    /// After an outage a leader's first stamps can be behind the boxes' clocks by as much, and then jump ahead.
    fn follow_jump(&mut self, before: Stamp) {
        let passed_ms = self.stamp.elapsed.since_ms(before.elapsed);
        let by_ms = self.stamp.site.0.saturating_sub(before.site.0).saturating_sub(passed_ms);
        if by_ms > self.settings.window_grace_ms() {
            let since = self.leap.jump(before.site, self.stamp.site);
            self.meters.jump_ahead(since, by_ms);
        }
    }

    /// Site time becomes `to`. Where that is back, what was counted under the later time stays in the
    /// windows that it was counted in. Those that are ahead by now are closed, so that what is still on its way to
    /// them becomes late summaries and nothing is refused; those that can be open under the new time stay open.
    fn step_clock(&mut self, from: SiteTime, to: SiteTime) -> Applied {
        let ahead_ms = 2 * self.settings.window_base().as_millis();
        if self.level < Level::TWO {
            if to < from {
                self.close_until(from.0.saturating_add(ahead_ms));
            }
        } else if to < from {
            let ahead = [to, from].map(|time| time.0.saturating_add(ahead_ms));
            let marks = Marks { late: false, synced: self.stamp.synced };
            for closed in self.table.close_beyond(ahead[0]) {
                self.summarise(closed, marks);
            }
            let closed = self.table.closed;
            let ahead = (ahead[0].saturating_add(1), ahead[1].saturating_add(1));
            self.table.passed.step_back(to.0, closed, ahead);
            // Windows from now on are not late.
            if !deliberate::is(Bug::StaysClosed) {
                self.table.closed = closed.min(to.0);
            }
        } else {
            self.table.passed.step_ahead(to.0);
        }
        if to < from {
            self.meters.step_clock(to);
            self.leap.step_back(to);
        }
        self.stamp.site = to;
        self.digest = mix(self.digest, to.0);
        Applied::Stepped { from, to }
    }

    fn apply_body(&mut self, index: LogIndex, body: DecodedBody<'_>) -> Result<Applied, EntryError> {
        let now = self.stamp.elapsed;
        if let DecodedBody::Set { nonce, .. }
        | DecodedBody::Member { nonce, .. }
        | DecodedBody::Token { nonce, .. }
        | DecodedBody::Remove { nonce, .. }
        | DecodedBody::Rename { nonce, .. }
        | DecodedBody::Access { nonce, .. } = &body
        {
            if !self.requests.is_first(*nonce) {
                // Whoever asked was told when the first copy was applied.
                return Ok(Applied::Nothing);
            }
            self.digest = mix(self.digest, *nonce);
        }
        Ok(match body {
            DecodedBody::Report(report) => return self.apply_report(index, &report),
            DecodedBody::Open { kind, name, nonce, epoch } => {
                self.sources.age(now, &self.settings);
                let result = self.sources.open(kind, name, nonce, epoch, now, &self.settings);
                let (source, epoch) = result.map_or((0, 0), |(source, epoch)| (source.0, epoch.0));
                self.digest = mix(mix(self.digest, source), epoch);
                Applied::Opened { nonce, result }
            }
            DecodedBody::Close { until } => {
                self.sources.age(now, &self.settings);
                self.close(until);
                Applied::Nothing
            }
            DecodedBody::Number { count } => {
                let set_aside = &self.set_aside;
                let is_stopped = |series| set_aside.stops(series);
                let before = self.outbox.last();
                self.digest = self.outbox.number(count, &self.settings, is_stopped, self.digest);
                self.overtake_departures(before);
                Applied::Outbox
            }
            DecodedBody::Delivered { up_to } => {
                self.outbox.deliver(up_to);
                self.digest = mix(self.digest, self.outbox.delivered_up_to());
                Applied::Outbox
            }
            DecodedBody::Set { nonce, key, value } => Applied::Set { nonce, result: self.set(key, value) },
            DecodedBody::Tick => {
                self.sources.age(now, &self.settings);
                self.expire_tokens();
                self.expire_access();
                Applied::Nothing
            }
            DecodedBody::Bootstrap(members) => {
                self.digest = self.members.bootstrap(members, self.digest);
                Applied::Members
            }
            // Neither is proposed below that level.
            DecodedBody::Member { change, .. } if change.is_of_level_three() && self.level < Level::THREE => {
                Applied::Nothing
            }
            DecodedBody::Member { nonce, change } => {
                let changed = self.members.change(change, self.digest);
                self.digest = changed.unwrap_or(self.digest);
                Applied::Member { nonce, result: changed.map(|_| ()) }
            }
            DecodedBody::Configuration(parts) => {
                self.digest = self.members.enforce(parts, self.digest);
                Applied::Members
            }
            // Neither is proposed below that level.
            DecodedBody::SetAside { .. } | DecodedBody::Released { .. } if self.level < Level::TWO => {
                Applied::Nothing
            }
            DecodedBody::Token { .. } | DecodedBody::Join(_) if self.level < Level::THREE => Applied::Nothing,
            DecodedBody::Access { .. } if self.level < Level::FIVE => Applied::Nothing,
            DecodedBody::Access { nonce, change } => self.apply_access(nonce, change),
            DecodedBody::Token { nonce, change } => self.apply_token(nonce, change),
            DecodedBody::Join(request) => self.apply_join(request),
            DecodedBody::SetAside { seq, cause } => {
                self.hold(seq, cause);
                Applied::Outbox
            }
            DecodedBody::Released { seq } => {
                self.digest = self.set_aside.release(seq, self.digest);
                Applied::Outbox
            }
            // Needs the time before its own stamp: see `apply`.
            DecodedBody::StepClock => Applied::Nothing,
            DecodedBody::Remove { nonce, name, is_prefix } => {
                Applied::SeriesRemoved { nonce, result: self.remove_series(name, is_prefix) }
            }
            DecodedBody::Rename { nonce, from, to } => {
                Applied::SeriesRenamed { nonce, result: self.rename_series(from, to) }
            }
            DecodedBody::Cleared { departure } => {
                self.clear_departure(departure);
                Applied::Outbox
            }
            DecodedBody::PassOver { .. } if self.level < Level::FOUR => Applied::Nothing,
            DecodedBody::PassOver { up_to } => {
                self.pass_over(up_to);
                Applied::Outbox
            }
            DecodedBody::Level(level) => {
                self.raise_level(level);
                Applied::Level(level)
            }
        })
    }

    /// Holds a number that is not delivered; ignores any other.
    fn hold(&mut self, seq: u64, cause: u8) {
        let found = self.outbox.numbered(seq.saturating_sub(1), 1).next();
        if let Some(summary) = found.filter(|summary| summary.seq == Some(seq)) {
            self.digest = self.set_aside.hold(summary, cause, self.digest);
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<String, String> {
        let series = self.table.live.max(self.departures.len()) as u64;
        let before = self.settings.clone();
        let mut result = self.settings.set(key, value, series);
        if self.settings.span_name_bytes() > self.name_bytes_max() {
            self.settings = before;
            result = Err(format!(
                "{key}: a pattern has at most {} bytes until all boxes of the site are updated",
                self.name_bytes_max()
            ));
        }
        if let Ok(value) = &result {
            self.digest = mix_bytes(mix_bytes(self.digest, key.as_bytes()), value.as_bytes());
            self.table.respan(&self.settings);
            self.digest = self.outbox.thin(&self.settings, self.digest);
            self.history.trim(&self.settings);
        }
        result
    }

    fn close(&mut self, until: SiteTime) {
        // No leader means to close what is still to come.
        self.close_until(until.min(self.stamp.site).0);
    }

    fn close_until(&mut self, until: u64) {
        let marks = Marks { late: false, synced: self.stamp.synced };
        for closed in self.table.close(until) {
            let late = self.table.passed.overlaps(closed.start, closed.end);
            self.summarise(closed, Marks { late, ..marks });
        }
        self.table.passed.forget(self.table.closed);
    }

    fn summarise(&mut self, closed: Closed, marks: Marks) {
        self.digest = mix(mix(self.digest, u64::from(closed.series)), closed.start);
        self.digest = mix(self.digest, closed.amount.digest());
        self.history.push(&closed, marks, &self.settings);
        self.outbox.push(closed, marks);
        self.digest = self.outbox.thin(&self.settings, self.digest);
    }

    fn apply_report(&mut self, index: LogIndex, report: &Report<'_>) -> Result<Applied, EntryError> {
        let Report { source, epoch, number, hash, .. } = *report;
        let verdict = match self.sources.judge(source, epoch, number, hash) {
            Judged::Next => self.apply_cells(index, report)?,
            Judged::Repeated(refused) => match refused.cells() {
                Some(refused) => Verdict::Receipt { repeated: true, refused, keyed: Vec::new() },
                None => Verdict::OutOfOrder { last: Some(number) },
            },
            Judged::Changed(last) => Verdict::Changed { last },
            Judged::OutOfOrder(last) => Verdict::OutOfOrder { last },
            Judged::Unknown(last) => Verdict::UnknownEpoch { last },
        };
        Ok(Applied::Report { source, epoch, number, hash, verdict })
    }

    fn apply_cells(&mut self, index: LogIndex, report: &Report<'_>) -> Result<Verdict, EntryError> {
        let of_box = self.sources.name(report.source).is_some_and(|(kind, _)| kind == SourceKind::Box);
        let clock = Clock::new(self.stamp, &self.settings, index.0, self.level, of_box)
            .as_of(report.as_of, self.departures.changes());
        let mut refused = Vec::new();
        let mut keyed = Vec::new();
        let mut place = 0;
        let mut digest = self.digest;
        let mut cells = report.cells();
        loop {
            // Nearly every cell is a count for a series whose window is open in its row.
            let before = cells;
            if let Some((id, window, sum)) = cells.next_plain()
                && let Some(total) = self.table.count(id, window, sum, (index.0, clock.as_of))
            {
                digest = mix(digest, total as u64 ^ u64::from(id.0) << 40);
                place += 1;
                continue;
            }
            cells = before;
            let Some(cell) = cells.next()? else { break };
            self.digest = digest;
            match cell.key {
                Some(key) => keyed.push(self.apply_keyed(&cell, key, &clock)),
                None => {
                    let counted = match &cell.reading {
                        Some(told) => self.apply_reading(cell.series, told, &clock),
                        None => self.apply_cell(&cell, &clock).map(|_| ()),
                    };
                    if let Err(why) = counted {
                        refused.push((place, why));
                    }
                    place += 1;
                }
            }
            digest = self.digest;
        }
        self.digest = mix(mix(digest, report.source.0), report.number.get());
        let Report { source, epoch, number, hash, .. } = *report;
        let list = Refused::new(&refused);
        self.sources.advance(source, epoch, (number, hash), list, self.stamp.elapsed);
        Ok(Verdict::Receipt { repeated: false, refused, keyed })
    }

    /// Adds one cell; returns the new total.
    fn apply_cell(&mut self, cell: &Cell<'_>, clock: &Clock) -> Result<i128, Refusal> {
        let (window, amount) = self.table.clamp(cell.window, cell.amount, clock, cell.is_open)?;
        let counted_up_to = window.0.saturating_add(self.settings.window_base().as_millis());
        // A box's own amounts, and those that it took just now, are judged by what it knew alone.
        let is_of_elsewhere = !clock.of_box && !cell.is_open;
        let (id, amount) = match cell.series {
            CellSeries::Id(id) => {
                self.table.meant(id, clock.as_of)?;
                if is_of_elsewhere {
                    self.check_time(self.table.names.get(id.0), counted_up_to)?;
                }
                (id, self.of_kind(cell, amount, id))
            }
            CellSeries::Name(name, kind) => {
                let name = SeriesName::stored_bytes(name).map_err(|_| Refusal::Malformed)?.as_str();
                if name.len() > self.name_bytes_max() {
                    return Err(Refusal::Malformed);
                }
                let found = self.table.names.find(name);
                self.check_name(name, found, clock.as_of)?;
                if is_of_elsewhere {
                    self.check_time(name, counted_up_to)?;
                }
                match found {
                    Some(id) if cell.is_signed || kind == amount.kind() => {
                        (SeriesId(id), self.of_kind(cell, amount, SeriesId(id)))
                    }
                    None if self.table.live as u64 >= self.settings.series_max() => {
                        return Err(Refusal::TooManySeries);
                    }
                    None => {
                        let amount = if cell.is_signed { signed_as(kind, amount) } else { amount };
                        if kind != amount.kind() {
                            return Err(Refusal::Malformed);
                        }
                        (self.table.create(name, window, &amount, clock, &self.settings)?, amount)
                    }
                    Some(_) => return Err(Refusal::Malformed),
                }
            }
        };
        self.add_amount(id, window, amount, clock)
    }

    /// Adds to an existing series; returns the new total.
    fn add_amount(
        &mut self,
        id: SeriesId,
        window: SiteTime,
        amount: Amount,
        clock: &Clock,
    ) -> Result<i128, Refusal> {
        let placed = self.table.add(id, window, &amount, clock)?;
        let total = self.table.rows[id.0 as usize].total;
        self.digest = mix(self.digest, total as u64 ^ u64::from(id.0) << 40);
        if let Placed::Late { start, end } = placed {
            let closed = Closed { series: id.0, start, end, amount: Packed::new(amount) };
            self.summarise(closed, Marks { late: true, synced: self.stamp.synced });
        }
        Ok(total)
    }

    /// A signed add is of the kind of its series; any other amount says itself of what kind it is.
    fn of_kind(&self, cell: &Cell<'_>, amount: Amount, id: SeriesId) -> Amount {
        match self.table.rows.get(id.0 as usize) {
            Some(row) if cell.is_signed => signed_as(row.kind, amount),
            _ => amount,
        }
    }

    fn apply_keyed(&mut self, cell: &Cell<'_>, key: CellKey, clock: &Clock) -> KeyOutcome {
        let (now, age_ms) = (self.stamp.elapsed, self.settings.keys_age_ms());
        if let Some(known) = self.keys.find(key.key, now, age_ms)
            && !deliberate::is(Bug::ForgetsKeys)
        {
            return if known.check == key.check {
                KeyOutcome::Known { total: known.total, time: known.time }
            } else {
                KeyOutcome::Reused
            };
        }
        // An earlier try may have been added under a key whose lifetime is over by now.
        if now.since_ms(key.taken) > age_ms / 3 {
            return KeyOutcome::Stale;
        }
        if self.keys.len() >= self.settings.keys_max() {
            self.keys.expire(now, age_ms, EXPIRED_MAX);
        }
        if self.keys.len() >= self.settings.keys_max() {
            return KeyOutcome::TableFull;
        }
        match self.apply_cell(cell, clock) {
            Err(why) => KeyOutcome::Refused(why),
            Ok(total) => {
                let time = self.stamp.site;
                let (key, check) = (key.key, key.check);
                self.keys.insert(KeyRecord { key, check, total, time, added: now });
                self.digest = mix(mix(self.digest, key as u64), check);
                KeyOutcome::Added { total, time }
            }
        }
    }
}

/// A signed add as an amount for a series of this kind; what a counter cannot take stays an updown's, and is refused.
const fn signed_as(kind: Kind, amount: Amount) -> Amount {
    match (kind, amount) {
        (Kind::Counter, Amount::Updown { up, down: 0 }) => Amount::Counter(up),
        (_, amount) => amount,
    }
}
