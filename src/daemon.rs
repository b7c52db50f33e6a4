//! Puts the rooms together: `tallyd run`.

mod founding;
mod stop;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::info;

use crate::api::{self, Api, ApiError};
use crate::config::{Config, ConfigError, Found};
use crate::identity::IdentityError;
use crate::ingest::{Destination, IngestError, WaysIn};
use crate::metrics::Metrics;
use crate::mqtt::AccessError;
use crate::node::{Handle, NodeConfig, NodeError, Runner, RunnerParts, StartError};
use crate::reload::Reload;
use crate::service;
use crate::signals::Signals;
use crate::startup::{self, StartupError};
use crate::storage::{OpenError, Owner, RealFileSystem, Storage};
use crate::upstream::{self, Upstream};

/// How often the ways in and out are shown in the status.
const SHOW_EVERY: Duration = Duration::from_millis(500);

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each wraps another room's error, which says it all")]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Storage(#[from] OpenError),
    #[error(transparent)]
    Startup(#[from] StartupError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Upstream(#[from] AccessError),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error("{0}")]
    Other(String),
}

impl RunError {
    /// The exit status: systemd does not try again after 2.
    pub fn exit_status(&self) -> u8 {
        match self {
            RunError::Config(error) if error.is_lasting() => 2,
            _ => 1,
        }
    }
}

/// `tallyd run`, until a signal stops it.
///
/// # Errors
/// Why the box does not start, or cannot go on.
pub async fn run(config_file: Option<PathBuf>, data_dir: Option<PathBuf>) -> Result<(), RunError> {
    let mut signals = Signals::ignore_others();
    let Found { config, dir, has_file } = Config::find(config_file.clone(), data_dir.clone())?;
    let identity = founding::identity(&config, &dir, has_file)?;
    let owner = Owner { site_id: identity.site_id.0, node: identity.node };
    let budget = founding::budget(&config, &dir);
    let (storage, recovered) = Storage::open(RealFileSystem, &dir, owner, budget.options())?;
    let listener = api::bind(config.api.listen).await?;
    let (events, transport_events) = mpsc::channel(1024);
    // A box without an address was founded alone and stays so; one that was provisioned alone may get company.
    let transport = match identity.members.len() < 2 && identity.me().address.is_empty() {
        true => None,
        false => {
            let (boot, listen) = (recovered.boot, config.cluster.listen);
            Some(startup::transport(&identity, &dir, boot, listen, events).await?)
        }
    };
    let node_config = NodeConfig {
        commit_interval: config.commit.interval,
        election_timeout: config.cluster.election_timeout(),
        snapshot_log_bytes: budget.snapshot_log_bytes(),
        ..NodeConfig::default()
    };
    let metrics = Arc::new(Metrics::default());
    let parts = RunnerParts { identity, storage, recovered, transport, transport_events, metrics };
    let (runner, handle) = Runner::start(parts, node_config)?;
    signals.listen_to_stops();
    let mut node = tokio::spawn(runner.run());
    let ways = Ways::open(&config, &handle)?;

    let api_config = startup::api_config(&config)?;
    let api = Api::new(&api_config, handle.clone());
    let serving = startup::serve(listener, api, api_config);
    let service = service::ready_box(handle.clone());
    info!("the API and the page are at http://{}/", config.api.listen);

    let mut reload = Reload::new(config, config_file, data_dir);
    let commit_every = async |interval| handle.commit_every(interval).await;
    let ended = tokio::select! {
        () = startup::until_stopped(&mut signals, &mut reload, commit_every) => None,
        ended = &mut node => Some(ended),
        () = ways.show(&handle) => None,
    };
    service.stopping();
    match stop::stop((ways, serving), (&handle, node, ended), &mut signals).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(RunError::Other(format!("the node's task ended: {error}"))),
    }
}

/// The ways in and out.
struct Ways {
    ways_in: WaysIn,
    upstream: Upstream,
}

impl Ways {
    fn open(config: &Config, handle: &Handle) -> Result<Ways, RunError> {
        let identity = handle.identity();
        let node = format!("{}/{}", identity.me().name, identity.node);
        let to = Destination { node: &node, accumulator: handle.accumulator(), clock: handle.clock() };
        let ways_in = WaysIn::start(&config.ingest, &to)?;
        let upstream = upstream::spawn(handle.clone(), &config.upstream)?;
        Ok(Ways { ways_in, upstream })
    }

    /// Keeps the status up to date; never returns.
    async fn show(&self, handle: &Handle) {
        loop {
            self.ways_in.show(|name, status, figures| handle.show_ingest(name, status, figures));
            handle.show_upstream(serde_json::to_value(self.upstream.status()).unwrap_or_default());
            tokio::time::sleep(SHOW_EVERY).await;
        }
    }
}
