//! What became of messages and of the connection.

use super::publish::target_of;
use super::*;
use crate::mqtt::Refusal;
use crate::upstream::reasons;

impl<O: Outbox> Session<'_, O> {
    pub(super) fn take(&mut self, answer: Answer<Sent>) -> Result<(), End> {
        match answer {
            Answer::Acknowledged(sent) => {
                self.answered(sent);
                self.pace = self.pace.saturating_mul(2).min(usize::from(IN_FLIGHT_MAX));
                if self.last_refused.take().is_some() {
                    self.is.trials.went_on();
                }
                if sent != Sent::Subscription {
                    self.is.trials.something_taken();
                }
                self.on_taken(sent);
            }
            Answer::Refused(sent, refusal) => {
                self.answered(sent);
                self.is.shared.refused();
                self.last_refused = Some(sent);
                self.on_refused(sent, &refusal);
            }
            Answer::Heard(payload) => self.on_status(&payload),
            Answer::Ended(ending) => {
                self.ended = true;
                return Err(self.on_end(ending));
            }
        }
        Ok(())
    }

    fn answered(&mut self, sent: Sent) {
        self.heard = Instant::now();
        if let Some(place) = self.unanswered.iter().position(|one| *one == sent) {
            self.unanswered.remove(place);
        }
        self.is.trials.answered();
    }

    fn on_taken(&mut self, sent: Sent) {
        let again = self.is.trials.take(target_of(sent));
        match sent {
            Sent::Summary { token, series } => {
                self.series_taken(series);
                self.settled(token);
            }
            Sent::Total { token, series, latest } => {
                self.total_taken(series, latest);
                self.settled(token);
            }
            Sent::LateTotal { series, latest } => self.total_taken(series, latest),
            Sent::Aside { seq, token } => {
                self.is.shared.undeliverable();
                match token {
                    Some(token) => {
                        self.is.trials.forget(seq);
                        self.settled(token);
                    }
                    None => self.held_taken(seq),
                }
            }
            Sent::Retry { seq, series } => {
                self.series_taken(series);
                self.held_taken(seq);
            }
            Sent::Status if again => {
                tracing::info!("upstream: the broker takes the status topic again");
                self.is.trials.lift_all(Instant::now());
                self.resume = None;
            }
            Sent::Status | Sent::Offline | Sent::Subscription => {}
        }
    }

    fn series_taken(&mut self, series: SeriesId) {
        if self.is.trials.take(trials::Target::Series(series)) {
            tracing::info!("upstream: the broker takes the summaries of {} again", self.topic_of(series));
            // The others of the series need not wait for their own turns.
            let same = self.held.iter().filter(|(_, (held, _))| held.summary.series == series);
            for seq in same.map(|(seq, _)| *seq).collect::<Vec<u64>>() {
                self.is.trials.forget(seq);
            }
        }
    }

    fn total_taken(&mut self, series: SeriesId, latest: u64) {
        self.is.trials.total_taken(series, latest);
        if self.totals_under_way.get(&series).is_some_and(|sent| sent.seq <= latest) {
            self.totals_under_way.remove(&series);
        }
    }

    /// One message of a number is done with.
    pub(super) fn settled(&mut self, token: Token) {
        let before = self.ledger.taken();
        if self.ledger.acknowledged(token) {
            let taken = self.ledger.taken();
            let later = self.settled_held.split_off(&(taken + 1));
            let held = std::mem::replace(&mut self.settled_held, later).len() as u64;
            self.is.shared.delivered((taken - before).saturating_sub(held));
            self.under_way = self.under_way.split_off(&(taken + 1));
            self.backoff = Backoff::default();
        }
    }

    fn on_refused(&mut self, sent: Sent, refusal: &Refusal) {
        if !self.is_current(sent) {
            // Dealt with already.
            return;
        }
        self.judge(sent, refusal.code, false, &refusal.what);
        match sent {
            Sent::Summary { token, .. } if self.outbox.sets_aside() => self.go_aside(token, refusal.code),
            Sent::Summary { .. } => self.stall(&format!(
                "the broker refuses summaries: {}; nothing is skipped, number {} and what follows are tried again",
                refusal.what,
                self.ledger.taken() + 1
            )),
            Sent::Total { token, .. } => self.settled(token),
            Sent::Aside { token: Some(token), .. } => self.go_aside(token, self.cause_of(token)),
            Sent::Aside { seq, token: None } | Sent::Retry { seq, .. } => {
                self.retrying.remove(&seq);
            }
            Sent::LateTotal { .. } | Sent::Status | Sent::Offline | Sent::Subscription => {}
        }
    }

    fn is_current(&self, sent: Sent) -> bool {
        match sent {
            Sent::Summary { token, .. }
            | Sent::Total { token, .. }
            | Sent::Aside { token: Some(token), .. } => self.ledger.is_current(token),
            _ => true,
        }
    }

    /// Notes what is refused, and says so if that is news.
    fn judge(&mut self, sent: Sent, cause: u8, breaks: bool, what: &str) {
        let (now, target) = (Instant::now(), target_of(sent));
        let mut news = false;
        match sent {
            Sent::Summary { series, .. } if self.outbox.sets_aside() => {
                self.is.trials.refuse(target, cause, breaks, now);
                news = self.is.trials.refuse(trials::Target::Series(series), cause, breaks, now);
            }
            Sent::Summary { .. } => {}
            Sent::Retry { series, .. } => {
                self.is.trials.refuse(target, cause, breaks, now);
                let series = trials::Target::Series(series);
                // Only if no other number of the series was taken meanwhile.
                if self.is.trials.cause(series).is_some() {
                    self.is.trials.refuse(series, cause, breaks, now);
                }
            }
            Sent::Total { series, .. } | Sent::LateTotal { series, .. } => {
                if let Some(latest) = self.totals_under_way.remove(&series) {
                    self.is.trials.keep_total(latest);
                }
                news = self.is.trials.refuse(target, cause, breaks, now);
            }
            Sent::Aside { .. } | Sent::Status | Sent::Offline | Sent::Subscription => {
                news = self.is.trials.refuse(target, cause, breaks, now);
            }
        }
        let topic = self.topic(sent);
        let what = match sent {
            Sent::Subscription => format!("the broker refuses the subscription to {topic}: {what}"),
            _ => format!("the broker refuses {topic}: {what}"),
        };
        self.is.shared.refusal(&what, news);
    }

    /// The connection ended: one message that travelled alone may be the cause.
    pub(super) fn on_end(&mut self, ending: Ending) -> End {
        let suspects: Vec<trials::Target> = self.unanswered.iter().copied().map(target_of).collect();
        let struck = self.is.trials.broke(&suspects);
        let lone =
            self.unanswered.front().copied().filter(|sent| suspects.len() == 1 && self.is_current(*sent));
        if let Some(lone) = lone {
            match ending.refused {
                // The broker answered it, by a word that the library does not know.
                Some(code) => {
                    self.is.shared.refused();
                    self.judge(lone, code, true, &reasons::of_message(code));
                }
                None if struck.is_some() => self.judge(lone, trials::BROKE, true, &ending.what),
                None => {}
            }
        }
        if let Some(sent) = self.last_refused {
            let now = Instant::now();
            self.is.trials.broke_after(target_of(sent), now);
            if let Sent::Summary { series, .. } | Sent::Retry { series, .. } = sent {
                self.is.trials.broke_after(trials::Target::Series(series), now);
            }
        }
        let again = match self.ledger.under_way() {
            0 => String::new(),
            some => format!("; {some} summaries from number {} are sent again", self.ledger.taken() + 1),
        };
        End::Broken(Ending { again, ..ending })
    }

    /// Nothing is skipped: all that is not taken is sent again after a pause.
    pub(super) fn stall(&mut self, what: &str) {
        self.ledger.rewind();
        self.queue.clear();
        self.under_way.clear();
        self.to_hold.clear();
        let of_number = |sent: Sent| {
            matches!(sent, Sent::Summary { .. } | Sent::Total { .. } | Sent::Aside { token: Some(_), .. })
        };
        self.out.retain(|out| !of_number(out.sent));
        self.pace = 1;
        self.resume = Some(Instant::now() + self.backoff.next(crate::upstream::jitter()));
        self.is.shared.trouble(what);
    }

    /// Somebody's status: another site's of the same name, unless it is what the broker kept of ours.
    fn on_status(&mut self, payload: &[u8]) {
        if let Some((site_id, state)) = json::whose_status(payload)
            && site_id != self.is.naming.site_id.to_string()
        {
            self.is.shared.other_site(&self.is.naming.status_topic(), site_id, state);
        }
    }

    /// The topic that a message went to.
    fn topic(&self, sent: Sent) -> String {
        match sent {
            Sent::Summary { series, .. } | Sent::Retry { series, .. } => self.topic_of(series),
            Sent::Total { series, .. } | Sent::LateTotal { series, .. } => {
                self.is.naming.total_topic(&self.outbox.series_name(series))
            }
            Sent::Aside { .. } => self.is.naming.undeliverable_topic(),
            Sent::Status | Sent::Offline | Sent::Subscription => self.is.naming.status_topic(),
        }
    }

    fn topic_of(&self, series: SeriesId) -> String {
        self.is.naming.summary_topic(&self.outbox.series_name(series))
    }

    /// What the broker refuses, for the status: topics and why, the first few.
    pub(super) fn refused_topics(&self) -> Vec<(String, String)> {
        let topic = |target| match target {
            trials::Target::Series(series) => Some(self.topic_of(series)),
            trials::Target::Total(series) => {
                Some(self.is.naming.total_topic(&self.outbox.series_name(series)))
            }
            trials::Target::Undeliverable => Some(self.is.naming.undeliverable_topic()),
            trials::Target::Status => Some(self.is.naming.status_topic()),
            trials::Target::Subscription => Some(format!("{} (subscription)", self.is.naming.status_topic())),
            trials::Target::Number(_) => None,
        };
        let refused = self.is.trials.refused();
        let named = refused.filter_map(|(target, cause)| Some((topic(target)?, reasons::of_cause(cause))));
        named.take(crate::upstream::status::SHOWN_MAX).collect()
    }
}
