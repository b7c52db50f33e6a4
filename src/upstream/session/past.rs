//! What the broker knows of the site's numbers: a site that was put back to an older state (an image of its card) must
//! not give numbers again that subscribers have.
//!
//! The broker retains the last number. It is told of it, and has acknowledged that, before a summary with it goes out; on
//! each connection it is read before anything is published. Where it is beyond the site's last number, what has a number
//! is published, as it was before; then the site passes over the numbers that it gave and does not know.

use super::*;
use crate::site::NUMBER_PASSED_MAX;

/// For so long after it has taken the subscription the broker may take to hand over what it retains.
const RETAINED_WITHIN: Duration = Duration::from_secs(1);

/// What this session knows of that.
#[derive(Debug)]
pub(super) struct Past {
    knowledge: Knowledge,
    /// The broker was told of numbers up to here.
    told: u64,
    /// It is being told of those up to here.
    telling: Option<u64>,
    /// It knows of numbers up to here, which are beyond the site's last one.
    ahead: Option<u64>,
}

/// Whether it is known what the broker retains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knowledge {
    /// It has not taken the subscription.
    None,
    /// If nothing comes until then, it retains nothing.
    Soon(Instant),
    All,
}

impl Past {
    pub(super) const fn new() -> Past {
        Past { knowledge: Knowledge::None, told: 0, telling: None, ahead: None }
    }

    pub(super) fn is_known(&self) -> bool {
        self.knowledge == Knowledge::All
    }

    /// The site is put back: it gives no numbers until it has passed over those that it gave.
    pub(super) const fn is_ahead(&self) -> bool {
        self.ahead.is_some()
    }

    /// When the wait for what is retained ends.
    pub(super) const fn due(&self) -> Option<Instant> {
        match self.knowledge {
            Knowledge::Soon(until) => Some(until),
            Knowledge::None | Knowledge::All => None,
        }
    }
}

impl<S: SiteView> Machine<S> {
    /// Whether the broker can be told.
    fn can_tell(&self) -> bool {
        self.session.limits.retains && self.site.passes_over() && !deliberate::is(Bug::ReusesNumbers)
    }

    /// Whether it is known by now what the broker retains, or that this will not be known.
    pub(super) fn knows_past(&mut self) -> bool {
        let (now, past) = (self.now, &self.session.past);
        let is_over = past.due().is_some_and(|until| until <= now);
        let is_subscribing = || {
            let is_it = |sent| sent == Sent::Subscription;
            self.session.has_unanswered(Sent::Subscription)
                || self.session.out.iter().any(|out| is_it(out.sent))
                || !self.session.subscribed && !self.trials.is_barred(TrialTarget::Subscription, now)
        };
        let is_in_vain = past.knowledge == Knowledge::None && (!self.can_tell() || !is_subscribing());
        if is_over || is_in_vain {
            self.session.past.knowledge = Knowledge::All;
        }
        self.session.past.is_known()
    }

    /// The broker has taken the subscription.
    pub(super) fn on_subscribed(&mut self) {
        if self.session.past.knowledge == Knowledge::None {
            self.session.past.knowledge = Knowledge::Soon(self.now + RETAINED_WITHIN);
        }
    }

    /// Somebody's last number, which the broker retains.
    pub(super) fn on_numbered(&mut self, payload: &[u8]) {
        let Some(numbered) = json::own_numbered(&self.setting.naming, payload) else { return };
        if !self.can_tell() {
            return;
        }
        // Whoever may publish there may send anything.
        if numbered > NUMBER_PASSED_MAX {
            let topic = self.setting.naming.numbered_topic();
            return self.shared.trouble(&format!(
                "{topic} says that number {numbered} was given, which is no number of a site: clear that topic"
            ));
        }
        let past = &mut self.session.past;
        past.knowledge = Knowledge::All;
        past.told = past.told.max(numbered);
        let last = self.site.position().numbered_last;
        if numbered > last && past.ahead.is_none_or(|ahead| ahead < numbered) {
            past.ahead = Some(numbered);
            self.say_put_back(last, numbered);
        }
    }

    /// Totals may go back: the site goes offline first and says why.
    fn say_put_back(&mut self, last: u64, numbered: u64) {
        let why = format!(
            "this site was put back to an older state: the broker knows of number {numbered}, and the last one here is \
             {last}; what was counted in between is not here, and no number is used twice: the next one is {}",
            numbered + 1
        );
        self.shared.put_back(&why);
        let message = json::offline_status(&self.setting.naming, &self.site.state(), &why);
        if !self.trials.is_barred(TrialTarget::Status, self.now) && !self.too_large(&message) {
            let out = self.out(Sent::Status, message);
            self.session.out.push_back(out);
        }
    }

    /// Has the site pass over the numbers that the broker knows of, once it has all that have one here.
    pub(super) fn pass_over(&mut self) {
        let Some(ahead) = self.session.past.ahead else { return };
        let position = self.site.position();
        if position.numbered_last >= ahead {
            return self.on_passed_over(Ok(()));
        }
        if position.delivered == position.numbered_last && self.session.asks.pass_over.is_none() {
            let ticket = self.ask(Ask::PassOver(ahead));
            self.session.asks.pass_over = Some(ticket);
        }
    }

    pub(super) fn on_passed_over(&mut self, result: Result<(), String>) {
        let Some(ahead) = self.session.past.ahead else { return };
        let position = self.site.position();
        if position.numbered_last < ahead {
            let why = result.err().unwrap_or_else(|| "the site did not".to_owned());
            self.shared.trouble(&format!("cannot pass over the numbers up to {ahead}: {why}"));
            return self.pause();
        }
        self.session.past.ahead = None;
        // Nothing is under way: the broker has everything before.
        self.session.queue.clear();
        self.session.begin(position.delivered, self.now);
        // It is online again.
        self.session.status_sent = None;
        self.session.state_looked = None;
    }

    /// The last number, if the broker is to be told of it now.
    pub(super) fn numbered_out(&mut self) -> Option<Out> {
        let last = self.session.queue.last()?;
        let past = &self.session.past;
        if last <= past.told || past.telling.is_some() || !self.can_tell() || self.is_numbered_barred() {
            return None;
        }
        self.session.past.telling = Some(last);
        let message = json::numbered(&self.setting.naming, last, self.site.state().time);
        Some(self.out(Sent::Numbered { last }, message))
    }

    /// Whether a number has to wait until the broker is told of it. Where it does not let itself be told, it has not.
    pub(super) fn waits_to_be_told(&self, seq: u64) -> bool {
        seq > self.session.past.told && self.can_tell() && !self.is_numbered_barred()
    }

    fn is_numbered_barred(&self) -> bool {
        self.trials.is_barred(TrialTarget::Numbered, self.now)
    }

    pub(super) fn on_told(&mut self, last: u64) {
        let past = &mut self.session.past;
        past.told = past.told.max(last);
        past.telling = None;
    }

    pub(super) fn on_not_told(&mut self) {
        self.session.past.telling = None;
    }
}
