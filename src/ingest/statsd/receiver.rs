//! The thread that reads datagrams.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::StatsdShared;
use super::drops::Drops;
use super::series_cache::SeriesCache;
use crate::accumulator::Accumulator;
use crate::dropped::BoundedLog;

/// The largest datagram, and the longest train of them that the kernel joins.
const DATAGRAM_BYTES_MAX: usize = 65_536;
/// How often the kernel's drops are looked at while datagrams come.
const DROPS_EVERY: Duration = Duration::from_secs(1);
/// Less than the kernel takes off the receive buffer for a datagram, however short it is.
pub(super) const DATAGRAM_COST_MIN: usize = 256;

/// What the thread has.
pub(super) struct Receiver {
    listeners: Vec<Listener>,
    drops_read: Instant,
    /// Something came since the drops were read.
    drops_due: bool,
    shared: Arc<StatsdShared>,
    accumulator: Arc<Accumulator>,
    cache: SeriesCache,
    log: BoundedLog<2>,
    /// Datagrams that the kernel dropped and no line has told of yet.
    lost_untold: u64,
}

/// What there are lines about.
const UNREADABLE: usize = 0;
const DROPPED: usize = 1;

/// One address that is listened on.
struct Listener {
    socket: UdpSocket,
    state: UdpSocketState,
    drops: Drops,
    /// As last read.
    lost: u64,
    /// When it stops: how much of the receive buffer may still hold what had arrived before.
    left: Option<usize>,
}

/// What there was at an address.
enum Received {
    Datagrams(usize),
    Nothing,
    Failed,
}

impl Listener {
    fn new(socket: UdpSocket) -> io::Result<Listener> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let drops = Drops::of(&socket)?;
        Ok(Listener { socket, state, drops, lost: 0, left: None })
    }

    fn receive(
        &self,
        buffer: &mut [u8],
        metas: &mut [RecvMeta; BATCH_SIZE],
        log: &BoundedLog<2>,
    ) -> Received {
        let mut parts = buffer.chunks_exact_mut(DATAGRAM_BYTES_MAX);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(parts.next().unwrap_or_default()));
        loop {
            match self.state.recv(UdpSockRef::from(&self.socket), &mut slices, metas) {
                Ok(count) => return Received::Datagrams(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Received::Nothing,
                Err(error) => {
                    if log.due(UNREADABLE, Instant::now()).is_some() {
                        tracing::error!(%error, "StatsD: cannot read the socket; retrying");
                    }
                    return Received::Failed;
                }
            }
        }
    }
}

impl Receiver {
    pub(super) fn new(
        sockets: Vec<UdpSocket>,
        shared: Arc<StatsdShared>,
        accumulator: Arc<Accumulator>,
    ) -> io::Result<Receiver> {
        let listeners = sockets.into_iter().map(Listener::new).collect::<io::Result<_>>()?;
        Ok(Receiver {
            listeners,
            drops_read: Instant::now(),
            drops_due: false,
            shared,
            accumulator,
            cache: SeriesCache::default(),
            log: BoundedLog::default(),
            lost_untold: 0,
        })
    }

    pub(super) fn run(mut self) {
        let mut buffer = vec![0; BATCH_SIZE * DATAGRAM_BYTES_MAX];
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut stopping = false;
        loop {
            if !stopping && self.shared.stop.load(Ordering::Acquire) {
                stopping = true;
                for listener in &mut self.listeners {
                    listener.left = Some(self.shared.receive_buffer_bytes);
                }
            }
            let (mut some, mut failed) = (false, false);
            for place in 0..self.listeners.len() {
                let listener = &mut self.listeners[place];
                if listener.left == Some(0) {
                    continue;
                }
                match listener.receive(&mut buffer, &mut metas, &self.log) {
                    Received::Datagrams(count) => {
                        let cost = cost(&metas[..count]);
                        listener.left = listener.left.map(|left| left.saturating_sub(cost));
                        some = true;
                        self.take(&buffer, &metas[..count]);
                    }
                    Received::Nothing => {}
                    Received::Failed => failed = true,
                }
            }
            if stopping && !some {
                return;
            }
            if failed {
                wait_for(&mut [PollFd::new(&self.shared.wake, PollFlags::IN)], DROPS_EVERY);
            } else if !some {
                self.wait();
            }
            self.look_at_drops();
        }
    }

    /// Counts a batch of datagrams under one lock.
    fn take(&mut self, buffer: &[u8], metas: &[RecvMeta]) {
        let Receiver { cache, shared, .. } = self;
        let (mut datagrams, mut metrics) = (0, 0);
        let mut bulk = self.accumulator.lock();
        for (meta, part) in metas.iter().zip(buffer.chunks_exact(DATAGRAM_BYTES_MAX)) {
            // An empty datagram says nothing.
            for datagram in part[..meta.len].chunks(meta.stride.max(1)) {
                datagrams += 1;
                for line in datagram.split(|&byte| byte == b'\n') {
                    let line = line.strip_suffix(b"\r").unwrap_or(line);
                    if !line.is_empty() {
                        metrics += cache.take(&mut bulk, line, |reason| shared.refuse(reason, line));
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
        let sockets = self.listeners.iter().map(|listener| PollFd::new(&listener.socket, PollFlags::IN));
        let mut wanted: Vec<_> = sockets.chain([PollFd::new(&self.shared.wake, PollFlags::IN)]).collect();
        // With nothing new there is nothing to look at: an idle box is not woken.
        let limit = if self.drops_due { DROPS_EVERY } else { Duration::from_secs(3_600) };
        wait_for(&mut wanted, limit);
    }

    fn look_at_drops(&mut self) {
        if !self.drops_due || self.drops_read.elapsed() < DROPS_EVERY {
            return;
        }
        self.drops_read = Instant::now();
        self.drops_due = false;
        let mut lost = 0;
        for listener in &mut self.listeners {
            let now = listener.drops.read().unwrap_or(listener.lost).max(listener.lost);
            lost += now - listener.lost;
            listener.lost = now;
        }
        if lost > 0 {
            self.shared.lost.add(lost);
            self.lost_untold += lost;
        }
        if self.lost_untold > 0 && self.log.due(DROPPED, self.drops_read).is_some() {
            let lost = std::mem::take(&mut self.lost_untold);
            tracing::warn!(
                lost,
                "StatsD: the kernel dropped datagrams because the receive buffer was full; `sysctl \
                 net.core.rmem_max` limits that buffer"
            );
        }
    }
}

fn wait_for(wanted: &mut [PollFd<'_>], limit: Duration) {
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: 0 };
    // An interrupted wait is a short one.
    let _ = rustix::event::poll(wanted, Some(&limit));
}

/// What these took of the receive buffer, at least. A train of datagrams that the kernel had joined counts as one.
pub(super) fn cost(metas: &[RecvMeta]) -> usize {
    metas.iter().map(|meta| meta.len.max(DATAGRAM_COST_MIN)).sum()
}
