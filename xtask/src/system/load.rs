//! Load on a site of machines, each of whose boxes listens on its own loopback only: clients that enter the machines' networks,
//! turn to the next box when one is away, and remember what was acknowledged and how long it took.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::http;

/// What all of them count.
pub(super) const SERIES: &str = "line1/press3/parts";
/// Between a client's acknowledged add and its next.
const PAUSE: Duration = Duration::from_millis(5);
/// Between two tries of one add once all boxes were asked.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// How long one add is tried.
const PATIENCE: Duration = Duration::from_secs(30);
/// Clients whose first box this is.
const CLIENTS_A_BOX: usize = 2;

/// An add that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Add {
    /// The box that its client turned to first.
    pub(super) first: usize,
    pub(super) began: Instant,
    pub(super) took: Duration,
}

pub(super) struct Load {
    stop: Arc<AtomicBool>,
    adds: Arc<Mutex<Vec<Add>>>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    /// Begins; `networks`: one a box.
    pub(super) fn start(networks: Vec<File>) -> Load {
        let (networks, stop, adds) = (Arc::new(networks), Arc::default(), Arc::default());
        let threads = (0..CLIENTS_A_BOX * networks.len()).map(|client| {
            let (networks, stop, adds) = (Arc::clone(&networks), Arc::clone(&stop), Arc::clone(&adds));
            std::thread::spawn(move || count(&networks, &stop, &adds, client))
        });
        let threads = threads.collect();
        Load { stop, adds, threads }
    }

    /// Waits until this many more adds are acknowledged.
    pub(super) fn wait_for(&self, more: usize) -> Result<()> {
        let goal = self.count() + more;
        let began = Instant::now();
        while self.count() < goal {
            if self.threads.iter().any(JoinHandle::is_finished) {
                bail!("a client gave up");
            }
            if began.elapsed() > PATIENCE * 2 {
                bail!("{} of {goal} adds were acknowledged within {:?}", self.count(), PATIENCE * 2);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn count(&self) -> usize {
        self.adds.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Lets each client end its add; gives all of them. An add that failed is an error.
    pub(super) fn finish(self) -> Result<Vec<Add>> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            match thread.join() {
                Ok(ended) => ended?,
                Err(_) => bail!("a client's thread panicked"),
            }
        }
        Ok(std::mem::take(&mut *self.adds.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// The longest of some adds; none if there are none.
pub(super) fn longest<'a>(adds: impl Iterator<Item = &'a Add>) -> Duration {
    adds.map(|add| add.took).max().unwrap_or_default()
}

/// The middle one.
pub(super) fn median(adds: &[Add]) -> Duration {
    let mut all: Vec<Duration> = adds.iter().map(|add| add.took).collect();
    all.sort();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

fn count(networks: &[File], stop: &AtomicBool, adds: &Mutex<Vec<Add>>, client: usize) -> Result<()> {
    let home = client % networks.len();
    let mut at = home;
    enter(&networks[at])?;
    for turn in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (first, began) = (at, Instant::now());
        add(networks, &mut at, &format!("load-{client}-{turn}"))?;
        let add = Add { first, began, took: began.elapsed() };
        adds.lock().unwrap_or_else(PoisonError::into_inner).push(add);
        // Back to its own box, once that is there again.
        if at != home && turn % 20 == 0 {
            at = home;
            enter(&networks[at])?;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Tries one add of 1, under one key, at one box after the other until it is acknowledged.
fn add(networks: &[File], at: &mut usize, key: &str) -> Result<()> {
    let to = SocketAddr::from(([127, 0, 0, 1], 7480));
    let began = Instant::now();
    for tries in 1.. {
        match http::post(to, &format!("/v1/counters/{SERIES}"), key, "{\"add\":1}") {
            Ok(answer) if answer.status == 200 => return Ok(()),
            Ok(answer) if matches!(answer.status, 429 | 503 | 504) => {}
            Ok(answer) => bail!("an add was refused: {} {}", answer.status, answer.body),
            // A box that is away or just went: the key makes it safe to ask another one.
            Err(_) => {}
        }
        if began.elapsed() > PATIENCE {
            bail!("no box acknowledged an add within {PATIENCE:?}");
        }
        *at = (*at + 1) % networks.len();
        enter(&networks[*at])?;
        if tries % networks.len() == 0 {
            std::thread::sleep(RETRY_PAUSE);
        }
    }
    Ok(())
}

/// Has this thread's new connections begin in another network.
fn enter(network: &File) -> Result<()> {
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
        .context("cannot enter a machine's network (this needs root)")
}
