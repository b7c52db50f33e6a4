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
    reads: u64,
    witness_writes: u64,
    witness_votes: u64,
    changes_beside_witness: u64,
}

/// A read that was asked for at a leader.
struct Asked {
    at: u64,
    term: Term,
    read: Read,
    /// How much was committed anywhere when it was asked for.
    committed: u64,
}

/// A site and what goes on in it.
struct History {
    net: Net,
    chance: Chance,
    reads: Vec<Asked>,
}

const MOST: u64 = 5;

/// `witnessed`: so many voters begin beside a witness; three without one if `None`.
fn play(seed: u64, witnessed: Option<u64>, seen: &mut Seen) {
    let chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut net = witnessed.map_or_else(|| Net::new(3, 0), Net::witnessed);
    while (net.nodes.len() as u64) < MOST {
        net.join();
    }
    let mut history = History { net, chance, reads: Vec::new() };
    for _ in 0..2_500 {
        step(&mut history, seen);
        check_reads(&mut history, seen);
    }
    let net = &mut history.net;
    net.heal();
    net.witness.down = false;
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
    seen.witness_writes += net.witness.writes;
    seen.witness_votes += u64::from(net.witness.core.record().vote.is_some());
}

/// What was committed when a read was asked for is in what it is answered from.
fn check_reads(history: &mut History, seen: &mut Seen) {
    let net = &mut history.net;
    history.reads.retain(|asked| {
        let node = net.node(asked.at);
        let leads = node.raft.role() == Role::Leader && node.raft.term() == asked.term;
        let confirmed = leads && node.raft.read_confirmed() >= asked.read.round;
        if confirmed {
            assert!(asked.read.index.0 >= asked.committed, "a stale read: {:?} at {:?}", asked.read, net);
            seen.reads += 1;
        }
        leads && !confirmed
    });
}

fn step(history: &mut History, seen: &mut Seen) {
    let History { net, chance, reads } = history;
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
        97 if chance.below(2) == 0 => net.witness.down = chance.below(3) == 0,
        97 => compact(net, id),
        98 => {
            let leads = net.raft(id).role() == Role::Leader && !net.node(id).down;
            if let Ok(read) = net.raft(id).read_index(now)
                && leads
            {
                let committed = net.committed.len() as u64;
                reads.push(Asked { at: id, term: net.raft(id).term(), read, committed });
                net.drive(id);
            }
        }
        _ => {
            reads.retain(|asked| asked.at != id);
            crash_or_restart(net, chance, id, seen);
        }
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
    let witness = net.raft(leader).configuration().witness().is_some();
    let wish = |id: NodeId, kind| match kind {
        0 => Change::Remove(id),
        1 => Change::Demote(id),
        2 | 3 => Change::Promote(id),
        4 if witness => Change::Remove(NodeId(WITNESS)),
        4 => Change::AddWitness(NodeId(WITNESS)),
        _ => Change::AddObserver(id),
    };
    let mut changes: Vec<Change> = std::vec![wish(NodeId(id), chance.below(6))];
    if other.0 != id && chance.below(2) == 0 {
        changes.push(wish(other, chance.below(6)));
    }
    if net.change(leader, &changes).is_ok() {
        seen.changes += 1;
        seen.changes_beside_witness += u64::from(witness);
    }
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

fn seeds() -> u64 {
    std::env::var("TALLY_CORE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
}

#[test]
fn whoever_crashes_while_members_change_nothing_committed_is_lost() {
    let mut seen = Seen::default();
    (0..seeds()).for_each(|seed| play(seed, None, &mut seen));
    let least = [seen.changes > 500, seen.joint_at_crash > 20, seen.went_back > 5, seen.transfers > 50];
    assert_eq!(least, [true; 4], "{seen:?}");
    assert!(seen.leaders > 600 && seen.reads > 100, "{seen:?}");
}

#[test]
fn whoever_crashes_of_two_and_a_witness_nothing_committed_is_lost() {
    let mut seen = Seen::default();
    (0..seeds()).for_each(|seed| play(seed, Some(2), &mut seen));
    let least = [seen.witness_writes > 500, seen.witness_votes > 50, seen.changes_beside_witness > 100];
    assert_eq!(least, [true; 3], "{seen:?}");
    assert!(seen.leaders > 600 && seen.reads > 100, "{seen:?}");
}

#[test]
fn whoever_crashes_of_four_and_a_witness_nothing_committed_is_lost() {
    let mut seen = Seen::default();
    (0..seeds()).for_each(|seed| play(seed, Some(4), &mut seen));
    assert!(seen.witness_writes > 300 && seen.witness_votes > 20 && seen.reads > 100, "{seen:?}");
}
