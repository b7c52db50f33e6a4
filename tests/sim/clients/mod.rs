//! Who uses the boxes. Each asks as the product's doors do, and hands over to the checks what it was told.

mod adder;
mod counter;
mod operator;
mod reader;
mod reporter;

pub(crate) use adder::Adder;
pub(crate) use counter::Counter;
pub(crate) use operator::Operator;
pub(crate) use reader::Reader;
pub(crate) use reporter::Reporter;

use tallyd::node::{Command, Input};
use tallyd::request::RequestError;
use tallyd::site::{Applied, Body};
use tokio::sync::oneshot;

use crate::boxes::SimBox;
use crate::plan::size;
use crate::rng::Rng;

pub(crate) type Answer = oneshot::Receiver<Result<Applied, RequestError>>;

/// A box that runs, by chance.
pub(crate) fn any_box(boxes: &[SimBox], rng: &mut Rng) -> Option<usize> {
    let place = size(rng.below(boxes.len() as u64));
    boxes[place].incarnation.is_some().then_some(place)
}

/// A body for the log, through a box; its answer comes later.
pub(crate) fn propose(body: Body) -> (Input, Answer) {
    let (reply, answer) = oneshot::channel();
    (Input::Command(Command::Propose { body, reply }), answer)
}
