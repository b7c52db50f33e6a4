//! Changes of the members, where a leader puts them into its log: the configuration before is committed, nobody comes in
//! who was taken out, and of those who vote afterwards a majority has answered the leader lately.

use std::collections::{BTreeMap, BTreeSet};

use tally_core::id::{LogIndex, NodeId};
use tally_core::raft::{Configuration, Position};
use tallyd::node::configuration_in;

use super::Removed;
use crate::boxes::{Incarnation, Logged};
use crate::plan::Micros;

/// The leader's clock, the age of what it tells of its timeout, and a step that takes its time.
const SLACK: Micros = 500_000;

#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Where configurations stand in a box's log.
    configurations: BTreeMap<NodeId, Vec<LogIndex>>,
    /// When one heard another last.
    heard: BTreeMap<(NodeId, NodeId), Micros>,
    /// Since when a box leads, and in which term.
    leads: BTreeMap<NodeId, (u64, Micros)>,
    /// Those that a leader has made: it may write one again that its disk did not take.
    made: BTreeSet<(u64, LogIndex)>,
}

impl Changes {
    pub(crate) fn heard(&mut self, now: Micros, at: NodeId, from: NodeId) {
        self.heard.insert((at, from), now);
    }

    pub(crate) fn leads(&mut self, now: Micros, at: NodeId, term: u64) {
        let since = self.leads.entry(at).or_insert((term, now));
        if since.0 != term {
            *since = (term, now);
        }
    }

    pub(crate) fn made(&self) -> u64 {
        self.made.len() as u64
    }

    /// A box is about to write this into its log.
    pub(crate) fn logged(
        &mut self,
        (now, at): (Micros, NodeId),
        incarnation: &Incarnation,
        logged: &Logged,
        removed: &Removed,
    ) {
        let log = self.configurations.entry(at).or_default();
        let Logged::Entry(position, payload) = logged else { return log.clear() };
        while log.last().is_some_and(|last| *last >= position.index) {
            log.pop();
        }
        let Some(Ok(configuration)) = configuration_in(payload) else { return };
        let before = log.last().copied();
        log.push(position.index);
        let role = *incarnation.handle.role().borrow();
        let is_own = role.leads && role.term == position.term.0;
        if is_own && self.made.insert((role.term, position.index)) {
            self.judge((now, at), incarnation, (*position, &configuration), before, removed);
        }
    }

    fn judge(
        &self,
        (now, at): (Micros, NodeId),
        incarnation: &Incarnation,
        (position, configuration): (Position, &Configuration),
        before: Option<LogIndex>,
        removed: &Removed,
    ) {
        let (index, commit) = (position.index, incarnation.node.commit_index());
        assert!(
            before.is_none_or(|before| before <= commit),
            "changes: {at} changes the members at {index} before those of {before:?} are committed"
        );
        let returned = configuration.ids().find(|id| removed.is_removed_before(*id, index));
        assert_eq!(returned, None, "changes: {at} takes in at {index} one that was taken out");
        let timeout = incarnation.node.election_timeout().as_micros() as Micros;
        let since = self.leads.get(&at).map_or(now, |(_, since)| *since);
        let is_there = |id: NodeId| {
            let heard = self.heard.get(&(at, id)).copied().unwrap_or(0).max(since);
            // Nothing is asked of a witness while all is well.
            configuration.witness() == Some(id) || id == at || now < heard + 2 * timeout + SLACK
        };
        let voters: Vec<NodeId> = configuration.voters().collect();
        let there = voters.iter().filter(|id| is_there(**id)).count();
        // What leaves a joint one was decided before.
        let is_first = configuration.is_joint();
        assert!(
            !is_first || 2 * there > voters.len(),
            "changes: {at} makes a change at {index} after which no majority of {voters:?} can be reached"
        );
    }
}
