//! Connections between boxes. Each lane of a connection keeps its order and loses nothing until the connection breaks;
//! datagrams may be lost, duplicated and reordered. A cut delays what is sent; if it lasts, the connection breaks at
//! each end.

use std::collections::{BTreeMap, BTreeSet};

use tally_core::id::NodeId;
use tallyd::transport::Lane;

use crate::plan::{Micros, Plan};
use crate::rng::Rng;

#[derive(Debug)]
pub(crate) struct Network {
    cuts: BTreeSet<(NodeId, NodeId)>,
    connections: BTreeMap<(NodeId, NodeId), Connection>,
    loss_permille: u64,
    duplicate_permille: u64,
    delay_max: Micros,
    serial: u64,
}

#[derive(Debug)]
struct Connection {
    serial: u64,
    /// The incarnations of the boxes that it connects.
    incarnations: (u64, u64),
    /// When the latest frame of a lane arrives: none overtakes it.
    latest: BTreeMap<(NodeId, Lane4), Micros>,
}

/// A lane's place: lanes have no order of their own.
type Lane4 = usize;

fn place(lane: Lane) -> Lane4 {
    Lane::ALL.iter().position(|other| *other == lane).expect("one of the four")
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

/// The fate of a frame.
#[derive(Debug)]
pub(crate) enum Route {
    /// The frame arrives at these times, if the connection still has this serial then.
    Arrives(u64, Vec<Micros>),
    /// The frame waits for the cut to end.
    Held(u64),
    Lost,
}

impl Network {
    pub(crate) fn new(plan: &Plan) -> Network {
        Network {
            cuts: BTreeSet::new(),
            connections: BTreeMap::new(),
            loss_permille: plan.loss_permille,
            duplicate_permille: plan.duplicate_permille,
            delay_max: plan.delay_max,
            serial: 0,
        }
    }

    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cuts.insert((from, to));
    }

    pub(crate) fn is_cut(&self, a: NodeId, b: NodeId) -> bool {
        self.cuts.contains(&(a, b)) || self.cuts.contains(&(b, a))
    }

    pub(crate) fn mend(&mut self) {
        self.cuts.clear();
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
        self.loss_permille = 0;
        self.duplicate_permille = 0;
        self.delay_max = self.delay_max.min(2_000);
    }

    /// Whether these incarnations of two boxes are connected.
    pub(crate) fn is_connected(&self, a: NodeId, b: NodeId, incarnations: (u64, u64)) -> bool {
        let incarnations = if a < b { incarnations } else { (incarnations.1, incarnations.0) };
        self.connections.get(&pair(a, b)).is_some_and(|connection| connection.incarnations == incarnations)
    }

    /// A new connection; its serial.
    pub(crate) fn connect(&mut self, a: NodeId, b: NodeId, incarnations: (u64, u64)) -> u64 {
        let incarnations = if a < b { incarnations } else { (incarnations.1, incarnations.0) };
        self.serial += 1;
        let connection = Connection { serial: self.serial, incarnations, latest: BTreeMap::new() };
        self.connections.insert(pair(a, b), connection);
        self.serial
    }

    /// The connection between two boxes ends; whether there was one of this serial.
    pub(crate) fn disconnect(&mut self, a: NodeId, b: NodeId, serial: u64) -> bool {
        if self.serial(a, b) != Some(serial) {
            return false;
        }
        self.connections.remove(&pair(a, b));
        true
    }

    pub(crate) fn serial(&self, a: NodeId, b: NodeId) -> Option<u64> {
        self.connections.get(&pair(a, b)).map(|connection| connection.serial)
    }

    /// All connections, by their ends.
    pub(crate) fn all(&self) -> Vec<(NodeId, NodeId, u64)> {
        self.connections.iter().map(|((a, b), connection)| (*a, *b, connection.serial)).collect()
    }

    pub(crate) fn route(
        &mut self,
        now: Micros,
        (from, to): (NodeId, NodeId),
        lane: Option<Lane>,
        rng: &mut Rng,
    ) -> Route {
        let delay = now + self.delay(rng);
        let is_cut = self.cuts.contains(&(from, to));
        let is_lost = rng.chance(self.loss_permille);
        let Some(connection) = self.connections.get_mut(&pair(from, to)) else { return Route::Lost };
        let serial = connection.serial;
        let Some(lane) = lane else {
            if is_cut || is_lost {
                return Route::Lost;
            }
            let mut arrives = vec![delay];
            if rng.chance(self.duplicate_permille) {
                arrives.push(delay + rng.below(3 * self.delay_max));
            }
            return Route::Arrives(serial, arrives);
        };
        if is_cut {
            return Route::Held(serial);
        }
        // What is lost goes again, and holds up what follows it.
        let again = if is_lost { 3 * self.delay_max + rng.below(100_000) } else { 0 };
        let latest = connection.latest.entry((from, place(lane))).or_default();
        *latest = (delay + again).max(*latest);
        Route::Arrives(serial, vec![*latest])
    }

    fn delay(&self, rng: &mut Rng) -> Micros {
        let slow = if rng.chance(10) { 20 } else { 1 };
        50 + rng.below(self.delay_max * slow)
    }
}
