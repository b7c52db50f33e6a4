//! What a node starts from: its configuration, the members, what was durable.

use core::fmt;
use core::marker::PhantomData;

use super::configuration::{ConfigurationEntry, ConfigurationError};
use super::ledger::Ledger;
use super::log::Log;
use super::message::{HardState, Position};
use super::peer::Peers;
use super::persist::Gate;
use super::read::Rounds;
use super::timer::{Jitter, Timers};
use super::{Mutation, Raft, Role};
use crate::id::{LogIndex, NodeId, Subterm};
use crate::time::{Duration, Instant};

/// How a node behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node.
    pub id: NodeId,
    /// Without a leader for this long, up to twice as long (by chance), a node campaigns. At least
    /// twice `heartbeat_interval`.
    pub election_timeout: Duration,
    /// A leader shows itself this often.
    pub heartbeat_interval: Duration,
    /// Decides the chances; another one on each node.
    pub seed: u64,
    /// A single append carries at most so many bytes of payload (or one entry).
    pub append_bytes_max: u32,
    /// When so many bytes are on their way to a follower, no more are sent. At most
    /// [`INFLIGHT_MESSAGES_MAX`](super::INFLIGHT_MESSAGES_MAX) messages are in any case.
    pub inflight_bytes_max: u32,
    /// When a leader has so many bytes of proposals uncommitted, it takes no more.
    pub uncommitted_bytes_max: u64,
}

/// What was durable before the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// Term and vote.
    pub hard_state: HardState,
    /// What the latest snapshot covers; [`Position::ZERO`] without one.
    pub snapshot: Position,
    /// The end of the log; equal to `snapshot` if there is nothing after it.
    pub last: Position,
    /// The latest configuration of the log; that of the snapshot, or the one the site began with, if there is
    /// none in the log; [`Configuration::EMPTY`](super::Configuration::EMPTY) if this node does not belong to a group yet.
    pub configuration: ConfigurationEntry,
    /// The one before it, if its entry can still be dropped: needed unless `configuration` is that of the snapshot
    /// or the first one.
    pub previous_configuration: Option<ConfigurationEntry>,
}

/// Why a node cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupError {
    /// The members are no configuration, or too many for this core.
    Configuration(ConfigurationError),
    /// The election timeout is less than two heartbeat intervals, or the interval is zero.
    Timeouts,
    /// The durable log ends before the snapshot does, or in a later term than the hard state's.
    Inconsistent,
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetupError::Configuration(error) => error.fmt(f),
            SetupError::Timeouts => f.write_str(
                "the election timeout must be twice the heartbeat interval or more, and that more than zero",
            ),
            SetupError::Inconsistent => f.write_str(
                "the durable log does not fit its snapshot or the durable term: it is not this core's",
            ),
        }
    }
}

impl core::error::Error for SetupError {}

impl<const NODES: usize, const RUNS: usize, M: Mutation> Raft<NODES, RUNS, M> {
    /// A node that was started, or started again. The only voter of a site campaigns at once.
    ///
    /// # Errors
    /// What of the configuration or of what is durable cannot be.
    pub fn new(config: Config, durable: Durable, now: Instant) -> Result<Self, SetupError> {
        const {
            assert!(
                NODES > 0 && NODES <= super::CONFIGURATION_MEMBERS_MAX,
                "more nodes than a configuration can have"
            )
        }
        check(&config, &durable)?;
        if durable.configuration.configuration.len() > NODES {
            return Err(SetupError::Configuration(ConfigurationError::TooManyMembers { most: NODES }));
        }
        let vote = durable.hard_state.vote.filter(|_| !M::FORGET_VOTE_AT_START);
        let mut raft = Raft {
            config,
            configuration: durable.configuration.configuration,
            configuration_index: durable.configuration.index,
            previous_configuration: durable.previous_configuration,
            configuration_untold: false,
            voter: false,
            jitter: Jitter::new(config.seed ^ config.id.0.rotate_left(32)),
            timers: Timers { election: now, tick: now },
            now,
            role: Role::Follower,
            hard_state: HardState { vote, ..durable.hard_state },
            leader: None,
            leader_heard_at: None,
            log: Log::new(durable.snapshot, durable.last),
            gate: Gate::new(durable.hard_state, durable.last.index),
            commit: durable.snapshot.index,
            matched: durable.snapshot.index,
            appended_due: false,
            appended_sent: LogIndex::ZERO,
            rejection: None,
            term_start: LogIndex::ZERO,
            subterm: Subterm(0),
            subterm_start: LogIndex::ZERO,
            swapped: None,
            swap_wanted: None,
            witness_acknowledged: false,
            tail: Ledger::default(),
            rounds: Rounds::default(),
            transfer: None,
            transfer_failed: None,
            by_transfer: false,
            told_leading: None,
            told_leader: (None, durable.hard_state.term),
            peers: Peers::default(),
            mutation: PhantomData,
        };
        raft.arrange_peers();
        if raft.configuration.is_only_voter(config.id) {
            raft.campaign();
        } else {
            raft.restart_election_timer();
        }
        Ok(raft)
    }

    /// Another election timeout and heartbeat interval from now on, as round trips and the disk are. Safety does not
    /// depend on it; nodes of one site should agree, so that nobody campaigns against a leader that shows itself less
    /// often. Refused like at the start; then nothing is changed. A node that waits for a leader waits so much longer if
    /// the timeout became longer, and is as it was if it became shorter, until it hears one.
    ///
    /// # Errors
    /// Which bound the timeouts break; those in force stay.
    pub fn set_timeouts(
        &mut self,
        now: Instant,
        election_timeout: Duration,
        heartbeat_interval: Duration,
    ) -> Result<(), SetupError> {
        check_timeouts(election_timeout, heartbeat_interval)?;
        self.clock(now);
        let before = self.config.election_timeout;
        self.timers.election += election_timeout - before;
        self.timers.tick = self.timers.tick.min(self.now + heartbeat_interval);
        if election_timeout < before {
            // A shorter timeout counts from the next answers on: nobody was asked to answer so often before.
            for peer in self.peers.iter_mut() {
                peer.heard_at = self.now;
            }
        }
        self.config.election_timeout = election_timeout;
        self.config.heartbeat_interval = heartbeat_interval;
        Ok(())
    }

    /// The election timeout and the heartbeat interval in force.
    #[must_use]
    pub const fn timeouts(&self) -> (Duration, Duration) {
        (self.config.election_timeout, self.config.heartbeat_interval)
    }
}

fn check_timeouts(election_timeout: Duration, heartbeat_interval: Duration) -> Result<(), SetupError> {
    let fits = heartbeat_interval.0 > 0 && election_timeout >= heartbeat_interval + heartbeat_interval;
    if fits { Ok(()) } else { Err(SetupError::Timeouts) }
}

fn check(config: &Config, durable: &Durable) -> Result<(), SetupError> {
    check_timeouts(config.election_timeout, config.heartbeat_interval)?;
    let Durable { hard_state, snapshot, last, .. } = durable;
    let stands = durable.configuration.index;
    let comes_after = durable.previous_configuration.is_none_or(|previous| previous.index < stands);
    if stands > last.index || !comes_after {
        return Err(SetupError::Inconsistent);
    }
    let ends_late_enough =
        if last.index == snapshot.index { last == snapshot } else { last.index > snapshot.index };
    if !ends_late_enough || last.key() < snapshot.key() || last.term > hard_state.term {
        return Err(SetupError::Inconsistent);
    }
    Ok(())
}
