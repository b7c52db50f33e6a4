//! The kernel's own count of the datagrams that a socket lost because its buffer was full.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};

/// Finds one socket's line in the kernel's table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drops {
    table: &'static str,
    inode: u64,
}

impl Drops {
    pub(super) fn of(socket: &UdpSocket) -> io::Result<Drops> {
        let table = match socket.local_addr()? {
            SocketAddr::V4(_) => "/proc/self/net/udp",
            SocketAddr::V6(_) => "/proc/self/net/udp6",
        };
        Ok(Drops { table, inode: rustix::fs::fstat(socket)?.st_ino })
    }

    /// How many so far; a train of datagrams that the kernel had joined counts as one. `None` where
    /// the kernel does not say.
    pub(super) fn read(&self) -> Option<u64> {
        let table = BufReader::new(File::open(self.table).ok()?);
        table.lines().map_while(Result::ok).find_map(|line| drops_in(&line, self.inode))
    }
}

/// `sl local remote st queues timer retrnsmt uid timeout inode ref pointer drops`
fn drops_in(line: &str, inode: u64) -> Option<u64> {
    let mut columns = line.split_ascii_whitespace();
    let found: u64 = columns.nth(9)?.parse().ok()?;
    if found != inode {
        return None;
    }
    columns.last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drops_stand_in_the_last_column_of_the_sockets_own_line() {
        let line = " 1234: 0100007F:1FBD 00000000:0000 07 00000000:00000000 00:00000000 00000000   \
                    103        0 18512 2 0000000000000000 77";
        assert_eq!(drops_in(line, 18_512), Some(77));
        assert_eq!(drops_in(line, 18_513), None);
        assert_eq!(drops_in("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when", 1), None);
    }

    #[test]
    fn a_new_socket_has_lost_nothing() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(Drops::of(&socket).unwrap().read(), Some(0));
    }

    #[test]
    fn a_full_buffer_shows() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&socket).set_recv_buffer_size(4_096).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..1_000 {
            sender.send_to(&[0; 1_000], socket.local_addr().unwrap()).unwrap();
        }
        socket.set_nonblocking(true).unwrap();
        let mut received = 0;
        while socket.recv(&mut [0; 2_000]).is_ok() {
            received += 1;
        }
        assert_eq!(Drops::of(&socket).unwrap().read(), Some(1_000 - received));
    }
}
