//! Boxes that come and go: an operator provisions them, asks for other members at whichever box, and switches off those
//! that were removed.

use tally_core::id::NodeId;
use tally_core::raft::MemberRole;
use tallyd::identity::MemberRecord;
use tallyd::site::{Applied, MemberChange, entry};
use tokio::sync::oneshot::error::TryRecvError;

use crate::boxes::{Incarnation, SimBox};
use crate::clients::{Answer, Counter, any_box, propose};
use crate::events::Event;
use crate::plan::{Micros, SECOND, size};
use crate::witnesses::{SimWitness, WitnessEvent};
use crate::world::World;

/// So many answers are waited for at most.
const ANSWERS_MAX: usize = 32;
/// So many witnesses come one after the other.
const WITNESSES_MAX: usize = 4;

/// What an operator has asked for: done only as long as the answers are waited for.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    answers: Vec<(Answer, &'static str)>,
    /// The change that was asked for last, with its number.
    latest: Option<(u64, MemberChange)>,
}

impl World {
    /// An operator wishes for other members.
    pub(crate) fn change_members(&mut self, every: Micros) {
        self.hear_of_changes();
        self.switch_off_removed();
        let (nonce, change) = match self.changes.latest.clone() {
            // The same again: a request whose answer was lost, or somebody who does not know of it.
            Some((nonce, change)) if self.rng.chance(200) => {
                self.coverage.count("changes of members told twice");
                let nonce = if self.rng.chance(600) { nonce } else { self.rng.next() };
                (nonce, Some(change))
            }
            _ => (self.rng.next(), self.wish()),
        };
        if let Some(change) = change {
            self.ask_for(nonce, change);
        }
        let span = self.rng.between(every / 4, 2 * every);
        self.after(span, Event::Change);
    }

    pub(crate) fn ask_for(&mut self, nonce: u64, change: MemberChange) {
        let what = match &change {
            MemberChange::Put(_) => "members put",
            MemberChange::Role { role: MemberRole::Voter, .. } => "members promoted",
            MemberChange::Role { .. } => "members demoted",
            MemberChange::Remove { .. } => "members removed",
            MemberChange::Key { .. } => "members' keys changed",
            MemberChange::Rename { .. } => "members renamed",
        };
        self.changes.latest = Some((nonce, change.clone()));
        if self.rng.chance(80) {
            return self.coverage.count("changes of members that got lost");
        }
        let Some(place) = any_box(&self.boxes, &mut self.rng) else { return };
        self.tell(|world| format!("box {} is asked for {change:?}", world.boxes[place].id));
        let (input, answer) = propose(entry::member(nonce, &change));
        // Nobody waits for some.
        if self.rng.chance(900) {
            self.changes.answers.push((answer, what));
        }
        if self.changes.answers.len() > ANSWERS_MAX {
            self.changes.answers.remove(0);
        }
        self.after(1, Event::Ask { place, input: Some(input) });
    }

    fn hear_of_changes(&mut self) {
        let (checks, coverage) = (&mut self.checks, &mut self.coverage);
        self.changes.answers.retain_mut(|(answer, what)| {
            match answer.try_recv() {
                Err(TryRecvError::Empty) => return true,
                Ok(Ok(Applied::Member { nonce, result })) => {
                    checks.once.judged(nonce);
                    coverage.count(if result.is_ok() { what } else { "changes of members refused" });
                }
                Ok(_) | Err(TryRecvError::Closed) => {}
            }
            false
        });
    }

    /// What to wish for, by what a box knows of the members.
    fn wish(&mut self) -> Option<MemberChange> {
        let known: Vec<MemberRecord> = self.foremost()?.handle.site(|site| site.members().to_vec());
        let boxes: Vec<&MemberRecord> = known.iter().filter(|one| one.role != MemberRole::Witness).collect();
        if boxes.is_empty() {
            return None;
        }
        if self.plan.has_witness && self.rng.chance(150) {
            let named = known.iter().find(|one| one.role == MemberRole::Witness).cloned();
            let boxes: Vec<MemberRecord> = boxes.into_iter().cloned().collect();
            return match named {
                Some(named) if self.rng.chance(300) => {
                    let address = format!("10.0.{}.{}:7400", self.rng.between(1, 9), named.id);
                    self.coverage.count("witnesses moved");
                    Some(MemberChange::Put(MemberRecord { address, ..named }))
                }
                Some(named) => Some(MemberChange::Remove { name: named.name }),
                None => Some(self.a_witness(&boxes)),
            };
        }
        let voters = boxes.iter().filter(|one| one.role == MemberRole::Voter).count();
        let any = boxes[size(self.rng.below(boxes.len() as u64))];
        let name = any.name.clone();
        // Towards some voters rather than one.
        let is_few = voters < 3 && self.rng.chance(600);
        match self.rng.below(10) {
            0..=2 => self.a_box_comes(None),
            3 | 4 => {
                let role =
                    if is_few || self.rng.chance(500) { MemberRole::Voter } else { MemberRole::Observer };
                Some(MemberChange::Role { name, role })
            }
            5 if !is_few => Some(MemberChange::Role { name, role: MemberRole::Observer }),
            5 | 6 => {
                let address = format!("10.0.{}.{}:7400", self.rng.between(1, 9), any.id);
                self.coverage.count("members moved");
                Some(MemberChange::Put(MemberRecord { address, ..any.clone() }))
            }
            7 | 8 if !is_few => Some(MemberChange::Remove { name }),
            7 | 8 => self.a_stranger(&known),
            _ => self.replace(&any.clone(), voters),
        }
    }

    /// One that was provisioned and is no member, or has been one.
    fn a_stranger(&mut self, known: &[MemberRecord]) -> Option<MemberChange> {
        let is_strange = |one: &&SimBox| !known.iter().any(|member| member.id == one.id);
        let strangers: Vec<MemberRecord> =
            self.boxes.iter().filter(is_strange).map(|one| one.record().clone()).collect();
        if strangers.is_empty() {
            return None;
        }
        let stranger = strangers[size(self.rng.below(strangers.len() as u64))].clone();
        Some(MemberChange::Put(MemberRecord { role: MemberRole::Voter, ..stranger }))
    }

    /// A witness, provisioned now or before, where the site has none. One that was removed does not return.
    fn a_witness(&mut self, boxes: &[MemberRecord]) -> MemberChange {
        let last = self.witnesses.last().map(|last| (last.forgets, last.record().clone()));
        match last {
            Some((false, last)) if self.witnesses.len() == WITNESSES_MAX || self.rng.chance(300) => {
                return MemberChange::Put(last);
            }
            Some(_) => self.coverage.count("witnesses in the place of others"),
            None => self.coverage.count("witnesses that came to the site"),
        }
        let identity = crate::roster::witness(&self.plan, self.witnesses.len(), boxes);
        let (record, seed) = (identity.me().clone(), self.rng.next());
        self.witnesses.push(SimWitness::new(identity, seed));
        self.witness_comes(record.id);
        MemberChange::Put(record)
    }

    /// A witness is started, and has its troubles.
    pub(crate) fn witness_comes(&mut self, at: NodeId) {
        let (span, calm) = (self.rng.below(500_000), self.rng.between(100_000, SECOND));
        self.after(span, Event::Witness { at, event: WitnessEvent::Starts });
        self.after(calm, Event::Witness { at, event: WitnessEvent::Trouble });
    }

    /// Somebody provisions a further box, and asks for it before it is started or after.
    fn a_box_comes(&mut self, replaces: Option<&str>) -> Option<MemberChange> {
        let identity = self.roster.extend(&self.plan, replaces)?;
        let record = identity.me().clone();
        let (permille, seed) = (self.rng.between(950, 1050), self.rng.next());
        let place = self.boxes.len();
        self.boxes.push(SimBox::new(&self.plan, identity, permille, seed));
        self.counters.push(Counter::default());
        self.outside.upstreams.push(None);
        self.coverage.count("boxes that came to the site");
        let late = if self.rng.chance(200) { 10 * SECOND } else { SECOND };
        let span = self.rng.below(late);
        self.after(span, Event::Start { at: record.id });
        self.after(span, Event::Counts(place));
        self.guest_comes(place, span);
        let role = if self.rng.chance(750) { MemberRole::Voter } else { MemberRole::Observer };
        Some(MemberChange::Put(MemberRecord { role, ..record }))
    }

    /// A box dies for good: its successor has its name and another number, and comes when the site has let go of it.
    fn replace(&mut self, old: &MemberRecord, voters: usize) -> Option<MemberChange> {
        let place = World::place(old.id);
        // One that was dead before is gone; now its successor comes.
        if self.boxes[place].is_off {
            return Some(MemberChange::Remove { name: old.name.clone() });
        }
        let is_awaited = |one: &SimBox| one.is_off && !self.checks.removed.is_removed(one.id);
        if voters < 3 || self.boxes.iter().any(is_awaited) || self.rng.chance(300) {
            return None;
        }
        self.coverage.count("boxes that died for good");
        self.switch_off(place);
        Some(MemberChange::Remove { name: old.name.clone() })
    }

    fn switch_off(&mut self, place: usize) {
        let at = self.boxes[place].id;
        self.crash(at);
        self.boxes[place].is_off = true;
    }

    /// Some of those that the site has let go of are switched off, and some of these have successors.
    fn switch_off_removed(&mut self) {
        for place in 0..self.boxes.len() {
            if !self.is_let_go(place) {
                continue;
            }
            let name = self.boxes[place].record().name.clone();
            if !self.boxes[place].is_off {
                if self.rng.chance(300) {
                    self.coverage.count("removed boxes switched off");
                    self.switch_off(place);
                }
            } else if self.roster.knows(self.boxes[place].id)
                && self.rng.chance(500)
                && let Some(change) = self.a_box_comes(Some(&name))
            {
                self.coverage.count("boxes that replaced another");
                let nonce = self.rng.next();
                self.ask_for(nonce, change);
            }
        }
    }

    /// The box that has applied most, of those that run.
    pub(crate) fn foremost(&self) -> Option<&Incarnation> {
        let running = self.boxes.iter().filter_map(|one| one.incarnation.as_ref());
        running.max_by_key(|incarnation| incarnation.handle.site(|site| site.applied()))
    }

    /// Whether the site has had this box as a member, and has let go of it for good.
    pub(crate) fn is_let_go(&self, place: usize) -> bool {
        self.checks.removed.is_removed(self.boxes[place].id)
    }

    /// The boxes that the site has as members, as far as any box knows.
    pub(crate) fn members(&self) -> Vec<&SimBox> {
        let named: Vec<NodeId> = self.foremost().map_or_else(Vec::new, |incarnation| {
            incarnation.handle.site(|site| site.members().iter().map(|member| member.id).collect())
        });
        let founders = size(self.plan.boxes);
        let is_member = |(place, one): &(usize, &SimBox)| match named.is_empty() {
            true => *place < founders,
            false => named.contains(&one.id),
        };
        self.boxes.iter().enumerate().filter(is_member).map(|(_, one)| one).collect()
    }

    /// Nothing is wrong any more: all boxes run, but for those that the site has let go of.
    pub(crate) fn heal_boxes(&mut self) {
        for place in 0..self.boxes.len() {
            let is_let_go = self.is_let_go(place);
            if is_let_go && self.rng.chance(500) {
                self.switch_off(place);
            }
            let one = &mut self.boxes[place];
            one.is_off &= is_let_go;
            let at = one.id;
            self.after(1_000, Event::Start { at });
        }
    }
}
