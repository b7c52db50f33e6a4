//! What a box hears and says.

use super::*;

impl Node {
    pub(crate) fn packet(&mut self, sim: &mut Sim, from: NodeId, packet: Packet) {
        let now = self.local(sim.now);
        let Some(incarnation) = &mut self.incarnation else { return };
        match packet {
            Packet::Raft { message, entries, snapshot: None } => self.message(sim, from, &message, entries),
            Packet::Raft { message, snapshot: Some(snapshot), .. } => {
                incarnation.staging += 1;
                let what = Own::Staged { from, message, snapshot };
                self.own_after(sim, 10, what);
                if sim.rng.chance(30) {
                    let soon = sim.rng.below(10 * sim.plan.sync_max);
                    sim.after(soon, Event::Crash { node: self.id });
                }
            }
            Packet::Propose(body) => {
                incarnation.core.request_heartbeat(from);
                self.propose(sim, &body);
            }
            Packet::ReadIndex { read } => incarnation.lead_read(now, from, read),
            Packet::ReadAt { read, index } => incarnation.read_at(read, index),
        }
    }

    /// A snapshot is here, whole.
    pub(super) fn staged(&mut self, sim: &mut Sim, from: NodeId, message: &Message, snapshot: Rc<Snapshot>) {
        let now = self.local(sim.now);
        let Some(incarnation) = &mut self.incarnation else { return };
        incarnation.staging -= 1;
        let before = *incarnation.core.configuration();
        let brought = snapshot.configuration.as_ref();
        let handled = incarnation.core.handle_message(now, from, message, brought, &incarnation.log);
        if handled != Ok(Handled::Install(snapshot.last)) {
            return;
        }
        sim.coverage.count("snapshots installed");
        if *incarnation.core.configuration() != before {
            sim.coverage.count("snapshots that brought a configuration");
            sim.coverage.add("boxes that joined by a snapshot", u64::from(before.is_empty()));
        }
        incarnation.log = Log::new(snapshot.last, []);
        incarnation.machine = Machine::restore(&snapshot.bytes);
        incarnation.installed = Some(snapshot);
        let base = incarnation.configuration_before(&self.disk, &self.first);
        membership::the_latest_is_in_force(self.id, &*incarnation.core, &incarnation.log, &base);
    }

    fn message(&mut self, sim: &mut Sim, from: NodeId, message: &Message, entries: Vec<Entry>) {
        let now = self.local(sim.now);
        let Some(incarnation) = &mut self.incarnation else { return };
        sim.tell(|| format!("{} <- {from}: {message:?}", self.id));
        incarnation.watched.pre_votes.heard(&*incarnation.core, from, message);
        let before_it =
            (incarnation.watched.lease.is_in_force(&*incarnation.core, now), incarnation.core.term());
        let configuration = entries.first().and_then(|entry| entry.configuration.clone());
        let (before, commit) = (incarnation.core.role(), incarnation.core.commit_index());
        let handled =
            incarnation.core.handle_message(now, from, message, configuration.as_deref(), &incarnation.log);
        incarnation.watched.lease.heard(self.id, &*incarnation.core, before_it, now, from, message);
        incarnation.watched.check_quorum.heard(&*incarnation.core, now, from, message);
        match handled {
            Ok(Handled::Append(range)) => {
                let dropped = incarnation.log.truncate(range.first.prev());
                if !dropped.is_empty() {
                    sim.coverage.count("logs truncated in memory");
                    let configurations = dropped.iter().filter(|entry| entry.configuration.is_some()).count();
                    sim.coverage.add("configuration entries truncated", configurations as u64);
                    sim.checks.committed.dropped(self.id, incarnation.core.term(), commit, dropped.iter());
                }
                for entry in entries.into_iter().filter(|entry| entry.position.index >= range.first) {
                    incarnation.put(sim, entry);
                }
                assert_eq!(incarnation.log.last().index, range.last);
                if configuration.is_some() || dropped.iter().any(|entry| entry.configuration.is_some()) {
                    let base = incarnation.configuration_before(&self.disk, &self.first);
                    membership::the_latest_is_in_force(self.id, &*incarnation.core, &incarnation.log, &base);
                }
            }
            Ok(Handled::Install(_)) => panic!("only a snapshot is installed"),
            Ok(Handled::Nothing) => {
                let by_witness = incarnation.core.configuration().role(from) == Some(MemberRole::Witness);
                if by_witness && before == Role::Candidate && incarnation.core.role() == Role::Leader {
                    sim.coverage.count("elections decided by a witness");
                }
            }
            // Whoever knows no term yet has none to refuse in.
            Err(Ignored::Malformed) if message.term == Term(0) => {
                assert_eq!(message.body, Body::PreVoteAnswer { granted: false });
            }
            Err(Ignored::UnknownSender) => sim.coverage.count("strangers ignored"),
            Err(Ignored::NotVoter) => sim.coverage.count("messages ignored as not of a voter"),
            Err(Ignored::Stale) => sim.coverage.count("messages ignored as stale"),
            Err(Ignored::Leased) => sim.coverage.count("votes ignored under a lease"),
            Err(Ignored::NotAwaited) => sim.coverage.count("messages not awaited"),
            Err(why) => panic!("no honest message refused: {} holds one for {why:?}: {message:?}", self.id),
        }
    }

    pub(super) fn take_messages(&mut self, sim: &mut Sim) {
        let now = self.local(sim.now);
        let Some(incarnation) = &mut self.incarnation else { return };
        let peers: Vec<NodeId> = incarnation.core.peers();
        for to in peers {
            let bulk = sim.healed || !sim.rng.chance(50);
            let mut messages = 0;
            while let Some(mut message) = incarnation.core.poll_message(now, to, bulk, &incarnation.log) {
                messages += 1;
                check_what_is_said(self.id, to, &message, incarnation, &self.disk, &self.first);
                let (mut entries, mut snapshot) = (Vec::new(), None);
                match &mut message.body {
                    Body::Append { entries: Some(range), .. } => {
                        assert!(bulk);
                        entries = incarnation.log.range(range.first, range.last);
                    }
                    Body::Append { entries: None, .. } => sim.coverage.count("probes without entries"),
                    Body::Rejected { .. } => sim.coverage.count("appends rejected"),
                    Body::Snapshot { last } => {
                        assert!(bulk);
                        sim.coverage.count("snapshots offered");
                        // The newest that there is, which may cover more than the log has forgotten.
                        let there = [&self.disk.snapshot, &incarnation.installed].into_iter().flatten();
                        snapshot = there.max_by_key(|snapshot| snapshot.last.index).cloned();
                        *last = snapshot.as_ref().expect("a log that begins late has a snapshot").last;
                    }
                    Body::PreVote { .. } if sim.is_removed(self.id) => {
                        sim.coverage.count("removed boxes that asked for votes");
                    }
                    _ => {}
                }
                sim.send(self.id, to, Packet::Raft { message, entries, snapshot });
            }
            memory::messages_are_few(self.id, to, messages);
            if !bulk {
                sim.coverage.count("bulk lanes full");
            }
        }
    }
}

impl Incarnation {
    /// The configuration before the log's first entry.
    fn configuration_before(&self, disk: &Disk, first: &Configuration) -> Configuration {
        let snapshot = [&disk.snapshot, &self.installed].into_iter().flatten().max_by_key(|of| of.last.index);
        snapshot.and_then(|snapshot| snapshot.configuration).unwrap_or(*first)
    }
}

/// What must hold for each message that leaves.
fn check_what_is_said(
    node: NodeId,
    to: NodeId,
    message: &Message,
    incarnation: &Incarnation,
    disk: &Disk,
    first: &Configuration,
) {
    let core = &*incarnation.core;
    checks::what_is_said_is_durable(node, to, message, disk, &incarnation.log);
    checks::the_commit_index_is_told(node, core, to, message);
    checks::a_sub_quorum_has_the_subterm(node, core, &incarnation.log, disk.end(), message);
    if message.body == Body::TimeoutNow {
        transfer::the_successor_has_all(node, core, incarnation.log.last().index, to);
    }
    checks::only_voters_campaign(node, core, message, || {
        let before = incarnation.log.configurations().nth(1).map(|(_, configuration)| *configuration);
        before.unwrap_or_else(|| incarnation.configuration_before(disk, first))
    });
}
