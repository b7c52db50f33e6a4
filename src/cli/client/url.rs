//! Addresses of boxes as `--url` names them.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// The port of the API where an address names none.
const PORT: u16 = 7480;

/// What stands before a fingerprint.
const PIN: &str = "sha256=";

/// One box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerUrl {
    pub(super) way: Way,
    /// `HOST:PORT`.
    pub(super) authority: String,
    /// What stands before each path; empty, or without a slash at its end.
    pub(super) base: String,
}

/// How it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Over TCP.
    Plain,
    /// Over TLS; with the SHA-256 that its certificate must have, or by the system's authorities.
    Tls(Option<[u8; 32]>),
    /// By its admin socket.
    Socket(PathBuf),
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.way {
            Way::Plain => write!(f, "http://{}{}", self.authority, self.base),
            Way::Tls(_) => write!(f, "https://{}{}", self.authority, self.base),
            Way::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl ServerUrl {
    /// The box of this admin socket.
    pub(super) fn socket(path: PathBuf) -> ServerUrl {
        ServerUrl { way: Way::Socket(path), authority: "localhost".to_owned(), base: String::new() }
    }

    /// Whether what is sent there can be read on its way.
    pub(super) fn is_readable_by_others(&self) -> bool {
        let (host, _) = self.authority.rsplit_once(':').unwrap_or((&self.authority, ""));
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let is_here = address.map_or(host == "localhost", |address| address.to_canonical().is_loopback());
        self.way == Way::Plain && !is_here
    }

    /// The host alone.
    pub(super) fn host(&self) -> &str {
        let (host, _) = self.authority.rsplit_once(':').unwrap_or((&self.authority, ""));
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// The boxes of a comma-separated list, at least one.
pub(super) fn targets(list: &str) -> Result<Vec<ServerUrl>, String> {
    let targets: Vec<ServerUrl> =
        list.split(',').map(str::trim).filter(|url| !url.is_empty()).map(target).collect::<Result<_, _>>()?;
    if targets.is_empty() {
        return Err("--url: no address given; use one such as http://127.0.0.1:7480".to_owned());
    }
    Ok(targets)
}

fn target(url: &str) -> Result<ServerUrl, String> {
    if let Some(path) = url.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() {
            return Err(format!("--url {url}: no path; use one such as unix:/run/tallyd/tallyd.sock"));
        }
        return Ok(ServerUrl::socket(PathBuf::from(path)));
    }
    let (url_only, fragment) = url.split_once('#').map_or((url, None), |(url, rest)| (url, Some(rest)));
    let (is_tls, rest) = match url_only.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        Some((scheme, _)) => {
            return Err(format!(
                "--url {url}: the scheme {scheme} is not supported; use http, https or unix"
            ));
        }
        None => (false, url_only),
    };
    let way = match (is_tls, fragment) {
        (false, None) => Way::Plain,
        (true, pin) => Way::Tls(pin.map(|pin| fingerprint(url, pin)).transpose()?),
        (false, Some(_)) => return Err(format!("--url {url}: only https:// has a fingerprint behind #")),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let uri: hyper::http::uri::Authority =
        authority.parse().map_err(|_| format!("--url {url}: {authority:?} is not HOST:PORT"))?;
    if uri.host().is_empty() || authority.contains('@') {
        return Err(format!("--url {url}: {authority:?} is not HOST:PORT"));
    }
    let has_port = authority.rsplit(']').next().is_some_and(|tail| tail.contains(':'));
    if has_port && uri.port_u16().is_none() {
        return Err(format!("--url {url}: the port must be from 1 to 65535"));
    }
    let port = uri.port_u16().unwrap_or(PORT);
    let base = path.trim_end_matches('/');
    let base = if base.is_empty() { String::new() } else { format!("/{base}") };
    Ok(ServerUrl { way, authority: format!("{}:{port}", uri.host()), base })
}

/// Reads `sha256=` and 64 hexadecimal digits, with colons between them or none, as other tools print it.
fn fingerprint(url: &str, text: &str) -> Result<[u8; 32], String> {
    let wrong = || {
        format!(
            "--url {url}: behind # stands {PIN} and 64 hexadecimal digits, as `tallyd status` shows them there"
        )
    };
    let digits: String = text.strip_prefix(PIN).ok_or_else(wrong)?.chars().filter(|c| *c != ':').collect();
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let mut pin = [0; 32];
    for (byte, at) in pin.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| wrong())?;
    }
    Ok(pin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_leave_out_what_is_usual() {
        for (url, shown) in [
            ("http://127.0.0.1:7480", "http://127.0.0.1:7480"),
            ("http://127.0.0.1:7480/", "http://127.0.0.1:7480"),
            ("box1", "http://box1:7480"),
            ("box1:80", "http://box1:80"),
            ("[::1]:7480", "http://[::1]:7480"),
            ("http://[::1]", "http://[::1]:7480"),
            ("http://proxy/tally/", "http://proxy:7480/tally"),
            ("https://box1", "https://box1:7480"),
            ("unix:/run/tallyd/tallyd.sock", "unix:/run/tallyd/tallyd.sock"),
            ("unix:///run/t.sock", "unix:/run/t.sock"),
            ("unix:tally/tallyd.sock", "unix:tally/tallyd.sock"),
        ] {
            assert_eq!(targets(url).unwrap()[0].to_string(), shown, "{url}");
        }
        assert_eq!(targets("a, b:1,").unwrap().len(), 2);
    }

    #[test]
    fn a_fingerprint_pins_a_certificate() {
        let digits = "0a".repeat(32);
        let colons = vec!["0A"; 32].join(":");
        for pin in [&digits, &colons] {
            let target = targets(&format!("https://box1:7480#sha256={pin}")).unwrap().remove(0);
            assert_eq!((target.way, &*target.authority), (Way::Tls(Some([10; 32])), "box1:7480"));
        }
        assert_eq!(targets("https://box1").unwrap()[0].way, Way::Tls(None));
    }

    #[test]
    fn a_token_can_be_read_on_its_way_only_where_it_is_neither_encrypted_nor_stays_here() {
        for (url, is_readable) in [
            ("http://127.0.0.1:1", false),
            ("http://[::1]", false),
            ("localhost", false),
            ("https://box1", false),
            ("unix:/x", false),
            ("http://box1", true),
            ("http://10.0.0.1", true),
        ] {
            assert_eq!(targets(url).unwrap()[0].is_readable_by_others(), is_readable, "{url}");
        }
    }

    #[test]
    fn what_is_no_address_is_named() {
        for (url, says) in [
            ("", "no address"),
            (" , ", "no address"),
            ("https://box1#sha256=12", "64 hexadecimal digits"),
            ("https://box1#md5=12", "sha256="),
            ("http://box1#sha256=12", "only https"),
            ("unix:", "no path"),
            ("ftp://box1", "the scheme ftp is not supported"),
            ("http://", "is not HOST:PORT"),
            ("http://a b", "is not HOST:PORT"),
            ("http://user@box1", "is not HOST:PORT"),
            ("box1:99999", "port"),
            ("box1:x", "port"),
        ] {
            let error = targets(url).unwrap_err();
            assert!(error.contains(says) && error.starts_with("--url"), "{url}: {error}");
        }
    }
}
