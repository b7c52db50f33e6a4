//! A client that waits for its adds, as over HTTP. Adds with an idempotency key are retried at any box until they are
//! acknowledged; adds without one are tried once.

use tally_core::report::Amount;
use tallyd::accumulator::{Outcome, Withdrawn};
use tallyd::request::{Add, RequestError};
use tallyd::site::Refusal;
use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::boxes::SimBox;
use crate::checks::Checks;
use crate::clients::any_box;
use crate::coverage::Coverage;
use crate::plan::{Micros, SECOND};
use crate::rng::Rng;

/// How long the client waits for an answer.
const PATIENCE: Micros = 5 * SECOND;
/// The longest key.
const KEY_BYTES_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Adder {
    series: String,
    number: u64,
    /// What it is about to have added.
    add: Option<Add>,
    /// A try of it may be under way still.
    is_unknown: bool,
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Asked {
    place: usize,
    incarnation: u64,
    id: u64,
    answer: oneshot::Receiver<Outcome>,
    until: Micros,
}

/// The result of a try.
enum Fate {
    Pending,
    Added,
    Not,
    Unknown,
    /// No room for its key or its series; the add is not repeated.
    NoRoom,
}

impl Adder {
    pub(crate) fn new(place: u64) -> Adder {
        Adder { series: format!("adds/{place}"), number: 0, add: None, is_unknown: false, asked: None }
    }

    /// One whose series is removed now and then.
    pub(crate) fn fading(place: u64) -> Adder {
        Adder { series: format!("gone/{place}"), ..Adder::new(place) }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.add.is_none()
    }

    /// Looks after its add, begins one if it may; the box that it has something for.
    pub(crate) fn wake(
        &mut self,
        (now, begins): (Micros, bool),
        boxes: &[SimBox],
        rng: &mut Rng,
        (checks, coverage): (&mut Checks, &mut Coverage),
    ) -> Option<usize> {
        if self.add.is_some() {
            match self.fate(now, boxes, checks) {
                Fate::Pending => return None,
                fate => self.conclude(&fate, checks, coverage),
            }
        }
        if self.add.is_none() {
            if !begins {
                return None;
            }
            self.number += 1;
            // Some are as long as a key may be.
            let width = if rng.chance(200) { KEY_BYTES_MAX } else { 0 };
            let key = rng.chance(500).then(|| format!("{}-{}", self.series, self.number));
            let key = key.map(|key| format!("{key:0>width$}"));
            let amount = Amount::Counter(u128::from(rng.between(1, 1000)));
            self.is_unknown = false;
            self.add = Some(Add { series: self.series.clone(), amount, key });
        }
        let place = any_box(boxes, rng)?;
        self.ask(now, place, boxes, (checks, coverage))
    }

    fn ask(
        &mut self,
        now: Micros,
        place: usize,
        boxes: &[SimBox],
        (checks, coverage): (&mut Checks, &mut Coverage),
    ) -> Option<usize> {
        let (incarnation, add) = (boxes[place].incarnation.as_ref()?, self.add.as_ref()?);
        boxes[place].tell_time(now);
        match incarnation.handle.begin_add(add) {
            Ok((id, answer)) => {
                let until = now + PATIENCE;
                self.asked = Some(Asked { place, incarnation: incarnation.number, id, answer, until });
                Some(place)
            }
            Err(RequestError::Refused(Refusal::TooManySeries) | RequestError::TooManyNew)
                if checks.is_narrow =>
            {
                self.conclude(&Fate::NoRoom, checks, coverage);
                None
            }
            // It is certainly not done: another box is asked.
            Err(_) => None,
        }
    }

    fn fate(&mut self, now: Micros, boxes: &[SimBox], checks: &Checks) -> Fate {
        let Some(asked) = &mut self.asked else { return Fate::Not };
        match asked.answer.try_recv() {
            Ok(Outcome::Added(_)) => Fate::Added,
            Ok(Outcome::Failed(RequestError::OutcomeUnknown { .. })) | Err(TryRecvError::Closed) => {
                Fate::Unknown
            }
            // Before level 2, by a box that is ahead of site time.
            Ok(Outcome::Failed(RequestError::Refused(Refusal::WindowInFuture))) if checks.founded < 2 => {
                Fate::Not
            }
            Ok(Outcome::Failed(RequestError::KeyTableFull)) => Fate::NoRoom,
            Ok(Outcome::Failed(RequestError::Refused(Refusal::TooManySeries))) if checks.is_narrow => {
                Fate::NoRoom
            }
            Ok(Outcome::Failed(RequestError::KeyReused | RequestError::Refused(_))) => {
                panic!("an add that nothing is wrong with is refused: {:?}", self.add)
            }
            Ok(Outcome::Failed(_)) => Fate::Not,
            Err(TryRecvError::Empty) if now < asked.until => Fate::Pending,
            Err(TryRecvError::Empty) => match &boxes[asked.place].incarnation {
                Some(incarnation) if incarnation.number == asked.incarnation => {
                    match incarnation.handle.accumulator().withdraw(asked.id) {
                        Withdrawn::BeforeItsBatch => Fate::Not,
                        Withdrawn::TooLate => Fate::Unknown,
                    }
                }
                _ => Fate::Unknown,
            },
        }
    }

    fn conclude(&mut self, fate: &Fate, checks: &mut Checks, coverage: &mut Coverage) {
        self.asked = None;
        let Some(Add { series, amount: Amount::Counter(amount), key }) = &self.add else { return };
        match fate {
            Fate::Added => {
                coverage.count("adds acknowledged");
                checks.conservation.surely(series, *amount);
                self.add = None;
            }
            // Under its key it is asked for again.
            Fate::Not | Fate::Unknown if key.is_some() => {
                coverage.count("keyed adds asked for again");
                self.is_unknown |= matches!(fate, Fate::Unknown);
            }
            Fate::NoRoom => {
                coverage.count("adds for which there was no room");
                if self.is_unknown {
                    checks.conservation.perhaps(series, *amount);
                }
                self.add = None;
            }
            Fate::Unknown => {
                coverage.count("adds whose outcome is unknown");
                checks.conservation.perhaps(series, *amount);
                self.add = None;
            }
            Fate::Not => {
                coverage.count("adds taken back");
                self.add = None;
            }
            Fate::Pending => {}
        }
    }
}
