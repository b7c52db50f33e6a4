//! What became of messages and of the connection.

use super::publish::{series_target_of, target_of};
use super::*;
use crate::mqtt::Refusal;
use crate::upstream::reasons;

impl<S: SiteView> Machine<S> {
    /// What the broker did. An error is the end of the session.
    pub(in crate::upstream) fn take_answer(&mut self, answer: Answer<u64>) -> Result<(), End> {
        match answer {
            Answer::Acknowledged(id) => {
                let Some(sent) = self.take_unanswered(id) else { return Ok(()) };
                self.session.pace = self.session.pace.saturating_mul(2).min(usize::from(IN_FLIGHT_MAX));
                if self.session.last_refused.take().is_some() {
                    self.trials.on_survived();
                }
                if sent != Sent::Subscription {
                    self.trials.on_any_acknowledged();
                }
                self.on_acknowledged(sent);
            }
            Answer::Refused(id, refusal) => {
                let Some(sent) = self.take_unanswered(id) else { return Ok(()) };
                self.shared.refused();
                self.session.last_refused = Some(sent);
                self.on_refused(sent, &refusal);
            }
            Answer::Heard(payload) => self.on_status(&payload),
            Answer::Ended(ending) => {
                self.session.ended = true;
                return Err(self.on_end(ending));
            }
        }
        Ok(())
    }

    /// Takes out the message that is answered, if it still waits for an answer.
    fn take_unanswered(&mut self, id: u64) -> Option<Sent> {
        let place = self.session.unanswered.iter().position(|(one, _)| *one == id)?;
        self.session.heard = self.now;
        self.trials.on_answer();
        self.session.unanswered.remove(place).map(|(_, sent)| sent)
    }

    fn on_acknowledged(&mut self, sent: Sent) {
        let again = self.trials.on_acknowledged(target_of(sent));
        match sent {
            Sent::Summary { token, series, place } => {
                self.on_series_acknowledged(series, place);
                self.settle(token);
                self.session.resume = None;
            }
            Sent::Total { token, series, latest, .. } => {
                self.on_total_acknowledged(series, latest);
                self.settle(token);
            }
            Sent::LateTotal { series, latest, .. } => self.on_total_acknowledged(series, latest),
            Sent::Aside { seq, token, .. } => {
                self.shared.undeliverable();
                match token {
                    Some(token) => {
                        self.trials.forget(seq);
                        self.settle(token);
                    }
                    None => self.on_held_acknowledged(seq),
                }
            }
            Sent::Retry { seq, series } => {
                self.on_series_acknowledged(series, 0);
                self.on_held_acknowledged(seq);
                // The broker accepts summaries again: however many it refused in a row before, the next need not wait.
                self.session.resume = None;
            }
            Sent::Status if again => {
                tracing::info!("upstream: the broker accepts the status topic again");
                self.trials.lift_all(self.now);
                self.session.resume = None;
            }
            Sent::Status | Sent::Offline | Sent::Subscription => {}
        }
    }

    fn on_series_acknowledged(&mut self, series: SeriesId, place: Place) {
        if self.trials.on_acknowledged(TrialTarget::Series(series, place)) {
            let topic = self.topic_of(series, place);
            tracing::info!("upstream: the broker accepts the summaries of {topic} again");
            // The others of the series need not wait for their own turns.
            let same = self.session.held.iter().filter(|(_, (held, _))| held.summary.series == series);
            for seq in same.map(|(seq, _)| *seq).collect::<Vec<u64>>() {
                self.trials.forget(seq);
            }
        }
    }

    fn on_total_acknowledged(&mut self, series: SeriesId, latest: u64) {
        self.trials.on_total_acknowledged(series, latest);
        self.total_answered(series, latest);
    }

    fn total_answered(&mut self, series: SeriesId, latest: u64) {
        let under_way = &mut self.session.totals_under_way;
        if let Some((sent, lacking)) = under_way.get_mut(&series)
            && sent.seq == latest
        {
            *lacking -= 1;
            if *lacking == 0 {
                under_way.remove(&series);
            }
        }
    }

    /// Settles one message of a number.
    pub(super) fn settle(&mut self, token: Token) {
        let before = self.session.ledger.settled_up_to();
        if self.session.ledger.settle(token) {
            let settled = self.session.ledger.settled_up_to();
            let later = self.session.settled_held.split_off(&(settled + 1));
            let held = std::mem::replace(&mut self.session.settled_held, later).len() as u64;
            self.shared.delivered((settled - before).saturating_sub(held));
            self.session.under_way = self.session.under_way.split_off(&(settled + 1));
            self.session.backoff = crate::upstream::BACKOFF;
        }
    }

    fn on_refused(&mut self, sent: Sent, refusal: &Refusal) {
        if !self.is_current(sent) {
            // Dealt with already.
            return;
        }
        self.judge(sent, refusal.code, false, &refusal.what);
        match sent {
            Sent::Summary { token, .. } if deliberate::is(Bug::DropsRefused) => self.settle(token),
            Sent::Summary { token, .. } if self.site.sets_aside() => self.go_aside(token, refusal.code),
            Sent::Summary { .. } => self.stall(&format!(
                "the broker refuses summaries: {}; nothing is skipped; number {} and all later ones will be \
                 retried",
                refusal.what,
                self.session.ledger.settled_up_to() + 1
            )),
            Sent::Total { token, .. } => self.settle(token),
            Sent::Aside { token: Some(token), cause, .. } => self.go_aside(token, cause),
            Sent::Aside { seq, token: None, .. } | Sent::Retry { seq, .. } => {
                self.session.retrying.remove(&seq);
            }
            Sent::LateTotal { .. } | Sent::Status | Sent::Offline | Sent::Subscription => {}
        }
    }

    fn is_current(&self, sent: Sent) -> bool {
        match sent {
            Sent::Summary { token, .. }
            | Sent::Total { token, .. }
            | Sent::Aside { token: Some(token), .. } => self.session.ledger.is_current(token),
            _ => true,
        }
    }

    /// Notes what is refused, and says so if that is news.
    fn judge(&mut self, sent: Sent, cause: u8, breaks: bool, what: &str) {
        let (now, target) = (self.now, target_of(sent));
        let mut news = false;
        match sent {
            Sent::Summary { series, place, .. } if self.site.sets_aside() => {
                self.trials.refuse(target, cause, breaks, now);
                news = self.trials.refuse(TrialTarget::Series(series, place), cause, breaks, now);
            }
            Sent::Summary { .. } => {}
            Sent::Retry { series, .. } => {
                self.trials.refuse(target, cause, breaks, now);
                let series = TrialTarget::Series(series, 0);
                // Only if no other number of the series was taken meanwhile.
                if self.trials.cause(series).is_some() {
                    self.trials.refuse(series, cause, breaks, now);
                }
            }
            Sent::Total { series, latest, .. } | Sent::LateTotal { series, latest, .. } => {
                if let Some((latest, _)) = self.session.totals_under_way.get(&series) {
                    self.trials.keep_total(latest.clone());
                }
                self.total_answered(series, latest);
                news = self.trials.refuse(target, cause, breaks, now);
            }
            Sent::Aside { .. } | Sent::Status | Sent::Offline | Sent::Subscription => {
                news = self.trials.refuse(target, cause, breaks, now);
            }
        }
        let topic = self.topic(sent);
        let what = match sent {
            Sent::Subscription => format!("the broker refuses the subscription to {topic}: {what}"),
            _ => format!("the broker refuses {topic}: {what}"),
        };
        self.shared.refusal(&what, news);
    }

    /// The connection ended: one message that travelled alone may be the cause.
    pub(in crate::upstream) fn on_end(&mut self, ending: Ending) -> End {
        let unanswered = self.session.unanswered.iter();
        let suspects: Vec<TrialTarget> = unanswered.map(|(_, sent)| target_of(*sent)).collect();
        let struck = self.trials.on_broken(&suspects);
        let lone = self.session.unanswered.front().map(|(_, sent)| *sent);
        let lone = lone.filter(|sent| suspects.len() == 1 && self.is_current(*sent));
        if let Some(lone) = lone {
            match ending.refused {
                // The broker answered it, by a word that the library does not know.
                Some(code) => {
                    self.shared.refused();
                    self.judge(lone, code, true, &reasons::of_message(code));
                }
                None if struck.is_some() => self.judge(lone, trials::BROKE, true, &ending.what),
                None => {}
            }
        }
        if let Some(sent) = self.session.last_refused {
            let now = self.now;
            self.trials.on_broken_after(target_of(sent), now);
            if let Some(series) = series_target_of(sent) {
                self.trials.on_broken_after(series, now);
            }
        }
        let again = match self.session.ledger.under_way() {
            0 => String::new(),
            some => {
                format!(
                    "; {some} summaries from number {} will be sent again",
                    self.session.ledger.settled_up_to() + 1
                )
            }
        };
        End::Broken(Ending { again, ..ending })
    }

    /// Nothing is skipped: all that is not settled is sent again after a pause.
    pub(super) fn stall(&mut self, what: &str) {
        self.session.ledger.rewind();
        self.session.queue.clear();
        self.session.under_way.clear();
        self.session.to_hold.clear();
        let of_number = |sent: Sent| {
            matches!(sent, Sent::Summary { .. } | Sent::Total { .. } | Sent::Aside { token: Some(_), .. })
        };
        self.session.out.retain(|out| !of_number(out.sent));
        self.session.pace = 1;
        self.pause();
        self.shared.trouble(what);
    }

    /// Somebody's status: another site's of the same name, unless it is what the broker kept of ours.
    pub(in crate::upstream) fn on_status(&mut self, payload: &[u8]) {
        if let Some((site_id, state)) = json::whose_status(payload)
            && site_id != self.setting.naming.site_id.to_string()
        {
            self.shared.other_site(&self.setting.naming.status_topic(), site_id, state);
        }
    }

    /// The topic that a message went to.
    fn topic(&self, sent: Sent) -> String {
        let format = self.setting.formats.first();
        match sent {
            Sent::Summary { series, place, .. } => self.topic_of(series, place),
            Sent::Retry { series, .. } => self.topic_of(series, 0),
            Sent::Total { series, place, .. } | Sent::LateTotal { series, place, .. } => {
                self.total_topic_of(series, place)
            }
            Sent::Aside { .. } => format.undeliverable_topic(&self.setting.naming),
            Sent::Status | Sent::Offline | Sent::Subscription => self.setting.naming.status_topic(),
        }
    }

    fn topic_of(&self, series: SeriesId, place: Place) -> String {
        let format = self.setting.formats.at(place);
        format.summary_topic(&self.setting.naming, &self.site.series_name(series))
    }

    fn total_topic_of(&self, series: SeriesId, place: Place) -> String {
        let format = self.setting.formats.at(place);
        format.total_topic(&self.setting.naming, &self.site.series_name(series))
    }

    /// What the broker refuses, for the status: topics and why, the first few.
    pub(super) fn refused_topics(&self) -> Vec<(String, String)> {
        let format = self.setting.formats.first();
        let topic = |target| match target {
            TrialTarget::Series(series, place) => Some(self.topic_of(series, place)),
            TrialTarget::Total(series, place) => Some(self.total_topic_of(series, place)),
            TrialTarget::Undeliverable => Some(format.undeliverable_topic(&self.setting.naming)),
            TrialTarget::Status => Some(self.setting.naming.status_topic()),
            TrialTarget::Subscription => {
                Some(format!("{} (subscription)", self.setting.naming.status_topic()))
            }
            TrialTarget::Number(..) => None,
        };
        let refused = self.trials.refused();
        let named = refused.filter_map(|(target, cause)| Some((topic(target)?, reasons::of_cause(cause))));
        named.take(crate::upstream::status::SHOWN_MAX).collect()
    }
}
