//! The status of a box and its site, for `/v1/status`, `tallyd status`, the page and metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use tally_core::id::{KeyHash, NodeId};
use tally_core::raft::MemberRole;

use super::disk_health::DiskFault;
use super::successors::TransferReason;
use super::verdict::Verdict;
use crate::figures::Family;
use crate::transport::Refusal;

/// What a node does at present, as far as the one that tells it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// The leader.
    Leader,
    /// A follower that votes.
    Follower,
    /// A candidate.
    Candidate,
    /// A follower that does not vote.
    Observer,
    /// The witness.
    Witness,
    /// Not a member, not yet or not any more.
    #[default]
    None,
    /// Unknown.
    Unknown,
}

impl NodeRole {
    /// The role as people and programs read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            NodeRole::Leader => "leader",
            NodeRole::Follower => "follower",
            NodeRole::Candidate => "candidate",
            NodeRole::Observer => "observer",
            NodeRole::Witness => "witness",
            NodeRole::None => "none",
            NodeRole::Unknown => "unknown",
        }
    }
}

/// The role of a member that may have none: then it is `none`.
pub mod role_or_none {
    use super::{Deserialize, MemberRole, Serialize, Serializer};
    use serde::Deserializer;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        None,
        #[serde(untagged)]
        Role(MemberRole),
    }

    pub(crate) fn serialize<S: Serializer>(
        role: &Option<MemberRole>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        role.map_or(Word::None, Word::Role).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<MemberRole>, D::Error> {
        Ok(match Word::deserialize(from)? {
            Word::None => None,
            Word::Role(role) => Some(role),
        })
    }
}

/// Feature levels.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct LevelStatus {
    /// In force at the site.
    pub site: u32,
    /// The highest that this box can apply.
    pub max: u32,
}

/// The answer of `GET /v1/status`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NodeStatus {
    /// Whether this box counts, and how many boxes may fail: in one sentence.
    pub verdict: Verdict,
    /// This box's name.
    pub node: String,
    /// This box's number.
    pub node_id: u64,
    /// The site's name.
    pub site: String,
    /// The site's random identity.
    pub site_id: String,
    /// What it does at present.
    pub role: NodeRole,
    /// The leader's name, if one is known.
    pub leader: Option<String>,
    /// Since when this box has known that leader, Unix milliseconds of this box's clock.
    pub leader_since: Option<u64>,
    /// The current term.
    pub term: u64,
    /// Up to which index the log is committed, as far as this box knows.
    pub commit: u64,
    /// Up to which index this box has applied it.
    pub applied: u64,
    /// The end of this box's log.
    pub last: u64,
    /// Whether this box can commit: it knows a leader, and its own epoch is open.
    pub ready: bool,
    /// Why the site does not take what this box counts; absent: it does.
    pub refused: Option<String>,
    /// The feature level in force, and the highest that this box can apply: lower while a box of an older release is a
    /// member.
    pub level: LevelStatus,
    /// All boxes.
    pub members: Vec<MemberStatus>,
    /// Election timeout and heartbeat in force.
    pub adaptive_timeout: AdaptiveTimeoutStatus,
    /// What the members are becoming.
    pub changing: ChangingStatus,
    /// How many boxes can fail from now on without stopping the site, and that in words.
    pub tolerates: Tolerates,
    /// The summaries that wait.
    pub outbox: OutboxStatus,
    /// Site time.
    pub clock: ClockStatus,
    /// Running digest of the state at `applied`, 16 hexadecimal digits.
    pub digest: String,
    /// Whether this state is the other boxes'.
    pub state_check: StateCheckStatus,
    /// Disk.
    pub storage: StorageStatus,
    /// What was counted here and is on its way.
    pub accumulator: AccumulatorStatus,
    /// How many elections this box has seen begin, won and lost leaders, since it started.
    pub elections: ElectionStatus,
    /// How often this box has transferred leadership since it started, and why.
    pub transfers: TransfersStatus,
    /// How many series the site has.
    pub series: u64,
    /// The meters that it keeps the last reading of.
    pub meters: MetersStatus,
    /// Seconds since this process started.
    pub uptime_s: u64,
    /// The version of the program.
    pub version: &'static str,
    /// Process id, for those who measure.
    pub pid: u32,
    /// The ways in (StatsD, polled files), by name.
    pub ingest: serde_json::Map<String, Value>,
    /// Their figures for `/metrics`, by name.
    #[serde(skip)]
    pub ingest_figures: BTreeMap<&'static str, Arc<[Family]>>,
    /// The way out.
    pub upstream: Value,
}

/// Meters, and what is not counted of them yet.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MetersStatus {
    /// How many there are, one a (meter, series).
    pub count: u64,
    /// How many jumps are held.
    pub held: u64,
    /// Up to 16 of these.
    pub jumps: Vec<HeldJumpStatus>,
}

/// A jump of more than `step_max`, which is not counted before a later reading confirms it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HeldJumpStatus {
    /// The meter.
    pub meter: String,
    /// The series that it is counted in.
    pub series: String,
    /// The value up to which it is counted.
    pub from: u64,
    /// What it shows.
    pub to: u64,
    /// When that was heard, site time.
    pub heard: u64,
}

/// A box as this box sees it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MemberStatus {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its role in the configuration in force; none: it is not (yet, or any more) in it.
    #[serde(with = "role_or_none")]
    pub membership: Option<MemberRole>,
    /// What it does at present, as far as this box can tell.
    pub role: NodeRole,
    /// Where its peers reach it.
    pub address: String,
    /// The hash of its public key. For `GET /v1/members`.
    #[serde(skip)]
    pub key: KeyHash,
    /// The role that it is meant to have (none: it is to leave); it has that when it can.
    #[serde(with = "role_or_none")]
    pub intended: Option<MemberRole>,
    /// Whether this box has a live connection to it, and, at the leader, whether a box with a log answered
    /// within the last election timeout (true for itself).
    pub connected: bool,
    /// At the leader: up to which index its log is known to be durable.
    pub matched: Option<u64>,
    /// Round trip of the connection in microseconds.
    pub rtt_us: Option<u64>,
    /// The largest packet that the path of the connection carries, bytes.
    pub mtu: Option<u16>,
    /// The median time of a sync of its disk, microseconds: as it tells its leader; elsewhere only of this box.
    pub sync_us: Option<u64>,
    /// How far its wall clock is ahead of site time, milliseconds: at the leader of all boxes, elsewhere
    /// of this one.
    pub clock_offset_ms: Option<i64>,
    /// Whether a time service keeps its wall clock, likewise.
    pub clock_synced: Option<bool>,
    /// Whether its disk takes writes: as it tells its leader; elsewhere only of this box.
    pub disk_ok: Option<bool>,
    /// Whether it reached the broker when it tried last, likewise. Boxes that do not lead try only while
    /// a leader asks for it.
    pub broker: Option<bool>,
    /// Votes (in the group that is being entered, while the members change).
    pub votes: bool,
    /// Votes in the group that is being left, while the members change.
    pub outgoing: bool,
    /// Why its vote waits, with what to do; absent: it does not.
    pub vote_waits: Option<String>,
    /// Why the latest try at a connection was refused, by either side; none since there was a connection.
    pub refused: Option<Refusal>,
    /// The same in words, with what to do.
    pub refused_because: Option<&'static str>,
}

/// A change of the members that is under way.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ChangingStatus {
    /// Two groups are in force: majorities of both are needed.
    pub joint: bool,
    /// At the leader: why the next step is not made.
    pub waits: Option<String>,
}

/// Leadership transferred by this box since it started, by reason.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TransfersStatus {
    /// Transfers because the leader did not reach the broker, and another box did.
    pub broker: u64,
    /// Its disk was slow, full, read-only, failing or hung.
    pub disk: u64,
    /// Transfers because the leader stopped in good order.
    pub stopping: u64,
    /// Transfers on request.
    pub asked: u64,
    /// Its state differed from that of a majority.
    pub state: u64,
    /// Begun, and not taken by the other box.
    pub failed: u64,
    /// The latest that was taken.
    pub last: Option<LastTransfer>,
}

/// A handing over.
#[derive(Clone, Debug, Serialize)]
pub struct LastTransfer {
    /// To which box.
    pub to: String,
    /// Why.
    pub reason: TransferReason,
    /// When, Unix milliseconds of this box's clock.
    pub at: u64,
}

/// What digests say of this box's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateVerdict {
    /// The state agrees with the other boxes'.
    #[default]
    Ok,
    /// The state differs from another box's, and is not known to be wrong.
    Differs,
    /// The state is wrong, and is fetched from a box of the majority.
    OutOfService,
}

/// Digests of the boxes' states, compared.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StateCheckStatus {
    /// What they say of this box's.
    pub state: StateVerdict,
    /// What that means and what to do; absent when the state is `ok`.
    pub text: Option<String>,
    /// The number of connected boxes whose states it is compared with.
    pub compared_with: u64,
    /// How often a difference was seen since start.
    pub mismatches: u64,
}

/// How patient the boxes are with their leader.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AdaptiveTimeoutStatus {
    /// Without a leader for so long, up to twice as long, a box campaigns; milliseconds.
    pub election_timeout_ms: u64,
    /// A leader shows itself this often, milliseconds.
    pub heartbeat_ms: u64,
    /// What the timeout follows: a high quantile of the round trips to the slowest connected box,
    /// microseconds.
    pub round_trip_us: u64,
    /// And a high quantile of the time that this box's disk takes for a write, microseconds.
    pub sync_us: u64,
    /// The 99th percentile of that time, microseconds.
    pub sync_p99_us: u64,
    /// And how late this box's loop wakes now and then for lack of processor time, microseconds.
    pub late_us: u64,
    /// How often this box led and its loop woke later than an election timeout, since start.
    pub leader_late: u64,
    /// What that means and what to do, if it happened within the last minute.
    pub text: Option<String>,
}

/// What the site can lose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tolerates {
    /// Boxes that can fail from now on.
    pub failures: u64,
    /// In words.
    pub text: String,
}

/// The outbox.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OutboxStatus {
    /// Summaries not delivered, held ones included.
    pub waiting: u64,
    /// How many of these have no number yet.
    pub unnumbered: u64,
    /// The last number given.
    pub numbered: u64,
    /// Up to which number all is delivered, but for what is held.
    pub delivered: u64,
    /// Numbered summaries that the broker takes on no topic: held, and tried again.
    pub held: u64,
}

/// Clocks.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ClockStatus {
    /// Site time now, Unix milliseconds.
    pub site_ms: u64,
    /// This box's wall clock, Unix milliseconds.
    pub wall_ms: u64,
    /// Whether site time is that of synchronised clocks, to a second.
    pub synced: bool,
    /// Whether a time service keeps this box's wall clock.
    pub wall_synced: bool,
    /// Where the boxes' clocks would have site time jump to, Unix milliseconds, if that is held.
    pub held_ms: Option<u64>,
    /// What that means and what to do, if a jump is held.
    pub text: Option<String>,
    /// Elapsed time as last applied, milliseconds.
    pub elapsed_ms: u64,
}

/// What `storage.state` is while the disk takes writes.
pub const DISK_OK: &str = "ok";

/// What keeps the disk from taking writes, if something does: else it is `ok`.
fn disk_state<S: Serializer>(fault: &Option<DiskFault>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(fault.map_or(DISK_OK, DiskFault::as_str))
}

/// Disk.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StorageStatus {
    /// What keeps the disk from taking writes, if something does. Reads of what is in memory go on; nothing is
    /// acknowledged.
    #[serde(serialize_with = "disk_state")]
    pub state: Option<DiskFault>,
    /// What the system said, with the file; absent when the state is `ok`.
    pub what: Option<String>,
    /// Since when, Unix milliseconds of this box's clock.
    pub since: Option<u64>,
    /// What to do about it.
    pub advice: Option<&'static str>,
    /// For how long the disk has had the group of entries that it is writing, milliseconds; 0: none.
    pub waiting_ms: u64,
    /// Groups that the disk did not take since start.
    pub failures: u64,
    /// Snapshots of this box that could not be written since start.
    pub snapshot_failures: u64,
    /// Bytes written by this process to log and snapshots.
    pub bytes_written: u64,
    /// Syncs.
    pub syncs: u64,
    /// Mean time of a sync, microseconds.
    pub sync_us_mean: u64,
    /// Longest sync, microseconds.
    pub sync_us_max: u64,
    /// Size of the log on disk, bytes.
    pub log_bytes: u64,
    /// Size of log, spare files and snapshots together, bytes.
    pub bytes_used: u64,
    /// What they may have together (`storage.bytes_max`), bytes.
    pub bytes_max: u64,
    /// Why they take more than that, and what to do; absent where they do not.
    pub beyond: Option<String>,
    /// Bytes of log since the latest snapshot: what a restart replays.
    pub replay_bytes: u64,
    /// Size of the latest snapshot, bytes.
    pub snapshot_bytes: u64,
    /// Index of the latest snapshot.
    pub snapshot_index: u64,
}

/// What was counted here and is on its way.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AccumulatorStatus {
    /// Series with counts that are not in a batch yet.
    pub pending: u64,
    /// Requests that wait.
    pub waiting: u64,
    /// Batches sent since start.
    pub batches: u64,
    /// Adds answered since start.
    pub answered: u64,
    /// Cells of batches that were refused where they were applied.
    pub refused: u64,
    /// Batches from before the last stop that are not committed yet; what is counted since waits for them.
    pub unsettled: u64,
}

/// Elections.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ElectionStatus {
    /// How often this box began to campaign.
    pub campaigns: u64,
    /// How often the leader that this box knows changed.
    pub leader_changes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{json, to_value};

    #[test]
    fn json_has_the_words_that_people_read() {
        for role in MemberRole::ALL {
            assert_eq!(to_value(role).unwrap(), role.as_str());
        }
        for reason in TransferReason::ALL {
            assert_eq!(to_value(reason).unwrap(), reason.as_str());
        }
        for (role, word) in [
            (NodeRole::Leader, "leader"),
            (NodeRole::Follower, "follower"),
            (NodeRole::Candidate, "candidate"),
            (NodeRole::Observer, "observer"),
            (NodeRole::Witness, "witness"),
            (NodeRole::None, "none"),
            (NodeRole::Unknown, "unknown"),
        ] {
            assert_eq!((to_value(role).unwrap(), role.as_str()), (json!(word), word));
        }
        let states = [StateVerdict::Ok, StateVerdict::Differs, StateVerdict::OutOfService];
        assert_eq!(to_value(states).unwrap(), json!(["ok", "differs", "out-of-service"]));
        let disk =
            |state| to_value(StorageStatus { state, ..StorageStatus::default() }).unwrap()["state"].clone();
        assert_eq!(disk(None), "ok");
        assert_eq!(disk(Some(DiskFault::ReadOnly)), "read-only");
    }

    #[test]
    fn a_member_without_a_role_says_none_and_is_read_as_that() {
        for (membership, word) in [(None, "none"), (Some(MemberRole::Witness), "witness")] {
            let member = MemberStatus { id: NodeId(3), membership, ..MemberStatus::default() };
            let said = to_value(&member).unwrap();
            assert_eq!((&said["id"], &said["membership"]), (&json!(3), &json!(word)));
            assert_eq!(role_or_none::deserialize(&said["membership"]).unwrap(), membership);
        }
        assert!(role_or_none::deserialize(&json!("None")).is_err());
    }
}
