//! An operator, who moves leadership, changes settings and sets the clock.

use tallyd::node::{Command, Input};
use tallyd::site::{Applied, Body, entry};
use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::boxes::SimBox;
use crate::checks::Checks;
use crate::clients::{Answer, any_box, propose};
use crate::coverage::Coverage;
use crate::rng::Rng;

/// What is changed, and what that is for the coverage.
type Setting = (&'static str, &'static str, &'static str);

const SETTINGS: [Setting; 10] = [
    ("settings changed", "window.grace", "500ms"),
    ("settings changed", "window.grace", "2s"),
    ("settings changed", "window.grace", "1s"),
    ("settings changed", "outbox.numbered_max", "3"),
    // A span is a multiple of the base.
    ("settings changed", "window.spans", "counts/*=1001ms"),
    ("window spans changed", "window.spans", "counts/*=3s,udp.1.1=6s,levels/1/*=12s"),
    ("window spans changed", "window.spans", "meters/*=6s,adds/*=3s,counts/1/*=9s"),
    ("window spans changed", "window.spans", "default"),
    ("window spans changed", "window.base", "1s"),
    ("history bounded", "history.windows_max", "4"),
];

const NARROW: [Setting; 8] = [
    ("series bounded", "series.max", "12"),
    ("series bounded", "series.max", "40"),
    ("series bounded", "series.max", "20000"),
    ("sources bounded", "sources.max", "1"),
    ("sources bounded", "sources.max", "4"),
    ("keys bounded", "keys.max", "2"),
    ("keys bounded", "keys.max", "30"),
    ("keys bounded", "keys.max", "default"),
];

/// So many answers are waited for at most.
const ANSWERS_MAX: usize = 64;

/// The requests that wait for their answers: a request is dropped when nobody waits for it.
#[derive(Debug, Default)]
pub(crate) struct Operator {
    answers: Vec<Answer>,
}

impl Operator {
    /// Does one random thing, at a random box.
    pub(crate) fn act(
        &mut self,
        boxes: &[SimBox],
        rng: &mut Rng,
        (checks, coverage): (&mut Checks, &mut Coverage),
    ) -> Option<(usize, Input)> {
        self.hear(coverage);
        let place = any_box(boxes, rng)?;
        match rng.below(8) {
            0..=2 => {
                coverage.count("transfers asked for");
                let (reply, _) = oneshot::channel();
                Some((place, Input::Command(Command::Transfer { to: None, reply })))
            }
            3..=6 => {
                let settings = if checks.is_narrow && rng.chance(600) { &NARROW[..] } else { &SETTINGS };
                let (what, key, mut value) = rng.pick(settings);
                // Before level 2 a box that comes late finds no room either, until somebody raises that.
                if what == "sources bounded" && checks.founded < 2 {
                    value = "default";
                }
                coverage.count(what);
                Some((place, self.ask(entry::set(rng.next(), key, value))))
            }
            _ => {
                coverage.count("clocks stepped by an operator");
                checks.site_times.stepped();
                Some((place, self.ask(entry::step_clock())))
            }
        }
    }

    /// A body for the log.
    pub(crate) fn ask(&mut self, body: Body) -> Input {
        let (input, answer) = propose(body);
        self.answers.push(answer);
        if self.answers.len() > ANSWERS_MAX {
            self.answers.remove(0);
        }
        input
    }

    fn hear(&mut self, coverage: &mut Coverage) {
        self.answers.retain_mut(|answer| {
            match answer.try_recv() {
                Err(TryRecvError::Empty) => return true,
                Ok(Ok(Applied::Set { result: Ok(_), .. })) => coverage.count("settings in force"),
                Ok(Ok(Applied::Set { result: Err(_), .. })) => coverage.count("settings refused"),
                Ok(Ok(Applied::Stepped { from, to })) if to < from => {
                    coverage.count("site time set back by an operator");
                }
                Ok(Ok(Applied::Stepped { .. })) => coverage.count("site time set ahead by an operator"),
                Ok(_) | Err(TryRecvError::Closed) => {}
            }
            false
        });
    }
}
