//! A relay between the boxes' addresses: it loses and delays packets, since a kernel may lack netem.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::network;
use super::plan::Rng;

/// How often a thread looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What packets meet, each on its own and in each direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// So many of a thousand are lost.
    pub(crate) loss_permille: u64,
    /// Each waits up to so long, at random; so they overtake each other.
    pub(crate) jitter: Duration,
}

/// What a relay did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    /// Packets passed on.
    pub(crate) passed: u64,
    /// Packets lost on purpose.
    pub(crate) lost: u64,
}

/// Stands for each box at [`network::stand_in`]: what comes there from box `i` goes on to the box from the
/// address that stands for `i`, so both sides see one peer at one address.
#[derive(Debug)]
pub(crate) struct Relay {
    shared: Arc<RelayShared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct RelayShared {
    /// One for each box, at the address that stands for it.
    sockets: Vec<UdpSocket>,
    port: u16,
    weather: Mutex<Weather>,
    chance: Mutex<Rng>,
    waiting: Mutex<BinaryHeap<Reverse<Packet>>>,
    came: Condvar,
    stop: AtomicBool,
    passed: AtomicU64,
    lost: AtomicU64,
}

/// A packet on its way; what is due first comes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    due: Instant,
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

impl Relay {
    /// Stands for so many boxes, at this port; chance comes from the seed.
    pub(crate) fn start(boxes: usize, port: u16, seed: u64) -> Relay {
        let socket = |at| {
            let socket = UdpSocket::bind(format!("{}:{port}", network::stand_in(at))).unwrap();
            socket.set_read_timeout(Some(LOOK_EVERY)).unwrap();
            socket
        };
        let shared = Arc::new(RelayShared {
            sockets: (0..boxes).map(socket).collect(),
            port,
            weather: Mutex::default(),
            chance: Mutex::new(Rng::new(seed)),
            waiting: Mutex::default(),
            came: Condvar::new(),
            stop: AtomicBool::new(false),
            passed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let mut threads: Vec<JoinHandle<()>> = (0..boxes)
            .map(|to| {
                let shared = shared.clone();
                std::thread::spawn(move || shared.receive(to))
            })
            .collect();
        let late = shared.clone();
        threads.push(std::thread::spawn(move || late.deliver()));
        Relay { shared, threads }
    }

    /// What packets meet from now on.
    pub(crate) fn set(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap() = weather;
    }

    /// What it did since it was last asked.
    pub(crate) fn take_counts(&self) -> Counts {
        Counts {
            passed: self.shared.passed.swap(0, Ordering::Relaxed),
            lost: self.shared.lost.swap(0, Ordering::Relaxed),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Its panic has been printed.
            let _ = thread.join();
        }
    }
}

impl RelayShared {
    /// Takes in what is for one box.
    fn receive(&self, to: usize) {
        let mut buffer = vec![0; 65_536];
        while !self.stop.load(Ordering::Relaxed) {
            let Ok((length, source)) = self.sockets[to].recv_from(&mut buffer) else { continue };
            let Some(from) = self.box_at(source) else { continue };
            let weather = *self.weather.lock().unwrap();
            let wait = {
                let mut chance = self.chance.lock().unwrap();
                if chance.chance(weather.loss_permille) {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                Duration::from_micros(chance.below(weather.jitter.as_micros() as u64 + 1))
            };
            if wait.is_zero() {
                self.send(from, to, &buffer[..length]);
                continue;
            }
            let packet = Packet { due: Instant::now() + wait, from, to, bytes: buffer[..length].to_vec() };
            self.waiting.lock().unwrap().push(Reverse(packet));
            self.came.notify_one();
        }
    }

    /// Sends what has waited long enough.
    fn deliver(&self) {
        let mut waiting = self.waiting.lock().unwrap();
        while !self.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            let next = waiting.peek().map(|Reverse(packet)| packet.due);
            if next.is_some_and(|due| due <= now)
                && let Some(Reverse(packet)) = waiting.pop()
            {
                drop(waiting);
                self.send(packet.from, packet.to, &packet.bytes);
                waiting = self.waiting.lock().unwrap();
                continue;
            }
            let wait = next.map_or(LOOK_EVERY, |due| (due - now).min(LOOK_EVERY));
            waiting = self.came.wait_timeout(waiting, wait).unwrap().0;
        }
    }

    fn send(&self, from: usize, to: usize, bytes: &[u8]) {
        // A box whose cable is pulled is not reached; its peers notice that by silence.
        let _ = self.sockets[from].send_to(bytes, (network::address(to), self.port));
        self.passed.fetch_add(1, Ordering::Relaxed);
    }

    fn box_at(&self, source: SocketAddr) -> Option<usize> {
        let IpAddr::V4(address) = source.ip() else { return None };
        let at = usize::from(address.octets()[3]).checked_sub(1)?;
        (at < self.sockets.len()).then_some(at)
    }
}
