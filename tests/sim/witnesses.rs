//! Witnesses as they ship, with their records on disks that fail and lose what was not synced.

use std::io::ErrorKind;
use std::path::Path;

use tally_core::id::NodeId;
use tally_core::raft::{MemberRole, Message, WitnessRecord};
use tallyd::identity::{Identity, MemberRecord};
use tallyd::storage::faulty::{Fault, FaultyFileSystem};
use tallyd::transport::Lane;
use tallyd::witness::{Answer, Heard, Keeper, Store, message_in};

use crate::links::Sent;
use crate::plan::SECOND;
use crate::world::{Event, World};

/// Witnesses have numbers from here on.
pub(crate) const FIRST_WITNESS: u64 = 101;
const DIR: &str = "/witness";

pub(crate) fn is_witness(id: NodeId) -> bool {
    id.0 >= FIRST_WITNESS
}

/// What happens at a witness.
#[derive(Debug)]
pub(crate) enum WitnessEvent {
    Starts,
    /// Its disk has had the time to write.
    Writes {
        incarnation: u64,
    },
    Trouble,
    DiskRecovers,
}

#[derive(Debug)]
pub(crate) struct SimWitness {
    pub(crate) id: NodeId,
    /// As its directory has it.
    identity: Identity,
    fs: FaultyFileSystem,
    incarnations: u64,
    incarnation: Option<Incarnation>,
}

#[derive(Debug)]
struct Incarnation {
    number: u64,
    keeper: Keeper,
    store: Store<FaultyFileSystem>,
    /// What is on its way to the disk, and what it was asked.
    storing: Option<(WitnessRecord, Message)>,
}

impl SimWitness {
    pub(crate) fn new(identity: Identity, seed: u64) -> SimWitness {
        let id = identity.node_id();
        SimWitness { id, identity, fs: FaultyFileSystem::new(seed), incarnations: 0, incarnation: None }
    }

    pub(crate) fn record(&self) -> &MemberRecord {
        self.identity.me()
    }

    /// The number of its incarnation, if it runs.
    pub(crate) fn running(&self) -> Option<u64> {
        self.incarnation.as_ref().map(|incarnation| incarnation.number)
    }

    /// Whom it connects to.
    pub(crate) fn pinned(&self) -> &[MemberRecord] {
        &self.identity.members
    }

    pub(crate) fn pins(&self, peer: &MemberRecord) -> bool {
        self.pinned().iter().any(|member| (member.id, member.key) == (peer.id, peer.key))
    }
}

impl World {
    pub(crate) fn witness_place(at: NodeId) -> usize {
        crate::plan::size(at.0 - FIRST_WITNESS)
    }

    pub(crate) fn witness_happens(&mut self, at: NodeId, event: WitnessEvent) {
        let place = World::witness_place(at);
        match event {
            WitnessEvent::Starts => self.start_witness(place),
            WitnessEvent::Writes { incarnation } => {
                if self.witnesses[place].running() == Some(incarnation) {
                    self.witness_writes(place);
                }
            }
            WitnessEvent::Trouble if !self.healed => {
                self.witness_trouble(place);
                let span = self.rng.between(1, 4 * self.plan.calm);
                self.after(span, Event::Witness { at, event: WitnessEvent::Trouble });
            }
            WitnessEvent::Trouble => {}
            WitnessEvent::DiskRecovers => self.witnesses[place].fs.break_down(None),
        }
    }

    fn start_witness(&mut self, place: usize) {
        let one = &mut self.witnesses[place];
        if one.incarnation.is_some() {
            return;
        }
        let at = one.id;
        match Store::open(one.fs.clone(), Path::new(DIR), &one.identity.me().name) {
            Ok((store, record)) => {
                one.incarnations += 1;
                let keeper = Keeper::new(one.identity.clone(), record);
                one.incarnation =
                    Some(Incarnation { number: one.incarnations, keeper, store, storing: None });
                self.checks.witnesses.found(at, &record);
                self.coverage.count("witnesses started");
                self.tell(|_| format!("witness {at} starts with {record:?}"));
            }
            Err(error) => {
                self.tell(|_| format!("witness {at} cannot start: {error}"));
                let one = &mut self.witnesses[place];
                if one.fs.is_down() {
                    one.fs.restart(true);
                }
                self.after(SECOND, Event::Witness { at, event: WitnessEvent::Starts });
            }
        }
    }

    /// A frame comes to a witness.
    pub(crate) fn witness_hears(&mut self, at: NodeId, from: NodeId, frame: &bytes::Bytes) {
        let one = &mut self.witnesses[World::witness_place(at)];
        let Some(incarnation) = &mut one.incarnation else { return };
        let (before, asked) = (*incarnation.keeper.record(), message_in(frame));
        match incarnation.keeper.hear(from, frame) {
            Ok(Heard::Answer(answer)) => self.witness_says(at, asked.as_ref(), &before, answer),
            Ok(Heard::Store(record)) => {
                incarnation.storing = asked.map(|asked| (record, asked));
                let incarnation = incarnation.number;
                let slow = if self.rng.chance(20) { 20 } else { 1 };
                let span = 50 + self.rng.below(self.plan.sync_max * slow);
                self.after(span, Event::Witness { at, event: WitnessEvent::Writes { incarnation } });
            }
            Ok(Heard::Members(identity)) => {
                self.coverage.count("witnesses told of other members");
                let gone = |member: &&MemberRecord| !identity.members.contains(member);
                let gone: Vec<NodeId> =
                    one.identity.members.iter().filter(gone).map(|member| member.id).collect();
                one.identity = identity;
                self.close(at, gone);
            }
            Ok(Heard::Nothing) | Err(_) => {}
        }
    }

    fn witness_writes(&mut self, place: usize) {
        let one = &mut self.witnesses[place];
        let at = one.id;
        let Some(incarnation) = &mut one.incarnation else { return };
        let Some((record, asked)) = incarnation.storing.take() else { return };
        let before = *incarnation.keeper.record();
        let written = incarnation.store.write_now(&record);
        if one.fs.is_down() {
            self.coverage.count("witnesses that lost their power while they wrote");
            return self.crash_witness(place);
        }
        let answer = match written {
            Ok(()) => {
                self.coverage.count("witness records stored");
                self.checks.witnesses.stored(at, &record);
                incarnation.keeper.stored()
            }
            Err(_) => {
                self.coverage.count("witness records refused by the disk");
                incarnation.keeper.not_stored()
            }
        };
        if let Some(answer) = answer {
            self.witness_says(at, Some(&asked), &before, answer);
        }
    }

    fn witness_says(
        &mut self,
        at: NodeId,
        asked: Option<&Message>,
        before: &WitnessRecord,
        (to, frame): Answer,
    ) {
        if let (Some(asked), Some(answer)) = (asked, message_in(&frame)) {
            self.checks.witnesses.says(at, to, (asked, &answer), before);
        }
        self.send(at, Sent { to, lane: Some(Lane::Control), frame });
    }

    fn crash_witness(&mut self, place: usize) {
        let one = &mut self.witnesses[place];
        let at = one.id;
        if one.incarnation.take().is_none() {
            return;
        }
        one.fs.restart(true);
        self.coverage.count("power lost at a witness");
        self.tell(|_| format!("witness {at} loses its power"));
        self.lose_connections(at);
        let away = self.rng.pick(&[20_000, 300_000, 3 * SECOND]);
        let away = self.rng.between(5_000, away);
        self.after(away, Event::Witness { at, event: WitnessEvent::Starts });
    }

    fn witness_trouble(&mut self, place: usize) {
        let at = self.witnesses[place].id;
        match self.rng.below(6) {
            0 | 1 => self.crash_witness(place),
            2 => {
                let operations = self.rng.below(5) as u32;
                self.witnesses[place].fs.fail_after(operations, Fault::Crash);
            }
            3 => {
                self.coverage.count("witnesses whose disk failed");
                self.witnesses[place].fs.break_down(Some(ErrorKind::Other));
                let span = self.rng.between(100_000, 4 * SECOND);
                self.after(span, Event::Witness { at, event: WitnessEvent::DiskRecovers });
            }
            4 => {
                self.coverage.count("witnesses cut off");
                for other in 0..self.boxes.len() {
                    let other = self.boxes[other].id;
                    self.network.cut(at, other);
                    self.network.cut(other, at);
                }
            }
            _ => self.break_cut(),
        }
    }

    /// Nothing is wrong any more.
    pub(crate) fn heal_witnesses(&mut self) {
        for place in 0..self.witnesses.len() {
            let one = &self.witnesses[place];
            one.fs.break_down(None);
            one.fs.disarm();
            let at = one.id;
            self.after(1_000, Event::Witness { at, event: WitnessEvent::Starts });
        }
    }

    /// Whether the witness that the site names connects to its members.
    pub(crate) fn witness_knows_members(&self) -> bool {
        let Some(foremost) = self.foremost() else { return false };
        foremost.handle.site(|site| {
            let named = site.members().iter().find(|member| member.role == MemberRole::Witness);
            named.is_none_or(|named| {
                let one = &self.witnesses[World::witness_place(named.id)];
                site.members().iter().all(|member| one.pins(member))
                    && one.pinned().len() == site.members().len()
            })
        })
    }
}
