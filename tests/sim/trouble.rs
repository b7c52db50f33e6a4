//! What goes wrong: crashes, pauses, cuts in one direction or both, bridges, slow and failing disks.

use tally_core::id::NodeId;

use crate::node::Node;
use crate::plan::size;
use crate::sim::{Event, Sim};

/// One trouble, of whatever kind.
pub(crate) fn strike(sim: &mut Sim, nodes: &mut [Node]) {
    let victim = victim(sim, nodes);
    match sim.rng.below(16) {
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
        let others: Vec<NodeId> = sim.plan.members.iter().map(|member| member.id).collect();
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
    if node.life.is_some() && !sim.healed {
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

fn others(nodes: &[Node], victim: usize) -> Vec<NodeId> {
    nodes.iter().map(|node| node.id).filter(|id| *id != nodes[victim].id).collect()
}
