//! Polled files: numbers that this machine keeps in files (`/proc`, `/sys`) as counters and samples.
//!
//! Files are read on the runtime's blocking threads, since a file can be on a disk that hangs. One that hangs holds one
//! thread, until it answers: it is not read again before. A counter's numbers are readings of a meter, which the site
//! compares with the last one that it has: so what grew while this process did not run is counted.

mod config;
mod file;
mod state;
mod track;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::digest::{Context, SHA256};
use tally_core::id::{SeriesName, SourceId};
use tally_core::meter::Outcome;
use tally_core::report::{Amount, Kind, Sample};
use tally_core::time::SiteTime;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

pub use self::config::{Poll, PollConfig, PollConfigError, PollProblem, checked};
pub use self::state::PollStatus;
use self::state::State;
pub use self::track::{PollKind, Reading, ReadingError, Tracker};
use super::{Destination, Ingest};
use crate::accumulator::{Accumulator, Bulk, MeterRead, MeterSlot, NotTaken, ReadingsMode};
use crate::clock::SiteClock;
use crate::figures::Family;
use crate::site::METER_NAME_BYTES_MAX;

/// When a reading that the site did not take is sent again.
const REFUSED_AGAIN: Duration = Duration::from_secs(10);

/// The running polls; they end when this is dropped.
#[derive(Debug)]
pub struct Polls {
    states: Vec<Arc<State>>,
    /// Dropping it ends them.
    _tasks: JoinSet<()>,
}

/// Why a reading was not counted.
#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error("cannot read the file: {0}")]
    File(#[from] io::Error),
    #[error("cannot read the file of `boot_id`, {path}: {1}", path = .0.display())]
    Incarnation(PathBuf, io::Error),
    #[error(transparent)]
    Reading(#[from] ReadingError),
    #[error("not counted: {0}")]
    NotCounted(String),
}

impl From<NotTaken> for PollError {
    fn from(why: NotTaken) -> PollError {
        PollError::NotCounted(why.to_string())
    }
}

impl Ingest for Polls {
    type Section = Vec<PollConfig>;
    /// In the order of the configuration.
    type Status = Vec<PollStatus>;
    type Error = PollConfigError;

    fn check(section: &Vec<PollConfig>) -> Result<(), String> {
        checked(section).map(drop).map_err(|error| error.to_string())
    }

    fn changed(running: &Vec<PollConfig>, new: &Vec<PollConfig>) -> Vec<&'static str> {
        if running == new { Vec::new() } else { vec!["ingest.poll"] }
    }

    /// Also where nothing is polled: the status shows an empty list.
    fn start(section: &Vec<PollConfig>, to: &Destination<'_>) -> Result<Option<Polls>, PollConfigError> {
        Ok(Some(Polls::begin(checked(section)?, to)))
    }

    fn status(&self) -> Vec<PollStatus> {
        self.states.iter().map(|state| state.status()).collect()
    }

    /// By series and place in the configuration: two may be counted in the same series.
    fn figures(&self) -> Vec<Family> {
        let polls = self.status();
        let family = |name, kind, help, value: &dyn Fn(&PollStatus) -> Option<f64>| {
            let family = Family::new(name, kind, help);
            polls.iter().enumerate().fold(family, |family, (place, poll)| match value(poll) {
                Some(value) => family.with([("series", &poll.series), ("poll", &place.to_string())], value),
                None => family,
            })
        };
        vec![
            family(
                "tallyd_poll_readings_total",
                "counter",
                "Readings of polled files that were counted.",
                &|poll| Some(poll.readings as f64),
            ),
            family("tallyd_poll_errors_total", "counter", "Readings of polled files that failed.", &|poll| {
                Some(poll.errors as f64)
            }),
            family(
                "tallyd_poll_failing",
                "gauge",
                "1 if the latest reading of a polled file failed, or hangs.",
                &|poll| Some(f64::from(u8::from(poll.error.is_some()))),
            ),
            family(
                "tallyd_poll_last_reading_time_seconds",
                "gauge",
                "When a polled file was read well last, seconds since 1970 by this box's wall clock.",
                &|poll| poll.last_at.map(|ms| ms as f64 / 1e3),
            ),
        ]
    }

    /// A file that hangs is not waited for.
    async fn stop(self) {}
}

impl Polls {
    /// Begins to poll for a box. Its meters are told by its name and number from those of others and of the board that it
    /// replaced, which began to count elsewhere.
    fn begin(polls: Vec<Poll>, to: &Destination<'_>) -> Polls {
        let mut tasks = JoinSet::new();
        let states = polls.into_iter().map(|poll| {
            let state = Arc::new(State::new(poll));
            let poller = Poller {
                meter: meter_name(to.node, &state.poll),
                state: Arc::clone(&state),
                tracked: Tracked::default(),
                began: Instant::now(),
                again_at: None,
                accumulator: Arc::clone(to.accumulator),
                clock: Arc::clone(to.clock),
            };
            tasks.spawn(poller.run());
            state
        });
        let states = states.collect();
        Polls { states, _tasks: tasks }
    }
}

/// Which number of which box: `box1/4:/proc/stat#5f0c8a12`. The last part is of the pattern, since a file has many
/// numbers; of another pattern it is another meter.
fn meter_name(node: &str, poll: &Poll) -> String {
    let hash = |parts: &[&[u8]]| {
        let mut context = Context::new(&SHA256);
        parts.iter().for_each(|part| context.update(part));
        let digest = context.finish();
        digest.as_ref().first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes))
    };
    let file = poll.file.to_string_lossy();
    let name = format!("{node}:{file}#{:08x}", hash(&[poll.text.as_bytes()]));
    if name.len() <= METER_NAME_BYTES_MAX && !name.chars().any(char::is_control) {
        return name;
    }
    let path = std::os::unix::ffi::OsStrExt::as_bytes(poll.file.as_os_str());
    format!("{node}:#{:08x}{:08x}", hash(&[path]), hash(&[poll.text.as_bytes()]))
}

struct Poller {
    state: Arc<State>,
    meter: String,
    tracked: Tracked,
    began: Instant,
    /// When the reading is sent again though it shows no more than before.
    again_at: Option<Instant>,
    accumulator: Arc<Accumulator>,
    clock: Arc<SiteClock>,
}

/// What this process alone makes of a counter, as long as the site is not known to take readings.
#[derive(Debug, Default)]
struct Tracked {
    tracker: Tracker,
    /// Increases that are not counted yet, since the site may take the readings that they are of.
    uncounted: u128,
    /// They are counted here.
    counts: bool,
}

impl Poller {
    async fn run(mut self) {
        let mut ticks = tokio::time::interval(self.state.poll.every);
        // After a pause one reading says it all.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let (state, clock) = (Arc::clone(&self.state), Arc::clone(&self.clock));
            state.begin();
            let reading = tokio::task::spawn_blocking(move || {
                let read = file::read(&state.poll);
                // When the number was so, however long it takes from here on.
                (read, clock.site())
            });
            let result = match reading.await {
                Ok((read, heard)) => {
                    read.and_then(|(reading, incarnation)| self.count(reading, incarnation, heard))
                }
                // The runtime ends.
                Err(_) => return,
            };
            self.state.note(result);
        }
    }

    /// Counts a reading; the number itself, for status.
    fn count(&mut self, reading: Reading, incarnation: u64, heard: SiteTime) -> Result<f64, PollError> {
        let state = Arc::clone(&self.state);
        let name =
            SeriesName::new(&state.poll.series).map_err(|error| PollError::NotCounted(error.to_string()))?;
        let accumulator = Arc::clone(&self.accumulator);
        match reading {
            Reading::Count(value) => {
                track::below_ceiling(value, &state.poll.rule)?;
                let mut bulk = accumulator.lock();
                let slot = bulk.meter(&self.meter, name)?;
                let local_ms = self.began.elapsed().as_millis() as u64;
                let read = MeterRead { value, heard, local_ms, incarnation, stands: false };
                self.count_meter(&mut bulk, slot, name, read)?;
                Ok(value as f64)
            }
            Reading::Value(value) => {
                // The batch puts the box's own source in.
                let sample = Sample::observed(value, heard, SourceId(0))
                    .ok_or_else(|| ReadingError::NotAValue(value.to_string()))?;
                let mut bulk = accumulator.lock();
                let slot = bulk.slot(name, Kind::Sample)?;
                bulk.add(slot, Amount::Sample(sample))?;
                Ok(value)
            }
        }
    }

    fn count_meter(
        &mut self,
        bulk: &mut Bulk<'_>,
        slot: MeterSlot,
        name: SeriesName<'_>,
        mut read: MeterRead,
    ) -> Result<(), PollError> {
        let rule = &self.state.poll.rule;
        let mode = bulk.readings_mode();
        let tracked = &mut self.tracked;
        if mode != ReadingsMode::Taken || tracked.counts {
            let step = tracked.tracker.judge(&read, rule);
            let mut more = tracked.uncounted.saturating_add(step.increase);
            if mode != ReadingsMode::Unknown {
                if more > 0 {
                    let series = bulk.slot(name, Kind::Counter)?;
                    bulk.add(series, Amount::Counter(more))?;
                }
                more = 0;
                // From the change on the site has this reading as the base, up to which all is counted.
                tracked.counts = mode == ReadingsMode::Refused;
            }
            tracked.uncounted = more;
            tracked.tracker.counted(&step);
        }
        if mode == ReadingsMode::Refused {
            bulk.forget_readings(slot);
            return Ok(());
        }
        let now = Instant::now();
        read.stands = self.again_at.is_some_and(|at| now >= at);
        let outcome = bulk.read(slot, &read, rule);
        let refused = bulk.reading_refused(slot);
        // A first reading is sent once more: the site may wait to see whether what it showed stands.
        let window = Duration::from_millis(rule.glitch_window_ms).max(REFUSED_AGAIN);
        if outcome == Outcome::First || (refused.is_some() && (read.stands || self.again_at.is_none())) {
            self.again_at = Some(now + window);
        } else if read.stands {
            self.again_at = None;
        }
        refused.map_or(Ok(()), |refusal| Err(NotTaken::Refused(refusal).into()))
    }
}

#[cfg(test)]
#[path = "poll/tests.rs"]
mod tests;
