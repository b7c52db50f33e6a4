//! The upstream's decisions, as a deterministic state machine: whether to connect, to probe or to wait, and on a
//! connection what to number, publish, set aside, release and record as delivered.
//!
//! It waits for nothing: it is woken with the time, takes in what came, and hands over in a queue what is to be done
//! outside it ([`Output`]). It reads the site directly, and asks it for what has to be agreed on. A shell does all that
//! in the daemon, a simulation in the tests.
//!
//! * here: its ends, and the stages from standing by to a connection and back.
//! * `leaving`: the end of a session.
//! * `session`: what is known of one connection, and the round of work on it.

mod leaving;
mod stages;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::formats::{Formats, Naming};
use super::outbox::{Ask, SiteView};
use super::session::{End, Session};
use super::status::SharedStatus;
use super::trials::Trials;
use crate::backoff::Backoff;
use crate::deliberate::{self, Bug};
use crate::mqtt::{Answer, BrokerUrl, Ending, Limits, Message};
use crate::random::Random;
use leaving::Leaving;
pub(super) use stages::GOOD_AFTER;
use stages::{Standby, Try};

/// What comes to the upstream, beside changes of the site, for which it is only woken.
#[derive(Debug)]
pub enum Input {
    /// What became of what it asked of the site.
    Asked {
        /// By which number it was asked.
        ticket: u64,
        /// What became of it.
        result: Result<(), String>,
    },
    /// The connection is there, with what the broker said of itself, or it is not.
    Opened {
        /// Which.
        connection: u64,
        /// What became of it.
        result: Result<Limits, Ending>,
    },
    /// What the broker did on a connection; messages go by their numbers.
    Answer {
        /// Which connection.
        connection: u64,
        /// What came.
        answer: Answer<u64>,
    },
    /// The connection that was to be closed is.
    Closed {
        /// Which.
        connection: u64,
    },
    /// Whether the broker is there.
    Probed {
        /// By which number that was asked.
        ticket: u64,
        /// Why not, if not.
        result: Result<(), String>,
    },
    /// The upstream is to stop. `last`: no box is left that could lead.
    Stop {
        /// See there.
        last: bool,
    },
}

/// What is to be done outside.
#[derive(Debug)]
pub enum Output {
    /// Ask something of the site.
    Ask {
        /// By which number.
        ticket: u64,
        /// What.
        ask: Ask,
    },
    /// Connect to the broker, and lay down the will.
    Connect {
        /// How the connection is called.
        connection: u64,
        /// The will.
        will: Message,
    },
    /// Publish a message on the connection.
    Send {
        /// Its number.
        id: u64,
        /// What.
        message: Message,
    },
    /// Subscribe on the connection.
    Subscribe {
        /// The number by which that is answered.
        id: u64,
        /// To what.
        topic: String,
    },
    /// Close the connection in order, and say so.
    Close {
        /// Which.
        connection: u64,
        /// The session ends too.
        last: bool,
    },
    /// Drop the connection, or what is to become one.
    Abandon,
    /// See whether the broker is there, disturbing nobody.
    Probe {
        /// By which number.
        ticket: u64,
    },
    /// Nobody wants to know that any more.
    EndProbe,
}

/// What the upstream is told once.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The names of its topics.
    pub naming: Naming,
    /// What it publishes.
    pub formats: Formats,
    /// The broker, as it is shown.
    pub broker: BrokerUrl,
    /// How long the broker may leave all messages unanswered.
    pub answer_timeout: Duration,
}

/// Where it is.
#[derive(Debug)]
enum Stage {
    /// Another box leads.
    Standby(Standby),
    /// This box seems to lead; that is confirmed before it connects, by the ask of this number.
    Confirming(u64),
    /// It waits for the connection.
    Connecting,
    /// Connected. That it leads is confirmed once more, since then.
    ConfirmingAgain(u64),
    /// It publishes.
    Publishing,
    /// The session comes to its end.
    Leaving(Leaving),
    /// It waits before it tries again.
    Pausing {
        until: Instant,
    },
    Over,
}

/// The upstream of a box: see the head of this file.
#[derive(Debug)]
pub struct Machine<S> {
    pub(super) site: S,
    pub(super) setting: Setting,
    pub(super) shared: SharedStatus,
    random: Random,
    /// What time it is, as of the last wake.
    pub(super) now: Instant,
    stage: Stage,
    /// The present way to a connection, or the last one.
    pub(super) attempt: Try,
    pub(super) session: Session,
    pub(super) trials: Trials,
    backoff: Backoff,
    /// Asks, probes and connections are numbered through.
    numbers: u64,
    outputs: VecDeque<Output>,
    /// It is to stop, and whether it is the last box that does.
    stop: Option<bool>,
}

impl<S: SiteView> Machine<S> {
    /// An upstream that has done nothing yet.
    pub fn new(site: S, setting: Setting, shared: SharedStatus, random: Random, now: Instant) -> Machine<S> {
        let mut machine = Machine {
            site,
            setting,
            shared,
            random,
            now,
            stage: Stage::Over,
            attempt: Try::new(now),
            session: Session::new(0, now),
            trials: Trials::default(),
            backoff: super::BACKOFF,
            numbers: 0,
            outputs: VecDeque::new(),
            stop: None,
        };
        machine.stand_by();
        machine
    }

    /// It is now this time, until the next wake.
    pub fn wake(&mut self, now: Instant) {
        self.now = now;
    }

    /// Takes something in; a [`step`](Self::step) follows before the next wake.
    pub fn take(&mut self, input: Input) {
        match input {
            Input::Asked { ticket, result } => self.on_asked(ticket, result),
            Input::Opened { connection, result } if connection == self.session.connection => {
                self.on_opened(result);
            }
            Input::Answer { connection, answer } if self.is_of_this_connection(connection) => {
                self.on_answer(answer);
            }
            Input::Closed { connection } if connection == self.session.connection => self.on_closed(),
            Input::Probed { ticket, result } => self.on_probed(ticket, &result),
            Input::Stop { last } => self.stop = Some(last),
            // Of a connection that is given up.
            Input::Opened { .. } | Input::Answer { .. } | Input::Closed { .. } => {}
        }
    }

    /// Does all that follows from what came in, from the time and from how the site is.
    pub fn step(&mut self) {
        while self.stage_step() {}
    }

    /// What is to be done next.
    pub fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When it must be woken at the latest.
    pub fn due(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Standby(standby) => standby.due().filter(|_| self.site.wish().probe),
            // What it waits for comes, or it hears that it does not.
            Stage::Confirming(_) | Stage::Connecting | Stage::ConfirmingAgain(_) | Stage::Over => None,
            Stage::Publishing => Some(self.session_due()),
            Stage::Leaving(leaving) => leaving.due(),
            Stage::Pausing { until } => Some(*until),
        }
    }

    /// From when on it is to be woken for changes of the site: under load it changes all the time.
    pub fn looks_at(&self) -> Instant {
        match self.stage {
            Stage::Publishing => self.session.looks_at(),
            _ => self.now,
        }
    }

    /// Whether it has stopped.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// In which term it publishes.
    pub fn term(&self) -> u64 {
        self.attempt.term
    }

    fn is_of_this_connection(&self, connection: u64) -> bool {
        let is_current = connection == self.session.connection && !self.session.ended;
        is_current || deliberate::is(Bug::CountsOldAnswers)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn ask(&mut self, ask: Ask) -> u64 {
        let ticket = self.number();
        self.outputs.push_back(Output::Ask { ticket, ask });
        ticket
    }

    pub(super) fn put(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    /// Evenly from 0 to 1; its quality does not matter.
    pub(super) fn jitter(&self) -> f64 {
        self.random.next_u64() as f64 / u64::MAX as f64
    }

    fn on_asked(&mut self, ticket: u64, result: Result<(), String>) {
        match &mut self.stage {
            Stage::Confirming(asked) if *asked == ticket => self.on_confirmed(result),
            Stage::ConfirmingAgain(asked) if *asked == ticket => self.on_confirmed_again(result),
            Stage::Publishing | Stage::Leaving(_) => {
                if let Err(end) = self.on_session_asked(ticket, result) {
                    self.end_session(end);
                }
            }
            // Of a session that is over.
            _ => {}
        }
    }

    fn on_answer(&mut self, answer: Answer<u64>) {
        match &self.stage {
            Stage::Publishing => {
                if let Err(end) = self.take_answer(answer) {
                    self.end_session(end);
                }
            }
            // Trouble is noted where it is taken; the farewell goes on regardless.
            Stage::Leaving(_) => drop(self.take_answer(answer)),
            Stage::ConfirmingAgain(_) => match answer {
                Answer::Ended(ending) => self.session.ended_early = Some(ending),
                Answer::Heard(payload) => self.on_status(&payload),
                // Nothing was sent.
                Answer::Acknowledged(_) | Answer::Refused(..) => {}
            },
            _ => {}
        }
    }

    /// Publishing, or on the way out, it is to end for this reason.
    fn end_session(&mut self, end: End) {
        match self.stage {
            Stage::Leaving(_) => self.fail_leaving(),
            _ => self.leave(end),
        }
    }
}
