//! Lease: whoever hears a leader does not vote it down, unless that leader transfers leadership. So a box that does not
//! hear the leader, while others do, cannot depose it.

use tally_core::id::{NodeId, Term};
use tally_core::raft::{Body, Message, Role};
use tally_core::time::{Duration, Instant};

use crate::cores::Core;
use crate::plan::ELECTION_TIMEOUT;

/// When a box heard its leader last.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    heard: Option<(NodeId, Term, Instant)>,
}

impl Lease {
    /// Whether a leader is heard: before a message is taken in.
    pub(crate) fn is_in_force(&self, core: &dyn Core, now: Instant) -> bool {
        let recent = self.heard.is_some_and(|(leader, term, at)| {
            let follows = core.leader() == Some(leader) && core.term() == term;
            follows && now.since(at) < Duration(ELECTION_TIMEOUT)
        });
        recent || core.role() == Role::Leader
    }

    /// After a message was taken in by one that was in this term before.
    pub(crate) fn heard(
        &mut self,
        node: NodeId,
        core: &dyn Core,
        before: (bool, Term),
        now: Instant,
        from: NodeId,
        message: &Message,
    ) {
        let (in_force, term) = before;
        match message.body {
            Body::Append { .. } | Body::Heartbeat { .. } if core.leader() == Some(from) => {
                self.heard =
                    (core.term() == message.term).then_some((from, message.term, now)).or(self.heard);
            }
            Body::Vote { transfer: false, .. } => assert!(
                !in_force || core.term() == term,
                "lease: {node} takes part in an election of term {}, called by {from}, while it hears a leader",
                core.term()
            ),
            _ => {}
        }
    }
}
