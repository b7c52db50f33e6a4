//! A node's state without absolute times and without names, for exploring all states of a small site: two
//! nodes that feed a hasher alike behave alike from here on.
//!
//! It is exact for a driver that takes the expiry of a timer as its own choice, whenever it likes: how long a
//! timer still runs, and what its jitter will be, is left out. Ages of what a leader remembers are cut off where
//! they cease to matter. What no role of the present reads, and the next role begins with anew, is left out too.
//! The order in which a node lists its peers is left out as well: it decides only between those who have the same, as when
//! a leader that ends passes on, so nodes must not be taken for each other where that can happen.
//! Every structure is taken apart in full, so that a new field does not compile until it is decided on.

use core::hash::{Hash, Hasher};

use super::configuration::{Configuration, ConfigurationEntry};
use super::ledger::Ledger;
use super::log::{Log, TermRun};
use super::message::HardState;
use super::peer::{Attempt, Peer, PeerState, PreVoteReply, Round, Standing};
use super::persist::{Gate, InFlight};
use super::read::Rounds;
use super::transfer::Transfer;
use super::{Mutation, Raft, Role};
use crate::id::NodeId;
use crate::time::{Duration, Instant};

/// Under which name a node goes, and what time it is.
struct View<'a> {
    name: &'a dyn Fn(NodeId) -> u64,
    now: Instant,
    election_timeout: Duration,
    heartbeat_interval: Duration,
}

impl View<'_> {
    fn named(&self, id: Option<NodeId>) -> Option<u64> {
        id.map(|id| (self.name)(id))
    }

    fn age(&self, at: Instant, most: Duration) -> u64 {
        self.now.since(at).0.min(most.0)
    }
}

impl<const NODES: usize, const RUNS: usize, M: Mutation> Raft<NODES, RUNS, M> {
    /// Feeds `hasher` with everything that decides what this node does from now on. Nodes are called by `name`, which
    /// must tell them apart; under another naming of the nodes the same site looks alike.
    pub fn canonical(&self, now: Instant, name: &dyn Fn(NodeId) -> u64, hasher: &mut impl Hasher) {
        let Raft {
            config,
            configuration,
            configuration_index,
            previous_configuration,
            configuration_untold,
            voter,
            jitter: _,
            timers: _,
            now: own_now,
            role,
            hard_state,
            leader,
            leader_heard_at,
            log,
            gate,
            commit,
            matched,
            appended_due,
            appended_sent,
            rejection,
            term_start,
            subterm,
            subterm_start,
            swapped,
            swap_wanted,
            witness_acknowledged,
            tail,
            rounds,
            transfer,
            transfer_failed,
            by_transfer,
            told_leading,
            told_leader,
            peers,
            mutation: _,
        } = self;
        let view = View {
            name,
            now: now.max(*own_now),
            election_timeout: config.election_timeout,
            heartbeat_interval: config.heartbeat_interval,
        };
        let leads = *role == Role::Leader;
        (*role as u8, *voter).hash(hasher);
        feed_hard_state(*hard_state, &view, hasher);
        (view.named(*leader), commit, configuration_index, configuration_untold).hash(hasher);
        feed_configuration(configuration, &view, hasher);
        feed_previous(previous_configuration.as_ref(), &view, hasher);
        let hears = leader_heard_at.is_some_and(|at| view.now.since(at) < view.election_timeout);
        (leader.is_some() && hears).hash(hasher);
        feed_log(log, hasher);
        feed_gate(gate, &view, hasher);
        // Begun anew by whoever follows a leader that it did not follow before.
        (leader.is_some() && !leads).then_some((matched, appended_sent)).hash(hasher);
        (appended_due, rejection).hash(hasher);
        leads.then_some((term_start, subterm, subterm_start)).hash(hasher);
        let wanted = swap_wanted.map(|wanted| view.named(wanted));
        leads.then_some((view.named(*swapped), wanted, witness_acknowledged)).hash(hasher);
        if leads {
            feed_ledger(tail, hasher);
        }
        feed_rounds(rounds, leads, hasher);
        transfer.map(|Transfer { to, until }| (name(to), until.since(view.now))).hash(hasher);
        (view.named(*transfer_failed), by_transfer).hash(hasher);
        (told_leading, view.named(told_leader.0), told_leader.1).hash(hasher);
        // In the order of their names: their places in the list mean nothing.
        let mut next = peers.iter().map(|peer| name(peer.id)).min();
        while let Some(called) = next {
            peers
                .iter()
                .filter(|peer| name(peer.id) == called)
                .for_each(|p| feed_peer(p, *role, &view, hasher));
            next = peers.iter().map(|peer| name(peer.id)).filter(|other| *other > called).min();
        }
    }
}

fn feed_hard_state(HardState { term, vote }: HardState, view: &View<'_>, hasher: &mut impl Hasher) {
    (term, view.named(vote)).hash(hasher);
}

fn feed_configuration(configuration: &Configuration, view: &View<'_>, hasher: &mut impl Hasher) {
    let is = |id: NodeId, mut of: &mut dyn Iterator<Item = NodeId>| (&mut of).any(|other| other == id);
    let mut next = configuration.ids().map(|id| ((view.name)(id), id)).min();
    while let Some((called, id)) = next {
        let incoming = is(id, &mut configuration.voters());
        let outgoing = is(id, &mut configuration.outgoing());
        let observes = is(id, &mut configuration.observers());
        (called, incoming, outgoing, observes, configuration.witness() == Some(id)).hash(hasher);
        next = configuration.ids().map(|id| ((view.name)(id), id)).filter(|other| other.0 > called).min();
    }
    configuration.leaves_by_itself().hash(hasher);
}

fn feed_previous(entry: Option<&ConfigurationEntry>, view: &View<'_>, hasher: &mut impl Hasher) {
    entry.is_some().hash(hasher);
    if let Some(ConfigurationEntry { index, configuration }) = entry {
        index.hash(hasher);
        feed_configuration(configuration, view, hasher);
    }
}

fn feed_log<const RUNS: usize>(log: &Log<RUNS>, hasher: &mut impl Hasher) {
    let Log { base, last, runs } = log;
    (base, last, runs.len()).hash(hasher);
    for TermRun { term, subterm, first } in runs {
        (term, subterm, first).hash(hasher);
    }
}

fn feed_gate(gate: &Gate, view: &View<'_>, hasher: &mut impl Hasher) {
    // The driver gives back the ticket of the one group that is outstanding: its number means nothing.
    let Gate { hard_state, stable, disk_end, reset, in_flight, tickets: _, failed } = gate;
    feed_hard_state(*hard_state, view, hasher);
    (stable, disk_end, reset, failed, in_flight.is_some()).hash(hasher);
    if let Some(InFlight { ticket: _, hard_state, reset, end, covers }) = in_flight {
        hard_state.is_some().hash(hasher);
        hard_state.iter().for_each(|hard_state| feed_hard_state(*hard_state, view, hasher));
        (reset, end, covers).hash(hasher);
    }
}

fn feed_ledger(Ledger { parts, bytes }: &Ledger, hasher: &mut impl Hasher) {
    (bytes, parts.len()).hash(hasher);
    parts.iter().for_each(|part| part.hash(hasher));
}

fn feed_rounds(rounds: &Rounds, leads: bool, hasher: &mut impl Hasher) {
    let Rounds { current, has_left, wanted, confirmed } = rounds;
    (wanted, confirmed).hash(hasher);
    leads.then_some((current, has_left)).hash(hasher);
}

fn feed_peer(peer: &Peer, role: Role, view: &View<'_>, hasher: &mut impl Hasher) {
    let Peer {
        id,
        standing,
        vote_answer_due,
        pre_vote_answer,
        heartbeat_answer,
        request_due,
        answered,
        granted,
        timeout_now_due,
        state: _,
        matched: _,
        next: _,
        inflight: _,
        attempt: _,
        heard_at: _,
        progress_at: _,
        round: _,
        heartbeat_due: _,
        commit_due: _,
        commit_sent: _,
        catching: _,
    } = peer;
    let stands = match standing {
        Standing::Member(role) => *role as u8,
        Standing::Leaving => 100,
        Standing::Guest => 101,
    };
    ((view.name)(*id), stands, vote_answer_due, heartbeat_answer, timeout_now_due).hash(hasher);
    pre_vote_answer.map(|PreVoteReply { term, granted }| (term, granted)).hash(hasher);
    match role {
        Role::Follower => {}
        Role::PreCandidate | Role::Candidate => (request_due, answered, granted).hash(hasher),
        Role::Leader => feed_led(peer, view, hasher),
    }
}

/// What a leader knows of a peer.
fn feed_led(peer: &Peer, view: &View<'_>, hasher: &mut impl Hasher) {
    let timeout = view.election_timeout;
    (peer.matched, peer.next, peer.round, peer.heartbeat_due, peer.commit_due, peer.commit_sent).hash(hasher);
    view.age(peer.heard_at, timeout).hash(hasher);
    let Round { began, end, was_short } = peer.catching;
    (view.age(began, timeout), end.max(peer.matched), was_short).hash(hasher);
    let Attempt { is_due, times, at } = peer.attempt;
    let sent = |most: Duration| (is_due, if is_due { 0 } else { view.age(at, most) });
    match peer.state {
        // Of a probe it is asked only whether it is the first one.
        PeerState::Probe => (0, sent(view.heartbeat_interval), times.min(1)).hash(hasher),
        PeerState::Replicate => {
            let waits = peer.awaits_answer().then(|| view.age(peer.progress_at, timeout));
            let unheard = (times > 0).then(|| sent(view.heartbeat_interval));
            (1, waits, unheard).hash(hasher);
            feed_ledger(&peer.inflight, hasher);
        }
        PeerState::Snapshot(last) => {
            let most = Duration(timeout.0.saturating_mul(1 << super::snapshot::RETRY_TIMEOUTS_LOG2_MAX));
            (2, last, sent(most), times.min(RETRIES_THAT_COUNT)).hash(hasher);
        }
    }
}

/// After so many times a snapshot is offered no more rarely than before.
const RETRIES_THAT_COUNT: u32 = 8;
