//! How a polled file does, for status and metrics.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::config::Poll;
use super::{PollError, PollKind};
use crate::clock::wall_ms;

/// A file that has not answered for so long is shown as hanging.
const HANGS_AFTER: Duration = Duration::from_secs(2);

/// How a polled file does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PollStatus {
    /// Its series.
    pub series: String,
    /// The file.
    pub file: PathBuf,
    /// Counter or sample.
    pub kind: PollKind,
    /// Readings that were counted.
    pub readings: u64,
    /// Readings that failed.
    pub errors: u64,
    /// The latest number read.
    pub last: Option<f64>,
    /// When it was read, Unix milliseconds by this box's wall clock.
    pub last_at: Option<u64>,
    /// The file hangs: since when it has been read, Unix milliseconds by this box's wall clock.
    pub reading_since: Option<u64>,
    /// What is wrong now; absent if the latest reading was good.
    pub error: Option<String>,
}

/// A polled file and how it does.
#[derive(Debug)]
pub(super) struct State {
    pub(super) poll: Poll,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// When the reading that goes on began, by both clocks.
    began: Option<(Instant, u64)>,
    readings: u64,
    errors: u64,
    last: Option<f64>,
    last_at: Option<u64>,
    error: Option<String>,
}

impl State {
    pub(super) fn new(poll: Poll) -> State {
        State { poll, progress: Mutex::default() }
    }

    pub(super) fn status(&self) -> PollStatus {
        let progress = self.progress();
        let hangs = progress.began.filter(|(began, _)| began.elapsed() >= HANGS_AFTER);
        let hanging = hangs.map(|(began, _)| {
            let passed_s = began.elapsed().as_secs();
            format!("the file has not answered for {passed_s} s; it will not be read again until it does")
        });
        PollStatus {
            series: self.poll.series.clone(),
            file: self.poll.file.clone(),
            kind: self.poll.kind,
            readings: progress.readings,
            errors: progress.errors,
            last: progress.last,
            last_at: progress.last_at,
            reading_since: hangs.map(|(_, wall)| wall),
            error: hanging.or_else(|| progress.error.clone()),
        }
    }

    /// A reading begins.
    pub(super) fn begin(&self) {
        self.progress().began = Some((Instant::now(), wall_ms()));
    }

    /// The reading that goes on began so long ago.
    #[cfg(test)]
    pub(super) fn began_earlier(&self, ago: Duration) {
        let mut progress = self.progress();
        progress.began = progress.began.and_then(|(began, wall)| Some((began.checked_sub(ago)?, wall)));
    }

    /// Keeps what came of a reading; logs it when it is another state than before.
    pub(super) fn note(&self, result: Result<f64, PollError>) {
        let mut progress = self.progress();
        progress.began = None;
        let (series, file) = (&self.poll.series, self.poll.file.display());
        match result {
            Ok(reading) => {
                progress.readings += 1;
                progress.last = Some(reading);
                progress.last_at = Some(wall_ms());
                if progress.error.take().is_some() {
                    tracing::info!(%series, %file, "polled file: readings succeed again");
                }
            }
            Err(error) => {
                progress.errors += 1;
                let error = error.to_string();
                if progress.error.is_none() {
                    tracing::warn!(%series, %file, %error, "polled file: reading failed; retrying");
                }
                progress.error = Some(error);
            }
        }
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
