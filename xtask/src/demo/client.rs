//! Clients that count parts over HTTP, retry until they are acknowledged, and remember what was.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::http;

/// A client each.
pub(super) const SERIES: [&str; 3] = ["line1/press1/parts", "line1/press2/parts", "line2/oven/parts"];

/// Between a client's acknowledged add and its next.
const PAUSE: Duration = Duration::from_millis(15);

/// Between tries of one add, at the next box each time.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How long an add is tried at the end before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was acknowledged, by series.
pub(super) type Acknowledged = BTreeMap<&'static str, u64>;

pub(super) struct Clients {
    shared: Arc<DemoShared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct DemoShared {
    stop: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    acknowledged: Acknowledged,
    /// Since when the next acknowledgement is watched for.
    mark: Option<Instant>,
    /// When the first came of a try that was begun after the mark.
    after_mark: Option<Instant>,
    trouble: Option<String>,
}

impl DemoShared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clients {
    pub(super) fn start(boxes: Vec<SocketAddr>) -> Clients {
        let shared = Arc::new(DemoShared::default());
        let threads = SERIES.into_iter().enumerate().map(|(place, series)| {
            let (shared, boxes) = (Arc::clone(&shared), boxes.clone());
            std::thread::spawn(move || count(&shared, &boxes, place, series))
        });
        let threads = threads.collect();
        Clients { shared, threads }
    }

    pub(super) fn acknowledged(&self) -> Acknowledged {
        self.shared.state().acknowledged.clone()
    }

    /// Why a client gave up, if one did.
    pub(super) fn trouble(&self) -> Option<String> {
        self.shared.state().trouble.clone()
    }

    /// From now on, watch for the first acknowledgement of a try that is begun after a moment.
    pub(super) fn mark(&self, moment: Instant) {
        let mut state = self.shared.state();
        state.mark = Some(moment);
        state.after_mark = None;
    }

    /// Waits for that acknowledgement; gives how long after the mark it came.
    pub(super) fn wait_acknowledged(&self) -> Result<Duration> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let state = self.shared.state();
            if let (Some(mark), Some(at)) = (state.mark, state.after_mark) {
                return Ok(at - mark);
            }
            drop(state);
            std::thread::sleep(Duration::from_millis(1));
        }
        bail!("no add was acknowledged {} s after the kill", PATIENCE.as_secs())
    }

    /// Lets each client finish the add that it is at; gives what was acknowledged in all.
    pub(super) fn finish(self) -> Result<Acknowledged> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            if thread.join().is_err() {
                bail!("a client's thread panicked");
            }
        }
        let mut state = self.shared.state();
        match state.trouble.take() {
            Some(what) => bail!("a client's request was refused: {what}"),
            None => Ok(state.acknowledged.clone()),
        }
    }
}

fn count(shared: &DemoShared, boxes: &[SocketAddr], place: usize, series: &'static str) {
    let run = std::process::id();
    let mut at = place;
    for turn in 0u64.. {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let amount = 1 + turn % 3;
        let key = format!("demo-{run}-{place}-{turn}");
        match add(shared, boxes, &mut at, series, amount, &key) {
            Ok(began) => {
                let mut state = shared.state();
                *state.acknowledged.entry(series).or_default() += amount;
                if state.after_mark.is_none() && state.mark.is_some_and(|mark| began >= mark) {
                    state.after_mark = Some(Instant::now());
                }
            }
            Err(what) => {
                shared.state().trouble = Some(what);
                return;
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// Tries one add, under one key, at one box after the other until it is acknowledged; gives when the
/// try that succeeded was begun.
fn add(
    shared: &DemoShared,
    boxes: &[SocketAddr],
    at: &mut usize,
    series: &str,
    amount: u64,
    key: &str,
) -> Result<Instant, String> {
    let body = format!("{{\"add\":{amount}}}");
    let mut stopping: Option<Instant> = None;
    loop {
        let began = Instant::now();
        match http::post(boxes[*at % boxes.len()], &format!("/v1/counters/{series}"), key, &body) {
            Ok(answer) if answer.status == 200 => return Ok(began),
            Ok(answer) if answer.status == 503 || answer.status == 429 => {}
            Ok(answer) => return Err(format!("{series}: status {}, {}", answer.status, answer.body)),
            // A box that is dead or dying: the key makes it safe to ask another one.
            Err(_) => {}
        }
        *at += 1;
        if shared.stop.load(Ordering::Relaxed) && stopping.get_or_insert(began).elapsed() > PATIENCE {
            return Err(format!("{series}: no box acknowledged an add within {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(RETRY_PAUSE);
    }
}
