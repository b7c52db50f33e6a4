//! Sends summaries upstream by MQTT, from whichever box leads, exactly as the replicated outbox says.
//!
//! * `config`: where to, checked. The connection itself is the room `mqtt`.
//! * `formats`: the list of formats, one file each. A new format is a file and a line in the list.
//! * `ledger`: what was sent and acknowledged, pure.
//! * `session`: one connection's incarnation: fence, number, publish, report as delivered.
//! * `trials`: what the broker refuses, and when it is tried again, pure. `reasons`: why, in words.
//! * `topic`: names in topics.
//! * `outbox`: what all this needs of the site; `node_outbox`: from whom it gets that.

mod config;
mod formats;
mod ledger;
mod node_outbox;
mod outbox;
mod reasons;
mod session;
mod status;
mod topic;
mod trials;

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use config::{BaseTopic, PASSWORD_CREDENTIAL, UpstreamConfig};
pub use formats::{FormatStatus, Formats, Naming, Numbered, SiteState};
pub use outbox::{HeldReader, Outbox, Position};
pub use status::{HeldStatus, OtherSite, Probe, RefusedTopic, Shared, State, Trouble, UpstreamStatus};

use crate::mqtt::{self, AccessError, Learned, Target};
use crate::node::Handle;
use node_outbox::NodeOutbox;
use session::{End, Session, Setting};
use trials::Trials;

/// Waits between tries to reach the broker: the first try is immediate.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// A connection that lasted this long was a good one: the next try is immediate again.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// A box that has reached the broker for its leader sees so often whether that is still so.
const PROBE_AGAIN: Duration = Duration::from_secs(10);

/// How long the broker may leave all that was sent unanswered before the connection is taken for broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The running upstream. Dropping it stops it without a farewell, as a crash would.
pub struct Upstream {
    task: Option<Task>,
    shared: Shared,
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
    site_id: crate::identity::SiteId,
    config: &UpstreamConfig,
) -> Result<Upstream, AccessError> {
    spawn_with(outbox, site, site_id, config, ANSWER_TIMEOUT)
}

fn spawn_with(
    outbox: impl Outbox,
    site: &str,
    site_id: crate::identity::SiteId,
    config: &UpstreamConfig,
    answer_timeout: Duration,
) -> Result<Upstream, AccessError> {
    let base = config.base.clone().unwrap_or_else(|| BaseTopic::of_site(site));
    let naming = Naming { site: site.to_owned(), site_id, base };
    let (held, formats) = (outbox.held_reader(), config.format.clone());
    let Some(access) = config.access() else {
        return Ok(Upstream { task: None, shared: Shared::new(None), naming, formats, held });
    };
    let target = access.open(format!("tallyd-{site}-{}", &site_id.to_string()[..8]))?;
    let shared = Shared::new(Some(target.url.to_string()));
    let (stop, stopped) = mpsc::channel(1);
    let mut driver = Driver {
        outbox,
        target,
        naming: naming.clone(),
        formats: formats.clone(),
        shared: shared.clone(),
        stopped,
        trials: Trials::default(),
        learned: Learned::default(),
        answer_timeout,
    };
    let handle = tokio::spawn(async move { driver.run().await });
    Ok(Upstream { task: Some(Task { stop, handle }), shared, naming, formats, held })
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
        let status = self.shared.status();
        let formats = self.formats.status(&self.naming, &status.refuses);
        UpstreamStatus { formats, held: held as u64, held_first: shown.collect(), ..status }
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

/// The task: waits for leadership, connects, hands over to a session, and again.
struct Driver<O> {
    outbox: O,
    target: Target,
    naming: Naming,
    formats: Formats,
    shared: Shared,
    stopped: mpsc::Receiver<bool>,
    trials: Trials,
    learned: Learned,
    answer_timeout: Duration,
}

impl<O: Outbox> Driver<O> {
    async fn run(&mut self) {
        let mut backoff = Backoff::default();
        loop {
            let Some(term) = self.outbox.leads() else {
                self.shared.enter(State::Standby);
                // Whoever leads then finds out anew; what is held is with the site.
                self.trials = Trials::default();
                self.shared.refusing(Vec::new());
                if self.stand_by().await {
                    return;
                }
                continue;
            };
            self.shared.enter(State::Connecting);
            self.outbox.seen(Some(false));
            let tries = self.outbox.wish().tries;
            let began = Instant::now();
            let setting = Setting {
                term,
                target: &self.target,
                naming: &self.naming,
                formats: &self.formats,
                shared: &self.shared,
                trials: &mut self.trials,
                learned: &mut self.learned,
                answer_timeout: self.answer_timeout,
            };
            let session = tokio::select! {
                opened = Session::open(&mut self.outbox, setting) => opened,
                _ = self.stopped.recv() => return,
            };
            let opened = session.is_ok();
            let end = match session {
                Ok(mut session) => {
                    let (end, last) = tokio::select! {
                        end = session.run() => (end, false),
                        last = self.stopped.recv() => (End::Stopped, last.unwrap_or(false)),
                    };
                    session.close(&end, last).await;
                    end
                }
                Err(end) => end,
            };
            match end {
                End::Stopped => return,
                End::NotLeading => backoff = Backoff::default(),
                End::Broken(ending) => {
                    self.shared.ended(&ending);
                    if began.elapsed() > GOOD_AFTER {
                        backoff = Backoff::default();
                    }
                    // Over which message a connection breaks is to be found out soon.
                    let soon = if opened { self.trials.finds_out() } else { None };
                    let wait = soon.unwrap_or_else(|| backoff.next(jitter()));
                    if self.pause(wait, tries).await {
                        return;
                    }
                }
            }
        }
    }

    /// Waits until this box leads. Sees meanwhile whether it reaches the broker, if the leader does not and
    /// asks for that. Returns whether the upstream is to stop.
    async fn stand_by(&mut self) -> bool {
        self.outbox.seen(None);
        let mut backoff = Backoff::default();
        let mut probe: Option<BoxFuture<'static, Result<(), String>>> = None;
        let mut due = None;
        while self.outbox.leads().is_none() {
            let now = Instant::now();
            if !self.outbox.wish().probe {
                if due.take().is_some() {
                    probe = None;
                    backoff = Backoff::default();
                    self.outbox.seen(None);
                }
            } else if probe.is_none() && due.is_none_or(|due| due <= now) {
                due = Some(now);
                probe = Some(Box::pin(mqtt::probe(self.target.clone(), self.outbox.name())));
            }
            let is_under_way = probe.is_some();
            let result = tokio::select! {
                () = self.outbox.changed() => continue,
                _ = self.stopped.recv() => return true,
                result = async { probe.as_mut().expect("the branch is taken only if there is one").await },
                    if is_under_way => result,
                () = async { tokio::time::sleep_until(due.unwrap_or(now)).await },
                    if due.is_some() && !is_under_way => continue,
            };
            probe = None;
            self.shared.probed(&result);
            self.outbox.seen(Some(result.is_ok()));
            let wait = if result.is_ok() { PROBE_AGAIN } else { backoff.next(jitter()) };
            due = Some(Instant::now() + wait);
        }
        false
    }

    /// Waits before the next try, less if leadership changes or another box has just reached the broker
    /// (`tries`: of the wish before this try). Returns whether the upstream is to stop.
    async fn pause(&mut self, wait: Duration, tries: u64) -> bool {
        self.shared.enter(State::Connecting);
        self.outbox.seen(Some(false));
        let until = Instant::now() + wait;
        while self.outbox.leads().is_some() && self.outbox.wish().tries == tries {
            tokio::select! {
                () = tokio::time::sleep_until(until) => break,
                () = self.outbox.changed() => {}
                _ = self.stopped.recv() => return true,
            }
        }
        false
    }
}

/// Doubling waits, from one second to thirty, each moved by up to a quarter.
#[derive(Debug, Default)]
struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next wait; `jitter` from 0 to 1.
    fn next(&mut self, jitter: f64) -> Duration {
        let whole = BACKOFF_MIN.saturating_mul(1 << self.tries.min(6)).min(BACKOFF_MAX);
        self.tries = self.tries.saturating_add(1);
        whole.mul_f64(0.75 + jitter / 2.0).min(BACKOFF_MAX)
    }
}

/// Evenly from 0 to 1; its quality does not matter.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_one_second_to_thirty() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..8).map(|_| backoff.next(0.5).as_millis() as u64).collect();
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(Backoff::default().next(0.0), Duration::from_millis(750));
        assert!((0.0..=1.0).contains(&jitter()));
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
mod probe_tests;
#[cfg(test)]
mod refused_tests;
