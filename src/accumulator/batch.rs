//! A frozen batch: what it says, who waits for it, and what they are told.

use tally_core::report::Kind;
use tally_core::time::SiteTime;
use tokio::sync::oneshot;

use super::{MeterSlot, Outcome, Slot};
use crate::request::{Added, RequestError};
use crate::site::{Body, KeyOutcome, Refusal, SeriesId, Site};

/// A batch that is on its way, unchanged until its receipt comes.
#[derive(Debug, Default)]
pub struct Batch {
    /// The report.
    pub body: Body,
    /// The hash of its content that the entry names.
    pub hash: u64,
    /// Its cells without a key, in order: which slot, window and kind.
    pub(super) cells: Vec<(Slot, SiteTime, Kind)>,
    /// Its readings, by their place among the cells.
    pub(super) readings: Vec<(u32, MeterSlot)>,
    /// Who waits for a cell without a key.
    pub(super) waiters: Vec<Waiter>,
    /// Who waits for a keyed add, in the order of the entry.
    pub(super) keyed: Vec<Waiter>,
}

/// Someone who waits for a batch.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) slot: Slot,
    pub(super) window: SiteTime,
    pub(super) kind: Kind,
    /// As the site numbers it, once the batch is settled.
    pub(super) series: Option<SeriesId>,
    pub(super) answer: oneshot::Sender<Outcome>,
}

impl Waiter {
    pub(super) fn tell(self, outcome: Outcome) {
        // The client may have gone; its add stands all the same.
        let _ = self.answer.send(outcome);
    }
}

impl Batch {
    /// One that nobody waits for.
    pub fn of_body(body: Body) -> Batch {
        Batch { body, ..Batch::default() }
    }

    /// The number of requests that wait for the batch.
    pub fn waiting(&self) -> usize {
        self.waiters.len() + self.keyed.len()
    }

    /// How many cells without a key it has.
    #[cfg(test)]
    pub(crate) fn cells_len(&self) -> usize {
        self.cells.len()
    }

    /// How many of these are readings.
    #[cfg(test)]
    pub(crate) fn readings_len(&self) -> usize {
        self.readings.len()
    }

    /// Notes a reading. No client waits for one: its window is none that a waiter can have.
    pub(super) fn push_reading(&mut self, place: u32, meter: MeterSlot, slot: Slot) {
        self.readings.push((place, meter));
        self.cells.push((slot, SiteTime(u64::MAX), Kind::Counter));
    }

    /// Notes a cell that has no slot any more.
    pub(super) fn push_orphan(&mut self, kind: Kind) {
        self.cells.push((Slot::NONE, SiteTime(u64::MAX), kind));
    }

    /// Learns how the site numbers what its waiters wait for.
    pub(super) fn learn(&mut self, series: impl Fn(Slot) -> Option<SeriesId>) {
        for waiter in &mut self.waiters {
            waiter.series = series(waiter.slot);
        }
    }

    /// Answers all who wait, from the receipt and the site as it is with the batch applied. The batch is settled
    /// before: see [`super::Accumulator::settle`].
    pub fn answer(self, site: &Site, refused: &[(u32, Refusal)], keyed: &[KeyOutcome]) {
        let time = site.stamp().site;
        let refused_cell = |waiter: &Waiter| {
            let its = (waiter.slot, waiter.window, waiter.kind);
            let is_its = |place: u32| self.cells.get(place as usize) == Some(&its);
            refused.iter().find(|(place, _)| is_its(*place)).map(|(_, refusal)| *refusal)
        };
        for waiter in self.waiters {
            let refusal = if refused.is_empty() { None } else { refused_cell(&waiter) };
            let outcome = match (refusal, waiter.series) {
                (Some(refusal), _) => refused_as(refusal),
                (None, Some(id)) => Outcome::Added(Added { total: site.series_total(id), time }),
                (None, None) => unknown("the site does not know the series after applying its batch"),
            };
            waiter.tell(outcome);
        }
        let mut outcomes = keyed.iter();
        for waiter in self.keyed {
            waiter.tell(match outcomes.next() {
                Some(outcome) => of_key(outcome),
                None => unknown(
                    "the batch was applied before, and the site has forgotten the results of its keys",
                ),
            });
        }
    }

    /// Tells all who wait that nobody knows.
    pub fn give_up(self, why: &str) {
        for waiter in self.waiters.into_iter().chain(self.keyed) {
            waiter.tell(unknown(why));
        }
    }
}

fn of_key(outcome: &KeyOutcome) -> Outcome {
    Outcome::Failed(match *outcome {
        KeyOutcome::Added { total, time } | KeyOutcome::Known { total, time } => {
            return Outcome::Added(Added { total, time });
        }
        KeyOutcome::Reused => RequestError::KeyReused,
        KeyOutcome::Stale => return unknown("this try took longer than the lifetime of its key"),
        KeyOutcome::TableFull => RequestError::KeyTableFull,
        KeyOutcome::Refused(refusal) => return refused_as(refusal),
    })
}

/// An add for a series that was removed in between was certainly not counted, and its client may try again: then it
/// counts for a new series.
fn refused_as(refusal: Refusal) -> Outcome {
    Outcome::Failed(match refusal {
        Refusal::Removed => RequestError::NotCommitted { why: refusal.to_string() },
        refusal => RequestError::Refused(refusal),
    })
}

fn unknown(why: &str) -> Outcome {
    Outcome::Failed(RequestError::OutcomeUnknown { why: why.to_owned() })
}
