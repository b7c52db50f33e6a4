//! The clients of the boxes. Each sends requests as the product's ways in do, and gives the answers to the checks.

mod adder;
mod counter;
mod gateway;
mod meter;
mod operator;
mod poller;
mod reader;
mod reporter;
mod source;
mod statsd;
mod visitor;

pub(crate) use adder::Adder;
pub(crate) use counter::Counter;
pub(crate) use gateway::Gateways;
pub(crate) use meter::{Habit, Meter};
pub(crate) use operator::Operator;
pub(crate) use poller::Poller;
pub(crate) use reader::Reader;
pub(crate) use reporter::Reporter;
pub(crate) use source::{Source, Turn};
pub(crate) use statsd::Statsd;
pub(crate) use visitor::Visitor;

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
