//! What nodes say to each other, and what the core says to its driver. No payloads: messages name
//! ranges of the log; the driver adds the entry bytes on sending and strips them on receiving.

use super::witness::NodeSet;
use crate::id::{LogIndex, NodeId, Subterm, Term};

/// Where an entry stands and under whom it was written. Two logs that agree on a position agree
/// on everything before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Its index.
    pub index: LogIndex,
    /// The term of the leader that appended it.
    pub term: Term,
    /// The subterm of that leader.
    pub subterm: Subterm,
}

impl Position {
    /// Before the first entry.
    pub const ZERO: Position = Position { index: LogIndex::ZERO, term: Term(0), subterm: Subterm(0) };
}

/// Entries `first..=last` (at least one), all of one term and subterm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRange {
    /// Term of all of them.
    pub term: Term,
    /// Subterm of all of them.
    pub subterm: Subterm,
    /// The first index.
    pub first: LogIndex,
    /// The last index, not below `first`.
    pub last: LogIndex,
}

/// A message between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender's term; for a pre-vote and a granted answer to one, the term of the campaign that
    /// it asks for.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Would you vote for me? Changes nothing at the receiver.
    PreVote {
        /// The end of the candidate's log.
        last: Position,
    },
    /// The answer to a pre-vote.
    PreVoteAnswer {
        /// Yes or no.
        granted: bool,
    },
    /// Vote for me.
    Vote {
        /// The end of the candidate's log.
        last: Position,
        /// The leader itself asked for this campaign: its lease does not stand against it.
        transfer: bool,
    },
    /// The answer to a vote request; a grant is durable before it is sent.
    VoteAnswer {
        /// Yes or no.
        granted: bool,
    },
    /// Entries to append, or a probe without any.
    Append {
        /// The position right before `entries`.
        previous: Position,
        /// The entries; `None` for a probe.
        entries: Option<EntryRange>,
        /// The leader's commit index.
        commit: LogIndex,
    },
    /// The answer to an append or an installed snapshot: durable up to here.
    Appended {
        /// Everything up to here equals the leader's log and is durable.
        matched: LogIndex,
        /// Everything up to here equals the leader's log and may still be on its way to the disk:
        /// the leader need not send it again. Not below `matched`.
        received: LogIndex,
    },
    /// The answer to an append whose `previous` does not fit.
    Rejected {
        /// The index of the append's `previous`.
        previous: LogIndex,
        /// The latest position in the follower's log at or below `previous` that could match.
        hint: Position,
    },
    /// I lead. Small, so that bulk cannot delay it; may overtake appends.
    Heartbeat {
        /// The leader's commit index; the follower takes it up to what it knows to match.
        commit: LogIndex,
        /// The latest round of reads and quorum checks; the answer names it.
        round: u64,
    },
    /// The answer to a heartbeat.
    HeartbeatAnswer {
        /// The round of the heartbeat.
        round: u64,
    },
    /// The follower needs what is compacted away. The driver sends the bytes of its newest snapshot along
    /// and puts that one's position here if it is later; the receiving driver hands this message to
    /// the core once it holds them whole and verified.
    Snapshot {
        /// The last entry that the snapshot covers.
        last: Position,
    },
    /// Campaign at once: I transfer leadership to you.
    TimeoutNow,
    /// To the witness: vote for me, as these did already. Answered as by other voters.
    WitnessVote {
        /// A pre-vote: changes nothing at the witness.
        pre: bool,
        /// The term of the candidate's last entry.
        last_term: Term,
        /// The subterm of that entry.
        last_subterm: Subterm,
        /// Those of the regular voters beside the witness that granted it, the candidate among them.
        votes: NodeSet,
    },
    /// To the witness, once a subterm: these have an entry of this term and subterm.
    WitnessAppend {
        /// The leader's subterm.
        subterm: Subterm,
        /// The regular voters of its replication set.
        voters: NodeSet,
    },
    /// The answer of the witness.
    WitnessAppended {
        /// The subterm that was asked about.
        subterm: Subterm,
        /// Whether it is in the witness's record.
        taken: bool,
    },
    /// To the witness: do I lead still? Answered with the round, as a heartbeat.
    WitnessPing {
        /// The round.
        round: u64,
    },
}

/// Terms and indexes from here on are refused: no honest site gets there, and sums below cannot overflow.
pub(super) const NUMBER_LIMIT: u64 = 1 << 62;

/// No honest node is so many terms ahead of another: at ten elections a second that takes 13 years. Believed, a term
/// near the limit would leave no terms to the site.
pub(super) const TERMS_AHEAD_MAX: u64 = 1 << 32;

impl Position {
    /// Term and subterm: never falling along a log, and equal at an index only if all before is.
    pub(super) const fn key(self) -> (Term, Subterm) {
        (self.term, self.subterm)
    }

    /// Can stand in a log of this term.
    #[inline(never)]
    fn fits(&self, term: Term) -> bool {
        if self.term.0 == 0 {
            return *self == Position::ZERO;
        }
        self.term <= term && self.index.0 > 0 && self.index.0.max(self.subterm.0) < NUMBER_LIMIT
    }
}

impl EntryRange {
    /// Term and subterm of all of them.
    pub(super) const fn key(&self) -> (Term, Subterm) {
        (self.term, self.subterm)
    }

    fn fits(&self, term: Term, previous: Position) -> bool {
        let end = Position { index: self.last, term: self.term, subterm: self.subterm };
        self.first == previous.index.next()
            && self.first <= self.last
            && self.term.0 > 0
            && self.key() >= previous.key()
            && end.fits(term)
    }
}

impl Message {
    /// Whether the numbers belong together, and a node in term `own` can believe the term.
    pub(super) fn is_believable(&self, own: Term) -> bool {
        self.is_plausible() && self.term.0 <= own.0.saturating_add(TERMS_AHEAD_MAX)
    }

    /// Whether the numbers belong together, as far as the message itself tells. The core ignores any
    /// other; a driver may check before it does more with one.
    #[must_use]
    #[inline(never)]
    pub fn is_plausible(&self) -> bool {
        let term = self.term;
        let index = |index: LogIndex| index.0 < NUMBER_LIMIT;
        let by_body = match self.body {
            // A node that was never in a term refuses, too.
            Body::PreVoteAnswer { granted: false } => return term.0 < NUMBER_LIMIT,
            Body::PreVoteAnswer { .. } | Body::VoteAnswer { .. } | Body::HeartbeatAnswer { .. } => true,
            Body::TimeoutNow | Body::WitnessPing { .. } => true,
            Body::WitnessVote { last_term, last_subterm, .. } => {
                last_term <= term && last_subterm.0 < NUMBER_LIMIT
            }
            Body::WitnessAppend { subterm, .. } | Body::WitnessAppended { subterm, .. } => {
                subterm.0 < NUMBER_LIMIT
            }
            Body::PreVote { last } | Body::Vote { last, .. } => last.fits(term),
            Body::Append { previous, entries, commit } => {
                let follow = entries.is_none_or(|range| range.fits(term, previous));
                previous.fits(term) && follow && index(commit)
            }
            Body::Appended { matched, received } => matched <= received && index(received),
            Body::Rejected { previous, hint } => hint.fits(term) && hint.index <= previous && index(previous),
            Body::Heartbeat { commit, .. } => index(commit),
            Body::Snapshot { last } => last.fits(term) && last.index.0 > 0,
        };
        by_body && (1..NUMBER_LIMIT).contains(&term.0)
    }
}

/// What must survive a restart besides the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term seen.
    pub term: Term,
    /// For whom this node voted in that term.
    pub vote: Option<NodeId>,
}

/// What the driver makes durable: in this order, in one group with one sync. One at a time: the
/// core yields no other until [`handle_persisted`](super::Raft::handle_persisted) was told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persist {
    /// Names this group; given back when it is durable.
    pub ticket: u64,
    /// The hard state, if it changed.
    pub hard_state: Option<HardState>,
    /// The log was replaced by a snapshot that ends here: it becomes durable with this group, if it is
    /// not yet, together with the log's new beginning.
    pub reset: Option<Position>,
    /// Entries after this index are to be dropped from the durable log.
    pub truncate_after: Option<LogIndex>,
    /// Entries `first..=last` of the driver's log are to be appended. May span several terms.
    pub entries: Option<(LogIndex, LogIndex)>,
}

/// The driver's log, for what the core has forgotten. It holds what was proposed, accepted or
/// written at the core's word, durable or not.
pub trait LogView {
    /// The position of the entry at `index`, also for the last one that a snapshot covers;
    /// `None` if it is compacted away or not there.
    fn position(&self, index: LogIndex) -> Option<Position>;

    /// How far a message that begins with entry `first` can go without exceeding `bytes_max` of
    /// payload or `last`: the last index (at least `first`) and the bytes up to it.
    fn fit(&self, first: LogIndex, last: LogIndex, bytes_max: u32) -> (LogIndex, u32);
}
