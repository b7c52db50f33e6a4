//! A client: sends one report at a time and retries it, unchanged, at whichever box until it gets a
//! verdict; reads in between; sometimes forgets everything and begins a new epoch.

use std::rc::Rc;

use tally_core::id::{Epoch, NodeId, ReportNumber};
use tally_core::report::Judgement;

use crate::checks::Checks;
use crate::coverage::Coverage;
use crate::machine::{self, Outcome};
use crate::plan::Micros;
use crate::rng::Rng;

pub const SERIES: u64 = 3;

/// Longer than most answers take.
const PATIENCE: Micros = 60_000;

/// What a client asks a box.
#[derive(Clone, Debug)]
pub enum Request {
    /// Have this applied.
    Apply { waits_for: Waits, body: Rc<[u8]> },
    /// Read a series' total, linearizably.
    Read { client: usize, read: u64, series: u64 },
}

/// Which outcome a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    pub client: usize,
    pub epoch: Epoch,
    /// `None`: that the epoch is open.
    pub number: Option<ReportNumber>,
}

impl Waits {
    pub fn is_answered_by(&self, outcome: &Outcome) -> bool {
        match *outcome {
            Outcome::Nothing => false,
            Outcome::Opened { epoch } => self.number.is_none() && self.epoch == epoch,
            Outcome::Report { epoch, number, .. } => self.number == Some(number) && self.epoch == epoch,
        }
    }
}

/// What a box answers.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Applied(Outcome),
    Total { read: u64, total: u64 },
}

#[derive(Clone, Debug)]
enum Doing {
    Thinking,
    Opening,
    Reporting { number: ReportNumber, cells: Vec<(u64, u64)> },
    Reading { read: u64, series: u64 },
}

#[derive(Clone, Debug)]
pub struct Client {
    place: usize,
    epoch: Epoch,
    last: Option<ReportNumber>,
    is_open: bool,
    doing: Doing,
    reads: u64,
    /// When it acts next.
    pub wakes_at: Micros,
}

impl Client {
    pub fn new(place: usize) -> Client {
        let epoch = Epoch(1000 * (place as u64 + 1));
        Client { place, epoch, last: None, is_open: false, doing: Doing::Thinking, reads: 0, wakes_at: 0 }
    }

    /// Begins something, or asks again for what it waits for.
    pub fn wake(
        &mut self,
        now: Micros,
        boxes: u64,
        rng: &mut Rng,
        checks: &mut Checks,
        coverage: &mut Coverage,
    ) -> (NodeId, Request) {
        if matches!(self.doing, Doing::Reporting { .. }) && rng.chance(15) {
            // A power cut: a new life, and nobody knows what became of the last report.
            coverage.count("reports abandoned");
            self.epoch = Epoch(self.epoch.0 + 1);
            self.last = None;
            self.is_open = false;
            self.doing = Doing::Thinking;
        }
        if matches!(self.doing, Doing::Thinking | Doing::Reading { .. }) {
            self.doing = self.begin(rng, checks);
        }
        self.wakes_at = now + PATIENCE / 2 + rng.below(PATIENCE);
        (NodeId(rng.between(1, boxes)), self.request())
    }

    /// Takes an answer; an answer to what it no longer asks means nothing.
    pub fn hear(
        &mut self,
        now: Micros,
        answer: Answer,
        rng: &mut Rng,
        checks: &mut Checks,
        coverage: &mut Coverage,
    ) {
        match (&self.doing, answer) {
            (Doing::Opening, Answer::Applied(Outcome::Opened { epoch })) if epoch == self.epoch => {
                self.is_open = true
            }
            (
                Doing::Reporting { number, .. },
                Answer::Applied(Outcome::Report { epoch, number: of, judgement }),
            ) if epoch == self.epoch && of == *number => {
                match judgement {
                    Some(Judgement::Next) => coverage.count("reports acknowledged"),
                    Some(Judgement::Repeated) => coverage.count("reports acknowledged as repeated"),
                    other => panic!("a report that is retried unchanged is judged {other:?}"),
                }
                self.last = Some(*number);
                checks.conservation.acknowledged(epoch, of);
            }
            (Doing::Reading { read, series }, Answer::Total { read: of, total }) if *read == of => {
                coverage.count("reads served");
                checks.reads.answered(self.place, *series, total);
            }
            _ => return,
        }
        self.doing = Doing::Thinking;
        self.wakes_at = now + rng.below(8_000);
    }

    pub fn is_idle(&self) -> bool {
        matches!(self.doing, Doing::Thinking)
    }

    fn begin(&mut self, rng: &mut Rng, checks: &mut Checks) -> Doing {
        if !self.is_open {
            return Doing::Opening;
        }
        if rng.chance(300) {
            self.reads += 1;
            let series = rng.below(SERIES);
            checks.reads.asked(self.place, series, &checks.conservation);
            return Doing::Reading { read: self.reads, series };
        }
        let number = self.last.map_or(ReportNumber::FIRST, ReportNumber::next);
        let cells: Vec<(u64, u64)> =
            (0..rng.between(1, 3)).map(|_| (rng.below(SERIES), rng.between(1, 1000))).collect();
        checks.conservation.sent(self.epoch, number, &cells);
        Doing::Reporting { number, cells }
    }

    fn request(&self) -> Request {
        let waits = |number| Waits { client: self.place, epoch: self.epoch, number };
        match &self.doing {
            Doing::Thinking | Doing::Opening => {
                Request::Apply { waits_for: waits(None), body: machine::open(self.epoch) }
            }
            Doing::Reporting { number, cells } => Request::Apply {
                waits_for: waits(Some(*number)),
                body: machine::report(self.epoch, *number, cells),
            },
            Doing::Reading { read, series } => {
                Request::Read { client: self.place, read: *read, series: *series }
            }
        }
    }
}
