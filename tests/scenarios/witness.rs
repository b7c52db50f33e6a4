//! The witness under a script: its core, and its one record on a disk.

use tally_core::id::NodeId;
use tally_core::raft::{Body, Ignored, Message, Reaction, WITNESS_RECORD_BYTES, Witness, WitnessRecord};

use crate::describe;
use crate::node::Packet;
use crate::site::{Outcome, Site};

pub(crate) struct WitnessNode {
    pub(crate) id: NodeId,
    core: Option<Witness>,
    /// What a restart finds.
    disk: [u8; WITNESS_RECORD_BYTES],
    /// On its way to the disk.
    storing: Option<WitnessRecord>,
    /// So many writes were begun.
    writes: u64,
    /// So many messages arrived.
    heard: u64,
}

/// What came of a message.
enum Taken {
    Ignored(Ignored),
    Answer(Message),
    Storing,
}

impl WitnessNode {
    /// With an empty record, running.
    pub(crate) fn new(id: NodeId) -> WitnessNode {
        let record = WitnessRecord::default();
        let (core, disk) = (Some(Witness::new(record)), record.encode());
        WitnessNode { id, core, disk, storing: None, writes: 0, heard: 0 }
    }

    /// The record on its disk, if it can be read.
    pub(crate) fn on_disk(&self) -> Result<WitnessRecord, String> {
        WitnessRecord::decode(&self.disk).map_err(|error| error.to_string())
    }

    pub(crate) fn put_on_disk(&mut self, record: &WitnessRecord) {
        self.disk = record.encode();
    }

    /// One bit of it changes.
    pub(crate) fn damage_disk(&mut self) {
        self.disk[WITNESS_RECORD_BYTES / 2] ^= 1;
    }

    /// What it is writing, for people.
    pub(crate) fn write(&self) -> Option<String> {
        self.storing.as_ref().map(|record| format!("{} (write {})", record_in_words(record), self.writes))
    }

    fn receive(&mut self, from: NodeId, message: &Message) -> Option<Taken> {
        self.heard += u64::from(self.core.is_some());
        Some(match self.core.as_mut()?.handle(from, message) {
            Err(why) => Taken::Ignored(why),
            Ok(Reaction::Answer(answer)) => Taken::Answer(answer),
            Ok(Reaction::Store(record)) => {
                self.storing = Some(record);
                self.writes += 1;
                Taken::Storing
            }
        })
    }

    /// What it was writing is durable: the answer, and to whom.
    fn finish_write(&mut self) -> Result<Option<(NodeId, Message)>, String> {
        let Some(record) = self.storing.take() else { return Ok(None) };
        let before = self.on_disk()?;
        let key = |record: &WitnessRecord| (record.last_term, record.last_subterm);
        if record.term < before.term || key(&record) < key(&before) {
            return Err(format!("the record of witness {} goes back", self.id));
        }
        let changes_vote = before.vote.is_some() && before.vote != record.vote;
        if record.term == before.term && changes_vote {
            return Err(format!("election safety: witness {} votes twice in term {}", self.id, record.term));
        }
        self.put_on_disk(&record);
        Ok(self.core.as_mut().and_then(Witness::stored))
    }

    /// The disk reports an error; the record is there all the same, or not.
    pub(crate) fn fail_write(&mut self, is_there: bool) {
        self.keep(is_there);
        if let Some(core) = &mut self.core {
            core.not_stored();
        }
    }

    /// Power goes; what was being written is there, or not.
    pub(crate) fn crash(&mut self, is_there: bool) {
        self.core = None;
        self.keep(is_there);
    }

    /// With what is on the disk, which it gives back; not without one that can be read.
    pub(crate) fn start(&mut self) -> Result<WitnessRecord, String> {
        let record = self.on_disk()?;
        self.core = Some(Witness::new(record));
        Ok(record)
    }

    fn keep(&mut self, is_there: bool) {
        if let Some(record) = self.storing.take().filter(|_| is_there) {
            self.put_on_disk(&record);
        }
    }
}

impl Site {
    pub(crate) fn arrive_at_witness(&mut self, packet: &Packet) -> Outcome {
        let Packet { from, to: id, .. } = *packet;
        let Some(witness) = self.witness(id) else { return Ok(()) };
        let taken = witness.receive(from, &packet.message);
        let why = match &taken {
            None => format!(": {id} is down"),
            Some(Taken::Ignored(why)) => format!(": ignored, {}", describe::ignored(*why)),
            Some(_) => String::new(),
        };
        self.detail(|| format!("{id} <- {from} {}{why}", describe::packet(packet)));
        match taken {
            Some(Taken::Answer(answer)) => self.say_of_witness(id, from, answer),
            Some(Taken::Storing) if self.held_disks.contains(&id) => {
                self.tell_write(id, "begins to write");
                Ok(())
            }
            Some(Taken::Storing) => self.finish_witness_write(id, "writes"),
            Some(Taken::Ignored(_)) | None => Ok(()),
        }
    }

    /// What the witness writes is durable, and it answers.
    pub(crate) fn finish_witness_write(&mut self, id: NodeId, how: &str) -> Outcome {
        self.tell_write(id, how);
        let Some(witness) = self.witness(id) else { return Ok(()) };
        match witness.finish_write()? {
            Some((to, answer)) => self.say_of_witness(id, to, answer),
            None => Ok(()),
        }
    }

    /// Also when little is told: writes are what a witness is spared.
    pub(crate) fn tell_write(&mut self, id: NodeId, how: &str) {
        if let Some(what) = self.witness(id).and_then(|witness| witness.write()) {
            self.tell(format!("{id} {how} {what}"));
        }
    }

    fn say_of_witness(&mut self, id: NodeId, to: NodeId, message: Message) -> Outcome {
        if let Some(witness) = self.witness(id) {
            what_is_said_is_stored(witness, to, &message)?;
        }
        self.put_on_wire(Packet { from: id, to, message, configuration: None });
        Ok(())
    }
}

/// What a restart finds there, how often it was written to, and how many messages it got.
pub(crate) fn state_in_words(witness: &WitnessNode) -> String {
    let down = if witness.core.is_some() { "" } else { " down;" };
    let disk = witness.on_disk().map_or_else(|why| why, |record| record_in_words(&record));
    let times = |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let (writes, heard) = (times(witness.writes, "write"), times(witness.heard, "message"));
    format!("{} (witness){down} {disk}; {writes}, {heard} so far", witness.id)
}

pub(crate) fn record_in_words(record: &WitnessRecord) -> String {
    let vote = record.vote.map_or_else(|| "no vote".to_owned(), |vote| format!("vote for {vote}"));
    let WitnessRecord { term, last_term, last_subterm, voters, .. } = record;
    if voters.is_empty() {
        return format!("term {term}, {vote}, no set");
    }
    format!("term {term}, {vote}, set {voters:?} of {last_term}.{last_subterm}")
}

/// Votes and records are on the witness's disk when it speaks of them.
fn what_is_said_is_stored(witness: &WitnessNode, to: NodeId, message: &Message) -> Result<(), String> {
    let own = witness.on_disk()?;
    let is_stored = match message.body {
        Body::VoteAnswer { granted: true } => (own.term, own.vote) == (message.term, Some(to)),
        Body::WitnessAppended { subterm, taken: true } => {
            (own.last_term, own.last_subterm) == (message.term, subterm)
        }
        _ => true,
    };
    if is_stored {
        return Ok(());
    }
    Err(format!("persist before send: witness {}: {}", witness.id, describe::message(message)))
}
