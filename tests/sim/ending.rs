//! The end of a history: nothing goes wrong any more, everything settles, and what is left must be right.

use tally_core::id::NodeId;
use tallyd::identity::MemberRecord;
use tallyd::site::{MemberChange, Site};

use crate::boxes::SimBox;
use crate::checks::{Histories, progress, replicas};
use crate::clients::{Adder, Reporter};
use crate::plan::{Micros, SECOND};
use crate::trouble;
use crate::witnesses::is_witness;
use crate::world::World;

/// Once nothing is wrong everything is done within so long.
pub(crate) const PATIENCE: Micros = 120 * SECOND;
const HOUR_US: i64 = 3_600_000_000;

impl World {
    pub(crate) fn come_to_rest(&mut self) {
        let limit = self.now + PATIENCE;
        // What was counted is to be in the windows in which it was, if anything can be said of those.
        let mut are_ahead = !self.are_clocks_right();
        if are_ahead {
            self.set_clocks_ahead();
        }
        let mut looks = self.now;
        loop {
            self.run_until(self.now + 100_000);
            if self.now >= looks {
                looks = self.now + 5 * SECOND;
                self.let_go_of_strangers();
            }
            if !are_ahead && progress::is_committed(&self.members()) {
                are_ahead = true;
                self.set_clocks_ahead();
            }
            let is_idle =
                self.adders.iter().all(Adder::is_idle) && self.reporters.iter().all(Reporter::is_idle);
            let refuses = |series: &str| self.outside.broker.refuses_for_good(series);
            let uncounted = self.uncounted_meters();
            let is_at_rest = || progress::is_at_rest(&self.members(), refuses) && self.tells_tolerance();
            if is_idle && self.witness_knows_members() && is_at_rest() {
                if uncounted.is_empty() {
                    return;
                }
                assert!(self.now < limit, "meters: what they grew by is not counted: {uncounted:?}");
            }
            assert!(
                self.now < limit,
                "progress after healing: none although nothing is wrong: {}",
                self.describe()
            );
        }
    }

    /// A member that has never heard of any of the others, all whom it was provisioned with being gone, lets nobody in and
    /// reaches nobody: its operator takes it out, to provision it anew.
    fn let_go_of_strangers(&mut self) {
        let Some(foremost) = self.foremost() else { return };
        let members: Vec<MemberRecord> = foremost.handle.site(|site| site.members().to_vec());
        let knows = |one: &MemberRecord, other: &MemberRecord| match is_witness(one.id) {
            true => self.witnesses[World::witness_place(one.id)].pins(other),
            // One that does not run may know somebody.
            false => {
                let running = self.boxes[World::place(one.id)].incarnation.as_ref();
                running.is_none_or(|running| running.outlet.pins(other))
            }
        };
        let is_stranger = |one: &&MemberRecord| {
            let mut others =
                members.iter().filter(|other| other.id != one.id && !is_witness(other.id)).peekable();
            others.peek().is_some() && !others.any(|other| knows(one, other))
        };
        let strangers: Vec<String> = members.iter().filter(is_stranger).map(|one| one.name.clone()).collect();
        for name in strangers {
            self.coverage.count("members let go that knew nobody any more");
            let nonce = self.rng.next();
            self.ask_for(nonce, MemberChange::Remove { name });
        }
    }

    pub(crate) fn heal(&mut self) {
        self.tell(|_| "healed".to_owned());
        self.healed = true;
        self.mend();
        self.network.heal();
        self.heal_broker();
        for place in 0..self.boxes.len() {
            let one = &mut self.boxes[place];
            one.fs.break_down(None);
            one.fs.limit(None);
            one.fs.disarm();
            one.slowness = 1;
            one.hangs_until = 0;
            one.paused_until = one.paused_until.min(self.now + 1_000);
            if let Some(incarnation) = &one.incarnation {
                incarnation.outlet.congest_none();
            }
        }
        self.heal_boxes();
        self.heal_witnesses();
    }

    /// All clocks say a later time than any said so far, so that all windows close.
    fn set_clocks_ahead(&mut self) {
        let ahead = if self.are_clocks_right() { HOUR_US * 2 } else { trouble::AHEAD_MAX_S * 2_000_000 };
        for one in &mut self.boxes {
            one.wall_ahead = ahead;
            one.is_synced = true;
        }
    }

    pub(crate) fn check_end(&mut self) {
        for one in &self.boxes {
            if let Some(incarnation) = &one.incarnation {
                self.checks.refused.ended(one.id, incarnation);
            }
        }
        let members: Vec<NodeId> = self.members().iter().map(|one| one.id).collect();
        for one in self.boxes.iter().filter(|one| !members.contains(&one.id)) {
            self.checks.conservation.left(one.id);
        }
        let members = self.members();
        let incarnation = members[0].incarnation.as_ref().expect("all members run at the end");
        let checks = &self.checks;
        if checks.founded >= 2 && !checks.is_narrow && checks.fading == 0 {
            checks.refused.are_none();
        }
        members
            .iter()
            .filter_map(|one| one.incarnation.as_ref())
            .for_each(|other| replicas::show_the_same(incarnation, other));
        incarnation.handle.site(|site| {
            checks.conservation.holds(site, checks.founded, &checks.refused);
            checks.departed.hold(site, &checks.conservation, &checks.publications);
            checks.retained.hold(site);
            checks.publications.add_up(site, checks.forms, &checks.told);
            self.check_windows(site);
            // Where time went back at a box the later value can have the earlier time; before level 2 ties went otherwise.
            let is_steady = self.never([
                "clocks stepped by an operator",
                "clocks set wrong",
                "sites that stood still for an hour",
            ]);
            if self.plan.level >= 2 && is_steady {
                checks.lasts.hold(site, &checks.conservation, &checks.refused);
            }
        });
        self.coverage.add("configurations made", checks.changes.made());
        self.coverage.add("leaders elected", checks.leaders.terms() as u64);
        self.coverage.add("numbers published", checks.publications.numbers() as u64);
        self.coverage.add("numbers published in two formats", checks.publications.numbers_of_two() as u64);
        self.coverage.add("numbers set aside", checks.told.set_aside());
        self.coverage.add("numbers released", checks.told.released);
    }

    fn check_windows(&self, site: &Site) {
        if self.never(["history bounded"]) {
            Histories::sum_up(site);
            // A leader that is started anew after a long time goes by the end of its log for a moment. Sites that are
            // down to two voters are without a leader for that long.
            let is_plain = self.never(["window spans changed", "sites that stood still for an hour"])
                && self.plan.changes_every.is_none();
            let checks = &self.checks;
            if is_plain && checks.founded >= 2 && !checks.is_narrow && self.are_clocks_right() {
                checks.histories.hold(site, &checks.conservation);
            }
        }
    }

    /// Whether none of these kinds, all of which must happen in a full run, has happened in this history.
    pub(crate) fn never<const N: usize>(&self, kinds: [&'static str; N]) -> bool {
        let missing = self.coverage.missing();
        kinds.iter().all(|kind| missing.contains(kind))
    }

    pub(crate) fn describe(&self) -> String {
        let of = |one: &SimBox| match &one.incarnation {
            None => format!("\n{} is down", one.id),
            Some(incarnation) => {
                let status = incarnation.handle.status();
                format!(
                    "\n{}: {} of term {}, applied {}, commit {}, digest {}, {:?}, {:?}, outbox {:?}, {}",
                    one.id,
                    status.role.as_str(),
                    status.term,
                    status.applied,
                    status.commit,
                    status.digest,
                    incarnation.handle.accumulator().backlog(),
                    status.storage.state,
                    status.outbox,
                    progress::describe(incarnation)
                )
            }
        };
        let told = (self.tells_tolerance(), self.witness_knows_members());
        let clients = format!(
            "\ntolerance and members told: {told:?}\n{:?}\n{:?}\n{:?}",
            self.adders,
            self.reporters,
            self.uncounted_meters()
        );
        self.boxes.iter().map(of).chain([clients, self.outside.describe()]).collect()
    }
}
