//! Witnesses as they ship, with their records on disks that fail and lose what was not synced.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use bytes::Bytes;
use tally_core::id::NodeId;
use tally_core::raft::{Body, MemberRole, Message, WitnessRecord};
use tallyd::identity::{Identity, MemberRecord};
use tallyd::storage::faulty::FaultyFileSystem;
use tallyd::transport::{self, Lane};
use tallyd::witness::{Answer, Heard, Keeper, Store, message_in};

use crate::events::Event;
use crate::links::Sent;
use crate::plan::{SECOND, size};
use crate::world::World;

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
    /// The box that it voted or counted for loses its power.
    Bereaves(NodeId),
    /// Somebody sees that the boxes refuse it, and removes it.
    IsGivenUp,
}

/// A witness over all of its incarnations.
#[derive(Debug)]
pub(crate) struct SimWitness {
    pub(crate) id: NodeId,
    /// As it was provisioned, and as its directory has it.
    pub(crate) provisioned: Identity,
    pub(crate) identity: Identity,
    pub(crate) fs: FaultyFileSystem,
    /// A copy of its directory that somebody keeps, with its boot counter.
    pub(crate) copy: Option<(FaultyFileSystem, Identity, u64)>,
    /// The boot counter that each box was told last.
    pub(crate) told: BTreeMap<NodeId, u64>,
    /// It came back with an old record or none.
    pub(crate) forgets: bool,
    /// Somebody has switched it off.
    pub(crate) is_off: bool,
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
    /// What came meanwhile.
    waiting: VecDeque<(NodeId, Bytes)>,
}

impl SimWitness {
    pub(crate) fn new(identity: Identity, seed: u64) -> SimWitness {
        SimWitness {
            id: identity.node_id(),
            provisioned: identity.clone(),
            identity,
            fs: FaultyFileSystem::new(seed),
            copy: None,
            told: BTreeMap::new(),
            forgets: false,
            is_off: false,
            incarnations: 0,
            incarnation: None,
        }
    }

    pub(crate) fn record(&self) -> &MemberRecord {
        self.identity.me()
    }

    /// The number of its incarnation, if it runs.
    pub(crate) fn running(&self) -> Option<u64> {
        self.incarnation.as_ref().map(|incarnation| incarnation.number)
    }

    /// What it says of itself to those who connect.
    pub(crate) fn hello(&self) -> Option<transport::Incarnation> {
        let Incarnation { store, number, .. } = self.incarnation.as_ref()?;
        Some(transport::Incarnation { boot: store.boot(), nonce: *number })
    }

    /// Whom it connects to.
    pub(crate) fn pinned(&self) -> &[MemberRecord] {
        &self.identity.members
    }

    pub(crate) fn pins(&self, peer: &MemberRecord) -> bool {
        self.pinned().iter().any(|member| (member.id, member.key) == (peer.id, peer.key))
    }

    /// The process is gone, and the power; whether it ran.
    pub(crate) fn end(&mut self) -> bool {
        let ran = self.incarnation.take().is_some();
        if ran {
            self.fs.restart(true);
        }
        ran
    }
}

impl World {
    pub(crate) fn witness_place(at: NodeId) -> usize {
        size(at.0 - FIRST_WITNESS)
    }

    pub(crate) fn start_witness(&mut self, place: usize) {
        let one = &mut self.witnesses[place];
        if one.incarnation.is_some() || one.is_off {
            return;
        }
        let at = one.id;
        match Store::open(one.fs.clone(), Path::new(DIR), &one.identity.me().name) {
            Ok((store, record)) => {
                one.incarnations += 1;
                let keeper = Keeper::new(one.identity.clone(), record);
                let (number, waiting) = (one.incarnations, VecDeque::new());
                one.incarnation = Some(Incarnation { number, keeper, store, storing: None, waiting });
                // Of one that forgets nothing is believed, as long as nobody lets it speak.
                if !one.forgets {
                    self.checks.witnesses.found(at, &record);
                }
                self.coverage.count("witnesses started");
                self.tell(|_| format!("witness {at} starts with {record:?}"));
            }
            Err(error) => {
                self.tell(|_| format!("witness {at} cannot start: {error}"));
                self.coverage.count("witnesses that could not start");
                let one = &mut self.witnesses[place];
                if one.fs.is_down() {
                    one.fs.restart(true);
                }
                self.after(SECOND, Event::Witness { at, event: WitnessEvent::Starts });
            }
        }
    }

    /// A frame comes to a witness; while its disk is at work it waits.
    pub(crate) fn witness_hears(&mut self, at: NodeId, from: NodeId, frame: Bytes) {
        let place = World::witness_place(at);
        let Some(incarnation) = &mut self.witnesses[place].incarnation else { return };
        if incarnation.storing.is_some() {
            self.coverage.count("frames that waited for a witness's disk");
        }
        incarnation.waiting.push_back((from, frame));
        self.serve(place);
    }

    /// Handles what waits, up to the next record.
    fn serve(&mut self, place: usize) {
        while let Some(incarnation) = &mut self.witnesses[place].incarnation
            && incarnation.storing.is_none()
            && let Some((from, frame)) = incarnation.waiting.pop_front()
        {
            self.witness_handles(place, from, &frame);
        }
    }

    fn witness_handles(&mut self, place: usize, from: NodeId, frame: &Bytes) {
        let one = &mut self.witnesses[place];
        let at = one.id;
        let Some(incarnation) = &mut one.incarnation else { return };
        let asked = message_in(frame);
        match incarnation.keeper.hear(from, frame) {
            Ok(Heard::Answer(answer)) => self.witness_says(at, asked.as_ref(), answer),
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

    pub(crate) fn witness_writes(&mut self, place: usize) {
        let one = &mut self.witnesses[place];
        let at = one.id;
        let Some(incarnation) = &mut one.incarnation else { return };
        let Some((record, asked)) = incarnation.storing.take() else { return };
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
            self.witness_says(at, Some(&asked), answer);
        }
        self.serve(place);
    }

    fn witness_says(&mut self, at: NodeId, asked: Option<&Message>, (to, frame): Answer) {
        if let (Some(asked), Some(answer)) = (asked, message_in(&frame)) {
            self.checks.witnesses.says(at, to, asked, &answer);
            let has_promised = match answer.body {
                Body::VoteAnswer { granted } => granted,
                Body::WitnessAppended { taken, .. } => taken,
                _ => false,
            };
            if has_promised && !self.healed && self.rng.chance(60) {
                let span = self.rng.below(400_000);
                self.after(span, Event::Witness { at, event: WitnessEvent::Bereaves(to) });
            }
        }
        self.send(at, Sent { to, lane: Some(Lane::Control), frame });
    }

    pub(crate) fn crash_witness(&mut self, place: usize) {
        let at = self.witnesses[place].id;
        if !self.witnesses[place].end() {
            return;
        }
        self.coverage.count("power lost at a witness");
        self.tell(|_| format!("witness {at} loses its power"));
        self.lose_connections(at);
        let away = self.rng.pick(&[20_000, 300_000, 3 * SECOND]);
        let away = self.rng.between(5_000, away);
        self.after(away, Event::Witness { at, event: WitnessEvent::Starts });
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
