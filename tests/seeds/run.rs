//! Many seeds on all cores: which seeds they are does not depend on the number of cores, nor does what they come to.

use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::coverage::Coverage;
use crate::kinds::MUST_HAPPEN;
use crate::sim::Setting;
use crate::world;

/// A long run tells how far it is this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    Seeds(u64),
    Seconds(Duration),
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) seeds: u64,
    pub(crate) coverage: Coverage,
    took: Duration,
    threads: usize,
}

/// Names the seed when its history fails.
struct Named<'a> {
    seed: u64,
    setting: Setting,
    failed: Option<&'a AtomicBool>,
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, test) = (self.seed, env!("CARGO_CRATE_NAME"));
            let variables = self.setting.variables();
            eprintln!(
                "seed {seed} failed: {variables}TALLYD_SIM_SEED={seed} cargo test --test {test} \
                 the_invariants prints its history"
            );
            if let Some(failed) = self.failed {
                failed.store(true, Ordering::Relaxed);
            }
        }
    }
}

struct Run {
    first: u64,
    setting: Setting,
    until: Until,
    /// A long run ends when this file is there.
    stop: Option<PathBuf>,
    began: Instant,
    next: AtomicU64,
    failed: AtomicBool,
    total: Mutex<(u64, Coverage, Duration)>,
}

/// Plays one seed.
pub(crate) fn named(seed: u64, setting: Setting, trace: bool) -> Coverage {
    let _named = Named { seed, setting, failed: None };
    world::play(seed, setting, trace)
}

/// Plays seeds from `first` on; panics if one fails.
pub(crate) fn play(first: u64, until: Until, setting: Setting) -> Played {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = crate::number("TALLYD_SIM_THREADS").map_or_else(cores, |threads| threads.max(1) as usize);
    let run = Run {
        first,
        setting,
        until,
        stop: std::env::var_os("TALLYD_SIM_STOP").map(PathBuf::from),
        began: Instant::now(),
        next: AtomicU64::new(0),
        failed: AtomicBool::new(false),
        total: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| run.work());
        }
    });
    let took = run.began.elapsed();
    let (seeds, coverage, _) = run.total.into_inner().expect("nobody failed");
    Played { seeds, coverage, took, threads }
}

impl Run {
    fn work(&self) {
        while let Some(seed) = self.next() {
            let _named = Named { seed, setting: self.setting, failed: Some(&self.failed) };
            let coverage = world::play(seed, self.setting, false);
            self.add(&coverage);
        }
    }

    fn next(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let goes_on = match self.until {
            Until::Seeds(seeds) => number < seeds,
            Until::Seconds(span) => {
                self.began.elapsed() < span && !self.stop.as_ref().is_some_and(|file| file.exists())
            }
        };
        (goes_on && !self.failed.load(Ordering::Relaxed)).then(|| self.first.wrapping_add(number))
    }

    fn add(&self, coverage: &Coverage) {
        let mut total = self.total.lock().expect("nobody fails while adding");
        let (seeds, sum, told) = &mut *total;
        *seeds += 1;
        sum.merge(coverage);
        let took = self.began.elapsed();
        if matches!(self.until, Until::Seconds(_)) && took >= *told + TELL_EVERY {
            *told = took;
            println!("{}", summary(*seeds, sum, took));
        }
    }
}

impl fmt::Display for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = self.coverage.missing();
        if !missing.is_empty() {
            writeln!(f, "never met: {}", missing.join(", "))?;
        }
        write!(f, "{} on {} cores", summary(self.seeds, &self.coverage, self.took), self.threads)
    }
}

fn summary(seeds: u64, coverage: &Coverage, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(0.001);
    let a_second = |count: u64| count as f64 / seconds;
    let met = MUST_HAPPEN.len() - coverage.missing().len();
    format!(
        "{seeds} seeds and {} events in {seconds:.0} s: {:.0} seeds and {:.0} events a second; {met} of {} kinds \
         of events that matter were met",
        coverage.events,
        a_second(seeds),
        a_second(coverage.events),
        MUST_HAPPEN.len(),
    )
}
