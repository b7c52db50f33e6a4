//! Polled files: numbers that this machine keeps in files (`/proc`, `/sys`) as counters and samples.
//!
//! Files are read on the runtime's blocking threads, since a file can be on a disk that hangs.

mod config;
mod track;

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tally_core::id::{SeriesName, SourceId};
use tally_core::report::{Amount, Kind, Sample};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

pub use self::config::{Poll, PollConfig, PollConfigError, PollProblem};
pub use self::track::{PollKind, Reading, ReadingError, Tracker};
use crate::accumulator::{Accumulator, NotTaken};
use crate::clock::SiteClock;

/// Most of a file that is read.
const FILE_BYTES_MAX: usize = 64 << 10;

/// The running polls; they end when this is dropped.
#[derive(Debug)]
pub struct Polls {
    states: Vec<Arc<State>>,
    /// Dropping it ends them.
    _tasks: JoinSet<()>,
}

/// How a polled file does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PollStatus {
    /// Its series.
    pub series: String,
    /// The file.
    pub file: PathBuf,
    /// Readings that were counted.
    pub readings: u64,
    /// Readings that failed.
    pub errors: u64,
    /// The latest number read.
    pub last: Option<f64>,
    /// What is wrong now; absent if the latest reading was good.
    pub error: Option<String>,
}

/// Why a reading was not counted.
#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error("cannot read the file: {0}")]
    File(#[from] io::Error),
    #[error(transparent)]
    Reading(#[from] ReadingError),
    #[error("not counted: {0}")]
    NotCounted(String),
}

impl Polls {
    /// Begins to poll; to be called on the runtime.
    pub fn start(polls: Vec<Poll>, accumulator: &Arc<Accumulator>, clock: &Arc<SiteClock>) -> Polls {
        let mut tasks = JoinSet::new();
        let states = polls.into_iter().map(|poll| {
            let state = Arc::new(State::new(poll));
            let poller = Poller {
                tracker: Tracker::new(state.poll.ceiling),
                state: Arc::clone(&state),
                accumulator: Arc::clone(accumulator),
                clock: Arc::clone(clock),
            };
            tasks.spawn(poller.run());
            state
        });
        let states = states.collect();
        Polls { states, _tasks: tasks }
    }

    /// How each of them does, in the order of the configuration.
    pub fn status(&self) -> Vec<PollStatus> {
        self.states.iter().map(|state| state.status()).collect()
    }
}

#[derive(Debug)]
struct State {
    poll: Poll,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    readings: u64,
    errors: u64,
    last: Option<f64>,
    error: Option<String>,
}

impl State {
    fn new(poll: Poll) -> State {
        State { poll, progress: Mutex::default() }
    }

    fn status(&self) -> PollStatus {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        PollStatus {
            series: self.poll.series.clone(),
            file: self.poll.file.clone(),
            readings: progress.readings,
            errors: progress.errors,
            last: progress.last,
            error: progress.error.clone(),
        }
    }

    /// Keeps what came of a reading; logs it when it is another state than before.
    fn note(&self, result: Result<f64, PollError>) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let (series, file) = (&self.poll.series, self.poll.file.display());
        match result {
            Ok(reading) => {
                progress.readings += 1;
                progress.last = Some(reading);
                if progress.error.take().is_some() {
                    tracing::info!(%series, %file, "polled file: readings are good again");
                }
            }
            Err(error) => {
                progress.errors += 1;
                let error = error.to_string();
                if progress.error.is_none() {
                    tracing::warn!(%series, %file, %error, "polled file: no reading; trying on");
                }
                progress.error = Some(error);
            }
        }
    }
}

struct Poller {
    state: Arc<State>,
    tracker: Tracker,
    accumulator: Arc<Accumulator>,
    clock: Arc<SiteClock>,
}

impl Poller {
    async fn run(mut self) {
        let mut ticks = tokio::time::interval(self.state.poll.every);
        // After a pause one reading says it all.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let state = Arc::clone(&self.state);
            let reading =
                tokio::task::spawn_blocking(move || Ok(state.poll.read(&read_bounded(&state.poll.file)?)?));
            let result = match reading.await {
                Ok(reading) => reading.and_then(|reading| self.count(reading)),
                // The runtime ends.
                Err(_) => return,
            };
            self.state.note(result);
        }
    }

    /// Counts a reading; the number itself, for status.
    fn count(&mut self, reading: Reading) -> Result<f64, PollError> {
        let not_counted = |why: NotTaken| PollError::NotCounted(why.to_string());
        let name = SeriesName::new(&self.state.poll.series)
            .map_err(|error| PollError::NotCounted(error.to_string()))?;
        let now = self.clock.site();
        let mut bulk = self.accumulator.lock();
        match reading {
            Reading::Count(reading) => {
                let increase = self.tracker.increase(reading)?;
                if increase > 0 {
                    let slot = bulk.slot(name, Kind::Counter).map_err(not_counted)?;
                    bulk.count(slot, increase).map_err(not_counted)?;
                }
                self.tracker.counted(reading);
                Ok(reading as f64)
            }
            Reading::Value(value) => {
                // The batch puts the box's own source in.
                let sample = Sample::observed(value, now, SourceId(0))
                    .ok_or_else(|| ReadingError::NotAValue(value.to_string()))?;
                let slot = bulk.slot(name, Kind::Sample).map_err(not_counted)?;
                bulk.add(slot, Amount::Sample(sample)).map_err(not_counted)?;
                Ok(value)
            }
        }
    }
}

/// The file's beginning, up to 64 KiB in whole lines: a number cut in two would be another number.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe that nobody writes to would wait for ever.
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
    if text.len() > FILE_BYTES_MAX {
        let end = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        text.truncate(end);
    }
    Ok(text)
}

#[cfg(test)]
#[path = "poll/tests.rs"]
mod tests;
