//! What a leader does, and what it is asked for.

use super::*;

impl Node {
    /// A leader is asked for other members.
    pub(crate) fn change(&mut self, sim: &mut Sim, changes: &[Change], leave: Leave) {
        let now = self.local(sim.now);
        let Some(incarnation) = &mut self.incarnation else { return };
        let before = *incarnation.core.configuration();
        match incarnation.core.change_membership(now, changes, leave) {
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

    /// A leader is asked to transfer leadership, to whoever it is.
    pub(crate) fn transfer(&mut self, sim: &mut Sim, to: NodeId) {
        let now = self.local(sim.now);
        let Some(incarnation) = &mut self.incarnation else { return };
        let to = if sim.rng.chance(300) { incarnation.core.successor().unwrap_or(to) } else { to };
        if incarnation.core.transfer(now, to).is_ok() {
            sim.coverage.count("transfers begun");
            sim.handing_over = Some((to, incarnation.core.term().next()));
        }
    }

    pub(crate) fn resign(&mut self, sim: &mut Sim) {
        let now = self.local(sim.now);
        let Some(incarnation) = &mut self.incarnation else { return };
        incarnation.core.resign(now);
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
        let Some(incarnation) = &mut self.incarnation else { return };
        let body =
            configuration.map(|configuration| entry::configuration(&members::to_parts(&configuration)));
        if configuration.is_some() {
            incarnation.watched.replication_set.adapted(&*incarnation.core);
            membership::the_one_before_is_committed(self.id, &*incarnation.core, &incarnation.log, position);
        }
        let payload = match body {
            Some(body) => incarnation.machine.stamped(wall, &body),
            None => Rc::new([]),
        };
        incarnation.put(sim, Entry { position, payload, configuration: configuration.map(Rc::new) });
    }

    pub(super) fn propose(&mut self, sim: &mut Sim, body: &Rc<[u8]>) {
        let (now, wall) = (self.local(sim.now), self.wall(sim.now));
        let Some(incarnation) = &mut self.incarnation else { return };
        match incarnation.core.propose(now, 1, body.len() as u64) {
            Ok(range) => {
                let commit = incarnation.core.commit_index();
                if sim.handing_over.is_some() {
                    transfer::nobody_is_to_take_over(self.id, &*incarnation.core);
                }
                incarnation.proposals.retain(|(index, _)| *index > commit);
                incarnation.proposals.push((range.last, body.len() as u64));
                memory::the_tail_is_bounded(&incarnation.proposals, sim.plan.uncommitted_bytes_max);
                let payload = incarnation.machine.stamped(wall, body);
                entries_of(&range, [payload]).into_iter().for_each(|entry| incarnation.put(sim, entry));
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
        let Some(incarnation) = &mut self.incarnation else { return };
        sim.coverage.count("leaders elected");
        if incarnation.core.configuration().is_joint() {
            sim.coverage.count("joint configurations interrupted by an election");
        }
        if sim.handing_over.take_if(|asked| *asked == (self.id, noop.term)).is_some() {
            sim.coverage.count("transfers that succeeded");
        }
        incarnation.proposals.clear();
        incarnation.watched.replication_set.adapted(&*incarnation.core);
        sim.checks.election_safety.leads(self.id, noop.term);
        checks::a_leader_has_what_is_committed(self.id, noop.term, &incarnation.log, &sim.checks.committed);
        self.put_own(sim, noop, None);
        trouble::shorten_reign(sim, self.id);
    }

    pub(super) fn leave_joint(&mut self, sim: &mut Sim) {
        let now = self.local(sim.now);
        let Some(incarnation) = &mut self.incarnation else { return };
        if let Ok((range, configuration)) = incarnation.core.leave_joint(now) {
            sim.coverage.count("joint configurations left when asked");
            let position = Position { index: range.first, term: range.term, subterm: range.subterm };
            self.put_own(sim, position, Some(configuration));
        }
    }
}
