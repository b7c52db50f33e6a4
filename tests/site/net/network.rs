//! The boxes' wires: a namespace each, all on one bridge, and links that are cut silently, in one direction
//! or in both.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::lab::{run, run_with};

/// Nobody has this hardware address: what is sent to it is lost without a word.
const NOBODY: &str = "02:de:ad:00:00:00";

/// What one box sends another, by their places.
pub(crate) type Direction = (usize, usize);

/// Boxes on a bridge. The bridge is in the namespace of the test itself.
///
/// Box `n` (from 1) is at `10.77.0.n`; `10.77.1.n` is on this side of the bridge and stands for it where a
/// relay is in between.
#[derive(Debug)]
pub(crate) struct Network {
    boxes: usize,
    cuts: BTreeSet<Direction>,
}

impl Network {
    /// Lays the wires.
    pub(crate) fn lay(boxes: usize) -> Network {
        let mut here =
            String::from("link add br0 type bridge\nlink set br0 up\naddr add 10.77.0.254/16 dev br0\n");
        for at in 0..boxes {
            let number = at + 1;
            run("ip", ["netns", "add", &name(at)]);
            here.push_str(&format!(
                "addr add {}/16 dev br0\nlink add wire{number} type veth peer name eth0 netns {}\n\
                 link set wire{number} master br0 up\n",
                stand_in(at),
                name(at)
            ));
        }
        run_with("ip", &["-batch", "-"], &here);
        for at in 0..boxes {
            let there = format!("link set lo up\naddr add {}/16 dev eth0\nlink set eth0 up\n", address(at));
            run_with("ip", &["-n", &name(at), "-batch", "-"], &there);
        }
        Network { boxes, cuts: BTreeSet::new() }
    }

    /// The file that names the namespace of a box.
    pub(crate) fn namespace(&self, at: usize) -> PathBuf {
        PathBuf::from("/run/netns").join(name(at))
    }

    /// Loses what these directions carry, and nothing else that it lost before.
    pub(crate) fn cut_only(&mut self, cuts: impl IntoIterator<Item = Direction>) {
        let wanted: BTreeSet<Direction> = cuts.into_iter().filter(|(from, to)| from != to).collect();
        for from in 0..self.boxes {
            let mut changes = String::new();
            for to in 0..self.boxes {
                let (is, be) = (self.cuts.contains(&(from, to)), wanted.contains(&(from, to)));
                for address in [address(to), stand_in(to)] {
                    match (is, be) {
                        (false, true) => changes.push_str(&format!(
                            "neigh replace {address} lladdr {NOBODY} nud permanent dev eth0\n"
                        )),
                        (true, false) => changes.push_str(&format!("neigh del {address} dev eth0\n")),
                        _ => {}
                    }
                }
            }
            if !changes.is_empty() {
                run_with("ip", &["-n", &name(from), "-batch", "-"], &changes);
            }
        }
        self.cuts = wanted;
    }

    /// Lets only these pairs talk.
    pub(crate) fn connect_only(&mut self, pairs: &[Direction]) {
        let talk = |from, to| pairs.contains(&(from, to)) || pairs.contains(&(to, from));
        let boxes = self.boxes;
        let all = (0..boxes).flat_map(|from| (0..boxes).map(move |to| (from, to)));
        self.cut_only(all.filter(|(from, to)| !talk(*from, *to)));
    }

    /// Mends all cuts.
    pub(crate) fn mend(&mut self) {
        self.cut_only([]);
    }

    /// Pulls a box's cable: its link is down.
    pub(crate) fn unplug(&self, at: usize) {
        run("ip", ["link", "set", &format!("wire{}", at + 1), "down"]);
    }

    /// Puts it back.
    pub(crate) fn plug(&self, at: usize) {
        run("ip", ["link", "set", &format!("wire{}", at + 1), "up"]);
    }
}

/// Both directions between a box and each of the others.
pub(crate) fn around(at: usize, boxes: usize) -> Vec<Direction> {
    (0..boxes).flat_map(|other| [(at, other), (other, at)]).collect()
}

/// Where a box is.
pub(crate) fn address(at: usize) -> String {
    format!("10.77.0.{}", at + 1)
}

/// Where a relay is that stands for a box.
pub(crate) fn stand_in(at: usize) -> String {
    format!("10.77.1.{}", at + 1)
}

fn name(at: usize) -> String {
    format!("box{}", at + 1)
}
