//! One history from one seed: a phase of trouble, then a healed one in which everything must come to
//! an end, and what must hold at the end.

use tally_core::id::NodeId;

use crate::checks::Learner;
use crate::client::Client;
use crate::coverage::Coverage;
use crate::node::Node;
use crate::plan::{Micros, size};
use crate::sim::{Event, Sim};
use crate::trouble;

/// For so long after healing clients still begin something.
const LAST_REQUESTS: Micros = 300_000;
/// By then all must be done: elections, snapshots, retries.
const PATIENCE: Micros = 15_000_000;

pub(crate) struct World {
    sim: Sim,
    nodes: Vec<Node>,
    clients: Vec<Client>,
}

/// Plays the history of a seed; what it came through.
pub(crate) fn play(seed: u64, trace: bool) -> Coverage {
    let mut world = World::new(seed, trace);
    world.run_until(world.sim.plan.trouble);
    world.heal();
    let healed_at = world.sim.now;
    world.run_until(healed_at + LAST_REQUESTS);
    world.come_to_rest();
    // A box that starts again in an idle site catches up without anybody's doing.
    let idler = size(world.sim.rng.below(world.nodes.len() as u64));
    world.nodes[idler].crash(&mut world.sim);
    world.nodes[idler].start(&mut world.sim);
    world.come_to_rest();
    world.check_end();
    world.sim.coverage
}

impl World {
    fn new(seed: u64, trace: bool) -> World {
        let mut sim = Sim::new(seed, trace);
        sim.tell(|| format!("{:?}", sim.plan));
        let ids: Vec<NodeId> = sim.plan.members.iter().map(|member| member.id).collect();
        let mut nodes: Vec<Node> =
            ids.into_iter().map(|id| Node::new(id, sim.rng.between(950, 1050))).collect();
        let clients = (0..size(sim.plan.clients)).map(Client::new).collect();
        nodes.iter_mut().for_each(|node| node.start(&mut sim));
        for client in 0..size(sim.plan.clients) {
            sim.after(1, Event::ClientWakes { client });
        }
        sim.after(20_000, Event::Trouble);
        World { sim, nodes, clients }
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
        while !self.is_quiet() {
            assert!(self.sim.now < limit, "no progress although nothing is wrong: {}", self.describe());
            self.run_until(self.sim.now + 10_000);
        }
    }

    fn happen(&mut self, event: Event) {
        let paused_until = event.node().map_or(0, |id| self.node(id).paused_until);
        if paused_until > self.sim.now {
            let span = paused_until - self.sim.now;
            return self.sim.after(span, event);
        }
        let sim = &mut self.sim;
        match event {
            Event::Packet { from, to, packet } => {
                node(&mut self.nodes, to).packet(sim, from, packet);
                self.check_committed(to);
            }
            Event::ToBox { to, request } => {
                node(&mut self.nodes, to).request(sim, request);
                self.check_committed(to);
            }
            Event::Own { node: id, boot, what } => {
                if self.node(id).boot == boot {
                    node(&mut self.nodes, id).own(&mut self.sim, what);
                    self.check_committed(id);
                }
            }
            Event::ToClient { client, answer } => {
                self.clients[client].hear(sim, &answer);
                self.wake_client(client);
            }
            Event::ClientWakes { client } => self.client_wakes(client),
            Event::Restart { node: id } => {
                let node = node(&mut self.nodes, id);
                if node.life.is_none() {
                    node.start(sim);
                }
            }
            Event::Crash { node: id } => trouble::crash(sim, &mut self.nodes, place(id)),
            Event::Trouble => {
                if !sim.healed {
                    trouble::strike(sim, &mut self.nodes);
                    let calm = sim.rng.between(1, 2 * sim.plan.calm);
                    sim.after(calm, Event::Trouble);
                }
            }
            Event::DiskRecovers { node: id } => {
                let disk = &mut node(&mut self.nodes, id).disk;
                disk.fails = false;
                disk.slowness = 1;
            }
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

    /// What a box newly calls committed is on a majority of the disks.
    fn check_committed(&mut self, id: NodeId) {
        let quorum = self.sim.plan.quorum();
        let voters: Vec<NodeId> = self.sim.plan.voters().collect();
        let nodes = &self.nodes;
        let Some(life) = &nodes[place(id)].life else { return };
        let commit = life.core.commit_index();
        if commit == life.checked {
            return;
        }
        let holders = |entry: &crate::log::Entry| {
            voters.iter().filter(|voter| nodes[place(**voter)].disk.holds(entry.position)).count()
        };
        let by = Learner { log: &life.log, term: life.core.term(), commit, seen: life.checked };
        self.sim.checks.committed.learned(&by, quorum, holders);
        if let Some(life) = &mut node(&mut self.nodes, id).life {
            life.checked = commit;
        }
    }

    fn heal(&mut self) {
        self.sim.healed = true;
        self.sim.network.heal();
        self.sim.tell(|| "healed".into());
        for node in &mut self.nodes {
            node.disk.fails = false;
            node.disk.slowness = 1;
            node.paused_until = node.paused_until.min(self.sim.now + 1000);
            if node.life.is_none() {
                node.start(&mut self.sim);
            }
        }
    }

    /// All that was asked is answered, and all boxes have applied all there is.
    fn is_quiet(&self) -> bool {
        let committed = self.sim.checks.committed.len();
        let is_done = |node: &Node| {
            node.life.as_ref().is_some_and(|life| {
                life.machine.applied().0 == committed
                    && life.core.last().index.0 == committed
                    && life.machine.is_at_rest()
            })
        };
        self.clients.iter().all(Client::is_idle)
            && self.nodes.iter().all(is_done)
            && self.nodes.iter().any(Node::leads)
    }

    fn check_end(&mut self) {
        let conservation = &self.sim.checks.conservation;
        for node in &self.nodes {
            let life = node.life.as_ref().expect("all boxes run at the end");
            conservation.holds(&life.machine);
            self.sim.checks.delivery.holds(&life.machine);
            self.sim.coverage.add("look-ups beyond the remembered runs", life.log.look_ups.get());
        }
        self.sim.checks.reads.hold(conservation);
        self.sim.coverage.add("entries committed", self.sim.checks.committed.len());
        self.sim.coverage.add(
            "summaries delivered",
            self.nodes
                .iter()
                .flat_map(|node| &node.life)
                .map(|life| life.machine.delivered())
                .max()
                .unwrap_or(0),
        );
        assert!(self.sim.checks.committed.len() > 0);
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[place(id)]
    }

    fn describe(&self) -> String {
        let boxes = self.nodes.iter().map(|node| match &node.life {
            Some(life) => {
                format!("\n{}: applied {}, {:?}", node.id, life.machine.applied(), life.core.status())
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
