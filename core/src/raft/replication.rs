//! Bringing the logs together: a leader's appends and what it learns from the answers; a follower's
//! judgement of an append; what is committed.

use core::fmt;

use super::configuration::Configuration;
use super::message::{Body, EntryRange, LogView, Position};
use super::peer::{Attempt, Measure, PeerState};
use super::{Handled, Ignored, Mutation, Raft, Role};
use crate::id::LogIndex;
use crate::time::Instant;

/// Why a proposal was not taken; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposeError {
    /// Ask the leader.
    NotLeader,
    /// As much is uncommitted as may be: try again when something was committed.
    Full,
    /// Leadership is being transferred: ask the next leader, or try again soon.
    Transferring,
    /// No entries.
    Empty,
}

impl fmt::Display for ProposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProposeError::NotLeader => "this node does not lead",
            ProposeError::Full => "too much waits to be committed",
            ProposeError::Transferring => "leadership is being transferred",
            ProposeError::Empty => "a proposal has one entry at least",
        })
    }
}

impl core::error::Error for ProposeError {}

impl<const NODES: usize, const RUNS: usize, M: Mutation> Raft<NODES, RUNS, M> {
    /// A leader takes entries, `bytes` of payload together, onto the end of its log: the driver stores the
    /// payloads at the indexes it gets, before it calls anything else.
    ///
    /// # Errors
    /// Why nothing was appended.
    pub fn propose(&mut self, now: Instant, entries: u64, bytes: u64) -> Result<EntryRange, ProposeError> {
        self.clock(now);
        if !self.leads_knowingly() {
            return Err(ProposeError::NotLeader);
        }
        if self.transfer.is_some() && !M::PROPOSE_WHILE_TRANSFERRING {
            return Err(ProposeError::Transferring);
        }
        if entries == 0 {
            return Err(ProposeError::Empty);
        }
        let last = self.log.last().index;
        let has_numbers = last.0.saturating_add(entries) < super::message::NUMBER_LIMIT;
        // One proposal has room in any case, however large.
        let fits = self.tail.bytes().saturating_add(bytes) <= self.config.uncommitted_bytes_max;
        let has_room = self.tail.is_empty() || fits || M::UNBOUNDED_TAIL;
        if !has_numbers || !has_room {
            return Err(ProposeError::Full);
        }
        let range = self.own_entries(entries);
        self.tail.push(range.last, bytes);
        Ok(range)
    }

    /// A leader puts `count` entries at the end of its log.
    pub(super) fn own_entries(&mut self, count: u64) -> EntryRange {
        let last = self.log.last().index;
        let range = EntryRange {
            term: self.hard_state.term,
            subterm: self.subterm,
            first: last.next(),
            last: LogIndex(last.0.saturating_add(count)),
        };
        self.log.append(&range);
        range
    }

    /// Leads, and the driver knows it and has the first entry of this term.
    #[inline(never)]
    pub(super) fn leads_knowingly(&self) -> bool {
        self.role == Role::Leader && self.told_leading == Some(self.hard_state.term)
    }

    /// A follower's part: everything that is accepted here equals the leader's log up to `matched`.
    pub(super) fn handle_append(
        &mut self,
        previous: &Position,
        entries: Option<&EntryRange>,
        configuration: Option<&Configuration>,
        commit: LogIndex,
        log: &impl LogView,
    ) -> Result<Handled, Ignored> {
        // What is committed here is in every leader's log and needs no comparing.
        let blindly = M::APPEND_WITHOUT_COMPARING && previous.index <= self.log.last().index;
        if previous.index >= self.commit && !blindly {
            let own = self.log.position(previous.index, log);
            if own.is_none() && previous.index <= self.log.last().index {
                return Err(Ignored::LogUnreadable);
            }
            if own.as_ref() != Some(previous) {
                return self.reject(previous, log);
            }
        }
        let handled = match entries {
            Some(range) => self.take_entries(range, configuration, log)?,
            None => {
                if M::EMPTY_APPEND_TRUNCATES && previous.index < self.log.last().index {
                    self.truncate(*previous);
                }
                Handled::Nothing
            }
        };
        self.matched = self.matched.max(entries.map_or(previous.index, |range| range.last));
        // New entries are answered when they are durable.
        self.appended_due |= handled == Handled::Nothing;
        self.learn_commit(commit);
        Ok(handled)
    }

    pub(super) fn handle_heartbeat(
        &mut self,
        slot: usize,
        commit: LogIndex,
        round: u64,
    ) -> Result<Handled, Ignored> {
        let answer = &mut self.peers[slot].heartbeat_answer;
        *answer = Some(answer.unwrap_or(0).max(round));
        self.learn_commit(commit);
        // More is committed than this node knows to match, as after a start: the leader may believe
        // that it has everything, and would not send anything on its own.
        self.appended_due |= commit > self.matched;
        Ok(Handled::Nothing)
    }

    /// A leader learns how far a follower has come.
    pub(super) fn handle_appended(
        &mut self,
        slot: usize,
        matched: LogIndex,
        received: LogIndex,
    ) -> Result<Handled, Ignored> {
        if self.role != Role::Leader {
            return Err(Ignored::NotAwaited);
        }
        if received > self.log.last().index {
            return Err(Ignored::Malformed);
        }
        let peer = &mut self.peers[slot];
        if matched > peer.matched {
            peer.matched = matched;
            peer.progress_at = self.now;
            peer.inflight.arrived(matched);
        }
        match peer.state {
            PeerState::Probe if received >= peer.next.prev() => peer.replicate(received, self.now),
            // Not the answer to the probe.
            PeerState::Probe => {}
            PeerState::Snapshot(last) if matched >= last => peer.replicate(received, self.now),
            PeerState::Snapshot(_) => {}
            // It was started again and does not know what matches: a probe without entries tells it.
            PeerState::Replicate if received < peer.matched => {
                peer.probe(peer.matched, Attempt::SECOND);
            }
            PeerState::Replicate => {
                peer.next = peer.next.max(peer.matched.next());
                if received >= peer.next.prev() {
                    peer.attempt = Attempt::NONE;
                }
            }
        }
        peer.catch_up(self.log.last().index, self.now, self.config.election_timeout);
        self.go_on_with_transfer();
        self.advance_commit();
        Ok(Handled::Nothing)
    }

    /// A leader learns that an append did not fit, and where the logs may meet.
    pub(super) fn handle_rejected(
        &mut self,
        slot: usize,
        previous: LogIndex,
        hint: &Position,
        log: &impl LogView,
    ) -> Result<Handled, Ignored> {
        if self.role != Role::Leader {
            return Err(Ignored::NotAwaited);
        }
        let peer = &mut self.peers[slot];
        let is_stale = match peer.state {
            PeerState::Probe => previous != peer.next.prev(),
            PeerState::Replicate => previous <= peer.matched,
            PeerState::Snapshot(_) => true,
        };
        if is_stale {
            return Err(Ignored::Stale);
        }
        // A disk that lied may have lost what was acknowledged: that is counted no more, and sent again. If this is an
        // old answer to a like question instead, so is what it has.
        peer.matched = peer.matched.min(hint.index);
        match self.log.latest_at_most(hint.index, hint.key(), log) {
            Some(meets) => peer.probe(meets.index, Attempt::FIRST),
            None => peer.offer_snapshot(self.log.base()),
        }
        Ok(Handled::Nothing)
    }

    /// The next append for a follower, within the bounds of what may be on its way.
    #[inline(never)]
    pub(super) fn next_append(&mut self, slot: usize, bulk: bool, log: &impl LogView) -> Option<Body> {
        let base = self.log.base().index;
        let last = self.log.last().index;
        let peer = &mut self.peers[slot];
        if peer.next <= base && !matches!(peer.state, PeerState::Snapshot(_)) {
            // Perhaps it has what is compacted here, and only its answers were lost: ask first.
            peer.probe(base, Attempt::SECOND);
        }
        let has_entries = bulk && peer.next <= last;
        let with_entries = match peer.state {
            PeerState::Snapshot(_) => return self.next_snapshot(slot, bulk),
            PeerState::Probe if peer.attempt.is_due() => has_entries && peer.attempt.is_first(),
            PeerState::Replicate if has_entries && !peer.window_is_full(self.config.inflight_bytes_max) => {
                true
            }
            // In the lane of the entries, so that it cannot overtake them.
            PeerState::Replicate if bulk && peer.attempt.is_due() => false,
            PeerState::Probe | PeerState::Replicate => return None,
        };
        let next = peer.next;
        let previous = self.log.position(next.prev(), log)?;
        let entries = if with_entries { Some(self.fitting(slot, next, log)?) } else { None };
        self.sent_append(slot, entries.as_ref());
        Some(Body::Append { previous, entries: entries.map(|(range, _)| range), commit: self.commit })
    }

    /// Retries what may be lost: called at every tick.
    pub(super) fn repair(&mut self) {
        let base = self.log.base().index;
        for peer in self.peers.iter_mut() {
            let sent = peer.attempt.sent(self.now);
            match peer.state {
                PeerState::Replicate
                    if peer.awaits_answer()
                        && self.now.since(peer.progress_at) >= self.config.election_timeout =>
                {
                    // An append or an answer is lost, or its disk is slow: a probe without entries tells.
                    peer.probe(peer.matched.max(base), Attempt::SECOND);
                }
                // In state `Replicate` an append without entries asks whether the one before it arrived, and sending
                // goes on meanwhile: if it did not, the answer is a rejection.
                PeerState::Probe | PeerState::Replicate
                    if sent.is_some_and(|(ago, _)| ago >= self.config.heartbeat_interval) =>
                {
                    peer.attempt.again();
                }
                PeerState::Snapshot(_)
                    if sent.is_some_and(|sent| {
                        super::snapshot::is_overdue(self.config.election_timeout, sent)
                    }) =>
                {
                    peer.attempt.again();
                }
                PeerState::Probe | PeerState::Replicate | PeerState::Snapshot(_) => {}
            }
        }
    }

    /// A leader counts: committed is what a majority of the voters has on disk, from its own term on.
    pub(super) fn advance_commit(&mut self) {
        let last = self.log.last().index;
        let own = if M::COUNT_OWN_BEFORE_DURABLE { last } else { self.gate.stable() };
        // The witness counts for entries of this subterm only, and for what is before them.
        let witness = self.silent_witness(own.0, Measure::Matched);
        let counts = witness >= self.subterm_start.0 || M::WITNESS_ACROSS_SUBTERMS;
        let reached = LogIndex(self.reached(own.0, Measure::Matched, if counts { witness } else { 0 }));
        if reached > self.commit && (reached >= self.term_start || M::COMMIT_OLD_TERM) {
            self.commit = reached;
            self.tail.arrived(reached);
            self.committed_configuration();
        }
    }

    /// A follower takes the leader's commit index as far as its own log is known to match.
    fn learn_commit(&mut self, commit: LogIndex) {
        let known = if M::COMMIT_BEYOND_MATCHED { self.log.last().index } else { self.matched };
        self.commit = self.commit.max(commit.min(known));
    }

    /// Puts what is new of a range that fits after `previous` into the log.
    fn take_entries(
        &mut self,
        range: &EntryRange,
        configuration: Option<&Configuration>,
        log: &impl LogView,
    ) -> Result<Handled, Ignored> {
        let last = self.log.last().index;
        let first = range.first.max(self.commit.next());
        if range.last < first {
            return Ok(Handled::Nothing);
        }
        let shared = self.shared_end(range, first, last, log)?;
        if shared == range.last {
            if M::OLD_APPEND_TRUNCATES
                && shared < last
                && let Some(end) = self.log.position(shared, log)
            {
                self.truncate(end);
            }
            return Ok(Handled::Nothing);
        }
        let end = self.log.position(shared, log).ok_or(Ignored::LogUnreadable)?;
        if range.key() < end.key() {
            return Err(Ignored::Malformed);
        }
        if shared < last {
            if shared < self.matched || !self.can_go_back(shared) {
                // It would rewrite what is committed, or what this leader itself sent.
                return Err(Ignored::Malformed);
            }
            self.truncate(end);
        }
        let rest = EntryRange { first: shared.next(), ..*range };
        self.log.append(&rest);
        if let Some(configuration) = configuration.filter(|_| rest.first == range.first) {
            self.adopt(rest.first, configuration);
        }
        Ok(Handled::Append(rest))
    }

    fn truncate(&mut self, last: Position) {
        self.log.truncate(last);
        self.gate.truncated(last.index);
        self.go_back(last.index);
    }

    /// Up to where the log has the entries of the range already, from `first` on; else the index before it.
    fn shared_end(
        &self,
        range: &EntryRange,
        first: LogIndex,
        last: LogIndex,
        log: &impl LogView,
    ) -> Result<LogIndex, Ignored> {
        if first > last {
            return Ok(last);
        }
        let own = self.log.position(first, log).ok_or(Ignored::LogUnreadable)?;
        if own.key() != range.key() {
            return Ok(first.prev());
        }
        self.log.run_end(first, range.last, log).ok_or(Ignored::LogUnreadable)
    }

    fn reject(&mut self, previous: &Position, log: &impl LogView) -> Result<Handled, Ignored> {
        if previous.index <= self.matched {
            return Err(Ignored::Malformed);
        }
        // What is of a later term than `previous` cannot be in the leader's log before it.
        let hint = self.log.latest_at_most(previous.index, previous.key(), log);
        self.rejection = Some((previous.index, hint.unwrap_or(self.log.base())));
        Ok(Handled::Nothing)
    }

    /// Entries from `next` on, of one term, within the bounds of bytes; and their bytes.
    fn fitting(&self, slot: usize, next: LogIndex, log: &impl LogView) -> Option<(EntryRange, u32)> {
        let room =
            u64::from(self.config.inflight_bytes_max).saturating_sub(self.peers[slot].inflight.bytes());
        let room = u32::try_from(room).unwrap_or(u32::MAX).min(self.config.append_bytes_max);
        let first = self.log.position(next, log)?;
        let end = self.log.run_end(next, self.log.last().index, log)?;
        let (last, bytes) = log.fit(next, end, room);
        let last = last.min(end).max(next);
        Some((EntryRange { term: first.term, subterm: first.subterm, first: next, last }, bytes))
    }

    fn sent_append(&mut self, slot: usize, entries: Option<&(EntryRange, u32)>) {
        let peer = &mut self.peers[slot];
        peer.tell_commit(self.commit);
        if let (PeerState::Replicate, Some((range, bytes))) = (peer.state, entries) {
            if !peer.awaits_answer() {
                peer.progress_at = self.now;
            }
            peer.attempt = Attempt::NONE;
            peer.next = range.last.next();
            peer.inflight.push(range.last, u64::from(*bytes));
        }
        peer.attempt.send(self.now);
    }
}
