//! Clients that retry until they are told: what was acknowledged is known to the unit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::boxes::{Site, TestBox};
use crate::harness::until;
use crate::http::Client;

/// Retrying goes on for so long at most: far below the life of a key.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// How long a try may take: a box that is killed answers nothing.
const TRY_MAX: Duration = Duration::from_secs(5);

/// Clients that add with idempotency keys at all boxes in turn, each try at another one.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    /// The longest that an add took so far, with its retries.
    slowest_us: Arc<AtomicU64>,
    /// Tries so far that were not acknowledged, and were repeated.
    retries: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Tally>>,
}

/// What the clients were told.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Acknowledged amounts by series.
    pub(crate) acknowledged: BTreeMap<String, i64>,
    /// Acknowledged adds.
    pub(crate) adds: u64,
    /// Tries that were not acknowledged, and were repeated.
    pub(crate) retries: u64,
}

impl Load {
    pub(crate) fn start(site: &Site, clients: usize) -> Load {
        let ports: Vec<u16> = site.boxes.iter().map(|one| one.http).collect();
        Load::at(&ports, clients)
    }

    /// At some boxes only.
    pub(crate) fn at(ports: &[u16], clients: usize) -> Load {
        let (slowest_us, retries) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let clients = (0..clients)
            .map(|number| {
                let (ports, stop, done) = (ports.to_vec(), stop.clone(), done.clone());
                let (slowest_us, retries) = (slowest_us.clone(), retries.clone());
                std::thread::spawn(move || client(number, &ports, &stop, &done, &slowest_us, &retries))
            })
            .collect();
        Load { stop, done, slowest_us, retries, clients }
    }

    /// Acknowledged adds so far.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Tries so far that were not acknowledged, and were repeated.
    pub(crate) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// The longest that an add took so far, with its retries.
    pub(crate) fn slowest(&self) -> Duration {
        Duration::from_micros(self.slowest_us.load(Ordering::Relaxed))
    }

    /// Each client finishes what it has begun.
    pub(crate) fn finish(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for client in std::mem::take(&mut self.clients) {
            let one = client.join().expect("a client failed; its message stands above");
            all.adds += one.adds;
            all.retries += one.retries;
            for (series, amount) in one.acknowledged {
                *all.acknowledged.entry(series).or_default() += amount;
            }
        }
        all
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Tally {
    /// Fails unless every box holds exactly what was acknowledged.
    pub(crate) fn assert_held(&self, site: &Site) {
        assert!(self.adds > 0, "nothing was acknowledged");
        for (series, acknowledged) in &self.acknowledged {
            for one in &site.boxes {
                assert_eq!(one.total(series), *acknowledged, "{series} at {}", one.name);
            }
        }
        eprintln!("{} adds acknowledged after {} retries, and held", self.adds, self.retries);
    }
}

fn client(
    number: usize,
    ports: &[u16],
    stop: &AtomicBool,
    done: &AtomicU64,
    slowest_us: &AtomicU64,
    retries: &AtomicU64,
) -> Tally {
    let mut clients: Vec<Client> = ports.iter().map(|port| Client::new(*port).patient_for(TRY_MAX)).collect();
    let mut tally = Tally::default();
    let mut at = number;
    for add in 1_i64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let series = format!("load/{}", (number as i64 + add) % 5);
        let amount = 1 + add % 9;
        let key = format!("client-{number}-add-{add}");
        let began = Instant::now();
        let deadline = began + RETRY_MAX;
        loop {
            at += 1;
            let one = &mut clients[at % ports.len()];
            let body = format!("{{\"add\":{amount}}}");
            match one.post_keyed(&format!("/v1/counters/{series}"), &body, &key) {
                Ok(answer) if answer.status == 200 => break,
                // Only what says that it is passing may be repeated.
                Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.text()),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
            tally.retries += 1;
            retries.fetch_add(1, Ordering::Relaxed);
            assert!(Instant::now() < deadline, "{key} was not acknowledged within {RETRY_MAX:?}");
        }
        tally.adds += 1;
        slowest_us.fetch_max(began.elapsed().as_micros() as u64, Ordering::Relaxed);
        done.fetch_add(1, Ordering::Relaxed);
        *tally.acknowledged.entry(series).or_default() += amount;
    }
    tally
}

/// Sends reports of many samples to one box, which fill the log by some 45 KiB each, until it is enough. A report that
/// is not acknowledged is sent again, until it is or it is enough.
pub(crate) fn fill_log(at: &TestBox, mut enough: impl FnMut() -> bool) {
    let mut client = at.client();
    let opened = until("a source opens an epoch", || {
        let answer = client.post("/v1/sources/filler/epochs", "").ok()?;
        (answer.status == 200).then(|| answer.json())
    });
    let epoch = opened["epoch"].as_str().unwrap();
    let cells: Vec<Value> = (0..1000)
        .map(|series| {
            let sample = json!({"count": 2, "sum": 1234.567891011, "min": 567.891011, "max": 666.67688,
                                "last": 666.67688});
            json!({"series": format!("fill/{series}"), "sample": sample})
        })
        .collect();
    let cells = Value::Array(cells).to_string();
    for number in 1..5000 {
        let body = format!(r#"{{"source":"filler","epoch":"{epoch}","number":{number},"cells":{cells}}}"#);
        let enough = until("a report is acknowledged, or it is enough", || {
            if enough() {
                return Some(true);
            }
            let answer = client.post("/v1/reports", &body).ok()?;
            (answer.status == 200).then(|| {
                assert_eq!(answer.json()["refused"], json!([]));
                false
            })
        });
        if enough {
            return;
        }
    }
    panic!("5,000 reports were not enough");
}
