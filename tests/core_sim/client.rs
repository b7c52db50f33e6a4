//! A client: sends one report at a time and retries it, unchanged, at whichever box until it gets a
//! verdict; reads in between; sometimes forgets everything and begins a new epoch.

use std::rc::Rc;

use tally_core::id::{Epoch, NodeId, ReportNumber, SourceId};
use tallyd::site::{Applied, Verdict};

use crate::machine;
use crate::plan::Micros;
use crate::sim::Sim;

pub(crate) const SERIES: u64 = 3;

/// Longer than most answers take.
const PATIENCE: Micros = 60_000;

/// What a client asks a box.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// Have this applied.
    Apply { waits_for: Waits, body: Rc<[u8]> },
    /// Read a series' total, linearizably.
    Read { client: usize, read: u64, series: u64 },
}

/// Which outcome a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waits {
    pub(crate) client: usize,
    what: WaitsFor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitsFor {
    Open { nonce: u128 },
    Verdict { source: SourceId, epoch: Epoch, number: ReportNumber },
}

impl Waits {
    pub(crate) fn is_answered_by(&self, applied: &Applied) -> bool {
        match *applied {
            Applied::Opened { nonce, .. } => self.what == WaitsFor::Open { nonce },
            Applied::Report { source, epoch, number, .. } => {
                self.what == WaitsFor::Verdict { source, epoch, number }
            }
            _ => false,
        }
    }
}

/// What a box answers.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Applied(Applied),
    Total { read: u64, total: u64 },
}

#[derive(Clone, Debug)]
enum Doing {
    Thinking,
    Opening,
    Reporting { number: ReportNumber, at: Micros, cells: Vec<(u64, u64)> },
    Reading { read: u64, series: u64 },
}

#[derive(Clone, Debug)]
pub(crate) struct Client {
    place: usize,
    /// How often its memory was lost.
    incarnation: u64,
    /// What it got for this incarnation.
    epoch: Option<(SourceId, Epoch)>,
    last: Option<ReportNumber>,
    doing: Doing,
    reads: u64,
    /// When it acts next.
    pub(crate) wakes_at: Micros,
}

impl Client {
    pub(crate) fn new(place: usize) -> Client {
        Client {
            place,
            incarnation: 0,
            epoch: None,
            last: None,
            doing: Doing::Thinking,
            reads: 0,
            wakes_at: 0,
        }
    }

    /// Begins something, or asks again for what it waits for.
    pub(crate) fn wake(&mut self, sim: &mut Sim) -> (NodeId, Request) {
        if matches!(self.doing, Doing::Reporting { .. }) && sim.rng.chance(15) {
            // A power cut: a new incarnation, and nobody knows what became of the last report.
            sim.coverage.count("reports abandoned");
            self.incarnation += 1;
            self.epoch = None;
            self.last = None;
            self.doing = Doing::Thinking;
        }
        if matches!(self.doing, Doing::Thinking | Doing::Reading { .. }) {
            self.doing = self.begin(sim);
        }
        self.wakes_at = sim.now + PATIENCE / 2 + sim.rng.below(PATIENCE);
        (NodeId(sim.rng.between(1, sim.plan.boxes)), self.request(sim))
    }

    /// Takes an answer; an answer to what it no longer asks means nothing.
    pub(crate) fn hear(&mut self, sim: &mut Sim, answer: &Answer) {
        let is_mine = match answer {
            Answer::Applied(applied) => self.hear_applied(sim, applied),
            Answer::Total { read, total } => self.hear_total(sim, *read, *total),
        };
        if is_mine {
            self.doing = Doing::Thinking;
            self.wakes_at = sim.now + sim.rng.below(8_000);
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.doing, Doing::Thinking)
    }

    fn hear_applied(&mut self, sim: &mut Sim, applied: &Applied) -> bool {
        if !self.waits().is_some_and(|waits| waits.is_answered_by(applied)) {
            return false;
        }
        match applied {
            Applied::Opened { result, .. } => {
                self.epoch = Some(result.expect("there are few sources"));
            }
            Applied::Report { source, epoch, number, verdict, .. } => {
                let Verdict::Receipt { repeated, refused, .. } = verdict else {
                    panic!("a report that is retried unchanged is judged {verdict:?}");
                };
                assert!(refused.is_empty(), "{refused:?}");
                let how = if *repeated { "reports acknowledged as repeated" } else { "reports acknowledged" };
                sim.coverage.count(how);
                self.last = Some(*number);
                sim.checks.conservation.acknowledged((*source, *epoch, *number));
            }
            other => panic!("{other:?} answers nobody"),
        }
        true
    }

    fn hear_total(&mut self, sim: &mut Sim, read: u64, total: u64) -> bool {
        let Doing::Reading { read: asked, series } = self.doing else { return false };
        if asked != read {
            return false;
        }
        sim.coverage.count("reads served");
        sim.checks.reads.answered(self.place, series, total);
        true
    }

    fn begin(&mut self, sim: &mut Sim) -> Doing {
        let Some((source, epoch)) = self.epoch else { return Doing::Opening };
        let Sim { rng, checks, .. } = sim;
        if rng.chance(300) {
            self.reads += 1;
            let series = rng.below(SERIES);
            checks.reads.asked(self.place, series, &checks.conservation);
            return Doing::Reading { read: self.reads, series };
        }
        let number = self.last.map_or(ReportNumber::FIRST, ReportNumber::next);
        let cells: Vec<(u64, u64)> =
            (0..rng.between(1, 3)).map(|_| (rng.below(SERIES), rng.between(1, 1000))).collect();
        checks.conservation.sent((source, epoch, number), &cells);
        // Some waited long in the client: their windows may be closed already.
        let waited = if rng.chance(100) { rng.below(4_000_000) } else { 0 };
        Doing::Reporting { number, at: sim.now.saturating_sub(waited), cells }
    }

    fn nonce(&self) -> u128 {
        (u128::from(self.incarnation) << 64) + self.place as u128 + 1
    }

    fn waits(&self) -> Option<Waits> {
        let what = match (&self.doing, self.epoch) {
            (Doing::Opening, _) => WaitsFor::Open { nonce: self.nonce() },
            (Doing::Reporting { number, .. }, Some((source, epoch))) => {
                WaitsFor::Verdict { source, epoch, number: *number }
            }
            _ => return None,
        };
        Some(Waits { client: self.place, what })
    }

    fn request(&self, sim: &mut Sim) -> Request {
        if let Doing::Reading { read, series } = self.doing {
            return Request::Read { client: self.place, read, series };
        }
        let body = match (&self.doing, self.epoch) {
            (Doing::Reporting { number, at, cells }, Some((source, epoch))) => {
                machine::report(source, epoch, *number, *at, cells)
            }
            // Three incarnations under one name; each box that is asked proposes another epoch.
            _ => {
                let name = format!("client-{}-{}", self.place, self.incarnation / 3);
                machine::open(&name, self.nonce(), Epoch(sim.rng.next()))
            }
        };
        let waits_for = self.waits().expect("whatever is not a read is waited for");
        Request::Apply { waits_for, body }
    }
}
