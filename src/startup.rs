//! What a box and a witness have in common: how one starts, what signals ask of it until it stops.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::api::{self, Answers, ApiConfig};
use crate::config::Config;
use crate::identity::{Identity, IdentityError, Keys};
use crate::reload::Reload;
use crate::secret::Secret;
use crate::signals::{Heard, Signals};
use crate::transport::{Event, Incarnations, Transport, TransportError, TransportMetrics};

/// Whatever hangs, the process ends so long after the signal that stops it.
pub(crate) const STOP_MAX: Duration = Duration::from_millis(9_500);

/// Why neither a box nor a witness starts.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// The keys cannot be had.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Nobody can be listened to.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The configuration is wrong.
    #[error("{0}")]
    Wrong(String),
}

/// Checks that a configuration does not contradict who this is.
///
/// # Errors
/// It names another box.
pub(crate) fn check_agreement(config: &Config, identity: &Identity, dir: &Path) -> Result<(), StartupError> {
    if let Some(name) = &config.node.name
        && *name != identity.me().name
    {
        return Err(StartupError::Wrong(format!(
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
            "cluster.advertise is {advertise:?}, and identity.json says {:?}: the other boxes use the \
             address that `tallyd members` shows; to change it, run `tallyd member add {}={advertise} --id \
             {} --key {}`",
            identity.me().address,
            identity.me().name,
            identity.node,
            identity.me().key
        );
    }
    Ok(())
}

/// Begins to listen to the peers, and to dial them. `boot`: how often this member has started.
///
/// # Errors
/// The keys cannot be had, or the address cannot.
pub(crate) async fn transport(
    identity: &Identity,
    dir: &Path,
    boot: u64,
    (listen, events, metrics): (SocketAddr, mpsc::Sender<Event>, Arc<TransportMetrics>),
) -> Result<Arc<Transport>, StartupError> {
    let (keys, lives) = (Keys::load(dir)?, Incarnations::load(dir, boot));
    Ok(Arc::new(Transport::start(identity, keys, listen, events, metrics, lives).await?))
}

/// The API as the configuration has it.
///
/// # Errors
/// The file of the token cannot be read, or holds none.
pub(crate) fn api_config(config: &Config) -> Result<ApiConfig, StartupError> {
    let mut api = ApiConfig::new(config.api.listen);
    api.connections_max = config.api.connections_max;
    if let Some(file) = &config.api.token_file {
        let line = Secret::first_line(file)
            .map_err(|error| StartupError::Wrong(format!("api.token_file {}: {error}", file.display())))?;
        let token = line.reveal().trim();
        if token.len() < 16 {
            let what = format!(
                "api.token_file {}: the first line must be the token, of 16 characters or more",
                file.display()
            );
            return Err(StartupError::Wrong(what));
        }
        api.token = Some(Secret::new(token));
    }
    Ok(api)
}

/// The HTTP listener at work.
#[derive(Debug)]
pub(crate) struct Serving {
    /// Ends it once it is `true`; whoever else is to stop with it subscribes.
    pub(crate) stop: watch::Sender<bool>,
    /// It, until the last request is answered.
    pub(crate) task: JoinHandle<()>,
}

/// Answers HTTP requests from now on.
pub(crate) fn serve<A: Answers>(listener: TcpListener, answers: A, config: ApiConfig) -> Serving {
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(async move { api::serve(listener, answers, &config, stopped).await });
    Serving { stop, task }
}

/// Does what signals ask for until one of them stops the process. `commit_every`: takes over another `commit.interval`.
pub(crate) async fn until_stopped(
    signals: &mut Signals,
    reload: &mut Reload,
    commit_every: impl AsyncFn(Duration),
) {
    loop {
        tokio::select! {
            heard = signals.next() => match heard {
                Heard::Stop(signal) => return info!("{signal}: stopping"),
                Heard::Reload => reload.begin(),
            },
            interval = reload.done() => if let Some(interval) = interval {
                commit_every(interval).await;
            },
        }
    }
}
