//! The fields that accompany heartbeats and their answers: the clocks, from which a leader decides site time, and the
//! measurements that the adaptive timeout follows.

use std::time::{Duration, Instant};

use tally_core::id::{LogIndex, NodeId};
use tally_core::raft::{MemberRole, Message};
use tally_core::time::{Duration as CoreDuration, Instant as CoreInstant};
use tracing::{info, warn};

use super::Node;
use super::adaptive_timeout::AdaptiveTimeout;
use super::leader_clock::Logged;
use super::site_time::Reading;
use super::wire::{Frame, HeartbeatAnswerExtra, HeartbeatExtra};
use crate::clock::{LeaderTime, Wall};
use crate::deliberate::{self, Bug};
use crate::site::Stamp;

/// Connections are asked for their round trips this often.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The loop wakes at least so often to see how late it does: as often as heartbeats go, within these.
const LATE_LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// How long the status shows that a leader was late; the log says it no more often.
const LATE_SHOWN: Duration = Duration::from_secs(60);

/// The adaptive timeout, and the heartbeats to answer.
#[derive(Debug)]
pub(super) struct Heartbeats {
    pub(super) adaptive: AdaptiveTimeout,
    /// What the connections measured when they were last asked: a silent one repeats itself.
    measured: std::collections::BTreeMap<NodeId, u64>,
    /// The timeout and the interval that the core has.
    in_force: (Duration, Duration),
    looked: Instant,
    /// When the loop wakes next at the latest, to measure how late it wakes.
    tick_due: Instant,
    /// When this box led and was last late by more than an election timeout, and by how much.
    pub(super) late_leader: Option<(Instant, Duration)>,
    /// The peers whose heartbeat is to be answered, with its sending time by the sender's clock.
    sent: std::collections::BTreeMap<NodeId, CoreInstant>,
    /// Whether a jump was held when this leader last told the time.
    held: bool,
}

impl Heartbeats {
    pub(super) fn new(adaptive: AdaptiveTimeout, now: Instant) -> Heartbeats {
        let in_force = (adaptive.timeout(), adaptive.heartbeat());
        let measured = std::collections::BTreeMap::new();
        Heartbeats {
            adaptive,
            measured,
            in_force,
            looked: now,
            tick_due: now + LATE_LOOK_EVERY.0,
            late_leader: None,
            sent: std::collections::BTreeMap::new(),
            held: false,
        }
    }
}

impl Node {
    /// This leader's stamp now, which its own view of site time follows; `None`: this box does not
    /// lead, or the site is new and too few clocks are known.
    pub(super) fn stamp(&mut self) -> Option<Stamp> {
        let now = self.now();
        let (stamp, told) = self.leader_clock.stamp(now, self.moment.wall)?;
        self.shared.clock.hear(told);
        self.log_held_jump(told);
        Some(stamp)
    }

    fn log_held_jump(&mut self, told: LeaderTime) {
        match told.held {
            Some(held) if !self.heartbeats.held => warn!(
                "the boxes' clocks say {} ms, and site time is {} ms: this jump is held until a majority of \
                 the voters is synchronised and agrees, or until you run `tallyd clock step`",
                held.0, told.site.0
            ),
            None if self.heartbeats.held => info!("site time follows the boxes' clocks again"),
            _ => {}
        }
        self.heartbeats.held = told.held.is_some();
    }

    /// Begins to lead: continues site time and elapsed time from what is applied and logged.
    pub(super) fn begin_leading(&mut self) {
        let stamp = self.site().stamp();
        let (me, now) = (self.shared.identity.node_id(), self.now());
        let applied = self.site().applied();
        let unapplied =
            (applied.0 + 1..=self.tail.last().0).filter_map(|index| self.tail.payload(LogIndex(index)));
        let logged = Logged::of(unapplied);
        let known = self.shared.clock.site_if_known().max(Some(stamp.site));
        let elapsed = stamp.elapsed.max(logged.elapsed);
        self.leader_clock.on_applied(Stamp { elapsed, ..stamp }, now);
        let synced = logged.synced.unwrap_or(stamp.synced);
        let site = match deliberate::is(Bug::TimeFromApplied) {
            true if !logged.stepped => known.filter(|site| site.0 > 0),
            _ => logged.site_after(known),
        };
        self.leader_clock.lead(me, site, synced, now);
        self.count_voters_clocks();
        self.heartbeats.held = false;
        let _ = self.stamp();
    }

    pub(super) fn end_leading(&mut self) {
        self.leader_clock.stop_leading();
        self.gathered.clear();
        self.heartbeats.adaptive.on_step_down();
    }

    pub(super) fn send_heartbeat(&mut self, to: NodeId, message: Message) {
        // Without a stamp site time is zero, which nobody takes for one.
        let told = self.stamp().map(|_| self.shared.clock.leader_time()).unwrap_or_default();
        let timeout = core(self.heartbeats.adaptive.timeout());
        let (sent, asks_for_broker) = (self.now(), self.transfers.asks_for_broker());
        let heartbeat = HeartbeatExtra { told, wall: self.moment.wall, sent, timeout, asks_for_broker };
        self.send_datagram(to, &Frame::Heartbeat(message, heartbeat));
    }

    pub(super) fn send_heartbeat_answer(&mut self, to: NodeId, message: Message) {
        let adaptive = &self.heartbeats.adaptive;
        let (sync, timeout) = (core(adaptive.sync_told()), core(adaptive.timeout()));
        let sent = self.heartbeats.sent.remove(&to).unwrap_or_default();
        let condition = self.condition();
        let answer = HeartbeatAnswerExtra { wall: self.moment.wall, sent, sync, timeout, condition };
        self.send_datagram(to, &Frame::HeartbeatAnswer(message, answer));
    }

    fn send_datagram(&self, to: NodeId, frame: &Frame) {
        if let Some(links) = &self.links {
            // A lost heartbeat is followed by the next.
            let _ = links.datagram(to, frame.encode());
        }
    }

    pub(super) fn on_heartbeat(&mut self, from: NodeId, message: &Message, heartbeat: &HeartbeatExtra) {
        if !self.on_message(from, message, Vec::new()) {
            return;
        }
        let sent = self.heartbeats.sent.entry(from).or_default();
        *sent = heartbeat.sent.max(*sent);
        self.shared.clock.hear(heartbeat.told);
        let me = self.shared.identity.node_id();
        self.transfers.set_asked(heartbeat.asks_for_broker && self.is_voter(me));
        self.heartbeats.adaptive.on_announced(micros(heartbeat.timeout));
        self.set_timeouts();
    }

    pub(super) fn on_heartbeat_answer(
        &mut self,
        from: NodeId,
        message: &Message,
        answer: &HeartbeatAnswerExtra,
    ) {
        if !self.on_message(from, message, Vec::new()) {
            return;
        }
        let now = self.now();
        let is_voter = self.is_voter(from);
        if is_voter {
            self.heartbeats.adaptive.on_answer(from, micros(answer.sync), micros(answer.timeout));
            self.transfers.successors.on_condition(from, answer.condition, self.moment.now);
        }
        // Zero: it answers something else than a heartbeat.
        if answer.sent.0 == 0 || answer.sent > now {
            return;
        }
        let round_trip = now.since(answer.sent);
        if is_voter {
            self.heartbeats.adaptive.round_trip_of(from, micros(round_trip), now);
        }
        let Wall { us: wall_us, synced } = answer.wall;
        self.leader_clock.on_reading(from, Reading { wall_us, synced, round_trip }, now);
    }

    /// Measures how late the loop has just woken.
    pub(super) fn measure_lateness(&mut self) {
        let now = self.moment.now;
        let Some(late) = now.checked_duration_since(self.heartbeats.tick_due) else { return };
        let every = self.heartbeats.adaptive.heartbeat().clamp(LATE_LOOK_EVERY.0, LATE_LOOK_EVERY.1);
        self.heartbeats.tick_due = now + every;
        let core_now = self.now();
        self.heartbeats.adaptive.on_late_wake(late, core_now);
        let timeout = self.heartbeats.adaptive.timeout();
        if !self.leads() || late <= timeout {
            return;
        }
        self.shared.metrics.leader_lateness.raise();
        if self.recent_lateness().is_none() {
            warn!(
                "this leader's loop woke {late:?} late, longer than the election timeout ({timeout:?}): this \
                 machine has too little processor time, or was suspended"
            );
        }
        self.heartbeats.late_leader = Some((now, late));
    }

    /// How late this box woke while it led, if that was recent and longer than an election timeout.
    pub(super) fn recent_lateness(&self) -> Option<Duration> {
        self.heartbeats
            .late_leader
            .filter(|(at, _)| self.moment.now.saturating_duration_since(*at) < LATE_SHOWN)
            .map(|(_, late)| late)
    }

    /// When the loop is to wake at the latest.
    pub(super) fn tick_due(&self) -> Instant {
        self.heartbeats.tick_due
    }

    /// Decides the adaptive timeout, at a leader and where none is known; otherwise the leader's is in force.
    pub(super) fn keep_timeouts(&mut self) {
        let now = self.moment.now;
        if now >= self.heartbeats.looked + LOOK_EVERY {
            self.heartbeats.looked = now;
            self.sample_connections();
            self.count_voters_clocks();
        }
        if self.leads() || self.raft.leader().is_none() {
            self.heartbeats.adaptive.decide(self.now());
        }
        self.set_timeouts();
    }

    fn set_timeouts(&mut self) {
        let adaptive = &self.heartbeats.adaptive;
        let wanted = (adaptive.timeout(), adaptive.heartbeat());
        if wanted == self.heartbeats.in_force {
            return;
        }
        let now = self.now();
        match self.raft.set_timeouts(now, core(wanted.0), core(wanted.1)) {
            Ok(()) => {
                info!("election timeout {:?}, heartbeat every {:?}", wanted.0, wanted.1);
                self.heartbeats.in_force = wanted;
            }
            Err(error) => warn!("cannot apply the adaptive timeout {wanted:?}: {error}"),
        }
    }

    /// Takes the round trips that the connections measure, if this box has no leader. With a leader its own
    /// measurements count: after a pause of a peer a connection's estimate is the pause for minutes.
    fn sample_connections(&mut self) {
        let leaderless = self.raft.leader().is_none();
        let Some(links) = self.links.as_ref().filter(|_| leaderless) else { return };
        for peer in links.peers() {
            let peer_id = NodeId(peer.id);
            if let Some(us) = peer.rtt_us.filter(|_| peer.connected && self.is_voter(peer_id))
                && self.heartbeats.measured.insert(peer_id, us) != Some(us)
            {
                self.heartbeats.adaptive.round_trip_of(
                    NodeId(peer.id),
                    Duration::from_micros(us),
                    self.now(),
                );
            }
        }
    }

    /// Whether its patience and its clock count: an observer, however far away, slows nobody down, and a
    /// witness has no clock.
    fn is_voter(&self, id: NodeId) -> bool {
        self.raft.configuration().role(id) == Some(MemberRole::Voter)
    }

    /// The voters with a clock.
    pub(super) fn count_voters_clocks(&mut self) {
        let configuration = self.raft.configuration();
        let boxes = configuration.voters().filter(|id| Some(*id) != configuration.witness());
        self.leader_clock.set_voters(boxes);
    }
}

pub(super) fn core(span: Duration) -> CoreDuration {
    CoreDuration(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
}

fn micros(span: CoreDuration) -> Duration {
    Duration::from_micros(span.0)
}
