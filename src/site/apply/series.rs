//! Removing and renaming series.
//!
//! What was counted is not taken back: the open windows of a removed series are closed with its removal, and its
//! summaries go upstream like any others, under its name. Then its retained total is cleared, and its row is free.

use std::collections::BTreeMap;

use tally_core::id::SeriesName;
use tally_core::report::Amount;

use crate::deliberate::{self, Bug};
use crate::site::departures::Departure;
use crate::site::digest::{mix, mix_bytes};
use crate::site::level::Level;
use crate::site::outbox::Marks;
use crate::site::view::{Refusal, Removed, SeriesId, SeriesRefused};
use crate::site::{DepartureView, SERIES_REMOVED_MAX, Site};

impl Site {
    pub(super) fn remove_series(&mut self, name: &str, is_prefix: bool) -> Result<Removed, SeriesRefused> {
        if self.level < Level::FOUR {
            return Err(SeriesRefused::TooEarly);
        }
        let mut ids: Vec<u32> = match is_prefix {
            true => self.table.names.range(name, None).take(SERIES_REMOVED_MAX + 1).collect(),
            false => self.table.names.find(name).into_iter().collect(),
        };
        let more = ids.len() > SERIES_REMOVED_MAX;
        ids.truncate(SERIES_REMOVED_MAX);
        if ids.is_empty() {
            return Err(SeriesRefused::NotThere);
        }
        if (self.departures.len() + ids.len()) as u64 > self.settings.series_max() {
            return Err(SeriesRefused::TooManyLeave);
        }
        let removed = ids.iter().map(|id| self.table.view(SeriesId(*id))).collect();
        self.departures.change();
        ids.sort_unstable();
        let marks = Marks { late: false, synced: self.stamp.synced };
        for closed in self.table.retire(&ids) {
            if deliberate::is(Bug::RemovalDropsWindows) {
                continue;
            }
            let late = self.table.passed.overlaps(closed.start, closed.end);
            self.summarise(closed, Marks { late, ..marks });
        }
        self.meters.forget_series(&ids);
        for id in ids {
            self.history.forget(id);
            self.leave(id, None);
        }
        Ok(Removed { removed, more })
    }

    pub(super) fn rename_series(&mut self, from: &str, to: &str) -> Result<SeriesId, SeriesRefused> {
        if self.level < Level::FOUR {
            return Err(SeriesRefused::TooEarly);
        }
        SeriesName::new(to).map_err(|_| SeriesRefused::BadName)?;
        let id = self.table.names.find(from).ok_or(SeriesRefused::NotThere)?;
        if self.table.names.find(to).is_some() {
            return Err(SeriesRefused::Taken);
        }
        if self.departures.len() as u64 >= self.settings.series_max() {
            return Err(SeriesRefused::TooManyLeave);
        }
        self.departures.change();
        self.leave(id, Some(self.outbox.last()));
        self.table.rename(id, to, &self.settings);
        self.table.changed[id as usize] = self.applied.0 + 1;
        self.digest = mix_bytes(self.digest, to.as_bytes());
        Ok(SeriesId(id))
    }

    /// The name of a series leaves.
    fn leave(&mut self, id: u32, until: Option<u64>) {
        let name = self.table.names.get(id);
        self.departures.leave(self.site_id, id, name, until, self.stamp.site.0);
        self.digest = mix(mix_bytes(self.digest, name.as_bytes()), u64::from(id));
    }

    /// The broker has nothing of a name that left.
    pub(super) fn clear_departure(&mut self, departure: u64) {
        let undelivered = self.least_undelivered();
        if !self.departures.get(departure).is_some_and(|one| self.has_left(one, &undelivered)) {
            return;
        }
        let Some(gone) = self.departures.clear(departure) else { return };
        // One of a row is about its removal, after all those about its names before.
        let is_last = !self.departures.waiting().any(|(_, other)| other.series == gone.series);
        if is_last && !self.table.is_live(gone.series) {
            self.outbox.forget(gone.series);
            self.table.vacate(gone.series);
        }
        self.digest = mix(self.digest, departure);
    }

    /// The least number of each series that the broker does not have.
    fn least_undelivered(&self) -> BTreeMap<u32, u64> {
        let undelivered = self.outbox.numbered(self.outbox.delivered_up_to(), usize::MAX);
        let held = self.set_aside.after(0, usize::MAX).map(|held| &held.summary);
        let mut least = BTreeMap::new();
        for summary in undelivered.chain(held) {
            let seq = summary.seq.unwrap_or(0);
            least
                .entry(summary.series.0)
                .and_modify(|least: &mut u64| *least = seq.min(*least))
                .or_insert(seq);
        }
        least
    }

    /// Whether the broker has everything that is published under this name, as far as it is a departure's.
    fn has_left(&self, departure: &Departure, undelivered: &BTreeMap<u32, u64>) -> bool {
        let least = undelivered.get(&departure.series);
        match departure.until {
            Some(until) => least.is_none_or(|least| *least > until),
            None => least.is_none() && self.outbox.unnumbered_of(departure.series) == 0,
        }
    }

    /// Numbers were given after this one: those of a name that another series left before.
    pub(super) fn overtake_departures(&mut self, after: u64) {
        if self.departures.len() == 0 {
            return;
        }
        for summary in self.outbox.numbered(after, usize::MAX) {
            let is_total = !(summary.late && matches!(summary.amount, Amount::Sample(_)));
            if is_total && self.table.is_live(summary.series.0) {
                let name = self.table.names.get(summary.series.0);
                self.departures.overtake(self.site_id, name, summary.seq.unwrap_or(0));
            }
        }
    }

    /// An amount for a series that there is, or is not, by that name: whether its source may mean one that left.
    pub(super) fn check_name(&self, name: &str, found: Option<u32>, as_of: u32) -> Result<(), Refusal> {
        let is_known = found.is_some_and(|id| self.table.rows[id as usize].born <= as_of);
        if !is_known && self.departures.has_left_since(self.site_id, name, as_of) {
            return Err(Refusal::Removed);
        }
        Ok(())
    }

    /// What was counted elsewhere, up to this moment, before the series of that name left is not the present one's.
    pub(super) fn check_time(&self, name: &str, up_to: u64) -> Result<(), Refusal> {
        match self.departures.left_at(self.site_id, name) {
            Some(at) if up_to <= at => Err(Refusal::Removed),
            _ => Ok(()),
        }
    }

    /// Names that left and of which the broker has everything: up to `limit` that are to be cleared there.
    #[must_use]
    pub fn departures_due(&self, limit: usize) -> Vec<DepartureView> {
        if self.departures.len() == 0 {
            return Vec::new();
        }
        let undelivered = self.least_undelivered();
        let due = self.departures.waiting().filter(|(_, one)| self.has_left(one, &undelivered));
        let view = |(id, departure): (u64, &Departure)| DepartureView {
            id,
            series: SeriesId(departure.series),
            name: departure.name.to_string(),
            is_overtaken: departure.is_overtaken,
        };
        due.take(limit).map(view).collect()
    }
}
