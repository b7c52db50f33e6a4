//! Puts the rooms together: `tallyd run`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::api::{self, Api, ApiConfig, ApiError, Secret};
use crate::config::{Config, ConfigError};
use crate::environment;
use crate::identity::{Identity, IdentityError, Keys, Role, check_address, is_name};
use crate::ingest::poll::Polls;
use crate::ingest::statsd::{Statsd, StatsdError};
use crate::metrics::Metrics;
use crate::mqtt::AccessError;
use crate::node::{Handle, MemberStatus, NodeConfig, NodeError, Runner, RunnerParts, StartError, StopTimes};
use crate::reload::Reload;
use crate::service;
use crate::signals::{self, Heard, Signals};
use crate::site::units::Unit;
use crate::storage::{Budget, OpenError, Owner, RealFileSystem, Storage, partition_bytes};
use crate::transport::{Incarnations, Transport, TransportError, TransportMetrics};
use crate::upstream::{self, Upstream};

/// Where a configuration is looked for when none is named, after the data directory.
const SYSTEM_CONFIG: &str = "/etc/tallyd/tallyd.toml";
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
    Transport(#[from] TransportError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Statsd(#[from] StatsdError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Upstream(#[from] AccessError),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    Witness(#[from] crate::witness::StoreError),
    #[error("{0}")]
    Other(String),
}

/// How long the ways in and out have to end in good order,
const CLOSE_WAIT: Duration = Duration::from_millis(3_500);
/// StatsD, in a hurry, to count what it has read,
const STATSD_WAIT: Duration = Duration::from_millis(300);
/// those who wait for an answer to get it,
const ANSWER_WAIT: Duration = Duration::from_millis(2_500);
/// what was counted to be committed,
const COMMIT_WAIT: Duration = Duration::from_millis(6_500);
/// and the rest to be saved. All of them from the signal on.
const SAVE_WAIT: Duration = Duration::from_millis(8_500);
/// Whatever hangs, the process ends after so long.
pub(crate) const STOP_MAX: Duration = Duration::from_millis(9_500);

/// `tallyd run`, until a signal stops it.
pub async fn run(config_file: Option<PathBuf>, data_dir: Option<PathBuf>) -> Result<(), RunError> {
    let mut signals = Signals::ignore_others();
    let (config, dir, had_file) = configuration(config_file.clone(), data_dir.clone())?;
    let identity = identity(&config, &dir, had_file)?;
    let owner = Owner { site_id: identity.site_id.0, node: identity.node };
    let budget = budget(&config, &dir);
    let (storage, recovered) = Storage::open(RealFileSystem, &dir, owner, budget.options())?;
    let listener = api::bind(config.api.listen).await?;
    let (events, transport_events) = mpsc::channel(1024);
    let transport = transport(&identity, &config, &dir, recovered.boot, events).await?;
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

    let (stop_api, stopped) = watch::channel(false);
    let api_config = api_config(&config)?;
    let api = Api::new(&api_config, handle.clone());
    let serving = tokio::spawn(async move { api::serve(listener, api, &api_config, stopped).await });
    let shown = handle.clone();
    let service = service::ready(move || service::line(&shown.status()));
    info!("the API and the page are at http://{}/", config.api.listen);

    let mut reload = Reload::new(config, config_file, data_dir);
    let ended = tokio::select! {
        () = until_stopped(&mut signals, &mut reload, &handle) => None,
        ended = &mut node => Some(ended),
        () = ways.show(&handle) => None,
    };
    let since = Instant::now();
    signals::end_within(STOP_MAX);
    service.stopping();
    if ended.is_none() {
        handle.answer_by(since + ANSWER_WAIT).await;
    }
    close(ways, &handle, (stop_api, serving), &mut signals).await;
    let result = match ended {
        Some(ended) => ended,
        None => {
            let times = StopTimes { commit_by: since + COMMIT_WAIT, end_by: since + SAVE_WAIT };
            let stopped = handle.stop(times);
            tokio::pin!(stopped);
            tokio::select! {
                () = &mut stopped => {}
                signal = signals.stop() => {
                    info!("{signal} again: not waiting for commits any longer");
                    handle.hurry().await;
                    stopped.await;
                }
            }
            node.await
        }
    };
    match result {
        Ok(result) => Ok(result?),
        Err(error) => Err(RunError::Other(format!("the node's task ended: {error}"))),
    }
}

/// Does what signals ask for until one of them stops the daemon.
async fn until_stopped(signals: &mut Signals, reload: &mut Reload, handle: &Handle) {
    loop {
        tokio::select! {
            heard = signals.next() => match heard {
                Heard::Stop(signal) => return info!("{signal}: stopping"),
                Heard::Reload => reload.begin(),
            },
            interval = reload.done() => if let Some(interval) = interval {
                handle.commit_every(interval).await;
            },
        }
    }
}

/// Closes the ways in and out, and the API, all at once: in good order as far as they do it in time, and as far as no
/// second signal asks to hurry. Requests that wait are answered while the node still runs.
async fn close(
    ways: Ways,
    handle: &Handle,
    (stop_api, mut serving): (watch::Sender<bool>, JoinHandle<()>),
    signals: &mut Signals,
) {
    let is_box = |member: &&MemberStatus| member.connected && member.membership != "witness";
    let last = handle.status().members.iter().filter(is_box).count() <= 1;
    let _ = stop_api.send(true);
    let Ways { statsd, polls, upstream } = ways;
    // What it has read is counted by then. It joins a thread, which the runtime must not wait for.
    let mut statsd = tokio::task::spawn_blocking(move || statsd.map(Statsd::stop));
    // A file that hangs is not waited for.
    drop(polls);
    let closed = async {
        // A panic in there is in the log already.
        let _ = (&mut statsd).await;
        tokio::join!(upstream.stop(last), async { (&mut serving).await })
    };
    let in_time = tokio::time::timeout(CLOSE_WAIT, closed);
    tokio::select! {
        closed = in_time => if closed.is_err() {
            warn!("not everything was closed in time: stopping without waiting any longer");
        },
        signal = signals.stop() => {
            info!("{signal} again: not waiting any longer");
            handle.hurry().await;
        }
    }
    serving.abort();
    // However much of a hurry: what it has read is to be saved, and takes no time to count.
    if !statsd.is_finished() {
        let _ = tokio::time::timeout(STATSD_WAIT, statsd).await;
    }
}

/// The ways in and out.
struct Ways {
    statsd: Option<Statsd>,
    polls: Polls,
    upstream: Upstream,
}

impl Ways {
    fn open(config: &Config, handle: &Handle) -> Result<Ways, RunError> {
        let (accumulator, clock) = (handle.accumulator(), handle.clock());
        let listen = &config.ingest.statsd.listen;
        let statsd = (!listen.addresses.is_empty())
            .then(|| Statsd::start(&listen.addresses, listen.is_default, Arc::clone(accumulator)))
            .transpose()?;
        let identity = handle.identity();
        let node = format!("{}/{}", identity.me().name, identity.node);
        let polls = Polls::start(config.polls().map_err(RunError::Other)?, &node, accumulator, clock);
        let upstream = upstream::spawn(handle.clone(), &config.upstream)?;
        Ok(Ways { statsd, polls, upstream })
    }

    /// Keeps the status up to date; never returns.
    async fn show(&self, handle: &Handle) {
        loop {
            if let Some(statsd) = &self.statsd {
                handle.show_ingest("statsd", to_value(&statsd.status()));
            }
            handle.show_ingest("poll", to_value(&self.polls.status()));
            handle.show_upstream(to_value(&self.upstream.status()));
            tokio::time::sleep(SHOW_EVERY).await;
        }
    }
}

fn to_value(status: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(status).unwrap_or_default()
}

/// The configuration, the data directory, and whether there was a file.
pub(crate) fn configuration(
    file: Option<PathBuf>,
    data_dir: Option<PathBuf>,
) -> Result<(Config, PathBuf, bool), RunError> {
    let explicit = data_dir.or_else(|| environment::value("TALLYD_NODE_DATA_DIR").map(PathBuf::from));
    let guess = explicit.clone().unwrap_or_else(default_data_dir);
    let system = Path::new(SYSTEM_CONFIG).exists().then(|| PathBuf::from(SYSTEM_CONFIG));
    let inside = guess.join("tallyd.toml");
    let file = file.or_else(|| inside.exists().then_some(inside)).or(system);
    let config = Config::load(file.as_deref(), environment::text)?;
    let dir = explicit.or_else(|| config.node.data_dir.clone()).unwrap_or(guess);
    Ok((config, dir, file.is_some()))
}

fn default_data_dir() -> PathBuf {
    if let Some(dirs) = environment::value("STATE_DIRECTORY") {
        // systemd names all that a unit has, divided by colons.
        return std::env::split_paths(&dirs).next().unwrap_or_default();
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/tallyd");
    }
    let state = environment::value("XDG_STATE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(environment::value("HOME").unwrap_or_default()).join(".local/state");
    state.unwrap_or_else(home).join("tallyd")
}

/// Who this box is: as provisioned; founded now if nothing at all was said about a site.
fn identity(config: &Config, dir: &Path, had_file: bool) -> Result<Identity, RunError> {
    let identity = match Identity::load(dir)? {
        Some(identity) => identity,
        None if had_file => {
            return Err(RunError::Other(format!(
                "{} holds no identity, and there is a configuration, so no new site is founded here (a disk may \
                 not be mounted): copy the box's directory that `tallyd provision` made, or run without a \
                 configuration for a site of one box",
                dir.display()
            )));
        }
        None => {
            let name = config.node.name.clone().unwrap_or_else(host_name);
            info!("founding a site of one box, {name:?}, in {}", dir.display());
            let address = config.cluster.advertise.as_deref().unwrap_or_default();
            if !address.is_empty() {
                check_address(address).map_err(|why| RunError::Other(format!("cluster.advertise: {why}")))?;
            }
            Identity::found_single(dir, &name, &name, address)?
        }
    };
    if identity.me().role == Role::Witness {
        return Err(RunError::Other(format!(
            "{} belongs to {:?}, the witness of its site: run it with --witness",
            dir.display(),
            identity.me().name
        )));
    }
    check_agreement(config, &identity, dir)?;
    Ok(identity)
}

/// Whether a configuration contradicts who this is.
pub(crate) fn check_agreement(config: &Config, identity: &Identity, dir: &Path) -> Result<(), RunError> {
    if let Some(name) = &config.node.name
        && *name != identity.me().name
    {
        return Err(RunError::Other(format!(
            "node.name is {name:?}, but {} belongs to box {:?}: correct the name or the data directory",
            dir.display(),
            identity.me().name
        )));
    }
    if let Some(advertise) = &config.cluster.advertise
        && *advertise != identity.me().address
    {
        // The site may have been told already: identity.json says what was so when it was made.
        warn!(
            "cluster.advertise is {advertise:?}, and identity.json says {:?}: the other boxes reach this one where \
             `tallyd members` says; `tallyd member add {}={advertise} --id {} --key {}` tells them a new address",
            identity.me().address,
            identity.me().name,
            identity.node,
            identity.me().key
        );
    }
    Ok(())
}

/// What log, snapshots and spare files may have together, told where the partition is small for it.
fn budget(config: &Config, dir: &Path) -> Budget {
    let partition = partition_bytes(dir);
    let budget = match config.storage.bytes_max {
        Some(bytes) => Budget::new(bytes),
        // A file system that does not say its size is taken for a large one.
        None => Budget::of_partition(partition.unwrap_or(u64::MAX)),
    };
    if let Some(partition) = partition {
        let (has, bound) = (partition >> 20, Unit::Bytes.format(budget.bytes_max()));
        if partition < Budget::LEAST_PARTITION {
            warn!(
                "{} is on a partition of {has} MiB, which is too small: log and snapshots need up to {bound}, on a \
                 partition of {} MiB or more; the box goes on for as long as there is space",
                dir.display(),
                Budget::LEAST_PARTITION >> 20
            );
        } else if budget.bytes_max() > partition {
            warn!("storage.bytes_max is {bound}, but the partition of {} has {has} MiB", dir.display());
        }
    }
    budget
}

/// The host name as far as it can name a box.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let name: String = name.split('.').next().unwrap_or_default().chars().take(32).collect();
    if is_name(&name) { name } else { "box1".to_owned() }
}

async fn transport(
    identity: &Identity,
    config: &Config,
    dir: &Path,
    boot: u64,
    events: mpsc::Sender<crate::transport::Event>,
) -> Result<Option<Arc<Transport>>, RunError> {
    // A box without an address was founded alone and stays so; one that was provisioned alone may get company.
    if identity.members.len() < 2 && identity.me().address.is_empty() {
        return Ok(None);
    }
    let keys = Keys::load(dir)?;
    let listen: SocketAddr = config.cluster.listen;
    let metrics = Arc::new(TransportMetrics::default());
    Ok(Some(Arc::new(
        Transport::start(identity, keys, listen, events, metrics, Incarnations::load(dir, boot)).await?,
    )))
}

pub(crate) fn api_config(config: &Config) -> Result<ApiConfig, RunError> {
    let mut api = ApiConfig::new(config.api.listen);
    api.connections_max = config.api.connections_max;
    if let Some(file) = &config.api.token_file {
        let text = crate::outside::read_to_string(file)
            .map_err(|error| RunError::Other(format!("api.token_file {}: {error}", file.display())))?;
        let token = text.lines().next().unwrap_or_default().trim();
        if token.len() < 16 {
            let what = format!(
                "api.token_file {}: the first line is the token, of 16 characters or more",
                file.display()
            );
            return Err(RunError::Other(what));
        }
        api.token = Some(Secret::new(token.as_bytes().to_vec()));
    }
    Ok(api)
}
