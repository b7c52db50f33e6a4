//! The witness, a role of the daemon (`tallyd run --witness`). It votes and stores a record of a few bytes for a
//! site with an even number of boxes, and for as many sites as it has slots.
//!
//! * `store`: the record on disk. `slot`: the witness of one site. `status`: their status over HTTP.
//!
//! A slot is a directory with an identity whose role is witness: its keys, its address, its record. What the
//! witness promises is decided by the core (`tally_core::raft::Witness`); this module only passes it messages and
//! makes its records durable before any answer is sent.

mod slot;
mod status;
pub mod store;

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::api;
use crate::config::Config;
use crate::daemon::{self, RunError};
use crate::identity::{IDENTITY, Identity, Role};
use crate::reload::Reload;
use crate::service;
use crate::signals::{self, Heard, Signals};
use slot::Slot;
use status::{Overview, Page};
pub use store::StoreError;

/// How long an orderly stop waits for writes of records and for requests.
const END_WAIT: Duration = Duration::from_secs(6);

/// `tallyd run --witness`, until a signal stops it.
pub async fn run(config_file: Option<PathBuf>, data_dir: Option<PathBuf>) -> Result<(), RunError> {
    let mut signals = Signals::ignore_others();
    let (config, dir, _) = daemon::configuration(config_file.clone(), data_dir.clone())?;
    let listener = api::bind(config.api.listen).await?;
    let mut overview = Overview::default();
    let mut slots = Vec::new();
    let directories = slot_directories(&dir)?;
    let alone = directories.len() == 1;
    for directory in directories {
        match open(&directory, (directory == dir).then_some(&config)).await {
            Ok(slot) => {
                overview.sites.push(slot.shared());
                slots.push(slot);
            }
            Err(why) if alone => return Err(why),
            // The other sites must not lose their witness by it.
            Err(why) => {
                error!("not served: {why}");
                overview.refused.push(status::Refused { directory, why: why.to_string() });
            }
        }
    }
    if slots.is_empty() {
        return Err(RunError::Other(format!("cannot serve any of the witnesses in {}", dir.display())));
    }
    signals.listen_to_stops();
    let overview = Arc::new(overview);
    let (stop, stopped) = watch::channel(false);
    let slots: Vec<_> = slots.into_iter().map(|slot| tokio::spawn(slot.run(stopped.clone()))).collect();
    let api_config = daemon::api_config(&config)?;
    let page = Page::new(&api_config, overview.clone());
    let serving = tokio::spawn(async move { api::serve(listener, page, &api_config, stopped).await });
    let service = service::ready(move || overview.line());
    info!("the witness serves its status at http://{}/v1/status", config.api.listen);

    let mut reload = Reload::new(config, config_file, data_dir).of_witness();
    loop {
        tokio::select! {
            heard = signals.next() => match heard {
                Heard::Stop(signal) => {
                    info!("{signal}: stopping");
                    break;
                }
                Heard::Reload => reload.begin(),
            },
            _ = reload.done() => {}
        }
    }
    signals::end_within(daemon::STOP_MAX);
    service.stopping();
    // A record that is being written is finished, and answered.
    let _ = stop.send(true);
    let ended = async {
        for slot in slots {
            let _ = slot.await;
        }
        let _ = serving.await;
    };
    if tokio::time::timeout(END_WAIT, ended).await.is_err() {
        warn!("the stop did not finish in time (does a disk hang?): no longer waiting");
    }
    Ok(())
}

/// Returns the directory itself, if it has an identity, else all directories in it that have one.
fn slot_directories(dir: &Path) -> Result<Vec<PathBuf>, RunError> {
    if dir.join(IDENTITY).exists() {
        return Ok(vec![dir.to_owned()]);
    }
    let entries = std::fs::read_dir(dir).map_err(|error| {
        RunError::Other(format!("{}: {error}; --data-dir must name the witness's directory", dir.display()))
    })?;
    let directories = entries.flatten().map(|entry| entry.path());
    let mut slots: Vec<PathBuf> = directories.filter(|path| path.join(IDENTITY).exists()).collect();
    slots.sort();
    if slots.is_empty() {
        return Err(RunError::Other(format!(
            "neither {} nor a directory in it holds an {IDENTITY}: copy the witness's directory that `tallyd \
             provision --witness` made",
            dir.display()
        )));
    }
    Ok(slots)
}

/// Opens a slot. `config`: the configuration that was already read, if it is the slot's own.
async fn open(dir: &Path, config: Option<&Config>) -> Result<Slot, RunError> {
    let Some(identity) = Identity::load(dir)? else {
        return Err(RunError::Other(format!("{}: its {IDENTITY} is gone", dir.display())));
    };
    if identity.me().role != Role::Witness {
        return Err(RunError::Other(format!(
            "{} belongs to {:?}, which is not a witness: run it without --witness",
            dir.display(),
            identity.me().name
        )));
    }
    let file = Some(dir.join("tallyd.toml")).filter(|file| file.exists());
    let own = match config {
        Some(config) => config.clone(),
        // What the environment says is for the process, not for one of its slots.
        None => Config::load(file.as_deref(), |_| None)?,
    };
    daemon::check_agreement(&own, &identity, dir)?;
    let listen = match (config, file) {
        (None, None) => everywhere(&identity.me().address),
        _ => own.cluster.listen,
    };
    Slot::open(dir, identity, listen).await
}

/// The port of an address, on all addresses of this machine.
fn everywhere(address: &str) -> SocketAddr {
    let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port.unwrap_or(7400)))
}
