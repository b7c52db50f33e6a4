//! What goes wrong: crashes, pauses, cuts in one direction or both, partial partitions, disks that are slow, fail or
//! hang, clocks; and what an operator does at the worst moment.

use tally_core::id::NodeId;

use crate::node::Node;
use crate::plan::{WITNESSES, size};
use crate::sim::{Event, Sim};
use crate::witness::WitnessBox;

/// One trouble, of whatever kind.
pub(crate) fn strike(sim: &mut Sim, nodes: &mut [Node], witnesses: &mut [WitnessBox]) {
    let victim = victim(sim, nodes);
    match sim.rng.below(28) {
        0..=2 => crash(sim, nodes, victim),
        3 => {
            sim.coverage.count("crashes of all boxes");
            (0..nodes.len()).for_each(|node| crash(sim, nodes, node));
        }
        4 | 5 => {
            sim.coverage.count("pauses");
            nodes[victim].paused_until = sim.now + sim.rng.between(10_000, 400_000);
        }
        6 | 7 => cut_off(sim, nodes, victim),
        8 => cut_one_way(sim, nodes, victim),
        9 => bridge(sim, nodes, victim),
        10 => {
            sim.coverage.count("disks slowed");
            nodes[victim].disk.slowness = sim.rng.between(10, 200);
            recover_later(sim, &nodes[victim]);
        }
        11 => {
            nodes[victim].disk.fails = true;
            recover_later(sim, &nodes[victim]);
        }
        12 => {
            sim.coverage.count("disks that hung");
            nodes[victim].disk.hangs_until = sim.now + sim.rng.between(20_000, 800_000);
        }
        13 => star(sim, nodes, victim),
        14 => constrain_election(sim, nodes),
        15 => chain(sim, nodes),
        16 => {
            sim.coverage.count("clocks set forward");
            nodes[victim].wall_ahead = sim.rng.below(2_000_000);
        }
        17 | 18 => {
            let to = NodeId(sim.rng.between(1, sim.plan.boxes));
            nodes[victim].transfer(sim, to);
            nodes[victim].step(sim);
        }
        19 if nodes[victim].leads() => {
            nodes[victim].resign(sim);
            nodes[victim].step(sim);
        }
        20..=22 => ail_witness(sim, witnesses),
        _ => sim.network.mend(),
    }
}

/// A new leader may crash within milliseconds, and may not even be heard until then: what it left on its
/// own disk, others have to judge later.
pub(crate) fn shorten_reign(sim: &mut Sim, leader: NodeId) {
    if sim.healed || !sim.rng.chance(sim.plan.short_reigns_permille) {
        return;
    }
    sim.coverage.count("short reigns");
    let mut span = sim.rng.below(2 * (sim.plan.delay_max + sim.plan.sync_max));
    if sim.rng.chance(500) {
        sim.coverage.count("leaders that nobody heard");
        let others: Vec<NodeId> = (1..=sim.plan.boxes).map(NodeId).chain(WITNESSES).collect();
        others.into_iter().for_each(|other| sim.network.cut(leader, other));
        span += 2 * sim.plan.sync_max;
    }
    sim.after(span, Event::Crash { node: leader });
}

/// Whoever leads, half of the time.
fn victim(sim: &mut Sim, nodes: &[Node]) -> usize {
    let leader = nodes.iter().position(Node::leads).filter(|_| sim.rng.chance(500));
    leader.unwrap_or_else(|| size(sim.rng.below(nodes.len() as u64)))
}

/// Power goes at one box, and comes back after a while.
pub(crate) fn crash(sim: &mut Sim, nodes: &mut [Node], victim: usize) {
    let node = &mut nodes[victim];
    sim.network.mend_from(node.id);
    if node.incarnation.is_some() && !sim.healed {
        node.crash(sim);
        let away = sim.rng.pick(&[5_000, 50_000, 400_000]);
        let away = sim.rng.between(1_000, away);
        sim.after(away, Event::Restart { node: node.id });
    }
}

fn recover_later(sim: &mut Sim, node: &Node) {
    let span = sim.rng.between(20_000, 500_000);
    sim.after(span, Event::DiskRecovers { node: node.id });
}

fn cut_off(sim: &mut Sim, nodes: &[Node], victim: usize) {
    sim.coverage.count("boxes cut off");
    for other in others(nodes, victim) {
        sim.network.cut(nodes[victim].id, other);
        sim.network.cut(other, nodes[victim].id);
    }
}

/// It hears nobody, or nobody hears it.
fn cut_one_way(sim: &mut Sim, nodes: &[Node], victim: usize) {
    sim.coverage.count("one-way cuts");
    let deaf = sim.rng.chance(500);
    for other in others(nodes, victim) {
        if deaf {
            sim.network.cut(other, nodes[victim].id);
        } else {
            sim.network.cut(nodes[victim].id, other);
        }
    }
}

/// Two halves that only the victim reaches.
fn bridge(sim: &mut Sim, nodes: &[Node], victim: usize) {
    let others = others(nodes, victim);
    if others.len() < 2 {
        return;
    }
    sim.coverage.count("bridges");
    let (left, right) = others.split_at(others.len() / 2);
    for a in left {
        for b in right {
            sim.network.cut(*a, *b);
            sim.network.cut(*b, *a);
        }
    }
}

/// Nobody reaches anybody but the victim: if another one leads, it has lost its quorum and is still heard.
fn star(sim: &mut Sim, nodes: &[Node], victim: usize) {
    sim.coverage.count("stars around one box");
    let others = others(nodes, victim);
    for a in &others {
        for b in others.iter().filter(|b| a != *b) {
            sim.network.cut(*a, *b);
        }
    }
}

/// Whoever leads is cut off, and of the others only one reaches a majority: the one whose log ends first.
fn constrain_election(sim: &mut Sim, nodes: &[Node]) {
    let Some(leader) = nodes.iter().position(Node::leads) else { return };
    let end = |place: &usize| nodes[*place].incarnation.as_ref().map(|incarnation| incarnation.core.last());
    let rest = (0..nodes.len()).filter(|place| *place != leader && end(place).is_some());
    let Some(last) = rest.min_by_key(end) else { return };
    sim.coverage.count("constrained elections");
    star(sim, nodes, last);
    cut_off(sim, nodes, leader);
}

/// Each reaches only its neighbours.
fn chain(sim: &mut Sim, nodes: &[Node]) {
    sim.coverage.count("chains");
    let turn = size(sim.rng.below(nodes.len() as u64));
    let ring: Vec<NodeId> = (0..nodes.len()).map(|place| nodes[(place + turn) % nodes.len()].id).collect();
    for (place, a) in ring.iter().enumerate() {
        for b in ring.iter().skip(place + 2) {
            sim.network.cut(*a, *b);
            sim.network.cut(*b, *a);
        }
    }
}

pub(crate) fn crash_witness(sim: &mut Sim, witness: &mut WitnessBox) {
    if !sim.healed {
        witness.crash(sim);
        let away = sim.rng.between(1_000, 300_000);
        sim.after(away, Event::Restart { node: witness.id });
    }
}

fn ail_witness(sim: &mut Sim, witnesses: &mut [WitnessBox]) {
    let place = size(sim.rng.below(witnesses.len() as u64));
    let witness = &mut witnesses[place];
    match sim.rng.below(4) {
        0 | 1 => crash_witness(sim, witness),
        2 => witness.paused_until = sim.now + sim.rng.between(10_000, 400_000),
        _ => {
            witness.fails = true;
            let span = sim.rng.between(20_000, 500_000);
            sim.after(span, Event::DiskRecovers { node: witness.id });
        }
    }
}

/// All that the victim may talk with, witnesses too.
fn others(nodes: &[Node], victim: usize) -> Vec<NodeId> {
    let boxes = nodes.iter().map(|node| node.id).filter(|id| *id != nodes[victim].id);
    boxes.chain(WITNESSES).collect()
}
