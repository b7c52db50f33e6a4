//! The node's part of the status: what only the loop knows is written down now and then, the rest is
//! read when someone asks.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tally_core::id::NodeId;
use tally_core::raft::Role;

use super::disk_health::Trouble;
use super::handle::Shared;
use super::{
    AccumulatorStatus, ClockStatus, ElectionStatus, MemberStatus, Node, NodeStatus, OutboxStatus,
    StorageStatus, Tolerates,
};
use crate::clock::wall_ms;
use crate::identity::Role as MemberKind;
use crate::site::Site;

/// How old the loop's part may be.
const REFRESH: Duration = Duration::from_millis(100);

impl Node {
    /// Writes down what only the loop knows.
    pub(super) fn refresh_status(&mut self) {
        let now = Instant::now();
        if self.status_at.is_some_and(|at| now < at + REFRESH) {
            return;
        }
        self.status_at = Some(now);
        let identity = &self.shared.identity;
        let members = self.members();
        let name = |id: NodeId| identity.member(id).map(|member| member.name.clone());
        let mut status = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.node = identity.me().name.clone();
        status.node_id = identity.node;
        status.site = identity.site.clone();
        status.site_id = identity.site_id.to_string();
        status.role = match self.raft.role() {
            _ if identity.me().role == MemberKind::Observer => "observer",
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::PreCandidate | Role::Candidate => "candidate",
        };
        status.leader = self.raft.leader().and_then(name);
        status.term = self.raft.term().0;
        status.commit = self.raft.commit_index().0;
        status.last = self.raft.last().index.0;
        status.ready = self.leader_term().is_some()
            && self.batches.epoch().is_some()
            && self.disk_health.trouble().is_none();
        status.tolerates = tolerates(identity, &members);
        status.members = members;
        status.storage = self.storage_status();
        status.uptime_s = self.started.elapsed().as_secs();
        status.accumulator.batches = self.batches.sent();
        status.version = env!("CARGO_PKG_VERSION");
        status.pid = std::process::id();
    }

    fn storage_status(&self) -> StorageStatus {
        let stats = self.storage_metrics.stats();
        let trouble = self.disk_health.trouble();
        let waiting = self.disk_health.writing_since().map_or(Duration::ZERO, |since| since.elapsed());
        StorageStatus {
            state: trouble.map_or("ok", |trouble| trouble.kind.as_str()),
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
            replay_bytes: stats.replay_bytes,
            snapshot_bytes: stats.snapshot_bytes,
            snapshot_index: self.snapshots.last.0,
        }
    }

    fn members(&self) -> Vec<MemberStatus> {
        let identity = &self.shared.identity;
        let links = self.transport.as_ref().map(|transport| transport.peers()).unwrap_or_default();
        let progress = self.raft.status();
        let leader = self.raft.leader();
        let of = |member: &crate::identity::MemberInfo| {
            let is_me = member.id == identity.node;
            let link = links.iter().find(|link| link.id == member.id);
            let connected = is_me || link.is_some_and(|link| link.connected);
            let follows = connected && leader.is_some();
            MemberStatus {
                id: member.id,
                name: member.name.clone(),
                membership: if member.role == MemberKind::Voter { "voter" } else { "observer" },
                role: match leader {
                    Some(leader) if leader.0 == member.id => "leader",
                    _ if follows && member.role == MemberKind::Observer => "observer",
                    _ if follows => "follower",
                    _ => "unknown",
                },
                address: member.address.clone(),
                connected,
                matched: match is_me {
                    true => Some(self.raft.durable_index().0),
                    false => {
                        progress.peers.iter().find(|peer| peer.id.0 == member.id).map(|peer| peer.matched.0)
                    }
                },
                rtt_us: link.and_then(|link| link.rtt_us),
            }
        };
        identity.members.iter().map(of).collect()
    }
}

/// What can fail from now on: boxes that are reachable beyond a majority.
fn tolerates(identity: &crate::identity::Identity, members: &[MemberStatus]) -> Tolerates {
    let voters = identity.members.iter().filter(|member| member.role == MemberKind::Voter).count();
    let up = members.iter().filter(|member| member.membership == "voter" && member.connected).count();
    let quorum = voters / 2 + 1;
    let failures = up.saturating_sub(quorum) as u64;
    let boxes = |count: usize| if count == 1 { "1 box".to_owned() } else { format!("{count} boxes") };
    let text = if up < quorum {
        format!(
            "{} of {voters} reachable: nothing is committed until {} more return",
            boxes(up),
            boxes(quorum - up)
        )
    } else if failures == 0 {
        format!("{} of {voters} reachable: tolerates no failure", boxes(up))
    } else {
        format!("{} of {voters} reachable: tolerates {failures} failing", boxes(up))
    };
    Tolerates { failures, text }
}

/// Fills in what can be read at any time.
pub(super) fn complete_status(status: &mut NodeStatus, shared: &Shared) {
    let stamp = {
        let site = shared.site.lock().unwrap_or_else(PoisonError::into_inner);
        status.applied = site.applied().0;
        status.commit = status.commit.max(status.applied);
        status.digest = format!("{:016x}", site.digest());
        status.series = site.series_len() as u64;
        status.outbox = outbox(&site);
        site.stamp()
    };
    status.clock = ClockStatus {
        site_ms: shared.clock.site().0,
        wall_ms: wall_ms(),
        synced: shared.clock.synced(),
        elapsed_ms: stamp.elapsed.0,
    };
    let backlog = shared.accumulator.backlog();
    status.accumulator = AccumulatorStatus {
        pending: backlog.cells as u64,
        waiting: backlog.waiting as u64,
        batches: status.accumulator.batches,
        answered: shared.metrics.adds_answered.get(),
        refused: shared.metrics.cells_refused.get() + shared.accumulator.overflowed(),
    };
    status.elections = ElectionStatus {
        campaigns: shared.metrics.leaderships.get(),
        leader_changes: shared.metrics.leader_changes.get(),
    };
}

fn outbox(site: &Site) -> OutboxStatus {
    OutboxStatus {
        waiting: site.outbox_len() as u64,
        unnumbered: site.unnumbered_len() as u64,
        numbered: site.numbered_last(),
        delivered: site.delivered(),
    }
}
