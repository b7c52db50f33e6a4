//! A named source that reports signed amounts.

use tallyd::node::Input;
use tallyd::request::{ReportAmount, ReportCell};
use tallyd::site::Refusal;

use crate::boxes::SimBox;
use crate::checks::Checks;
use crate::clients::{Source, Turn};
use crate::coverage::Coverage;
use crate::plan::Micros;
use crate::rng::Rng;

#[derive(Debug)]
pub(crate) struct Reporter {
    series: String,
    source: Source,
    /// What its report adds, cell by cell.
    adds: Vec<i128>,
    /// Whether the site has its series, which it may have no room for at first.
    is_there: bool,
}

impl Reporter {
    pub(crate) fn new(place: u64, seed: u64) -> Reporter {
        let source = Source::new(format!("source-{place}"), seed);
        Reporter { series: format!("stock/{place}"), source, adds: Vec::new(), is_there: false }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.source.is_idle()
    }

    /// Looks after its report, begins one if it may; what it asks, and of which box.
    pub(crate) fn wake(
        &mut self,
        (now, begins): (Micros, bool),
        boxes: &[SimBox],
        rng: &mut Rng,
        (checks, coverage): (&mut Checks, &mut Coverage),
    ) -> Option<(usize, Input)> {
        match self.source.turn(now, coverage) {
            Turn::Waits => return None,
            Turn::Free => {}
            Turn::Judged(refused) => self.judged(&refused, checks),
            Turn::Forgotten => {
                self.adds.clear();
                checks.conservation.is_unknown(&self.series);
            }
        }
        let Reporter { series, source, adds, is_there } = self;
        source.ask(now, boxes, rng, |_, rng| {
            if !begins {
                return None;
            }
            // Its series goes up and down from the first report on that the site takes.
            *adds = (0..rng.between(1, 3))
                .map(|cell| {
                    let falls = cell == 0 && (!*is_there || rng.chance(400));
                    rng.between(1, 100) as i128 * if falls { -1 } else { 1 }
                })
                .collect();
            let cell = |add: &i128| ReportCell {
                series: series.clone(),
                window: None,
                amount: ReportAmount::Add(*add),
            };
            Some(adds.iter().map(cell).collect())
        })
    }

    fn judged(&mut self, refused: &[(u32, Refusal)], checks: &mut Checks) {
        for (place, add) in (0..).zip(std::mem::take(&mut self.adds)) {
            match refused.iter().find(|(other, _)| *other == place) {
                None => {
                    self.is_there = true;
                    checks.conservation.surely_signed(&self.series, add);
                }
                Some((_, Refusal::TooManySeries)) if checks.is_narrow => {}
                Some(other) => panic!("conservation: a cell of a good report is refused: {other:?}"),
            }
        }
    }
}
