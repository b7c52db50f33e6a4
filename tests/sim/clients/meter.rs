//! Meters: cumulative values outside the site. They restart, wrap, step back a little, show zero for a moment, and
//! jump.

use tally_core::meter::{GLITCH_WINDOW_MS_MAX, MeterRule};

use crate::boxes::SimBox;
use crate::coverage::Coverage;
use crate::rng::Rng;

/// The habit of a meter, besides growing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    Grows,
    /// The meter restarts at zero and names another incarnation.
    Reboots,
    /// The meter restarts at zero without a sign.
    Falls,
    /// The meter restarts at zero beyond its ceiling.
    Wraps,
    /// The meter sometimes shows a little less.
    StepsBack,
    /// The meter sometimes shows zero for a moment.
    Glitches,
    /// A large step is not believed before it stands.
    Jumps,
}

const HABITS: [Habit; 7] = [
    Habit::Grows,
    Habit::Reboots,
    Habit::Falls,
    Habit::Wraps,
    Habit::StepsBack,
    Habit::Glitches,
    Habit::Jumps,
];

/// The habits of meters that several readers with slightly different clocks can read.
const HABITS_SHARED: [Habit; 3] = [Habit::Grows, Habit::StepsBack, Habit::Jumps];

const CEILING: u64 = 100_000;
const NOISE: u64 = 30;
const JUMP_MS: u64 = 1_000;

#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) name: String,
    pub(crate) series: String,
    pub(crate) habit: Habit,
    pub(crate) rule: MeterRule,
    value: u64,
    pub(crate) incarnation: u64,
    /// All that it grew by, and how much of that when the site was first seen to know it.
    grown: u64,
    grown_when_known: Option<u64>,
    /// What was seen to be counted when it began again last. What it shows now comes to that.
    counted_at_restart: Option<i128>,
}

impl Meter {
    pub(crate) fn new(name: String, is_shared: bool, rng: &mut Rng) -> Meter {
        let habit = if is_shared { rng.pick(&HABITS_SHARED) } else { rng.pick(&HABITS) };
        let rule = MeterRule {
            ceiling: (habit == Habit::Wraps).then_some(CEILING),
            noise: (habit == Habit::StepsBack).then_some(NOISE),
            glitch_window_ms: match habit {
                Habit::Glitches => GLITCH_WINDOW_MS_MAX,
                Habit::Jumps => JUMP_MS,
                _ => MeterRule::DEFAULT.glitch_window_ms,
            },
            step_max: (habit == Habit::Jumps).then_some(60),
        };
        let value = match habit {
            Habit::Wraps => CEILING - rng.between(1, 2_000),
            // What is left of it after a restart is never near it.
            Habit::Falls | Habit::Glitches => 1_000_000,
            _ => rng.between(100, 5_000),
        };
        Meter {
            series: format!("meters/{name}"),
            name,
            habit,
            rule,
            value,
            incarnation: u64::from(habit == Habit::Reboots),
            grown: 0,
            grown_when_known: None,
            counted_at_restart: None,
        }
    }

    /// What the site has counted of it, as far as any box has applied: nothing before it knows the meter.
    pub(crate) fn counted(&self, boxes: &[SimBox]) -> Option<i128> {
        let of = |one: &SimBox| {
            let incarnation = one.incarnation.as_ref()?;
            incarnation.handle.site(|site| site.find(&self.series).map(|id| site.series_total(id)))
        };
        boxes.iter().filter_map(of).max()
    }

    /// Time passes.
    pub(crate) fn live(&mut self, boxes: &[SimBox], rng: &mut Rng, coverage: &mut Coverage) {
        if self.grown_when_known.is_none() {
            if self.counted(boxes).is_some() {
                self.grown_when_known = Some(self.grown);
            } else if rng.chance(800) {
                return;
            }
        }
        let growth = rng.between(1, 30);
        self.grown += growth;
        self.value += growth;
        if self.habit == Habit::Wraps && self.value >= CEILING {
            coverage.count("meters that wrapped");
            self.value -= CEILING;
        }
    }

    /// It begins again at zero, if that is what it does. What was not counted by now may be lost.
    pub(crate) fn restart(&mut self, boxes: &[SimBox], coverage: &mut Coverage) {
        let Some(counted) = self.counted(boxes).filter(|_| self.grown_when_known.is_some()) else { return };
        match self.habit {
            Habit::Reboots => {
                coverage.count("meters that named another incarnation");
                self.incarnation += 1;
            }
            // Once: nobody sees a fall of a meter that has grown beyond what it showed before.
            Habit::Falls if self.counted_at_restart.is_none() => coverage.count("meters that fell to zero"),
            _ => return,
        }
        self.counted_at_restart = Some(counted);
        self.value = 0;
    }

    /// The value that the meter shows now.
    pub(crate) fn shows(&self, is_steady: bool, rng: &mut Rng, coverage: &mut Coverage) -> u64 {
        let deviates = !is_steady && self.grown_when_known.is_some() && rng.chance(200);
        match self.habit {
            Habit::StepsBack if deviates => {
                coverage.count("meters that stepped back a little");
                self.value - rng.between(1, NOISE)
            }
            Habit::Glitches if deviates => {
                coverage.count("meters that showed zero for a moment");
                0
            }
            _ => self.value,
        }
    }

    /// Whether all is counted that must be, and nothing twice: panics at the latter.
    pub(crate) fn is_counted(&self, total: i128) -> bool {
        let Meter { series, habit, grown, .. } = self;
        assert!(
            total <= i128::from(*grown),
            "meters: {series}, of a meter that {habit:?}, has {total}, and that grew by {grown} only"
        );
        total >= self.least()
    }

    /// The growth that must be counted in the end.
    pub(crate) fn least(&self) -> i128 {
        match (self.grown_when_known, self.counted_at_restart) {
            (None, _) => 0,
            (_, Some(counted)) => counted + i128::from(self.value),
            (Some(before), None) => i128::from(self.grown - before),
        }
    }
}
