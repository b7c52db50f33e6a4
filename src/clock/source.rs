//! The source of a box's time: the machine's clocks, or a simulation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The clocks that all modules of a box use.
#[derive(Clone, Debug, Default)]
pub struct TimeSource {
    /// `None`: the machine's.
    simulated: Option<Arc<SimulatedClocks>>,
}

#[derive(Debug)]
struct SimulatedClocks {
    began: Instant,
    passed_us: AtomicU64,
    wall_us: AtomicU64,
}

impl TimeSource {
    /// Clocks that stand still until they are [`set`](Self::set).
    pub fn simulated() -> TimeSource {
        let simulated = SimulatedClocks {
            began: Instant::now(),
            passed_us: AtomicU64::new(0),
            wall_us: AtomicU64::new(0),
        };
        TimeSource { simulated: Some(Arc::new(simulated)) }
    }

    /// How long a simulated box has been running by its monotonic clock, and what its wall clock says in Unix
    /// microseconds. The machine's clocks cannot be set by this.
    pub fn set(&self, passed: Duration, wall_us: u64) {
        if let Some(simulated) = &self.simulated {
            simulated
                .passed_us
                .store(u64::try_from(passed.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
            simulated.wall_us.store(wall_us, Ordering::Relaxed);
        }
    }

    /// The monotonic clock.
    pub fn now(&self) -> Instant {
        match &self.simulated {
            None => Instant::now(),
            Some(simulated) => {
                simulated.began + Duration::from_micros(simulated.passed_us.load(Ordering::Relaxed))
            }
        }
    }

    /// The wall clock as Unix milliseconds.
    pub fn wall_ms(&self) -> u64 {
        match &self.simulated {
            None => super::wall_ms(),
            Some(simulated) => simulated.wall_us.load(Ordering::Relaxed) / 1000,
        }
    }
}
