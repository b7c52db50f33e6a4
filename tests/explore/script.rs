//! Scripts that bring a site into an interesting state, from which everything is explored.

use tally_core::id::NodeId;

use crate::bounds::{Bounds, Choice, Rules};
use crate::explored::Explored;
use crate::node::Packet;
use crate::state::{State, Story};

/// What happens before a search begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// The election timer of this one runs out.
    Expire(u64),
    /// The heartbeat interval of this leader is over.
    Tick(u64),
    Propose(u64),
    /// The leader is asked for the wish at this place of the site's.
    Change(u64, usize),
    Crash(u64),
    /// Everything among these arrives until nothing more happens; what others send and get is lost.
    Among(&'static [u64]),
    /// What the one has sent to the other is on its way a second time when the search begins.
    Keep(u64, u64),
}

/// Whatever a script needs.
pub(crate) const ENOUGH: Bounds = Bounds {
    expiries: 99,
    ticks: 99,
    crashes: 99,
    failures: 99,
    duplicates: 0,
    proposals: 99,
    reads: 99,
    compactions: 99,
    changes: 99,
    in_flight: 99,
    terms: 99,
};

/// Everything is said, and disks are quick.
pub(crate) const SMOOTHLY: Rules =
    Rules { heartbeats: true, quick_disks: true, quick_pre_votes: true, keeps_stale: true, harm_only: true };

/// The state after these steps, all of which must be possible.
pub(crate) fn play<C: Explored>(mut state: State<C>, steps: &[Step], story: &mut Story<'_>) -> State<C> {
    let mut kept = Vec::new();
    for step in steps {
        let id = NodeId;
        let choice = match *step {
            Step::Expire(of) => Choice::Expire(id(of)),
            Step::Tick(of) => Choice::Tick(id(of)),
            Step::Propose(of) => Choice::Propose(id(of)),
            Step::Change(of, wish) => Choice::Change(id(of), wish),
            Step::Crash(of) => Choice::Crash(id(of), 0),
            Step::Among(some) => {
                state = among(state, some, story);
                continue;
            }
            Step::Keep(from, to) => {
                let wanted = |packet: &&Packet| (packet.from, packet.to) == (id(from), id(to));
                kept.extend(state.on_their_way().map(|(packet, _)| packet).filter(wanted).cloned());
                assert!(!kept.is_empty(), "nothing is on its way from {from} to {to}");
                continue;
            }
        };
        state = state.after(choice, story).unwrap_or_else(|why| panic!("{step:?} of a script: {why:?}"));
    }
    kept.into_iter().for_each(|packet| state.put_on_its_way(packet));
    state
}

fn among<C: Explored>(mut state: State<C>, some: &[u64], story: &mut Story<'_>) -> State<C> {
    let is_among = |packet: &Packet| some.contains(&packet.from.0) && some.contains(&packet.to.0);
    loop {
        let Some((packet, hash)) = state.on_their_way().next() else { return state };
        let arrives = Choice::Deliver { packet: hash, late: false };
        let choice = if is_among(packet) { arrives } else { Choice::Drop(hash) };
        state = state.after(choice, story).unwrap_or_else(|why| panic!("a script goes wrong: {why:?}"));
    }
}
