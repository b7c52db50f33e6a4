//! StatsD over UDP: a thread of its own reads datagrams in batches and counts into the accumulator
//! under one lock a batch.
//!
//! Exact from the moment a datagram was read. What the kernel dropped before that is read from the
//! socket's own counter and shown; what does not parse is counted by reason, with an example each.

pub mod book;
mod drops;
pub mod number;
pub mod parse;

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use serde::Serialize;

use self::book::Book;
use self::drops::Drops;
use self::parse::Reason;
use crate::accumulator::Accumulator;
use crate::clock::SiteClock;
use crate::metrics::Counter;

/// What is asked of the kernel to hold while the thread does not run.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// The largest datagram, and the longest train of them that the kernel joins.
const DATAGRAM_BYTES_MAX: usize = 65_536;
/// How often the kernel's drops are looked at while datagrams come.
const DROPS_EVERY: Duration = Duration::from_secs(1);
/// Less than the kernel takes off the receive buffer for a datagram, however short it is.
const DATAGRAM_COST_MIN: usize = 256;
/// The longest example of a refused line, in bytes as sent.
const EXAMPLE_BYTES_MAX: usize = 120;

/// A running StatsD listener; stops when dropped.
#[derive(Debug)]
pub struct Statsd {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Why the listener did not start.
#[derive(Debug, thiserror::Error)]
pub enum StatsdError {
    /// The port is taken.
    #[error(
        "ingest.statsd.listen: UDP address {address} is in use by another program (`ss -ulpn` shows which); \
         stop it or set another address"
    )]
    InUse {
        /// The configured address.
        address: SocketAddr,
    },
    /// Anything else about the address.
    #[error("ingest.statsd.listen: cannot listen on UDP address {address}: {source}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system gave no thread or no event descriptor.
    #[error("the StatsD listener could not be started: {0}")]
    Start(#[source] io::Error),
}

/// What came in so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StatsdStatus {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Datagrams read.
    pub received_datagrams: u64,
    /// Values counted: increments, gauges, samples.
    pub metrics: u64,
    /// Lines and values that were refused, by reason.
    pub refused: Vec<Refused>,
    /// Datagrams that the kernel dropped because the buffer was full (a train of datagrams that it
    /// had joined counts as one), at most a second old.
    pub lost: u64,
    /// The size that the kernel gave the buffer, in bytes.
    pub receive_buffer_bytes: usize,
}

/// What was refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Why.
    pub reason: &'static str,
    /// How often.
    pub count: u64,
    /// The first line that was refused for it, shortened, with control characters escaped.
    pub example: String,
}

impl Statsd {
    /// Listens on `listen` (port 0: any free one) and counts into `accumulator`.
    pub fn start(
        listen: SocketAddr,
        accumulator: Arc<Accumulator>,
        clock: Arc<SiteClock>,
    ) -> Result<Statsd, StatsdError> {
        let socket = UdpSocket::bind(listen).map_err(|source| match source.kind() {
            ErrorKind::AddrInUse => StatsdError::InUse { address: listen },
            _ => StatsdError::Listen { address: listen, source },
        })?;
        Statsd::on_socket(socket, accumulator, clock).map_err(StatsdError::Start)
    }

    fn on_socket(
        socket: UdpSocket,
        accumulator: Arc<Accumulator>,
        clock: Arc<SiteClock>,
    ) -> io::Result<Statsd> {
        let address = socket.local_addr()?;
        let receive_buffer_bytes = enlarge_buffer(&socket)?;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared {
            wake,
            stop: AtomicBool::new(false),
            receive_buffer_bytes,
            datagrams: Counter::default(),
            metrics: Counter::default(),
            lost: Counter::default(),
            refused: Mutex::new(Reason::ALL.iter().map(|_| (0, String::new())).collect()),
        });
        let receiver = Receiver {
            state: UdpSocketState::new(UdpSockRef::from(&socket))?,
            drops: Drops::of(&socket)?,
            drops_read: Instant::now(),
            drops_due: false,
            socket,
            shared: Arc::clone(&shared),
            accumulator,
            clock,
            book: Book::default(),
        };
        let thread = std::thread::Builder::new()
            .name("statsd".to_owned())
            .stack_size(256 << 10)
            .spawn(move || receiver.run())?;
        Ok(Statsd { address, shared, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What came in so far.
    pub fn status(&self) -> StatsdStatus {
        let shared = &self.shared;
        let refused = shared.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = Reason::ALL.iter().zip(&*refused).filter(|(_, (count, _))| *count > 0);
        StatsdStatus {
            listen: self.address,
            received_datagrams: shared.datagrams.get(),
            metrics: shared.metrics.get(),
            refused: refused
                .map(|(reason, (count, example))| Refused {
                    reason: reason.as_str(),
                    count: *count,
                    example: example.clone(),
                })
                .collect(),
            lost: shared.lost.get(),
            receive_buffer_bytes: shared.receive_buffer_bytes,
        }
    }

    /// Counts what has arrived and ends the thread, also while more comes: it reads no more than the receive buffer
    /// holds.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // A full event counter wakes just as well.
        let _ = rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the StatsD thread had ended by a panic");
        }
    }
}

impl Drop for Statsd {
    fn drop(&mut self) {
        self.end();
    }
}

#[derive(Debug)]
struct Shared {
    /// Ends the thread's wait when it is written to.
    wake: OwnedFd,
    stop: AtomicBool,
    receive_buffer_bytes: usize,
    datagrams: Counter,
    metrics: Counter,
    lost: Counter,
    /// Count and first example by [`Reason`].
    refused: Mutex<Vec<(u64, String)>>,
}

impl Shared {
    fn refuse(&self, reason: Reason, line: &[u8]) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, example) = &mut refused[reason as usize];
        *count += 1;
        if *count == 1 {
            let shown = &line[..line.len().min(EXAMPLE_BYTES_MAX)];
            *example = String::from_utf8_lossy(shown).escape_debug().to_string();
            tracing::warn!(reason = reason.as_str(), line = %example, "StatsD: refused a line (the first of its kind)");
        }
    }
}

/// What the thread has.
struct Receiver {
    socket: UdpSocket,
    state: UdpSocketState,
    drops: Drops,
    drops_read: Instant,
    /// Something came since the drops were read.
    drops_due: bool,
    shared: Arc<Shared>,
    accumulator: Arc<Accumulator>,
    clock: Arc<SiteClock>,
    book: Book,
}

impl Receiver {
    fn run(mut self) {
        let mut buffer = vec![0; BATCH_SIZE * DATAGRAM_BYTES_MAX];
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        // When it stops: how much of the receive buffer may still hold what had arrived before.
        let mut left: Option<usize> = None;
        loop {
            if left.is_none() && self.shared.stop.load(Ordering::Acquire) {
                left = Some(self.shared.receive_buffer_bytes);
            }
            if left == Some(0) {
                return;
            }
            match self.receive(&mut buffer, &mut metas) {
                Ok(count) => {
                    self.take(&buffer, &metas[..count]);
                    left = left.map(|left| left.saturating_sub(cost(&metas[..count])));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) if left.is_some() => return,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(),
                Err(error) => {
                    tracing::error!(%error, "StatsD: reading the socket failed; trying again");
                    self.wait_for(&mut [PollFd::new(&self.shared.wake, PollFlags::IN)], DROPS_EVERY);
                }
            }
            self.look_at_drops();
        }
    }

    fn receive(&self, buffer: &mut [u8], metas: &mut [RecvMeta; BATCH_SIZE]) -> io::Result<usize> {
        let mut parts = buffer.chunks_exact_mut(DATAGRAM_BYTES_MAX);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(parts.next().unwrap_or_default()));
        self.state.recv(UdpSockRef::from(&self.socket), &mut slices, metas)
    }

    /// Counts a batch of datagrams under one lock.
    fn take(&mut self, buffer: &[u8], metas: &[RecvMeta]) {
        let Receiver { book, shared, .. } = self;
        let now = self.clock.site();
        let (mut datagrams, mut metrics) = (0, 0);
        let mut bulk = self.accumulator.lock();
        for (meta, part) in metas.iter().zip(buffer.chunks_exact(DATAGRAM_BYTES_MAX)) {
            // An empty datagram says nothing.
            for datagram in part[..meta.len].chunks(meta.stride.max(1)) {
                datagrams += 1;
                for line in datagram.split(|&byte| byte == b'\n') {
                    let line = line.strip_suffix(b"\r").unwrap_or(line);
                    if !line.is_empty() {
                        metrics += book.take(&mut bulk, now, line, |reason| shared.refuse(reason, line));
                    }
                }
            }
        }
        drop(bulk);
        shared.datagrams.add(datagrams);
        shared.metrics.add(metrics);
        self.drops_due = true;
    }

    fn wait(&self) {
        let mut wanted =
            [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.shared.wake, PollFlags::IN)];
        // With nothing new there is nothing to look at: an idle box is not woken.
        let limit = if self.drops_due { DROPS_EVERY } else { Duration::from_secs(3_600) };
        self.wait_for(&mut wanted, limit);
    }

    fn wait_for(&self, wanted: &mut [PollFd<'_>], limit: Duration) {
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: 0 };
        // An interrupted wait is a short one.
        let _ = rustix::event::poll(wanted, Some(&limit));
    }

    fn look_at_drops(&mut self) {
        if !self.drops_due || self.drops_read.elapsed() < DROPS_EVERY {
            return;
        }
        self.drops_read = Instant::now();
        self.drops_due = false;
        let before = self.shared.lost.get();
        let lost = self.drops.read().unwrap_or(before);
        if lost > before {
            self.shared.lost.set(lost);
            tracing::warn!(
                lost = lost - before,
                "StatsD: the kernel dropped datagrams because the receive buffer was full; \
                 `sysctl net.core.rmem_max` bounds that buffer"
            );
        }
    }
}

/// What these took of the receive buffer, at least. A train of datagrams that the kernel had joined counts as one.
fn cost(metas: &[RecvMeta]) -> usize {
    metas.iter().map(|meta| meta.len.max(DATAGRAM_COST_MIN)).sum()
}

/// Asks for a large buffer, by privilege if there is one; what the kernel gave.
fn enlarge_buffer(socket: &UdpSocket) -> io::Result<usize> {
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER_BYTES).is_err() {
        // Cut to net.core.rmem_max by the kernel; status shows what came of it.
        rustix::net::sockopt::set_socket_recv_buffer_size(socket, RECEIVE_BUFFER_BYTES)?;
    }
    Ok(rustix::net::sockopt::socket_recv_buffer_size(socket)?)
}

#[cfg(test)]
#[path = "statsd/tests.rs"]
mod tests;
