//! Output: messages and events, derived from the state when asked.

use heapless::Vec;

use super::configuration::{Configuration, ConfigurationEntry};
use super::member::MemberRole;
use super::message::{Body, EntryRange, LogView, Message, Position};
use super::peer::{Measure, PeerState, PreVoteReply, Standing};
use super::{Mutation, Raft, Role};
use crate::id::{LogIndex, NodeId, Term};
use crate::time::Instant;

/// A change that the driver must know of.
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
    /// This leader has put an entry of its own at the end of its log. The driver stores its payload there
    /// before it calls anything else: the configuration, or an empty payload as of a no-op.
    OwnEntry {
        /// Where it stands; it begins a subterm.
        entry: Position,
        /// What it holds.
        configuration: Option<Configuration>,
    },
    /// Another configuration is in force, for as long as its entry is in the log.
    ConfigurationChanged(ConfigurationEntry),
    /// The transfer failed; this node continues to lead.
    TransferFailed {
        /// The intended successor.
        to: NodeId,
    },
    /// The leader or the term changed.
    LeaderChanged {
        /// The leader, if known.
        leader: Option<NodeId>,
        /// In which term.
        term: Term,
    },
}

/// A summary of a node's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status<const NODES: usize> {
    /// The role of the node.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader that it follows.
    pub leader: Option<NodeId>,
    /// The end of its log.
    pub last: Position,
    /// Committed up to here.
    pub commit: LogIndex,
    /// Durable up to here.
    pub durable: LogIndex,
    /// The configuration in force, and where it stands.
    pub configuration: ConfigurationEntry,
    /// The successor of a leadership transfer in progress.
    pub transfer: Option<NodeId>,
    /// For which voter the witness stands in, at a leader.
    pub witness_for: Option<NodeId>,
    /// The entry with which a leader's subterm begins. A voter that lacks it may lack what the witness counted for, too: then
    /// the witness refuses it its vote.
    pub subterm_start: LogIndex,
    /// The witness does not vote for this candidate, because another voter may have more: there is no leader
    /// until that one returns.
    pub refused_by_witness: bool,
    /// The leader's view of the other members; empty at other nodes.
    pub peers: Vec<PeerStatus, NODES>,
}

/// The leader's view of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who.
    pub id: NodeId,
    /// As what; `None` if it was removed and the configuration without it is not committed.
    pub role: Option<MemberRole>,
    /// Durable there up to here.
    pub matched: LogIndex,
    /// The next entry to be sent.
    pub next: LogIndex,
    /// How it is sent to.
    pub state: PeerState,
    /// Whether it answered within the last election timeout.
    pub active: bool,
    /// Whether it is within one round of the leader's log: as an observer it can be promoted, as a voter it
    /// can be handed leadership.
    pub caught_up: bool,
}

impl<const NODES: usize, const RUNS: usize, M: Mutation> Raft<NODES, RUNS, M> {
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
        if !self.gate.covers(&self.hard_state) && !M::SAY_BEFORE_DURABLE {
            return None;
        }
        if let Some(reply) = self.peers[slot].pre_vote_answer.take() {
            return Some(self.pre_vote_answer(reply));
        }
        let body = if self.peers[slot].standing == Standing::Member(MemberRole::Witness) {
            self.next_for_witness(slot)
        } else {
            self.owed_answer(slot).or_else(|| self.next_body(slot, bulk, log))
        };
        body.map(|body| self.message(body))
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
        if let Some(entry) = self.leave_if_due() {
            return Some(self.own_entry(&entry, Some(self.configuration)));
        }
        if let Some(entry) = self.swap_if_due() {
            return Some(self.own_entry(&entry, None));
        }
        if let Some(to) = self.transfer_failed.take() {
            return Some(Event::TransferFailed { to });
        }
        if core::mem::take(&mut self.configuration_untold) {
            return Some(Event::ConfigurationChanged(self.configuration_entry()));
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

    /// A summary of the node's state.
    #[must_use]
    pub fn status(&self) -> Status<NODES> {
        let timeout = self.config.election_timeout;
        let mut peers = Vec::new();
        let led = |peer: &&super::peer::Peer| self.role == Role::Leader && peer.standing != Standing::Guest;
        for peer in self.peers.iter().filter(led) {
            // There is room for all: it is as much as the peers have.
            let _ = peers.push(PeerStatus {
                id: peer.id,
                role: if let Standing::Member(role) = peer.standing { Some(role) } else { None },
                matched: peer.matched,
                next: peer.next,
                state: peer.state,
                active: self.is_recent(peer.heard_at),
                caught_up: peer.has_caught_up(self.now, timeout),
            });
        }
        Status {
            role: self.role,
            term: self.hard_state.term,
            leader: self.leader,
            last: self.log.last(),
            commit: self.commit,
            durable: self.gate.stable(),
            configuration: self.configuration_entry(),
            transfer: self.transfer.map(|transfer| transfer.to),
            witness_for: self.swapped.filter(|_| self.role == Role::Leader),
            subterm_start: self.subterm_start,
            refused_by_witness: self.witness_slot().is_some_and(|slot| {
                let campaigns = matches!(self.role, Role::PreCandidate | Role::Candidate);
                campaigns && self.peers[slot].answered && !self.peers[slot].granted
            }),
            peers,
        }
    }

    /// A leader shows itself, looks whether a majority answers, and repairs what may be lost.
    pub(super) fn tick_as_leader(&mut self) {
        let active = Measure::HeardAfter(self.ago(self.config.election_timeout));
        let quorum = self.reached(1, active, self.silently_confirmed(1, active));
        if quorum == 0 && !M::NO_CHECK_QUORUM {
            return self.step_down();
        }
        let last = self.log.last().index;
        for peer in self.peers.iter_mut() {
            peer.catch_up(last, self.now, self.config.election_timeout);
        }
        self.forget_who_left();
        self.look_after_replication_set();
        self.go_on_with_transfer();
        self.begin_round();
        self.repair();
    }

    /// What a candidate or leader has to say to a peer with a log.
    fn next_body(&mut self, slot: usize, bulk: bool, log: &impl LogView) -> Option<Body> {
        match self.role {
            Role::Follower => None,
            Role::PreCandidate | Role::Candidate => self.next_request(slot),
            Role::Leader if !self.peers[slot].replicates() => None,
            Role::Leader => match self.next_heartbeat(slot) {
                None if self.leads_knowingly() => self.next_append(slot, bulk, log),
                heartbeat => heartbeat,
            },
        }
    }

    fn message(&self, body: Body) -> Message {
        let ahead = u64::from(matches!(body, Body::PreVote { .. } | Body::WitnessVote { pre: true, .. }));
        Message { term: Term(self.hard_state.term.0.saturating_add(ahead)), body }
    }

    fn configuration_entry(&self) -> ConfigurationEntry {
        ConfigurationEntry { index: self.configuration_index, configuration: self.configuration }
    }

    fn own_entry(&self, range: &EntryRange, configuration: Option<Configuration>) -> Event {
        let entry = Position { index: range.first, term: range.term, subterm: range.subterm };
        Event::OwnEntry { entry, configuration }
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
        let is_mute = self.leaves_it_to_the_witness();
        let peer = &mut self.peers[slot];
        if core::mem::take(&mut peer.vote_answer_due) {
            return Some(Body::VoteAnswer { granted: self.hard_state.vote == Some(peer.id) });
        }
        if core::mem::take(&mut peer.timeout_now_due) {
            return Some(Body::TimeoutNow);
        }
        if is_mute && self.leader == Some(peer.id) {
            return None;
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
        let stable = if M::ACKNOWLEDGE_BEFORE_DURABLE { self.matched } else { self.gate.stable() };
        let durable = self.matched.min(stable);
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
        Some(match self.role {
            Role::PreCandidate => Body::PreVote { last },
            _ => Body::Vote { last, transfer: self.by_transfer },
        })
    }

    fn next_heartbeat(&mut self, slot: usize) -> Option<Body> {
        let peer = &mut self.peers[slot];
        let awaited = peer.commit_due && self.commit > peer.commit_sent;
        if !peer.heartbeat_due && !awaited {
            return None;
        }
        peer.heartbeat_due = false;
        peer.tell_commit(self.commit);
        let hides = M::FULL_WINDOW_HIDES_COMMIT && peer.window_is_full(self.config.inflight_bytes_max);
        let commit = if hides { LogIndex::ZERO } else { self.commit };
        Some(Body::Heartbeat { commit, round: self.rounds.leaves() })
    }
}
