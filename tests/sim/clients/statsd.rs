//! StatsD programs: their lines are parsed and counted as the receiver's thread does it.

use tallyd::ingest::statsd::series_cache::SeriesCache;

use crate::boxes::SimBox;
use crate::checks::Checks;
use crate::coverage::Coverage;
use crate::plan::Micros;
use crate::rng::Rng;

#[derive(Debug, Default)]
pub(crate) struct Statsd {
    /// The incarnation of its box that it belongs to.
    incarnation: u64,
    cache: SeriesCache,
    gauge: i64,
}

impl Statsd {
    /// A datagram of some lines.
    pub(crate) fn send(
        &mut self,
        now: Micros,
        one: &SimBox,
        rng: &mut Rng,
        (checks, coverage): (&mut Checks, &mut Coverage),
    ) {
        let Some(incarnation) = one.incarnation.as_ref().filter(|incarnation| !incarnation.is_stopping)
        else {
            return;
        };
        if self.incarnation != incarnation.number {
            *self = Statsd { incarnation: incarnation.number, ..Statsd::default() };
        }
        one.tell_time(now);
        let is_known = incarnation.handle.clock().site_if_known().is_some();
        let this = (one.id, incarnation.number);
        let name = format!("udp.{}.{}", one.id.0, incarnation.number);
        let mut bulk = incarnation.handle.accumulator().lock();
        for _ in 0..rng.between(1, 3) {
            let (n, mut reasons) = (rng.between(1, 9), Vec::new());
            let mut take = |cache: &mut SeriesCache, line: String| {
                cache.take(&mut bulk, line.as_bytes(), |reason| reasons.push(reason))
            };
            match rng.below(6) {
                0..=2 => {
                    let taken = take(&mut self.cache, format!("{name}:{n}|c"));
                    if taken == 1 {
                        checks.conservation.counted(this, &name, u128::from(n));
                    }
                }
                3 => {
                    // Packed, scaled by its rate, tagged.
                    let taken = take(&mut self.cache, format!("{name}:1:{n}|c|@0.5|#way:packed"));
                    if taken == 2 {
                        let amount = 2 * (1 + u128::from(n));
                        checks.conservation.counted(this, &format!("{name}/way=packed"), amount);
                    }
                }
                4 => {
                    let by = rng.between(0, 40) as i64 - 20;
                    let taken = take(&mut self.cache, format!("{name}.level:{by:+}|g"));
                    if taken == 1 {
                        self.gauge += by;
                        let (series, value) = (format!("{name}.level"), self.gauge as f64);
                        checks.lasts.observed(this, &series, value, is_known);
                    }
                }
                _ => {
                    let line =
                        rng.pick(&["a:x|c", "a:-1|c", "a|c", ":1|c", "a:1|s", "a:1|c|@7", "a:1e400|g"]);
                    let taken = take(&mut self.cache, line.to_owned());
                    assert!(taken == 0 && !reasons.is_empty(), "doors: {line:?} is taken");
                    coverage.count("StatsD lines refused");
                }
            }
            coverage.count("StatsD lines");
        }
    }
}
