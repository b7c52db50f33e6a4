//! The configuration file: TOML to validated types. Every key is optional; an unknown one is an error
//! that names it, its line and the nearest known one.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::identity::is_name;
use crate::ingest::poll::{Poll, PollConfig};
use crate::node::TimeoutBounds;
use crate::site::units::Unit;
use crate::storage::Budget;
use crate::upstream::UpstreamConfig;

/// The checked content of a file and of the environment.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[node]`
    pub node: NodeSection,
    /// `[cluster]`
    pub cluster: ClusterSection,
    /// `[api]`
    pub api: ApiSection,
    /// `[ingest]`
    pub ingest: IngestSection,
    /// `[upstream]`
    pub upstream: UpstreamConfig,
    /// `[commit]`
    pub commit: CommitSection,
    /// `[storage]`
    pub storage: StorageSection,
}

/// `[node]`: the identity of this box.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSection {
    /// The name of the box, 1 to 32 of `a-z 0-9 -`; a contradiction to its identity is an error.
    #[serde(deserialize_with = "node_name")]
    pub name: Option<String>,
    /// The data directory.
    pub data_dir: Option<PathBuf>,
}

/// `[cluster]`: the connections between the boxes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSection {
    /// QUIC, UDP. `[::]` is both IP versions, or IPv4 where the system has no other.
    #[serde(deserialize_with = "cluster_address")]
    pub listen: SocketAddr,
    /// The address that the others dial; a contradiction to the identity is logged.
    pub advertise: Option<String>,
    /// The least election timeout. A box without a leader for one to two timeouts campaigns. The timeout follows the
    /// measured round trips and disk syncs.
    #[serde(deserialize_with = "duration")]
    pub election_timeout_min: Duration,
    /// The longest election timeout.
    #[serde(deserialize_with = "duration")]
    pub election_timeout_max: Duration,
}

impl Default for ClusterSection {
    fn default() -> ClusterSection {
        let bounds = crate::node::NodeConfig::default().election_timeout;
        ClusterSection {
            listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 7400)),
            advertise: None,
            election_timeout_min: bounds.min,
            election_timeout_max: bounds.max,
        }
    }
}

impl ClusterSection {
    /// The bounds of the election timeout.
    pub fn election_timeout(&self) -> TimeoutBounds {
        TimeoutBounds { min: self.election_timeout_min, max: self.election_timeout_max }
    }
}

/// `[api]`: HTTP.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiSection {
    /// A non-loopback address needs a token.
    #[serde(deserialize_with = "api_address")]
    pub listen: SocketAddr,
    /// A file whose first line clients present as `Authorization: Bearer`.
    pub token_file: Option<PathBuf>,
    /// The most connections at once.
    pub connections_max: usize,
}

impl Default for ApiSection {
    fn default() -> ApiSection {
        ApiSection {
            listen: SocketAddr::from(([127, 0, 0, 1], 7480)),
            token_file: None,
            connections_max: 1024,
        }
    }
}

/// `[ingest]`: the ways in.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestSection {
    /// `[ingest.statsd]`
    pub statsd: StatsdSection,
    /// `[[ingest.poll]]`
    pub poll: Vec<PollConfig>,
}

/// `[ingest.statsd]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StatsdSection {
    /// UDP.
    pub listen: StatsdListen,
}

/// The listen addresses of StatsD: a list, or one address; `"off"`, `""` or an empty list turns StatsD off.
#[derive(Clone, Debug)]
pub struct StatsdListen {
    /// The addresses.
    pub addresses: Vec<SocketAddr>,
    /// The default addresses; a system without IPv6 leaves out the second.
    pub is_default: bool,
}

impl Default for StatsdListen {
    fn default() -> StatsdListen {
        let addresses = vec![
            SocketAddr::from((Ipv4Addr::LOCALHOST, STATSD_PORT)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, STATSD_PORT)),
        ];
        StatsdListen { addresses, is_default: true }
    }
}

/// The addresses, configured or default.
impl PartialEq for StatsdListen {
    fn eq(&self, other: &StatsdListen) -> bool {
        self.addresses == other.addresses
    }
}

impl<'de> Deserialize<'de> for StatsdListen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "expected an address such as \"127.0.0.1:8125\", or a list of addresses"
        )]
        enum Said {
            One(String),
            Several(Vec<String>),
        }
        let texts = match Said::deserialize(deserializer)? {
            Said::One(text) => vec![text],
            Said::Several(texts) => texts,
        };
        let texts = texts.iter().filter(|text| !matches!(text.as_str(), "" | "off"));
        let mut addresses = texts
            .map(|text| address(text, "127.0.0.1:8125"))
            .collect::<Result<Vec<_>, _>>()
            .map_err(serde::de::Error::custom)?;
        addresses.dedup();
        if addresses.len() > STATSD_ADDRESSES_MAX {
            let what = format!("{} addresses, more than {STATSD_ADDRESSES_MAX}", addresses.len());
            return Err(serde::de::Error::custom(what));
        }
        Ok(StatsdListen { addresses, is_default: false })
    }
}

/// `[commit]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommitSection {
    /// The commit interval of counts without waiters.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
}

impl Default for CommitSection {
    fn default() -> CommitSection {
        CommitSection { interval: Duration::from_secs(1) }
    }
}

/// `[storage]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageSection {
    /// The limit of log, snapshots and spare files together; default: a quarter of the partition, at most 256 MiB.
    #[serde(deserialize_with = "size")]
    pub bytes_max: Option<u64>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {file}: {error}")]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The content is invalid.
    #[error("{place}: {what}")]
    Wrong {
        /// File and line, or the environment variable.
        place: String,
        /// What is wrong, and an example of a valid value.
        what: String,
    },
}

/// How an environment variable encodes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// As text.
    Text,
    /// As a number.
    Number,
    /// As a comma-separated list.
    Texts,
}

/// All keys except those of `[[ingest.poll]]`, a section that can be repeated. Each can be overridden by a variable of
/// the environment.
const KEYS: &[(&str, Says)] = &[
    ("node.name", Says::Text),
    ("node.data_dir", Says::Text),
    ("cluster.listen", Says::Text),
    ("cluster.advertise", Says::Text),
    ("cluster.election_timeout_min", Says::Text),
    ("cluster.election_timeout_max", Says::Text),
    ("api.listen", Says::Text),
    ("api.token_file", Says::Text),
    ("api.connections_max", Says::Number),
    ("ingest.statsd.listen", Says::Texts),
    ("upstream.url", Says::Text),
    ("upstream.base", Says::Text),
    ("upstream.password_file", Says::Text),
    ("upstream.ca_file", Says::Text),
    ("upstream.format", Says::Texts),
    ("commit.interval", Says::Text),
    ("storage.bytes_max", Says::Text),
];

/// The default addresses of StatsD, with the port that clients use by default.
const STATSD_PORT: u16 = 8125;
/// The most StatsD addresses.
const STATSD_ADDRESSES_MAX: usize = 16;

/// The prefix of environment variables.
const PREFIX: &str = "TALLYD_";

/// Returns the name of the variable that overrides a key.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

/// Variables with other uses than the configuration.
const OTHER_VARIABLES: &[&str] = &["TALLYD_LOG", "TALLYD_URL", "TALLYD_TOKEN_FILE"];
/// The prefixes of variables for tests.
const TEST_PREFIXES: &[&str] = &["TALLYD_TEST_", "TALLYD_SIM_"];
/// How many unknown variables a warning names.
const UNKNOWN_NAMED_MAX: usize = 20;

/// Returns a warning of variables that look like this program's and are not: a typing error, or one that a service
/// manager made of its
/// own accord (Kubernetes does for each of its services). `None`: there are none.
pub fn unknown_variables(names: impl Iterator<Item = String>) -> Option<String> {
    let overriding = KEYS.iter().map(|(key, _)| variable(key));
    let known: Vec<String> = overriding.chain(OTHER_VARIABLES.iter().map(ToString::to_string)).collect();
    let is_tests = |name: &str| TEST_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let mut unknown: Vec<String> =
        names.filter(|name| name.starts_with(PREFIX) && !is_tests(name) && !known.contains(name)).collect();
    unknown.sort_unstable();
    let named = unknown.iter().take(UNKNOWN_NAMED_MAX).map(|name| {
        let nearest = known.iter().min_by_key(|known| strsim::damerau_levenshtein(name, known));
        format!("{name} (the nearest known name is {})", nearest.map_or("none", String::as_str))
    });
    let text = named.collect::<Vec<_>>().join(", ");
    let more = match unknown.len().saturating_sub(UNKNOWN_NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!unknown.is_empty()).then(|| format!("environment variables that override no key: {text}{more}"))
}

impl Config {
    /// Reads a file (without one: the defaults), then applies the environment.
    pub fn load(
        file: Option<&Path>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Config, ConfigError> {
        let text = match file {
            None => String::new(),
            Some(file) => crate::outside::read_to_string(file)
                .map_err(|error| ConfigError::Unreadable { file: file.to_owned(), error })?,
        };
        let place = file.map_or_else(|| "the configuration".to_owned(), |file| file.display().to_string());
        Config::read(&text, &place, environment)
    }

    /// Parses the text of a file, then applies the environment; errors call the file `place`.
    pub fn read(
        text: &str,
        place: &str,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Config, ConfigError> {
        // First alone, so that an error names the file's own line.
        let plain = Config::parse(text, place)?;
        let overrides: Vec<_> = KEYS
            .iter()
            .map(|(key, says)| (variable(key), *key, *says))
            .filter_map(|(name, key, says)| Some((environment(&name)?, name, key, says)))
            // One that is empty is not set.
            .filter(|(value, ..)| !value.trim().is_empty())
            .collect();
        if overrides.is_empty() {
            return plain.checked(place);
        }
        let mut table: toml::Table = toml::from_str(text).map_err(|error| wrong(text, place, &error))?;
        for (value, name, key, says) in overrides {
            let value =
                says.value(&value).map_err(|what| ConfigError::Wrong { place: name.clone(), what })?;
            set(&mut table, key, value);
            let shown = toml::to_string(&table).unwrap_or_default();
            Config::parse(&shown, &name).map_err(|error| match error {
                // A line of what was put together here would mean nothing to anybody.
                ConfigError::Wrong { what, .. } => ConfigError::Wrong { place: name, what },
                other => other,
            })?;
        }
        Config::parse(&toml::to_string(&table).unwrap_or_default(), place)?.checked(place)
    }

    fn parse(text: &str, place: &str) -> Result<Config, ConfigError> {
        toml::from_str(text).map_err(|error| wrong(text, place, &error))
    }

    fn checked(self, place: &str) -> Result<Config, ConfigError> {
        let wrong = |what: String| Err(ConfigError::Wrong { place: place.to_owned(), what });
        if !self.api.listen.ip().is_loopback() && self.api.token_file.is_none() {
            return wrong(format!(
                "api.listen = \"{}\" can be reached from other machines: set api.token_file to a file with \
                 the token that clients must present, or listen on 127.0.0.1",
                self.api.listen
            ));
        }
        let TimeoutBounds { min, max } = self.cluster.election_timeout();
        if min < TimeoutBounds::MIN || max > TimeoutBounds::MAX || min > max {
            return wrong(
                "cluster.election_timeout_min must be at least 20ms, and cluster.election_timeout_max at \
                 least that and at most 10m"
                    .to_owned(),
            );
        }
        if self.commit.interval < Duration::from_millis(1) || self.commit.interval > Duration::from_secs(3600)
        {
            return wrong("commit.interval must be from 1ms to 1h".to_owned());
        }
        if self.storage.bytes_max.is_some_and(|bytes| bytes < Budget::LEAST) {
            return wrong(format!(
                "storage.bytes_max must be at least {}: while a snapshot is written, the disk also holds the \
                 old one and the log",
                Unit::Bytes.format(Budget::LEAST)
            ));
        }
        self.polls().map_err(|what| ConfigError::Wrong { place: place.to_owned(), what })?;
        Ok(self)
    }

    /// Returns the checked polled files.
    pub fn polls(&self) -> Result<Vec<Poll>, String> {
        let checked = self.ingest.poll.iter().enumerate().map(|(place, poll)| poll.check(place));
        checked.collect::<Result<_, _>>().map_err(|error| error.to_string())
    }
}

impl Says {
    fn value(self, text: &str) -> Result<toml::Value, String> {
        let texts = || text.split(',').map(str::trim).filter(|one| !one.is_empty());
        match self {
            Says::Text => Ok(toml::Value::String(text.to_owned())),
            Says::Number => match text.trim().parse() {
                Ok(number) => Ok(toml::Value::Integer(number)),
                Err(_) => Err(format!("{text:?} is not a whole number, such as 1024")),
            },
            Says::Texts => {
                Ok(toml::Value::Array(texts().map(|one| toml::Value::String(one.to_owned())).collect()))
            }
        }
    }
}

/// Sets a key such as `api.listen`.
fn set(table: &mut toml::Table, key: &str, value: toml::Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((first, rest)) => {
            let section = table.entry(first).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            if let toml::Value::Table(section) = section {
                set(section, rest, value);
            }
        }
    }
}

/// The key whose value begins at `at`, with its section, as far as the line shows it.
fn key_at(text: &str, at: usize) -> Option<String> {
    let before = text.get(..at)?;
    let (lines, line) = before.rsplit_once('\n').unwrap_or(("", before));
    let key = line.split_once('=')?.0.trim();
    let header = lines.lines().rev().map(str::trim).find(|line| line.starts_with('['));
    let section = header.and_then(|line| line.trim_start_matches('[').split(']').next()).map(str::trim);
    Some(section.map_or_else(|| key.to_owned(), |section| format!("{section}.{key}")))
}

/// An error of the TOML reader with its line, and for an unknown key the nearest known one.
fn wrong(text: &str, place: &str, error: &toml::de::Error) -> ConfigError {
    let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let place = line.map_or_else(|| place.to_owned(), |line| format!("{place}, line {line}"));
    let message = error.message();
    let mut quoted = message.split('`').skip(1).step_by(2);
    let what = match quoted.next() {
        Some(unknown) if message.starts_with("unknown field") => {
            let nearest = quoted.min_by_key(|known| strsim::damerau_levenshtein(unknown, known));
            let hint =
                nearest.map(|known| format!("; the nearest known key is \"{known}\"")).unwrap_or_default();
            format!("unknown key \"{unknown}\"{hint}")
        }
        _ => match error.span().and_then(|span| key_at(text, span.start)) {
            Some(key) => format!("{key}: {message}"),
            None => message.to_owned(),
        },
    };
    ConfigError::Wrong { place, what }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    Unit::Duration.parse(&text).map(Duration::from_millis).map_err(serde::de::Error::custom)
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Unit::Bytes.parse(&text).map(Some).map_err(serde::de::Error::custom)
}

fn address(text: &str, example: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IP address and port such as {example}"))
}

fn cluster_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    address(&text, "[::]:7400").map_err(serde::de::Error::custom)
}

fn api_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    address(&text, "127.0.0.1:7480").map_err(serde::de::Error::custom)
}

fn node_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = String::deserialize(deserializer)?;
    if !is_name(&name) {
        return Err(serde::de::Error::custom(format!(
            "{name:?} is not a name (1 to 32 of a-z 0-9 -), such as box1"
        )));
    }
    Ok(Some(name))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
