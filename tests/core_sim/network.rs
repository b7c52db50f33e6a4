//! Links between boxes: slow, lossy, cut in one direction or both.

use std::collections::BTreeSet;
use std::rc::Rc;

use tally_core::id::{LogIndex, NodeId};
use tally_core::raft::Message;

use crate::coverage::Coverage;
use crate::disk::Snapshot;
use crate::log::Entry;
use crate::plan::{Micros, Plan};
use crate::rng::Rng;

/// What goes from box to box.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    /// Of the core, with the entries or the snapshot that it names.
    Raft { message: Message, entries: Vec<Entry>, snapshot: Option<Rc<Snapshot>> },
    /// To the leader: propose this.
    Propose(Rc<[u8]>),
    /// To the leader: what must a read see?
    ReadIndex { read: u64 },
    /// The answer.
    ReadAt { read: u64, index: LogIndex },
}

#[derive(Debug, Default)]
pub(crate) struct Network {
    cuts: BTreeSet<(NodeId, NodeId)>,
    loss_permille: u64,
    duplicate_permille: u64,
    delay_max: Micros,
}

impl Network {
    pub(crate) fn new(plan: &Plan) -> Network {
        Network {
            cuts: BTreeSet::new(),
            loss_permille: plan.loss_permille,
            duplicate_permille: plan.duplicate_permille,
            delay_max: plan.delay_max,
        }
    }

    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cuts.insert((from, to));
    }

    /// What one box says arrives again.
    pub(crate) fn mend_from(&mut self, from: NodeId) {
        self.cuts.retain(|(cut, _)| *cut != from);
    }

    pub(crate) fn mend(&mut self) {
        self.cuts.clear();
    }

    /// From now on every message arrives, and soon.
    pub(crate) fn heal(&mut self) {
        *self = Network { delay_max: self.delay_max.min(2_000), ..Network::default() };
    }

    /// After how long a message arrives: not at all, once or twice.
    pub(crate) fn route(
        &self,
        from: NodeId,
        to: NodeId,
        rng: &mut Rng,
        coverage: &mut Coverage,
    ) -> Vec<Micros> {
        if self.cuts.contains(&(from, to)) {
            coverage.count("messages cut");
            return Vec::new();
        }
        if rng.chance(self.loss_permille) {
            coverage.count("messages lost");
            return Vec::new();
        }
        let mut delays = vec![self.delay(rng)];
        if rng.chance(self.duplicate_permille) {
            coverage.count("messages duplicated");
            delays.push(self.delay(rng) * 3);
        }
        delays
    }

    pub(crate) fn delay(&self, rng: &mut Rng) -> Micros {
        let slow = if rng.chance(10) { 50 } else { 1 };
        50 + rng.below(self.delay_max * slow)
    }
}
