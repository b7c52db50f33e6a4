//! What the leader's status says that the site tolerates is put to the test: so many members fail, and the others go on
//! committing.

use tally_core::id::NodeId;
use tallyd::node::NodeRole;
use tallyd::site::{Applied, entry};

use crate::checks::replicas;
use crate::clients::propose;
use crate::ending::PATIENCE;
use crate::events::Event;
use crate::plan::{Micros, SECOND, size};
use crate::witnesses::{WitnessEvent, is_witness};
use crate::world::World;

/// Those who are left have elected a leader and committed something within so long.
const SOON: Micros = 60 * SECOND;
/// An answer is waited for so long.
const ANSWER: Micros = 2 * SECOND;

impl World {
    /// After the end. Of sites without a witness only some are tried: it takes its time.
    pub(crate) fn put_tolerance_to_the_test(&mut self) {
        let voters = self.voters();
        let has_witness = voters.iter().any(|id| is_witness(*id));
        if !self.rng.chance(if has_witness { 400 } else { 40 }) {
            return;
        }
        let Some((leader, failures)) = self.tolerance().filter(|(_, failures)| *failures > 0) else { return };
        let victims = self.pick_victims(leader, voters, failures);
        self.fail(&victims);
        self.coverage.add("failures borne as the status said", victims.len() as u64);
        self.commit_something(&victims);
        let left = failures.saturating_sub(victims.len() as u64);
        self.await_tolerance(|told| told == left, &format!("{left} after {victims:?} failed"));
        // The first moment at which it bears one again: what was counted meanwhile is at those who were left.
        self.return_all(&victims);
        let leader = self.await_tolerance(|told| told > 0, "one more once all are back");
        self.coverage.count("leaders that failed as soon as the status bore it");
        self.fail(&[leader]);
        self.commit_something(&[leader]);
        self.return_all(&[leader]);
        self.come_to_rest();
        self.check_again();
    }

    /// Nothing is lost that the site had before.
    fn check_again(&self) {
        let members = self.members();
        let running: Vec<_> = members.iter().filter_map(|one| one.incarnation.as_ref()).collect();
        running.iter().for_each(|other| replicas::show_the_same(running[0], other));
        let checks = &self.checks;
        running[0].handle.site(|site| checks.conservation.holds(site, checks.founded, &checks.refused));
    }

    /// Once nothing is wrong the leader says that the site bears as many failures as its members can, if not more.
    pub(crate) fn tells_tolerance(&self) -> bool {
        // A majority is to be left.
        let can_fail = self.voters().len().saturating_sub(1) / 2;
        self.tolerance().is_some_and(|(_, failures)| failures >= can_fail as u64)
    }

    /// The voters in force, the witness among them, as the foremost box has them.
    fn voters(&self) -> Vec<NodeId> {
        let Some(foremost) = self.foremost() else { return Vec::new() };
        foremost.node.configuration().1.voters().collect()
    }

    /// A leader, and what it says that the site tolerates.
    fn tolerance(&self) -> Option<(NodeId, u64)> {
        let leaders = self.boxes.iter().filter_map(|one| {
            let incarnation = one.incarnation.as_ref()?;
            let role = *incarnation.handle.role().borrow();
            let status = role.leads.then(|| incarnation.handle.status())?;
            // It is written down now and then.
            let leads = (status.role, status.term) == (NodeRole::Leader, role.term);
            leads.then_some((role.term, one.id, status.tolerates.failures))
        });
        leaders.max().map(|(_, leader, failures)| (leader, failures))
    }

    fn pick_victims(&mut self, leader: NodeId, mut voters: Vec<NodeId>, failures: u64) -> Vec<NodeId> {
        let count = size(self.rng.between(1, failures)).min(voters.len() - 1);
        let mut victims = Vec::new();
        if self.rng.chance(600) {
            victims.push(leader);
        }
        voters.retain(|id| !victims.contains(id));
        while victims.len() < count {
            victims.push(voters.swap_remove(size(self.rng.below(voters.len() as u64))));
        }
        victims
    }

    fn fail(&mut self, victims: &[NodeId]) {
        for victim in victims {
            if is_witness(*victim) {
                let place = World::witness_place(*victim);
                self.witnesses[place].is_off = true;
                self.crash_witness(place);
            } else {
                self.boxes[World::place(*victim)].is_off = true;
                self.crash(*victim);
            }
        }
    }

    fn return_all(&mut self, victims: &[NodeId]) {
        for at in victims.iter().copied() {
            if is_witness(at) {
                self.witnesses[World::witness_place(at)].is_off = false;
                self.after(1_000, Event::Witness { at, event: WitnessEvent::Starts });
            } else {
                self.boxes[World::place(at)].is_off = false;
                self.after(1_000, Event::Start { at });
            }
        }
    }

    /// Somebody sets what is set already, at any box that is left, until it is committed.
    fn commit_something(&mut self, without: &[NodeId]) {
        let limit = self.now + SOON;
        let members: Vec<NodeId> = self.members().iter().map(|one| one.id).collect();
        loop {
            let (input, mut answer) = propose(entry::set(self.rng.next(), "window.grace", "1s"));
            let at = members[size(self.rng.below(members.len() as u64))];
            self.after(1, Event::Ask { place: World::place(at), input: Some(input) });
            let until = self.now + ANSWER;
            while self.now < until {
                self.run_until(self.now + 50_000);
                match answer.try_recv() {
                    Ok(Ok(Applied::Set { .. })) => return,
                    Err(tokio::sync::oneshot::error::TryRecvError::Empty) => {}
                    _ => break,
                }
            }
            assert!(
                self.now < limit,
                "tolerates: nothing is committed without {without:?}, which the status said is borne: {}",
                self.describe()
            );
        }
    }

    /// Waits until a leader says this; which one.
    fn await_tolerance(&mut self, says: impl Fn(u64) -> bool, what: &str) -> NodeId {
        let limit = self.now + PATIENCE;
        loop {
            self.run_until(self.now + 10_000);
            if let Some((leader, _)) = self.tolerance().filter(|(_, failures)| says(*failures)) {
                return leader;
            }
            assert!(
                self.now < limit,
                "tolerates: no leader says that the site bears {what}: {}",
                self.describe()
            );
        }
    }
}
