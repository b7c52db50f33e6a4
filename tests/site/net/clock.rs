//! The boxes' wall clocks, as tests set them. Only builds with debug assertions look at what is set here
//! (`src/clock/injected.rs`): in others these clocks are all right.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) const MINUTE_MS: i64 = 60_000;
pub(crate) const HOUR_MS: i64 = 60 * MINUTE_MS;

/// How often a clock that drifts is set.
const DRIFT_EVERY: Duration = Duration::from_millis(20);

/// What a box's wall clock says, beside the true time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wall {
    pub(crate) ahead_ms: i64,
    /// Whether a time service is said to keep it.
    pub(crate) synced: bool,
}

impl Wall {
    pub(crate) const RIGHT: Wall = Wall { ahead_ms: 0, synced: true };

    pub(crate) const fn synced(ahead_ms: i64) -> Wall {
        Wall { ahead_ms, synced: true }
    }

    pub(crate) const fn unsynced(ahead_ms: i64) -> Wall {
        Wall { ahead_ms, synced: false }
    }

    /// As a box without a battery comes up.
    pub(crate) fn of_1970() -> Wall {
        Wall::unsynced(-now_ms())
    }

    pub(super) fn write(self, file: &Path) {
        let flag = if self.synced { "synced" } else { "unsynced" };
        std::fs::write(file, format!("{} {flag}\n", self.ahead_ms)).unwrap();
    }
}

/// The true time, Unix milliseconds.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Clocks that run too fast or too slow, until this is dropped: then they run right and stay where they are.
#[derive(Debug)]
pub(crate) struct Drift {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Wall>>,
}

impl Drift {
    /// They gain so many thousandths, from `wall` on.
    pub(crate) fn start(files: Vec<PathBuf>, wall: Wall, permille: i64) -> Drift {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let begun = Instant::now();
            loop {
                let gained_ms = begun.elapsed().as_millis() as i64 * permille / 1000;
                let now = Wall { ahead_ms: wall.ahead_ms + gained_ms, ..wall };
                files.iter().for_each(|file| now.write(file));
                if told.load(Ordering::Relaxed) {
                    return now;
                }
                std::thread::sleep(DRIFT_EVERY);
            }
        });
        Drift { stop, thread: Some(thread) }
    }

    /// What the clocks say from now on.
    pub(crate) fn end(mut self) -> Wall {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("only this takes it");
        thread.join().expect("its message stands above")
    }
}

impl Drop for Drift {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
