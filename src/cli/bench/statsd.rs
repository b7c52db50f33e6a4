//! StatsD load: datagrams full of `NAME:1|c`, sent at a steady rate in trains.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec};

/// The payload of a datagram on an ordinary Ethernet, less what tunnels take.
pub const DATAGRAM_BYTES_MAX: usize = 1_432;
/// The longest train that the kernel takes, in bytes and in datagrams.
const TRAIN_BYTES_MAX: usize = 65_000;
const TRAIN_DATAGRAMS_MAX: usize = 64;
/// How far behind its rate the sender may be before it sends again.
const SLICE: Duration = Duration::from_millis(1);

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sent {
    /// Increments.
    pub increments: u64,
    /// Datagrams.
    pub datagrams: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// Datagrams of equal length, one after the other.
#[derive(Debug)]
struct Datagrams {
    bytes: Vec<u8>,
    datagram_bytes: usize,
    lines: u64,
}

impl Datagrams {
    /// Lines for all names in turn (which are of equal length), until the names come round with the datagrams.
    fn new(names: &[String]) -> Datagrams {
        let line_bytes = names.first().map_or(1, |name| name.len() + ":1|c\n".len());
        let lines = (DATAGRAM_BYTES_MAX / line_bytes).max(1);
        let wanted = (names.len().div_ceil(lines)).max(1) * lines;
        let mut bytes = Vec::with_capacity(wanted * line_bytes);
        for name in names.iter().cycle().take(wanted) {
            bytes.extend_from_slice(format!("{name}:1|c\n").as_bytes());
        }
        Datagrams { bytes, datagram_bytes: lines * line_bytes, lines: lines as u64 }
    }
}

/// Sends increments of 1 to all series in turn, `rate` a second (0: as fast as the socket takes them),
/// for so long. `trains`: several datagrams in one system call.
///
/// # Errors
/// The socket cannot be made or connected.
pub fn send(
    to: SocketAddr,
    names: &[String],
    rate: u64,
    span: Duration,
    trains: bool,
) -> std::io::Result<Sent> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
    let datagrams = Datagrams::new(names);
    let longest = if trains { state.max_gso_segments().min(TRAIN_DATAGRAMS_MAX) } else { 1 };
    let train_bytes_max =
        datagrams.datagram_bytes * longest.min(TRAIN_BYTES_MAX / datagrams.datagram_bytes).max(1);
    let begun = Instant::now();
    let mut sent = Sent::default();
    let mut at = 0;
    loop {
        let elapsed = begun.elapsed();
        if elapsed >= span {
            break;
        }
        let due = if rate == 0 { u64::MAX } else { (rate as f64 * elapsed.as_secs_f64()) as u64 };
        let behind = due.saturating_sub(sent.increments) / datagrams.lines;
        if behind == 0 {
            std::thread::sleep(SLICE);
            continue;
        }
        let wanted = usize::try_from(behind).unwrap_or(usize::MAX).saturating_mul(datagrams.datagram_bytes);
        let end = datagrams.bytes.len().min(at + wanted.min(train_bytes_max));
        let contents = &datagrams.bytes[at..end];
        let segment_size = (contents.len() > datagrams.datagram_bytes).then_some(datagrams.datagram_bytes);
        let transmit = Transmit { destination: to, ecn: None, contents, segment_size, src_ip: None };
        match state.try_send(UdpSockRef::from(&socket), &transmit) {
            Ok(()) => {
                let count = (contents.len() / datagrams.datagram_bytes) as u64;
                sent.datagrams += count;
                sent.increments += count * datagrams.lines;
                at = if end == datagrams.bytes.len() { 0 } else { end };
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => wait_for_room(&socket),
            Err(error) => return Err(error),
        }
    }
    sent.seconds = begun.elapsed().as_secs_f64();
    Ok(sent)
}

fn wait_for_room(socket: &UdpSocket) {
    let limit = Timespec { tv_sec: 1, tv_nsec: 0 };
    // An interrupted wait is a short one.
    let _ = rustix::event::poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&limit));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_full_of_whole_lines() {
        let names: Vec<String> = (0..1_000).map(|number| format!("bench/{number:04}")).collect();
        let datagrams = Datagrams::new(&names);
        assert!(datagrams.datagram_bytes <= DATAGRAM_BYTES_MAX);
        assert!(datagrams.datagram_bytes + 15 > DATAGRAM_BYTES_MAX);
        for datagram in datagrams.bytes.chunks(datagrams.datagram_bytes) {
            assert_eq!(datagram.len(), datagrams.datagram_bytes);
            assert!(datagram.ends_with(b":1|c\n") && datagram.starts_with(b"bench/"));
            assert_eq!(datagram.split(|&byte| byte == b'\n').count() as u64, datagrams.lines + 1);
        }
    }

    #[test]
    fn what_is_said_to_be_sent_arrives() {
        for trains in [true, false] {
            let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
            receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let to = receiver.local_addr().unwrap();
            let names = ["a/0".to_owned(), "a/1".to_owned()];
            let sender =
                std::thread::spawn(move || send(to, &names, 30_000, Duration::from_millis(100), trains));
            let sent = sender.join().unwrap().unwrap();
            assert!(sent.datagrams > 0);
            let mut increments = 0;
            let mut buffer = [0; 2_000];
            for _ in 0..sent.datagrams {
                let bytes = receiver.recv(&mut buffer).unwrap();
                increments += buffer[..bytes].iter().filter(|&&byte| byte == b'\n').count() as u64;
            }
            assert_eq!(increments, sent.increments, "trains: {trains}");
        }
    }
}
