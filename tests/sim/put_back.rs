//! A site of one box whose disk is put back to an older image of it: what was acknowledged since is lost, and nobody can
//! mend that; but no number is published with other content than before, and no published total goes back.

use crate::checks::Checks;
use crate::clients::{Adder, Operator, Reader, Reporter};
use crate::events::Event;
use crate::plan::SECOND;
use crate::world::World;

/// The clients of the second life have keys of their own.
const SECOND_LIFE: u64 = 100;

impl World {
    pub(crate) fn play_put_back(&mut self) {
        let end = self.plan.trouble;
        let taken = self.rng.between(SECOND, end / 2);
        self.run_until(taken);
        let image = self.boxes[0].fs.copy();
        let put_back = self.rng.between(taken, end);
        self.run_until(put_back);
        let at = self.boxes[0].id;
        self.crash(at);
        self.tell(|_| format!("box {at} is put back to what it was at {taken}"));
        self.coverage.count("sites put back to an older image");
        self.boxes[0].fs = image;
        self.begin_second_life();
        let end = self.now + self.plan.trouble / 2;
        self.run_until(end);
        self.heal();
        self.come_to_rest();
        let incarnation = self.boxes[0].incarnation.as_ref().expect("it runs at the end");
        let gap = incarnation.handle.site(|site| site.number_gap());
        self.coverage.add("numbers passed over", gap.map_or(0, |gap| gap.passed_over));
        self.coverage.add("numbers published", self.checks.publications.numbers() as u64);
    }

    /// Nothing that anybody knew of the site holds any more, but for what the broker has.
    fn begin_second_life(&mut self) {
        let before = std::mem::take(&mut self.checks);
        self.checks = Checks {
            founded: before.founded,
            forms: before.forms,
            is_put_back: true,
            publications: before.publications,
            retained: before.retained,
            set_aside: before.set_aside,
            listeners: before.listeners,
            ..Checks::default()
        };
        let adders = 0..self.plan.adders;
        self.adders = adders.map(|place| Adder::new(place + SECOND_LIFE)).collect();
        let reporters = 0..self.plan.reporters;
        let rng = &mut self.rng;
        self.reporters = reporters.map(|place| Reporter::new(place + SECOND_LIFE, rng.next() >> 1)).collect();
        self.reader = Reader::default();
        self.operator = Operator::default();
        // An earlier start may be due already, and then this one does nothing.
        self.after(SECOND, Event::Start { at: self.boxes[0].id });
    }
}
