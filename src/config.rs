//! The configuration file: TOML to validated types. Every key is optional; an unknown one is an error
//! that names it, its line and the nearest known one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::ingest::poll::{Poll, PollConfig};
use crate::node::PaceBounds;
use crate::site::units::Unit;
use crate::upstream::UpstreamConfig;

/// What a file (and the environment) said, checked.
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
}

/// `[node]`: who this box is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSection {
    /// Its name; a contradiction to its identity is an error.
    pub name: Option<String>,
    /// Where it keeps everything.
    pub data_dir: Option<PathBuf>,
}

/// `[cluster]`: how the boxes reach each other.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSection {
    /// QUIC, UDP.
    pub listen: SocketAddr,
    /// What the others dial; a contradiction to its identity is an error.
    pub advertise: Option<String>,
    /// Without a leader for a timeout, up to twice as long, a box campaigns. The timeout follows the
    /// measured round trips and disk syncs, and is at least this.
    #[serde(deserialize_with = "duration")]
    pub election_timeout_min: Duration,
    /// And at most this.
    #[serde(deserialize_with = "duration")]
    pub election_timeout_max: Duration,
}

impl Default for ClusterSection {
    fn default() -> ClusterSection {
        let bounds = crate::node::NodeConfig::default().election_timeout;
        ClusterSection {
            listen: SocketAddr::from(([0, 0, 0, 0], 7400)),
            advertise: None,
            election_timeout_min: bounds.min,
            election_timeout_max: bounds.max,
        }
    }
}

impl ClusterSection {
    /// The bounds of the election timeout.
    pub fn election_timeout(&self) -> PaceBounds {
        PaceBounds { min: self.election_timeout_min, max: self.election_timeout_max }
    }
}

/// `[api]`: HTTP.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiSection {
    /// A non-loopback address needs a token.
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
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StatsdSection {
    /// UDP; `""` turns it off.
    #[serde(deserialize_with = "address_or_off")]
    pub listen: Option<SocketAddr>,
}

impl Default for StatsdSection {
    fn default() -> StatsdSection {
        StatsdSection { listen: Some(SocketAddr::from(([127, 0, 0, 1], 8125))) }
    }
}

/// `[commit]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommitSection {
    /// For counts that nobody waits for.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
}

impl Default for CommitSection {
    fn default() -> CommitSection {
        CommitSection { interval: Duration::from_secs(1) }
    }
}

/// Why a configuration is not used.
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
    /// What it says is not understood.
    #[error("{place}: {what}")]
    Wrong {
        /// File and line, or the environment variable.
        place: String,
        /// What is wrong, and what would be right.
        what: String,
    },
}

/// The environment variables that override a key, and the key each stands for.
const OVERRIDES: &[(&str, &[&str])] = &[
    ("TALLYD_NODE_NAME", &["node", "name"]),
    ("TALLYD_NODE_DATA_DIR", &["node", "data_dir"]),
    ("TALLYD_CLUSTER_LISTEN", &["cluster", "listen"]),
    ("TALLYD_CLUSTER_ADVERTISE", &["cluster", "advertise"]),
    ("TALLYD_CLUSTER_ELECTION_TIMEOUT_MIN", &["cluster", "election_timeout_min"]),
    ("TALLYD_CLUSTER_ELECTION_TIMEOUT_MAX", &["cluster", "election_timeout_max"]),
    ("TALLYD_API_LISTEN", &["api", "listen"]),
    ("TALLYD_API_TOKEN_FILE", &["api", "token_file"]),
    ("TALLYD_INGEST_STATSD_LISTEN", &["ingest", "statsd", "listen"]),
    ("TALLYD_UPSTREAM_URL", &["upstream", "url"]),
    ("TALLYD_UPSTREAM_BASE", &["upstream", "base"]),
    ("TALLYD_UPSTREAM_PASSWORD_FILE", &["upstream", "password_file"]),
    ("TALLYD_UPSTREAM_CA_FILE", &["upstream", "ca_file"]),
    ("TALLYD_COMMIT_INTERVAL", &["commit", "interval"]),
];

impl Config {
    /// Reads a file (none: the defaults), then what the environment overrides.
    pub fn load(
        file: Option<&Path>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Config, ConfigError> {
        let text = match file {
            None => String::new(),
            Some(file) => std::fs::read_to_string(file)
                .map_err(|error| ConfigError::Unreadable { file: file.to_owned(), error })?,
        };
        let place = file.map_or_else(|| "the configuration".to_owned(), |file| file.display().to_string());
        Config::read(&text, &place, environment)
    }

    /// Reads the text of a file, then what the environment overrides; `place` is what errors call the file.
    pub fn read(
        text: &str,
        place: &str,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Config, ConfigError> {
        // First alone, so that an error names the file's own line.
        let plain = Config::parse(text, place)?;
        let overrides: Vec<_> =
            OVERRIDES.iter().filter_map(|(name, key)| Some((*name, *key, environment(name)?))).collect();
        if overrides.is_empty() {
            return plain.checked(place);
        }
        let mut table: toml::Table = toml::from_str(text).map_err(|error| wrong(text, place, &error))?;
        for (name, key, value) in overrides {
            set(&mut table, key, value);
            let shown = toml::to_string(&table).unwrap_or_default();
            Config::parse(&shown, name).map_err(|error| match error {
                // A line of what was put together here would mean nothing to anybody.
                ConfigError::Wrong { what, .. } => ConfigError::Wrong { place: name.to_owned(), what },
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
                "api.listen = \"{}\" is reachable from other machines, so api.token_file must name a file with a \
                 token that clients present; or listen on 127.0.0.1",
                self.api.listen
            ));
        }
        let PaceBounds { min, max } = self.cluster.election_timeout();
        if min < PaceBounds::MIN || max > PaceBounds::MAX || min > max {
            return wrong(
                "cluster.election_timeout_min must be at least 20ms, cluster.election_timeout_max at most 10m and \
                 not below it"
                    .to_owned(),
            );
        }
        if self.commit.interval < Duration::from_millis(1) || self.commit.interval > Duration::from_secs(3600)
        {
            return wrong("commit.interval must be from 1ms to 1h".to_owned());
        }
        self.polls().map_err(|what| ConfigError::Wrong { place: place.to_owned(), what })?;
        Ok(self)
    }

    /// The polled files, checked.
    pub fn polls(&self) -> Result<Vec<Poll>, String> {
        let checked = self.ingest.poll.iter().enumerate().map(|(place, poll)| poll.check(place));
        checked.collect::<Result<_, _>>().map_err(|error| error.to_string())
    }
}

fn set(table: &mut toml::Table, key: &[&str], value: String) {
    match key {
        [] => {}
        [last] => {
            table.insert((*last).to_owned(), toml::Value::String(value));
        }
        [first, rest @ ..] => {
            let section = table.entry(*first).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            if let toml::Value::Table(section) = section {
                set(section, rest, value);
            }
        }
    }
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
        _ => message.to_owned(),
    };
    ConfigError::Wrong { place, what }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    Unit::Duration.parse(&text).map(Duration::from_millis).map_err(serde::de::Error::custom)
}

fn address_or_off<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        serde::de::Error::custom(format!("\"{text}\" is not an address and port such as 127.0.0.1:8125"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tallyd.toml");
        std::fs::write(&file, text).unwrap();
        let value = |name: &str| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Config::load(Some(&file), value).map_err(|error| error.to_string())
    }

    #[test]
    fn the_commented_example_says_the_defaults() {
        let example = include_str!("../packaging/examples/tallyd.toml");
        assert_eq!(load(example, &[]).unwrap(), Config::default());
        // What is commented out with a default must be that default too.
        let uncommented: String =
            example.lines().map(|line| line.strip_prefix("#= ").unwrap_or(line).to_owned() + "\n").collect();
        assert_ne!(uncommented, example);
        assert_eq!(load(&uncommented, &[]).unwrap(), Config::default());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
        let error = load("[api]\n\nlisten = \"127.0.0.1:1\"\ntoken_fil = \"x\"\n", &[]).unwrap_err();
        assert!(error.contains("line 4"), "{error}");
        assert!(error.contains("\"token_fil\"") && error.contains("\"token_file\""), "{error}");
    }

    #[test]
    fn the_environment_overrides_and_is_named_when_it_is_wrong() {
        let config =
            load("[api]\nlisten = \"127.0.0.1:1\"\n", &[("TALLYD_API_LISTEN", "127.0.0.1:2")]).unwrap();
        assert_eq!(config.api.listen.port(), 2);
        let error = load("", &[("TALLYD_INGEST_STATSD_LISTEN", "nowhere")]).unwrap_err();
        assert!(error.contains("TALLYD_INGEST_STATSD_LISTEN") && error.contains("nowhere"), "{error}");
        let off = load("", &[("TALLYD_INGEST_STATSD_LISTEN", "")]).unwrap();
        assert_eq!(off.ingest.statsd.listen, None);
    }

    #[test]
    fn an_api_for_other_machines_needs_a_token() {
        let error = load("[api]\nlisten = \"0.0.0.0:7480\"\n", &[]).unwrap_err();
        assert!(error.contains("token_file"), "{error}");
        assert!(load("[api]\nlisten = \"0.0.0.0:7480\"\ntoken_file = \"/t\"\n", &[]).is_ok());
    }

    #[test]
    fn timeouts_that_cannot_work_are_refused() {
        for wrong in ["min = \"10ms\"", "max = \"11m\"", "max = \"100ms\"", "min = \"11s\""] {
            let error = load(&format!("[cluster]\nelection_timeout_{wrong}\n"), &[]).unwrap_err();
            assert!(error.contains("election_timeout_m"), "{error}");
        }
        let fixed = "[cluster]\nelection_timeout_min = \"1s\"\nelection_timeout_max = \"1s\"\n";
        assert!(load(fixed, &[]).is_ok());
        let error = load("[commit]\ninterval = \"fast\"\n", &[]).unwrap_err();
        assert!(error.contains("line 2"), "{error}");
    }
}
