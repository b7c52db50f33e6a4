//! After the same entry all boxes have the same state, in each of their incarnations.

use std::collections::BTreeMap;

use tally_core::id::{LogIndex, NodeId};
use tallyd::site::Site;

#[derive(Debug, Default)]
pub(crate) struct Digests(BTreeMap<LogIndex, (u64, NodeId)>);

impl Digests {
    pub(crate) fn look(&mut self, at: NodeId, site: &Site) {
        let (index, digest) = (site.applied(), site.digest());
        let (first, by) = *self.0.entry(index).or_insert((digest, at));
        assert_eq!(first, digest, "digest equality: {by} and {at} differ after entry {index}");
    }
}
