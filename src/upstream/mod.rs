//! Sends summaries upstream by MQTT, from whichever box leads, exactly as the replicated outbox says.
//!
//! * `config`: where to, checked. The connection itself is the room `mqtt`.
//! * `formats`: the list of formats, one file each. A new format is a file and a line in the list.
//! * `machine`: all decisions, as a deterministic state machine. `session`: its part that is about one connection:
//!   number, publish, set aside, record as delivered. `shell` runs it.
//! * `ledger`: what was sent and acknowledged, pure.
//! * `trials`: what the broker refuses, and when it is tried again, pure. `reasons`: why, in words.
//! * `topic`: names in topics.
//! * `outbox`: what all this needs of the site; `node_outbox`: from whom it gets that.

mod config;
mod formats;
mod ledger;
mod machine;
mod node_outbox;
mod outbox;
mod reasons;
mod session;
mod shell;
mod status;
mod topic;
mod trials;

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use config::{BaseTopic, PASSWORD_CREDENTIAL, UpstreamConfig};
pub use formats::{FormatStatus, Formats, Naming, Numbered, SiteState};
pub use machine::{Input, Machine, Output, Setting};
pub use node_outbox::NodeOutbox;
pub use outbox::{Ask, HeldReader, Outbox, Position, SiteView};
pub use status::{HeldStatus, OtherSite, Probe, RefusedTopic, SharedStatus, State, Trouble, UpstreamStatus};

use crate::backoff::Backoff;
use crate::identity::SiteId;
use crate::mqtt::AccessError;
use crate::node::Handle;
use crate::random::Random;
use shell::Shell;

/// Waits between tries to reach the broker, from one second to thirty; the first try is immediate.
pub(crate) const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30), 0.25);

/// How long the broker may leave all that was sent unanswered before the connection is taken for broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The running upstream. Dropping it stops it without a farewell, as a crash would.
pub struct Upstream {
    task: Option<Task>,
    shared: SharedStatus,
    naming: Naming,
    formats: Formats,
    held: HeldReader,
}

#[derive(Debug)]
struct Task {
    stop: mpsc::Sender<bool>,
    handle: JoinHandle<()>,
}

/// Starts the upstream of a box; see [`spawn_on`].
///
/// # Errors
/// What the configuration gets wrong: unreadable files, a password without a user, no authorities.
pub fn spawn(handle: Handle, config: &UpstreamConfig) -> Result<Upstream, AccessError> {
    let (site, site_id) = (handle.identity().site.clone(), handle.identity().site_id);
    spawn_on(NodeOutbox::new(handle), &site, site_id, config)
}

/// Starts an upstream on any outbox. It acts only while the box leads; without a broker it does nothing.
///
/// # Errors
/// What the configuration gets wrong: unreadable files, a password without a user, no authorities.
pub fn spawn_on(
    outbox: impl Outbox,
    site: &str,
    site_id: SiteId,
    config: &UpstreamConfig,
) -> Result<Upstream, AccessError> {
    spawn_with(outbox, site, site_id, config, ANSWER_TIMEOUT)
}

/// The name under which the boxes of a site, one after the other, keep their session at the broker.
fn client_id(site: &str, site_id: SiteId) -> String {
    format!("tallyd-{site}-{}", &site_id.to_string()[..8])
}

/// Whether the configured broker takes a connection from here: TLS, credentials and its answer; as a client of its own,
/// `name`, so that the daemon's session goes on. `None`: no broker is configured.
///
/// # Errors
/// Why not, in words.
pub(crate) async fn try_broker(
    config: &UpstreamConfig,
    site: &str,
    site_id: SiteId,
    name: &str,
) -> Option<Result<String, String>> {
    let access = config.access()?;
    let target = match access.open(client_id(site, site_id)) {
        Ok(target) => target,
        Err(error) => return Some(Err(error.to_string())),
    };
    let url = target.url.to_string();
    Some(crate::mqtt::probe(target, name.to_owned()).await.map(|()| url))
}

fn spawn_with(
    outbox: impl Outbox,
    site: &str,
    site_id: SiteId,
    config: &UpstreamConfig,
    answer_timeout: Duration,
) -> Result<Upstream, AccessError> {
    let base = config.base.clone().unwrap_or_else(|| BaseTopic::of_site(site));
    let naming = Naming { site: site.to_owned(), site_id, base };
    let (held, formats) = (outbox.held_reader(), config.format.clone());
    let Some(access) = config.access() else {
        return Ok(Upstream { task: None, shared: SharedStatus::new(None), naming, formats, held });
    };
    let target = access.open(client_id(site, site_id))?;
    let shared = SharedStatus::new(Some(target.url.to_string()));
    let (stop, stopped) = mpsc::channel(1);
    let setting = Setting {
        naming: naming.clone(),
        formats: formats.clone(),
        broker: target.url.clone(),
        answer_timeout,
    };
    let machine = Machine::new(outbox, setting, shared.clone(), Random::default(), Instant::now());
    let handle = tokio::spawn(Shell::new(machine, target, stopped).run());
    Ok(Upstream { task: Some(Task { stop, handle }), shared, naming, formats, held })
}

impl Upstream {
    /// What status and metrics show: what this process did, and what the site holds.
    pub fn status(&self) -> UpstreamStatus {
        let (first, held) = (self.held)(status::SHOWN_MAX);
        let shown = first.into_iter().map(|(numbered, cause)| HeldStatus {
            seq: numbered.seq,
            topic: self.formats.first().summary_topic(&self.naming, &numbered.name),
            series: numbered.name,
            cause: reasons::of_cause(cause),
        });
        let status = self.shared.status();
        let formats = self.formats.status(&self.naming, &status.refuses);
        UpstreamStatus { formats, held: held as u64, held_first: shown.collect(), ..status }
    }

    /// What this process did; cloneable.
    pub fn shared(&self) -> &SharedStatus {
        &self.shared
    }

    /// Stops in order: what the broker acknowledged is recorded, the connection closed. With `last`
    /// (no box is left that could lead) the broker tells subscribers `offline` at once; otherwise
    /// only if no other box connects within the will's delay. Takes a few seconds at most.
    pub async fn stop(mut self, last: bool) {
        if let Some(mut task) = self.task.take() {
            let _ = task.stop.send(last).await;
            // A panic in the task is in the log already.
            let _ = (&mut task.handle).await;
        }
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

#[cfg(test)]
mod broker_harness;
#[cfg(test)]
mod broker_tests;
#[cfg(test)]
mod formats_tests;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod machine_tests;
#[cfg(test)]
mod probe_tests;
#[cfg(test)]
mod refused_tests;
