//! The faults that are injected into boxes, disks, links and clocks.

use std::io::ErrorKind;

use tally_core::id::NodeId;

use crate::boxes::SimBox;
use crate::events::Event;
use crate::plan::{SECOND, size};
use crate::world::World;

/// How far a clock is ahead or behind at most, in seconds.
pub(crate) const AHEAD_MAX_S: i64 = 30_000_000;

/// Injects one fault, of a random kind.
pub(crate) fn strike(world: &mut World) {
    let victim = victim(world);
    let at = world.boxes[victim].id;
    match world.rng.below(22) {
        0 | 1 => world.crash(at),
        2 => {
            // In the middle of what its disk does next.
            let operations = world.rng.below(12) as u32;
            world.boxes[victim].plan_crash(operations);
        }
        3 => {
            world.coverage.count("power lost at all boxes");
            (0..world.boxes.len()).for_each(|place| world.crash(world.boxes[place].id));
        }
        4..=6 => world.stop(at),
        7 => {
            world.coverage.count("boxes paused");
            let span = world.rng.between(10_000, 3 * SECOND);
            world.boxes[victim].paused_until = world.now + span;
        }
        8 | 9 => cut_off(world, at),
        10 => {
            world.coverage.count("one-way cuts");
            let deaf = world.rng.chance(500);
            for other in others(world, at) {
                if deaf { world.network.cut(other, at) } else { world.network.cut(at, other) }
            }
        }
        11 => world.break_cut(),
        12 => {
            world.coverage.count("disks that failed");
            let kind = world.rng.pick(&[ErrorKind::Other, ErrorKind::StorageFull]);
            world.boxes[victim].fs.break_down(Some(kind));
            recover_later(world, at);
        }
        13 => {
            world.coverage.count("disks that filled up");
            let room = size(world.rng.below(60_000));
            world.boxes[victim].fs.fill_up(room);
            recover_later(world, at);
        }
        14 => {
            world.coverage.count("disks slowed");
            world.boxes[victim].slowness = world.rng.between(5, 100);
            recover_later(world, at);
        }
        15 => {
            world.coverage.count("disks that hung");
            world.boxes[victim].hangs_until = world.now + world.rng.between(100_000, 5 * SECOND);
        }
        16 => {
            world.coverage.count("connections congested");
            let peers: Vec<NodeId> = others(world, at);
            let is_congested = world.rng.chance(600);
            if let Some(incarnation) = &world.boxes[victim].incarnation {
                peers.into_iter().for_each(|peer| incarnation.outlet.congest(peer, is_congested));
            }
        }
        17 => ail_clock(world, victim),
        _ => world.mend(),
    }
}

/// The box that a fault hits: the leader, half of the time.
fn victim(world: &mut World) -> usize {
    let leader = world.boxes.iter().position(SimBox::leads).filter(|_| world.rng.chance(500));
    leader.unwrap_or_else(|| size(world.rng.below(world.boxes.len() as u64)))
}

fn others(world: &World, at: NodeId) -> Vec<NodeId> {
    world.boxes.iter().map(|one| one.id).filter(|id| *id != at).collect()
}

fn cut_off(world: &mut World, at: NodeId) {
    world.coverage.count("boxes cut off");
    for other in others(world, at) {
        world.network.cut(at, other);
        world.network.cut(other, at);
    }
}

fn recover_later(world: &mut World, at: NodeId) {
    let span = world.rng.between(100_000, 4 * SECOND);
    world.after(span, Event::DiskRecovers { at });
}

/// Makes a clock wrong by a little or by years, steps it, or ends its synchronisation.
fn ail_clock(world: &mut World, victim: usize) {
    if !world.plan.has_clocks {
        return;
    }
    world.coverage.count("clocks set wrong");
    let seconds = world.rng.pick(&[0, 1, 20, 4_000, AHEAD_MAX_S]);
    let way = world.rng.pick(&[-1, 1]);
    let one = &mut world.boxes[victim];
    one.wall_ahead = way * seconds * 1_000_000;
    one.is_synced = seconds <= 20 && world.rng.chance(700);
}
