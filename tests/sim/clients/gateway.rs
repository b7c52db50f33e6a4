//! Two gateways that hear the same meter and report it, at any box.

use tallyd::node::Input;
use tallyd::request::{ReportAmount, ReportCell, ReportReading};

use crate::boxes::SimBox;
use crate::clients::{Meter, Source, Turn};
use crate::coverage::Coverage;
use crate::plan::Micros;
use crate::rng::Rng;

#[derive(Debug)]
pub(crate) struct Gateways {
    pub(crate) meter: Meter,
    pub(crate) sources: [Source; 2],
}

impl Gateways {
    pub(crate) fn new(number: u64, rng: &mut Rng) -> Gateways {
        let meter = Meter::new(format!("shared/{number}"), true, rng);
        let sources = [0, 1].map(|which| Source::new(format!("gateway-{number}-{which}"), rng.next()));
        Gateways { meter, sources }
    }

    /// Lets one of them look after its report and tell what it hears.
    pub(crate) fn wake(
        &mut self,
        which: usize,
        (now, is_steady): (Micros, bool),
        boxes: &[SimBox],
        rng: &mut Rng,
        coverage: &mut Coverage,
    ) -> Option<(usize, Input)> {
        let Gateways { meter, sources } = self;
        match sources[which].turn(now, coverage) {
            Turn::Waits => return None,
            Turn::Free | Turn::Forgotten => {}
            Turn::Judged(refused) => {
                coverage.add("readings reported", u64::from(refused.is_empty()));
            }
        }
        sources[which].ask(now, boxes, rng, |one, rng| {
            let heard = one.incarnation.as_ref()?.handle.clock().site();
            let reading = ReportReading {
                meter: meter.name.clone(),
                value: meter.shows(is_steady, rng, coverage),
                heard: Some(heard),
                incarnation: None,
                rule: meter.rule,
            };
            let amount = ReportAmount::Reading(reading);
            Some(vec![ReportCell { series: meter.series.clone(), window: None, amount }])
        })
    }
}
