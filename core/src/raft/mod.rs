//! Consensus without payloads, clock, allocator or thread.
//!
//! Everything comes in through `handle_*`, [`propose`](Raft::propose) and [`read_index`](Raft::read_index), each with the
//! driver's `now`; everything goes out through `poll_*`, which derive it from the state when asked: not
//! asking is backpressure. After each input the driver
//!
//! 1. does what [`handle_message`](Raft::handle_message) returned ([`Handled`]), before anything else;
//! 2. calls [`poll_event`](Raft::poll_event) until `None` and stores what [`Event::BecameLeader`] and
//!    [`Event::OwnEntry`] name;
//! 3. calls [`poll_message`](Raft::poll_message) for each of [`peers`](Raft::peers) until `None`, and sends;
//! 4. calls [`poll_persist`](Raft::poll_persist); when the group is durable, [`handle_persisted`](Raft::handle_persisted);
//! 5. applies up to [`commit_index`](Raft::commit_index), and answers the reads up to
//!    [`read_confirmed`](Raft::read_confirmed) once their index is applied.
//!
//! Sending (3) before the disk (4) lets a leader's entries travel while they are written; what depends
//! on the disk is not yielded before the disk has it. The rooms: `election` decides who leads, `replication`
//! brings the logs together, `snapshot` helps those who are too far behind, `membership` changes who belongs to
//! the group, `transfer` transfers leadership, `witness` is a member
//! without a log and `replication_set` how the others count it, `read` confirms reads, `output` yields messages and events,
//! `persist` is the gate to the disk, `configuration`, `set`, `log` and `quorum` are the arithmetic, `mutation` is for tests.
//!
//! Small functions that are marked never to be inlined are called from many places: on a microcontroller each copy
//! is paid for.

mod canonical;
mod configuration;
mod election;
mod ledger;
mod log;
mod member;
mod membership;
mod message;
mod mutation;
mod output;
mod peer;
mod persist;
mod quorum;
mod read;
mod replication;
mod replication_set;
mod set;
mod setup;
mod snapshot;
mod timer;
mod transfer;
mod witness;

pub use configuration::{
    CONFIGURATION_MEMBERS_MAX, Change, Configuration, ConfigurationEntry, ConfigurationError,
    ConfigurationParts,
};
pub use member::{Member, MemberRole};
pub use membership::{Leave, MembershipError};
pub use message::*;
pub use mutation::{MUTATIONS, Mutation, NoMutation};
pub use output::{Event, PeerStatus, Status};
pub use peer::{INFLIGHT_MESSAGES_MAX, PeerState};
pub use read::{Read, ReadError};
pub use replication::ProposeError;
pub use setup::{Config, Durable, SetupError};
pub use transfer::TransferError;
pub use witness::{
    NodeSet, Reaction, RecordError, WITNESS_RECORD_BYTES, WITNESS_VOTERS_MAX, Witness, WitnessRecord,
};

use core::marker::PhantomData;

use crate::id::{LogIndex, NodeId, Subterm, Term};
use crate::time::{Duration, Instant};

use ledger::Ledger;
use log::Log;
use peer::{Measure, Peers};
use persist::Gate;
use read::Rounds;
use timer::{Jitter, Timers};
use transfer::Transfer;

/// What a node does at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader or waits for one. Observers never do anything else.
    Follower,
    /// Asks whether a campaign would succeed.
    PreCandidate,
    /// Campaigns.
    Candidate,
    /// Leads.
    Leader,
}

/// What the driver has to do about its log after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Handled {
    /// Nothing.
    Nothing,
    /// Put the message's entries of this range, which is a suffix of the message's, into the log from
    /// `first` on, and drop what stood at or after `first`.
    Append(EntryRange),
    /// Replace state and log by the snapshot that came with the message and ends here.
    Install(Position),
}

/// Why a message changed nothing. Not an error of this node; worth a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// The sender is no other member, and what it sends does not suggest that it became one.
    UnknownSender,
    /// Only a voter may send this.
    NotVoter,
    /// It brings a configuration with more members than this core has room for.
    TooManyMembers,
    /// The numbers do not belong together, or contradict what is committed.
    Malformed,
    /// Of an older term than this node's, or overtaken by a later message.
    Stale,
    /// Asks for a vote while a leader is heard.
    Leased,
    /// An answer to nothing that this node asked, in its present role.
    NotAwaited,
    /// Needs an entry that the driver's log does not show.
    LogUnreadable,
    /// A witness is storing its record.
    Busy,
}

/// The core of one node, for at most `NODES` members; it remembers `RUNS` terms of its log. `M` is for tests.
#[derive(Clone, Debug)]
pub struct Raft<const NODES: usize = 9, const RUNS: usize = 32, M: Mutation = NoMutation> {
    config: Config,
    /// The latest of the log.
    configuration: Configuration,
    configuration_index: LogIndex,
    /// The one before; committed, if this one is not.
    previous_configuration: Option<ConfigurationEntry>,
    /// The driver was not told of the configuration in force.
    configuration_untold: bool,
    /// This node is a voter in it.
    voter: bool,
    jitter: Jitter,
    timers: Timers,
    /// The latest that an input brought.
    now: Instant,

    role: Role,
    hard_state: HardState,
    leader: Option<NodeId>,
    /// When a leader was last heard; `None` since the start, or since this node led.
    leader_heard_at: Option<Instant>,

    log: Log<RUNS>,
    gate: Gate,
    commit: LogIndex,

    /// Follower: everything up to here equals the log of the leader of this term. Not below `commit`.
    matched: LogIndex,
    /// Follower: an append is to be answered although nothing more became durable.
    appended_due: bool,
    /// Follower: the latest durable index that the leader of this term was told.
    appended_sent: LogIndex,
    /// Follower: the answer owed to an append that does not fit.
    rejection: Option<(LogIndex, Position)>,

    /// Leader: its first entry. Nothing is committed by counting below it.
    term_start: LogIndex,
    /// Leader: what its entries carry.
    subterm: Subterm,
    /// Leader: the first entry of its subterm.
    subterm_start: LogIndex,
    /// Leader: for which regular voter the witness stands in the replication set; `None` while it is outside.
    swapped: Option<NodeId>,
    /// Leader: another replication set is wanted.
    swap_wanted: Option<Option<NodeId>>,
    /// Leader: the witness has acknowledged in this subterm.
    witness_acknowledged: bool,
    /// Leader: its proposals that are not committed.
    tail: Ledger,
    rounds: Rounds,
    /// Leader: it transfers leadership.
    transfer: Option<Transfer>,
    /// The driver was not told that this one did not take over.
    transfer_failed: Option<NodeId>,
    /// Candidate: its leader asked it to campaign.
    by_transfer: bool,

    /// The term of leadership that the driver was told of.
    told_leading: Option<Term>,
    /// The leader and term that the driver was told of.
    told_leader: (Option<NodeId>, Term),

    /// The other members, and guests.
    peers: Peers<NODES>,
    mutation: PhantomData<M>,
}

impl<const NODES: usize, const RUNS: usize, M: Mutation> Raft<NODES, RUNS, M> {
    /// Takes a message in. Snapshot messages are handed over once the driver holds the snapshot, whole
    /// and verified. What is returned is to be done before anything else is called.
    ///
    /// `configuration` is what the payload of the *first* entry of an append holds, if that is a configuration
    /// entry; the others need no looking at, since a configuration entry begins a subterm and is therefore the
    /// first of its range. With a snapshot it is the configuration at its last entry. Else it is `None`.
    ///
    /// # Errors
    /// Why the message was ignored; nothing has changed.
    pub fn handle_message(
        &mut self,
        now: Instant,
        from: NodeId,
        message: &Message,
        configuration: Option<&Configuration>,
        log: &impl LogView,
    ) -> Result<Handled, Ignored> {
        self.clock(now);
        let slot = self.admit(from, message)?;
        match &message.body {
            Body::PreVote { last } => return self.handle_pre_vote(slot, message.term, last),
            Body::PreVoteAnswer { granted: true } => return self.handle_pre_vote_granted(slot, message.term),
            _ => {}
        }
        self.agree_on_term(slot, message)?;
        if self.role == Role::Leader {
            self.peers[slot].heard_at = self.now;
        }
        match &message.body {
            Body::PreVote { .. } => Ok(Handled::Nothing),
            Body::PreVoteAnswer { .. } => {
                // Others may come to grant it in this campaign still.
                self.peers[slot].answered |= Some(slot) == self.witness_slot();
                Ok(Handled::Nothing)
            }
            Body::Vote { last, .. } => self.handle_vote(slot, last),
            Body::VoteAnswer { granted } => self.handle_vote_answer(slot, *granted),
            Body::Append { previous, entries, commit } => {
                self.check_configuration(message, configuration)?;
                self.follow(slot)?;
                self.handle_append(previous, entries.as_ref(), configuration, *commit, log)
            }
            Body::Appended { matched, received } => self.handle_appended(slot, *matched, *received),
            Body::Rejected { previous, hint } => self.handle_rejected(slot, *previous, hint, log),
            Body::Heartbeat { commit, round } => {
                self.follow(slot)?;
                self.handle_heartbeat(slot, *commit, *round)
            }
            Body::HeartbeatAnswer { round } => self.handle_heartbeat_answer(slot, *round),
            Body::Snapshot { last } => {
                self.check_configuration(message, configuration)?;
                self.follow(slot)?;
                self.handle_snapshot(last, configuration, log)
            }
            Body::TimeoutNow => self.handle_timeout_now(slot),
            Body::WitnessAppended { subterm, taken } => self.handle_witness_appended(*subterm, *taken),
            Body::WitnessVote { .. } | Body::WitnessAppend { .. } | Body::WitnessPing { .. } => {
                Err(Ignored::NotAwaited)
            }
        }
    }

    /// Does what is due at `now`; nothing if nothing is.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.clock(now);
        if self.timers.tick <= self.now && self.role != Role::Follower {
            self.timers.tick = self.now + self.config.heartbeat_interval;
            match self.role {
                Role::Leader => self.tick_as_leader(),
                _ => self.ask_again(),
            }
        }
        if self.timers.election <= self.now && self.role != Role::Leader {
            self.election_timeout();
        }
    }

    /// When [`handle_timeout`](Raft::handle_timeout) is to be called next; at the end of time for who cannot lead.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        match self.role {
            Role::Leader => self.timers.tick,
            Role::Follower if !self.is_electable() && !M::NON_VOTER_CAMPAIGNS => Instant(u64::MAX),
            Role::Follower => self.timers.election,
            Role::PreCandidate | Role::Candidate => self.timers.tick.min(self.timers.election),
        }
    }

    /// What is to be made durable next; `None` while a group is outstanding. The driver's log holds the
    /// entries that it names.
    pub fn poll_persist(&mut self) -> Option<Persist> {
        self.gate.next(self.hard_state, &self.log)
    }

    /// The group of this ticket is durable.
    pub fn handle_persisted(&mut self, now: Instant, ticket: u64) {
        self.clock(now);
        if !self.gate.persisted(ticket, M::VOUCH_FOR_REPLACED) {
            return;
        }
        match self.role {
            Role::Candidate => self.count_votes(),
            Role::Leader => self.advance_commit(),
            Role::Follower | Role::PreCandidate => {}
        }
    }

    /// The group of this ticket is not durable, or nobody knows. A leader steps down and passes on; the node neither
    /// campaigns nor votes until a later group is durable. [`poll_persist`](Raft::poll_persist) offers the content again.
    pub fn handle_persist_failed(&mut self, now: Instant, ticket: u64) {
        self.clock(now);
        if self.gate.persist_failed(ticket) && self.role != Role::Follower {
            self.pass_on();
            self.step_down();
        }
    }

    /// Stops leading or campaigning, for a graceful stop; others get the time to take over.
    pub fn resign(&mut self, now: Instant) {
        self.clock(now);
        if self.role != Role::Follower {
            self.step_down();
        }
        self.timers.election += self.config.election_timeout;
    }

    /// The driver knows that the leader is gone (its connection was reset): this follower votes for another one at
    /// once. It campaigns no sooner, so that not all do together; a leader that is there after all is followed again.
    pub fn forget_leader(&mut self, now: Instant) {
        self.clock(now);
        if self.role == Role::Follower {
            self.leader = None;
            self.leader_heard_at = None;
        }
    }

    /// Everything up to here is committed.
    #[must_use]
    pub const fn commit_index(&self) -> LogIndex {
        self.commit
    }

    /// Everything up to here is durable on this node. Snapshots of what is beyond are refused.
    #[must_use]
    pub const fn durable_index(&self) -> LogIndex {
        self.gate.stable()
    }

    /// What this node does.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Who leads, as far as this node knows.
    #[must_use]
    pub const fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// The current term.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.hard_state.term
    }

    /// The end of the log.
    #[must_use]
    pub fn last(&self) -> Position {
        self.log.last()
    }

    /// What a snapshot covers: the driver's log begins after it.
    #[must_use]
    pub const fn snapshot(&self) -> Position {
        self.log.base()
    }

    #[inline(never)]
    fn slot(&self, id: NodeId) -> Option<usize> {
        self.peers.iter().position(|peer| peer.id == id)
    }

    #[inline(never)]
    fn clock(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// What a majority of the voters has reached (of each half, if the configuration is joint), this node
    /// having reached `own` and the witness at least `witness`.
    fn reached(&self, own: u64, measure: Measure, witness: u64) -> u64 {
        let mut configuration = &self.configuration;
        let mutated;
        if M::ONE_HALF_IS_ENOUGH || M::COUNT_OBSERVERS {
            mutated = configuration.mutated(M::ONE_HALF_IS_ENOUGH, M::COUNT_OBSERVERS);
            configuration = &mutated;
        }
        let stand_in = configuration.voters().find(|_| M::COUNT_REMOVED_LEADER && !self.voter);
        let witness_id = configuration.witness();
        quorum::reached(configuration, &|id| {
            let least = if witness_id == Some(id) { witness } else { 0 };
            if stand_in == Some(id) { own } else { self.value_of(id, own, measure).max(least) }
        })
    }

    fn value_of(&self, id: NodeId, own: u64, measure: Measure) -> u64 {
        if id == self.config.id {
            own
        } else {
            self.slot(id).map_or(0, |slot| self.peers[slot].measure(measure))
        }
    }

    /// Has this been heard within the last election timeout?
    #[inline(never)]
    fn is_recent(&self, at: Instant) -> bool {
        self.now.since(at) < self.config.election_timeout
    }

    /// So long ago, or just after the beginning of time.
    #[inline(never)]
    fn ago(&self, span: Duration) -> Instant {
        Instant(self.now.0.saturating_sub(span.0).saturating_add(1))
    }
}

#[cfg(test)]
mod harness;
#[cfg(test)]
mod plain_log;
#[cfg(test)]
mod tests;
