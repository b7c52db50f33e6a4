//! Applying readings of meters.

use tally_core::id::{LogIndex, SeriesName};
use tally_core::meter::Moment;
use tally_core::report::{Amount, Kind};
use tally_core::time::SiteTime;

use crate::site::Site;
use crate::site::body::CellSeries;
use crate::site::meters::{MeterReading, Room};
use crate::site::series::Clock;
use crate::site::view::{Refusal, SeriesId};

impl Site {
    /// Compares a reading with what is known of its meter, and counts the increase in the window in which it was
    /// heard.
    pub(super) fn apply_reading(
        &mut self,
        series: CellSeries<'_>,
        told: &MeterReading<'_>,
        clock: &Clock,
    ) -> Result<(), Refusal> {
        if !told.is_sane() {
            return Err(Refusal::Malformed);
        }
        let heard = told.reading.heard.min(self.stamp.site);
        let room = self.meter_room();
        let id = self.series_of_meter(series, heard, clock, &room)?;
        let moment = Moment { now: self.stamp.site, grace_ms: self.settings.window_grace_ms() };
        let step = self.meters.judge(id, told, (moment, &self.leap), &room)?;
        if step.increase > 0 {
            self.add_amount(id, heard, Amount::Counter(step.increase), clock)?;
        }
        self.digest = self.meters.keep(id, told.meter, &step, &room, self.digest);
        Ok(())
    }

    /// The counter that a meter is counted in, made if it is new.
    fn series_of_meter(
        &mut self,
        series: CellSeries<'_>,
        heard: SiteTime,
        clock: &Clock,
        room: &Room,
    ) -> Result<SeriesId, Refusal> {
        let known = match series {
            CellSeries::Id(id) => Ok(id),
            CellSeries::Name(_, kind) if kind != Kind::Counter => return Err(Refusal::Malformed),
            CellSeries::Name(name, _) => {
                let name = SeriesName::from_bytes(name).map_err(|_| Refusal::Malformed)?.as_str();
                let found = self.table.names.find(name);
                self.check_name(name, found, clock.as_of)?;
                self.check_time(name, heard.0)?;
                found.map(SeriesId).ok_or(name)
            }
        };
        match known {
            Ok(id) => match self.table.meant(id, clock.as_of)?.kind {
                Kind::Counter => self.check_time(self.table.names.get(id.0), heard.0).map(|()| id),
                is => Err(Refusal::WrongKind { is, asked: Kind::Counter }),
            },
            Err(_) if self.table.live as u64 >= self.settings.series_max() => Err(Refusal::TooManySeries),
            Err(_) if !self.meters.has_room(room) => Err(Refusal::TooManyMeters),
            // Nothing is added yet, the amount only says of what kind it is.
            Err(name) => self.table.create(name, heard, &Amount::Counter(1), clock, &self.settings),
        }
    }

    fn meter_room(&self) -> Room {
        Room {
            meters_max: self.settings.series_max(),
            silent_age_ms: self.settings.sources_silent_age_ms(),
            now: self.stamp.elapsed,
        }
    }

    /// Counts what meters that fell to zero and stayed there have shown since.
    pub(super) fn settle_meters(&mut self, index: LogIndex) {
        let (settled, digest) = self.meters.settle(self.stamp.site, self.digest);
        self.digest = digest;
        let clock = Clock::new(self.stamp, &self.settings, index.0, self.level, false);
        for (series, increase) in settled.into_iter().filter(|(_, increase)| *increase > 0) {
            // Refused only where the total would overflow, as it would be with a reading.
            let _ = self.add_amount(series, self.stamp.site, Amount::Counter(increase), &clock);
        }
    }
}
