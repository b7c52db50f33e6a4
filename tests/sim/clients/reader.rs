//! A client that reads the totals of growing series linearizably, at any box.

use tallyd::node::{Command, Input};
use tallyd::request::RequestError;
use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::boxes::SimBox;
use crate::checks::Checks;
use crate::clients::any_box;
use crate::coverage::Coverage;
use crate::plan::{Micros, SECOND};
use crate::rng::Rng;

const PATIENCE: Micros = 3 * SECOND;

#[derive(Debug, Default)]
pub(crate) struct Reader(Option<Asked>);

#[derive(Debug)]
struct Asked {
    place: usize,
    incarnation: u64,
    series: String,
    least: i128,
    answer: oneshot::Receiver<Result<(), RequestError>>,
    until: Micros,
}

impl Reader {
    /// Looks after its read, begins one; what it asks, and of which box.
    pub(crate) fn wake(
        &mut self,
        (now, begins): (Micros, bool),
        boxes: &[SimBox],
        rng: &mut Rng,
        (checks, coverage): (&mut Checks, &mut Coverage),
    ) -> Option<(usize, Input)> {
        if let Some(asked) = &mut self.0 {
            match asked.answer.try_recv() {
                Err(TryRecvError::Empty) if now < asked.until => return None,
                Ok(Ok(())) => {
                    if let Some(incarnation) = &boxes[asked.place].incarnation
                        && incarnation.number == asked.incarnation
                    {
                        coverage.count("reads served");
                        let total = incarnation.handle.site(|site| {
                            site.find(&asked.series).map_or(0, |series| site.series_total(series))
                        });
                        checks.reads.saw(&asked.series, asked.least, total);
                    }
                }
                Ok(Err(_)) | Err(_) => {}
            }
            self.0 = None;
        }
        let place = any_box(boxes, rng).filter(|_| begins)?;
        let series = format!("adds/{}", rng.below(3));
        let (reply, answer) = oneshot::channel();
        let least = checks.reads.asked(&series, &checks.conservation);
        let incarnation = boxes[place].incarnation.as_ref()?.number;
        self.0 = Some(Asked { place, incarnation, series, least, answer, until: now + PATIENCE });
        Some((place, Input::Command(Command::Fence { reply })))
    }
}
