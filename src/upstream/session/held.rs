//! Numbers that the broker refuses: published to the topic for such, else held, and tried again.

use super::*;
use crate::upstream::reasons;

impl<S: SiteView> Machine<S> {
    /// The summary of a number goes to the topic for what is undeliverable, or is held if that does not take
    /// it either.
    pub(super) fn go_aside(&mut self, token: Token, cause: u8) {
        let Some(numbered) = self.session.under_way.get(&token.seq) else { return };
        let message = self.aside_message(numbered, cause);
        let target = TrialTarget::Undeliverable;
        let free = !self.trials.is_barred(target, self.now) && !self.too_large(&message);
        // One message at a time finds out whether the topic is still refused.
        let finding_out = self.trials.cause(target).is_some() && self.is_aside_under_way();
        if free && !finding_out {
            let out = self.out(Sent::Aside { seq: token.seq, token: Some(token), cause }, message);
            self.session.out.push_front(out);
        } else {
            if deliberate::is(Bug::PassesUnheld) {
                self.settle(token);
            }
            self.session.to_hold.push_back((token, cause));
        }
    }

    fn is_aside_under_way(&self) -> bool {
        let is_aside = |sent: &Sent| matches!(sent, Sent::Aside { .. });
        self.session.unanswered.iter().any(|(_, sent)| is_aside(sent))
            || self.session.out.iter().any(|out| is_aside(&out.sent))
    }

    fn aside_message(&self, numbered: &Numbered, cause: u8) -> Message {
        let format = self.setting.formats.first();
        let topic = format.summary_topic(&self.setting.naming, &numbered.name);
        format.undeliverable(&self.setting.naming, numbered, &topic, &reasons::of_cause(cause))
    }

    /// Has the site hold what is refused, one after the other.
    pub(super) fn hold(&mut self) {
        while self.session.asks.set_aside.is_none()
            && let Some((token, cause)) = self.session.to_hold.pop_front()
        {
            if self.session.ledger.is_current(token) {
                let ticket = self.ask(Ask::SetAside { seq: token.seq, cause });
                self.session.asks.set_aside = Some((ticket, token, cause));
            }
        }
    }

    /// Only what the site holds counts as settled here.
    pub(super) fn on_set_aside(&mut self, token: Token, cause: u8, result: Result<(), String>) {
        if !self.session.ledger.is_current(token) {
            return;
        }
        if !self.site.holds(token.seq) {
            let why = result.err().unwrap_or_else(|| "the site does not hold it".to_owned());
            return self.stall(&format!("cannot set number {} aside: {why}", token.seq));
        }
        if let Some(numbered) = self.session.under_way.get(&token.seq) {
            self.session.held.insert(token.seq, (numbered.clone(), cause));
        }
        self.session.settled_held.insert(token.seq);
        self.settle(token);
        if self.trials.is_refused(token.seq)
            && let Some(wait) = self.trials.on_number_held()
        {
            self.session.resume = Some(self.now + wait);
        }
    }

    /// Has the site release the held numbers that were acknowledged, one after the other.
    pub(super) fn release(&mut self) {
        if self.session.asks.released.is_none()
            && let Some(seq) = self.session.to_release.pop_front()
        {
            let ticket = self.ask(Ask::Released(seq));
            self.session.asks.released = Some((ticket, seq));
        }
    }

    pub(super) fn on_released(&mut self, seq: u64, result: Result<(), String>) {
        match result {
            Ok(()) => {
                self.trials.forget(seq);
                self.session.held.remove(&seq);
            }
            // It is held still, and so published again; unless the answer alone was lost.
            Err(error) => {
                self.shared.trouble(&format!("cannot record that number {seq} was delivered: {error}"));
                if !self.site.holds(seq) {
                    self.session.held.remove(&seq);
                }
            }
        }
        self.session.retrying.remove(&seq);
    }

    /// The broker has acknowledged a held number.
    pub(super) fn on_held_acknowledged(&mut self, seq: u64) {
        self.session.to_release.push_back(seq);
        self.shared.delivered(1);
    }

    /// Reads what earlier leaders, or sessions, have set aside, and regards it as still refused.
    pub(in crate::upstream) fn adopt_held(&mut self) {
        if deliberate::is(Bug::ForgetsHeld) {
            return;
        }
        self.read_held();
        for (held, cause) in self.session.held.values() {
            self.trials.adopt(held.summary.series, *cause, self.now);
        }
    }

    fn read_held(&mut self) {
        let held = self.site.held().into_iter();
        self.session.held = held.map(|(held, cause)| (held.seq, (held, cause))).collect();
    }

    /// Makes messages of held numbers that are due: the newest of a series first, since an older one may be
    /// what the broker minds.
    pub(super) fn feed_held(&mut self, now: Instant) {
        if self.session.held_looked.is_some_and(|at| now - at < self.session.held_looked_every()) {
            return;
        }
        self.session.held_looked = Some(now);
        // What an earlier session asked for may have been done only after this one began.
        let is_read_again = !deliberate::is(Bug::ForgetsHeld) && !deliberate::is(Bug::ReadsHeldOnce);
        if self.site.position().held != self.session.held.len() && is_read_again {
            self.read_held();
        }
        if self.session.held.is_empty() {
            return;
        }
        let mut finding_out: BTreeSet<SeriesId> = self
            .session
            .retrying
            .iter()
            .filter_map(|seq| self.session.held.get(seq))
            .map(|(held, _)| held.summary.series)
            .collect();
        let mut finding_aside = self.is_aside_under_way();
        let mut due = Vec::new();
        for (seq, (held, cause)) in self.session.held.iter().rev() {
            if self.session.out.len() + due.len() >= usize::from(IN_FLIGHT_MAX) {
                break;
            }
            if self.session.retrying.contains(seq) {
                continue;
            }
            let (series, aside) = (TrialTarget::Series(held.summary.series, 0), TrialTarget::Undeliverable);
            let own = self.own_message(held).filter(|_| {
                !self.trials.is_barred(TrialTarget::Number(*seq, 0), now)
                    && !self.trials.is_barred(series, now)
                    && (self.trials.cause(series).is_none() || finding_out.insert(held.summary.series))
            });
            if let Some(message) = own {
                due.push((Sent::Retry { seq: *seq, series: held.summary.series }, message));
                continue;
            }
            let message = self.aside_message(held, *cause);
            let free = !self.trials.is_barred(aside, now) && !self.too_large(&message);
            if free && (self.trials.cause(aside).is_none() || !finding_aside) {
                finding_aside = true;
                due.push((Sent::Aside { seq: *seq, token: None, cause: *cause }, message));
            }
        }
        for (sent, message) in due {
            if let Sent::Retry { seq, .. } | Sent::Aside { seq, .. } = sent {
                self.session.retrying.insert(seq);
                if deliberate::is(Bug::ReleasesWhenSent) {
                    self.session.to_release.push_back(seq);
                }
            }
            let out = self.out(sent, message);
            self.session.out.push_back(out);
        }
    }

    /// A held summary for its own topic, if the broker takes one of its size.
    fn own_message(&self, held: &Numbered) -> Option<Message> {
        let format = self.setting.formats.first();
        let message = format.summary(&self.setting.naming, held)?;
        (!self.too_large(&message)).then_some(message)
    }
}
