//! What goes wrong at witnesses, and what people do about it.

use std::io::ErrorKind;

use tally_core::id::NodeId;
use tallyd::identity::MemberRecord;
use tallyd::site::MemberChange;
use tallyd::storage::faulty::{Fault, FaultyFileSystem};

use crate::boxes::SimBox;
use crate::events::Event;
use crate::plan::SECOND;
use crate::witnesses::WitnessEvent;
use crate::world::World;

impl World {
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
            WitnessEvent::Bereaves(who) if !self.healed => {
                let one = &self.boxes[World::place(who)];
                if one.incarnation.is_some() {
                    self.coverage.count(match one.leads() {
                        true => "leaders that died after a witness's promise",
                        false => "candidates that died after a witness's promise",
                    });
                    self.crash(who);
                }
            }
            WitnessEvent::Trouble | WitnessEvent::Bereaves(_) => {}
            WitnessEvent::DiskRecovers => self.witnesses[place].fs.break_down(None),
            WitnessEvent::IsGivenUp => self.give_up_witness(place),
        }
    }

    fn witness_trouble(&mut self, place: usize) {
        let at = self.witnesses[place].id;
        match self.rng.below(14) {
            // With each start it would be harder to tell that it is not what it was; nobody starts it again and again.
            0..=5 if self.witnesses[place].forgets => {}
            0..=3 => self.crash_witness(place),
            4 | 5 => {
                let operations = self.rng.below(5) as u32;
                self.witnesses[place].fs.fail_after(operations, Fault::Crash);
            }
            6 | 7 => {
                self.coverage.count("witnesses whose disk failed");
                self.witnesses[place].fs.break_down(Some(ErrorKind::Other));
                let span = self.rng.between(100_000, 4 * SECOND);
                self.after(span, Event::Witness { at, event: WitnessEvent::DiskRecovers });
            }
            8 | 9 => {
                self.coverage.count("witnesses cut off");
                for other in 0..self.boxes.len() {
                    let other = self.boxes[other].id;
                    self.network.cut(at, other);
                    self.network.cut(other, at);
                }
            }
            10 => self.break_cut(),
            _ => self.copy_or_restore(place),
        }
    }

    /// Somebody copies the witness's directory, or puts an old copy, or what was provisioned, in its place.
    fn copy_or_restore(&mut self, place: usize) {
        let one = &mut self.witnesses[place];
        if one.forgets {
            return;
        }
        if let Some(hello) = one.hello()
            && one.copy.is_none()
        {
            one.copy = Some((one.fs.copy(), one.identity.clone(), hello.boot));
            return;
        }
        let is_emptied = self.rng.chance(400);
        let seed = self.rng.next();
        let (fs, identity, boot) = match &one.copy {
            Some(copy) if !is_emptied => copy.clone(),
            _ => (FaultyFileSystem::new(seed), one.provisioned.clone(), 0),
        };
        // Boxes tell it by its boot counter, which they must have seen rise by more than a start or two that fail.
        let is_told = |other: &SimBox| one.told.get(&other.id).is_some_and(|told| *told >= boot + 3);
        if !self.boxes.iter().all(is_told) {
            return;
        }
        let at = one.id;
        self.coverage.count(match boot {
            0 => "witnesses that came back with an emptied disk",
            _ => "witnesses that came back with an old copy",
        });
        self.tell(|_| format!("witness {at} comes back as it was at start {boot}"));
        self.crash_witness(place);
        let one = &mut self.witnesses[place];
        (one.fs, one.identity, one.forgets) = (fs, identity, true);
        self.checks.witnesses.forgets(at);
        let span = self.rng.between(SECOND, 5 * SECOND);
        self.after(span, Event::Witness { at, event: WitnessEvent::IsGivenUp });
    }

    /// One that is refused is removed by its name; that is asked for until the site does not name it.
    fn give_up_witness(&mut self, place: usize) {
        let at = self.witnesses[place].id;
        // A box that was just started may not know yet.
        let named = self.foremost().and_then(|foremost| {
            foremost.handle.site(|site| {
                let name_of = |member: &MemberRecord| (member.id == at).then(|| member.name.clone());
                (!site.members().is_empty()).then(|| site.members().iter().find_map(name_of))
            })
        });
        match named {
            Some(None) => return self.coverage.count("witnesses given up"),
            Some(Some(name)) => {
                let nonce = self.rng.next();
                self.ask_for(nonce, MemberChange::Remove { name });
            }
            None => {}
        }
        self.after(SECOND, Event::Witness { at, event: WitnessEvent::IsGivenUp });
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
}
