//! What a seed decides about a history before it begins.

use tally_core::id::NodeId;
use tally_core::raft::{Config, Configuration, Member, MemberRole};
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

/// Most boxes of a history.
pub(crate) const BOXES: u64 = 7;
/// Members for whom a core has room: not for all there are.
pub(crate) const MEMBERS: usize = 7;
/// Witnesses that a site may have, one at a time.
pub(crate) const WITNESSES: [NodeId; 2] = [NodeId(8), NodeId(9)];

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Who the site begins with.
    pub(crate) members: Vec<Member>,
    /// Boxes 1 to so many run; some may belong to nobody yet.
    pub(crate) boxes: u64,
    /// Between one wish for other members and the next, on average; `None` if nobody has any.
    pub(crate) changes_every: Option<Micros>,
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
    /// With so many voters at first; as many as chance would have if that is `None`.
    pub(crate) fn new(rng: &mut Rng, voters: Option<u64>) -> Plan {
        let by_chance: u64 = rng.pick(&[1, 2, 2, 3, 3, 3, 4, 5, 5, 6, 7]);
        let voters = voters.unwrap_or(by_chance);
        let witness = voters.is_multiple_of(2) && rng.chance(700);
        let observers = if voters < BOXES && rng.chance(300) { 1 } else { 0 };
        let role = |id| if id <= voters { MemberRole::Voter } else { MemberRole::Observer };
        let mut members: Vec<Member> =
            (1..=voters + observers).map(|id| Member { id: NodeId(id), role: role(id) }).collect();
        members.truncate(MEMBERS - usize::from(witness));
        let founders = members.len() as u64;
        members.extend(witness.then_some(Member { id: WITNESSES[0], role: MemberRole::Witness }));
        let changes_every = rng.chance(700).then(|| rng.between(50_000, 400_000));
        let boxes = if changes_every.is_some() { rng.between(founders, BOXES) } else { founders };
        let append_bytes_max = rng.pick(&[64, 300, 10_000]);
        Plan {
            members,
            boxes,
            changes_every,
            clients: rng.between(2, 4),
            trouble: 2_200_000,
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

    /// What a box begins with: one that the site does not begin with belongs to nobody.
    pub(crate) fn configuration(&self, id: NodeId) -> Configuration {
        if !self.members.iter().any(|member| member.id == id) {
            return Configuration::EMPTY;
        }
        Configuration::new(&self.members).expect("a plan has voters")
    }
}
