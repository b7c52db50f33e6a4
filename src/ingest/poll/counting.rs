//! A counter's numbers on their way to the site: as readings of a meter, and as long as the site is not known to take
//! those as increases that this process alone makes of them.

use std::time::{Duration, Instant};

use tally_core::id::SeriesName;
use tally_core::meter::{MeterRule, Outcome};
use tally_core::report::{Amount, Kind};

use super::track::Tracker;
use crate::accumulator::{Bulk, MeterRead, MeterSlot, NotTaken, ReadingsMode};

/// When a reading that the site did not take is sent again.
const REFUSED_AGAIN: Duration = Duration::from_secs(10);

/// How far one counter is counted by this process.
#[derive(Debug, Default)]
pub struct Counting {
    tracker: Tracker,
    /// Increases that are not counted yet, since the site may take the readings that they are of.
    uncounted: u128,
    /// They are counted here.
    counts: bool,
    /// When the reading is sent again though it shows no more than before.
    again_at: Option<Instant>,
}

impl Counting {
    /// Takes a number that was read. `slot`: of the meter, which is counted in the series of this name.
    ///
    /// # Errors
    /// Why the site did not take the latest reading that it judged, or why what it came to is not counted here.
    pub fn count(
        &mut self,
        bulk: &mut Bulk<'_>,
        (slot, name): (MeterSlot, SeriesName<'_>),
        mut read: MeterRead,
        (rule, now): (&MeterRule, Instant),
    ) -> Result<(), NotTaken> {
        let mode = bulk.readings_mode();
        if mode != ReadingsMode::Taken || self.counts {
            self.track(bulk, name, &read, rule)?;
        }
        if mode == ReadingsMode::Refused {
            bulk.forget_readings(slot);
            return Ok(());
        }
        read.stands = self.again_at.is_some_and(|at| now >= at);
        let outcome = bulk.read(slot, &read, rule);
        let refused = bulk.reading_refused(slot);
        // A first reading is sent once more, and one that the site holds until it sees whether what it showed stands:
        // the meter may show nothing new for long.
        let window = Duration::from_millis(rule.glitch_window_ms).max(REFUSED_AGAIN);
        let is_unsettled = refused.is_some() || bulk.reading_is_held(slot);
        if outcome == Outcome::First || (is_unsettled && (read.stands || self.again_at.is_none())) {
            self.again_at = Some(now + window);
        } else if read.stands {
            self.again_at = None;
        }
        refused.map_or(Ok(()), |refusal| Err(NotTaken::Refused(refusal)))
    }

    fn track(
        &mut self,
        bulk: &mut Bulk<'_>,
        name: SeriesName<'_>,
        read: &MeterRead,
        rule: &MeterRule,
    ) -> Result<(), NotTaken> {
        let mode = bulk.readings_mode();
        let step = self.tracker.judge(read, rule);
        let mut more = self.uncounted.saturating_add(step.increase);
        if mode != ReadingsMode::Unknown {
            if more > 0 {
                let series = bulk.slot(name, Kind::Counter)?;
                bulk.add(series, Amount::Counter(more))?;
            }
            more = 0;
            // From the change on the site has this reading as the base, up to which all is counted.
            self.counts = mode == ReadingsMode::Refused;
        }
        self.uncounted = more;
        self.tracker.counted(&step);
        Ok(())
    }
}
