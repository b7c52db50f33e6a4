//! Counts without a waiter, as StatsD's, at each box. Each incarnation has series of its own, so that the loss that a
//! crash may cause is known exactly.

use tally_core::id::{SeriesName, SourceId};
use tally_core::report::{Amount, Kind, Sample};

use crate::boxes::SimBox;
use crate::checks::Checks;
use crate::plan::Micros;
use crate::rng::Rng;

#[derive(Debug, Default)]
pub(crate) struct Counter {
    gauge: i64,
}

impl Counter {
    pub(crate) fn count(&mut self, now: Micros, one: &SimBox, rng: &mut Rng, checks: &mut Checks) {
        let Some(incarnation) = one.incarnation.as_ref().filter(|incarnation| !incarnation.is_stopping)
        else {
            return;
        };
        one.tell_time(now);
        // Before a leader has told the time this box's own clock is the guess, which may be ahead.
        let is_known = incarnation.handle.clock().site_if_known().is_some();
        let n = rng.between(1, 9);
        let base = incarnation.handle.site(|site| site.settings().window_base());
        let name = format!("counts/{}/{}", one.id.0, incarnation.number);
        let mut bulk = incarnation.handle.accumulator().lock();
        let series = SeriesName::new(&name).expect("a name");
        if let Ok(slot) = bulk.slot(series, Kind::Counter)
            && bulk.count(slot, n).is_ok()
        {
            let this = (one.id, incarnation.number);
            checks.conservation.counted(this, &name, u128::from(n));
            let window = is_known.then(|| base.start_of(bulk.now()));
            checks.histories.counted(this, &name, window, n);
        }
        let name = format!("levels/{}/{}", one.id.0, incarnation.number);
        let series = SeriesName::new(&name).expect("a name");
        self.gauge = rng.between(0, 1000) as i64 - 500;
        let sample = Sample::observed(self.gauge as f64, bulk.now(), SourceId(0)).expect("a small value");
        if let Ok(slot) = bulk.slot(series, Kind::Sample)
            && bulk.add(slot, Amount::Sample(sample)).is_ok()
        {
            checks.lasts.observed((one.id, incarnation.number), &name, self.gauge as f64, is_known);
        }
    }
}
