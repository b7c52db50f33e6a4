//! How the other rooms reach the node: requests over a channel, reads of the site directly.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use ring::digest;
use tally_core::id::{Epoch, NodeId, SeriesName, SourceId};
use tally_core::time::SiteTime;
use tokio::sync::{mpsc, oneshot, watch};

use crate::accumulator::{Accumulator, Outcome, Withdrawn};
use crate::clock::SiteClock;
use crate::figures::Family;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::node::Links;
use crate::node::disk_health::DiskFault;
use crate::node::shared::{BrokerWish, Command, NodeShared, RoleView};
use crate::node::status::{DISK_OK, NodeStatus};
use crate::node::stopping::StopTimes;
use crate::random::random_u128;
use crate::request::{Add, Added, MemberError, NamedReport, ReportError, RequestError, SetError};
use crate::site::entry::{self, SourceKind};
use crate::site::{Applied, Body, MemberChange, MemberRefused, OpenRefused, Refusal, Site, Verdict};
use crate::transport::TransportMetrics;

/// How long a request waits for its answer before it is told that there is none.
pub(super) const REQUEST_WAIT: Duration = Duration::from_secs(10);
/// What a box says that has had no leader for a while.
pub(super) const NO_LEADER: &str = "this box has had no leader for a while; try another box";
/// How long handing leadership over may take.
const TRANSFER_WAIT: Duration = Duration::from_secs(3);

/// Reaches the node from any task. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<NodeShared>,
}

impl Handle {
    pub(super) fn new(shared: Arc<NodeShared>) -> Handle {
        Handle { shared }
    }

    /// Adds to a series and waits until that is committed and applied here.
    #[cfg(test)]
    pub(crate) async fn add(&self, add: Add) -> Result<Added, RequestError> {
        self.add_within(add, REQUEST_WAIT).await
    }

    /// Adds to a series and waits until that is committed and applied here, for a client that waits no longer than
    /// `patience`: it hears in time what became of the add.
    ///
    /// # Errors
    /// Why there is no result: nothing was done, or nobody knows whether it was.
    pub async fn add_within(&self, add: Add, patience: Duration) -> Result<Added, RequestError> {
        let shared = &*self.shared;
        self.check_able()?;
        if add.key.is_some() && !self.knows_elapsed() {
            self.check_add(&add)?;
            self.know_elapsed().await?;
        }
        let (id, answer) = match self.begin_add(&add) {
            // This box may lag behind the one where there is room since.
            Err(RequestError::Refused(Refusal::TooManySeries)) => {
                self.fence().await?;
                self.begin_add(&add)?
            }
            taken => taken?,
        };
        match tokio::time::timeout(patience.min(REQUEST_WAIT), answer).await {
            Ok(Ok(Outcome::Added(added))) => Ok(added),
            Ok(Ok(Outcome::Failed(error))) => Err(error),
            Ok(Err(_)) => Err(unknown("this box stopped")),
            Err(_) => Err(match shared.accumulator.withdraw(id) {
                Withdrawn::BeforeItsBatch => RequestError::NotCommitted {
                    why: "the site did not commit in time, and this add was withdrawn".to_owned(),
                },
                Withdrawn::TooLate => unknown("the site did not commit in time"),
            }),
        }
    }

    /// Takes an add without waiting for anything: its number here, and where the answer comes.
    ///
    /// # Errors
    /// Why it is not taken; nothing was added.
    pub fn begin_add(&self, add: &Add) -> Result<(u64, oneshot::Receiver<Outcome>), RequestError> {
        self.check_able()?;
        let (name, key) = self.check_add(add)?;
        self.shared.accumulator.add_waiting(name, add.amount, key)
    }

    /// The series' name, and the hash and check of the key.
    #[allow(clippy::type_complexity, reason = "it is taken apart where it is called")]
    fn check_add<'a>(&self, add: &'a Add) -> Result<(SeriesName<'a>, Option<(u128, u64)>), RequestError> {
        let key = add.key.as_deref().map(|key| hash_key(key, add)).transpose()?;
        let name = SeriesName::new(&add.series)
            .map_err(|error| RequestError::NotCommitted { why: error.to_string() })?;
        Ok((name, key))
    }

    /// A keyed add carries the elapsed time as applied here, and is dropped as stale where that is older than a third
    /// of a key's lifetime. In an idle site it can be that old though nobody was slow: then the site is asked first.
    fn knows_elapsed(&self) -> bool {
        let age_ms = self.site(|site| site.settings().keys_age_ms());
        self.shared.clock.elapsed_age() <= Duration::from_millis(age_ms / 6)
    }

    async fn know_elapsed(&self) -> Result<(), RequestError> {
        match self.propose(entry::tick()).await {
            Ok(_) => Ok(()),
            // Whatever became of the tick: nothing was added.
            Err(RequestError::OutcomeUnknown { why }) => Err(RequestError::NotCommitted { why }),
            Err(error) => Err(error),
        }
    }

    /// Opens an epoch of a named source. The same nonce gets the same epoch.
    ///
    /// # Errors
    /// Why no epoch is open, or that nobody knows whether it is.
    pub async fn open_epoch(
        &self,
        source: &str,
        nonce: Option<u128>,
    ) -> Result<(SourceId, Epoch), RequestError> {
        let nonce = nonce.unwrap_or_else(random_u128);
        let epoch = Epoch(random_u128() as u64);
        let body = entry::open(SourceKind::Named, source, nonce, epoch);
        match self.propose(body).await? {
            Applied::Opened { result: Ok(opened), .. } => Ok(opened),
            Applied::Opened { result: Err(OpenRefused::TooManySources), .. } => {
                Err(RequestError::TooManySources)
            }
            Applied::Opened { result: Err(OpenRefused::BadName), .. } => {
                Err(RequestError::NotCommitted { why: format!("{source:?} is not a source name") })
            }
            _ => Err(unknown("the site returned an unexpected answer")),
        }
    }

    /// Hands over a numbered report of a named source and tells how the site judged it.
    ///
    /// # Errors
    /// Why the report has no verdict.
    pub async fn report(&self, report: NamedReport) -> Result<Verdict, ReportError> {
        let source = match self.site(|site| site.source(&report.source)) {
            Some(source) => source,
            None => {
                // This box may lag behind the one where the epoch was opened.
                self.fence().await?;
                self.site(|site| site.source(&report.source)).ok_or(ReportError::UnknownSource)?
            }
        };
        let open = self.shared.clock.site();
        let body = self.site(|site| super::encode_report(site, source, &report, open))?;
        match self.propose(body).await? {
            Applied::Report { verdict, .. } => Ok(verdict),
            _ => Err(unknown("the site returned an unexpected answer").into()),
        }
    }

    /// Confirms the leader and catches up with it: reads of the local site that begin when this
    /// returns see everything that was acknowledged before it was called.
    ///
    /// # Errors
    /// Why there is no result: nothing was done, or nobody knows whether it was.
    pub async fn fence(&self) -> Result<(), RequestError> {
        self.check_leader()?;
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Fence { reply }, answer).await
    }

    /// Whether this box can commit now: its disk takes writes, and a quorum confirms the leader.
    ///
    /// # Errors
    /// Why not, as it is answered.
    pub async fn ready(&self) -> Result<(), RequestError> {
        self.check_able()?;
        self.check_taken()?;
        self.fence().await
    }

    /// Changes a replicated setting; gives its value in normal form.
    ///
    /// # Errors
    /// Why the setting is not changed, or that nobody knows whether it is.
    pub async fn set(&self, key: &str, value: &str) -> Result<String, SetError> {
        let body = entry::set(random_u128() as u64, key, value);
        match self.propose(body).await? {
            Applied::Set { result, .. } => result.map_err(SetError::Invalid),
            _ => Err(unknown("the site returned an unexpected answer").into()),
        }
    }

    /// Changes the members: accepted, and brought into force from then on by whoever leads.
    ///
    /// # Errors
    /// Why the members do not change, or that nobody knows whether they do.
    pub async fn change_members(&self, change: &MemberChange) -> Result<(), MemberError> {
        let body = entry::member(random_u128() as u64, change);
        match self.propose(body).await? {
            Applied::Member { result: Err(why @ MemberRefused::TooEarly), .. } => {
                Err(RequestError::NotCommitted { why: why.to_string() }.into())
            }
            Applied::Member { result, .. } => Ok(result?),
            _ => Err(unknown("the site returned an unexpected answer").into()),
        }
    }

    /// Transfers leadership to a box, or to the one that is best prepared; returns the new leader when there
    /// is one.
    ///
    /// # Errors
    /// Why there is no result: nothing was done, or nobody knows whether it was.
    pub async fn transfer(&self, to: Option<NodeId>) -> Result<NodeId, RequestError> {
        let mut role = self.role();
        let before = role.borrow_and_update().leader;
        if to.is_some() && before == to {
            return Ok(before.unwrap_or_default());
        }
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Transfer { to, reply }, answer).await?;
        let handed = |view: &RoleView| match to {
            Some(to) => view.leader == Some(to),
            None => view.leader.is_some() && view.leader != before,
        };
        let why = || RequestError::NotCommitted {
            why: "the transfer did not finish in time: the other box may be behind, its disk may be \
                unhealthy, or the leader may not be connected to it; repeat the command at the leader to see \
                which"
                .to_owned(),
        };
        match tokio::time::timeout(TRANSFER_WAIT, role.wait_for(handed)).await {
            Ok(Ok(view)) => Ok(view.leader.unwrap_or_default()),
            Ok(Err(_)) | Err(_) => Err(why()),
        }
    }

    /// An operator's word that the boxes' clocks are right: site time becomes what they say, however far
    /// ahead or behind. What it was, and what it is now.
    ///
    /// # Errors
    /// Why there is no result: nothing was done, or nobody knows whether it was.
    pub async fn step_clock(&self) -> Result<(SiteTime, SiteTime), RequestError> {
        match self.propose(entry::step_clock()).await? {
            Applied::Stepped { from, to } => Ok((from, to)),
            _ => Err(unknown("the site returned an unexpected answer")),
        }
    }

    /// Commits what was counted here as far as that goes, saves the rest, and stops the node.
    pub async fn stop(&self, times: StopTimes) {
        let (reply, answer) = oneshot::channel();
        if self.shared.commands.send(Command::Stop { times, reply }).await.is_ok() {
            // An error means that the node is gone already.
            let _ = answer.await;
        }
    }

    /// This box is about to stop: those who wait are told by then what is known.
    pub async fn answer_by(&self, by: Instant) {
        // An error means that the node is gone already.
        let _ = self.shared.commands.send(Command::AnswerBy(by)).await;
    }

    /// A stop that is under way, or comes, waits for no commit any longer; it saves what there is.
    pub async fn hurry(&self) {
        let _ = self.shared.commands.send(Command::Hurry).await;
    }

    /// Says how often counts that nobody waits for are committed.
    pub async fn commit_every(&self, interval: Duration) {
        let _ = self.shared.commands.send(Command::CommitInterval(interval)).await;
    }

    /// This box, which was alone, has a way to others from now on.
    pub(crate) async fn connect(&self, links: Arc<dyn Links>) {
        // An error means that the node is gone already.
        let _ = self.shared.commands.send(Command::Connect { links }).await;
    }

    /// Reads the site as this box has it. Keep it short: the node waits meanwhile.
    pub fn site<R>(&self, read: impl FnOnce(&Site) -> R) -> R {
        read(&self.shared.site.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How this box is, as of now.
    pub fn status(&self) -> NodeStatus {
        let mut status = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        super::complete_status(&mut status, &self.shared);
        status
    }

    /// The same, with the loop's part, which may be some 100 ms old else, as of now.
    ///
    /// # Errors
    /// Why there is no result: nothing was done, or nobody knows whether it was.
    pub async fn fresh_status(&self) -> Result<NodeStatus, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Refresh { reply }, answer).await?;
        Ok(self.status())
    }

    /// How often the loop that drives consensus and storage has gone round: several times a second while it works.
    pub fn rounds(&self) -> u64 {
        self.shared.rounds.get()
    }

    /// Waits until the status names another role, verdict, fault tolerance or state of the disk. For one task.
    pub async fn status_changed(&self) {
        self.shared.status_changed.notified().await;
    }

    /// Shows how a way in is, and its figures.
    pub fn show_ingest(&self, name: &'static str, part: serde_json::Value, figures: Vec<Family>) {
        let mut status = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.ingest.insert(name.to_owned(), part);
        status.ingest_figures.insert(name, figures.into());
    }

    /// Shows how the way out is.
    pub fn show_upstream(&self, part: serde_json::Value) {
        self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).upstream = part;
    }

    /// The upstream says whether this box reaches the broker; `None`: it has none, or does not know.
    pub fn broker_seen(&self, reached: Option<bool>) {
        self.shared.broker_seen(reached);
    }

    /// What the upstream is to do for the node, and changes of that.
    pub fn broker_wish(&self) -> watch::Receiver<BrokerWish> {
        self.shared.broker_wish.subscribe()
    }

    /// Who leads, and changes of that.
    pub fn role(&self) -> watch::Receiver<RoleView> {
        self.shared.role.clone()
    }

    /// The index that this box has applied, and its rising.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.shared.applied.clone()
    }

    /// Who this box is.
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// This box's clocks.
    pub fn clock(&self) -> &Arc<SiteClock> {
        &self.shared.clock
    }

    /// What the connections to the other boxes count; all zeros in a site of one.
    pub fn transport_metrics(&self) -> &Arc<TransportMetrics> {
        &self.shared.transport_metrics
    }

    /// Counters of what happened.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Where counts that nobody waits for go.
    pub fn accumulator(&self) -> &Arc<Accumulator> {
        &self.shared.accumulator
    }

    /// A box whose disk takes no writes may never hear what became of a request: it takes none.
    fn check_disk(&self) -> Result<(), RequestError> {
        if self.shared.disk_ok.load(Ordering::Relaxed) {
            return Ok(());
        }
        let storage = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).storage.clone();
        let (state, what) =
            (storage.state.map_or(DISK_OK, DiskFault::as_str), storage.what.unwrap_or_default());
        let why = format!("this box's disk takes no writes ({state}: {what}); try another box");
        Err(RequestError::NotCommitted { why })
    }

    /// Whether the site takes what this box counts.
    fn check_taken(&self) -> Result<(), RequestError> {
        match &self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).refused {
            None => Ok(()),
            Some(why) => {
                let why = format!("the site opens no epoch for this box, so its counts wait: {why}");
                Err(RequestError::NotCommitted { why })
            }
        }
    }

    /// Whether what is asked of this box now can come to anything.
    fn check_able(&self) -> Result<(), RequestError> {
        self.check_disk()?;
        self.check_leader()
    }

    /// Whether this box's state may be shown: one that is known to be wrong is shown to nobody.
    ///
    /// # Errors
    /// This box is out of service.
    pub fn check_state(&self) -> Result<(), RequestError> {
        if self.shared.state_ok.load(Ordering::Relaxed) {
            return Ok(());
        }
        let why = "this box's state differs from that of a majority and is being replaced; try another box"
            .to_owned();
        Err(RequestError::NotCommitted { why })
    }

    /// Without a leader another box may be able to do what this one is asked for: a client hears so at once.
    fn check_leader(&self) -> Result<(), RequestError> {
        self.check_state()?;
        if self.shared.leaderless.load(Ordering::Relaxed) {
            return Err(RequestError::NotCommitted { why: NO_LEADER.to_owned() });
        }
        Ok(())
    }

    pub(super) async fn propose(&self, body: Body) -> Result<Applied, RequestError> {
        self.check_able()?;
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Propose { body, reply }, answer).await
    }

    /// Gets a body into the log from here, or not at all: only a leader may.
    ///
    /// # Errors
    /// Why it is not there, or may not be.
    pub(crate) async fn propose_locally(&self, body: Body) -> Result<(), RequestError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::ProposeLocally { body, reply }, answer).await.map(|_| ())
    }

    async fn ask<T>(
        &self,
        command: Command,
        answer: oneshot::Receiver<Result<T, RequestError>>,
    ) -> Result<T, RequestError> {
        match self.shared.commands.try_send(command) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(RequestError::TooBusy),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                return Err(RequestError::NotCommitted { why: "this box is stopping".to_owned() });
            }
        }
        match tokio::time::timeout(REQUEST_WAIT, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(unknown("this box stopped")),
            Err(_) => Err(unknown("the site did not answer in time")),
        }
    }
}

/// A key as the log has it: a cryptographic hash, and a check of what it is for.
fn hash_key(key: &str, add: &Add) -> Result<(u128, u64), RequestError> {
    if !(1..=64).contains(&key.len()) {
        return Err(RequestError::BadKey);
    }
    let mut check = digest::Context::new(&digest::SHA256);
    check.update(add.series.as_bytes());
    check.update(&[0]);
    super::named::hash_amount(&mut check, &add.amount);
    Ok((
        u128::from_le_bytes(first_bytes(&digest::digest(&digest::SHA256, key.as_bytes()))),
        u64::from_le_bytes(first_bytes(&check.finish())),
    ))
}

/// The first N bytes of a SHA-256 digest.
pub(super) fn first_bytes<const N: usize>(digest: &digest::Digest) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&digest.as_ref()[..N]);
    bytes
}

pub(super) fn unknown(why: &str) -> RequestError {
    RequestError::OutcomeUnknown { why: why.to_owned() }
}
