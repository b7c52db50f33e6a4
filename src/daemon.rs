//! Puts the rooms together: `tallyd run`.

mod admin;
mod aside;
mod company;
mod door;
mod founding;
mod stop;
mod waiting;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::info;

use crate::api::{ADMIN_MAX, Api, ApiError, JoinAsk, JoinedForm, Name, Problem, Reply};
use crate::config::{Config, ConfigError, Found};
use crate::identity::{Identity, IdentityError};
use crate::ingest::{Destination, IngestError, WaysIn};
use crate::metrics::Metrics;
use crate::mqtt::AccessError;
use crate::node::{Handle, NodeConfig, NodeError, Runner, RunnerParts, StartError};
use crate::reload::Reload;
use crate::service;
use crate::signals::Signals;
use crate::startup::{self, StartupError};
use crate::storage::{Budget, OpenError, Owner, RealFileSystem, Storage};
use crate::upstream::{self, Upstream};
use company::Company;
use door::Door;
use waiting::Waited;

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
    let (mut door, mut told, mut had_port) = (Door::default(), false, false);
    loop {
        let found = Config::find(config_file.clone(), data_dir.clone())?;
        match founding::identity(&found)? {
            Some(identity) => {
                let reload = Reload::new(found.config.clone(), config_file.clone(), data_dir.clone());
                match Box::pin(serve(found, identity, reload, (&mut door, had_port), &mut signals)).await? {
                    Next::Stopped => return Ok(()),
                    Next::Again => {}
                }
            }
            None => match waiting::wait(&found, &mut door, &mut signals, &mut told).await? {
                Waited::Stopped => return Ok(()),
                Waited::Again => {}
            },
        }
        had_port = true;
    }
}

/// What follows when a box has stopped serving.
enum Next {
    /// The process ends.
    Stopped,
    /// It begins anew: with another identity, or none.
    Again,
}

/// Serves as a member of a site.
async fn serve(
    found: Found,
    identity: Identity,
    mut reload: Reload,
    (door, had_port): (&mut Door, bool),
    signals: &mut Signals,
) -> Result<Next, RunError> {
    let Found { config, dir, .. } = &found;
    let owner = Owner { site_id: identity.site_id.0, node: identity.node };
    let budget = founding::budget(config, dir);
    let (storage, recovered) = Storage::open(RealFileSystem, dir, owner, budget.options())?;
    let listener = door.open(config.api.listen).await?;
    let (events, transport_events) = mpsc::channel(1024);
    let mut company = Company::new(&found, identity.clone(), recovered.boot, events, had_port);
    let strangers = if company.is_alone() { None } else { Some(company.start().await?) };
    let metrics = Arc::new(Metrics::default());
    let transport = Arc::clone(&company.transport);
    let parts = RunnerParts { identity, storage, recovered, transport, transport_events, metrics };
    let (runner, handle) = Runner::start(parts, node_config(config, &budget))?;
    company.metrics = Arc::clone(handle.transport_metrics());
    if let Some(strangers) = strangers {
        company.take_in(&handle, strangers);
    }
    signals.listen_to_stops();
    let mut node = tokio::spawn(runner.run());
    let ways = Ways::open(config, &handle)?;

    let api_config = startup::api_config(config)?;
    let (admin, mut asked) = mpsc::channel(ADMIN_MAX);
    let api = Api::new(&api_config, handle.clone(), admin);
    let serving = startup::serve(listener, api, api_config);
    let service = service::ready_box(handle.clone());
    info!("the API and the page are at http://{}/", config.api.listen);

    let commit_every = async |interval| handle.commit_every(interval).await;
    let why = tokio::select! {
        () = startup::until_stopped(signals, &mut reload, commit_every) => Why::Asked,
        ended = &mut node => Why::Ended(ended),
        () = ways.show(&handle) => Why::Asked,
        (ask, reply) = admin::serve(&mut company, &handle, &mut asked) => Why::Joins(ask, reply),
    };
    let ended = match why {
        Why::Asked => None,
        Why::Ended(ended) => Some(ended),
        Why::Joins(ask, reply) => {
            // Nobody tells systemd anything meanwhile: this takes seconds.
            drop(service);
            let left = stop::leave((ways, None), (&handle, node, None), signals).await;
            ended_well(left)?;
            drop(company);
            let next = set_aside_and_join(&found, &ask, reply, signals).await;
            let _ = serving.stop.send(true);
            return Ok(next);
        }
    };
    service.stopping();
    door.close();
    let ended = stop::stop((ways, serving), (&handle, node, ended), signals).await;
    ended_well(ended).map(|()| Next::Stopped)
}

fn node_config(config: &Config, budget: &Budget) -> NodeConfig {
    NodeConfig {
        commit_interval: config.commit.interval,
        election_timeout: config.cluster.election_timeout(),
        snapshot_log_bytes: budget.snapshot_log_bytes(),
        ..NodeConfig::default()
    }
}

/// Why a box does not serve any longer.
enum Why {
    /// A signal asks for it.
    Asked,
    /// Its node has ended by itself.
    Ended(stop::Ended),
    /// It leaves its own site for another.
    Joins(JoinAsk, Reply<JoinedForm>),
}

fn ended_well(ended: stop::Ended) -> Result<(), RunError> {
    match ended {
        Ok(result) => result.map_err(RunError::from),
        Err(error) => Err(RunError::Other(format!("the node's task ended: {error}"))),
    }
}

/// Moves what a box has out of the way and joins; what it had is back if it is not taken in.
async fn set_aside_and_join(
    found: &Found,
    ask: &JoinAsk,
    reply: Reply<JoinedForm>,
    signals: &mut Signals,
) -> Next {
    // Whoever asked may have gone: what was done stays.
    let to = match aside::set_aside(&found.dir) {
        Ok(to) => to,
        Err(why) => {
            let _ = reply.send(Err(Problem::new(Name::JoinRefused, why)));
            return Next::Again;
        }
    };
    let joined = tokio::select! {
        joined = waiting::join(found, ask) => joined,
        signal = signals.stop() => {
            info!("{signal}: stopping");
            aside::bring_back(&found.dir, &to);
            return Next::Stopped;
        }
    };
    match joined {
        Ok(form) => {
            info!("what this box had is in {}", to.display());
            let _ = reply.send(Ok(JoinedForm { set_aside: Some(to.display().to_string()), ..form }));
        }
        Err(problem) => {
            // If it may be a member already, the same command finds out again.
            aside::bring_back(&found.dir, &to);
            let _ = reply.send(Err(problem));
        }
    }
    Next::Again
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
