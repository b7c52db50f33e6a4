//! Leadership transfers: to a better leader, when the disk takes no writes, when this box stops, or on request; and
//! their results.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tally_core::id::{NodeId, Term};
use tally_core::raft::{MemberRole, TransferError};
use tracing::{info, warn};

use super::shared::{BrokerWish, NodeShared};
use super::status::{LastTransfer, TransfersStatus};
use super::successors::{Own, Reach, Successors, TransferReason, Voter, Wish};
use super::wire::{Condition, Frame};
use super::{Node, heartbeats};
use crate::transport::Lane;

/// How often a leader looks for a better leader.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why leadership is not transferred.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LeadershipTransferError {
    /// No box could take leadership over.
    #[error(
        "no other voter is connected, caught up and able to write to its disk, so none could take over; see \
         `tallyd status`"
    )]
    NoCandidate,
    /// The chosen box could not lead.
    #[error("{0} reports that its disk rejects writes: it could not lead")]
    DiskUnhealthy(String),
    /// The others are no majority without this box, whose own vote cannot be stored.
    #[error("the other connected boxes are not a majority without this one")]
    NoMajority,
    /// The chosen box does not answer, or lacks too much of the log.
    #[error("{name} does not answer, or has not caught up ({behind} entries behind)")]
    NotCaughtUp {
        /// The chosen box.
        name: String,
        /// How many entries it lacks, as far as this box knows.
        behind: u64,
    },
    /// The core refuses the transfer.
    #[error("{0}")]
    Core(#[from] TransferError),
}

/// The leadership transfers of this box, in progress and past.
#[derive(Debug, Default)]
pub(super) struct LeadershipTransfers {
    pub(super) successors: Successors,
    /// The transfer in progress.
    pending: Option<PendingTransfer>,
    /// A group that the disk did not take, which the core is told only once leadership has moved, or could
    /// not: until then this box leads on from memory, as with a disk that is merely slow.
    withheld: Option<u64>,
    /// Whether the leader's latest heartbeat asks who reaches the broker.
    asked: bool,
    wish: Wish,
    looked: Option<Instant>,
    done: BTreeMap<TransferReason, u64>,
    failed: u64,
    last: Option<LastTransfer>,
}

#[derive(Clone, Copy, Debug)]
struct PendingTransfer {
    to: NodeId,
    reason: TransferReason,
    term: Term,
}

impl LeadershipTransfers {
    /// Whether a leader is to ask in its heartbeats who reaches the broker.
    pub(super) fn asks_for_broker(&self) -> bool {
        self.wish.asks_for_broker
    }

    /// Notes whether the leader asks who reaches the broker.
    pub(super) fn set_asked(&mut self, asked: bool) {
        self.asked = asked;
    }

    /// The transfers, for status and metrics.
    pub(super) fn status(&self) -> TransfersStatus {
        let of = |reason| self.done.get(&reason).copied().unwrap_or_default();
        TransfersStatus {
            broker: of(TransferReason::Broker),
            disk: of(TransferReason::Disk),
            stopping: of(TransferReason::Stopping),
            asked: of(TransferReason::Asked),
            state: of(TransferReason::State),
            failed: self.failed,
            last: self.last.clone(),
        }
    }
}

impl Node {
    /// Transfers leadership, to the best successor unless somebody is named.
    pub(super) fn transfer_leadership(
        &mut self,
        to: Option<NodeId>,
        reason: TransferReason,
    ) -> Result<NodeId, LeadershipTransferError> {
        if !self.leads() {
            return Err(TransferError::NotLeader.into());
        }
        if let Some(unhealthy) = to.filter(|to| self.transfers.successors.is_unhealthy(*to)) {
            return Err(LeadershipTransferError::DiskUnhealthy(self.name_of(unhealthy)));
        }
        let to = match to {
            Some(to) => to,
            None => self
                .transfers
                .successors
                .best_candidate(&self.successors())
                .ok_or(LeadershipTransferError::NoCandidate)?,
        };
        let now = self.now();
        self.raft.transfer(now, to).map_err(|error| match error {
            TransferError::NotCaughtUp { id, behind } => {
                LeadershipTransferError::NotCaughtUp { name: self.name_of(id), behind }
            }
            other => other.into(),
        })?;
        let name = self.name_of(to);
        info!("transferring leadership to {name} ({})", reason.as_str());
        self.transfers.pending = Some(PendingTransfer { to, reason, term: self.raft.term() });
        self.transfers.successors.on_transfer(self.moment.now);
        let voters: Vec<NodeId> = self.raft.configuration().voters().collect();
        for voter in voters.into_iter().filter(|id| Some(*id) != self.raft.configuration().witness()) {
            self.send(voter, Lane::Control, &Frame::TransferAnnounced { to, reason });
        }
        Ok(to)
    }

    /// Whether leadership is on its way to another box.
    pub(super) fn is_transferring(&self) -> bool {
        self.transfers.pending.is_some()
    }

    /// The leader transfers leadership, to this box or another.
    pub(super) fn on_transfer_announced(&mut self, from: NodeId, to: NodeId, reason: TransferReason) {
        if self.raft.leader() != Some(from) {
            return;
        }
        self.transfers.successors.on_transfer(self.moment.now);
        if to == self.shared.identity.node_id() {
            let from = self.name_of(from);
            info!("{from} is transferring leadership to this box, because {}", reason.in_words());
        }
    }

    /// The successor did not take over.
    pub(super) fn on_transfer_failed(&mut self, to: NodeId) {
        let name = self.name_of(to);
        info!("{name} did not take over leadership");
        self.transfers.successors.on_transfer_failed(self.moment.now);
        self.note_transfer(false);
    }

    /// This box does not lead any more. A newer term is the successor's; without one it gave up by itself.
    pub(super) fn end_transfer(&mut self) {
        let newer = self.transfers.pending.is_some_and(|pending| self.raft.term() > pending.term);
        self.note_transfer(newer);
        self.transfers.successors.begin_term();
        self.transfers.wish = Wish::default();
        self.tell_broker_wish();
    }

    fn note_transfer(&mut self, done: bool) {
        let Some(pending) = self.transfers.pending.take() else { return };
        if done {
            *self.transfers.done.entry(pending.reason).or_default() += 1;
            let to = self.name_of(pending.to);
            self.transfers.last =
                Some(LastTransfer { to, reason: pending.reason, at: self.moment.wall_ms() });
        } else {
            self.transfers.failed += 1;
        }
    }

    /// The disk did not take a group. A leader transfers leadership first, if somebody can take it, and tells the core
    /// afterwards: no write of its own is needed for that. Who cannot transfer leadership steps down.
    pub(super) fn on_persist_failed(&mut self, ticket: u64) {
        if self.transfers.withheld == Some(ticket) {
            return;
        }
        if self.leads() && self.transfers.withheld.is_none() {
            match self.transfer_for_disk() {
                Ok(()) => {
                    self.transfers.withheld = Some(ticket);
                    return;
                }
                Err(why) => warn!("cannot transfer leadership: {why}; this box steps down"),
            }
        }
        let now = self.now();
        self.raft.handle_persist_failed(now, ticket);
    }

    fn transfer_for_disk(&mut self) -> Result<(), LeadershipTransferError> {
        if self.is_transferring() {
            return Ok(());
        }
        if !self.others_are_majority() {
            return Err(LeadershipTransferError::NoMajority);
        }
        self.transfer_leadership(None, TransferReason::Disk).map(|_| ())
    }

    /// The disk has taken a group after all.
    pub(super) fn on_persisted(&mut self, ticket: u64) {
        self.transfers.withheld.take_if(|withheld| *withheld == ticket);
    }

    /// Leadership has moved, or could not in time: the core hears of the disk. `true` if it did now.
    pub(super) fn release_withheld(&mut self) -> bool {
        if self.leads() && self.is_transferring() {
            return false;
        }
        let Some(ticket) = self.transfers.withheld.take() else { return false };
        let now = self.now();
        self.raft.handle_persist_failed(now, ticket);
        true
    }

    /// Moves leadership to a better leader when that is due, and updates the wish for the upstream.
    pub(super) fn look_for_successor(&mut self) {
        let now = self.moment.now;
        if self.transfers.looked.is_some_and(|looked| now < looked + LOOK_EVERY) {
            return;
        }
        self.transfers.looked = Some(now);
        if self.leads() && !self.is_transferring() && self.stopping.is_none() {
            let own =
                Own { broker: broker_of(&self.shared), sync_median: self.heartbeats.adaptive.sync_median() };
            let voters = self.successors();
            self.transfers.wish = self.transfers.successors.decide(own, &voters, now);
            if let Some((to, reason)) = self.transfers.wish.transfer {
                let why = match reason {
                    TransferReason::Broker => {
                        "this box has not reached the broker for a while, and the other box does"
                    }
                    _ => "the disk of this box has been many times slower than the others' for minutes",
                };
                warn!("transferring leadership to {}: {why}", self.name_of(to));
                if let Err(error) = self.transfer_leadership(Some(to), reason) {
                    info!("cannot transfer leadership: {error}");
                }
            }
        }
        self.tell_broker_wish();
    }

    /// Updates the wish for the upstream: a follower whose leader asks probes the broker; a leader that hears of a
    /// box that reaches it tries again.
    fn tell_broker_wish(&mut self) {
        let probe = self.transfers.asked && !self.leads();
        let again = u64::from(std::mem::take(&mut self.transfers.wish.try_broker));
        self.shared.broker_wish.send_if_modified(|wish| {
            let next = BrokerWish { probe, tries: wish.tries + again };
            std::mem::replace(wish, next) != next
        });
    }

    /// This box's own condition, for its answers to heartbeats.
    pub(super) fn condition(&self) -> Condition {
        Condition {
            disk_ok: Some(self.disk_health.trouble().is_none()),
            broker: broker_of(&self.shared).map(|broker| broker.reached),
            sync_median: heartbeats::core(self.heartbeats.adaptive.sync_median()),
        }
    }

    pub(super) fn name_of(&self, id: NodeId) -> String {
        self.members.get(id).map_or_else(|| format!("box {id}"), |member| member.name.clone())
    }

    /// The other voters with a log.
    fn successors(&self) -> Vec<Voter> {
        let voters = self.raft.status().peers.into_iter().filter(|peer| peer.role == Some(MemberRole::Voter));
        let caught_up = |id: &NodeId| self.connected.contains(id);
        voters.map(|peer| Voter { id: peer.id, caught_up: peer.caught_up && caught_up(&peer.id) }).collect()
    }

    /// Whether those who answer can elect one of them without this box: of each half, if the configuration is
    /// joint.
    fn others_are_majority(&self) -> bool {
        let peers = self.raft.status().peers;
        let configuration = self.raft.configuration();
        // A witness is silent while nobody needs it.
        let is_there = |id: &NodeId| configuration.witness() == Some(*id) && self.connected.contains(id);
        let answers = |id: &NodeId| is_there(id) || peers.iter().any(|peer| peer.id == *id && peer.active);
        let majority = |half: Vec<NodeId>| {
            let needed = half.len() / 2 + 1;
            half.is_empty() || half.iter().filter(|id| answers(id)).count() >= needed
        };
        majority(configuration.voters().collect()) && majority(configuration.outgoing().collect())
    }
}

/// How this box's upstream stands to the broker.
fn broker_of(shared: &NodeShared) -> Option<Reach> {
    *shared.broker.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NodeShared {
    /// The upstream says how it stands to the broker; `None`: it has none, or does not know.
    pub(super) fn broker_seen(&self, reached: Option<bool>) {
        let mut broker = self.broker.lock().unwrap_or_else(PoisonError::into_inner);
        *broker = reached.map(|reached| match *broker {
            Some(before) if before.reached == reached => before,
            _ => Reach { reached, since: self.clock.now() },
        });
    }
}
