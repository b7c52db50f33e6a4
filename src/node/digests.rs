//! Compares this box's digests with those of the other boxes at the same indexes. Pure: digests go in, a judgement
//! comes out.
//!
//! A digest covers everything that was ever done to the state, so states that differ once differ at each later index
//! too. It is enough to compare some common indexes. The digests are kept at three densities, so that boxes at
//! different places of a busy log have indexes in common.

use std::collections::{BTreeMap, BTreeSet};

use tally_core::id::{LogIndex, NodeId};

use crate::codec::{Malformed, Reader, put_varint};

/// Digests at the multiples of these indexes are kept,
const STEPS: [u64; 3] = [8, 256, 8192];
/// and of each so many, the latest.
const KEPT: u64 = 16;
/// The largest number of points.
const POINTS_MAX: usize = STEPS.len() * KEPT as usize;

/// Digests of one box's state, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Points(BTreeMap<u64, u64>);

impl Points {
    /// The entry at this index was applied, and the state has this digest since.
    pub(super) fn on_applied(&mut self, index: LogIndex, digest: u64) {
        if !index.0.is_multiple_of(STEPS[0]) {
            return;
        }
        self.0.insert(index.0, digest);
        let is_kept =
            |at: u64| STEPS.iter().any(|step| at.is_multiple_of(*step) && index.0 - at < step * KEPT);
        self.0.retain(|at, _| *at <= index.0 && is_kept(*at));
    }

    /// The state was replaced.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.0.len() as u64);
        for (index, digest) in &self.0 {
            put_varint(out, *index);
            out.extend_from_slice(&digest.to_le_bytes());
        }
    }

    /// Decodes the points of a peer.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Points, Malformed> {
        let count = reader.varint()?;
        if count > POINTS_MAX as u64 {
            return Err(Malformed);
        }
        let points = (0..count).map(|_| Ok((reader.varint()?, reader.u64()?)));
        points.collect::<Result<_, Malformed>>().map(Points)
    }

    /// From any pairs, for tests.
    #[cfg(test)]
    pub(super) fn of(pairs: &[(u64, u64)]) -> Points {
        Points(pairs.iter().copied().collect())
    }
}

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Judgement {
    /// No difference is known.
    #[default]
    Same,
    /// States differ, and this box's is not known to be the wrong one.
    Differs {
        /// The index at which they differ.
        index: u64,
        /// The boxes whose states differ from this one's.
        others: BTreeSet<NodeId>,
        /// More than half of those that hold the state agree with this one: the others are wrong.
        majority: bool,
    },
    /// More than half of those that hold the state agree with each other and not with this box.
    Wrong {
        /// The index at which they differ.
        index: u64,
        /// The boxes that agree with each other.
        with: BTreeSet<NodeId>,
    },
}

/// Compares this box's digests with what the others said. `holders`: all that hold the state, this box included,
/// whether they are heard or not: who is away may decide.
pub(super) fn judge(
    me: NodeId,
    own: &Points,
    told: &BTreeMap<NodeId, Points>,
    holders: &BTreeSet<NodeId>,
) -> Judgement {
    let mut judgement = Judgement::Same;
    for (index, mine) in own.0.iter().rev() {
        let mut groups: BTreeMap<u64, BTreeSet<NodeId>> = BTreeMap::from([(*mine, BTreeSet::from([me]))]);
        for (peer, points) in told.iter().filter(|(peer, _)| holders.contains(peer)) {
            if let Some(digest) = points.0.get(index) {
                groups.entry(*digest).or_default().insert(*peer);
            }
        }
        if groups.len() == 1 {
            continue;
        }
        let is_majority = |group: &BTreeSet<NodeId>| 2 * group.len() > holders.len();
        let majority = groups.get(mine).is_some_and(is_majority);
        let others = groups.iter().filter(|(digest, _)| *digest != mine);
        if let Some((_, with)) = others.clone().find(|(_, group)| is_majority(group)) {
            return Judgement::Wrong { index: *index, with: with.clone() };
        }
        // The latest counts, but what a majority says anywhere goes before.
        if judgement == Judgement::Same {
            let others = others.flat_map(|(_, group)| group.iter().copied()).collect();
            judgement = Judgement::Differs { index: *index, others, majority };
        }
    }
    judgement
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    fn judged(holders: &[u64], own: &[(u64, u64)], told: &[(u64, &[(u64, u64)])]) -> Judgement {
        let told = told.iter().map(|(id, points)| (NodeId(*id), Points::of(points))).collect();
        judge(ME, &Points::of(own), &told, &nodes(holders))
    }

    #[test]
    fn who_differs_from_a_majority_at_the_same_index_is_wrong_and_nobody_else() {
        let (good, bad) = ([(8, 1), (16, 2)], [(8, 1), (16, 9)]);
        assert_eq!(judged(&[1, 2, 3], &good, &[(2, &good), (3, &good)]), Judgement::Same);
        assert_eq!(
            judged(&[1, 2, 3], &bad, &[(2, &good), (3, &good)]),
            Judgement::Wrong { index: 16, with: nodes(&[2, 3]) }
        );
        let differs =
            |others: &[u64], majority| Judgement::Differs { index: 16, others: nodes(others), majority };
        assert_eq!(judged(&[1, 2, 3], &good, &[(2, &good), (3, &bad)]), differs(&[3], true));
        // One of the three is away: it may agree with either.
        assert_eq!(judged(&[1, 2, 3], &bad, &[(2, &good)]), differs(&[2], false));
        assert_eq!(judged(&[1, 2], &bad, &[(2, &good)]), differs(&[2], false), "two boxes have no majority");
        // Each has another state.
        let other = [(8, 1), (16, 7)];
        assert_eq!(judged(&[1, 2, 3], &bad, &[(2, &good), (3, &other)]), differs(&[2, 3], false));
        // What is said by somebody who is no member decides nothing.
        assert_eq!(judged(&[1, 2], &bad, &[(2, &good), (9, &good)]), differs(&[2], false));
        assert_eq!(
            judged(&[1, 2, 3], &bad, &[(2, &[(24, 5)]), (3, &[(32, 6)])]),
            Judgement::Same,
            "no index is common"
        );
    }

    #[test]
    fn boxes_at_different_places_of_a_busy_log_have_indexes_in_common() {
        let upto = |last: u64| {
            let mut points = Points::default();
            (1..=last).for_each(|index| points.on_applied(LogIndex(index), index));
            points
        };
        let ahead = upto(200_000);
        assert!(ahead.0.len() <= POINTS_MAX);
        for behind in [0, 100, 3000, 100_000] {
            let behind = upto(200_000 - behind);
            assert!(behind.0.keys().any(|index| ahead.0.contains_key(index)));
        }
    }

    #[test]
    fn points_are_read_as_they_were_put_and_are_bounded() {
        let points = Points::of(&[(8, 1), (16, u64::MAX)]);
        let mut bytes = Vec::new();
        points.put(&mut bytes);
        assert_eq!(Points::read(&mut Reader::new(&bytes)), Ok(points));
        let mut many = Vec::new();
        put_varint(&mut many, POINTS_MAX as u64 + 1);
        many.resize(many.len() + (POINTS_MAX + 1) * 9, 1);
        assert_eq!(Points::read(&mut Reader::new(&many)), Err(Malformed));
    }
}
