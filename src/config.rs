//! The configuration file: TOML to validated types. Every key is optional; an unknown one is an error
//! that names it, its line and the nearest known one.

mod found;

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

pub use self::found::Found;
use crate::environment::Says;
use crate::identity::is_name;
use crate::ingest::IngestSection;
use crate::node::TimeoutBounds;
use crate::storage::Budget;
use crate::units::{self, Unit, socket_address};
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
    #[serde(deserialize_with = "units::duration")]
    pub election_timeout_min: Duration,
    /// The longest election timeout.
    #[serde(deserialize_with = "units::duration")]
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

/// `[commit]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommitSection {
    /// The commit interval of counts without waiters.
    #[serde(deserialize_with = "units::duration")]
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
    #[serde(deserialize_with = "units::size")]
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

impl ConfigError {
    /// Whether it stays so until somebody corrects the text; a file that cannot be read may be on a disk that is
    /// mounted late.
    pub fn is_lasting(&self) -> bool {
        matches!(self, ConfigError::Wrong { .. })
    }
}

/// The keys outside `[ingest]` that a variable of the environment can override.
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
    ("upstream.url", Says::Text),
    ("upstream.base", Says::Text),
    ("upstream.password_file", Says::Text),
    ("upstream.ca_file", Says::Text),
    ("upstream.format", Says::Texts),
    ("commit.interval", Says::Text),
    ("storage.bytes_max", Says::Text),
];

/// The prefix of environment variables.
const PREFIX: &str = "TALLYD_";

/// All keys that a variable can override: each but those of lists such as `[[ingest.poll]]`.
fn keys() -> impl Iterator<Item = (&'static str, Says)> {
    KEYS.iter().chain(IngestSection::KEYS.iter().copied().flatten()).copied()
}

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
    let overriding = keys().map(|(key, _)| variable(key));
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
    ///
    /// # Errors
    /// Which file or key is wrong, and how.
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
    ///
    /// # Errors
    /// Which key is wrong, and how.
    pub fn read(
        text: &str,
        place: &str,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Config, ConfigError> {
        // First alone, so that an error names the file's own line.
        let plain = Config::parse(text, place)?;
        let overrides: Vec<_> = keys()
            .map(|(key, says)| (variable(key), key, says))
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
        self.ingest.check().map_err(|what| ConfigError::Wrong { place: place.to_owned(), what })?;
        Ok(self)
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

fn cluster_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    socket_address(&text, "[::]:7400").map_err(serde::de::Error::custom)
}

fn api_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    socket_address(&text, "127.0.0.1:7480").map_err(serde::de::Error::custom)
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
