//! StatsD over UDP: a thread of its own reads datagrams in batches, from one address or several, and counts into the
//! accumulator under one lock a batch, so that the order within a datagram counts.
//!
//! Exact from the moment a datagram was read. What the kernel dropped before that is read from the
//! socket's own counter and shown; what does not parse is counted by reason, with an example each.

mod config;
mod drops;
mod name;
pub mod number;
pub mod parse;
mod receiver;
pub mod series_cache;

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::event::EventfdFlags;
use rustix::io::Errno;
use serde::Serialize;

pub use self::config::{StatsdListen, StatsdSection};
use self::parse::Reason;
use self::receiver::Receiver;
use super::{Destination, Ingest};
use crate::accumulator::Accumulator;
use crate::environment::Says;
use crate::figures::{Counter, Family};

/// What is asked of the kernel to hold while the thread does not run.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// The longest example of a refused line, in bytes as sent.
const EXAMPLE_BYTES_MAX: usize = 120;

/// A running StatsD listener; stops when dropped.
#[derive(Debug)]
pub struct Statsd {
    addresses: Vec<SocketAddr>,
    shared: Arc<StatsdShared>,
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
    #[error("cannot start the StatsD listener: {0}")]
    Start(#[source] io::Error),
}

/// What came in so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StatsdStatus {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Datagrams read.
    pub received_datagrams: u64,
    /// Values counted: increments, gauges, samples.
    pub metrics: u64,
    /// Lines and values that were refused, by reason.
    pub refused: Vec<Refused>,
    /// How many that were, by reason in short, those that never came too: for the metrics.
    pub refused_by: std::collections::BTreeMap<&'static str, u64>,
    /// Datagrams that the kernel dropped because the buffer was full (a train of datagrams that it
    /// had joined counts as one), at most a second old.
    pub lost: u64,
    /// The size that the kernel gave the buffer of each address, in bytes.
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

impl Ingest for Statsd {
    type Section = StatsdSection;
    type Status = StatsdStatus;
    type Error = StatsdError;

    const KEYS: &'static [(&'static str, Says)] = &[("ingest.statsd.listen", Says::Texts)];

    fn check(_: &StatsdSection) -> Result<(), String> {
        Ok(())
    }

    fn changed(running: &StatsdSection, new: &StatsdSection) -> Vec<&'static str> {
        let StatsdSection { listen } = running;
        if *listen == new.listen { Vec::new() } else { vec!["ingest.statsd.listen"] }
    }

    fn start(section: &StatsdSection, to: &Destination<'_>) -> Result<Option<Statsd>, StatsdError> {
        let StatsdListen { addresses, is_default } = &section.listen;
        let listens = !addresses.is_empty();
        listens.then(|| Statsd::listen(addresses, *is_default, Arc::clone(to.accumulator))).transpose()
    }

    fn status(&self) -> StatsdStatus {
        let shared = &self.shared;
        let refused = shared.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let refused_by =
            Reason::ALL.iter().zip(&*refused).map(|(reason, (count, _))| (reason.label(), *count)).collect();
        let refused = Reason::ALL.iter().zip(&*refused).filter(|(_, (count, _))| *count > 0);
        StatsdStatus {
            refused_by,
            listen: self.addresses.clone(),
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

    fn figures(&self) -> Vec<Family> {
        let StatsdStatus { received_datagrams, metrics, refused_by, lost, .. } = self.status();
        let refused = Family::new(
            "tallyd_statsd_refused_total",
            "counter",
            "StatsD lines and values refused, by reason.",
        );
        vec![
            Family::counter("tallyd_statsd_datagrams_total", "StatsD datagrams read.", received_datagrams),
            Family::counter(
                "tallyd_statsd_lost_datagrams_total",
                "StatsD datagrams that the kernel dropped because the receive buffer was full.",
                lost,
            ),
            Family::counter("tallyd_statsd_values_total", "StatsD values counted.", metrics),
            refused_by
                .iter()
                .fold(refused, |family, (reason, count)| family.with([("reason", reason)], count)),
        ]
    }

    /// Counts what has arrived and ends the thread, also while more comes: it reads no more than the receive buffer
    /// holds.
    async fn stop(self) {
        // It joins a thread, which the runtime must not wait for. A panic in there is in the log already.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

impl Statsd {
    /// Listens on these addresses (port 0: any free one) and counts into `accumulator`. `lenient`: one of a family that
    /// this system does not have is left out, if there is another.
    ///
    /// # Errors
    /// An address cannot be had, or the system gave no thread.
    pub fn listen(
        addresses: &[SocketAddr],
        lenient: bool,
        accumulator: Arc<Accumulator>,
    ) -> Result<Statsd, StatsdError> {
        let mut sockets = Vec::new();
        for (place, address) in addresses.iter().copied().enumerate() {
            let others = sockets.len() + addresses.len() - place - 1;
            match UdpSocket::bind(address) {
                Ok(socket) => sockets.push(socket),
                Err(error) if lenient && others > 0 && lacks_family(&error) => {
                    let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
                    tracing::info!("StatsD: this system has no {family}; not listening on {address}");
                }
                Err(source) if source.kind() == ErrorKind::AddrInUse => {
                    return Err(StatsdError::InUse { address });
                }
                Err(source) => return Err(StatsdError::Listen { address, source }),
            }
        }
        Statsd::on_sockets(sockets, accumulator).map_err(StatsdError::Start)
    }

    fn on_sockets(sockets: Vec<UdpSocket>, accumulator: Arc<Accumulator>) -> io::Result<Statsd> {
        let addresses = sockets.iter().map(UdpSocket::local_addr).collect::<io::Result<_>>()?;
        let mut receive_buffer_bytes = usize::MAX;
        for socket in &sockets {
            receive_buffer_bytes = receive_buffer_bytes.min(enlarge_buffer(socket)?);
        }
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(StatsdShared {
            wake,
            stop: AtomicBool::new(false),
            receive_buffer_bytes,
            datagrams: Counter::default(),
            metrics: Counter::default(),
            lost: Counter::default(),
            refused: Mutex::new(Reason::ALL.iter().map(|_| (0, String::new())).collect()),
        });
        let receiver = Receiver::new(sockets, Arc::clone(&shared), accumulator)?;
        let thread = std::thread::Builder::new()
            .name("statsd".to_owned())
            .stack_size(256 << 10)
            .spawn(move || receiver.run())?;
        Ok(Statsd { addresses, shared, thread: Some(thread) })
    }

    /// Where it listens.
    #[cfg(test)]
    fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// Counts what has arrived, too.
impl Drop for Statsd {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // A full event counter wakes just as well.
        let _ = rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the StatsD thread panicked");
        }
    }
}

/// What the StatsD thread and its owner share.
#[derive(Debug)]
struct StatsdShared {
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

impl StatsdShared {
    fn refuse(&self, reason: Reason, line: &[u8]) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, example) = &mut refused[reason as usize];
        *count += 1;
        if *count == 1 {
            let shown = &line[..line.len().min(EXAMPLE_BYTES_MAX)];
            *example = String::from_utf8_lossy(shown).escape_debug().to_string();
            tracing::warn!(reason = reason.as_str(), line = %example, "StatsD: refused a line (the first with this reason)");
        }
    }
}

/// Whether the system has no such family of addresses at all, or not even its loopback.
fn lacks_family(error: &io::Error) -> bool {
    let lacks = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| lacks.contains(&code))
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
