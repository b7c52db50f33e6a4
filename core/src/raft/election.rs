//! Who leads: pre-votes, votes, terms, stepping down. Election restriction by `(term, subterm, index)`.

use super::member::MemberRole;
use super::message::{Body, HardState, Message, Position};
use super::peer::{Measure, PreVoteReply, Standing};
use super::{Handled, Ignored, Mutation, Raft, Role};
use crate::id::{NodeId, Subterm, Term};

impl<const NODES: usize, const RUNS: usize, M: Mutation> Raft<NODES, RUNS, M> {
    /// Only voters lead, campaign and grant, and observers answer a leader; but the configuration may have
    /// changed, and this node may not know it yet.
    pub(super) fn admit(&mut self, from: NodeId, message: &Message) -> Result<usize, Ignored> {
        let slot = self.slot(from).filter(|slot| self.peers[*slot].standing != Standing::Guest);
        if !message.is_believable(self.hard_state.term) {
            return Err(if slot.is_some() { Ignored::Malformed } else { Ignored::UnknownSender });
        }
        let answers = matches!(
            message.body,
            Body::Appended { .. } | Body::Rejected { .. } | Body::HeartbeatAnswer { .. }
        );
        let of_witness = matches!(
            message.body,
            Body::PreVoteAnswer { .. }
                | Body::VoteAnswer { .. }
                | Body::HeartbeatAnswer { .. }
                | Body::WitnessAppended { .. }
        );
        // Of a leader that its own last change removed or demoted.
        let passes_on = message.body == Body::TimeoutNow && self.leader == Some(from);
        match slot {
            Some(slot) if self.peers[slot].standing == Standing::Member(MemberRole::Witness) => {
                if of_witness { Ok(slot) } else { Err(Ignored::NotVoter) }
            }
            Some(slot) if self.peers[slot].is_voter() || (answers && self.peers[slot].replicates()) => {
                Ok(slot)
            }
            Some(slot) if passes_on => Ok(slot),
            Some(slot) => self.check_stranger(message).map(|()| slot).map_err(|_| Ignored::NotVoter),
            None if from == self.config.id => Err(Ignored::UnknownSender),
            None => {
                let slot = self.slot(from);
                if !(slot.is_some() && passes_on) {
                    self.check_stranger(message)?;
                }
                slot.or_else(|| self.welcome(from)).ok_or(Ignored::UnknownSender)
            }
        }
    }

    /// Takes over a newer term; tells the leader of an older one that there is a newer.
    pub(super) fn agree_on_term(&mut self, slot: usize, message: &Message) -> Result<(), Ignored> {
        if message.term > self.hard_state.term {
            let asked = matches!(message.body, Body::Vote { transfer: false, .. });
            if asked && self.hears_leader() && !M::IGNORE_LEASE {
                return Err(Ignored::Leased);
            }
            self.enter_term(message.term, None);
        } else if message.term < self.hard_state.term {
            match message.body {
                // An answer of a newer term makes it step down: else a node at a newer term, whose
                // pre-votes nobody grants, would stay outside for as long as that leader leads.
                Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot { .. } => {
                    self.peers[slot].heartbeat_answer = Some(0);
                }
                Body::Vote { .. } => self.peers[slot].vote_answer_due = true,
                Body::Appended { .. } if M::TAKE_STALE_ACKNOWLEDGEMENT => return Ok(()),
                _ => {}
            }
            return Err(Ignored::Stale);
        }
        Ok(())
    }

    /// Would this node vote for it? No while it hears a leader, so that a node that was cut off, or that
    /// nobody hears, cannot disturb.
    pub(super) fn handle_pre_vote(
        &mut self,
        slot: usize,
        term: Term,
        last: &Position,
    ) -> Result<Handled, Ignored> {
        let own = self.hard_state;
        let candidate = self.peers[slot].id;
        let free = own.vote.is_none_or(|vote| vote == candidate) && self.leader.is_none();
        let granted = (term > own.term || (term == own.term && free))
            && (!self.hears_leader() || M::IGNORE_LEASE)
            && self.may_vote()
            && self.is_up_to_date(last);
        let reply = PreVoteReply { term: if granted { term } else { own.term }, granted };
        self.peers[slot].pre_vote_answer = Some(reply);
        Ok(Handled::Nothing)
    }

    pub(super) fn handle_pre_vote_granted(&mut self, slot: usize, term: Term) -> Result<Handled, Ignored> {
        if self.role != Role::PreCandidate || term != self.hard_state.term.next() {
            return Err(Ignored::NotAwaited);
        }
        self.peers[slot].answered = true;
        self.peers[slot].granted = true;
        self.count_votes();
        Ok(Handled::Nothing)
    }

    /// Decides about a vote in the current term; the answer waits until the vote is durable.
    pub(super) fn handle_vote(&mut self, slot: usize, last: &Position) -> Result<Handled, Ignored> {
        let candidate = self.peers[slot].id;
        self.peers[slot].vote_answer_due = true;
        let free = (self.hard_state.vote.is_none() && self.leader.is_none()) || M::GRANT_TWICE;
        if free && self.may_vote() && self.is_up_to_date(last) {
            self.hard_state.vote = Some(candidate);
            self.role = Role::Follower;
            self.restart_election_timer();
        }
        Ok(Handled::Nothing)
    }

    pub(super) fn handle_vote_answer(&mut self, slot: usize, granted: bool) -> Result<Handled, Ignored> {
        if self.role != Role::Candidate {
            return Err(Ignored::NotAwaited);
        }
        let peer = &mut self.peers[slot];
        peer.answered = true;
        peer.granted |= granted;
        self.count_votes();
        Ok(Handled::Nothing)
    }

    /// A message of this term's leader came.
    pub(super) fn follow(&mut self, slot: usize) -> Result<(), Ignored> {
        let leader = self.peers[slot].id;
        if self.role == Role::Leader || self.leader.is_some_and(|known| known != leader) {
            // Two leaders in a term: a cloned member or a broken one.
            return Err(Ignored::Malformed);
        }
        if self.leader.is_none() {
            self.matched = self.commit;
            self.appended_sent = self.commit;
        }
        self.role = Role::Follower;
        self.leader = Some(leader);
        self.leader_heard_at = Some(self.now);
        self.restart_election_timer();
        Ok(())
    }

    pub(super) fn election_timeout(&mut self) {
        self.restart_election_timer();
        if !self.may_campaign() {
            return;
        }
        if M::NO_PRE_VOTE {
            return self.campaign();
        }
        self.leader = None;
        self.role = Role::PreCandidate;
        self.ask_voters();
        self.count_votes();
    }

    /// Goes into the next term as a candidate and votes for itself.
    pub(super) fn campaign(&mut self) {
        self.enter_term(self.hard_state.term.next(), Some(self.config.id));
        self.role = Role::Candidate;
        self.restart_election_timer();
        self.ask_voters();
    }

    /// Those who did not answer may not have been asked: the message may be lost.
    pub(super) fn ask_again(&mut self) {
        for peer in self.peers.iter_mut() {
            peer.request_due |= peer.votes() && !peer.answered;
        }
    }

    /// Goes on if a majority said yes; this node's own vote is worth nothing before it is durable.
    pub(super) fn count_votes(&mut self) {
        let own = self.gate.covers(&self.hard_state);
        if !own || self.reached(1, Measure::Granted, 0) == 0 {
            return;
        }
        match self.role {
            Role::PreCandidate => self.campaign(),
            Role::Candidate => self.lead(),
            Role::Follower | Role::Leader => {}
        }
    }

    /// Gives up leading or campaigning without a newer term; others get the time to go first.
    #[inline(never)]
    pub(super) fn step_down(&mut self) {
        self.role = Role::Follower;
        self.leader = None;
        self.leader_heard_at = None;
        self.transfer = None;
        self.restart_election_timer();
    }

    #[inline(never)]
    pub(super) fn restart_election_timer(&mut self) {
        self.timers.election = self.now + self.jitter.span(self.config.election_timeout);
    }

    fn enter_term(&mut self, term: Term, vote: Option<NodeId>) {
        if self.role == Role::Leader {
            self.step_down();
        }
        self.role = Role::Follower;
        self.hard_state = HardState { term, vote };
        self.leader = None;
        self.rejection = None;
        self.appended_due = false;
        self.by_transfer = false;
        self.peers.iter_mut().for_each(super::peer::Peer::forget_term);
    }

    fn lead(&mut self) {
        let last = self.log.last().index;
        self.role = Role::Leader;
        self.leader = Some(self.config.id);
        self.leader_heard_at = None;
        self.term_start = last.next();
        self.subterm = Subterm(0);
        self.subterm_start = self.term_start;
        self.transfer = None;
        self.transfer_failed = None;
        self.begin_replication_set();
        self.tail.clear();
        self.rounds.begin_term();
        self.timers.tick = self.now + self.config.heartbeat_interval;
        for peer in self.peers.iter_mut() {
            peer.begin_term(last, self.now);
        }
    }

    fn ask_voters(&mut self) {
        self.timers.tick = self.now + self.config.heartbeat_interval;
        for peer in self.peers.iter_mut() {
            peer.forget_campaign(peer.votes());
        }
    }

    /// A leader leads, or was heard within the election timeout.
    fn hears_leader(&self) -> bool {
        let recent = |at| self.is_recent(at);
        self.role == Role::Leader || (self.leader.is_some() && self.leader_heard_at.is_some_and(recent))
    }

    /// Also one that is no voter by its own configuration: a candidate may know a newer one, and counts the vote
    /// only if that says so. A node that belongs to no group yet does not know whose it is.
    fn may_vote(&self) -> bool {
        !self.configuration.is_empty() && !self.gate.has_failed()
    }

    /// Not before its term is durable: a term that is not yet on a slow disk is not followed by another.
    pub(super) fn may_campaign(&self) -> bool {
        (self.is_electable() || M::NON_VOTER_CAMPAIGNS)
            && self.may_vote()
            && self.gate.covers(&self.hard_state)
    }

    fn is_up_to_date(&self, last: &Position) -> bool {
        let own = self.log.last();
        M::GRANT_TO_ANY_LOG || (last.key(), last.index) >= (own.key(), own.index)
    }
}
