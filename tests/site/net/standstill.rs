//! Whether the machine itself stood still: a test that counts elections cannot blame the boxes for those.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(5);

/// A machine that stands still for so long holds up heartbeats more than any weather here does.
const MAX: Duration = Duration::from_millis(60);

/// How often something is looked at again that a machine spoilt by standing still.
pub(crate) const ATTEMPTS: usize = 4;

/// Looks at the clock all the time until it is dropped.
#[derive(Debug)]
pub(crate) struct Standstill {
    shared: Arc<(AtomicBool, AtomicU64)>,
    thread: Option<JoinHandle<()>>,
}

impl Standstill {
    pub(crate) fn watch() -> Standstill {
        let shared = Arc::new((AtomicBool::new(false), AtomicU64::new(0)));
        let (stop, worst) = (shared.clone(), shared.clone());
        let thread = std::thread::spawn(move || {
            while !stop.0.load(Ordering::Relaxed) {
                let begun = Instant::now();
                std::thread::sleep(EVERY);
                let late = begun.elapsed().saturating_sub(EVERY);
                worst.1.fetch_max(late.as_micros() as u64, Ordering::Relaxed);
            }
        });
        Standstill { shared, thread: Some(thread) }
    }

    /// The longest that it could not look.
    pub(crate) fn worst(&self) -> Duration {
        Duration::from_micros(self.shared.1.load(Ordering::Relaxed))
    }

    /// Whether that explains an election.
    pub(crate) fn was_long(&self) -> bool {
        self.worst() > MAX
    }
}

impl Drop for Standstill {
    fn drop(&mut self) {
        self.shared.0.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does nothing that could panic.
            let _ = thread.join();
        }
    }
}
