//! Other members: who wishes for whom, and how a configuration is written into the log.

use tally_core::id::NodeId;
use tally_core::raft::{Change, Configuration, ConfigurationParts, Leave, MemberRole};
use tallyd::site::{ConfigurationRecord, Part};

use crate::node::Node;
use crate::plan::{WITNESSES, size};
use crate::rng::Rng;
use crate::sim::Sim;

pub(crate) fn to_parts(configuration: &Configuration) -> ConfigurationRecord {
    let part = |id: NodeId| Part {
        id,
        voter: configuration.voters().any(|other| other == id),
        outgoing: configuration.outgoing().any(|other| other == id),
        observer: configuration.observers().any(|other| other == id),
        witness: configuration.witness() == Some(id),
    };
    let parts = configuration.ids().map(part).collect();
    ConfigurationRecord { parts, leaves_by_itself: configuration.leaves_by_itself() }
}

pub(crate) fn from_parts(parts: &ConfigurationRecord) -> Configuration {
    let ids = |of: fn(&Part) -> bool| -> Vec<NodeId> {
        parts.parts.iter().filter(|part| of(part)).map(|part| part.id).collect()
    };
    Configuration::from_parts(&ConfigurationParts {
        voters: &ids(|part| part.voter),
        outgoing: &ids(|part| part.outgoing),
        observers: &ids(|part| part.observer),
        witness: parts.parts.iter().find(|part| part.witness).map(|part| part.id),
        leaves_by_itself: parts.leaves_by_itself,
    })
    .expect("a configuration in the log is one")
}

/// Somebody asks one that leads for other members.
pub(crate) fn wish(sim: &mut Sim, nodes: &mut [Node]) {
    let leaders: Vec<usize> = (0..nodes.len()).filter(|place| nodes[*place].leads()).collect();
    if leaders.is_empty() {
        return;
    }
    let leader = &mut nodes[sim.rng.pick(&leaders)];
    let Some(incarnation) = &leader.incarnation else { return };
    let changes = changes(*incarnation.core.configuration(), sim.plan.boxes, &mut sim.rng);
    if !changes.is_empty() {
        let leave = if sim.rng.chance(800) { Leave::ByItself } else { Leave::WhenAsked };
        leader.change(sim, &changes, leave);
        leader.step(sim);
    }
}

/// What is wished for: mostly what can be granted, towards some voters rather than one.
fn changes(configuration: Configuration, boxes: u64, rng: &mut Rng) -> Vec<Change> {
    let of = |role| -> Vec<NodeId> {
        configuration.ids().filter(|id| configuration.role(*id) == Some(role)).collect()
    };
    let (voters, observers) = (of(MemberRole::Voter), of(MemberRole::Observer));
    let fresh: Vec<NodeId> = (1..=boxes).map(NodeId).filter(|id| configuration.role(*id).is_none()).collect();
    let mut changes = Vec::new();
    let few = voters.len() < 3 && rng.chance(600);
    match rng.below(10) {
        0 | 1 => changes.extend(some(&fresh, rng).into_iter().map(Change::AddObserver)),
        2..=4 => changes.extend(some(&observers, rng).into_iter().map(Change::Promote)),
        5 if !few => changes.extend(some(&voters, rng).into_iter().take(1).map(Change::Demote)),
        6 if !few => changes.extend(some(&voters, rng).into_iter().map(Change::Remove)),
        7 => changes.extend(some(&observers, rng).into_iter().take(1).map(Change::Remove)),
        8 => {
            // Several are replaced at once.
            let incoming = some(&observers, rng);
            let outgoing = some(&voters, rng);
            changes.extend(outgoing.into_iter().take(incoming.len()).map(Change::Remove));
            changes.extend(incoming.into_iter().map(Change::Promote));
        }
        _ if configuration.witness().is_none() => changes.push(Change::AddWitness(rng.pick(&WITNESSES))),
        _ => {}
    }
    let voters_change =
        changes.iter().any(|change| !matches!(change, Change::AddObserver(_) | Change::AddWitness(_)));
    let leaves = if voters_change { 800 } else { 100 };
    changes.extend(configuration.witness().filter(|_| rng.chance(leaves)).map(Change::Remove));
    changes
}

/// One to three of these, if there are any.
fn some(of: &[NodeId], rng: &mut Rng) -> Vec<NodeId> {
    let mut left = of.to_vec();
    let mut chosen = Vec::new();
    for _ in 0..rng.pick(&[1, 1, 1, 2, 3]) {
        if !left.is_empty() {
            chosen.push(left.swap_remove(size(rng.below(left.len() as u64))));
        }
    }
    chosen
}

/// What was granted, for the coverage.
pub(crate) fn count(sim: &mut Sim, before: &Configuration, changes: &[Change], is_joint: bool) {
    for change in changes {
        let what = match change {
            Change::AddObserver(_) => "observers added",
            Change::AddWitness(_) => "witnesses added",
            Change::Promote(_) => "observers promoted",
            Change::Demote(_) => "voters demoted",
            Change::Remove(id) => match before.role(*id) {
                Some(MemberRole::Witness) => "witnesses removed",
                Some(MemberRole::Voter) => "voters removed",
                _ => "observers removed",
            },
        };
        sim.coverage.count(what);
    }
    if changes.len() > 1 {
        sim.coverage.count("several members changed at once");
    }
    if is_joint {
        sim.coverage.count("joint configurations begun");
    }
}
