//! What can happen in a site, how often, and what was met on the way.

use std::cell::Cell;

use tally_core::id::NodeId;

/// What can happen, and how often at most. Everything else happens as often as it can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    /// Election timers that run out.
    pub(crate) expiries: u8,
    /// Heartbeat intervals of leaders.
    pub(crate) ticks: u8,
    /// Crashes, each with an immediate restart (a node that is away is one that hears nothing).
    pub(crate) crashes: u8,
    /// Groups that the disk fails to write, whole or in part.
    pub(crate) failures: u8,
    /// Messages that arrive twice.
    pub(crate) duplicates: u8,
    pub(crate) proposals: u8,
    pub(crate) reads: u8,
    /// Compactions up to the commit index.
    pub(crate) compactions: u8,
    /// Changes of the members, of those that the site wishes for. A joint configuration is left as often as it can be.
    pub(crate) changes: u8,
    /// Messages on their way at a time; one too many, and one of them is lost.
    pub(crate) in_flight: u8,
    /// No node goes into a later term.
    pub(crate) terms: u8,
}

impl Bounds {
    /// Every bound that is not zero, by so much more.
    pub(crate) fn widened(self, more: u8) -> Bounds {
        let wider = |bound: u8| if bound == 0 { 0 } else { bound.saturating_add(more) };
        Bounds {
            expiries: wider(self.expiries),
            ticks: wider(self.ticks),
            crashes: wider(self.crashes),
            failures: wider(self.failures),
            duplicates: wider(self.duplicates),
            proposals: wider(self.proposals),
            reads: wider(self.reads),
            compactions: wider(self.compactions),
            changes: wider(self.changes),
            in_flight: wider(self.in_flight),
            terms: wider(self.terms),
        }
    }
}

/// What is explored of the rest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Heartbeats and their answers are sent; else they are all lost.
    pub(crate) heartbeats: bool,
    /// Groups are durable at once; else whenever the disk likes.
    pub(crate) quick_disks: bool,
    /// Pre-votes and their answers arrive at once, and nobody has heard a leader for long.
    pub(crate) quick_pre_votes: bool,
    /// Messages whose term is over at their receiver's disk stay on their way; else they are lost.
    pub(crate) keeps_stale: bool,
    /// Only what comes of it counts: what `members` says of configurations is not looked at.
    pub(crate) harm_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The election timer of a follower or candidate runs out.
    Expire(NodeId),
    /// A leader's heartbeat interval is over.
    Tick(NodeId),
    /// The message with this hash arrives. `late`: the receiver has not heard its leader for an election timeout.
    Deliver {
        packet: u128,
        late: bool,
    },
    /// The same, and a copy of it is still on its way.
    DeliverCopy(u128),
    Drop(u128),
    Persist(NodeId),
    /// So many records of the outstanding group are on the disk.
    Crash(NodeId, usize),
    /// The disk reports an error; so many records are there all the same.
    Fail(NodeId, usize),
    Propose(NodeId),
    Read(NodeId),
    Compact(NodeId),
    /// A leader is asked for the wish at this place of the site's.
    Change(NodeId, usize),
    /// A leader is asked to leave its joint configuration.
    Leave(NodeId),
}

/// How often something was met that a search is for.
#[derive(Debug, Default)]
pub(crate) struct Met {
    pub(crate) elected: Cell<u64>,
    /// Elected in a term that was over already.
    pub(crate) elected_late: Cell<u64>,
    pub(crate) committed: Cell<u64>,
    /// Entries that gave way to another leader's.
    pub(crate) replaced: Cell<u64>,
    pub(crate) installed: Cell<u64>,
    pub(crate) lost_by_crash: Cell<u64>,
    pub(crate) reads_confirmed: Cell<u64>,
    /// Records that the witness stored, votes among them.
    pub(crate) witness_stored: Cell<u64>,
    /// Changes of the members that a leader began.
    pub(crate) changed: Cell<u64>,
    /// Joint configurations that their leader left, asked or not.
    pub(crate) left: Cell<u64>,
    /// Elected by two halves.
    pub(crate) elected_jointly: Cell<u64>,
    /// Configurations that gave way to another leader's entries.
    pub(crate) dropped: Cell<u64>,
}

impl Met {
    pub(crate) fn one(of: &Cell<u64>) {
        of.set(of.get() + 1);
    }
}
