//! A box's own polling of a meter, as the product does it: it reads a number from a file at intervals, in each of its
//! incarnations.

use std::time::Duration;

use tally_core::id::SeriesName;
use tallyd::accumulator::MeterRead;
use tallyd::ingest::poll::Counting;

use crate::boxes::SimBox;
use crate::clients::Meter;
use crate::coverage::Coverage;
use crate::rng::Rng;

#[derive(Debug)]
pub(crate) struct Poller {
    pub(crate) place: usize,
    pub(crate) meter: Meter,
    /// The incarnation of its box that it belongs to.
    incarnation: u64,
    counting: Counting,
}

impl Poller {
    pub(crate) fn new(place: usize, number: u64, rng: &mut Rng) -> Poller {
        let meter = Meter::new(format!("box{}/{number}", place + 1), false, rng);
        Poller { place, meter, incarnation: 0, counting: Counting::default() }
    }

    /// Reads it, if its box runs.
    pub(crate) fn poll(&mut self, one: &SimBox, is_steady: bool, rng: &mut Rng, coverage: &mut Coverage) {
        let Some(incarnation) = one.incarnation.as_ref().filter(|incarnation| !incarnation.is_stopping)
        else {
            return;
        };
        if self.incarnation != incarnation.number {
            (self.incarnation, self.counting) = (incarnation.number, Counting::default());
        }
        let Meter { name, series, rule, .. } = &self.meter;
        let series = SeriesName::new(series).expect("a name");
        let (now, age) = (incarnation.local_now(), incarnation.local_age());
        let read = MeterRead {
            value: self.meter.shows(is_steady, rng, coverage),
            heard: incarnation.handle.clock().site(),
            local_ms: u64::try_from(age.max(Duration::ZERO).as_millis()).expect("incarnations are short"),
            incarnation: self.meter.incarnation,
            stands: false,
        };
        let mut bulk = incarnation.handle.accumulator().lock();
        // Where there is no room it is tried again.
        if let Ok(slot) = bulk.meter(name, series)
            && self.counting.count(&mut bulk, (slot, series), read, (rule, now)).is_ok()
        {
            coverage.count("meters polled");
        }
    }
}
