//! SIGHUP: the configuration is read again; what can follow it does, and of the rest it is said that it cannot.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::config::{
    ApiSection, ClusterSection, CommitSection, Config, IngestSection, NodeSection, StatsdSection,
    StorageSection,
};
use crate::daemon::configuration;
use crate::upstream::UpstreamConfig;

/// The configuration as it runs, and where it came from.
#[derive(Debug)]
pub struct Reload {
    running: Config,
    file: Option<PathBuf>,
    data_dir: Option<PathBuf>,
    /// A witness commits nothing.
    is_witness: bool,
    /// Reads it, on a thread that may wait for a disk.
    reading: Option<JoinHandle<Result<Config, String>>>,
}

impl Reload {
    /// `file` and `data_dir`: as the command line says.
    pub fn new(running: Config, file: Option<PathBuf>, data_dir: Option<PathBuf>) -> Reload {
        Reload { running, file, data_dir, is_witness: false, reading: None }
    }

    /// For a witness, which takes over nothing while it runs.
    #[must_use]
    pub fn of_witness(self) -> Reload {
        Reload { is_witness: true, ..self }
    }

    /// Begins to read, if it is not read already.
    pub fn begin(&mut self) {
        if self.reading.is_some() {
            return warn!("SIGHUP: the configuration is being read since the last one, which takes long");
        }
        let (file, data_dir) = (self.file.clone(), self.data_dir.clone());
        let read = move || configuration(file, data_dir).map(|(config, ..)| config);
        self.reading = Some(tokio::task::spawn_blocking(move || read().map_err(|error| error.to_string())));
    }

    /// Waits until it was read, for ever if nobody asked; says what comes of it. The answer is another
    /// `commit.interval`, if there is one.
    pub async fn done(&mut self) -> Option<Duration> {
        let Some(reading) = &mut self.reading else { return std::future::pending().await };
        let read = reading.await;
        self.reading = None;
        match read {
            Ok(Ok(new)) => self.compare(&new),
            Ok(Err(why)) => {
                error!("SIGHUP: {why}; nothing was changed");
                None
            }
            Err(why) => {
                error!("SIGHUP: the configuration cannot be read: {why}; nothing was changed");
                None
            }
        }
    }

    fn compare(&mut self, new: &Config) -> Option<Duration> {
        let mut changed = changed(&self.running, new);
        let is_live = changed.contains(&INTERVAL) && !self.is_witness;
        if is_live {
            changed.retain(|key| *key != INTERVAL);
            self.running.commit.interval = new.commit.interval;
            info!("SIGHUP: {INTERVAL} is {:?} from now on", new.commit.interval);
        }
        if !changed.is_empty() {
            warn!("SIGHUP: what has changed in {} is in force after a restart only", changed.join(", "));
        } else if !is_live {
            info!("SIGHUP: the configuration says what is in force already; nothing was changed");
        }
        is_live.then_some(new.commit.interval)
    }
}

const INTERVAL: &str = "commit.interval";

/// The keys whose values differ. Taken apart in full, so that no key can be forgotten.
fn changed(running: &Config, new: &Config) -> Vec<&'static str> {
    let Config { node, cluster, api, ingest, upstream, commit, storage } = running;
    let NodeSection { name, data_dir } = node;
    let ClusterSection { listen, advertise, election_timeout_min, election_timeout_max } = cluster;
    let ApiSection { listen: api_listen, token_file, connections_max } = api;
    let IngestSection { statsd: StatsdSection { listen: statsd }, poll } = ingest;
    let UpstreamConfig { url, password_file, ca_file, base, format } = upstream;
    let StorageSection { bytes_max } = storage;
    let CommitSection { interval } = commit;
    let keys = [
        ("node.name", *name == new.node.name),
        ("node.data_dir", *data_dir == new.node.data_dir),
        ("cluster.listen", *listen == new.cluster.listen),
        ("cluster.advertise", *advertise == new.cluster.advertise),
        ("cluster.election_timeout_min", *election_timeout_min == new.cluster.election_timeout_min),
        ("cluster.election_timeout_max", *election_timeout_max == new.cluster.election_timeout_max),
        ("api.listen", *api_listen == new.api.listen),
        ("api.token_file", *token_file == new.api.token_file),
        ("api.connections_max", *connections_max == new.api.connections_max),
        ("ingest.statsd.listen", *statsd == new.ingest.statsd.listen),
        ("ingest.poll", *poll == new.ingest.poll),
        ("upstream.url", *url == new.upstream.url),
        ("upstream.base", *base == new.upstream.base),
        ("upstream.password_file", *password_file == new.upstream.password_file),
        ("upstream.ca_file", *ca_file == new.upstream.ca_file),
        ("upstream.format", *format == new.upstream.format),
        ("storage.bytes_max", *bytes_max == new.storage.bytes_max),
        (INTERVAL, *interval == new.commit.interval),
    ];
    keys.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::read(text, "test", |_| None).unwrap()
    }

    #[test]
    fn a_reload_names_what_needs_a_restart_and_takes_the_rest() {
        let running = config("[api]\nlisten = \"127.0.0.1:1\"\n");
        let mut reload = Reload::new(running.clone(), None, None);
        assert_eq!(reload.compare(&running), None);
        let new = config(
            "[api]\nlisten = \"127.0.0.1:2\"\n[commit]\ninterval = \"5s\"\n\
             [[ingest.poll]]\nfile = \"/proc/uptime\"\nseries = \"up\"\npattern = \"(.+)\"\nkind = \"sample\"\nevery = \"1s\"\n",
        );
        assert_eq!(changed(&running, &new), ["api.listen", "ingest.poll", INTERVAL]);
        assert_eq!(reload.compare(&new), Some(Duration::from_secs(5)));
        // What is in force now is compared with, and what was not taken is named again.
        assert_eq!(reload.compare(&new), None);
        assert_eq!(changed(&reload.running, &new), ["api.listen", "ingest.poll"]);
    }
}
