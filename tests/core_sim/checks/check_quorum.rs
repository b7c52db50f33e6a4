//! Check quorum: a leader that has not heard a quorum for an election timeout ends at its next tick.

use tally_core::id::{LogIndex, NodeId, Term};
use tally_core::raft::{Message, Role};
use tally_core::time::{Duration, Instant};

use super::quorum::has_quorum;
use crate::cores::Core;
use crate::plan::{ELECTION_TIMEOUT, size};

/// Places for all boxes and witnesses by their numbers.
const IDS: usize = 10;

/// When a leader heard the others, and since when it leads these members.
#[derive(Debug, Default)]
pub(crate) struct CheckQuorum {
    heard: [Instant; IDS],
    leads: Option<(Term, LogIndex, Instant)>,
}

impl CheckQuorum {
    pub(crate) fn heard(&mut self, core: &dyn Core, now: Instant, from: NodeId, message: &Message) {
        if core.role() == Role::Leader && message.term >= core.term() {
            self.heard[size(from.0)] = now;
        }
    }

    /// After each input.
    pub(crate) fn look(&mut self, core: &dyn Core, now: Instant) {
        if core.role() != Role::Leader {
            return;
        }
        let (term, members) = (core.term(), core.configuration_index());
        if self.leads.is_none_or(|(of, by, _)| (of, by) != (term, members)) {
            self.leads = Some((term, members, now));
        }
    }

    /// After a tick.
    pub(crate) fn holds(&self, node: NodeId, core: &dyn Core, now: Instant) {
        if core.role() != Role::Leader {
            return;
        }
        let Some((_, _, since)) = self.leads.filter(|(term, _, _)| *term == core.term()) else { return };
        let configuration = core.configuration();
        let recent = |id: NodeId| {
            let at = self.heard[size(id.0)].max(since);
            id == node || now.since(at) <= Duration(ELECTION_TIMEOUT)
        };
        // The witness may count without being asked.
        let silent = || configuration.witness().filter(|_| core.status().witness_for.is_some());
        assert!(
            has_quorum(configuration, recent)
                || silent().is_some_and(|silent| has_quorum(configuration, |id| id == silent || recent(id))),
            "check quorum: {node} leads on in term {} although it hears no quorum",
            core.term()
        );
    }
}
