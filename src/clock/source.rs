//! Where a box's time comes from: the machine's clocks, or a simulation that says what time it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The clocks that all rooms of a box go by.
#[derive(Clone, Debug, Default)]
pub struct TimeSource {
    /// `None`: the machine's.
    told: Option<Arc<Told>>,
}

#[derive(Debug)]
struct Told {
    began: Instant,
    passed_us: AtomicU64,
    wall_us: AtomicU64,
}

impl TimeSource {
    /// Clocks that stand still until they are [`set`](Self::set).
    pub fn simulated() -> TimeSource {
        let told = Told { began: Instant::now(), passed_us: AtomicU64::new(0), wall_us: AtomicU64::new(0) };
        TimeSource { told: Some(Arc::new(told)) }
    }

    /// How long a simulated box has been running by its monotonic clock, and what its wall clock says in Unix
    /// microseconds. The machine's clocks cannot be set by this.
    pub fn set(&self, passed: Duration, wall_us: u64) {
        if let Some(told) = &self.told {
            told.passed_us.store(u64::try_from(passed.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
            told.wall_us.store(wall_us, Ordering::Relaxed);
        }
    }

    /// The monotonic clock.
    pub fn now(&self) -> Instant {
        match &self.told {
            None => Instant::now(),
            Some(told) => told.began + Duration::from_micros(told.passed_us.load(Ordering::Relaxed)),
        }
    }

    /// The wall clock as Unix milliseconds.
    pub fn wall_ms(&self) -> u64 {
        match &self.told {
            None => super::wall_ms(),
            Some(told) => told.wall_us.load(Ordering::Relaxed) / 1000,
        }
    }
}
