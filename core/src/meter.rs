//! Turns the readings of a meter, a cumulative value that is kept outside the site, into increases of a counter.
//!
//! Readings can come late, from several boxes, after any outage; a meter can restart at zero, wrap, step back a little,
//! show zero for a moment or jump. Growth is counted once whatever happens between two readings; a reading whose
//! meaning is not
//! clear yet (is this zero a restart or a glitch? is this jump real?) waits, and the value before it is kept, so that
//! nothing
//! is lost by waiting.

use crate::id::SourceId;
use crate::time::SiteTime;

/// The default noise is at most this.
pub const NOISE_MAX: u64 = 1_000;

/// The default noise is the value by this.
const NOISE_DIVISOR: u64 = 1_000;

/// The default glitch window, in milliseconds.
pub const GLITCH_WINDOW_MS: u64 = 10_000;

/// The longest glitch window, in milliseconds: a day.
pub const GLITCH_WINDOW_MS_MAX: u64 = 86_400_000;

/// The rule for the readings of a meter. Each reading carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeterRule {
    /// The value at which the meter wraps to 0. No reading is above it.
    pub ceiling: Option<u64>,
    /// A step back of up to this counts nothing. `None`: 0.1 % of the value, and at most [`NOISE_MAX`]. Never more
    /// than half the value.
    pub noise: Option<u64>,
    /// A fall to zero that recovers within this time is ignored; a jump that lasts this long is accepted.
    pub glitch_window_ms: u64,
    /// A step of more than this is held until a later reading confirms it.
    pub step_max: Option<u64>,
}

impl MeterRule {
    /// The default rule.
    pub const DEFAULT: MeterRule =
        MeterRule { ceiling: None, noise: None, glitch_window_ms: GLITCH_WINDOW_MS, step_max: None };

    /// How far back from a value is no step at all.
    const fn noise_at(&self, value: u64) -> u64 {
        let (noise, most) = match self.noise {
            Some(noise) => (noise, value / 2),
            None => (value / NOISE_DIVISOR, NOISE_MAX),
        };
        if noise < most { noise } else { most }
    }

    fn is_jump(&self, step: u64) -> bool {
        self.step_max.is_some_and(|most| step > most)
    }
}

impl Default for MeterRule {
    fn default() -> MeterRule {
        MeterRule::DEFAULT
    }
}

/// A reading of a meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The value.
    pub value: u64,
    /// When it was heard.
    pub heard: SiteTime,
    /// Who heard it. Readings of one source come in the order in which it heard them.
    pub source: SourceId,
    /// Names the incarnation of the meter, such as a hash of a boot id: another one began at zero. 0: not known.
    pub incarnation: u64,
}

/// When a reading is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Site time.
    pub now: SiteTime,
    /// By how much the boxes' views of site time can differ, in milliseconds.
    pub grace_ms: u64,
}

/// The state of a meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meter {
    /// The value up to which everything is counted.
    pub base: u64,
    /// When the latest accepted reading was heard.
    pub heard: SiteTime,
    /// By whom.
    pub source: SourceId,
    /// The incarnation that it was of; 0: not known.
    pub incarnation: u64,
    /// A reading whose meaning is not clear yet.
    pub pending: Pending,
}

/// A reading whose meaning is not clear yet. `base` is still the value before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// Nothing.
    None,
    /// It fell to about zero: a restart, unless it is back soon.
    Fall {
        /// The highest value since.
        value: u64,
        /// What it counts for besides the value: at a wrap, what was left up to the ceiling.
        gain: u64,
        /// When the fall was heard.
        at: SiteTime,
        /// The site time from which on it is a restart, though no further reading says so.
        due: SiteTime,
    },
    /// A step of more than `step_max`.
    Jump {
        /// To which value.
        value: u64,
        /// It was a restart or wrap, with this gain; `None`: growth.
        from_zero: Option<u64>,
        /// When it was heard.
        at: SiteTime,
    },
}

/// The meaning of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The first one: the base that increases are counted from.
    First,
    /// Heard before what is known already: nothing was changed.
    Late,
    /// No growth, or a step back within the noise.
    Unchanged,
    /// Growth.
    Grew,
    /// The meter was restarted, or wrapped.
    Restarted,
    /// The meter fell to about zero; the meaning is not clear yet.
    Fell,
    /// The meter had fallen and recovered: the fall is ignored.
    Returned,
    /// The step is larger than `step_max` and needs confirmation.
    Held,
    /// A held jump stood for long enough and is counted.
    Confirmed,
}

/// The result of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The meter after it.
    pub meter: Meter,
    /// The increase to count.
    pub increase: u128,
    /// The meaning of the reading.
    pub outcome: Outcome,
}

impl Step {
    /// Whether two such readings in a row say no more than the second one alone.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        matches!(self.outcome, Outcome::Grew | Outcome::Unchanged | Outcome::Late)
            && matches!(self.meter.pending, Pending::None)
    }
}

/// Evaluates a reading of a meter with the state `before` (`None`: a new meter).
///
/// * The first one is the base and counts nothing.
/// * One heard more than the grace before the latest is late and changes nothing. Nor does one that shows less and
///   may have been heard before: earlier by its time, or by another source within the grace.
/// * Growth counts, whatever the time between.
/// * A step back of up to the noise counts nothing, and the base stays, so that the way up again counts nothing.
/// * Another incarnation, or a fall, is a restart: the value counts as growth from zero. If the ceiling is nearer going up
///   than the value going down (the fall is of more than half the ceiling), it is a wrap.
/// * A fall to about zero (within the noise of zero) waits for the glitch window: a value that is back at the old one
///   by then is growth from the old one; a value between makes it a restart at once.
/// * A step of more than `step_max` is held: counted when a reading that is heard a glitch window later is not below
///   it; dropped when a reading fits the old value.
#[must_use]
pub fn step(before: Option<&Meter>, reading: &Reading, rule: &MeterRule, moment: Moment) -> Step {
    // A clock that is ahead must not make all that follows late.
    let heard = reading.heard.min(moment.now);
    let Reading { value, source, incarnation, .. } = *reading;
    let Some(before) = before else {
        let meter = Meter { base: value, heard, source, incarnation, pending: Pending::None };
        return Step { meter, increase: 0, outcome: Outcome::First };
    };
    let reboot = before.incarnation != 0 && incarnation != 0 && before.incarnation != incarnation;
    if before.is_late(value, heard, source, reboot, moment.grace_ms) {
        return Step { meter: *before, increase: 0, outcome: Outcome::Late };
    }
    let mut meter = *before;
    meter.heard = heard.max(before.heard);
    meter.source = source;
    if incarnation != 0 {
        meter.incarnation = incarnation;
    }
    let mut taking = Taking { meter, rule, value, heard, moment, increase: 0, outcome: Outcome::Unchanged };
    if reboot {
        taking.restart();
    } else {
        taking.take();
    }
    Step { meter: taking.meter, increase: taking.increase, outcome: taking.outcome }
}

impl Meter {
    fn is_late(&self, value: u64, heard: SiteTime, source: SourceId, reboot: bool, grace_ms: u64) -> bool {
        if heard.0.saturating_add(grace_ms) < self.heard.0 {
            return true;
        }
        let in_order = if source == self.source {
            heard >= self.heard
        } else {
            heard.0 > self.heard.0.saturating_add(grace_ms)
        };
        if reboot { heard < self.heard } else { value < self.base && !in_order }
    }

    /// When a fall becomes a restart without a further reading.
    #[must_use]
    pub const fn due(&self) -> Option<SiteTime> {
        match self.pending {
            Pending::Fall { due, .. } => Some(due),
            Pending::None | Pending::Jump { .. } => None,
        }
    }

    /// A fall is a restart: returns what is to be counted.
    pub fn settle(&mut self) -> u128 {
        let Pending::Fall { value, gain, .. } = self.pending else { return 0 };
        self.pending = Pending::None;
        self.base = value;
        u128::from(gain) + u128::from(value)
    }

    /// Site time was set back to `to`: what was heard later was heard then.
    pub fn step_clock(&mut self, to: SiteTime) {
        self.heard = self.heard.min(to);
        match &mut self.pending {
            Pending::None => {}
            Pending::Jump { at, .. } => *at = to.min(*at),
            Pending::Fall { at, due, .. } => {
                let wait = due.0.saturating_sub(at.0);
                *at = to.min(*at);
                *due = SiteTime(due.0.min(to.0.saturating_add(wait)));
            }
        }
    }
}

/// A reading that is being taken.
struct Taking<'a> {
    meter: Meter,
    rule: &'a MeterRule,
    value: u64,
    heard: SiteTime,
    moment: Moment,
    increase: u128,
    outcome: Outcome,
}

impl Taking<'_> {
    fn take(&mut self) {
        match self.meter.pending {
            Pending::None => self.compare(),
            Pending::Fall { value, gain, at, due } => {
                if self.has_passed(at) {
                    self.increase += self.meter.settle();
                    self.outcome = Outcome::Restarted;
                    self.compare();
                } else if self.is_back() {
                    self.meter.pending = Pending::None;
                    self.compare();
                    if self.outcome != Outcome::Held {
                        self.outcome = Outcome::Returned;
                    }
                } else if self.is_near_zero() {
                    let value = value.max(self.value);
                    self.meter.pending = Pending::Fall { value, gain, at, due };
                } else {
                    self.increase += self.meter.settle();
                    self.outcome = Outcome::Restarted;
                    self.compare();
                }
            }
            Pending::Jump { value, from_zero, at } => self.judge_jump(value, from_zero, at),
        }
    }

    fn judge_jump(&mut self, value: u64, from_zero: Option<u64>, at: SiteTime) {
        let base = self.meter.base;
        let fits_base = self.is_back() && !self.rule.is_jump(self.value.saturating_sub(base));
        let stands = self.value.saturating_add(self.rule.noise_at(value)) >= value
            && (from_zero.is_none() || !self.is_back());
        if !fits_base && stands && !self.has_passed(at) {
            return;
        }
        self.meter.pending = Pending::None;
        if !fits_base && stands {
            self.increase += match from_zero {
                Some(gain) => u128::from(gain) + u128::from(value),
                None => u128::from(value.saturating_sub(base)),
            };
            self.meter.base = value;
            self.outcome = Outcome::Confirmed;
        }
        self.compare();
    }

    /// Another incarnation of the meter: it began at zero, however much it shows by now.
    fn restart(&mut self) {
        self.increase += self.meter.settle();
        self.meter.pending = Pending::None;
        self.meter.base = 0;
        self.compare();
        if self.outcome != Outcome::Held {
            self.outcome = Outcome::Restarted;
        }
    }

    /// Against the base, with nothing pending.
    fn compare(&mut self) {
        let (base, value) = (self.meter.base, self.value);
        if let Some(growth) = value.checked_sub(base) {
            if self.rule.is_jump(growth) {
                return self.hold(None);
            }
            self.increase += u128::from(growth);
            self.meter.base = value;
            if growth > 0 && self.outcome == Outcome::Unchanged {
                self.outcome = Outcome::Grew;
            }
            return;
        }
        let back = base - value;
        if back <= self.rule.noise_at(base) {
            return;
        }
        let gain = self.gain_of_wrap(back).unwrap_or(0);
        if self.rule.is_jump(gain.saturating_add(value)) {
            return self.hold(Some(gain));
        }
        if self.is_near_zero() && self.rule.glitch_window_ms > 0 {
            let wait = self.rule.glitch_window_ms.saturating_add(self.moment.grace_ms);
            let due = SiteTime(self.moment.now.0.saturating_add(wait));
            self.meter.pending = Pending::Fall { value, gain, at: self.heard, due };
            self.outcome = Outcome::Fell;
            return;
        }
        self.increase += u128::from(gain) + u128::from(value);
        self.meter.base = value;
        self.outcome = Outcome::Restarted;
    }

    /// What was left up to the ceiling, if a fall by `back` was a wrap.
    fn gain_of_wrap(&self, back: u64) -> Option<u64> {
        let gain = self.rule.ceiling?.checked_sub(self.meter.base)?;
        gain.checked_add(self.value).filter(|step| *step < back).map(|_| gain)
    }

    fn hold(&mut self, from_zero: Option<u64>) {
        self.meter.pending = Pending::Jump { value: self.value, from_zero, at: self.heard };
        self.outcome = Outcome::Held;
    }

    /// Whether the glitch window has passed since.
    fn has_passed(&self, at: SiteTime) -> bool {
        self.heard.0 >= at.0.saturating_add(self.rule.glitch_window_ms)
    }

    /// Whether it shows the old value again, or more.
    fn is_back(&self) -> bool {
        self.value.saturating_add(self.rule.noise_at(self.meter.base)) >= self.meter.base
    }

    fn is_near_zero(&self) -> bool {
        self.value <= self.rule.noise_at(self.meter.base)
    }
}

#[cfg(test)]
#[path = "meter_tests.rs"]
mod tests;
