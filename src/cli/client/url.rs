//! Addresses of boxes as `--url` names them.

use std::fmt;

/// The port of the API where an address names none.
const PORT: u16 = 7480;

/// One box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerUrl {
    /// `HOST:PORT`.
    pub(super) authority: String,
    /// What stands before each path; empty, or without a slash at its end.
    pub(super) base: String,
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.base)
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
    let rest = match url.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => {
            return Err(format!(
                "--url {url}: this release does not support https; reach the box over http on a trusted \
                 network, or through a tunnel"
            ));
        }
        Some((scheme, _)) => {
            return Err(format!("--url {url}: the scheme {scheme} is not supported; use http"));
        }
        None => url,
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
    Ok(ServerUrl { authority: format!("{}:{port}", uri.host()), base })
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
        ] {
            assert_eq!(targets(url).unwrap()[0].to_string(), shown, "{url}");
        }
        assert_eq!(targets("a, b:1,").unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_address_is_named() {
        for (url, says) in [
            ("", "no address"),
            (" , ", "no address"),
            ("https://box1", "this release does not support https"),
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
