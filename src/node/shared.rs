//! What the node and its handles share, and what the handles ask of the node.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tally_core::id::NodeId;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::links::Links;
use super::status::NodeStatus;
use super::stopping::StopTimes;
use super::successors::Reach;
use crate::accumulator::Accumulator;
use crate::clock::SiteClock;
use crate::figures::Counter;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::request::RequestError;
use crate::site::{Applied, Body, Site};
use crate::transport::TransportMetrics;

/// What the node and its handles share.
#[derive(Debug)]
pub(super) struct NodeShared {
    pub(super) identity: Identity,
    pub(super) site: Arc<Mutex<Site>>,
    pub(super) accumulator: Arc<Accumulator>,
    pub(super) clock: Arc<SiteClock>,
    pub(super) metrics: Arc<Metrics>,
    /// What the connections to the other boxes count; all zeros in a site of one.
    pub(super) transport_metrics: Arc<TransportMetrics>,
    pub(super) status: Mutex<NodeStatus>,
    /// Cleared while the disk takes no writes.
    pub(super) disk_ok: AtomicBool,
    /// Cleared while this box's state is known to be wrong.
    pub(super) state_ok: AtomicBool,
    /// Set while this box has had no leader for longer than a failover takes.
    pub(super) leaderless: AtomicBool,
    /// How this box's upstream stands to the broker.
    pub(super) broker: Mutex<Option<Reach>>,
    /// What the upstream is to do about the broker.
    pub(super) broker_wish: watch::Sender<BrokerWish>,
    pub(super) commands: mpsc::Sender<Command>,
    /// How often the loop has gone round.
    pub(super) rounds: Counter,
    /// Told when the status names another role, fault tolerance or state of the disk.
    pub(super) status_changed: Notify,
    pub(super) role: watch::Receiver<RoleView>,
    pub(super) applied: watch::Receiver<u64>,
}

/// Who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleView {
    /// Whether this box does.
    pub leads: bool,
    /// Who does, if known.
    pub leader: Option<NodeId>,
    /// In which term.
    pub term: u64,
}

/// What the node wants of the upstream, for whose sake leadership may move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerWish {
    /// A box that does not lead is to see whether it reaches the broker.
    pub probe: bool,
    /// Rises when a leader is to try again now: another box has just reached the broker.
    pub tries: u64,
}

/// What handles ask of the node.
#[derive(Debug)]
pub enum Command {
    /// Get a body into the log and say what applying it came to.
    Propose { body: Body, reply: oneshot::Sender<Result<Applied, RequestError>> },
    /// Propose here or not at all: only a leader may.
    ProposeLocally { body: Body, reply: oneshot::Sender<Result<Applied, RequestError>> },
    /// This box has a way to the others from now on.
    Connect { links: Arc<dyn Links> },
    /// Hand leadership over, here or by asking the leader. The answer tells whether that was begun.
    Transfer { to: Option<NodeId>, reply: oneshot::Sender<Result<(), RequestError>> },
    /// Write the loop's part of the status down.
    Refresh { reply: oneshot::Sender<Result<(), RequestError>> },
    /// Make the local site linearizable for reads that begin after this.
    Fence { reply: oneshot::Sender<Result<(), RequestError>> },
    /// The box is about to stop: by then those who wait are told what is known.
    AnswerBy(Instant),
    /// Commit what was counted or save it, then leave.
    Stop { times: StopTimes, reply: oneshot::Sender<()> },
    /// Do not wait for commits any longer; save.
    Hurry,
    /// How often counts that nobody waits for are committed.
    CommitInterval(Duration),
}
