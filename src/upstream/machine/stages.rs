//! From standing by to a connection on which this box may publish, and back.

use std::time::{Duration, Instant};

use super::{Machine, Output, Stage};
use crate::backoff::Backoff;
use crate::deliberate::{self, Bug};
use crate::mqtt::{Ending, Limits};
use crate::upstream::BACKOFF;
use crate::upstream::formats::{SiteState, json};
use crate::upstream::outbox::{Ask, SiteView};
use crate::upstream::session::{End, Session};
use crate::upstream::status::State;
use crate::upstream::trials::Trials;

/// A connection that lasted this long was a good one: the next try is immediate again.
pub(in crate::upstream) const GOOD_AFTER: Duration = Duration::from_secs(10);

/// A box that has reached the broker for its leader sees so often whether that is still so.
const PROBE_AGAIN: Duration = Duration::from_secs(10);

/// What a box that does not lead does about the broker.
#[derive(Debug)]
pub(super) struct Standby {
    /// When it looks next, since it was asked to.
    due: Option<Instant>,
    /// The probe that is under way.
    probe: Option<u64>,
    backoff: Backoff,
}

impl Standby {
    pub(super) const fn new() -> Standby {
        Standby { due: None, probe: None, backoff: BACKOFF }
    }

    /// When it looks next, unless it is looking.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.probe.is_none())
    }
}

/// A way to a connection.
#[derive(Debug)]
pub(in crate::upstream) struct Try {
    pub(in crate::upstream) term: u64,
    /// What the node's wish said when it began.
    tries: u64,
    began: Instant,
    /// It came so far that something could be published.
    is_open: bool,
}

impl Try {
    pub(super) fn new(began: Instant) -> Try {
        Try { term: 0, tries: 0, began, is_open: false }
    }
}

impl<S: SiteView> Machine<S> {
    /// One step of the present stage; whether another one is to follow.
    pub(super) fn stage_step(&mut self) -> bool {
        if self.stop.is_some() {
            self.begin_to_stop();
        }
        match &self.stage {
            Stage::Standby(_) => self.look_aside(),
            Stage::Confirming(_) | Stage::Connecting | Stage::ConfirmingAgain(_) | Stage::Over => false,
            Stage::Publishing => match self.round() {
                Ok(()) => false,
                Err(end) => {
                    self.leave(end);
                    true
                }
            },
            Stage::Leaving(_) => self.leave_step(),
            Stage::Pausing { until } => {
                let is_over = *until <= self.now;
                let goes_on = is_over || self.site.leads().is_none() || self.is_to_try_now();
                if goes_on {
                    self.begin();
                }
                goes_on
            }
        }
    }

    /// A farewell is due only where there is a session.
    fn begin_to_stop(&mut self) {
        match self.stage {
            Stage::Publishing => self.leave(End::Stopped),
            Stage::Leaving(_) | Stage::Over => {}
            _ => {
                self.put(Output::EndProbe);
                self.put(Output::Abandon);
                self.stage = Stage::Over;
            }
        }
    }

    /// Another box has just reached the broker.
    fn is_to_try_now(&self) -> bool {
        self.site.wish().tries != self.attempt.tries
    }

    /// Tries to connect, or stands by.
    pub(super) fn begin(&mut self) {
        match self.site.leads() {
            Some(term) => self.begin_try(term),
            None => self.stand_by(),
        }
    }

    pub(super) fn stand_by(&mut self) {
        self.shared.enter(State::Standby);
        self.forget_trials();
        self.site.seen(None);
        self.stage = Stage::Standby(Standby::new());
    }

    /// Whoever leads then finds out anew; what is held is with the site.
    fn forget_trials(&mut self) {
        self.trials = Trials::default();
        self.shared.refusing(Vec::new());
    }

    /// Until this box leads, it sees whether it reaches the broker, if the leader does not and asks for that.
    fn look_aside(&mut self) -> bool {
        if let Some(term) = self.site.leads() {
            self.put(Output::EndProbe);
            self.begin_try(term);
            return true;
        }
        let wish = self.site.wish();
        let (now, ticket) = (self.now, self.number());
        let Stage::Standby(standby) = &mut self.stage else { return false };
        if !wish.probe {
            if standby.due.is_some() {
                *standby = Standby::new();
                self.site.seen(None);
                self.put(Output::EndProbe);
            }
        } else if standby.probe.is_none() && standby.due.is_none_or(|due| due <= now) {
            standby.due = Some(now);
            standby.probe = Some(ticket);
            self.put(Output::Probe { ticket });
        }
        false
    }

    pub(super) fn on_probed(&mut self, ticket: u64, result: &Result<(), String>) {
        let jitter = self.jitter();
        let Stage::Standby(standby) = &mut self.stage else { return };
        if standby.probe != Some(ticket) {
            return;
        }
        standby.probe = None;
        let wait = if result.is_ok() { PROBE_AGAIN } else { standby.backoff.next(jitter) };
        standby.due = Some(self.now + wait);
        self.shared.probed(result);
        self.site.seen(Some(result.is_ok()));
    }

    /// Confirms leadership, connects, and confirms it again: a box that was paused must neither push
    /// the leader's connection out nor publish what it knew before.
    fn begin_try(&mut self, term: u64) {
        self.shared.enter(State::Connecting);
        self.site.seen(Some(false));
        if self.attempt.term != term {
            // Between two looks at the site another box may have led.
            self.forget_trials();
        }
        self.attempt = Try { term, tries: self.site.wish().tries, began: self.now, is_open: false };
        self.begin_session(0);
        let ticket = self.ask(Ask::Fence);
        self.stage = Stage::Confirming(ticket);
        if deliberate::is(Bug::PublishesUnfenced) {
            self.on_confirmed(Ok(()));
        }
    }

    fn begin_session(&mut self, connection: u64) {
        let subscribed = self.session.subscribed && deliberate::is(Bug::TrustsSession);
        self.session = Session::new(connection, self.now);
        self.session.subscribed = subscribed;
    }

    pub(super) fn on_confirmed(&mut self, result: Result<(), String>) {
        if let Err(end) = self.confirm(result) {
            return self.end_try(end);
        }
        let connection = self.number();
        self.begin_session(connection);
        let nobody = SiteState { leader: None, boxes: 0, ..self.site.state() };
        let will = json::status(&self.setting.naming, false, &nobody);
        self.put(Output::Connect { connection, will });
        self.stage = Stage::Connecting;
    }

    pub(super) fn on_opened(&mut self, result: Result<Limits, Ending>) {
        if !matches!(self.stage, Stage::Connecting) {
            return;
        }
        match result {
            Ok(limits) => {
                self.session.limits = limits;
                self.session.fenced = Some(self.now);
                let ticket = self.ask(Ask::Fence);
                self.stage = Stage::ConfirmingAgain(ticket);
                if deliberate::is(Bug::PublishesUnfenced) {
                    self.on_confirmed_again(Ok(()));
                }
            }
            Err(ending) => self.end_try(End::Broken(ending)),
        }
    }

    pub(super) fn on_confirmed_again(&mut self, result: Result<(), String>) {
        if let Err(end) = self.confirm(result) {
            self.put(Output::Abandon);
            return self.end_try(end);
        }
        let delivered = self.site.position().delivered;
        self.shared.connected(self.session.limits, &self.setting.broker, delivered);
        self.site.seen(Some(true));
        let fenced = self.session.fenced.unwrap_or(self.now);
        self.trials.on_connected(fenced);
        self.session.begin(delivered, self.now);
        self.attempt.is_open = true;
        self.adopt_held();
        self.stage = Stage::Publishing;
        if let Some(ending) = self.session.ended_early.take() {
            self.session.ended = true;
            let end = self.on_end(ending);
            self.leave(end);
        }
    }

    /// What a fence came to: whether this box leads, still in that term.
    pub(in crate::upstream) fn confirm(&self, fence: Result<(), String>) -> Result<(), End> {
        self.check_term()?;
        fence.map_err(|error| End::broken(format!("cannot confirm leadership: {error}")))
    }

    /// There is no connection any more, for this reason.
    pub(super) fn end_try(&mut self, end: End) {
        match end {
            End::Stopped => self.stage = Stage::Over,
            End::NotLeading => {
                self.backoff = BACKOFF;
                self.begin();
            }
            End::Broken(ending) => {
                self.shared.ended(&ending);
                if self.now.saturating_duration_since(self.attempt.began) > GOOD_AFTER {
                    self.backoff = BACKOFF;
                }
                // Over which message a connection breaks is to be found out soon.
                let soon = if self.attempt.is_open { self.trials.finds_out() } else { None };
                let jitter = self.jitter();
                let wait = soon.unwrap_or_else(|| self.backoff.next(jitter));
                self.shared.enter(State::Connecting);
                self.site.seen(Some(false));
                self.stage = Stage::Pausing { until: self.now + wait };
            }
        }
    }
}
