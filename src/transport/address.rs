//! The IP versions of this box's socket, and the addresses of a peer that it can dial.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::Refusal;

/// The IP versions of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Versions {
    v4: bool,
    v6: bool,
}

impl Versions {
    /// The versions of a socket that is bound to this address.
    fn of(listen: SocketAddr, only_v6: bool) -> Versions {
        match listen {
            SocketAddr::V4(_) => Versions { v4: true, v6: false },
            // One that is bound to an IPv6 address of this machine sends from there.
            SocketAddr::V6(listen) => Versions { v4: listen.ip().is_unspecified() && !only_v6, v6: true },
        }
    }

    fn has(self, address: SocketAddr) -> bool {
        if address.is_ipv4() { self.v4 } else { self.v6 }
    }

    /// Returns the addresses of a peer that can be dialled, or why none can.
    pub(super) fn reachable(
        self,
        found: Vec<SocketAddr>,
        has_route: impl Fn(SocketAddr) -> bool,
    ) -> Result<Vec<SocketAddr>, Refusal> {
        let (of_these, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|address| self.has(*address));
        if of_these.is_empty() && others.first().is_some_and(SocketAddr::is_ipv6) {
            return Err(Refusal::PeerIpv6Only);
        }
        if of_these.is_empty() && !others.is_empty() {
            return Err(Refusal::PeerIpv4Only);
        }
        let routed: Vec<SocketAddr> = of_these.into_iter().filter(|address| has_route(*address)).collect();
        if routed.is_empty() { Err(Refusal::NoRoute) } else { Ok(routed) }
    }
}

/// Whether this machine has a route to an address. Asks the system and sends nothing.
pub(super) fn has_route(address: SocketAddr) -> bool {
    let from = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let asked = UdpSocket::bind(from).and_then(|socket| socket.connect(address));
    !asked.is_err_and(|error| {
        let kinds = [
            io::ErrorKind::NetworkUnreachable,
            io::ErrorKind::HostUnreachable,
            io::ErrorKind::AddrNotAvailable,
        ];
        kinds.contains(&error.kind()) || is_without_ipv6(&error)
    })
}

/// Returns the address in its usual form: an IPv4 address from a socket of both versions becomes a plain IPv4 address.
pub(super) fn display_form(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Binds a UDP socket: both IP versions where all addresses of this machine are meant, IPv4 alone where the system has
/// no IPv6.
pub(super) fn bind(listen: SocketAddr) -> io::Result<(UdpSocket, Versions)> {
    bind_by(listen, bind_one)
}

fn bind_by<T>(
    listen: SocketAddr,
    bind: impl Fn(SocketAddr) -> io::Result<(T, Versions)>,
) -> io::Result<(T, Versions)> {
    match bind(listen) {
        Err(error) if listen.ip() == Ipv6Addr::UNSPECIFIED && is_without_ipv6(&error) => {
            let instead = SocketAddr::from((Ipv4Addr::UNSPECIFIED, listen.port()));
            tracing::info!("this system has no IPv6 ({error}): listening on {instead} instead of {listen}");
            bind(instead)
        }
        bound => bound,
    }
}

fn bind_one(listen: SocketAddr) -> io::Result<(UdpSocket, Versions)> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    let only_v6 = listen.is_ipv6()
        && match socket.set_only_v6(false) {
            Ok(()) => false,
            Err(error) => {
                tracing::info!(
                    "this system limits {listen} to IPv6 ({error}): only peers with IPv6 can connect"
                );
                true
            }
        };
    // As much as the system gives: a burst that comes while the one thread is busy should not be lost.
    let _ = socket.set_recv_buffer_size(2 << 20);
    let _ = socket.set_send_buffer_size(2 << 20);
    socket.bind(&listen.into())?;
    Ok((socket.into(), Versions::of(listen, only_v6)))
}

/// Whether an error says that the system has no IPv6 at all.
fn is_without_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
        || error.kind() == io::ErrorKind::AddrNotAvailable
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Versions = Versions { v4: true, v6: true };
    const V4: Versions = Versions { v4: true, v6: false };
    const V6: Versions = Versions { v4: false, v6: true };

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn of_a_name_with_several_addresses_those_are_dialled_that_the_socket_and_the_machine_can_reach() {
        let (v4, v6) = ("10.0.0.1:7400", "[fd00::1]:7400");
        let both = || addresses(&[v6, v4]);
        let any = |_| true;
        assert_eq!(BOTH.reachable(both(), any), Ok(both()));
        assert_eq!(V4.reachable(both(), any), Ok(addresses(&[v4])));
        assert_eq!(V6.reachable(both(), any), Ok(addresses(&[v6])));
        assert_eq!(BOTH.reachable(both(), |address| address.is_ipv6()), Ok(addresses(&[v6])));
        assert_eq!(V4.reachable(addresses(&[v6]), any), Err(Refusal::PeerIpv6Only));
        assert_eq!(V6.reachable(addresses(&[v4]), any), Err(Refusal::PeerIpv4Only));
        assert_eq!(BOTH.reachable(both(), |_| false), Err(Refusal::NoRoute));
        assert_eq!(BOTH.reachable(vec![], any), Err(Refusal::NoRoute));
    }

    #[test]
    fn a_socket_on_all_addresses_has_both_versions_and_falls_back_to_ipv4_where_there_is_no_ipv6() {
        let all: SocketAddr = "[::]:7400".parse().unwrap();
        let without = |listen: SocketAddr| match listen {
            SocketAddr::V4(_) => Ok((listen, Versions::of(listen, false))),
            SocketAddr::V6(_) => Err(io::Error::from_raw_os_error(Errno::AFNOSUPPORT.raw_os_error())),
        };
        assert_eq!(bind_by(all, without).unwrap(), ("0.0.0.0:7400".parse().unwrap(), V4));
        let one: SocketAddr = "[fd00::1]:7400".parse().unwrap();
        bind_by(one, without).expect_err("this very address was asked for");
        let taken = |_| Err::<(SocketAddr, Versions), _>(io::Error::from(io::ErrorKind::AddrInUse));
        assert_eq!(bind_by(all, taken).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(Versions::of(all, false), BOTH);
        assert_eq!(Versions::of(all, true), V6);
        assert_eq!(Versions::of(one, false), V6);
        let (socket, versions) = bind("[::]:0".parse().unwrap()).unwrap();
        if versions == BOTH {
            let port = socket.local_addr().unwrap().port();
            let from = UdpSocket::bind("127.0.0.1:0").unwrap();
            from.send_to(b"x", ("127.0.0.1", port)).unwrap();
            let (_, by) = socket.recv_from(&mut [0; 8]).unwrap();
            assert_eq!(display_form(by), from.local_addr().unwrap());
        }
    }
}
