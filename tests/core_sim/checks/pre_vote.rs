//! Pre-vote: nobody goes into a new term as a candidate before a quorum has said, in that campaign, that it would vote
//! for it, or its leader has asked it to take over; and only a voter does, or one that its latest configuration
//! removes. So nobody that was cut off or removed disturbs the others when it is back.

use std::collections::BTreeSet;

use tally_core::id::{NodeId, Term};
use tally_core::raft::{Body, Message, Role};

use super::quorum::has_quorum;
use crate::cores::Core;

/// What a box has heard in its present incarnation.
#[derive(Debug, Default)]
pub(crate) struct PreVotes {
    /// Who would vote for it in which term.
    granted: (Term, BTreeSet<NodeId>),
    /// The term in which its leader asked it to take over.
    asked_in: Option<Term>,
    /// Its term when it was looked at last.
    term: Term,
}

impl PreVotes {
    /// A incarnation begins; the only voter of a site campaigns at once.
    pub(crate) fn begin(&mut self, core: &dyn Core) {
        self.term = core.term();
    }

    pub(crate) fn heard(&mut self, core: &dyn Core, from: NodeId, message: &Message) {
        match message.body {
            Body::PreVoteAnswer { granted: true } if message.term == core.term().next() => {
                if self.granted.0 != message.term {
                    self.granted = (message.term, BTreeSet::new());
                }
                self.granted.1.insert(from);
            }
            Body::TimeoutNow if core.leader() == Some(from) => self.asked_in = Some(core.term()),
            _ => {}
        }
    }

    /// After each input.
    pub(crate) fn hold(&mut self, node: NodeId, core: &dyn Core) {
        let before = std::mem::replace(&mut self.term, core.term());
        if core.term() == before || !matches!(core.role(), Role::Candidate | Role::Leader) {
            return;
        }
        let would_vote = |id| id == node || (self.granted.0 == core.term() && self.granted.1.contains(&id));
        let may = self.asked_in == Some(before) || has_quorum(core.configuration(), would_vote);
        assert!(
            may,
            "pre-vote: {node} campaigns in term {} without asking whether it would win",
            core.term()
        );
    }
}
