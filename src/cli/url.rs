//! The addresses that client commands talk to, and what stands in their paths.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stands in a query as it is; everything else is encoded.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What stands in a path as it is: slashes too.
const PATH: &AsciiSet = &QUERY.remove(b'/');

/// Where a box's API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// A name or an address, without brackets.
    pub host: String,
    /// TCP.
    pub port: u16,
    /// What stands before `/v1`, without a slash at its end: for a proxy that has more to serve.
    pub base: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Url, String> {
        let text = text.trim();
        let wrong = |what: &str| Err(format!("{text:?} {what}"));
        if text.is_empty() {
            return Err("one of the URLs is empty; a URL is like http://127.0.0.1:7480".to_owned());
        }
        if text.starts_with("https://") {
            return wrong(
                "is https, which this release does not speak; use http:// on a network that is yours",
            );
        }
        let Some(rest) = text.strip_prefix("http://") else {
            return Err(format!("{text:?} does not begin with http://; a URL is like http://127.0.0.1:7480"));
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if authority.contains('@') || !is_plain(rest) || rest.contains(['?', '#', '"', '<', '>', '\\']) {
            return wrong("has something besides host, port and path; a URL is like http://127.0.0.1:7480");
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((host, rest)) if host.parse::<std::net::Ipv6Addr>().is_ok() => {
                    (host, if rest.is_empty() { None } else { rest.strip_prefix(':').or(Some("")) })
                }
                _ => return wrong("has no IPv6 address in its brackets"),
            },
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() {
            return wrong("names no host");
        }
        let port = match port.map(str::parse::<u16>) {
            None => 80,
            Some(Ok(port)) if port > 0 => port,
            Some(_) => return wrong("has a port that is not one of 1 to 65535"),
        };
        Ok(Url { host: host.to_owned(), port, base: path.trim_end_matches('/').to_owned() })
    }
}

impl Url {
    /// Host and port, as the header `Host` has them.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.base)
    }
}

/// A text as it stands in a path; slashes stay.
pub fn in_path(text: &str) -> String {
    utf8_percent_encode(text, PATH).to_string()
}

/// A text as it stands in a query.
pub fn in_query(text: &str) -> String {
    utf8_percent_encode(text, QUERY).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_host_port_and_perhaps_a_path() {
        for (text, host, port, base) in [
            ("http://127.0.0.1:7480", "127.0.0.1", 7480, ""),
            ("http://127.0.0.1:7480/", "127.0.0.1", 7480, ""),
            (" http://box1.lan", "box1.lan", 80, ""),
            ("http://[::1]:7480", "::1", 7480, ""),
            ("http://[fd00::1]", "fd00::1", 80, ""),
            ("http://gw:8080/plant7/", "gw", 8080, "/plant7"),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!((url.host.as_str(), url.port, url.base.as_str()), (host, port, base), "{text}");
            let again: Url = url.to_string().parse().unwrap();
            assert_eq!(again, url);
        }
    }

    #[test]
    fn what_is_no_url_is_refused_with_words() {
        for (text, what) in [
            ("", "empty"),
            ("127.0.0.1:7480", "does not begin with http://"),
            ("https://box1", "is https"),
            ("ftp://box1", "does not begin with http://"),
            ("http://", "names no host"),
            ("http://:7480", "names no host"),
            ("http://box1:0", "port"),
            ("http://box1:", "port"),
            ("http://box1:70000", "port"),
            ("http://[::1]x", "port"),
            ("http://[box1]", "IPv6"),
            ("http://user@box1", "besides host"),
            ("http://box1/?x", "besides host"),
            ("http://box1/a b", "besides host"),
            ("http://bo\nx1", "besides host"),
        ] {
            let error = text.parse::<Url>().unwrap_err();
            assert!(error.contains(what), "{text:?}: {error}");
        }
    }

    #[test]
    fn names_come_back_out_of_paths_and_queries() {
        assert_eq!(in_path("line1/press3"), "line1/press3");
        assert_eq!(in_path("a b/50%?é"), "a%20b/50%25%3F%C3%A9");
        assert_eq!(in_query("a/b+c&d"), "a%2Fb%2Bc%26d");
        for name in ["x", "a/b/c", "ü %&=?;\"", "日本/語"] {
            for encoded in [in_path(name), in_query(name)] {
                assert_eq!(percent_encoding::percent_decode_str(&encoded).decode_utf8().unwrap(), name);
            }
        }
    }
}
