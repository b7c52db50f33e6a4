//! Clients that add and read at whatever box answers, and keep what they were told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::history::{self, Op, Told};
use super::plan::Rng;
use crate::boxes::{Site, TestBox};
use crate::harness::until;
use crate::http::Client;

/// How long a try may take before the next, at another box.
const TRY_MAX: Duration = Duration::from_secs(1);
/// How long a try may take that is not repeated: longer than any box waits for the site.
const ONLY_TRY_MAX: Duration = Duration::from_secs(15);
/// How long an add is retried at most: more than any trouble, less than the life of a key.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Between two operations of a client: the boxes' processors are shared with the test.
const PACE: Duration = Duration::from_millis(4);
/// Between two tries.
const RETRY_PACE: Duration = Duration::from_millis(10);
const SERIES: u64 = 3;

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Clients {
    shared: Arc<ClientsShared>,
    threads: Vec<JoinHandle<Notes>>,
    /// What those were told who had one try.
    singles: Vec<Notes>,
}

#[derive(Debug)]
struct ClientsShared {
    began: Instant,
    stop: AtomicBool,
    acknowledged: AtomicU64,
}

/// What clients were told.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    histories: BTreeMap<String, Vec<Op>>,
    retries: u64,
    /// Adds that were tried once and certainly not counted.
    not_counted: u64,
    /// The longest time that an acknowledged add took, retries included.
    slowest: Duration,
    began: Option<Instant>,
}

impl Clients {
    /// So many begin; what they do and where follows from the seed.
    pub(crate) fn start(site: &Site, clients: u64, seed: u64) -> Clients {
        let shared = Arc::new(ClientsShared {
            began: Instant::now(),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
        });
        let start = |number| {
            let boxes = site.boxes.iter().map(|one| one.client().patient_for(TRY_MAX)).collect();
            let one = One::new(format!("client-{number}"), &shared, boxes, seed.wrapping_add(number));
            std::thread::spawn(move || one.work())
        };
        let threads = (0..clients).map(start).collect();
        Clients { shared, threads, singles: Vec::new() }
    }

    /// So many clients have one try each, all at this box, and wait until it says what became of that.
    pub(crate) fn try_once_at(&mut self, one: &TestBox, count: usize) {
        let base = self.singles.len();
        let shared = &self.shared;
        let work = |number: usize| {
            let boxes = vec![one.client().patient_for(ONLY_TRY_MAX)];
            let name = format!("single-{}", base + number);
            let mut single = One::new(name.clone(), shared, boxes, number as u64);
            // One after the other, so that they come before and after whatever the box notices meanwhile.
            std::thread::sleep(Duration::from_millis(100) * number as u32);
            single.add_once(&format!("history/{}", number as u64 % SERIES), &name);
            single.notes
        };
        let told: Vec<Notes> = std::thread::scope(|scope| {
            let singles: Vec<_> = (0..count).map(|number| scope.spawn(move || work(number))).collect();
            singles.into_iter().map(|single| single.join().expect("its message stands above")).collect()
        });
        self.singles.extend(told);
    }

    /// Adds that were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more adds are acknowledged.
    pub(crate) fn until_more(&self, count: u64, when: &str) {
        let before = self.acknowledged();
        until(&format!("adds are acknowledged ({when})"), || {
            assert!(!self.threads.iter().any(JoinHandle::is_finished), "a client failed; it says why above");
            (self.acknowledged() >= before + count).then_some(())
        });
    }

    /// Each client finishes what it has begun.
    pub(crate) fn finish(mut self) -> Notes {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = Notes { began: Some(self.shared.began), ..Notes::default() };
        let join =
            |thread: JoinHandle<Notes>| thread.join().expect("a client failed; its message stands above");
        let threads = std::mem::take(&mut self.threads).into_iter().map(join);
        for notes in threads.chain(std::mem::take(&mut self.singles)) {
            all.retries += notes.retries;
            all.not_counted += notes.not_counted;
            all.slowest = all.slowest.max(notes.slowest);
            for (series, ops) in notes.histories {
                all.histories.entry(series).or_default().extend(ops);
            }
        }
        all
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Notes {
    /// Fails unless all that was told can have been, with what every box holds now read last.
    pub(crate) fn assert_linearizable(mut self, site: &Site) {
        let began = self.began.expect("finish sets it");
        let micros = || began.elapsed().as_micros() as u64;
        let mut sum = history::Summary::default();
        for (series, ops) in &mut self.histories {
            for one in &site.boxes {
                let begun = micros();
                let total = one.total(series) as u64;
                ops.push(Op { begun, told: Told::Read { total, ended: micros() } });
            }
            let summary =
                history::check(ops).unwrap_or_else(|why| panic!("{series} is not linearizable: {why}"));
            sum.adds += summary.adds;
            sum.reads += summary.reads;
            sum.unknown += summary.unknown;
            sum.counted += summary.counted;
        }
        assert!(sum.adds > 0 && sum.reads > site.boxes.len(), "nothing was told");
        eprintln!(
            "linearizable: {} adds acknowledged (after {} retries, the slowest took {:?}), {} reads; {} adds \
             of unknown outcome, of which {} counted; {} adds not counted",
            sum.adds, self.retries, self.slowest, sum.reads, sum.unknown, sum.counted, self.not_counted
        );
        eprintln!(
            "proof: real processes in namespaces: {} adds acknowledged, {} reads answered",
            sum.adds, sum.reads
        );
    }

    /// The longest time that an acknowledged add took, retries included.
    pub(crate) fn slowest(&self) -> Duration {
        self.slowest
    }
}

/// One client.
#[derive(Debug)]
struct One {
    name: String,
    shared: Arc<ClientsShared>,
    boxes: Vec<Client>,
    /// Whom it tries.
    at: usize,
    rng: Rng,
    notes: Notes,
}

/// What became of one try.
enum Try {
    Done(u64),
    /// It says that it was certainly not counted.
    Not,
    /// No answer, or one that says that nobody knows.
    Unknown,
}

impl One {
    fn new(name: String, shared: &Arc<ClientsShared>, boxes: Vec<Client>, seed: u64) -> One {
        One { name, shared: shared.clone(), boxes, at: 0, rng: Rng::new(seed), notes: Notes::default() }
    }

    fn work(mut self) -> Notes {
        for round in 0.. {
            if self.shared.stop.load(Ordering::Relaxed) {
                break;
            }
            let series = format!("history/{}", self.rng.below(SERIES));
            let key = format!("{}-{round}", self.name);
            self.at = self.rng.below(self.boxes.len() as u64) as usize;
            match self.rng.below(10) {
                0..2 => self.read(&series),
                2 => self.add_once(&series, &key),
                _ => self.add_until_told(&series, &key),
            }
            std::thread::sleep(PACE);
        }
        self.notes
    }

    /// A read that is not answered proves nothing.
    fn read(&mut self, series: &str) {
        let begun = self.micros();
        let path = format!("/v1/series/{series}");
        let Ok(answer) = self.boxes[self.at].get(&path) else { return };
        let total = match answer.status {
            200 => answer.json()["total"].as_u64().expect("a counter has a total"),
            404 => 0,
            503 => return,
            _ => panic!("a read is answered {}", answer.text()),
        };
        let ended = self.micros();
        self.note(series, begun, Told::Read { total, ended });
    }

    /// Gives up after one try: it counts once at most, and not at all if it says so.
    fn add_once(&mut self, series: &str, key: &str) {
        let begun = self.micros();
        match self.try_add(series, 1, key) {
            Try::Done(total) => self.acknowledged(series, begun, 1, total),
            Try::Not => self.notes.not_counted += 1,
            Try::Unknown => self.note(series, begun, Told::Unknown),
        }
    }

    /// Tries one box after the other, under one key, until the add is acknowledged.
    fn add_until_told(&mut self, series: &str, key: &str) {
        let amount = 1 + self.rng.below(9);
        let begun = self.micros();
        let total = loop {
            if let Try::Done(total) = self.try_add(series, amount, key) {
                break total;
            }
            self.notes.retries += 1;
            self.at = (self.at + 1) % self.boxes.len();
            let took = Duration::from_micros(self.micros() - begun);
            assert!(took < RETRY_MAX, "{key} was not acknowledged within {RETRY_MAX:?}");
            std::thread::sleep(RETRY_PACE);
        };
        self.acknowledged(series, begun, amount, total);
    }

    fn try_add(&mut self, series: &str, amount: u64, key: &str) -> Try {
        let (path, body) = (format!("/v1/counters/{series}"), format!("{{\"add\":{amount}}}"));
        match self.boxes[self.at].post_keyed(&path, &body, key) {
            Ok(answer) if answer.status == 200 => {
                Try::Done(answer.json()["total"].as_u64().expect("a counter has a total"))
            }
            Ok(answer) if answer.problem() == "not-committed" => Try::Not,
            Ok(answer) if answer.problem() == "outcome-unknown" => Try::Unknown,
            Ok(answer) => panic!("an add is answered {}", answer.text()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Try::Not,
            Err(_) => Try::Unknown,
        }
    }

    fn acknowledged(&mut self, series: &str, begun: u64, amount: u64, total: u64) {
        let ended = self.micros();
        self.notes.slowest = self.notes.slowest.max(Duration::from_micros(ended - begun));
        self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        self.note(series, begun, Told::Added { amount, total, ended });
    }

    fn note(&mut self, series: &str, begun: u64, told: Told) {
        self.notes.histories.entry(series.to_owned()).or_default().push(Op { begun, told });
    }

    fn micros(&self) -> u64 {
        self.shared.began.elapsed().as_micros() as u64
    }
}
