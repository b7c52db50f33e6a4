//! A site of five boxes, each in a network namespace of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::clock::Wall;
use super::network::{self, Network};
use super::relay::Relay;
use super::small_disk::SmallDisk;
use crate::boxes::{Place, Site};
use crate::harness::until;

/// As many as the issue asks for.
pub(crate) const BOXES: usize = 5;

/// Namespaces have ports of their own, so these can be the usual ones.
const QUIC: u16 = 7400;
const HTTP: u16 = 7480;
const STATSD: u16 = 8125;

/// How long a single try may take where it is measured when the site takes adds again.
const TRY_MAX: Duration = Duration::from_millis(100);

/// The boxes and their wires.
#[derive(Debug)]
pub(crate) struct NetSite {
    pub(crate) site: Site,
    pub(crate) network: Network,
    pub(crate) relay: Option<Relay>,
}

impl NetSite {
    /// Boxes that reach each other directly; they do not run yet.
    pub(crate) fn provision() -> NetSite {
        let network = Network::lay(BOXES);
        let site = Site::provision_in(places(&network, network::address), "1s", "");
        NetSite { site, network, relay: None }
    }

    /// The same, each on a disk of its own of so many MiB, which are mounted in this directory.
    pub(crate) fn provision_on_small_disks(directory: &Path, mebibytes: u64) -> (NetSite, Vec<SmallDisk>) {
        let mut net = NetSite::provision();
        let mut disks = Vec::new();
        for one in &mut net.site.boxes {
            let disk = SmallDisk::mount(directory, &one.name, mebibytes);
            one.directory = disk.take_in(&one.directory);
            disks.push(disk);
        }
        (net, disks)
    }

    /// Boxes that reach each other directly, all of them ready.
    pub(crate) fn start() -> NetSite {
        let mut net = NetSite::provision();
        net.start_all();
        net
    }

    /// Boxes that reach each other directly, all of them ready, whose wall clocks can be set.
    pub(crate) fn start_with_clocks(walls: [Wall; BOXES]) -> NetSite {
        let mut net = NetSite::provision();
        (0..BOXES).for_each(|at| net.set_wall(at, walls[at]));
        net.start_all();
        net
    }

    /// Boxes that reach each other by a relay, all of them ready.
    pub(crate) fn start_relayed(seed: u64) -> NetSite {
        let network = Network::lay(BOXES);
        let relay = Relay::start(BOXES, QUIC, seed);
        let site = Site::provision_in(places(&network, network::stand_in), "1s", "");
        let mut net = NetSite { site, network, relay: Some(relay) };
        (0..BOXES).for_each(|at| net.set_wall(at, Wall::RIGHT));
        net.start_all();
        net
    }

    /// Starts a box; its wall clock is what [`NetSite::set_wall`] makes it, if that was ever said.
    pub(crate) fn start_box(&mut self, at: usize) {
        let file = self.wall_file(at);
        self.site.boxes[at].start_with(&[("TALLYD_TEST_CLOCK", &file)]);
    }

    fn start_all(&mut self) {
        (0..BOXES).for_each(|at| self.start_box(at));
        self.site.until_ready();
    }

    /// Sets the wall clock of a box, whether it runs or not.
    pub(crate) fn set_wall(&self, at: usize, wall: Wall) {
        wall.write(&self.wall_file(at));
    }

    /// The file that the box's wall clock is in.
    pub(crate) fn wall_file(&self, at: usize) -> PathBuf {
        self.site.boxes[at].directory.with_extension("clock")
    }

    /// Who of these says that it leads, in the newest term.
    pub(crate) fn leader_among(&self, boxes: &[usize]) -> Option<usize> {
        let leads = |at: &&usize| {
            let status = self.site.boxes[**at].try_status()?;
            (status["role"] == "leader").then(|| status["term"].as_u64())?
        };
        let terms = boxes.iter().filter_map(|at| Some((leads(&at)?, *at)));
        terms.max().map(|(_, at)| at)
    }

    /// How long it takes from now on until an add is acknowledged that a client begins now and tries at
    /// these boxes in turn.
    pub(crate) fn time_to_add(&self, boxes: &[usize], key: &str) -> Duration {
        let begun = Instant::now();
        let mut clients: Vec<_> =
            boxes.iter().map(|at| self.site.boxes[*at].client().patient_for(TRY_MAX)).collect();
        let mut tries = (0..clients.len()).cycle();
        until("an add is acknowledged again", || {
            let client = &mut clients[tries.next()?];
            let answer = client.post_keyed("/v1/counters/probe", r#"{"add":1}"#, key).ok()?;
            (answer.status == 200).then_some(())
        });
        begun.elapsed()
    }

    /// The term that the site is in.
    pub(crate) fn term(&self) -> u64 {
        let leader = self.site.leader();
        self.site.boxes[leader].status()["term"].as_u64().unwrap()
    }
}

fn places(network: &Network, address: impl Fn(usize) -> String) -> Vec<Place> {
    let place = |at| Place {
        address: format!("{}:{QUIC}", address(at)),
        http: HTTP,
        statsd: STATSD,
        namespace: Some(network.namespace(at)),
    };
    (0..BOXES).map(place).collect()
}
