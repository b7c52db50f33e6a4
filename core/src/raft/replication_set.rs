//! The witness as leaders and candidates see it: the replication set, its subterms, and when the witness counts.
//!
//! The set has as many members as there are regular voters beside the witness: all but one of them and the
//! witness. While the witness is the one outside it is silent. When a regular voter falls silent the two are
//! swapped: a new subterm begins, one record is written, and from then on the witness counts, without being
//! asked, for whatever a sub-quorum of the set has: the voters that are a majority together with it.

use super::message::{Body, EntryRange};
use super::peer::{Attempt, Measure, Standing};
use super::set::Set;
use super::witness::NodeSet;
use super::{Handled, Ignored, MemberRole, Mutation, Raft, Role, quorum};
use crate::id::{NodeId, Subterm};
use crate::time::Duration;

impl<const NODES: usize, const RUNS: usize, M: Mutation> Raft<NODES, RUNS, M> {
    /// What the witness counts for without being asked: what a sub-quorum of the replication set has reached, once
    /// the witness has acknowledged in this subterm. Else nothing (zero).
    pub(super) fn silent_witness(&self, own: u64, measure: Measure) -> u64 {
        if self.swapped.is_none() || !(self.witness_acknowledged || M::COUNT_SILENT_WITNESS) {
            return 0;
        }
        self.sub_quorum_reached(self.regular_set(), own, measure)
    }

    /// The same for confirming that this node leads. A witness outside the set proves nothing by its silence.
    pub(super) fn silently_confirmed(&self, own: u64, measure: Measure) -> u64 {
        if M::READ_BY_SILENT_WITNESS { own } else { self.silent_witness(own, measure) }
    }

    /// A leader begins: the set is the regular voters, unless it took the witness to elect it; then it takes the place
    /// of a voter that did not answer, which saves an election timeout. A set may be any, as long as it stays
    /// the same in its subterm.
    pub(super) fn begin_replication_set(&mut self) {
        self.witness_acknowledged = false;
        self.swap_wanted = None;
        let granted_by_witness = self.witness_slot().is_some_and(|slot| self.peers[slot].granted);
        let beside = self.configuration.beside_witness();
        let absent =
            self.ids_of(beside).find(|id| self.slot(*id).is_some_and(|slot| !self.peers[slot].answered));
        self.swapped = absent.filter(|_| granted_by_witness);
    }

    /// The configuration changed: the set goes on if it can.
    pub(super) fn adapt_replication_set(&mut self) {
        let beside = self.configuration.beside_witness();
        let stays = |id: &NodeId| self.configuration.place(*id).is_some_and(|place| beside.has(place));
        self.swapped = self.swapped.filter(stays);
        self.swap_wanted = None;
    }

    /// At every tick of a leader: whom the witness is to stand in for.
    pub(super) fn look_after_replication_set(&mut self) {
        let beside = self.configuration.beside_witness();
        if beside.is_empty() {
            return;
        }
        let (mut silent, mut is_back) = (None, false);
        for id in self.ids_of(beside) {
            let Some(slot) = self.slot(id) else { continue };
            let peer = &self.peers[slot];
            let heard = self.is_recent(peer.heard_at);
            if Some(id) == self.swapped {
                is_back = heard
                    && (M::RETURN_LAGGING || peer.has_caught_up(self.now, self.config.election_timeout));
            } else if !heard {
                silent = silent.or(Some(id));
            }
        }
        let stays = self.swapped.is_some() && !is_back;
        let wanted = if stays { self.swapped } else { silent };
        self.swap_wanted = (wanted != self.swapped).then_some(wanted);
    }

    /// The empty entry that begins the subterm of another replication set, if one is wanted.
    pub(super) fn swap_if_due(&mut self) -> Option<EntryRange> {
        // A successor that is asked to campaign has all there is, and keeps it so.
        if !self.leads_knowingly() || self.transfer.is_some() {
            return None;
        }
        self.swapped = self.swap_wanted.take()?;
        if !M::SWAP_WITHIN_SUBTERM {
            self.begin_subterm();
        }
        Some(self.own_entries(1))
    }

    /// What a leader or candidate has to say to the witness.
    pub(super) fn next_for_witness(&mut self, slot: usize) -> Option<Body> {
        match self.role {
            Role::Follower => None,
            Role::PreCandidate | Role::Candidate => self.next_witness_vote(slot),
            Role::Leader => self.next_witness_append(slot).or_else(|| self.next_witness_ping(slot)),
        }
    }

    pub(super) fn handle_witness_appended(
        &mut self,
        subterm: Subterm,
        taken: bool,
    ) -> Result<Handled, Ignored> {
        if self.role != Role::Leader {
            return Err(Ignored::NotAwaited);
        }
        if subterm != self.subterm || !taken {
            return Err(Ignored::Stale);
        }
        self.witness_acknowledged = true;
        self.advance_commit();
        self.confirm_rounds();
        Ok(Handled::Nothing)
    }

    /// Whether a round must ask the witness: not while it counts without being asked, nor while enough others answer.
    pub(super) fn is_ping_needed(&self) -> bool {
        let half = Duration(self.config.election_timeout.0 / 2);
        let answers = Measure::RegularHeardAfter(self.ago(half));
        self.reached(1, answers, self.silent_witness(1, answers)) == 0
    }

    /// A follower whose disk has failed acknowledges nothing: where a witness can take its place it is silent
    /// altogether, so that its leader swaps it, and it comes back when its disk does.
    pub(super) fn leaves_it_to_the_witness(&self) -> bool {
        self.role == Role::Follower && self.gate.has_failed() && self.configuration.witness().is_some()
    }

    #[inline(never)]
    pub(super) fn witness_slot(&self) -> Option<usize> {
        self.peers.iter().position(|peer| peer.standing == Standing::Member(MemberRole::Witness))
    }

    /// After a sub-quorum of the regular voters beside the witness, and only if it takes the witness: when exactly
    /// half of them have granted.
    fn next_witness_vote(&mut self, slot: usize) -> Option<Body> {
        let beside = self.configuration.beside_witness();
        let mut votes = NodeSet::default();
        for id in self.ids_of(beside) {
            if self.value_of(id, 1, Measure::Granted) > 0 {
                votes.insert(id);
            }
        }
        let half = beside.len() / 2;
        if votes.len() > half || (votes.len() < half && !M::WITNESS_ASKED_FIRST) {
            return None;
        }
        if M::WITNESS_ASKED_FIRST {
            votes = NodeSet::default();
        }
        core::mem::take(&mut self.peers[slot].request_due).then(|| {
            let last = self.log.last();
            let pre = self.role == Role::PreCandidate;
            Body::WitnessVote { pre, last_term: last.term, last_subterm: last.subterm, votes }
        })
    }

    /// Once a subterm: when all but one of a majority of the set have an entry of it.
    fn next_witness_append(&mut self, slot: usize) -> Option<Body> {
        if self.swapped.is_none() || self.witness_acknowledged || !self.leads_knowingly() {
            return None;
        }
        let (set, own) = (self.regular_set(), self.gate.stable().0);
        let reached = self.sub_quorum_reached(set, own, Measure::Matched);
        let has_entry = reached >= self.subterm_start.0 || M::WITNESS_BEFORE_SUB_QUORUM;
        if !has_entry || !self.peers[slot].attempt.is_due() {
            return None;
        }
        self.peers[slot].attempt.send(self.now);
        let mut voters = NodeSet::default();
        for id in self.ids_of(set) {
            voters.insert(id);
        }
        Some(Body::WitnessAppend { subterm: self.subterm, voters })
    }

    fn next_witness_ping(&mut self, slot: usize) -> Option<Body> {
        let due = core::mem::take(&mut self.peers[slot].heartbeat_due) && self.is_ping_needed();
        due.then(|| Body::WitnessPing { round: self.rounds.leaves() })
    }

    /// A subterm begins: the witness has not acknowledged in it, and is written to when it must be.
    pub(super) fn forget_acknowledgement(&mut self) {
        self.witness_acknowledged &= M::WITNESS_ACROSS_SUBTERMS;
        if let Some(slot) = self.witness_slot() {
            self.peers[slot].attempt = Attempt::FIRST;
        }
    }

    /// What so many of these regular voters have reached that they are a majority together with the witness.
    fn sub_quorum_reached(&self, of: Set, own: u64, measure: Measure) -> u64 {
        let others = self.configuration.beside_witness().len();
        match (others / 2).checked_sub(1) {
            Some(n) => quorum::nth_of(&self.configuration, of, n, &|id| self.value_of(id, own, measure)),
            None => 0,
        }
    }

    /// The regular voters of the replication set.
    fn regular_set(&self) -> Set {
        let beside = self.configuration.beside_witness();
        let out =
            self.swapped.filter(|_| !M::WITNESS_BESIDE_ANYBODY).and_then(|id| self.configuration.place(id));
        beside.without(out.map_or(Set::default(), Set::of))
    }

    fn ids_of(&self, set: Set) -> impl Iterator<Item = NodeId> + '_ {
        self.configuration.named(set)
    }
}
