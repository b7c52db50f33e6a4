//! A named source: numbered reports of signed amounts, sent again unchanged, at whichever box, until they are judged.

use tally_core::id::{Epoch, ReportNumber, SourceId};
use tallyd::node::encode_report;
use tallyd::request::{NamedReport, ReportAmount, ReportCell};
use tallyd::site::entry::{self, SourceKind};
use tallyd::site::{Applied, Body, Level, Verdict};
use tokio::sync::oneshot::error::TryRecvError;

use crate::boxes::SimBox;
use crate::checks::Checks;
use crate::clients::{Answer, any_box, propose};
use crate::coverage::Coverage;
use crate::plan::{Micros, SECOND};
use crate::rng::Rng;

const PATIENCE: Micros = 3 * SECOND;

#[derive(Debug)]
pub(crate) struct Reporter {
    place: u64,
    nonce: u128,
    epoch: Option<(SourceId, Epoch)>,
    next: ReportNumber,
    report: Option<NamedReport>,
    asked: Option<(Answer, Micros)>,
}

impl Reporter {
    pub(crate) fn new(place: u64, seed: u64) -> Reporter {
        Reporter {
            place,
            nonce: u128::from(seed) + 1,
            epoch: None,
            next: ReportNumber::FIRST,
            report: None,
            asked: None,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.report.is_none()
    }

    /// Looks after its report, begins one if it may; what it asks, and of which box.
    pub(crate) fn wake(
        &mut self,
        (now, begins): (Micros, bool),
        boxes: &[SimBox],
        rng: &mut Rng,
        (checks, coverage): (&mut Checks, &mut Coverage),
    ) -> Option<(usize, tallyd::node::Input)> {
        if let Some((answer, until)) = &mut self.asked {
            match answer.try_recv() {
                Err(TryRecvError::Empty) if now < *until => return None,
                Ok(Ok(applied)) => self.hear(&applied, coverage),
                // It goes again, unchanged.
                Ok(Err(_)) | Err(_) => coverage.count("reports sent again"),
            }
            self.asked = None;
        }
        let place = any_box(boxes, rng)?;
        let incarnation = boxes[place].incarnation.as_ref()?;
        // Before that level signed amounts go by what the receiving box knows.
        if incarnation.handle.site(|site| site.level()) < Level::TWO {
            return None;
        }
        let Some((source, epoch)) = self.epoch else {
            let name = format!("source-{}", self.place);
            let body = entry::open(SourceKind::Named, &name, self.nonce, Epoch(rng.next()));
            return Some(self.ask(now, place, body));
        };
        if self.report.is_none() {
            if !begins {
                return None;
            }
            self.report = Some(self.begin(epoch, rng, checks));
        }
        let report = self.report.as_ref()?;
        boxes[place].tell_time(now);
        let open = incarnation.handle.clock().site();
        let body = incarnation.handle.site(|site| encode_report(site, source, report, open)).ok()?;
        Some(self.ask(now, place, body))
    }

    fn ask(&mut self, now: Micros, place: usize, body: Body) -> (usize, tallyd::node::Input) {
        let (input, answer) = propose(body);
        self.asked = Some((answer, now + PATIENCE));
        (place, input)
    }

    fn begin(&mut self, epoch: Epoch, rng: &mut Rng, checks: &mut Checks) -> NamedReport {
        let number = self.next;
        let cells = (0..rng.between(1, 3)).map(|cell| {
            // Its series go up and down from the first report on.
            let falls = number == ReportNumber::FIRST || rng.chance(400);
            let add = rng.between(1, 100) as i128 * if falls && cell == 0 { -1 } else { 1 };
            let series = format!("stock/{}", self.place);
            checks.conservation.surely_signed(&series, add);
            ReportCell { series, window: None, amount: ReportAmount::Add(add) }
        });
        NamedReport { source: format!("source-{}", self.place), epoch, number, cells: cells.collect() }
    }

    fn hear(&mut self, applied: &Applied, coverage: &mut Coverage) {
        match applied {
            Applied::Opened { result: Ok(opened), .. } => self.epoch = self.epoch.or(Some(*opened)),
            Applied::Report { number, verdict: Verdict::Receipt { refused, .. }, .. }
                if *number == self.next =>
            {
                assert!(refused.is_empty(), "conservation: cells of a good report are refused: {refused:?}");
                coverage.count("reports acknowledged");
                self.report = None;
                self.next = self.next.next();
            }
            // Of a copy that was late.
            Applied::Report { number, .. } if *number < self.next => {}
            other => panic!("exactly once: a report that is sent again unchanged is judged {other:?}"),
        }
    }
}
