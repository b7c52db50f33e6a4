//! The closed loop: each client has one connection and one request outstanding.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::ledger::{BenchLedger, Gaps};
use super::script::Script;
use super::wire::{Answer, BenchTarget, Wire, WireError};

/// Longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;
/// How long a client waits after an error before the next try.
const PAUSE: Duration = Duration::from_millis(5);

const WARM_UP: u8 = 0;
const MEASURE: u8 = 1;
const END: u8 = 2;

/// How clients behave.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// The boxes; a client goes on to the next one after an error.
    pub targets: Vec<BenchTarget>,
    /// Whether clients begin at different boxes; otherwise all at the first.
    pub spread: bool,
    /// When a try is given up, if at all.
    pub try_timeout: Option<Duration>,
    /// After the end, how long outstanding requests may take (tries included).
    pub settle: Duration,
    /// Gaps between acknowledgements shorter than this are not kept, in milliseconds.
    pub gap_ms_least: f64,
}

/// A load that runs.
#[derive(Debug)]
pub struct Load {
    shared: Arc<LoadState>,
    clients: JoinSet<()>,
}

/// What came of it.
#[derive(Debug)]
pub struct Tally {
    /// Requests that were done in the measured time.
    pub requests: u64,
    /// Increments that were done in it.
    pub adds: u64,
    /// From the first try of a request to its answer, in microseconds, in the measured time.
    pub latency: Histogram<u64>,
    /// Tries that failed, by type, at any time.
    pub errors: BTreeMap<String, u64>,
    /// All increments, by series, at any time.
    pub ledger: BenchLedger,
    /// Gaps since the measuring began.
    pub gaps: Gaps,
    /// How long was measured.
    pub measured: Duration,
}

#[derive(Debug)]
struct LoadState {
    phase: AtomicU8,
    /// Raised by each client when it has connected, or failed to.
    connected: Semaphore,
    behaviour: Behaviour,
    tally: Mutex<Tally>,
}

impl Load {
    /// Connects the clients and begins, unmeasured; returns when all have connected or failed to.
    pub async fn start(behaviour: Behaviour, scripts: Vec<Script>, series: usize) -> Load {
        let tally = Tally {
            requests: 0,
            adds: 0,
            latency: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
                .expect("the bounds are constants that the histogram takes"),
            errors: BTreeMap::new(),
            ledger: BenchLedger::new(series),
            gaps: Gaps::new(behaviour.gap_ms_least),
            measured: Duration::ZERO,
        };
        let shared = Arc::new(LoadState {
            phase: AtomicU8::new(WARM_UP),
            connected: Semaphore::new(0),
            behaviour,
            tally: Mutex::new(tally),
        });
        let mut clients = JoinSet::new();
        let wanted = u32::try_from(scripts.len()).unwrap_or(u32::MAX);
        for (number, script) in scripts.into_iter().enumerate() {
            let target = if shared.behaviour.spread { number % shared.behaviour.targets.len() } else { 0 };
            let client = Client { shared: Arc::clone(&shared), script, wire: None, target, open: false };
            clients.spawn(client.run());
        }
        // The semaphore is never closed, and a connection that hangs ends in an error.
        let _ = shared.connected.acquire_many(wanted).await;
        Load { shared, clients }
    }

    /// Measures for so long.
    pub async fn measure(&self, span: Duration) {
        self.measure_until(tokio::time::sleep(span)).await;
    }

    /// Measures until that is over.
    async fn measure_until(&self, over: impl Future<Output = ()>) {
        let begun = Instant::now();
        {
            let mut tally = self.shared.tally();
            tally.gaps = Gaps::new(self.shared.behaviour.gap_ms_least);
        }
        self.shared.phase.store(MEASURE, Ordering::Relaxed);
        over.await;
        self.shared.phase.store(END, Ordering::Relaxed);
        let now = Instant::now();
        let mut tally = self.shared.tally();
        tally.measured = now - begun;
        tally.gaps.mark(now);
    }

    /// Lets outstanding requests come to an end and tells what came of all.
    pub async fn finish(mut self) -> Tally {
        self.shared.phase.store(END, Ordering::Relaxed);
        let all = async {
            while let Some(ended) = self.clients.join_next().await {
                if let Err(error) = ended {
                    self.shared.tally().count_error(&format!("a a client ended: {error}"));
                }
            }
        };
        let in_time = tokio::time::timeout(self.shared.behaviour.settle, all).await.is_ok();
        if !in_time {
            // Clients that are dropped leave their increments open.
            self.clients.shutdown().await;
        }
        let mut tally = self.shared.tally();
        let empty = Tally {
            requests: 0,
            adds: 0,
            latency: Histogram::new_from(&tally.latency),
            errors: BTreeMap::new(),
            ledger: BenchLedger::new(0),
            gaps: Gaps::new(0.0),
            measured: Duration::ZERO,
        };
        std::mem::replace(&mut *tally, empty)
    }
}

impl LoadState {
    fn has_ended(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == END
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    fn count_error(&mut self, kind: &str) {
        match self.errors.get_mut(kind) {
            Some(count) => *count += 1,
            None => {
                self.errors.insert(kind.to_owned(), 1);
            }
        }
    }
}

/// What came of one try.
enum Try {
    Done,
    /// This try was certainly not counted and can be made again.
    NotCounted(String),
    /// This try may have been counted.
    Unknown(String),
    /// Refused for good: no try will do better.
    Refused(String),
}

struct Client {
    shared: Arc<LoadState>,
    script: Script,
    wire: Option<Wire>,
    /// Where the next connection goes.
    target: usize,
    /// The present request was sent and its outcome is not known.
    open: bool,
}

impl Client {
    async fn run(mut self) {
        // What goes wrong here is counted when the first request meets it.
        let target = &self.shared.behaviour.targets[self.target];
        self.wire = match self.shared.behaviour.try_timeout {
            Some(limit) => tokio::time::timeout(limit, Wire::connect(target)).await.ok().and_then(Result::ok),
            None => Wire::connect(target).await.ok(),
        };
        self.shared.connected.add_permits(1);
        while !self.shared.has_ended() {
            self.script.advance();
            let begun = Instant::now();
            let done = self.settle().await;
            if done {
                self.acknowledge(begun);
            } else if self.script.is_sequence() {
                return;
            }
        }
    }

    fn acknowledge(&mut self, begun: Instant) {
        self.open = false;
        let now = Instant::now();
        let mut tally = self.shared.tally();
        tally.ledger.acknowledge(self.script.touched());
        if self.shared.phase.load(Ordering::Relaxed) == MEASURE {
            tally.requests += 1;
            tally.adds += self.script.increments();
            tally.gaps.mark(now);
            let micros = u64::try_from((now - begun).as_micros()).unwrap_or(LATENCY_US_MAX);
            tally.latency.saturating_record(micros.max(1));
        }
    }

    /// Tries until the request is done (true) or refused, or its outcome cannot be found out.
    async fn settle(&mut self) -> bool {
        loop {
            let (error, again) = match self.attempt().await {
                Try::Done => return true,
                Try::NotCounted(error) => (error, self.script.repeatable()),
                Try::Unknown(error) => {
                    self.open = true;
                    (error, self.script.repeatable())
                }
                Try::Refused(error) => (error, false),
            };
            self.shared.tally().count_error(&error);
            self.target = (self.target + 1) % self.shared.behaviour.targets.len();
            if self.shared.behaviour.spread {
                self.wire = None;
            }
            tokio::time::sleep(PAUSE).await;
            if !again {
                self.leave_open();
                return false;
            }
        }
    }

    fn leave_open(&mut self) {
        if self.open {
            self.open = false;
            self.shared.tally().ledger.leave_open(self.script.touched());
        }
    }

    async fn attempt(&mut self) -> Try {
        let behaviour = &self.shared.behaviour;
        let Some(limit) = behaviour.try_timeout else {
            return attempt(&mut self.wire, &behaviour.targets[self.target], &self.script, &mut self.open)
                .await;
        };
        let target = &behaviour.targets[self.target];
        let tried = attempt(&mut self.wire, target, &self.script, &mut self.open);
        match tokio::time::timeout(limit, tried).await {
            Ok(tried) => tried,
            Err(_) => {
                self.wire = None;
                if self.open {
                    Try::Unknown("no answer within the time limit".to_owned())
                } else {
                    Try::NotCounted("no connection within the time limit".to_owned())
                }
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.leave_open();
    }
}

/// One try, connecting first if need be. `open` is set as soon as the request may have been sent.
async fn attempt(wire: &mut Option<Wire>, target: &BenchTarget, script: &Script, open: &mut bool) -> Try {
    let connected = match wire {
        Some(connected) => connected,
        None => match Wire::connect(target).await {
            Ok(connected) => wire.insert(connected),
            Err(error) => return Try::NotCounted(format!("not connected: {}", error.kind())),
        },
    };
    let was_open = std::mem::replace(open, true);
    match connected.exchange(script.bytes()).await {
        Ok(Answer { status: 200 | 201, .. }) => Try::Done,
        Ok(answer) => {
            let kind = problem_kind(&answer);
            if kind == "outcome-unknown" || (500..600).contains(&answer.status) && kind != "not-committed" {
                return Try::Unknown(kind);
            }
            // This answer is certain about this try, and says nothing of earlier ones.
            *open = was_open;
            if answer.status == 503 || answer.status == 429 {
                Try::NotCounted(kind)
            } else {
                Try::Refused(kind)
            }
        }
        Err(error) => {
            *wire = None;
            Try::Unknown(match error {
                WireError::Io(error) => format!("disconnected: {}", error.kind()),
                WireError::Malformed(why) => format!("malformed answer: {why}"),
            })
        }
    }
}

/// The last part of a problem's type; the status where there is none.
fn problem_kind(answer: &Answer<'_>) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(answer.body).ok();
    let kind = problem.as_ref().and_then(|problem| problem.get("type")?.as_str());
    match kind.and_then(|kind| kind.rsplit(['/', ':', '#']).next()) {
        Some(name) if !name.is_empty() && name.len() <= 64 => name.to_owned(),
        _ => format!("status {}", answer.status),
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
