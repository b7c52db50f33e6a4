//! Histories by chance: one seed gives one. The harness checks that there is one leader a term, that leaders have
//! what is committed, and that nobody commits something else; here, that it all goes on once the trouble is over.

use super::super::harness::*;
use super::super::*;
use crate::time::Duration;
use std::vec::Vec;

struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// How often what happened that this test is about.
#[derive(Debug, Default)]
struct Seen {
    changes: u64,
    joint_at_crash: u64,
    went_back: u64,
    transfers: u64,
    leaders: u64,
}

const MOST: u64 = 5;

fn play(seed: u64, seen: &mut Seen) {
    let chance = &mut Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let net = &mut Net::new(3, 0);
    for _ in 0..2 {
        net.join();
    }
    for _ in 0..2_500 {
        step(net, chance, seen);
    }
    net.heal();
    for id in 1..=MOST {
        net.node(id).slow_disk = false;
        if net.node(id).down || net.node(id).writing.is_some() {
            net.restart(id);
        }
    }
    net.pass(40 * TIMEOUT);
    let leader = net.leader().unwrap_or_else(|| panic!("seed {seed}: nobody leads: {net:?}"));
    let range = net.propose(leader, 1).unwrap();
    net.pass(10 * TIMEOUT);
    let leader = net.leader().unwrap();
    assert!(net.raft(leader).commit_index() >= range.last, "seed {seed}: no progress: {net:?}");
    assert!(!net.raft(leader).configuration().is_joint(), "seed {seed}: it stays joint");
    seen.leaders += net.raft(leader).term().0;
}

fn step(net: &mut Net, chance: &mut Chance, seen: &mut Seen) {
    let id = 1 + chance.below(MOST);
    let now = net.now;
    match chance.below(100) {
        0..60 => deliver_one(net, chance),
        60..80 => {
            net.now += Duration(chance.below(HEARTBEAT / 2));
            let now = net.now;
            if !net.node(id).down && net.raft(id).poll_timeout() <= now {
                net.raft(id).handle_timeout(now);
                net.drive(id);
            }
        }
        80..86 => {
            if net.node(id).writing.is_some() && !net.node(id).down {
                if chance.below(20) == 0 {
                    net.fail_write(id)
                } else {
                    net.finish_write(id)
                }
                net.drive(id);
            }
        }
        86..90 => {
            let leader = net.leader().unwrap_or(id);
            let _ = net.propose(leader, 1 + chance.below(3));
            net.drive(leader);
        }
        90..93 => change(net, chance, id, seen),
        93 => {
            let leader = net.leader().unwrap_or(id);
            seen.transfers += u64::from(net.raft(leader).transfer(now, NodeId(id)).is_ok());
            net.drive(leader);
        }
        94 => net.node(id).slow_disk = chance.below(2) == 0,
        95 => {
            let (one, other) = (id, 1 + chance.below(MOST));
            net.cuts.insert((one, other));
        }
        96 => net.heal(),
        97 => compact(net, id),
        _ => crash_or_restart(net, chance, id, seen),
    }
}

fn deliver_one(net: &mut Net, chance: &mut Chance) {
    let waiting = net.wire.len() as u64;
    if waiting == 0 {
        return;
    }
    let place = usize::try_from(chance.below(waiting.min(6))).unwrap();
    let sent = if chance.below(40) == 0 { net.wire[place] } else { net.wire.remove(place).unwrap() };
    if chance.below(30) > 0 {
        let _ = net.deliver(sent);
    }
    while net.wire.len() > 60 {
        net.wire.pop_front();
    }
}

fn change(net: &mut Net, chance: &mut Chance, id: u64, seen: &mut Seen) {
    let Some(leader) = net.leader() else { return };
    let other = NodeId(1 + chance.below(MOST));
    let wish = |id: NodeId, kind| match kind {
        0 => Change::Remove(id),
        1 => Change::Demote(id),
        2 | 3 => Change::Promote(id),
        _ => Change::AddObserver(id),
    };
    let mut changes: Vec<Change> = std::vec![wish(NodeId(id), chance.below(6))];
    if other.0 != id && chance.below(3) == 0 {
        changes.push(wish(other, chance.below(6)));
    }
    seen.changes += u64::from(net.change(leader, &changes).is_ok());
    net.drive(leader);
}

fn compact(net: &mut Net, id: u64) {
    let node = net.node(id);
    let index = node.raft.commit_index().min(node.raft.durable_index());
    // While a group is on its way the plain disk here cannot tell what it will hold.
    if node.writing.is_some() || index <= node.log.base.index || node.down {
        return;
    }
    let position = node.log.position(index).unwrap();
    if node.raft.compacted(position) {
        node.log.compact(position);
        node.disk.compact(position);
    }
}

fn crash_or_restart(net: &mut Net, chance: &mut Chance, id: u64, seen: &mut Seen) {
    if net.node(id).down {
        net.restart(id);
        net.drive(id);
        return;
    }
    let joint = net.raft(id).configuration().is_joint();
    let before = net.raft(id).configuration_index();
    seen.joint_at_crash += u64::from(joint);
    net.restart(id);
    seen.went_back += u64::from(net.raft(id).configuration_index() < before);
    net.node(id).down = chance.below(3) > 0;
    net.drive(id);
}

#[test]
fn whoever_crashes_while_members_change_nothing_committed_is_lost() {
    let mut seen = Seen::default();
    let seeds = std::env::var("TALLY_CORE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    for seed in 0..seeds {
        play(seed, &mut seen);
    }
    let least = [seen.changes > 500, seen.joint_at_crash > 20, seen.went_back > 5, seen.transfers > 50];
    assert_eq!(least, [true; 4], "{seen:?}");
    assert!(seen.leaders > 600, "{seen:?}");
}
