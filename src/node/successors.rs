//! Which voter could lead instead of this box, and when leadership should move by itself. Pure: the conditions of the
//! boxes and the time go in, a decision comes out.
//!
//! Leadership moves by itself to a voter that reaches the broker, from a leader that does not; and to one with a far
//! quicker disk. Both decisions are slow on purpose: a move costs a moment in which nothing is committed, and a
//! condition that comes and goes must not make leadership wander.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use tally_core::id::NodeId;

use super::wire::Condition;

/// A leader that has not reached the broker for so long would let another box lead. Longer than a broker's
/// restart; short enough for the next leader's connection to come within the 30 s after which the
/// broker tells subscribers that the site is offline.
const BROKER_AWAY: Duration = Duration::from_secs(10);
/// For so long a successor has reached the broker while the leader, which tries again as soon as it
/// hears so, still does not: a broker that has just come back is there for both.
const BROKER_AT_SUCCESSOR: Duration = Duration::from_secs(3);
/// A disk is slow when half of its syncs take so many times longer than the quickest successor's,
const SLOW_TIMES: u32 = 8;
/// and so long at least: below, nobody notices,
const SLOW_LEAST: Duration = Duration::from_millis(20);
/// and that for so long.
const SLOW_FOR: Duration = Duration::from_secs(180);
/// After leadership was transferred, by anyone for any reason, it does not move by itself for so long.
const REST: Duration = Duration::from_secs(60);
/// The wait before the next try if nobody took over.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Why leadership is transferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferReason {
    /// The leader does not reach the broker.
    Broker,
    /// Its disk is slow, full, read-only, failing or hung.
    Disk,
    /// The leader stops in good order.
    Stopping,
    /// An operator requested it.
    Asked,
    /// Its state differs from that of a majority.
    State,
}

impl TransferReason {
    /// All there are.
    pub const ALL: [TransferReason; 5] = [
        TransferReason::Broker,
        TransferReason::Disk,
        TransferReason::Stopping,
        TransferReason::Asked,
        TransferReason::State,
    ];

    /// The name in metrics and status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            TransferReason::Broker => "broker",
            TransferReason::Disk => "disk",
            TransferReason::Stopping => "stopping",
            TransferReason::Asked => "asked",
            TransferReason::State => "state",
        }
    }

    /// In words, after "because".
    pub(super) const fn in_words(self) -> &'static str {
        match self {
            TransferReason::Broker => "the leader does not reach the broker and this box does",
            TransferReason::Disk => "the leader's disk is unhealthy or slow",
            TransferReason::Stopping => "the leader is stopping",
            TransferReason::Asked => "an operator requested it",
            TransferReason::State => "the leader's state differs from that of a majority",
        }
    }

    pub(super) const fn number(self) -> u8 {
        self as u8
    }

    pub(super) fn numbered(number: u8) -> Option<TransferReason> {
        TransferReason::ALL.get(usize::from(number)).copied()
    }
}

/// This box and the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// Whether it reached it when it tried last.
    pub(super) reached: bool,
    /// Since when that is so.
    pub(super) since: Instant,
}

/// A voter with a log, other than the leader, as the leader's core and connections see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Voter {
    pub(super) id: NodeId,
    /// Whether it is connected, answers, and has all but the latest entries of the log.
    pub(super) caught_up: bool,
}

/// What a leader knows of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    /// `None`: it has no broker.
    pub(super) broker: Option<Reach>,
    /// Half of its syncs take less; zero: too few were seen.
    pub(super) sync_median: Duration,
}

/// What a leader should do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// Ask the others whether they reach the broker.
    pub(super) asks_for_broker: bool,
    /// Try the broker again now: another box has just reached it.
    pub(super) try_broker: bool,
    /// Transfer leadership to this one.
    pub(super) transfer: Option<(NodeId, TransferReason)>,
}

#[derive(Clone, Copy, Debug)]
struct PeerCondition {
    condition: Condition,
    /// Since when it says that it reaches the broker.
    reached_since: Option<Instant>,
}

/// What the others say of themselves, and since when something is not as it should be.
#[derive(Debug, Default)]
pub(super) struct Successors {
    conditions: BTreeMap<NodeId, PeerCondition>,
    slow_since: Option<Instant>,
    /// A successor's reaching the broker for which this leader was told to try again.
    tried_for: Option<Instant>,
    /// When leadership was transferred last, and how long it does not move by itself since.
    handed: Option<(Instant, Duration)>,
}

impl Successors {
    /// This box begins or ends to lead: what followers said counts no more.
    pub(super) fn begin_term(&mut self) {
        self.conditions.clear();
        self.slow_since = None;
        self.tried_for = None;
    }

    /// A voter said how it is.
    pub(super) fn on_condition(&mut self, id: NodeId, condition: Condition, now: Instant) {
        let before = self.conditions.get(&id).and_then(|told| told.reached_since);
        let reached_since = (condition.broker == Some(true)).then(|| before.unwrap_or(now));
        self.conditions.insert(id, PeerCondition { condition, reached_since });
    }

    /// The voter is not connected any more.
    pub(super) fn on_disconnected(&mut self, id: NodeId) {
        self.conditions.remove(&id);
    }

    /// What it said last.
    pub(super) fn condition(&self, id: NodeId) -> Condition {
        self.conditions.get(&id).map_or_else(Condition::default, |told| told.condition)
    }

    /// Leadership is being transferred, here or elsewhere.
    pub(super) fn on_transfer(&mut self, now: Instant) {
        self.handed = Some((now, REST));
    }

    /// A transfer has failed: nobody has taken over.
    pub(super) fn on_transfer_failed(&mut self, now: Instant) {
        self.handed = Some((now, REST_AFTER_FAILURE));
    }

    /// Whether it says that its disk takes no writes: it could not win an election.
    pub(super) fn is_unhealthy(&self, id: NodeId) -> bool {
        self.condition(id).disk_ok == Some(false)
    }

    /// Who would best lead instead: of those who have caught up and whose disk is well, one that is not
    /// known to miss the broker, with the quicker disk.
    pub(super) fn best_candidate(&self, voters: &[Voter]) -> Option<NodeId> {
        self.fit(voters).min_by_key(|id| self.rank(*id))
    }

    /// Decides what a leader should do now.
    pub(super) fn decide(&mut self, own: Own, voters: &[Voter], now: Instant) -> Wish {
        let away = own.broker.is_some_and(|broker| !broker.reached && now >= broker.since + BROKER_AWAY);
        let reaches = own.broker.is_some_and(|broker| broker.reached);
        let slow = self.is_slow(own.sync_median, voters, now);
        let reaching = self.fit(voters).filter_map(|id| self.conditions.get(&id)?.reached_since).min();
        let try_broker = away && reaching.is_some() && reaching != self.tried_for;
        self.tried_for = reaching;
        let rests = self.handed.is_some_and(|(at, rest)| now < at + rest);
        let since = |id: &NodeId| self.conditions.get(id).and_then(|told| told.reached_since);
        let to_broker = self
            .fit(voters)
            .filter(|id| away && since(id).is_some_and(|since| now >= since + BROKER_AT_SUCCESSOR))
            .min_by_key(|id| self.rank(*id))
            .map(|id| (id, TransferReason::Broker));
        // What serves the broker is not given up for a quicker disk.
        let to_disk = self
            .fit(voters)
            .filter(|id| slow && self.is_far_quicker(*id, own.sync_median))
            .filter(|id| !reaches || since(id).is_some())
            .min_by_key(|id| self.rank(*id))
            .map(|id| (id, TransferReason::Disk));
        Wish {
            asks_for_broker: away || (slow && reaches),
            try_broker,
            transfer: to_broker.or(to_disk).filter(|_| !rests),
        }
    }

    fn fit<'a>(&'a self, voters: &'a [Voter]) -> impl Iterator<Item = NodeId> + 'a {
        voters.iter().filter(|voter| voter.caught_up && !self.is_unhealthy(voter.id)).map(|voter| voter.id)
    }

    /// Less is better; disks count as equal within a factor of two.
    fn rank(&self, id: NodeId) -> (u8, u32) {
        let condition = self.condition(id);
        let broker = match condition.broker {
            Some(true) => 0,
            None => 1,
            Some(false) => 2,
        };
        (broker, condition.sync_median.0.max(1).ilog2())
    }

    fn is_slow(&mut self, own: Duration, voters: &[Voter], now: Instant) -> bool {
        let slow = own >= SLOW_LEAST && self.fit(voters).any(|id| self.is_far_quicker(id, own));
        self.slow_since = slow.then(|| self.slow_since.unwrap_or(now));
        self.slow_since.is_some_and(|since| now >= since + SLOW_FOR)
    }

    fn is_far_quicker(&self, id: NodeId, own: Duration) -> bool {
        let median = self.condition(id).sync_median;
        median.0 > 0 && Duration::from_micros(median.0).saturating_mul(SLOW_TIMES) <= own
    }
}

#[cfg(test)]
#[path = "successors_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "successors_sim_tests.rs"]
mod simulated;
