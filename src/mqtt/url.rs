//! A broker's address, as the configuration writes it.

use std::fmt;

use percent_encoding::percent_decode_str;
use serde::Deserialize;

use super::target::SECRET_BYTES_MAX;
use super::topic;
use crate::secret::Secret;

/// A broker's address: `mqtt://` or `mqtts://`, `[USER[:PASSWORD]@]HOST[:PORT]`. Shown without its password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct BrokerUrl {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// A name or an address; IPv6 in brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Who we are to the broker.
    pub user: Option<String>,
    pub(super) password: Option<Secret>,
}

/// Why a text is no broker's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerUrlError {
    /// Neither `mqtt://` nor `mqtts://`.
    #[error("a broker's URL must begin with mqtt:// or mqtts://")]
    Scheme,
    /// No host.
    #[error("a broker's URL must name a host: mqtt://HOST[:PORT]")]
    Host,
    /// An IPv6 address that is not in brackets, or with TLS.
    #[error("an IPv6 address needs brackets, mqtt://[::1]:1883; with mqtts:// use the broker's name")]
    Ipv6,
    /// No number from 1 to 65535.
    #[error("the port of a broker's URL must be from 1 to 65535")]
    Port,
    /// A path or query.
    #[error(
        "a broker's URL must end after the port; topics have keys of their own (the base topic is set by \
         upstream.base)"
    )]
    Path,
    /// User or password do not decode.
    #[error(
        "user and password in a broker's URL must be percent-encoded UTF-8 of at most 4096 bytes, and the \
         user without control characters"
    )]
    Credentials,
}

impl std::str::FromStr for BrokerUrl {
    type Err = BrokerUrlError;

    fn from_str(text: &str) -> Result<BrokerUrl, BrokerUrlError> {
        let (tls, rest) = match text.split_once("://") {
            Some(("mqtt", rest)) => (false, rest),
            Some(("mqtts", rest)) => (true, rest),
            _ => return Err(BrokerUrlError::Scheme),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, address) = match rest.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials), address),
            None => (None, rest),
        };
        if address.contains(['/', '?']) {
            return Err(BrokerUrlError::Path);
        }
        let (user, password) = match credentials {
            Some(text) => parse_credentials(text)?,
            None => (None, None),
        };
        let (host, port) = parse_address(address, tls)?;
        Ok(BrokerUrl { tls, host, port, user, password })
    }
}

fn parse_credentials(text: &str) -> Result<(Option<String>, Option<Secret>), BrokerUrlError> {
    let decode = |part: &str| match percent_decode_str(part).decode_utf8() {
        Ok(decoded) if !decoded.is_empty() && decoded.len() <= SECRET_BYTES_MAX => Ok(decoded.into_owned()),
        _ => Err(BrokerUrlError::Credentials),
    };
    // As a broker would: it takes a CONNECT with such a user for malformed.
    let user = |part: &str| match decode(part)? {
        user if user.chars().all(topic::is_text) => Ok(Some(user)),
        _ => Err(BrokerUrlError::Credentials),
    };
    match text.split_once(':') {
        Some((name, password)) => Ok((user(name)?, Some(Secret::new(decode(password)?)))),
        None => Ok((user(text)?, None)),
    }
}

fn parse_address(address: &str, tls: bool) -> Result<(String, u16), BrokerUrlError> {
    let (host, port) = match address.rfind(']') {
        Some(_) if address.starts_with("[]") => return Err(BrokerUrlError::Host),
        Some(_) if tls || !address.starts_with('[') => return Err(BrokerUrlError::Ipv6),
        Some(end) => match &address[end + 1..] {
            "" => (address, None),
            rest => (&address[..=end], Some(rest.strip_prefix(':').ok_or(BrokerUrlError::Port)?)),
        },
        None if address.matches(':').count() > 1 => return Err(BrokerUrlError::Ipv6),
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    if host.is_empty() || host.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(BrokerUrlError::Host);
    }
    let port = match port {
        None if tls => 8883,
        None => 1883,
        Some(text) => text.parse().ok().filter(|port| *port != 0).ok_or(BrokerUrlError::Port)?,
    };
    Ok((host.to_owned(), port))
}

impl TryFrom<String> for BrokerUrl {
    type Error = BrokerUrlError;

    fn try_from(text: String) -> Result<BrokerUrl, BrokerUrlError> {
        text.parse()
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        let (user, at) = match &self.user {
            Some(user) => (user.as_str(), "@"),
            None => ("", ""),
        };
        write!(f, "{scheme}://{user}{at}{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<BrokerUrl, BrokerUrlError> {
        text.parse()
    }

    #[test]
    fn a_broker_url_has_a_port_by_its_scheme_or_its_own() {
        for (text, tls, host, port) in [
            ("mqtt://broker", false, "broker", 1883),
            ("mqtts://broker.example", true, "broker.example", 8883),
            ("mqtt://10.0.0.1:2000/", false, "10.0.0.1", 2000),
            ("mqtt://[::1]", false, "[::1]", 1883),
            ("mqtt://[::1]:99", false, "[::1]", 99),
        ] {
            let url = parse(text).unwrap();
            assert_eq!((url.tls, url.host.as_str(), url.port), (tls, host, port), "{text}");
            assert_eq!((&url.user, &url.password), (&None, &None));
        }
    }

    #[test]
    fn what_is_no_broker_url_is_refused_with_its_reason() {
        for (text, error) in [
            ("broker:1883", BrokerUrlError::Scheme),
            ("http://broker", BrokerUrlError::Scheme),
            ("mqtt://", BrokerUrlError::Host),
            ("mqtt://user@", BrokerUrlError::Host),
            ("mqtt://[]", BrokerUrlError::Host),
            ("mqtt://a b", BrokerUrlError::Host),
            ("mqtt://::1", BrokerUrlError::Ipv6),
            ("mqtts://[::1]", BrokerUrlError::Ipv6),
            ("mqtt://x]", BrokerUrlError::Ipv6),
            ("mqtt://[::1]x", BrokerUrlError::Port),
            ("mqtt://broker:0", BrokerUrlError::Port),
            ("mqtt://broker:65536", BrokerUrlError::Port),
            ("mqtt://broker:", BrokerUrlError::Port),
            ("mqtt://broker/tally", BrokerUrlError::Path),
            ("mqtt://%ff@broker", BrokerUrlError::Credentials),
            ("mqtt://a%00@broker", BrokerUrlError::Credentials),
            ("mqtt://:secret@broker", BrokerUrlError::Credentials),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn no_text_shows_the_password() {
        let url = parse("mqtts://me:p%40ss@broker").unwrap();
        assert_eq!(url.password.as_ref().unwrap().reveal(), "p@ss");
        for shown in [url.to_string(), format!("{url:?}"), format!("{:?}", url.password)] {
            assert!(!shown.contains("ss@") && !shown.contains("p%40"), "{shown}");
        }
        assert_eq!(url.to_string(), "mqtts://me@broker:8883");
    }
}
