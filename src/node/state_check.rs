//! Boxes announce the digests of their states. A box whose state differs from a majority's goes out of service and
//! fetches the state from a box of that majority. It keeps its log: only the state was wrong.
//!
//! Out of service, a box answers no reads and no requests, applies nothing, writes and sends no snapshots, and
//! transfers leadership. It continues to keep the log and to vote: both are right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tally_core::id::{LogIndex, NodeId};
use tally_core::raft::{Body, LogView, Message};
use tracing::{error, info, warn};

use super::digests::{Judgement, Points, judge};
use super::disk::Job;
use super::snapshot_transfer::{Incoming, Taken};
use super::status::{StateCheckStatus, StateVerdict};
use super::successors::TransferReason;
use super::wire::{Frame, SnapshotPart};
use super::{Level, Node};
use crate::dropped::Reason;
use crate::site::Site;
use crate::transport::Lane;

/// Digests are told and compared so often.
const EVERY: Duration = Duration::from_secs(1);
/// Without progress for so long another box is asked for the state.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// A difference of which no majority tells who is wrong is told after so long.
const DECIDED_WITHIN: Duration = Duration::from_secs(3);
/// A difference that stays is logged so often.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Snapshots for boxes that are out of service are written no more often.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// What this box knows of the others' states.
#[derive(Debug, Default)]
pub(super) struct StateCheck {
    own: Points,
    told: BTreeMap<NodeId, Points>,
    looked: Option<Instant>,
    judgement: Judgement,
    undecided_since: Option<Instant>,
    logged: Option<Instant>,
    out: Option<OutOfService>,
    /// Boxes that want the state of an index, or of a later one.
    wanted: BTreeMap<NodeId, LogIndex>,
    saved_at: Option<Instant>,
}

/// This box's state is wrong.
#[derive(Debug)]
struct OutOfService {
    index: u64,
    with: BTreeSet<NodeId>,
    /// The state of this index is wanted, or of a later one.
    least: LogIndex,
    asked: Option<(NodeId, Instant)>,
    incoming: Option<Incoming>,
    /// All of it is here, and this box's log does not reach so far yet.
    whole: Option<Incoming>,
}

impl StateCheck {
    /// Whether this box's state is known to be wrong.
    pub(super) fn is_out(&self) -> bool {
        self.out.is_some()
    }

    /// An entry was applied.
    pub(super) fn on_applied(&mut self, index: LogIndex, digest: u64) {
        self.own.on_applied(index, digest);
    }

    /// A peer is disconnected: its digests no longer count.
    pub(super) fn on_disconnected(&mut self, peer: NodeId) {
        self.told.remove(&peer);
        self.wanted.remove(&peer);
    }

    /// A peer's digests.
    pub(super) fn on_told(&mut self, peer: NodeId, points: Points) {
        self.told.insert(peer, points);
    }

    /// The state was replaced by a leader's snapshot.
    pub(super) fn on_state_replaced(&mut self) {
        self.own.clear();
        self.out = None;
        self.judgement = Judgement::Same;
    }
}

impl Node {
    /// Tells and compares digests, and does what follows.
    pub(super) fn check_state(&mut self) {
        let now = self.moment.now;
        if self.state_check.looked.is_none_or(|at| now >= at + EVERY) {
            self.state_check.looked = Some(now);
            self.tell_digests();
            self.judge_state(now);
            self.serve_state(now);
            self.fetch_state(now);
        }
        self.take_whole_state();
    }

    /// All boxes of the site, this one included, that hold its state.
    fn holders(&self) -> BTreeSet<NodeId> {
        let configuration = self.raft.configuration();
        let witness = configuration.witness();
        let members = configuration.voters().chain(configuration.observers());
        members.filter(|id| Some(*id) != witness).collect()
    }

    fn tell_digests(&mut self) {
        // A box of an earlier release would count the frame as unreadable.
        if self.site().level() < Level::TWO {
            return;
        }
        let frame = Frame::Digests(self.state_check.own.clone());
        let me = self.shared.identity.node_id();
        for peer in self.holders().into_iter().filter(|id| *id != me && self.connected.contains(id)) {
            self.send(peer, Lane::Requests, &frame);
        }
    }

    fn judge_state(&mut self, now: Instant) {
        if self.state_check.is_out() {
            return;
        }
        let me = self.shared.identity.node_id();
        let judgement = judge(me, &self.state_check.own, &self.state_check.told, &self.holders());
        // A box that decides it may be heard a moment later.
        if matches!(judgement, Judgement::Differs { majority: false, .. }) {
            if now < *self.state_check.undecided_since.get_or_insert(now) + DECIDED_WITHIN {
                return;
            }
        } else {
            self.state_check.undecided_since = None;
        }
        let is_new =
            std::mem::discriminant(&judgement) != std::mem::discriminant(&self.state_check.judgement);
        if judgement != Judgement::Same && self.state_check.judgement == Judgement::Same {
            self.shared.metrics.digest_mismatches.raise();
        }
        let is_due = is_new || self.state_check.logged.is_none_or(|at| now >= at + LOG_EVERY);
        match &judgement {
            Judgement::Same => {
                if self.state_check.judgement != Judgement::Same {
                    info!("the states of the boxes agree again");
                }
            }
            Judgement::Differs { .. } if is_due => {
                error!("{}", self.difference(&judgement));
                self.state_check.logged = Some(now);
            }
            Judgement::Differs { .. } => {}
            Judgement::Wrong { index, with } => {
                error!("{}", self.difference(&judgement));
                self.take_out_of_service(*index, with.clone());
            }
        }
        self.state_check.judgement = judgement;
    }

    fn take_out_of_service(&mut self, index: u64, with: BTreeSet<NodeId>) {
        let applied = self.site().applied();
        // What is saved replaces what this box has on its disk, which may be wrong as well: it has to be newer.
        self.snapshots.distrust();
        let least = applied.max(self.snapshots.newest().next());
        for (to, _) in std::mem::take(&mut self.snapshots.outgoing) {
            self.disk.ask(Job::CloseSnapshot { to });
        }
        self.state_check.out =
            Some(OutOfService { index, with, least, asked: None, incoming: None, whole: None });
        self.shared.state_ok.store(false, Ordering::Relaxed);
        self.status_at = None;
        self.show_role();
    }

    /// Fetches the state while this box is out of service: from a box of the majority, and from another one if that
    /// stops answering.
    fn fetch_state(&mut self, now: Instant) {
        if self.state_check.is_out() && self.leads() && !self.is_transferring() {
            // Nobody may be able to take over: then it leads on, and nobody is answered by its state.
            let _ = self.transfer_leadership(None, TransferReason::State);
        }
        let leader = self.raft.leader();
        let connected = &self.connected;
        let Some(out) = &mut self.state_check.out else { return };
        if out.asked.is_some_and(|(_, at)| now < at + ASK_AGAIN) {
            return;
        }
        // This box's log did not come to it in time.
        out.whole = None;
        let there = |id: &NodeId| connected.contains(id);
        let before = out.asked.map(|(peer, _)| peer);
        let next = out.with.iter().copied().filter(there).find(|id| before.is_none_or(|before| *id > before));
        let asked = match (before, leader.filter(|id| there(id) && out.with.contains(id))) {
            (None, Some(leader)) => Some(leader),
            _ => next.or_else(|| out.with.iter().copied().find(there)),
        };
        let Some(peer) = asked else { return };
        out.asked = Some((peer, now));
        let index = out.least;
        info!("requesting the state of the site at entry {index} or later from {}", self.name_of(peer));
        self.send(peer, Lane::Requests, &Frame::StateWant { index });
    }

    /// Another box asks for this one's state, since its own is wrong.
    pub(super) fn on_state_want(&mut self, from: NodeId, index: LogIndex) {
        if self.state_check.is_out() {
            return self.refuse(from, Reason::Stale);
        }
        self.state_check.wanted.insert(from, index);
        self.state_check.looked = None;
    }

    /// Offers the latest snapshot to boxes that want the state; one that is too old is written anew first.
    fn serve_state(&mut self, now: Instant) {
        if self.state_check.is_out() {
            return self.state_check.wanted.clear();
        }
        let (applied, last) = (self.site().applied(), self.snapshots.last);
        let due: Vec<(NodeId, LogIndex)> = self
            .state_check
            .wanted
            .iter()
            .filter(|(_, index)| **index <= applied)
            .map(|(peer, index)| (*peer, *index))
            .collect();
        let term = self.raft.term();
        for (to, index) in due {
            if index <= last && !self.snapshots.is_busy() {
                self.state_check.wanted.remove(&to);
                let last = self.raft.last();
                self.disk
                    .ask(Job::OpenSnapshot { to, message: Message { term, body: Body::Snapshot { last } } });
            } else if self.state_check.saved_at.is_none_or(|at| now >= at + SAVE_EVERY) {
                self.state_check.saved_at = Some(now);
                self.snapshots.wanted = true;
            }
        }
    }

    /// Takes a part of the state that was asked for; `false`: it is of something else.
    pub(super) fn take_state_part(&mut self, from: NodeId, part: &SnapshotPart) -> bool {
        let now = self.moment.now;
        let Some(out) = &mut self.state_check.out else { return false };
        let is_asked = out.asked.is_some_and(|(peer, _)| peer == from);
        if !is_asked || part.head.position.index < out.least {
            return false;
        }
        match Incoming::take(&mut out.incoming, from, part) {
            Taken::Ask(offset) => {
                out.asked = Some((from, now));
                let last = part.head.position;
                self.send(from, Lane::Requests, &Frame::SnapshotWant { last, offset });
            }
            Taken::Whole => {
                out.asked = Some((from, now));
                out.whole = out.incoming.take();
            }
            Taken::Nothing => out.asked = Some((from, now)),
            Taken::Damaged => self.refuse(from, Reason::BadSnapshot),
            Taken::Unfit => self.refuse(from, Reason::PartNotAwaited),
        }
        true
    }

    /// Puts the state that came in the place of the wrong one, once this box's log reaches so far.
    fn take_whole_state(&mut self) {
        let Some(whole) = self.state_check.out.as_mut().and_then(|out| out.whole.take()) else { return };
        let position = whole.head.position;
        let has_it = self.tail.position(position.index) == Some(position);
        if !has_it || position.index > self.raft.commit_index() {
            // A leader's way to a follower that lacks the log itself. Of another box it is not taken: this log will
            // come to it.
            if position.index > self.raft.last().index && self.raft.leader() == Some(whole.from) {
                return self.install(whole);
            }
            if let Some(out) = &mut self.state_check.out {
                out.whole = Some(whole);
            }
            return;
        }
        let restored = Site::restore(&self.founding, &whole.bytes);
        self.renew_time();
        match restored {
            Ok(site) if site.applied() == position.index => self.replace_state(site, whole.from),
            Ok(_) => self.refuse(whole.from, Reason::BadSnapshot),
            Err(why) => warn!("cannot read the state that {} sent: {why}", self.name_of(whole.from)),
        }
    }

    fn replace_state(&mut self, site: Site, from: NodeId) {
        let index = site.applied();
        *self.site() = site;
        info!(
            "installed the state of entry {index} from {}: this box is in service again",
            self.name_of(from)
        );
        self.state_check.on_state_replaced();
        self.shared.state_ok.store(true, Ordering::Relaxed);
        // What this box has on its disk may be wrong: a restart must not bring it back.
        self.snapshots.wanted = true;
        self.local_proposals.retain(|at, _| *at > index);
        self.shared.clock.skipped();
        self.know_members();
        self.after_apply();
        self.status_at = None;
        self.show_role();
    }

    /// A difference in words, with what to do.
    fn difference(&self, judgement: &Judgement) -> String {
        let named = |ids: &BTreeSet<NodeId>| {
            let names: Vec<String> = ids.iter().map(|id| self.name_of(*id)).collect();
            names.join(", ")
        };
        match judgement {
            Judgement::Same => String::new(),
            Judgement::Wrong { index, with } => format!(
                "this box's state differs from that of a majority ({}) at entry {index}: it is out of \
                 service until it has theirs. Its memory or disk may be faulty; if this happens again, \
                 replace the board",
                named(with)
            ),
            Judgement::Differs { index, others, majority: true } => format!(
                "the state of {} differs from that of a majority, which includes this box, at entry {index}: \
                 that box goes out of service and replaces its state",
                named(others)
            ),
            Judgement::Differs { index, others, majority: false } => format!(
                "the states of this box and of {} differ at entry {index}, and no majority shows which is \
                 right: both keep running. Start the boxes that are down; if there are none, compare the \
                 totals of both, and replace the wrong one (`tallyd provision --extend DIR --replace`)",
                named(others)
            ),
        }
    }

    pub(super) fn state_check_status(&self) -> StateCheckStatus {
        let text = match &self.state_check.out {
            Some(out) => {
                Some(self.difference(&Judgement::Wrong { index: out.index, with: out.with.clone() }))
            }
            None => Some(self.difference(&self.state_check.judgement)).filter(|text| !text.is_empty()),
        };
        let state = match (&self.state_check.out, &self.state_check.judgement) {
            (Some(_), _) => StateVerdict::OutOfService,
            (None, Judgement::Same) => StateVerdict::Ok,
            (None, _) => StateVerdict::Differs,
        };
        let compared_with = self.state_check.told.len() as u64;
        let mismatches = self.shared.metrics.digest_mismatches.get();
        StateCheckStatus { state, text, compared_with, mismatches }
    }

    /// In builds for tests: a bit of the state is flipped when a file asks for it (see `src/site/flip.rs`).
    #[cfg(debug_assertions)]
    pub(super) fn flip_if_asked(&self) {
        use std::path::PathBuf;
        use std::sync::OnceLock;
        static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
        let file = FILE.get_or_init(|| std::env::var_os("TALLYD_TEST_FLIP").map(PathBuf::from));
        let Some(file) = file else { return };
        let Ok(text) = std::fs::read_to_string(file) else { return };
        let Some((series, bit)) = text.trim().split_once(' ') else { return };
        if let Ok(bit) = bit.parse()
            && self.site().flip_total_bit(series, bit)
        {
            warn!("a test has flipped bit {bit} of the total of {series:?}");
            let _ = std::fs::remove_file(file);
        }
    }
}
