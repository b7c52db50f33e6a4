//! One history from one seed: a phase of trouble, then a healed one in which everything must come to
//! an end, and what must hold at the end.

use tally_core::id::NodeId;
use tally_core::raft::Position;

use crate::checks::{Held, Holders, Learner, held, progress};
use crate::client::Client;
use crate::coverage::Coverage;
use crate::members;
use crate::node::Node;
use crate::plan::{Micros, WITNESSES, size};
use crate::sim::{Event, Own, Setting, Sim};
use crate::trouble;
use crate::witness::WitnessBox;

/// For so long after healing clients still begin something.
const LAST_REQUESTS: Micros = 300_000;
/// By then all must be done: elections, snapshots, retries.
const PATIENCE: Micros = 15_000_000;

pub(crate) struct World {
    sim: Sim,
    nodes: Vec<Node>,
    witnesses: Vec<WitnessBox>,
    clients: Vec<Client>,
}

/// Plays the history of a seed; what it came through.
pub(crate) fn play(seed: u64, setting: Setting, trace: bool) -> Coverage {
    let mut world = World::new(seed, setting, trace);
    world.run_until(world.sim.plan.trouble);
    world.heal();
    let healed_at = world.sim.now;
    world.run_until(healed_at + LAST_REQUESTS);
    world.come_to_rest();
    // A box that starts again in an idle site catches up without anybody's doing.
    let members = progress::members(&world.nodes).expect("all is quiet");
    let idler = place(world.sim.rng.pick(&members));
    world.nodes[idler].crash(&mut world.sim);
    world.nodes[idler].start(&mut world.sim);
    world.come_to_rest();
    world.check_end();
    let events = world.sim.coverage.events;
    world.sim.tell(|| format!("ends after {events} events"));
    world.sim.coverage
}

impl World {
    fn new(seed: u64, setting: Setting, trace: bool) -> World {
        let mut sim = Sim::new(seed, setting, trace);
        sim.tell(|| format!("{:?}", sim.plan));
        let boxes = (1..=sim.plan.boxes).map(NodeId);
        let mut nodes: Vec<Node> =
            boxes.map(|id| Node::new(id, sim.plan.configuration(id), sim.rng.between(950, 1050))).collect();
        let witnesses = WITNESSES.into_iter().map(|id| WitnessBox::new(id, setting.cores)).collect();
        let clients = (0..size(sim.plan.clients)).map(Client::new).collect();
        nodes.iter_mut().for_each(|node| node.start(&mut sim));
        for client in 0..size(sim.plan.clients) {
            sim.after(1, Event::ClientWakes { client });
        }
        sim.after(20_000, Event::Trouble);
        if let Some(every) = sim.plan.changes_every {
            sim.after(every, Event::Change);
        }
        World { sim, nodes, witnesses, clients }
    }

    fn run_until(&mut self, end: Micros) {
        while self.sim.now < end {
            let Some(event) = self.sim.next() else {
                self.sim.now = end;
                return;
            };
            self.happen(event);
        }
    }

    /// Nothing is wrong any more: everything must come to an end.
    fn come_to_rest(&mut self) {
        let limit = self.sim.now + PATIENCE;
        while !progress::all_is_done(&self.nodes, &self.clients, &self.sim.checks.committed) {
            assert!(
                self.sim.now < limit,
                "progress after healing: none although nothing is wrong: {}",
                self.describe()
            );
            self.run_until(self.sim.now + 10_000);
        }
    }

    fn happen(&mut self, event: Event) {
        let blocked_until = self.blocked_until(&event);
        if blocked_until > self.sim.now {
            let span = blocked_until - self.sim.now;
            return self.sim.after(span, event);
        }
        let sim = &mut self.sim;
        match event {
            Event::Packet { from, to, packet } => match self.witness(to) {
                Some(place) => self.witnesses[place].packet(&mut self.sim, from, &packet),
                None => self.input(to, |node, sim| node.packet(sim, from, packet)),
            },
            Event::ToBox { to, request } => self.input(to, |node, sim| node.request(sim, request)),
            Event::Own { node: id, boot, what } => match self.witness(id) {
                Some(place) if self.witnesses[place].boot == boot => {
                    self.witnesses[place].synced(&mut self.sim);
                }
                None if self.node(id).boot == boot => self.input(id, |node, sim| node.own(sim, what)),
                _ => {}
            },
            Event::ToClient { client, answer } => {
                self.clients[client].hear(sim, &answer);
                self.wake_client(client);
            }
            Event::ClientWakes { client } => self.client_wakes(client),
            Event::Restart { node: id } => match self.witness(id) {
                Some(place) => self.witnesses[place].start(),
                None => {
                    let node = node(&mut self.nodes, id);
                    if node.incarnation.is_none() {
                        node.start(&mut self.sim);
                    }
                }
            },
            Event::Crash { node: id } => match self.witness(id) {
                Some(place) => trouble::crash_witness(&mut self.sim, &mut self.witnesses[place]),
                None => trouble::crash(&mut self.sim, &mut self.nodes, place(id)),
            },
            Event::Trouble => {
                if !sim.healed {
                    trouble::strike(sim, &mut self.nodes, &mut self.witnesses);
                    let calm = sim.rng.between(1, 2 * sim.plan.calm);
                    sim.after(calm, Event::Trouble);
                }
            }
            Event::Change => {
                if let Some(every) = sim.plan.changes_every.filter(|_| !sim.healed) {
                    members::wish(sim, &mut self.nodes);
                    let span = sim.rng.between(1, 2 * every);
                    sim.after(span, Event::Change);
                }
            }
            Event::DiskRecovers { node: id } => match self.witness(id) {
                Some(place) => self.witnesses[place].fails = false,
                None => {
                    let disk = &mut node(&mut self.nodes, id).disk;
                    disk.fails = false;
                    disk.slowness = 1;
                }
            },
        }
    }

    fn client_wakes(&mut self, place: usize) {
        let client = &mut self.clients[place];
        if self.sim.now < client.wakes_at {
            return;
        }
        if self.sim.healed && client.is_idle() && self.sim.now > self.sim.plan.trouble + LAST_REQUESTS {
            return;
        }
        let (to, request) = client.wake(&mut self.sim);
        if self.sim.healed || !self.sim.rng.chance(30) {
            let delay = self.sim.network.delay(&mut self.sim.rng);
            self.sim.after(delay, Event::ToBox { to, request });
        }
        self.wake_client(place);
    }

    fn wake_client(&mut self, client: usize) {
        let span = self.clients[client].wakes_at.saturating_sub(self.sim.now);
        self.sim.after(span, Event::ClientWakes { client });
    }

    /// A box takes something in; what it then calls committed is looked at before it does anything else.
    fn input(&mut self, id: NodeId, take: impl FnOnce(&mut Node, &mut Sim)) {
        take(node(&mut self.nodes, id), &mut self.sim);
        self.check_committed(id);
        node(&mut self.nodes, id).step(&mut self.sim);
    }

    /// Until when the box that it happens at is paused, or its disk hangs.
    fn blocked_until(&self, event: &Event) -> Micros {
        let Some(id) = event.node() else { return 0 };
        if let Some(place) = self.witness(id) {
            return self.witnesses[place].paused_until;
        }
        let node = self.node(id);
        let hangs = matches!(event, Event::Own { what: Own::Synced, .. });
        node.paused_until.max(if hangs { node.disk.hangs_until } else { 0 })
    }

    /// What a box newly calls committed is on the disks of a quorum.
    fn check_committed(&mut self, id: NodeId) {
        let (nodes, witnesses) = (&self.nodes, &self.witnesses);
        let Some(incarnation) = &nodes[place(id)].incarnation else { return };
        let commit = incarnation.core.commit_index();
        if commit == incarnation.checked {
            return;
        }
        let end = |id: NodeId, position: Position| {
            let disk = &nodes.get(place(id))?.disk;
            disk.holds(position).then(|| disk.end())
        };
        let record = |id: NodeId| {
            let witness = witnesses.iter().find(|witness| witness.id == id);
            witness.map(|witness| witness.synced).unwrap_or_default()
        };
        let holders = Holders { end: &end, record: &record };
        let (configuration, last) = (incarnation.core.configuration(), incarnation.core.last());
        let by = Learner {
            log: &incarnation.log,
            term: incarnation.core.term(),
            commit,
            seen: incarnation.checked,
        };
        let known_before = self.sim.checks.committed.last();
        let how =
            self.sim.checks.committed.learned(&by, |position| held(configuration, position, last, &holders));
        self.sim.coverage.add("commits that needed a witness", u64::from(how == Some(Held::WithWitness)));
        self.sim.learn_members(known_before);
        if let Some(incarnation) = &mut node(&mut self.nodes, id).incarnation {
            incarnation.checked = commit;
        }
    }

    fn heal(&mut self) {
        self.sim.healed = true;
        self.sim.network.heal();
        self.sim.tell(|| "healed".into());
        for witness in &mut self.witnesses {
            witness.paused_until = witness.paused_until.min(self.sim.now + 1000);
            witness.start();
        }
        for node in &mut self.nodes {
            node.disk.fails = false;
            node.disk.slowness = 1;
            node.disk.hangs_until = 0;
            node.paused_until = node.paused_until.min(self.sim.now + 1000);
            if node.incarnation.is_none() {
                node.start(&mut self.sim);
            }
        }
    }

    fn check_end(&mut self) {
        let conservation = &self.sim.checks.conservation;
        let members = progress::members(&self.nodes).expect("all is quiet");
        for node in self.nodes.iter().filter(|node| members.contains(&node.id)) {
            let incarnation = node.incarnation.as_ref().expect("all boxes run at the end");
            conservation.holds(&incarnation.machine);
            self.sim.checks.delivery.holds(&incarnation.machine);
            self.sim.coverage.add("look-ups beyond the remembered runs", incarnation.log.look_ups.get());
        }
        self.sim.checks.reads.hold(conservation);
        self.sim.coverage.add("entries committed", self.sim.checks.committed.len());
        self.sim.coverage.add(
            "summaries delivered",
            self.nodes
                .iter()
                .flat_map(|node| &node.incarnation)
                .map(|incarnation| incarnation.machine.delivered())
                .max()
                .unwrap_or(0),
        );
        assert!(self.sim.checks.committed.len() > 0);
    }

    fn witness(&self, id: NodeId) -> Option<usize> {
        self.witnesses.iter().position(|witness| witness.id == id)
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[place(id)]
    }

    fn describe(&self) -> String {
        let boxes = self.nodes.iter().map(|node| match &node.incarnation {
            Some(incarnation) => {
                format!(
                    "\n{}: applied {}, {:?}",
                    node.id,
                    incarnation.machine.applied(),
                    incarnation.core.status()
                )
            }
            None => format!("\n{} is down", node.id),
        });
        let clients = self.clients.iter().map(|client| format!("\n{client:?}"));
        boxes.chain(clients).collect()
    }
}

fn node(nodes: &mut [Node], id: NodeId) -> &mut Node {
    &mut nodes[place(id)]
}

fn place(id: NodeId) -> usize {
    size(id.0) - 1
}
