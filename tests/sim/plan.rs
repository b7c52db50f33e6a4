//! What a seed decides about a history before it begins.

use tally_core::id::{LogIndex, NodeId};
use tally_core::raft::{Config, Configuration, ConfigurationEntry, Member, MemberRole};
use tally_core::time::Duration;

use crate::rng::Rng;

/// Microseconds of simulated time.
pub(crate) type Micros = u64;

/// A number as a place or a count.
pub(crate) fn size(number: u64) -> usize {
    usize::try_from(number).expect("places and counts are small here")
}

pub(crate) const ELECTION_TIMEOUT: Micros = 100_000;
const HEARTBEAT: Micros = 25_000;

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) members: Vec<Member>,
    pub(crate) clients: u64,
    /// How long things go wrong.
    pub(crate) trouble: Micros,
    /// Between one trouble and the next, on average.
    pub(crate) calm: Micros,
    pub(crate) loss_permille: u64,
    pub(crate) duplicate_permille: u64,
    /// A message takes up to this long; one in a hundred up to fifty times that.
    pub(crate) delay_max: Micros,
    /// A sync takes up to this long; one in fifty up to a hundred times that.
    pub(crate) sync_max: Micros,
    /// A box takes a snapshot after so many entries.
    pub(crate) snapshot_every: u64,
    /// So many entries before a snapshot are kept.
    pub(crate) keep_entries: u64,
    pub(crate) append_bytes_max: u32,
    pub(crate) inflight_bytes_max: u32,
    pub(crate) uncommitted_bytes_max: u64,
    /// So many of a thousand new leaders crash within milliseconds: those leave entries behind that
    /// others have to judge.
    pub(crate) short_reigns_permille: u64,
}

impl Plan {
    pub(crate) fn new(rng: &mut Rng) -> Plan {
        let voters = rng.pick(&[1, 2, 3, 3, 3, 3, 3, 5]);
        let observers = u64::from(rng.chance(200));
        let role = |id| if id <= voters { MemberRole::Voter } else { MemberRole::Observer };
        let append_bytes_max = rng.pick(&[64, 300, 10_000]);
        Plan {
            members: (1..=voters + observers).map(|id| Member { id: NodeId(id), role: role(id) }).collect(),
            clients: rng.between(2, 4),
            trouble: 6_000_000,
            calm: rng.between(30_000, 300_000),
            loss_permille: rng.pick(&[0, 5, 50, 200]),
            duplicate_permille: rng.pick(&[0, 20, 100]),
            delay_max: rng.pick(&[300, 3_000, 20_000]),
            sync_max: rng.pick(&[200, 2_000, 10_000]),
            snapshot_every: rng.between(10, 60),
            keep_entries: rng.pick(&[0, 5, 40]),
            append_bytes_max,
            inflight_bytes_max: append_bytes_max * 3,
            uncommitted_bytes_max: rng.pick(&[100, 4_000]),
            short_reigns_permille: rng.pick(&[0, 300, 900]),
        }
    }

    pub(crate) fn config(&self, id: NodeId, seed: u64) -> Config {
        Config {
            id,
            election_timeout: Duration(ELECTION_TIMEOUT),
            heartbeat_interval: Duration(HEARTBEAT),
            seed,
            append_bytes_max: self.append_bytes_max,
            inflight_bytes_max: self.inflight_bytes_max,
            uncommitted_bytes_max: self.uncommitted_bytes_max,
        }
    }

    pub(crate) fn configuration(&self) -> ConfigurationEntry {
        let configuration = Configuration::new(&self.members).expect("a plan has voters");
        ConfigurationEntry { index: LogIndex::ZERO, configuration }
    }

    pub(crate) fn voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().filter(|member| member.role == MemberRole::Voter).map(|member| member.id)
    }

    pub(crate) fn quorum(&self) -> usize {
        self.voters().count() / 2 + 1
    }

    pub(crate) fn boxes(&self) -> u64 {
        self.members.len() as u64
    }
}
