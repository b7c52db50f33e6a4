//! Sends summaries upstream by MQTT, from whichever box leads, exactly as the replicated outbox says.
//!
//! * `config`: where to, checked. `tls`: whom to trust there.
//! * `format`: the list of formats; `json` is one. A new format is a file and a line in the list.
//! * `machine`: all decisions, as a deterministic state machine. `session`: its part that is about one connection:
//!   number, publish, set aside, record as delivered. `shell` runs it.
//! * `ledger`: what was sent and acknowledged, pure.
//! * `trials`: what the broker refuses, and when it is tried again, pure. `backoff`: waits between tries.
//! * `mqtt`: the connection itself, and the only file that knows the client library.
//! * `topic`: names in topics. `reasons`: MQTT's reason codes in words. `pinned`: a broker's own certificate.
//! * `outbox`: what all this needs of the site; `node_outbox`: from whom it gets that.

mod backoff;
mod config;
mod format;
mod json;
mod ledger;
mod machine;
mod mqtt;
mod node_outbox;
mod outbox;
mod pinned;
mod reasons;
mod session;
mod shell;
mod status;
mod tls;
mod topic;
mod trials;

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use config::{BaseTopic, BrokerUrl, BrokerUrlError, PASSWORD_CREDENTIAL, UpstreamConfig, UpstreamError};
pub use format::{Format, Message, Naming, Numbered, SiteState};
pub use machine::{Input, Machine, Output, Setting};
pub use mqtt::{Answer, Ending, Limits, Refusal};
pub use node_outbox::NodeOutbox;
pub use outbox::{Ask, HeldReader, Outbox, Position, SiteView};
pub use status::{HeldStatus, OtherSite, Probe, RefusedTopic, Shared, State, Trouble, UpstreamStatus};

use crate::node::Handle;
use crate::random::Random;
use mqtt::Target;
use shell::Shell;

/// How long the broker may leave all that was sent unanswered before the connection is taken for broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The running upstream. Dropping it stops it without a farewell, as a crash would.
pub struct Upstream {
    task: Option<Task>,
    shared: Shared,
    naming: Naming,
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
pub fn spawn(handle: Handle, config: &UpstreamConfig) -> Result<Upstream, UpstreamError> {
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
    site_id: crate::identity::SiteId,
    config: &UpstreamConfig,
) -> Result<Upstream, UpstreamError> {
    spawn_with(outbox, site, site_id, config, ANSWER_TIMEOUT)
}

fn spawn_with(
    outbox: impl Outbox,
    site: &str,
    site_id: crate::identity::SiteId,
    config: &UpstreamConfig,
    answer_timeout: Duration,
) -> Result<Upstream, UpstreamError> {
    let base = config.base.clone().unwrap_or_else(|| BaseTopic::of_site(site));
    let naming = Naming { site: site.to_owned(), site_id, base };
    let held = outbox.held_reader();
    let Some(url) = config.url.clone() else {
        return Ok(Upstream { task: None, shared: Shared::new(None), naming, held });
    };
    let password = config.password(&url)?;
    if password.is_some() && url.user.is_none() {
        return Err(UpstreamError::PasswordWithoutUser);
    }
    let tls = if url.tls { Some(tls::client_config(config.ca_file.as_deref())?) } else { None };
    let shared = Shared::new(Some(url.to_string()));
    let target = Target {
        client_id: format!("tallyd-{site}-{}", &site_id.to_string()[..8]),
        site_id: site_id.to_string(),
        url,
        password,
        tls,
    };
    let (stop, stopped) = mpsc::channel(1);
    let setting = Setting {
        naming: naming.clone(),
        formats: config.format.clone(),
        broker: target.url.clone(),
        answer_timeout,
    };
    let machine = Machine::new(outbox, setting, shared.clone(), Random::default(), Instant::now());
    let handle = tokio::spawn(Shell::new(machine, target, stopped).run());
    Ok(Upstream { task: Some(Task { stop, handle }), shared, naming, held })
}

impl Upstream {
    /// What status and metrics show: what this process did, and what the site holds.
    pub fn status(&self) -> UpstreamStatus {
        let (first, held) = (self.held)(status::SHOWN_MAX);
        let shown = first.into_iter().map(|(numbered, cause)| HeldStatus {
            seq: numbered.seq,
            topic: self.naming.summary_topic(&numbered.name),
            series: numbered.name,
            cause: reasons::of_cause(cause),
        });
        UpstreamStatus { held: held as u64, held_first: shown.collect(), ..self.shared.status() }
    }

    /// What this process did; cloneable.
    pub fn shared(&self) -> &Shared {
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
mod fake_broker;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod machine_tests;
#[cfg(test)]
mod probe_tests;
#[cfg(test)]
mod refused_tests;
#[cfg(test)]
mod tls_tests;
