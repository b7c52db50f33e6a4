//! The end of a session: what is under way is settled, what was acknowledged is recorded, the connection closed. Each
//! of that for a while at most.

use std::time::{Duration, Instant};

use super::{Machine, Output, Stage};
use crate::upstream::formats::{SiteState, json};
use crate::upstream::outbox::SiteView;
use crate::upstream::session::{End, Sent};

/// How long a farewell may take: recording what was acknowledged needs a quorum, which may be gone.
const FAREWELL: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(super) struct Leaving {
    /// Why; taken when it is over.
    end: Option<End>,
    /// No box is left that could lead.
    last: bool,
    part: Part,
    until: Instant,
    /// What this part waits for was asked for.
    is_asked: bool,
}

/// The parts of a farewell, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// What is under way is mostly a round trip from being settled; what was begun of a number goes out first, the rest
    /// does not.
    Settle,
    Record,
    /// The last box says that it goes: Mosquitto delays even the will of a session that has ended.
    Offline,
    Close,
}

impl Leaving {
    pub(super) fn due(&self) -> Option<Instant> {
        (self.part != Part::Close).then_some(self.until)
    }
}

impl<S: SiteView> Machine<S> {
    pub(super) fn leave(&mut self, end: End) {
        let part = match end {
            End::Stopped => Part::Settle,
            End::Broken(_) => Part::Record,
            End::NotLeading => Part::Close,
        };
        let last = matches!(end, End::Stopped) && self.stop == Some(true);
        let until = self.now + FAREWELL;
        self.stage = Stage::Leaving(Leaving { end: Some(end), last, part, until, is_asked: false });
    }

    /// What is under way cannot be settled: it goes on with the next part.
    pub(super) fn fail_leaving(&mut self) {
        if let Stage::Leaving(leaving) = &mut self.stage
            && leaving.part == Part::Settle
        {
            leaving.until = self.now;
        }
    }

    /// Goes on with the farewell; whether there is more to do.
    pub(super) fn leave_step(&mut self) -> bool {
        let Stage::Leaving(Leaving { part, until, is_asked, last, .. }) = self.stage else { return false };
        let is_late = self.now >= until;
        match part {
            Part::Settle => {
                if !is_late && !self.session.ended {
                    self.finish_begun();
                    if !self.session.is_idle() {
                        return false;
                    }
                }
                self.go_on_with(Part::Record)
            }
            Part::Record => {
                if !is_late && self.session.is_recording() {
                    return false;
                }
                if self.session.is_recorded() {
                    return self.go_on_with(Part::Offline);
                }
                if !is_late && !is_asked {
                    self.record();
                    return self.has_asked();
                }
                tracing::info!(
                    "upstream: the latest acknowledgements were not recorded; their summaries will be \
                     repeated"
                );
                self.go_on_with(Part::Offline)
            }
            Part::Offline => {
                if !last || self.session.ended {
                    return self.go_on_with(Part::Close);
                }
                if !is_asked {
                    self.say_offline();
                    return self.has_asked();
                }
                if !is_late && self.session.has_unanswered(Sent::Offline) {
                    return false;
                }
                if is_late {
                    tracing::info!(
                        "upstream: the broker did not accept the offline status; the will publishes it later"
                    );
                }
                self.go_on_with(Part::Close)
            }
            Part::Close => {
                if self.session.ended {
                    self.left();
                    return true;
                }
                if !is_asked {
                    self.put(Output::Close { connection: self.session.connection, last });
                    return self.has_asked();
                }
                false
            }
        }
    }

    fn go_on_with(&mut self, part: Part) -> bool {
        if let Stage::Leaving(leaving) = &mut self.stage {
            leaving.part = part;
            leaving.until = self.now + FAREWELL;
            leaving.is_asked = false;
        }
        true
    }

    fn has_asked(&mut self) -> bool {
        if let Stage::Leaving(leaving) = &mut self.stage {
            leaving.is_asked = true;
        }
        false
    }

    fn say_offline(&mut self) {
        let nobody = SiteState { leader: None, boxes: 0, ..self.site.state() };
        let message = json::status(&self.setting.naming, false, &nobody);
        self.send_now(Sent::Offline, message);
    }

    pub(super) fn on_closed(&mut self) {
        if matches!(&self.stage, Stage::Leaving(leaving) if leaving.part == Part::Close) {
            self.left();
        }
    }

    fn left(&mut self) {
        if let Stage::Leaving(leaving) = &mut self.stage
            && let Some(end) = leaving.end.take()
        {
            self.end_try(end);
        }
    }
}
