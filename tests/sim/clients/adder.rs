//! A client that waits for its adds, as over HTTP: some with an idempotency key, retried at whichever box until they are
//! acknowledged; some without, which it does not repeat.

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

/// How long it waits for an answer.
const PATIENCE: Micros = 5 * SECOND;

#[derive(Debug)]
pub(crate) struct Adder {
    series: String,
    number: u64,
    /// What it is about to have added.
    add: Option<Add>,
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

/// What became of a try.
enum Fate {
    Pending,
    Added,
    Not,
    Unknown,
}

impl Adder {
    pub(crate) fn new(place: u64) -> Adder {
        Adder { series: format!("adds/{place}"), number: 0, add: None, asked: None }
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
            match self.fate(now, boxes, checks.founded) {
                Fate::Pending => return None,
                fate => self.conclude(&fate, checks, coverage),
            }
        }
        if self.add.is_none() {
            if !begins {
                return None;
            }
            self.number += 1;
            let key = rng.chance(500).then(|| format!("{}-{}", self.series, self.number));
            let amount = Amount::Counter(u128::from(rng.between(1, 1000)));
            self.add = Some(Add { series: self.series.clone(), amount, key });
        }
        self.ask(now, any_box(boxes, rng)?, boxes)
    }

    fn ask(&mut self, now: Micros, place: usize, boxes: &[SimBox]) -> Option<usize> {
        let (incarnation, add) = (boxes[place].incarnation.as_ref()?, self.add.as_ref()?);
        boxes[place].tell_time(now);
        match incarnation.handle.begin_add(add) {
            Ok((id, answer)) => {
                let until = now + PATIENCE;
                self.asked = Some(Asked { place, incarnation: incarnation.number, id, answer, until });
                Some(place)
            }
            Err(_) => {
                // It is certainly not done: another box is asked.
                None
            }
        }
    }

    fn fate(&mut self, now: Micros, boxes: &[SimBox], founded: u32) -> Fate {
        let Some(asked) = &mut self.asked else { return Fate::Not };
        match asked.answer.try_recv() {
            Ok(Outcome::Added(_)) => Fate::Added,
            Ok(Outcome::Failed(RequestError::OutcomeUnknown { .. })) | Err(TryRecvError::Closed) => {
                Fate::Unknown
            }
            // Before level 2, by a box that is ahead of site time.
            Ok(Outcome::Failed(RequestError::Refused(Refusal::WindowInFuture))) if founded < 2 => Fate::Not,
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
            Fate::Not | Fate::Unknown if key.is_some() => coverage.count("keyed adds asked for again"),
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
