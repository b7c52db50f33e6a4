//! Leadership moves: handed over when it serves better elsewhere, when the disk takes no writes, when this box
//! stops, when somebody asks; and what became of it.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tally_core::id::{NodeId, Term};
use tally_core::raft::{MemberRole, TransferError};
use tracing::{info, warn};

use super::handle::{BrokerWish, Shared};
use super::heirs::{HandoverReason, Heirs, Own, Reach, Voter, Wish};
use super::status::{Handed, HandoverStatus};
use super::wire::{Condition, Frame};
use super::{Node, beats};
use crate::transport::Lane;

/// Who could lead better is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why leadership is not handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HandoverError {
    /// Nobody could take it.
    #[error(
        "no other voter answers, has caught up and has a disk that takes writes, so nobody could take over; \
         see `tallyd members`"
    )]
    NoHeir,
    /// That one could not.
    #[error("the disk of {0} takes no writes, as it says: it could not lead")]
    DiskIll(String),
    /// The others are no majority without this box, whose own vote cannot be stored.
    #[error("the other boxes that answer are no majority without this one")]
    NoMajority,
    /// It does not answer, or lacks too much.
    #[error("{name} does not answer, or has not caught up ({behind} entries behind)")]
    NotCaughtUp {
        /// Who.
        name: String,
        /// What it lacks, as far as is known.
        behind: u64,
    },
    /// The core refuses it.
    #[error("{0}")]
    Core(#[from] TransferError),
}

/// What this box knows of handing over.
#[derive(Debug, Default)]
pub(super) struct Handover {
    pub(super) heirs: Heirs,
    /// Under way.
    handing: Option<Handing>,
    /// A group that the disk did not take, which the core is told only once leadership has moved, or could
    /// not: until then this box leads on from memory, as with a disk that is merely slow.
    withheld: Option<u64>,
    /// Another box asks who reaches the broker; by a leader's latest heartbeat.
    asked: bool,
    wish: Wish,
    looked: Option<Instant>,
    done: BTreeMap<HandoverReason, u64>,
    failed: u64,
    last: Option<Handed>,
}

#[derive(Clone, Copy, Debug)]
struct Handing {
    to: NodeId,
    reason: HandoverReason,
    term: Term,
}

impl Handover {
    /// Whether a leader is to ask in its heartbeats who reaches the broker.
    pub(super) fn asks_for_broker(&self) -> bool {
        self.wish.asks_for_broker
    }

    /// The leader asks, or does not.
    pub(super) fn is_asked(&mut self, asked: bool) {
        self.asked = asked;
    }

    /// For status and metrics.
    pub(super) fn status(&self) -> HandoverStatus {
        let of = |reason| self.done.get(&reason).copied().unwrap_or_default();
        HandoverStatus {
            broker: of(HandoverReason::Broker),
            disk: of(HandoverReason::Disk),
            stopping: of(HandoverReason::Stopping),
            asked: of(HandoverReason::Asked),
            state: of(HandoverReason::State),
            failed: self.failed,
            last: self.last.clone(),
        }
    }
}

impl Node {
    /// Hands leadership over, to the best heir unless somebody is named.
    pub(super) fn hand_over(
        &mut self,
        to: Option<NodeId>,
        reason: HandoverReason,
    ) -> Result<NodeId, HandoverError> {
        if !self.leads() {
            return Err(TransferError::NotLeader.into());
        }
        if let Some(ill) = to.filter(|to| self.handover.heirs.is_ill(*to)) {
            return Err(HandoverError::DiskIll(self.name_of(ill)));
        }
        let to = match to {
            Some(to) => to,
            None => self.handover.heirs.best(&self.heirs()).ok_or(HandoverError::NoHeir)?,
        };
        let now = self.now();
        self.raft.transfer(now, to).map_err(|error| match error {
            TransferError::NotCaughtUp { id, behind } => {
                HandoverError::NotCaughtUp { name: self.name_of(id), behind }
            }
            other => other.into(),
        })?;
        let name = self.name_of(to);
        info!("hands leadership over to {name} ({})", reason.as_str());
        self.handover.handing = Some(Handing { to, reason, term: self.raft.term() });
        self.handover.heirs.handed_over(self.moment.now);
        let voters: Vec<NodeId> = self.raft.configuration().voters().collect();
        for voter in voters.into_iter().filter(|id| Some(*id) != self.raft.configuration().witness()) {
            self.send(voter, Lane::Control, &Frame::HandsOver { to, reason });
        }
        Ok(to)
    }

    /// Whether leadership is on its way to another box.
    pub(super) fn is_handing_over(&self) -> bool {
        self.handover.handing.is_some()
    }

    /// The leader hands over, to this box or another.
    pub(super) fn on_hands_over(&mut self, from: NodeId, to: NodeId, reason: HandoverReason) {
        if self.raft.leader() != Some(from) {
            return;
        }
        self.handover.heirs.handed_over(self.moment.now);
        if to == self.shared.identity.node_id() {
            let from = self.name_of(from);
            info!("{from} hands leadership over to this box, because {}", reason.in_words());
        }
    }

    /// The successor did not take over.
    pub(super) fn handover_failed(&mut self, to: NodeId) {
        let name = self.name_of(to);
        info!("{name} did not take leadership over");
        self.handover.heirs.handover_failed(self.moment.now);
        self.note_handover(false);
    }

    /// This box does not lead any more. A newer term is the successor's; without one it gave up by itself.
    pub(super) fn end_handover(&mut self) {
        let newer = self.handover.handing.is_some_and(|handing| self.raft.term() > handing.term);
        self.note_handover(newer);
        self.handover.heirs.begin_term();
        self.handover.wish = Wish::default();
        self.tell_broker_wish();
    }

    fn note_handover(&mut self, done: bool) {
        let Some(handing) = self.handover.handing.take() else { return };
        if done {
            *self.handover.done.entry(handing.reason).or_default() += 1;
            let to = self.name_of(handing.to);
            self.handover.last = Some(Handed { to, reason: handing.reason, at: self.moment.wall_ms() });
        } else {
            self.handover.failed += 1;
        }
    }

    /// The disk did not take a group. A leader hands over first, if somebody can take it, and tells the core
    /// afterwards: no write of its own is needed for that. Who cannot hand over stands down.
    pub(super) fn persist_failed(&mut self, ticket: u64) {
        if self.handover.withheld == Some(ticket) {
            return;
        }
        if self.leads() && self.handover.withheld.is_none() {
            match self.hand_over_for_disk() {
                Ok(()) => {
                    self.handover.withheld = Some(ticket);
                    return;
                }
                Err(why) => warn!("leadership cannot be handed over: {why}; this box stands down"),
            }
        }
        let now = self.now();
        self.raft.handle_persist_failed(now, ticket);
    }

    fn hand_over_for_disk(&mut self) -> Result<(), HandoverError> {
        if self.is_handing_over() {
            return Ok(());
        }
        if !self.others_are_majority() {
            return Err(HandoverError::NoMajority);
        }
        self.hand_over(None, HandoverReason::Disk).map(|_| ())
    }

    /// The disk has taken a group after all.
    pub(super) fn was_persisted(&mut self, ticket: u64) {
        self.handover.withheld.take_if(|withheld| *withheld == ticket);
    }

    /// Leadership has moved, or could not in time: the core hears of the disk. `true` if it did now.
    pub(super) fn release_withheld(&mut self) -> bool {
        if self.leads() && self.is_handing_over() {
            return false;
        }
        let Some(ticket) = self.handover.withheld.take() else { return false };
        let now = self.now();
        self.raft.handle_persist_failed(now, ticket);
        true
    }

    /// What a leader does about its successor as time goes by, and what all tell their upstream.
    pub(super) fn look_for_heir(&mut self) {
        let now = self.moment.now;
        if self.handover.looked.is_some_and(|looked| now < looked + LOOK_EVERY) {
            return;
        }
        self.handover.looked = Some(now);
        if self.leads() && !self.is_handing_over() && self.stopping.is_none() {
            let own = Own { broker: broker_of(&self.shared), sync_median: self.beats.pace.sync_median() };
            let voters = self.heirs();
            self.handover.wish = self.handover.heirs.wish(own, &voters, now);
            if let Some((to, reason)) = self.handover.wish.hand_over {
                let why = match reason {
                    HandoverReason::Broker => {
                        "this box has not reached the broker for a while, and that one does"
                    }
                    _ => "the disk of this box has been many times slower for minutes",
                };
                warn!("leadership goes to {}: {why}", self.name_of(to));
                if let Err(error) = self.hand_over(Some(to), reason) {
                    info!("leadership is not handed over: {error}");
                }
            }
        }
        self.tell_broker_wish();
    }

    /// What the upstream is to do: at a follower whose leader asks, see whether the broker is there; at a leader
    /// that hears that it is, try again.
    fn tell_broker_wish(&mut self) {
        let probe = self.handover.asked && !self.leads();
        let again = u64::from(std::mem::take(&mut self.handover.wish.try_broker));
        self.shared.broker_wish.send_if_modified(|wish| {
            let next = BrokerWish { probe, tries: wish.tries + again };
            std::mem::replace(wish, next) != next
        });
    }

    /// How this box is.
    pub(super) fn condition(&self) -> Condition {
        Condition {
            disk_ok: Some(self.disk_health.trouble().is_none()),
            broker: broker_of(&self.shared).map(|broker| broker.reached),
            sync_median: beats::core(self.beats.pace.sync_median()),
        }
    }

    pub(super) fn name_of(&self, id: NodeId) -> String {
        self.members.get(id).map_or_else(|| format!("box {id}"), |member| member.name.clone())
    }

    /// The other voters with a log.
    fn heirs(&self) -> Vec<Voter> {
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
fn broker_of(shared: &Shared) -> Option<Reach> {
    *shared.broker.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The upstream says how it stands to the broker; `None`: it has none, or does not know.
    pub(super) fn broker_seen(&self, reached: Option<bool>) {
        let mut broker = self.broker.lock().unwrap_or_else(PoisonError::into_inner);
        *broker = reached.map(|reached| match *broker {
            Some(before) if before.reached == reached => before,
            _ => Reach { reached, since: self.clock.now() },
        });
    }
}
