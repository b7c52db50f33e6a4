//! The core for a site of five nodes: everything that a driver can call, but for what writes text and what is for
//! tests (`canonical`).
#![no_std]
#![no_main]

use core::hint::black_box;

use tally_core::id::{LogIndex, NodeId};
use tally_core::raft::{Configuration, Handled, Ignored, LogView, Message, Position, Raft};
use tally_core::time::Instant;

type Five = Raft<5, 16>;

/// Stands for a driver's log in flash, of which nothing is to be counted.
struct Flash;

impl LogView for Flash {
    fn position(&self, _: LogIndex) -> Option<Position> {
        black_box(None)
    }

    fn fit(&self, _: LogIndex, last: LogIndex, _: u32) -> (LogIndex, u32) {
        (last, black_box(0))
    }
}

fn handle_message(
    raft: &mut Five,
    now: Instant,
    from: NodeId,
    message: &Message,
    configuration: Option<&Configuration>,
) -> Result<Handled, Ignored> {
    raft.handle_message(now, from, message, configuration, &Flash)
}

fn poll_message(raft: &mut Five, now: Instant, to: NodeId, bulk: bool) -> Option<Message> {
    raft.poll_message(now, to, bulk, &Flash)
}

/// All whom there may be messages for, as a driver would take them.
fn peers(raft: &Five, to: &mut [u64; 5]) {
    for (to, id) in to.iter_mut().zip(raft.peers()) {
        *to = id.0;
    }
}

/// All members of each kind, as a driver would go through them.
fn members(configuration: &Configuration) -> usize {
    let voters = configuration.voters().count() + configuration.outgoing().count();
    voters + configuration.observers().count() + configuration.ids().count()
}

size::measure! {
    states: { RAFT_STATE: Five }
    functions: {
        Five::new,
        handle_message,
        Five::handle_timeout,
        Five::poll_timeout,
        Five::poll_persist,
        Five::handle_persisted,
        Five::handle_persist_failed,
        poll_message,
        Five::poll_event,
        Five::propose,
        Five::read_index,
        Five::read_confirmed,
        Five::change_membership,
        Five::leave_joint,
        Five::transfer,
        Five::successor,
        Five::resign,
        Five::forget_leader,
        Five::set_timeouts,
        Five::timeouts,
        Five::request_heartbeat,
        Five::compacted,
        Five::snapshot_lost,
        Five::status,
        Five::configuration,
        Five::configuration_index,
        Five::commit_index,
        Five::durable_index,
        Five::role,
        Five::leader,
        Five::term,
        Five::last,
        Five::snapshot,
        peers,
        members,
        Message::is_plausible,
        Configuration::new,
        Configuration::from_parts,
        Configuration::is_empty,
        Configuration::is_joint,
        Configuration::leaves_by_itself,
        Configuration::witness,
        Configuration::role,
    }
}
