//! The witness, a role of the daemon (`tallyd run --witness`). It votes and stores a record of a few bytes for a
//! site with an even number of boxes, and for as many sites as it has slots.
//!
//! * `store`: the record on disk. `keeper`: what a witness does about what it hears, without I/O. `slot`: the witness of
//!   one site, which does as it says. `status`: their status over HTTP.
//!
//! A slot is a directory with an identity whose role is witness: its keys, its address, its record. What the
//! witness promises is decided by the core (`tally_core::raft::Witness`); this module only passes it messages and
//! makes its records durable before any answer is sent.

mod keeper;
mod slot;
mod status;
pub mod store;

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tally_core::raft::MemberRole;
use tracing::{error, info, warn};

use crate::api::{self, ApiError, Listeners};
use crate::config::{Config, ConfigError, Found};
use crate::identity::{IDENTITY, Identity, IdentityError};
use crate::reload::Reload;
use crate::service;
use crate::signals::{self, Signals};
use crate::startup::{self, StartupError};
pub use keeper::{Answer, Heard, Ignored, Keeper, message_in};
use slot::Slot;
use status::{Overview, Page};
pub use store::{Store, StoreError};

/// How long an orderly stop waits for writes of records and for requests.
const END_WAIT: Duration = Duration::from_secs(6);

/// Why the witness does not run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each wraps another room's error, which says it all")]
pub enum WitnessError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Startup(#[from] StartupError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("{0}")]
    Other(String),
}

impl WitnessError {
    /// The exit status: systemd does not try again after 2.
    pub fn exit_status(&self) -> u8 {
        match self {
            WitnessError::Config(error) if error.is_lasting() => 2,
            _ => 1,
        }
    }
}

/// `tallyd run --witness`, until a signal stops it.
///
/// # Errors
/// Why the witness does not start, or cannot go on.
pub async fn run(config_file: Option<PathBuf>, data_dir: Option<PathBuf>) -> Result<(), WitnessError> {
    let mut signals = Signals::ignore_others();
    let Found { config, dir, .. } = Config::find(config_file.clone(), data_dir.clone())?;
    let tcp = api::bind(config.api.listen).await?;
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
        return Err(WitnessError::Other(format!("cannot serve any of the witnesses in {}", dir.display())));
    }
    signals.listen_to_stops();
    let overview = Arc::new(overview);
    let api_config = startup::api_config(&config, &dir, ("", ""))?;
    let page = Page::new(&api_config, overview.clone());
    if api_config.encryption.is_some() {
        startup::log_api(&api_config);
    }
    let status = format!("{}/v1/status", api_config.url());
    // There is nothing to administer: no admin socket.
    let serving = startup::serve(Listeners { tcp, socket: None }, page, api_config);
    let run = |slot: Slot| tokio::spawn(slot.run(serving.stop.subscribe()));
    let slots: Vec<_> = slots.into_iter().map(run).collect();
    let service = service::ready(move || overview.line());
    info!("the witness serves its status at {status}");

    let mut reload = Reload::new(config, config_file, data_dir).of_witness();
    // It commits nothing.
    startup::until_stopped(&mut signals, &mut reload, async |_| ()).await;
    signals::end_within(startup::STOP_MAX);
    service.stopping();
    // A record that is being written is finished, and answered.
    let _ = serving.stop.send(true);
    let ended = async {
        for slot in slots {
            let _ = slot.await;
        }
        let _ = serving.task.await;
    };
    if tokio::time::timeout(END_WAIT, ended).await.is_err() {
        warn!("the stop did not finish in time (does a disk hang?): no longer waiting");
    }
    Ok(())
}

/// Returns the directory itself, if it has an identity, else all directories in it that have one.
fn slot_directories(dir: &Path) -> Result<Vec<PathBuf>, WitnessError> {
    if dir.join(IDENTITY).exists() {
        return Ok(vec![dir.to_owned()]);
    }
    let entries = std::fs::read_dir(dir).map_err(|error| {
        WitnessError::Other(format!(
            "{}: {error}; --data-dir must name the witness's directory",
            dir.display()
        ))
    })?;
    let directories = entries.flatten().map(|entry| entry.path());
    let mut slots: Vec<PathBuf> = directories.filter(|path| path.join(IDENTITY).exists()).collect();
    slots.sort();
    if slots.is_empty() {
        return Err(WitnessError::Other(format!(
            "neither {} nor a directory in it holds an {IDENTITY}: copy the witness's directory that `tallyd \
             provision --witness` made",
            dir.display()
        )));
    }
    Ok(slots)
}

/// Opens a slot. `config`: the configuration that was already read, if it is the slot's own.
async fn open(dir: &Path, config: Option<&Config>) -> Result<Slot, WitnessError> {
    let Some(identity) = Identity::load(dir)? else {
        return Err(WitnessError::Other(format!("{}: its {IDENTITY} is gone", dir.display())));
    };
    if identity.me().role != MemberRole::Witness {
        return Err(WitnessError::Other(format!(
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
    startup::check_agreement(&own, &identity, dir)?;
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
