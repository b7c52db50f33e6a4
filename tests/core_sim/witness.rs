//! A witness and its one record on a disk.

use tally_core::id::NodeId;
use tally_core::raft::{Body, Ignored, Message, Reaction, WitnessRecord};

use crate::checks;
use crate::cores::{Cores, WitnessCore};
use crate::network::Packet;
use crate::plan::Micros;
use crate::sim::{Event, Own, Sim};

pub(crate) struct WitnessBox {
    pub(crate) id: NodeId,
    pub(crate) boot: u64,
    pub(crate) paused_until: Micros,
    /// Its disk fails while this is set.
    pub(crate) fails: bool,
    cores: Cores,
    core: Option<Box<dyn WitnessCore>>,
    /// What a restart finds.
    disk: WitnessRecord,
    /// What was synced last: what may be said.
    pub(crate) synced: WitnessRecord,
    /// What is on its way to the disk.
    storing: Option<WitnessRecord>,
}

impl WitnessBox {
    pub(crate) fn new(id: NodeId, cores: Cores) -> WitnessBox {
        let empty = WitnessRecord::default();
        WitnessBox {
            id,
            boot: 0,
            paused_until: 0,
            fails: false,
            cores,
            core: Some((cores.witness_with)(empty)),
            disk: empty,
            synced: empty,
            storing: None,
        }
    }

    /// Power goes: a record that was not synced is there or not.
    pub(crate) fn crash(&mut self, sim: &mut Sim) {
        self.core = None;
        if let Some(record) = self.storing.take() {
            sim.coverage.count("witnesses crashed before a record was synced");
            if sim.rng.chance(500) {
                self.disk = record;
            }
        }
    }

    pub(crate) fn start(&mut self) {
        if self.core.is_none() {
            self.boot += 1;
            let bytes = self.disk.encode();
            self.synced = WitnessRecord::decode(&bytes).expect("a record is read as it was written");
            self.core = Some((self.cores.witness_with)(self.synced));
        }
    }

    pub(crate) fn packet(&mut self, sim: &mut Sim, from: NodeId, packet: &Packet) {
        let Packet::Raft { message, .. } = packet else { panic!("a witness serves no clients") };
        let Some(core) = &mut self.core else { return };
        sim.tell(|| format!("witness {} <- {from}: {message:?}", self.id));
        match core.handle(from, message) {
            Ok(Reaction::Answer(answer)) => self.say(sim, from, answer),
            Ok(Reaction::Store(record)) => {
                self.storing = Some(record);
                let span = 50 + sim.rng.below(sim.plan.sync_max) * if sim.rng.chance(20) { 100 } else { 1 };
                sim.after(span, Event::Own { node: self.id, boot: self.boot, what: Own::Synced });
                if !sim.healed && sim.rng.chance(50) {
                    let soon = sim.rng.below(2 * span);
                    sim.after(soon, Event::Crash { node: self.id });
                }
            }
            Err(Ignored::Busy) => sim.coverage.count("messages to a busy witness"),
            Err(why) => panic!("witness {}: an honest message is {why:?}: {message:?}", self.id),
        }
    }

    pub(crate) fn synced(&mut self, sim: &mut Sim) {
        let Some(core) = &mut self.core else { return };
        let record = self.storing.take().expect("a record is being stored");
        if self.fails && !sim.healed {
            sim.coverage.count("witness records that failed");
            core.not_stored();
            if sim.rng.chance(500) {
                self.disk = record;
            }
            return;
        }
        sim.coverage.count("witness records stored");
        checks::a_record_goes_on(self.id, &self.synced, &record);
        (self.disk, self.synced) = (record, record);
        let (to, answer) = core.stored().expect("a record is stored once");
        self.say(sim, to, answer);
    }

    fn say(&self, sim: &mut Sim, to: NodeId, message: Message) {
        if message.body == (Body::VoteAnswer { granted: false }) {
            sim.coverage.count("votes refused by a witness");
        }
        checks::what_a_witness_says_is_stored(self.id, &self.synced, to, &message);
        sim.send(self.id, to, Packet::Raft { message, entries: Vec::new(), snapshot: None });
    }
}
