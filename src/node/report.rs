//! The node's part of the status. The loop writes down at intervals what only it knows; the rest is read when the
//! status is requested.

use std::sync::PoisonError;
use std::time::Duration;

use tally_core::id::NodeId;
use tally_core::raft::{MemberRole, PeerStatus, Role, Status};

use super::disk_health::Trouble;
use super::fault_tolerance::Known;
use super::shared::NodeShared;
use super::site_time::Offset;
use super::verdict::verdict;
use super::{
    AccumulatorStatus, AdaptiveTimeoutStatus, ChangingStatus, ClockStatus, ElectionStatus, HeldJumpStatus,
    LevelStatus, MemberStatus, MetersStatus, Node, NodeRole, NodeStatus, NumberGapStatus, OutboxStatus,
    StorageStatus, fault_tolerance, room, votes,
};
use crate::clock::Wall;
use crate::deliberate::{self, Bug};
use crate::site::{Level, MemberRecord, NumberGap, Site};
use crate::transport::Refusal;

/// How many held jumps are shown.
const HELD_SHOWN_MAX: usize = 16;
/// How old the loop's part may be.
const REFRESH: Duration = Duration::from_millis(100);

impl Node {
    /// Writes down what only the loop knows.
    pub(super) fn refresh_status(&mut self) {
        let now = self.moment.now;
        if self.status_at.is_some_and(|at| now < at + REFRESH) {
            return;
        }
        self.status_at = Some(now);
        let members = self.members();
        let identity = &self.shared.identity;
        let name = |id: NodeId| self.members.get(id).map(|member| member.name.clone());
        let role = self.raft.configuration().role(identity.node_id());
        let is_removed = self.is_removed();
        if is_removed {
            self.shared.removed.send_if_modified(|removed| !std::mem::replace(removed, true));
        }
        let mut status = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        let before = (
            status.role,
            std::mem::take(&mut status.tolerates),
            status.storage.state,
            status.verdict.text.clone(),
        );
        status.node = identity.me().name.clone();
        status.node_id = identity.node;
        status.site = identity.site.clone();
        status.site_id = identity.site_id.to_string();
        status.role = match self.raft.role() {
            // It may ask for votes, until it knows that its removal is committed.
            Role::PreCandidate | Role::Candidate if role.is_none() => NodeRole::None,
            Role::Follower if role == Some(MemberRole::Observer) => NodeRole::Observer,
            Role::Follower if role.is_none() => NodeRole::None,
            Role::Leader => NodeRole::Leader,
            Role::Follower => NodeRole::Follower,
            Role::PreCandidate | Role::Candidate => NodeRole::Candidate,
        };
        let leader = self.raft.leader().and_then(name);
        if leader != status.leader || self.raft.term().0 != status.term {
            status.leader_since = leader.is_some().then(|| self.moment.wall_ms());
        }
        status.leader = leader;
        status.term = self.raft.term().0;
        status.commit = self.raft.commit_index().0;
        status.last = self.raft.last().index.0;
        status.ready = self.leader_term().is_some()
            && !is_removed
            && self.batches.epoch().is_some()
            && self.disk_health.trouble().is_none();
        let raft = self.raft.status();
        let witness_for = self.catches_up(&members, &raft).and_then(name);
        let (majority, tolerates) =
            fault_tolerance::tolerates(&members, witness_for.as_deref(), raft.refused_by_witness);
        status.tolerates = if is_removed { fault_tolerance::removed() } else { tolerates };
        status.changing = ChangingStatus {
            joint: self.raft.configuration().is_joint(),
            waits: self.members.waits().map(str::to_owned),
        };
        status.members = members;
        status.transfers = self.transfers.status();
        status.state_check = self.state_check_status();
        status.clock.wall_synced = self.moment.wall.synced;
        status.adaptive_timeout = self.adaptive_timeout_status();
        status.storage = self.storage_status();
        status.uptime_s = now.saturating_duration_since(self.started).as_secs();
        status.accumulator.batches = self.batches.frozen_count();
        status.accumulator.unsettled = self.batches.earlier_count() as u64;
        status.refused = self.batches.refusal().map(|why| why.to_string());
        let known = Known {
            witness_for: witness_for.as_deref(),
            refused_by_witness: raft.refused_by_witness,
            majority,
        };
        status.verdict = verdict(&status, &known, is_removed);
        status.version = env!("CARGO_PKG_VERSION");
        status.pid = std::process::id();
        let (role, tolerates, disk, verdict) = before;
        let is_same = (role, disk) == (status.role, status.storage.state);
        if !is_same || tolerates != status.tolerates || verdict != status.verdict.text {
            self.shared.status_changed.notify_one();
        }
    }

    /// For which box the witness may not vote yet, as far as a leader knows: the one that it stands in for, or one that
    /// lacks the beginning of the subterm, after it did so or after the election.
    fn catches_up<const NODES: usize>(
        &self,
        members: &[MemberStatus],
        raft: &Status<NODES>,
    ) -> Option<NodeId> {
        let is_there = |id: NodeId| {
            members.iter().any(|member| member.id == id && member.votes && fault_tolerance::writes(member))
        };
        let lacks = |peer: &&PeerStatus| {
            peer.role == Some(MemberRole::Voter) && peer.matched < raft.subterm_start && is_there(peer.id)
        };
        let has_witness = self.raft.configuration().witness().is_some();
        let minds = has_witness && !deliberate::is(Bug::ToleratesTooSoon);
        let lacking = raft.peers.iter().find(lacks).filter(|_| minds);
        lacking.map(|peer| peer.id).or(raft.witness_for)
    }

    fn storage_status(&self) -> StorageStatus {
        let stats = self.storage_metrics.stats();
        let trouble = self.disk_health.trouble();
        let since = self.disk_health.writing_since();
        let waiting = since.map_or(Duration::ZERO, |since| self.moment.now.saturating_duration_since(since));
        StorageStatus {
            state: trouble.map(|trouble| trouble.kind),
            what: trouble.map(|trouble| trouble.what.clone()),
            since: trouble.map(|trouble| trouble.since_ms),
            advice: trouble.map(Trouble::advice),
            waiting_ms: u64::try_from(waiting.as_millis()).unwrap_or(u64::MAX),
            failures: self.shared.metrics.disk_failures.get(),
            snapshot_failures: self.shared.metrics.snapshot_failures.get(),
            bytes_written: stats.bytes_written,
            syncs: stats.syncs,
            sync_us_mean: stats.sync_us_total / stats.syncs.max(1),
            sync_us_max: stats.sync_us_max,
            log_bytes: stats.log_bytes,
            bytes_used: stats.bytes_used,
            bytes_max: stats.bytes_max,
            beyond: room::bound_exceeded(&stats),
            replay_bytes: stats.replay_bytes,
            snapshot_bytes: stats.snapshot_bytes,
            snapshot_index: self.snapshots.last.0,
        }
    }

    fn adaptive_timeout_status(&self) -> AdaptiveTimeoutStatus {
        let (adaptive, us) = (&self.heartbeats.adaptive, |span: Duration| span.as_micros() as u64);
        AdaptiveTimeoutStatus {
            election_timeout_ms: us(adaptive.timeout()) / 1000,
            heartbeat_ms: us(adaptive.heartbeat()) / 1000,
            round_trip_us: us(adaptive.round_trip()),
            sync_us: us(adaptive.sync()),
            sync_p99_us: us(adaptive.sync_p99()),
            late_us: us(adaptive.lateness()),
            leader_late: self.shared.metrics.leader_lateness.get(),
            text: self.recent_lateness().map(|late| {
                format!(
                    "this leader's loop woke {} ms late, longer than an election timeout: other boxes may \
                     consider it failed. This machine has too little processor time, or is suspended now and \
                     then: give tallyd more (CPUWeight=, nice), or move other programs away",
                    late.as_millis()
                )
            }),
        }
    }

    /// How far the clocks of the boxes are ahead of site time, as far as this one knows.
    fn clock_offsets(&mut self) -> Vec<Offset> {
        let offsets = self.leader_clock.offsets(self.now());
        let Wall { us: wall_us, synced } = self.moment.wall;
        match self.shared.clock.site_if_known() {
            Some(site) if offsets.is_empty() => {
                let site_us = site.0.min(u64::MAX >> 12) as i64 * 1000;
                let ahead_us = (wall_us.min(u64::MAX >> 2) as i64).saturating_sub(site_us);
                vec![Offset { member: self.shared.identity.node_id(), ahead_us, synced }]
            }
            _ => offsets,
        }
    }

    fn members(&mut self) -> Vec<MemberStatus> {
        let offsets = self.clock_offsets();
        let identity = &self.shared.identity;
        let links = self.links.as_ref().map(|links| links.peers()).unwrap_or_default();
        let progress = self.raft.status();
        let leader = self.raft.leader();
        let configuration = self.raft.configuration();
        let own = self.condition();
        let is_linked = |id: NodeId| links.iter().any(|link| link.id == id.0 && link.connected);
        let waiting = self.waiting_votes(|id| id == identity.node_id() || is_linked(id));
        let voters = configuration.voters().count();
        let leaving: Vec<NodeId> = self.site().members_leaving().iter().map(|record| record.id).collect();
        let of = |member: &MemberRecord| {
            let is_me = member.id == identity.node_id();
            let link = links.iter().find(|link| link.id == member.id.0);
            let peer = progress.peers.iter().find(|peer| peer.id == member.id);
            // A connection to a box that lost its power lives on for seconds; the leader knows sooner. Nothing
            // is asked of a witness while all is well.
            let answers = peer.is_none_or(|peer| peer.active) || member.role == MemberRole::Witness;
            let connected = is_me || (link.is_some_and(|link| link.connected) && answers);
            let follows = connected && leader.is_some();
            let clock = offsets.iter().find(|offset| offset.member == member.id);
            let said = if is_me { own } else { self.transfers.successors.condition(member.id) };
            MemberStatus {
                id: member.id,
                name: member.name.clone(),
                membership: configuration.role(member.id),
                intended: Some(member.role).filter(|_| !leaving.contains(&member.id)),
                key: member.key,
                role: match leader {
                    Some(leader) if leader == member.id => NodeRole::Leader,
                    _ if connected && member.role == MemberRole::Witness => NodeRole::Witness,
                    _ if follows && member.role == MemberRole::Observer => NodeRole::Observer,
                    _ if follows => NodeRole::Follower,
                    _ => NodeRole::Unknown,
                },
                address: member.address.clone(),
                connected,
                matched: match is_me {
                    true => Some(self.raft.durable_index().0),
                    false => peer.map(|peer| peer.matched.0),
                },
                rtt_us: link.and_then(|link| link.rtt_us),
                mtu: link.and_then(|link| link.mtu),
                sync_us: Some(said.sync_median.0).filter(|us| *us > 0),
                clock_offset_ms: clock.map(|clock| clock.ahead_us / 1000),
                clock_synced: clock.map(|clock| clock.synced),
                disk_ok: said.disk_ok,
                broker: said.broker,
                vote_waits: waiting.contains(&member.id).then(|| votes::why_it_waits(&member.name, voters)),
                votes: configuration.voters().any(|id| id == member.id),
                outgoing: configuration.outgoing().any(|id| id == member.id),
                refused: link.and_then(|link| link.refused),
                refused_because: link.and_then(|link| link.refused).map(Refusal::explain),
                version: match is_me {
                    true => Some(env!("CARGO_PKG_VERSION").to_owned()),
                    false => self.levels.release(member.id).map(str::to_owned),
                },
                heard_ms: match is_me || link.is_some_and(|link| link.connected) {
                    true => Some(0),
                    false => self.heard.get(&member.id).map(|at| {
                        let ago = self.moment.now.saturating_duration_since(*at).as_millis();
                        u64::try_from(ago).unwrap_or(u64::MAX)
                    }),
                },
            }
        };
        self.member_list().iter().map(of).collect()
    }
}

/// Fills in what can be read at any time.
pub(super) fn complete_status(status: &mut NodeStatus, shared: &NodeShared) {
    let stamp = {
        let site = shared.site.lock().unwrap_or_else(PoisonError::into_inner);
        status.applied = site.applied().0;
        status.commit = status.commit.max(status.applied);
        status.digest = format!("{:016x}", site.digest());
        status.series = site.series_len() as u64;
        status.meters = meters(&site);
        status.level = LevelStatus { site: site.level().get(), max: Level::MAX.get() };
        status.outbox = outbox(&site);
        site.stamp()
    };
    let told = shared.clock.leader_time();
    let site_ms = shared.clock.site().0;
    status.clock = ClockStatus {
        site_ms,
        wall_ms: shared.clock.wall_ms(),
        synced: told.synced,
        wall_synced: status.clock.wall_synced,
        held_ms: told.held.map(|held| held.0),
        text: told.held.map(|held| held_in_words(held.0, site_ms)),
        elapsed_ms: stamp.elapsed.0,
    };
    let backlog = shared.accumulator.backlog();
    status.accumulator = AccumulatorStatus {
        pending: backlog.cells as u64,
        waiting: backlog.waiting as u64,
        batches: status.accumulator.batches,
        unsettled: status.accumulator.unsettled,
        answered: shared.metrics.adds_answered.get(),
        refused: shared.metrics.cells_refused.get() + shared.accumulator.overflowed(),
    };
    status.elections = ElectionStatus {
        campaigns: shared.metrics.campaigns.get(),
        leader_changes: shared.metrics.leader_changes.get(),
    };
}

fn held_in_words(held_ms: u64, site_ms: u64) -> String {
    let apart_s = held_ms.abs_diff(site_ms) / 1000;
    let way = if held_ms >= site_ms { "ahead of" } else { "behind" };
    format!(
        "the boxes' clocks are {apart_s} s {way} site time, and too few of them are synchronised to be \
         trusted: synchronise a majority of the boxes, or run `tallyd clock step` if the clocks are right"
    )
}

fn meters(site: &Site) -> MetersStatus {
    let jumps = site.held_jumps(HELD_SHOWN_MAX).into_iter().map(|jump| HeldJumpStatus {
        meter: jump.meter,
        series: site.name(jump.series).to_owned(),
        from: jump.from,
        to: jump.to,
        heard: jump.heard.0,
    });
    MetersStatus {
        count: site.meters_len() as u64,
        held: site.held_jumps_len() as u64,
        jumps: jumps.collect(),
    }
}

fn outbox(site: &Site) -> OutboxStatus {
    OutboxStatus {
        waiting: (site.outbox_len() + site.held_len()) as u64,
        unnumbered: site.unnumbered_len() as u64,
        numbered: site.numbered_last(),
        delivered: site.delivered(),
        held: site.held_len() as u64,
        gap: site.number_gap().map(|NumberGap { after, up_to, at, passed_over }| NumberGapStatus {
            after,
            up_to,
            at,
            passed_over,
        }),
    }
}
