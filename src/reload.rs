//! SIGHUP: reads the configuration again, applies what can change while the daemon runs, and logs what needs a restart.

use std::path::PathBuf;
use std::time::Duration;

use ring::digest::{Digest, SHA256, digest};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::config::{ApiSection, ClusterSection, CommitSection, Config, Found, NodeSection, StorageSection};
use crate::upstream::UpstreamConfig;

/// The running configuration, and its source.
#[derive(Debug)]
pub struct Reload {
    running: Config,
    file: Option<PathBuf>,
    data_dir: Option<PathBuf>,
    /// A witness commits nothing.
    is_witness: bool,
    /// Hashes of the named files' contents at the start, once they have been requested.
    contents: Option<Contents>,
    /// The reader of these files, on a thread that may wait for a disk.
    reading_contents: Option<JoinHandle<Contents>>,
    /// The reader of the configuration, likewise.
    reading: Option<JoinHandle<Result<(Config, Contents), String>>>,
}

/// Hashes of the files whose contents are in force, by which a change of one alone is noticed. `None`: there is no such
/// file, or it cannot be read.
#[derive(Clone, Debug)]
struct Contents([Option<Digest>; 5]);

impl Contents {
    fn of(config: &Config) -> Contents {
        let UpstreamConfig { password_file, ca_file, .. } = &config.upstream;
        let ApiSection { token_file, tls_cert, tls_key, .. } = &config.api;
        let files = [token_file, tls_cert, tls_key, password_file, ca_file];
        Contents(files.map(|file| {
            let bytes = crate::outside::read(file.as_deref()?).ok()?;
            Some(digest(&SHA256, &bytes))
        }))
    }

    /// The files whose content has changed.
    fn changed_files(&self, now: &Contents) -> impl Iterator<Item = &'static str> {
        let bytes = |content: &Option<Digest>| content.as_ref().map(|digest| digest.as_ref().to_vec());
        let both = self.0.iter().zip(&now.0).map(move |(then, now)| bytes(then) == bytes(now));
        let names = [
            "the file api.token_file",
            "the file api.tls_cert",
            "the file api.tls_key",
            "the file upstream.password_file",
            "the file upstream.ca_file",
        ];
        let changed: Vec<_> = names.into_iter().zip(both).filter(|(_, same)| !same).collect();
        changed.into_iter().map(|(name, _)| name)
    }
}

impl Reload {
    /// Makes the reload of a box. `file` and `data_dir` come from the command line. Call this on the runtime.
    pub fn new(running: Config, file: Option<PathBuf>, data_dir: Option<PathBuf>) -> Reload {
        let config = running.clone();
        let reading_contents = tokio::task::spawn_blocking(move || Contents::of(&config));
        let reading_contents = Some(reading_contents);
        Reload { running, file, data_dir, is_witness: false, contents: None, reading_contents, reading: None }
    }

    /// Makes the reload of a witness, which applies nothing while it runs.
    #[must_use]
    pub fn of_witness(self) -> Reload {
        Reload { is_witness: true, ..self }
    }

    /// Starts to read the configuration, unless a reader is running.
    pub fn begin(&mut self) {
        if self.reading.is_some() {
            return warn!("SIGHUP: the previous reload is still reading the configuration");
        }
        let (file, data_dir) = (self.file.clone(), self.data_dir.clone());
        let read = move || {
            Config::find(file, data_dir).map(|Found { config, .. }| {
                let contents = Contents::of(&config);
                (config, contents)
            })
        };
        self.reading = Some(tokio::task::spawn_blocking(move || read().map_err(|error| error.to_string())));
    }

    /// Waits until the configuration was read (for ever if no reader runs), and logs the result. Returns a new
    /// `commit.interval`, if there is one.
    pub async fn done(&mut self) -> Option<Duration> {
        let Some(reading) = &mut self.reading else { return std::future::pending().await };
        if let Some(contents) = &mut self.reading_contents {
            let contents = contents.await;
            (self.reading_contents, self.contents) = (None, contents.ok());
        }
        let read = reading.await;
        self.reading = None;
        match read {
            Ok(Ok((new, contents))) => self.compare(&new, &contents),
            Ok(Err(why)) => {
                error!("SIGHUP: {why}; nothing was changed");
                None
            }
            Err(why) => {
                error!("SIGHUP: cannot read the configuration: {why}; nothing was changed");
                None
            }
        }
    }

    fn compare(&mut self, new: &Config, contents: &Contents) -> Option<Duration> {
        let mut changed = changed_keys(&self.running, new);
        // Of one that has another name now the key is told.
        let names = |name: &&str| !changed.iter().any(|key| name.ends_with(key));
        let files: Vec<_> =
            self.contents.iter().flat_map(|then| then.changed_files(contents)).filter(names).collect();
        changed.extend(files);
        let is_live = changed.contains(&INTERVAL) && !self.is_witness;
        if is_live {
            changed.retain(|key| *key != INTERVAL);
            self.running.commit.interval = new.commit.interval;
            info!("SIGHUP: {INTERVAL} is now {:?}", new.commit.interval);
        }
        if !changed.is_empty() {
            warn!("SIGHUP: changes of {} take effect only after a restart", changed.join(", "));
        } else if !is_live {
            info!("SIGHUP: the configuration has not changed");
        }
        is_live.then_some(new.commit.interval)
    }
}

const INTERVAL: &str = "commit.interval";

/// The keys whose values differ. Destructures all fields, so that no key can be forgotten.
fn changed_keys(running: &Config, new: &Config) -> Vec<&'static str> {
    let Config { node, cluster, api, ingest, upstream, commit, storage } = running;
    let NodeSection { name, data_dir } = node;
    let ClusterSection { listen, advertise, election_timeout_min, election_timeout_max } = cluster;
    let ApiSection { listen: api_listen, socket, tls_cert, tls_key, anonymous, token_file, connections_max } =
        api;
    let UpstreamConfig { url, password_file, ca_file, base, format } = upstream;
    let StorageSection { bytes_max } = storage;
    let CommitSection { interval } = commit;
    let before = [
        ("node.name", *name == new.node.name),
        ("node.data_dir", *data_dir == new.node.data_dir),
        ("cluster.listen", *listen == new.cluster.listen),
        ("cluster.advertise", *advertise == new.cluster.advertise),
        ("cluster.election_timeout_min", *election_timeout_min == new.cluster.election_timeout_min),
        ("cluster.election_timeout_max", *election_timeout_max == new.cluster.election_timeout_max),
        ("api.listen", *api_listen == new.api.listen),
        ("api.socket", *socket == new.api.socket),
        ("api.tls_cert", *tls_cert == new.api.tls_cert),
        ("api.tls_key", *tls_key == new.api.tls_key),
        ("api.anonymous", *anonymous == new.api.anonymous),
        ("api.token_file", *token_file == new.api.token_file),
        ("api.connections_max", *connections_max == new.api.connections_max),
    ];
    let after = [
        ("upstream.url", *url == new.upstream.url),
        ("upstream.base", *base == new.upstream.base),
        ("upstream.password_file", *password_file == new.upstream.password_file),
        ("upstream.ca_file", *ca_file == new.upstream.ca_file),
        ("upstream.format", *format == new.upstream.format),
        ("storage.bytes_max", *bytes_max == new.storage.bytes_max),
        (INTERVAL, *interval == new.commit.interval),
    ];
    let names = |keys: &[(&'static str, bool)]| -> Vec<&'static str> {
        keys.iter().filter(|(_, same)| !same).map(|(key, _)| *key).collect()
    };
    [names(&before), ingest.changed(&new.ingest), names(&after)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::read(text, "test", |_| None).unwrap()
    }

    #[tokio::test]
    async fn a_reload_names_what_needs_a_restart_and_takes_the_rest() {
        let running = config("[api]\nlisten = \"127.0.0.1:1\"\n");
        let mut reload = Reload::new(running.clone(), None, None);
        let none = Contents::of(&running);
        assert_eq!(reload.compare(&running, &none), None);
        let new = config(
            "[api]\nlisten = \"127.0.0.1:2\"\n[commit]\ninterval = \"5s\"\n\
             [[ingest.poll]]\nfile = \"/proc/uptime\"\nseries = \"up\"\npattern = \"(.+)\"\nkind = \"sample\"\nevery = \"1s\"\n",
        );
        assert_eq!(changed_keys(&running, &new), ["api.listen", "ingest.poll", INTERVAL]);
        assert_eq!(reload.compare(&new, &none), Some(Duration::from_secs(5)));
        // What is in force now is compared with, and what was not taken is named again.
        assert_eq!(reload.compare(&new, &none), None);
        assert_eq!(changed_keys(&reload.running, &new), ["api.listen", "ingest.poll"]);
    }
    #[test]
    fn a_file_that_has_another_content_is_named_though_the_configuration_is_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let [token, authority] = ["token", "ca.pem"].map(|name| directory.path().join(name));
        std::fs::write(&token, "0123456789abcdef").unwrap();
        std::fs::write(&authority, "first").unwrap();
        let text = format!("[api]\ntoken_file = {token:?}\n[upstream]\nca_file = {authority:?}\n");
        let then = Contents::of(&config(&text));
        let changed = || then.changed_files(&Contents::of(&config(&text))).collect::<Vec<_>>();
        assert_eq!(changed(), Vec::<&str>::new());
        std::fs::write(&authority, "second").unwrap();
        assert_eq!(changed(), ["the file upstream.ca_file"]);
        std::fs::remove_file(&token).unwrap();
        assert_eq!(changed(), ["the file api.token_file", "the file upstream.ca_file"]);
    }
}
