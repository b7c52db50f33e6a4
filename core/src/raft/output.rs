//! What goes out: messages and events, derived from the state when asked.

use heapless::Vec;

use super::message::{Body, LogView, Message, Position};
use super::peer::{PeerState, PreVoteReply};
use super::{Raft, Role, quorum};
use crate::id::{LogIndex, NodeId, Term};
use crate::time::Instant;

/// What changed for the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// This node leads. The driver stores an empty payload at `noop` before it calls anything else;
    /// proposals and reads are taken from now on.
    BecameLeader {
        /// The first entry of the new term.
        noop: Position,
    },
    /// This node led in that term and does no more: its reads have failed, its proposals may yet be
    /// committed or not.
    SteppedDown {
        /// The term of the leadership that ended.
        term: Term,
    },
    /// Another leader, or none, or another term.
    LeaderChanged {
        /// Who leads, as far as is known.
        leader: Option<NodeId>,
        /// In which term.
        term: Term,
    },
}

/// A node at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status<const NODES: usize> {
    /// What it does.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Whom it follows.
    pub leader: Option<NodeId>,
    /// The end of its log.
    pub last: Position,
    /// Committed up to here.
    pub commit: LogIndex,
    /// Durable up to here.
    pub durable: LogIndex,
    /// What a leader knows of the other members; empty otherwise.
    pub peers: Vec<PeerStatus, NODES>,
}

/// A member as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who.
    pub id: NodeId,
    /// Durable there up to here.
    pub matched: LogIndex,
    /// The next entry to be sent.
    pub next: LogIndex,
    /// How it is sent to.
    pub state: PeerState,
    /// Whether it answered within the last election timeout.
    pub active: bool,
}

impl<const NODES: usize, const RUNS: usize> Raft<NODES, RUNS> {
    /// The next message for a peer; call it until `None` for each peer after each input. With `bulk`
    /// false only small ones come: neither entries nor snapshots. A message that was yielded counts as sent.
    pub fn poll_message(
        &mut self,
        now: Instant,
        to: NodeId,
        bulk: bool,
        log: &impl LogView,
    ) -> Option<Message> {
        self.clock(now);
        let slot = self.slot(to)?;
        // Nothing of a term is said before the term and the vote in it are durable.
        if !self.gate.covers(self.hard_state) {
            return None;
        }
        if let Some(reply) = self.peers[slot].pre_vote_answer.take() {
            return Some(self.pre_vote_answer(reply));
        }
        let body = self.owed_answer(slot).or_else(|| match self.role {
            Role::Follower => None,
            Role::PreCandidate | Role::Candidate => self.next_request(slot),
            Role::Leader => self.next_heartbeat(slot),
        });
        let body = match body {
            None if self.leads_knowingly() => self.next_append(slot, bulk, log),
            body => body,
        };
        let ahead = u64::from(matches!(body, Some(Body::PreVote { .. })));
        body.map(|body| Message { term: Term(self.hard_state.term.0.saturating_add(ahead)), body })
    }

    /// What changed since the last call, one at a time until `None`. Never lost, however late it is asked for.
    pub fn poll_event(&mut self) -> Option<Event> {
        let leads = (self.role == Role::Leader).then_some(self.hard_state.term);
        if let Some(term) = self.told_leading.take_if(|told| Some(*told) != leads) {
            return Some(Event::SteppedDown { term });
        }
        if let Some(term) = leads.filter(|_| self.told_leading.is_none()) {
            self.told_leading = Some(term);
            self.own_entries(1);
            return Some(Event::BecameLeader { noop: self.log.last() });
        }
        let current = (self.leader, self.hard_state.term);
        if self.told_leader == current {
            return None;
        }
        self.told_leader = current;
        Some(Event::LeaderChanged { leader: current.0, term: current.1 })
    }

    /// That peer waits for the commit index: a leader tells it as soon as there is one that it was not told.
    pub fn request_heartbeat(&mut self, to: NodeId) {
        if let Some(slot) = self.slot(to) {
            self.peers[slot].commit_due = true;
        }
    }

    /// The node at a glance.
    #[must_use]
    pub fn status(&self) -> Status<NODES> {
        let active = |at| self.now.since(at) < self.config.election_timeout;
        let peers = self.peers.iter().filter(|_| self.role == Role::Leader).map(|peer| PeerStatus {
            id: peer.id,
            matched: peer.matched,
            next: peer.next,
            state: peer.state,
            active: active(peer.heard_at),
        });
        Status {
            role: self.role,
            term: self.hard_state.term,
            leader: self.leader,
            last: self.log.last(),
            commit: self.commit,
            durable: self.gate.stable(),
            peers: peers.collect(),
        }
    }

    /// A leader shows itself, looks whether a majority answers, and repairs what may be lost.
    pub(super) fn tick_as_leader(&mut self) {
        let active = |at| self.now.since(at) < self.config.election_timeout;
        let voters = self.of_voters(true, |peer| active(peer.heard_at));
        if !quorum::is_majority(voters.iter().filter(|active| **active).count(), voters.len()) {
            return self.stand_down();
        }
        self.begin_round();
        self.repair();
    }

    fn pre_vote_answer(&self, reply: PreVoteReply) -> Message {
        let own = self.hard_state.term;
        // The answer may have waited for the disk while the term went on.
        let granted = reply.granted && reply.term >= own;
        let term = if granted { reply.term } else { own };
        Message { term, body: Body::PreVoteAnswer { granted } }
    }

    /// What a voter or a follower owes this peer.
    fn owed_answer(&mut self, slot: usize) -> Option<Body> {
        let peer = &mut self.peers[slot];
        if core::mem::take(&mut peer.vote_answer_due) {
            return Some(Body::VoteAnswer { granted: self.hard_state.vote == Some(peer.id) });
        }
        if let Some(round) = peer.heartbeat_answer.take() {
            return Some(Body::HeartbeatAnswer { round });
        }
        if self.role != Role::Follower || self.leader != Some(peer.id) {
            return None;
        }
        if let Some((previous, hint)) = self.rejection.take() {
            return Some(Body::Rejected { previous, hint });
        }
        let durable = self.matched.min(self.gate.stable());
        if !self.appended_due && durable <= self.appended_sent {
            return None;
        }
        self.appended_due = false;
        self.appended_sent = durable;
        Some(Body::Appended { matched: durable, received: self.matched })
    }

    fn next_request(&mut self, slot: usize) -> Option<Body> {
        if !core::mem::take(&mut self.peers[slot].request_due) {
            return None;
        }
        let last = self.log.last();
        Some(if self.role == Role::PreCandidate { Body::PreVote { last } } else { Body::Vote { last } })
    }

    fn next_heartbeat(&mut self, slot: usize) -> Option<Body> {
        let peer = &mut self.peers[slot];
        let awaited = peer.commit_due && self.commit > peer.commit_sent;
        if !peer.heartbeat_due && !awaited {
            return None;
        }
        peer.heartbeat_due = false;
        peer.tell_commit(self.commit);
        Some(Body::Heartbeat { commit: self.commit, round: self.rounds.leaves() })
    }
}
