//! Where the summaries go: the `[upstream]` section, checked, with its secrets kept out of every text.

use std::fmt;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use serde::Deserialize;

use super::format::Format;
use super::topic;

/// The name under which systemd hands over the broker's password (`LoadCredential=`).
pub const PASSWORD_CREDENTIAL: &str = "tallyd-upstream-password";

/// The longest base topic, in bytes: with a series name it stays far below MQTT's 65,535.
pub(super) const BASE_BYTES_MAX: usize = 256;

/// The longest user name or password, in bytes.
const SECRET_BYTES_MAX: usize = 4096;

/// The `[upstream]` section of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamConfig {
    /// The broker. Absent: summaries wait in the outbox.
    pub url: Option<BrokerUrl>,
    /// A file whose first line is the password, if the URL has none.
    pub password_file: Option<PathBuf>,
    /// The authorities (PEM) that may vouch for an `mqtts://` broker. Absent: the system's.
    pub ca_file: Option<PathBuf>,
    /// The base topic. Absent: `tally/SITE`.
    pub base: Option<BaseTopic>,
    /// What is published.
    pub format: Vec<Format>,
}

impl Default for UpstreamConfig {
    fn default() -> UpstreamConfig {
        UpstreamConfig {
            url: None,
            password_file: None,
            ca_file: None,
            base: None,
            format: vec![Format::Json],
        }
    }
}

impl UpstreamConfig {
    /// The password to show the broker: the URL's, else the file's, else systemd's credential, if any.
    pub(super) fn password(&self, url: &BrokerUrl) -> Result<Option<Secret>, UpstreamError> {
        if url.password.is_some() {
            return Ok(url.password.clone());
        }
        if let Some(file) = &self.password_file {
            return read_secret(file).map(Some);
        }
        let Some(directory) = crate::environment::value("CREDENTIALS_DIRECTORY") else { return Ok(None) };
        let file = Path::new(&directory).join(PASSWORD_CREDENTIAL);
        if file.exists() { read_secret(&file).map(Some) } else { Ok(None) }
    }
}

/// Why the upstream cannot start. Mended by the configuration, not by waiting.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// A file that the configuration names cannot be read.
    #[error("cannot read {file}: {error}; check the path and who may read it")]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The password file is no password.
    #[error("{file} is not a password: {what}")]
    NotAPassword {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A password without a user.
    #[error("upstream.url has no user, but there is a password; write it as mqtts://USER@HOST")]
    PasswordWithoutUser,
    /// No authority to check the broker's certificate by.
    #[error(
        "no certificate authorities found in {looked_in}; name a PEM file in upstream.ca_file, \
         or install the package ca-certificates"
    )]
    NoAuthorities {
        /// The places tried.
        looked_in: String,
    },
    /// The authorities do not make a TLS configuration.
    #[error("upstream TLS: {0}")]
    Tls(String),
}

fn read_secret(file: &Path) -> Result<Secret, UpstreamError> {
    let text = crate::outside::read_to_string(file)
        .map_err(|error| UpstreamError::Unreadable { file: file.to_owned(), error })?;
    let line = text.lines().next().unwrap_or_default();
    let wrong = |what| Err(UpstreamError::NotAPassword { file: file.to_owned(), what });
    match line.len() {
        0 => wrong("its first line is empty"),
        length if length > SECRET_BYTES_MAX => wrong("its first line is longer than 4096 bytes"),
        _ => Ok(Secret(line.to_owned())),
    }
}

/// A text that no log, status or error shows.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

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
    #[error("a broker's URL begins with mqtt:// or mqtts://")]
    Scheme,
    /// No host.
    #[error("a broker's URL names a host: mqtt://HOST[:PORT]")]
    Host,
    /// An IPv6 address that is not in brackets, or with TLS.
    #[error("an IPv6 address stands in brackets, mqtt://[::1]:1883; with mqtts:// use the broker's name")]
    Ipv6,
    /// No number from 1 to 65535.
    #[error("the port of a broker's URL is a number from 1 to 65535")]
    Port,
    /// A path or query.
    #[error("a broker's URL ends after the port; the base topic is upstream.base")]
    Path,
    /// User or password do not decode.
    #[error(
        "user and password in a broker's URL are percent-encoded UTF-8 of at most 4096 bytes, a user without \
         control characters"
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
        user if user.chars().all(|c| matches!(c, '+' | '#') || topic::is_allowed(c)) => Ok(Some(user)),
        _ => Err(BrokerUrlError::Credentials),
    };
    match text.split_once(':') {
        Some((name, password)) => Ok((user(name)?, Some(Secret(decode(password)?)))),
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

/// The topic that all topics of a site begin with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct BaseTopic(String);

/// Why a text is no base topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a base topic has 1 to 256 bytes, no '+', '#', control characters or Unicode noncharacters, does not begin with '$' \
     and has no slash at either end"
)]
pub struct BaseTopicError;

impl BaseTopic {
    /// The topic of a site that was told no other.
    pub fn of_site(site: &str) -> BaseTopic {
        BaseTopic(format!("tally/{site}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for BaseTopic {
    type Error = BaseTopicError;

    fn try_from(text: String) -> Result<BaseTopic, BaseTopicError> {
        let edges = text.starts_with(['/', '$']) || text.ends_with('/');
        let forbidden = !text.chars().all(topic::is_allowed);
        if text.is_empty() || text.len() > BASE_BYTES_MAX || edges || forbidden {
            return Err(BaseTopicError);
        }
        Ok(BaseTopic(text))
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
        let config = UpstreamConfig { url: Some(url.clone()), ..UpstreamConfig::default() };
        for shown in
            [url.to_string(), format!("{url:?}"), format!("{config:?}"), format!("{:?}", url.password)]
        {
            assert!(!shown.contains("ss@") && !shown.contains("p%40"), "{shown}");
        }
        assert_eq!(url.to_string(), "mqtts://me@broker:8883");
    }

    #[test]
    fn a_password_file_gives_its_first_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        let config = UpstreamConfig { password_file: Some(file.clone()), ..UpstreamConfig::default() };
        let url = parse("mqtt://me@broker").unwrap();
        assert!(matches!(config.password(&url), Err(UpstreamError::Unreadable { .. })));
        std::fs::write(&file, "\nx\n").unwrap();
        assert!(matches!(config.password(&url), Err(UpstreamError::NotAPassword { .. })));
        std::fs::write(&file, "hush hush\n").unwrap();
        assert_eq!(config.password(&url).unwrap().unwrap().reveal(), "hush hush");
        let own = parse("mqtt://me:mine@broker").unwrap();
        assert_eq!(config.password(&own).unwrap().unwrap().reveal(), "mine");
    }

    #[test]
    fn a_base_topic_can_stand_before_a_series() {
        for text in ["", "/a", "a/", "a/+", "#", "$SYS/x", "a\0", "a\u{ffff}", &"x".repeat(257)] {
            assert_eq!(BaseTopic::try_from(text.to_owned()), Err(BaseTopicError), "{text:?}");
        }
        assert_eq!(BaseTopic::try_from("factory/7".to_owned()).unwrap().as_str(), "factory/7");
        assert_eq!(BaseTopic::of_site("plant7").as_str(), "tally/plant7");
    }

    #[test]
    fn the_section_is_read_with_its_defaults() {
        let config: UpstreamConfig = toml::from_str("url = 'mqtt://b'\nformat = ['json']").unwrap();
        assert_eq!(config.url, Some(parse("mqtt://b").unwrap()));
        assert_eq!(config.format, UpstreamConfig::default().format);
        assert!(toml::from_str::<UpstreamConfig>("format = ['xml']").is_err());
        assert!(toml::from_str::<UpstreamConfig>("uri = 'mqtt://b'").is_err());
    }
}
