//! What a leader does, and what it is asked for.

use super::*;

impl Node {
    /// A leader is asked for other members.
    pub(crate) fn change(&mut self, sim: &mut Sim, changes: &[Change], leave: Leave) {
        let now = self.local(sim.now);
        let Some(life) = &mut self.life else { return };
        let before = *life.core.configuration();
        match life.core.change_membership(now, changes, leave) {
            Ok((range, configuration)) => {
                sim.tell(|| format!("{} changes the members: {changes:?} to {configuration:?}", self.id));
                members::count(sim, &before, changes, configuration.is_joint());
                let position = Position { index: range.first, term: range.term, subterm: range.subterm };
                self.put_own(sim, position, Some(configuration));
            }
            Err(MembershipError::NotCaughtUp { .. }) => sim.coverage.count("promotions refused as too early"),
            Err(_) => sim.coverage.count("changes of members refused"),
        }
    }

    /// A leader is asked to hand over, to whoever it is.
    pub(crate) fn hand_over(&mut self, sim: &mut Sim, to: NodeId) {
        let now = self.local(sim.now);
        let Some(life) = &mut self.life else { return };
        let to = if sim.rng.chance(300) { life.core.successor().unwrap_or(to) } else { to };
        if life.core.transfer(now, to).is_ok() {
            sim.coverage.count("transfers begun");
            sim.handing_over = Some((to, life.core.term().next()));
        }
    }

    pub(crate) fn resign(&mut self, sim: &mut Sim) {
        let now = self.local(sim.now);
        let Some(life) = &mut self.life else { return };
        life.core.resign(now);
        sim.coverage.count("leaders that resigned");
    }

    /// An entry of a leader's own: a configuration or nothing.
    pub(super) fn put_own(
        &mut self,
        sim: &mut Sim,
        position: Position,
        configuration: Option<Configuration>,
    ) {
        let wall = self.wall(sim.now);
        let Some(life) = &mut self.life else { return };
        let body =
            configuration.map(|configuration| entry::configuration(&members::to_parts(&configuration)));
        if configuration.is_some() {
            life.watched.replication_set.adapted(&*life.core);
            membership::the_one_before_is_committed(self.id, &*life.core, &life.log, position);
        }
        let payload = match body {
            Some(body) => life.machine.stamped(wall, &body),
            None => Rc::new([]),
        };
        life.put(sim, Entry { position, payload, configuration: configuration.map(Rc::new) });
    }

    pub(super) fn propose(&mut self, sim: &mut Sim, body: &Rc<[u8]>) {
        let (now, wall) = (self.local(sim.now), self.wall(sim.now));
        let Some(life) = &mut self.life else { return };
        match life.core.propose(now, 1, body.len() as u64) {
            Ok(range) => {
                let commit = life.core.commit_index();
                if sim.handing_over.is_some() {
                    transfer::nobody_is_to_take_over(self.id, &*life.core);
                }
                life.proposals.retain(|(index, _)| *index > commit);
                life.proposals.push((range.last, body.len() as u64));
                memory::the_tail_is_bounded(&life.proposals, sim.plan.uncommitted_bytes_max);
                let payload = life.machine.stamped(wall, body);
                entries_of(&range, [payload]).into_iter().for_each(|entry| life.put(sim, entry));
            }
            Err(ProposeError::Full) => sim.coverage.count("proposals refused as full"),
            Err(ProposeError::Transferring) => sim.coverage.count("proposals refused while handing over"),
            Err(_) => {}
        }
    }

    pub(super) fn wall(&self, now: Micros) -> Micros {
        self.local(now).0 + self.wall_ahead
    }

    pub(super) fn began_to_lead(&mut self, sim: &mut Sim, noop: Position) {
        let Some(life) = &mut self.life else { return };
        sim.coverage.count("leaders elected");
        if life.core.configuration().is_joint() {
            sim.coverage.count("joint configurations interrupted by an election");
        }
        if sim.handing_over.take_if(|asked| *asked == (self.id, noop.term)).is_some() {
            sim.coverage.count("transfers that succeeded");
        }
        life.proposals.clear();
        life.watched.replication_set.adapted(&*life.core);
        sim.checks.election_safety.leads(self.id, noop.term);
        checks::a_leader_has_what_is_committed(self.id, noop.term, &life.log, &sim.checks.committed);
        self.put_own(sim, noop, None);
        trouble::shorten_reign(sim, self.id);
    }

    pub(super) fn leave_joint(&mut self, sim: &mut Sim) {
        let now = self.local(sim.now);
        let Some(life) = &mut self.life else { return };
        if let Ok((range, configuration)) = life.core.leave_joint(now) {
            sim.coverage.count("joint configurations left when asked");
            let position = Position { index: range.first, term: range.term, subterm: range.subterm };
            self.put_own(sim, position, Some(configuration));
        }
    }
}
