//! Membership changes by joint consensus, one at a time. A configuration is in force at a node from
//! the moment its entry is in that node's log until the entry is dropped.
//!
//! A leader begins a change only when the configuration before is committed, so at most one configuration entry
//! of any log is not: remembering the one before the latest is enough to go back.

use core::fmt;

use super::configuration::{Change, Configuration, ConfigurationEntry, ConfigurationError};
use super::message::{Body, EntryRange, Message};
use super::peer::{Peer, Standing};
use super::{Ignored, Mutation, Raft, Role};
use crate::id::{LogIndex, NodeId, Subterm};
use crate::time::Instant;

/// Why the members were not changed. A refused change changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipError {
    /// This node is not the leader.
    NotLeader,
    /// This leader has not yet committed an entry of its own term: ask again soon.
    TooEarly,
    /// The latest change is not committed, or its joint configuration is not left: ask again soon, or leave it first
    /// if it is left only [when asked](Leave::WhenAsked).
    InProgress,
    /// Leadership is being transferred.
    Transferring,
    /// The configuration is not joint: there is nothing to leave.
    NotJoint,
    /// It is a member already.
    AlreadyMember(NodeId),
    /// It is no member.
    NotMember(NodeId),
    /// Only an observer is promoted.
    NotObserver(NodeId),
    /// Only a voter is demoted, and a witness is not.
    NotVoter(NodeId),
    /// An observer is promoted when it has caught up.
    NotCaughtUp {
        /// Who.
        id: NodeId,
        /// How many entries it lacks.
        behind: u64,
    },
    /// The members are as they are wished to be.
    Unchanged,
    /// The members would be no configuration.
    Configuration(ConfigurationError),
}

impl fmt::Display for MembershipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MembershipError::NotLeader => f.write_str("this node is not the leader"),
            MembershipError::TooEarly => {
                f.write_str("this leader has not yet committed an entry of its term: retry soon")
            }
            MembershipError::InProgress => f.write_str(
                "the previous change is not complete: retry soon, or leave its joint configuration first",
            ),
            MembershipError::Transferring => f.write_str("leadership is being transferred: retry soon"),
            MembershipError::NotJoint => f.write_str("no change is in progress"),
            MembershipError::AlreadyMember(id) => write!(f, "node {id} is already a member"),
            MembershipError::NotMember(id) => write!(f, "node {id} is not a member"),
            MembershipError::NotObserver(id) => write!(f, "node {id} is not an observer"),
            MembershipError::NotVoter(id) => write!(f, "node {id} is not a voter with a log"),
            MembershipError::NotCaughtUp { id, behind } => {
                write!(f, "node {id} has not caught up: it is {behind} entries behind; retry later")
            }
            MembershipError::Unchanged => f.write_str("the members already have these roles"),
            MembershipError::Configuration(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for MembershipError {}

impl From<ConfigurationError> for MembershipError {
    fn from(error: ConfigurationError) -> MembershipError {
        MembershipError::Configuration(error)
    }
}

/// How a joint configuration is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// By the leader, once the configuration is committed.
    ByItself,
    /// When [`leave_joint`](Raft::leave_joint) is called.
    WhenAsked,
}

impl<const NODES: usize, const RUNS: usize, M: Mutation> Raft<NODES, RUNS, M> {
    /// A leader changes the members, by all of these wishes at once. The driver stores the configuration as the
    /// payload of the one entry that it gets, before it calls anything else. If voters change the configuration
    /// is joint, and [`Event::OwnEntry`](super::Event::OwnEntry) brings the entry that leaves it.
    ///
    /// # Errors
    /// Why nothing changes now; the configuration stays.
    pub fn change_membership(
        &mut self,
        now: Instant,
        changes: &[Change],
        leave: Leave,
    ) -> Result<(EntryRange, Configuration), MembershipError> {
        self.clock(now);
        let mut next = self.configuration;
        self.change(&mut next, changes, leave)?;
        Ok((self.append_configuration(&next), next))
    }

    /// A leader leaves the joint configuration, by an entry as with
    /// [`change_membership`](Raft::change_membership).
    ///
    /// # Errors
    /// Why the joint configuration is not left now.
    pub fn leave_joint(&mut self, now: Instant) -> Result<(EntryRange, Configuration), MembershipError> {
        self.clock(now);
        self.may_change()?;
        if !self.configuration.is_joint() {
            return Err(MembershipError::NotJoint);
        }
        let entries = self.append_configuration(&self.configuration.left());
        Ok((entries, self.configuration))
    }

    /// A leader writes the configuration in force once more, for those who only know what the log says of it: a site that
    /// was never changed has no entry that says who is in it. The entry is stored as with
    /// [`change_membership`](Raft::change_membership).
    ///
    /// # Errors
    /// Why it is not written now.
    pub fn restate_configuration(
        &mut self,
        now: Instant,
    ) -> Result<(EntryRange, Configuration), MembershipError> {
        self.clock(now);
        self.may_change()?;
        if self.configuration.is_joint() {
            return Err(MembershipError::InProgress);
        }
        let same = self.configuration;
        Ok((self.append_configuration(&same), same))
    }

    /// The configuration in force: the latest of the log, committed or not.
    #[must_use]
    pub const fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Where the configuration in force stands in the log.
    #[must_use]
    pub const fn configuration_index(&self) -> LogIndex {
        self.configuration_index
    }

    /// Whom there may be messages for: the other members, and at times nodes that are not (yet) known to be.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.iter().map(|peer| peer.id)
    }

    /// A leader's joint configuration is committed and to be left by itself: the entry that does it.
    pub(super) fn leave_if_due(&mut self) -> Option<EntryRange> {
        let committed = self.may_change().is_ok() || M::LEAVE_JOINT_EARLY;
        let due = self.leads_knowingly() && self.configuration.leaves_by_itself() && committed;
        due.then(|| self.append_configuration(&self.configuration.left()))
    }

    /// A configuration entry was appended.
    pub(super) fn adopt(&mut self, index: LogIndex, configuration: &Configuration) {
        let before =
            ConfigurationEntry { index: self.configuration_index, configuration: self.configuration };
        self.previous_configuration = Some(before);
        self.replace_configuration(index, configuration);
    }

    /// The configuration that a snapshot brought: committed, and nothing before it matters any more. If it brought none
    /// there was no change up to there, and one that this node had not known to be committed is gone with its entry.
    pub(super) fn adopt_from_snapshot(
        &mut self,
        index: LogIndex,
        configuration: Option<&Configuration>,
        committed: LogIndex,
    ) {
        let dropped = self.configuration_index > committed;
        let before = self.previous_configuration.take().filter(|_| dropped);
        let before = before.as_ref().map(|before| &before.configuration);
        match configuration.or(before).filter(|configuration| **configuration != self.configuration) {
            Some(configuration) => self.replace_configuration(index, configuration),
            None => self.configuration_index = index,
        }
    }

    /// Whether entries after `last` can be dropped: not if a committed configuration would go.
    pub(super) fn can_go_back(&self, last: LogIndex) -> bool {
        self.configuration_index <= last
            || self.previous_configuration.as_ref().is_some_and(|previous| previous.index <= last)
    }

    /// Entries after `last` were dropped.
    pub(super) fn go_back(&mut self, last: LogIndex) {
        if self.configuration_index <= last || M::KEEP_DROPPED_CONFIGURATION {
            return;
        }
        if let Some(previous) = self.previous_configuration.take() {
            self.replace_configuration(previous.index, &previous.configuration);
        }
    }

    /// Voters may lead; also one that its latest configuration removes, for as long as it does not know that this
    /// is committed: it may be the only one with the entry, and then nobody else can be elected (thesis, 4.2.2).
    pub(super) fn is_electable(&self) -> bool {
        let uncommitted = self.commit < self.configuration_index;
        let before = self.previous_configuration.as_ref().filter(|_| uncommitted);
        self.voter || before.is_some_and(|before| before.configuration.is_voter(self.config.id))
    }

    /// At every tick of a leader: those who left are forgotten, a tick after that is committed, so that they were
    /// told.
    pub(super) fn forget_who_left(&mut self) {
        if self.commit >= self.configuration_index {
            self.drop_peers(Standing::Leaving, None);
        }
    }

    /// A leader has committed something: once its configuration is, those who leave are told, and a leader that
    /// is no voter in it ends.
    pub(super) fn committed_configuration(&mut self) {
        if self.commit < self.configuration_index {
            return;
        }
        for peer in self.peers.iter_mut().filter(|peer| peer.standing == Standing::Leaving) {
            peer.commit_due = true;
        }
        if !self.voter && !M::REMOVED_LEADER_STAYS {
            self.pass_on();
            self.step_down();
        }
    }

    /// Somebody whom the configuration does not name as a voter may know a newer one: a leader that was elected,
    /// or a candidate whose log is longer. All others are strangers, removed nodes among them.
    pub(super) fn check_stranger(&self, message: &Message) -> Result<(), Ignored> {
        let own = self.log.last();
        let is_trusted = match message.body {
            Body::PreVote { last } | Body::Vote { last, .. } => {
                (last.key(), last.index) > (own.key(), own.index)
            }
            Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot { .. } => {
                message.term >= self.hard_state.term
            }
            _ => false,
        };
        if is_trusted { Ok(()) } else { Err(Ignored::UnknownSender) }
    }

    /// Whether the configuration that came with a message can be one that belongs to it.
    pub(super) fn check_configuration(
        &self,
        message: &Message,
        configuration: Option<&Configuration>,
    ) -> Result<(), Ignored> {
        let Some(configuration) = configuration else { return Ok(()) };
        let fits = match message.body {
            Body::Append { previous, entries: Some(range), .. } => range.key() > previous.key(),
            Body::Snapshot { .. } => true,
            _ => false,
        };
        if configuration.is_empty() || !fits {
            return Err(Ignored::Malformed);
        }
        if configuration.len() > NODES { Err(Ignored::TooManyMembers) } else { Ok(()) }
    }

    /// A place for the answers to a node that the configuration does not name.
    pub(super) fn welcome(&mut self, id: NodeId) -> Option<usize> {
        self.make_room();
        self.peers.push(Peer::new(id, Standing::Guest)).ok()?;
        Some(self.peers.len() - 1)
    }

    /// Makes the configuration in force the next one, if that may be.
    fn change(
        &self,
        next: &mut Configuration,
        changes: &[Change],
        leave: Leave,
    ) -> Result<(), MembershipError> {
        self.may_change()?;
        if next.is_joint() {
            return Err(MembershipError::InProgress);
        }
        next.change(changes, leave == Leave::ByItself)?;
        if next.len() > NODES {
            let error = ConfigurationError::TooManyMembers { most: NODES };
            return Err(MembershipError::Configuration(error));
        }
        for change in changes {
            if let Change::Promote(id) = change {
                self.check_caught_up(*id)?;
            }
        }
        Ok(())
    }

    fn may_change(&self) -> Result<(), MembershipError> {
        if !self.leads_knowingly() {
            return Err(MembershipError::NotLeader);
        }
        if self.transfer.is_some() {
            return Err(MembershipError::Transferring);
        }
        if self.commit < self.term_start && !M::CHANGE_TOO_EARLY {
            return Err(MembershipError::TooEarly);
        }
        if self.commit < self.configuration_index && !M::CHANGE_WHILE_CHANGING {
            return Err(MembershipError::InProgress);
        }
        Ok(())
    }

    fn check_caught_up(&self, id: NodeId) -> Result<(), MembershipError> {
        let last = self.log.last().index;
        let peer = self.slot(id).map(|slot| &self.peers[slot]);
        let behind = peer.map_or(last.0, |peer| last.0.saturating_sub(peer.matched.0));
        let caught_up = peer.is_some_and(|peer| peer.has_caught_up(self.now, self.config.election_timeout));
        if caught_up || M::PROMOTE_LAGGING {
            return Ok(());
        }
        Err(MembershipError::NotCaughtUp { id, behind })
    }

    /// Each configuration entry begins a subterm, so that it is the first of the ranges that it is in.
    fn append_configuration(&mut self, configuration: &Configuration) -> EntryRange {
        if !M::CONFIGURATION_WITHIN_SUBTERM {
            self.begin_subterm();
        }
        let range = self.own_entries(1);
        self.adopt(range.first, configuration);
        range
    }

    pub(super) fn begin_subterm(&mut self) {
        self.subterm = Subterm(self.subterm.0.saturating_add(1));
        self.subterm_start = self.log.last().index.next();
        self.forget_acknowledgement();
    }

    fn replace_configuration(&mut self, index: LogIndex, configuration: &Configuration) {
        self.configuration = *configuration;
        self.configuration_index = index;
        self.configuration_untold = true;
        self.arrange_peers();
        self.adapt_replication_set();
    }

    /// Peers and their standings as the configuration in force has them.
    pub(super) fn arrange_peers(&mut self) {
        let own = self.config.id;
        let was_voter = core::mem::replace(&mut self.voter, self.configuration.is_voter(own));
        let leads = self.role == Role::Leader;
        for peer in self.peers.iter_mut() {
            peer.standing = match self.configuration.role(peer.id) {
                Some(role) => Standing::Member(role),
                // It is to get the configuration that it is not in any more.
                None if leads && peer.replicates() => Standing::Leaving,
                None => Standing::Guest,
            };
        }
        self.drop_peers(Standing::Guest, self.leader);
        let last = self.log.last().index;
        let configuration = self.configuration;
        for id in configuration.ids().filter(|id| *id != own) {
            if self.slot(id).is_some() {
                continue;
            }
            self.make_room();
            let role = configuration.role(id).unwrap_or(super::MemberRole::Observer);
            let mut peer = Peer::new(id, Standing::Member(role));
            if leads {
                peer.begin_term(last, self.now);
            }
            // There is room for all, unless this node is none of them and needs none of them.
            let _ = self.peers.push(peer);
        }
        if self.voter && !was_voter {
            self.restart_election_timer();
        }
    }

    /// Lets go of somebody who is no member if there is no room left; at a node that is no member itself, of
    /// anybody but its leader.
    fn make_room(&mut self) {
        if !self.peers.is_full() {
            return;
        }
        let is_member = self.configuration.role(self.config.id).is_some();
        let dispensable = |peer: &Peer| {
            let stranger = matches!(peer.standing, Standing::Guest | Standing::Leaving);
            Some(peer.id) != self.leader && (stranger || !is_member)
        };
        if let Some(slot) = self.peers.iter().position(dispensable) {
            self.drop_peer(slot);
        }
    }

    #[inline(never)]
    fn drop_peers(&mut self, standing: Standing, but: Option<NodeId>) {
        let which = |peer: &Peer| peer.standing == standing && Some(peer.id) != but;
        while let Some(slot) = self.peers.iter().position(which) {
            self.drop_peer(slot);
        }
    }

    fn drop_peer(&mut self, slot: usize) {
        // Not `swap_remove`, which would bring in a memmove of 1.5 KB.
        if let Some((last, others)) = self.peers.split_last_mut()
            && let Some(place) = others.get_mut(slot)
        {
            core::mem::swap(place, last);
        }
        self.peers.pop();
    }
}
