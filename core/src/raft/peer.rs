//! Another member as this node sees it: what is owed to it, and how far a leader has brought it.

use core::ops::{Deref, DerefMut, Index, IndexMut};

use heapless::Vec;

use super::ledger::{Ledger, PARTS_MAX};
use super::member::MemberRole;
use super::message::Position;
use crate::id::{LogIndex, NodeId, Term};
use crate::time::{Duration, Instant};

/// At most so many appends are on their way to one follower.
pub const INFLIGHT_MESSAGES_MAX: usize = PARTS_MAX;

/// How a leader sends to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Where the logs meet is not known: one append at a time.
    Probe,
    /// The logs meet: appends are sent ahead of the answers, within the bounds.
    Replicate,
    /// What it needs is compacted away: it was told of the snapshot that ends at this index.
    Snapshot(LogIndex),
}

/// What a pre-vote of this peer is answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct PreVoteReply {
    /// The campaign's term if granted, else this node's.
    pub(super) term: Term,
    pub(super) granted: bool,
}

/// A probe, an append or a snapshot, or the witness's record: to be sent, or sent and not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    /// It is to be sent (again).
    pub(super) is_due: bool,
    /// How often it was sent.
    pub(super) times: u32,
    /// When, the last time.
    pub(super) at: Instant,
}

impl Attempt {
    pub(super) const NONE: Attempt = Attempt { is_due: false, times: 0, at: Instant(0) };
    pub(super) const FIRST: Attempt = Attempt { is_due: true, times: 0, at: Instant(0) };
    pub(super) const SECOND: Attempt = Attempt { is_due: true, times: 1, at: Instant(0) };

    pub(super) const fn is_due(self) -> bool {
        self.is_due
    }

    pub(super) const fn is_first(self) -> bool {
        self.times == 0
    }

    /// How long ago it was sent, and for the how-many-th time, if it was.
    pub(super) fn sent(self, now: Instant) -> Option<(Duration, u32)> {
        (!self.is_due && !self.is_first()).then_some((now.since(self.at), self.times))
    }

    pub(super) fn send(&mut self, at: Instant) {
        *self = Attempt { is_due: false, times: self.times.saturating_add(1), at };
    }

    pub(super) fn again(&mut self) {
        self.is_due = true;
    }
}

/// What the configuration in force says of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Member(MemberRole),
    /// Not in the configuration any more, which is not committed; a leader still sends to it.
    Leaving,
    /// A node that the configuration does not name and that may know a newer one: it is answered.
    Guest,
}

#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    pub(super) standing: Standing,

    // Owed as a voter or follower.
    pub(super) vote_answer_due: bool,
    pub(super) pre_vote_answer: Option<PreVoteReply>,
    pub(super) heartbeat_answer: Option<u64>,

    // As a candidate.
    pub(super) request_due: bool,
    pub(super) answered: bool,
    pub(super) granted: bool,

    /// As a leader, or as one that just ended: it is to campaign at once.
    pub(super) timeout_now_due: bool,

    // As a leader; everything from here on begins anew with each term led.
    pub(super) state: PeerState,
    /// Known to be durable there.
    pub(super) matched: LogIndex,
    /// The next entry to send; above `matched`.
    pub(super) next: LogIndex,
    /// The appends on their way to it.
    pub(super) inflight: Ledger,
    /// Of the probe in state `Probe`, of the snapshot in state `Snapshot`; in state `Replicate` of the last
    /// append, until an answer says that it arrived.
    pub(super) attempt: Attempt,
    /// When it last answered in this term.
    pub(super) heard_at: Instant,
    /// When `matched` last rose, or entries were sent with none outstanding.
    pub(super) progress_at: Instant,
    /// The latest round that it answered.
    pub(super) round: u64,
    pub(super) heartbeat_due: bool,
    /// It waits for the commit index.
    pub(super) commit_due: bool,
    /// The latest commit index it was told.
    pub(super) commit_sent: LogIndex,
    /// The round of catching up (thesis, 4.2.1): it ends when the follower has what the log had at its beginning.
    pub(super) catching: Round,
}

/// What voters are counted by, as a number that a majority has reached or not.
#[derive(Clone, Copy, Debug)]
pub(super) enum Measure {
    /// Whether it granted: one or zero.
    Granted,
    /// What is durable there.
    Matched,
    /// The latest round that it answered.
    Round,
    /// Whether it was heard since then.
    HeardAfter(Instant),
    /// The same, of voters with a log.
    RegularHeardAfter(Instant),
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Round {
    pub(super) began: Instant,
    pub(super) end: LogIndex,
    /// The round before took less than an election timeout.
    pub(super) was_short: bool,
}

/// The other members, and guests, in no order. Looked up by their *slots*.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers<const NODES: usize>(Vec<Peer, NODES>);

impl<const NODES: usize> Deref for Peers<NODES> {
    type Target = Vec<Peer, NODES>;

    fn deref(&self) -> &Vec<Peer, NODES> {
        &self.0
    }
}

impl<const NODES: usize> DerefMut for Peers<NODES> {
    fn deref_mut(&mut self) -> &mut Vec<Peer, NODES> {
        &mut self.0
    }
}

impl<const NODES: usize> Index<usize> for Peers<NODES> {
    type Output = Peer;

    #[inline(never)]
    fn index(&self, slot: usize) -> &Peer {
        &self.0[slot]
    }
}

impl<const NODES: usize> IndexMut<usize> for Peers<NODES> {
    #[inline(never)]
    fn index_mut(&mut self, slot: usize) -> &mut Peer {
        &mut self.0[slot]
    }
}

impl Peer {
    #[inline(never)]
    pub(super) fn new(id: NodeId, standing: Standing) -> Peer {
        Peer {
            id,
            standing,
            vote_answer_due: false,
            pre_vote_answer: None,
            heartbeat_answer: None,
            request_due: false,
            answered: false,
            granted: false,
            timeout_now_due: false,
            state: PeerState::Probe,
            matched: LogIndex::ZERO,
            next: LogIndex(1),
            inflight: Ledger::default(),
            attempt: Attempt::FIRST,
            heard_at: Instant(0),
            progress_at: Instant(0),
            round: 0,
            heartbeat_due: false,
            commit_due: false,
            commit_sent: LogIndex::ZERO,
            catching: Round::default(),
        }
    }

    /// Votes, and has a log.
    pub(super) fn is_voter(&self) -> bool {
        self.standing == Standing::Member(MemberRole::Voter)
    }

    /// Votes, with or without a log.
    pub(super) fn votes(&self) -> bool {
        self.is_voter() || self.standing == Standing::Member(MemberRole::Witness)
    }

    /// A leader keeps its log in step.
    #[inline(never)]
    pub(super) fn replicates(&self) -> bool {
        matches!(
            self.standing,
            Standing::Member(MemberRole::Voter | MemberRole::Observer) | Standing::Leaving
        )
    }

    /// What was owed in an older term is owed no more.
    pub(super) fn forget_term(&mut self) {
        self.heartbeat_answer = None;
        self.timeout_now_due = false;
        self.forget_campaign(false);
    }

    pub(super) fn forget_campaign(&mut self, ask: bool) {
        self.request_due = ask;
        self.answered = false;
        self.granted = false;
    }

    /// A leader begins with the assumption that the follower has what it has itself.
    #[inline(never)]
    pub(super) fn begin_term(&mut self, last: LogIndex, now: Instant) {
        self.state = PeerState::Probe;
        self.matched = LogIndex::ZERO;
        self.next = last.next();
        self.inflight.clear();
        self.attempt = Attempt::FIRST;
        self.heard_at = now;
        self.progress_at = now;
        self.round = 0;
        self.heartbeat_due = true;
        self.commit_due = false;
        self.commit_sent = LogIndex::ZERO;
        self.timeout_now_due = false;
        self.catching = Round { began: now, end: last, was_short: false };
    }

    pub(super) fn measure(&self, measure: Measure) -> u64 {
        match measure {
            Measure::Granted => u64::from(self.granted),
            Measure::Matched => self.matched.0,
            Measure::Round => self.round,
            Measure::HeardAfter(at) => u64::from(self.heard_at >= at),
            Measure::RegularHeardAfter(at) => u64::from(self.heard_at >= at && self.is_voter()),
        }
    }

    /// Ends a round of catching up if it is at its end, and begins the next: at every tick and acknowledgement.
    pub(super) fn catch_up(&mut self, last: LogIndex, now: Instant, election_timeout: Duration) {
        if self.matched >= self.catching.end {
            let was_short = now.since(self.catching.began) < election_timeout;
            self.catching = Round { began: now, end: last, was_short };
        }
    }

    /// Within one round of the leader's log, and answering.
    #[inline(never)]
    pub(super) fn has_caught_up(&self, now: Instant, election_timeout: Duration) -> bool {
        let recent = |at| now.since(at) < election_timeout;
        self.catching.was_short && recent(self.catching.began) && recent(self.heard_at)
    }

    /// One append at a time, from after `previous` on.
    #[inline(never)]
    pub(super) fn probe(&mut self, previous: LogIndex, attempt: Attempt) {
        self.state = PeerState::Probe;
        self.next = previous.max(self.matched).next();
        self.inflight.clear();
        self.attempt = attempt;
    }

    /// The follower has everything up to `received`.
    pub(super) fn replicate(&mut self, received: LogIndex, now: Instant) {
        self.state = PeerState::Replicate;
        self.attempt = Attempt::NONE;
        self.next = received.max(self.matched).next();
        self.inflight.clear();
        self.progress_at = now;
    }

    /// Tell it of the snapshot that ends at `last`.
    pub(super) fn offer_snapshot(&mut self, last: Position) {
        self.state = PeerState::Snapshot(last.index);
        self.inflight.clear();
        self.attempt = Attempt::FIRST;
    }

    /// A message with this commit index leaves for it.
    pub(super) fn tell_commit(&mut self, commit: LogIndex) {
        if commit > self.commit_sent {
            self.commit_sent = commit;
            self.commit_due = false;
        }
    }

    /// No more may be on its way.
    pub(super) fn window_is_full(&self, bytes_max: u32) -> bool {
        self.inflight.is_full() || self.inflight.bytes() >= u64::from(bytes_max)
    }

    /// Entries were sent that are not known to be durable there.
    pub(super) fn awaits_answer(&self) -> bool {
        self.next > self.matched.next()
    }
}
