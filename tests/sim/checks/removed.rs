//! Removed boxes: once the configuration without a box is committed, it commits nothing by the one that had it, nor
//! leads by that in a later term.

use std::collections::BTreeMap;

use tally_core::id::{LogIndex, NodeId};
use tallyd::site::Site;

use crate::boxes::Incarnation;
use crate::witnesses::is_witness;

#[derive(Debug, Default)]
pub(crate) struct Removed {
    /// From which entry on a configuration in force was seen that has it.
    was_in: BTreeMap<NodeId, LogIndex>,
    /// The first entry after which it was seen without, and in which term that was.
    out: BTreeMap<NodeId, (LogIndex, u64)>,
}

impl Removed {
    pub(crate) fn founders(&mut self, ids: impl Iterator<Item = NodeId>) {
        self.was_in.extend(ids.map(|id| (id, LogIndex::ZERO)));
    }

    pub(crate) fn is_removed(&self, id: NodeId) -> bool {
        self.out.contains_key(&id)
    }

    pub(crate) fn is_removed_before(&self, id: NodeId, index: LogIndex) -> bool {
        self.out.get(&id).is_some_and(|(since, _)| *since < index)
    }

    /// A box shows another configuration in force, in this term.
    pub(crate) fn changed(&mut self, site: &Site, term: u64) {
        let (index, Some(now)) = (site.applied(), site.configuration()) else { return };
        // A witness leaves while voters change, and comes back.
        for part in now.parts.iter().filter(|part| !is_witness(part.id)) {
            let since = self.was_in.entry(part.id).or_insert(index);
            *since = index.min(*since);
        }
        let has = |id: &NodeId| now.parts.iter().any(|part| part.id == *id);
        for (id, _) in self.was_in.iter().filter(|(id, since)| index > **since && !has(id)) {
            let (since, of) = self.out.entry(*id).or_insert((index, term));
            (*since, *of) = (index.min(*since), term.min(*of));
        }
    }

    /// After each step of a box.
    pub(crate) fn look(&self, at: NodeId, incarnation: &Incarnation) {
        let Some((index, term)) = self.out.get(&at) else { return };
        let (by, configuration) = incarnation.node.configuration();
        if by >= *index || configuration.role(at).is_none() {
            return;
        }
        let commit = incarnation.node.commit_index();
        assert!(
            commit < *index,
            "removed: {at} calls {commit} committed, by members among whom it is; entry {index} was without it"
        );
        let role = *incarnation.handle.role().borrow();
        assert!(
            !role.leads || role.term <= *term,
            "removed: {at} leads in term {}, and was removed in {term} by entry {index}",
            role.term
        );
    }
}
