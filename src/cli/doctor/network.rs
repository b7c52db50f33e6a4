//! Names, ports and the connections to the members.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use serde_json::Value;

use super::super::status::of;
use super::{Line, Subject, look, ok, wrong};

/// How long a name may take.
const NAME_TIME: Duration = Duration::from_secs(5);
/// The least that QUIC needs of a path, bytes.
const MTU_LEAST: u64 = 1200;

pub(super) async fn check(subject: &Subject) -> Vec<Line> {
    let mut lines = ports(subject);
    lines.extend(names(subject).await);
    lines.extend(members(subject));
    lines
}

/// Whether the ports are free for a daemon that does not run.
fn ports(subject: &Subject) -> Vec<Line> {
    if subject.runs() {
        // Whoever answers could bind what it needs.
        return Vec::new();
    }
    let config = &subject.found.config;
    let mut wanted = vec![("api.listen", "TCP", config.api.listen)];
    if subject.identity.as_ref().is_none_or(|identity| !identity.me().address.is_empty()) {
        wanted.push(("cluster.listen", "UDP", config.cluster.listen));
    }
    let statsd = &config.ingest.statsd.listen;
    wanted.extend(statsd.addresses.iter().map(|address| ("ingest.statsd.listen", "UDP", *address)));
    let taken: Vec<Line> = wanted
        .iter()
        .filter_map(|(key, protocol, address)| port(key, protocol, *address))
        .filter(|line| !(statsd.is_default && line.what.contains("[::1]")))
        .collect();
    if !taken.is_empty() {
        return taken;
    }
    let all: Vec<String> =
        wanted.iter().map(|(_, protocol, address)| format!("{protocol} {address}")).collect();
    vec![ok("ports", format!("free: {}", all.join(", ")))]
}

fn port(key: &str, protocol: &str, address: SocketAddr) -> Option<Line> {
    let bind = |address: SocketAddr| match protocol {
        "TCP" => TcpListener::bind(address).map(drop),
        _ => UdpSocket::bind(address).map(drop),
    };
    let error = match bind(address) {
        // The daemon takes IPv4 alone, too, where the system has no other.
        Err(_) if address.ip() == IpAddr::from(std::net::Ipv6Addr::UNSPECIFIED) => {
            bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()))).err()?
        }
        result => result.err()?,
    };
    let advice = match (error.kind(), protocol) {
        (ErrorKind::AddrInUse, "TCP") => {
            "`ss -tlpn` shows which program has it; stop that, or set another port".to_owned()
        }
        (ErrorKind::AddrInUse, _) => {
            "`ss -ulpn` shows which program has it; stop that, or set another port".to_owned()
        }
        (ErrorKind::AddrNotAvailable, _) => format!("set {key} to an address of this machine"),
        _ => format!("set {key} to another address"),
    };
    Some(wrong("ports", format!("{key} = {address} ({protocol}): {error}"), advice))
}

/// The names that the daemon has to resolve.
async fn names(subject: &Subject) -> Vec<Line> {
    // The status shows the addresses of connections; what is dialled is in the identity.
    let members = subject.identity.iter().flat_map(|identity| &identity.members);
    let mut wanted: Vec<String> = members.map(|member| member.address.clone()).collect();
    wanted.extend(subject.found.config.upstream.url.iter().map(|url| format!("{}:{}", url.host, url.port)));
    wanted.retain(|name| !name.is_empty() && name.parse::<SocketAddr>().is_err());
    wanted.sort();
    wanted.dedup();
    let mut lines = Vec::new();
    for name in wanted {
        let advice = "check /etc/resolv.conf and the name server, or write addresses instead of names";
        lines.push(match tokio::time::timeout(NAME_TIME, crate::resolve::addresses(&name)).await {
            Ok(Ok(found)) => {
                let found: Vec<String> = found.iter().map(|address| address.ip().to_string()).collect();
                ok("names", format!("{name} is {}", found.join(", ")))
            }
            Ok(Err(why)) => wrong("names", format!("{name}: {why}"), advice),
            Err(_) => wrong("names", format!("{name}: no answer within {} s", NAME_TIME.as_secs()), advice),
        });
    }
    lines
}

/// The connections to the other members, as the daemon has them.
fn members(subject: &Subject) -> Vec<Line> {
    let me = &subject.status["node_id"];
    let members = subject.status["members"].as_array().into_iter().flatten();
    members.filter(|member| member["id"] != *me).map(member).collect()
}

fn member(member: &Value) -> Line {
    let (name, address) = (of(member, "name"), of(member, "address"));
    if let Some(why) = member["refused_because"].as_str() {
        let what = format!("{name} at {address}: the connection is refused ({})", of(member, "refused"));
        return wrong("member", what, why);
    }
    if member["connected"] != true {
        return wrong(
            "member",
            format!("{name} at {address}: nothing was heard of it lately"),
            "is it on, and tallyd running there? Else let UDP through in both directions between the two",
        );
    }
    let rtt =
        member["rtt_us"].as_f64().map_or(String::new(), |us| format!(", round trip {:.2} ms", us / 1e3));
    let mtu = member["mtu"].as_u64();
    let path = mtu.map_or(String::new(), |mtu| format!(", packets of up to {mtu} bytes"));
    let what = format!("{name} at {address}: connected both ways{rtt}{path}");
    match mtu {
        Some(mtu) if mtu < MTU_LEAST => {
            look("member", what, "let packets of 1280 bytes through between the two (VPN, tunnel)")
        }
        _ => ok("member", what),
    }
}
