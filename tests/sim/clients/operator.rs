//! Somebody who moves leadership, changes settings, sets the clock.

use tallyd::node::{Command, Input};
use tallyd::site::entry;
use tokio::sync::oneshot;

use crate::boxes::SimBox;
use crate::checks::Checks;
use crate::clients::{any_box, propose};
use crate::coverage::Coverage;
use crate::rng::Rng;

#[derive(Debug, Default)]
pub(crate) struct Operator;

impl Operator {
    /// One thing of whatever kind, and at which box.
    pub(crate) fn act(
        boxes: &[SimBox],
        rng: &mut Rng,
        (checks, coverage): (&mut Checks, &mut Coverage),
    ) -> Option<(usize, Input)> {
        let place = any_box(boxes, rng)?;
        match rng.below(5) {
            0..=2 => {
                coverage.count("transfers asked for");
                let (reply, _) = oneshot::channel();
                Some((place, Input::Command(Command::Transfer { to: None, reply })))
            }
            3 => {
                coverage.count("settings changed");
                let grace = rng.pick(&["500ms", "2s", "1s"]);
                Some((place, propose(entry::set(rng.next(), "window.grace", grace)).0))
            }
            _ => {
                coverage.count("clocks stepped by an operator");
                checks.site_times.stepped();
                Some((place, propose(entry::step_clock()).0))
            }
        }
    }
}
