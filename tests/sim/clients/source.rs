//! A named source's way to the site: it opens an epoch and sends numbered reports, each unchanged and at any box until
//! the site has applied or refused it.

use tally_core::id::{Epoch, ReportNumber, SourceId};
use tallyd::node::{Input, encode_report};
use tallyd::request::{NamedReport, ReportCell};
use tallyd::site::entry::{self, SourceKind};
use tallyd::site::{Applied, Level, OpenRefused, Refusal, Verdict};
use tokio::sync::oneshot::error::TryRecvError;

use crate::boxes::SimBox;
use crate::clients::{Answer, any_box, propose};
use crate::coverage::Coverage;
use crate::plan::{Micros, SECOND};
use crate::rng::Rng;

const PATIENCE: Micros = 3 * SECOND;

#[derive(Debug)]
pub(crate) struct Source {
    name: String,
    nonce: u128,
    epoch: Option<(SourceId, Epoch)>,
    next: ReportNumber,
    report: Option<NamedReport>,
    asked: Option<(Answer, Micros)>,
}

/// The result of a wake.
pub(crate) enum Turn {
    /// The source waits for an answer.
    Waits,
    /// The source can send a report.
    Free,
    /// A report was judged: these of its cells were refused.
    Judged(Vec<(u32, Refusal)>),
    /// A report was or may have been applied, and the site has forgotten what of it was refused.
    Forgotten,
}

impl Source {
    pub(crate) fn new(name: String, seed: u64) -> Source {
        let nonce = u128::from(seed >> 1) + 1;
        Source { name, nonce, epoch: None, next: ReportNumber::FIRST, report: None, asked: None }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.report.is_none()
    }

    /// Looks after what was asked.
    pub(crate) fn turn(&mut self, now: Micros, coverage: &mut Coverage) -> Turn {
        let mut judged = None;
        if let Some((answer, until)) = &mut self.asked {
            match answer.try_recv() {
                Err(TryRecvError::Empty) if now < *until => return Turn::Waits,
                Ok(Ok(applied)) => judged = self.hear(applied, coverage),
                // It goes again, unchanged.
                Ok(Err(_)) | Err(_) => coverage.count("reports sent again"),
            }
            self.asked = None;
        }
        judged.unwrap_or(Turn::Free)
    }

    /// What it asks next, and of which box; `make` is asked for the cells of a further report.
    pub(crate) fn ask(
        &mut self,
        now: Micros,
        boxes: &[SimBox],
        rng: &mut Rng,
        make: impl FnOnce(&SimBox, &mut Rng) -> Option<Vec<ReportCell>>,
    ) -> Option<(usize, Input)> {
        let place = any_box(boxes, rng)?;
        let one = &boxes[place];
        let incarnation = one.incarnation.as_ref()?;
        // Before that level signed amounts go by what the receiving box knows, and readings are not taken.
        if incarnation.handle.site(|site| site.level()) < Level::TWO {
            return None;
        }
        one.tell_time(now);
        let body = match self.epoch {
            None => entry::open(SourceKind::Named, &self.name, self.nonce, Epoch(rng.next())),
            Some((source, epoch)) => {
                if self.report.is_none() {
                    let (source, number) = (self.name.clone(), self.next);
                    self.report = make(one, rng).map(|cells| NamedReport { source, epoch, number, cells });
                }
                let report = self.report.as_mut()?;
                // It goes under another epoch if its own was closed before it was applied.
                (report.epoch, report.number) = (epoch, self.next);
                let open = incarnation.handle.clock().site();
                incarnation.handle.site(|site| encode_report(site, source, report, open)).ok()?
            }
        };
        let (input, answer) = propose(body);
        self.asked = Some((answer, now + PATIENCE));
        Some((place, input))
    }

    /// What it means for its report.
    fn hear(&mut self, applied: Applied, coverage: &mut Coverage) -> Option<Turn> {
        match applied {
            Applied::Opened { result: Ok(opened), .. } => self.epoch = self.epoch.or(Some(opened)),
            Applied::Opened { result: Err(OpenRefused::TooManySources), .. } => {
                coverage.count("sources for whom there was no room");
            }
            Applied::Report { number, verdict: Verdict::Receipt { refused, .. }, .. }
                if number == self.next =>
            {
                coverage.count("reports acknowledged");
                self.report = None;
                self.next = self.next.next();
                return Some(Turn::Judged(refused));
            }
            // It was silent for so long that the site closed its epoch.
            Applied::Report { number, verdict: Verdict::UnknownEpoch { last }, .. }
                if number == self.next =>
            {
                coverage.count("epochs of silent sources closed");
                self.epoch = None;
                self.nonce += 1;
                self.next = ReportNumber::FIRST;
                if last.may_include(number) {
                    self.report = None;
                    return Some(Turn::Forgotten);
                }
            }
            // Of a copy that was late.
            Applied::Report { number, .. } if number < self.next => {}
            other => panic!("exactly once: a report that is sent again unchanged is judged {other:?}"),
        }
        None
    }
}
