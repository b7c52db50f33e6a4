//! The world's part of connections: it makes and breaks them, and delivers frames.

use tally_core::id::NodeId;
use tallyd::transport::Compared;

use crate::events::Event;
use crate::links::Sent;
use crate::network::Route;
use crate::plan::{Micros, SECOND};
use crate::world::World;

/// A connection over which nothing comes ends after about so long.
const IDLE: Micros = 2 * SECOND;

impl World {
    pub(crate) fn send(&mut self, from: NodeId, sent: Sent) {
        let to = sent.to;
        match self.network.route(self.now, (from, to), sent.lane, &mut self.rng) {
            Route::Arrives(serial, times) => {
                for at in times {
                    self.queue.put(at, Event::Frame { from, to, serial, sent: sent.clone() });
                }
            }
            Route::Held(serial) => {
                self.coverage.count("frames held up by a cut");
                self.held.push((serial, from, to, sent));
            }
            Route::Lost => self.coverage.count("datagrams lost"),
        }
    }

    pub(crate) fn dial(&mut self) {
        for a in 0..self.boxes.len() {
            for b in a + 1..self.boxes.len() {
                let (one, other) = (self.boxes[a].id, self.boxes[b].id);
                let running = (self.boxes[a].incarnation.as_ref(), self.boxes[b].incarnation.as_ref());
                let (Some(first), Some(second)) = running else { continue };
                let incarnations = (first.number, second.number);
                if self.network.is_cut(one, other) || self.network.is_connected(one, other, incarnations) {
                    continue;
                }
                let pins =
                    (first.outlet.pins(self.boxes[b].record()), second.outlet.pins(self.boxes[a].record()));
                if pins != (true, true) {
                    let knocks = u64::from(pins.0 || pins.1);
                    self.coverage.add("boxes turned away that are not known", knocks);
                    continue;
                }
                let serial = self.network.connect(one, other, incarnations);
                let (span, more) = (self.rng.between(200, 5_000), self.rng.between(0, 3_000));
                self.after(span, Event::Linked { at: one, peer: other, serial });
                self.after(span + more, Event::Linked { at: other, peer: one, serial });
            }
        }
        for witness in 0..self.witnesses.len() {
            (0..self.boxes.len()).for_each(|place| self.dial_witness(witness, place));
        }
        let span = self.rng.between(50_000, 200_000);
        self.after(span, Event::Dial);
    }

    /// Connections over which nothing comes end, each end by itself.
    pub(crate) fn break_cut(&mut self) {
        for (a, b, serial) in self.network.all() {
            if self.network.is_cut(a, b) && self.network.disconnect(a, b, serial) {
                self.coverage.count("connections broken");
                self.unlink(a, b, serial);
            }
        }
        let network = &self.network;
        self.held.retain(|(serial, from, to, _)| network.serial(*from, *to) == Some(*serial));
    }

    /// A box has closed its connections to those who are no members any more.
    pub(crate) fn close(&mut self, at: NodeId, peers: Vec<NodeId>) {
        for peer in peers {
            if let Some(serial) = self.network.serial(at, peer)
                && self.network.disconnect(at, peer, serial)
            {
                self.coverage.count("connections closed to those who left");
                for (at, peer) in [(at, peer), (peer, at)] {
                    let span = self.rng.between(50, 20_000);
                    self.after(span, Event::Unlinked { at, peer, serial });
                }
            }
        }
    }

    /// All connections of one that is gone.
    pub(crate) fn lose_connections(&mut self, at: NodeId) {
        for (a, b, serial) in self.network.all() {
            if (a == at || b == at) && self.network.disconnect(a, b, serial) {
                self.unlink(a, b, serial);
            }
        }
    }

    /// A witness and a box connect if they name each other, and if it is not one of earlier.
    fn dial_witness(&mut self, witness: usize, place: usize) {
        let (one, other) = (&mut self.witnesses[witness], &mut self.boxes[place]);
        let (Some(hello), Some(running)) = (one.hello(), &other.incarnation) else { return };
        let (at, peer, incarnations) = (other.id, one.id, (running.number, hello.nonce));
        let is_there = self.network.is_cut(at, peer) || self.network.is_connected(at, peer, incarnations);
        if is_there || !one.pins(other.record()) || !running.outlet.pins(one.record()) {
            return;
        }
        if other.seen.compare(peer, hello) == Compared::Earlier {
            return self.coverage.count("connections refused to a witness that was more");
        }
        other.seen.note(peer, hello);
        one.told.insert(at, hello.boot);
        let serial = self.network.connect(at, peer, incarnations);
        let span = self.rng.between(200, 5_000);
        self.after(span, Event::Linked { at, peer, serial });
    }

    pub(crate) fn unlink(&mut self, a: NodeId, b: NodeId, serial: u64) {
        for (at, peer) in [(a, b), (b, a)] {
            let span = self.rng.between(IDLE / 10, IDLE);
            self.after(span, Event::Unlinked { at, peer, serial });
        }
    }

    /// All cuts end; what was held up comes, if its connection is still there.
    pub(crate) fn mend(&mut self) {
        self.network.mend();
        for (_, from, to, sent) in std::mem::take(&mut self.held) {
            debug_assert_eq!(sent.to, to);
            self.send(from, sent);
        }
    }
}
