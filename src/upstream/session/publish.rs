//! What goes out next: a status, held numbers, then numbers in order, each with its series' total.

use super::*;

impl<S: SiteView> Machine<S> {
    /// Numbers what has no number yet and takes numbered summaries into the queue.
    pub(super) fn fill(&mut self) -> Result<(), End> {
        if self.session.asks.number.is_none()
            && let Some(count) = numbers_due(self.site.position())
        {
            let ticket = self.ask(Ask::Number(count));
            self.session.asks.number = Some(ticket);
        }
        let after = self.session.queue.last().unwrap_or(self.session.ledger.next() - 1);
        // All of them: which total is the latest of its series shows only at the last.
        let more = self.site.numbered(after, usize::MAX);
        // A gap would mean that the outbox lost a number; sending past it would hide that.
        if let Some(first) = more.first()
            && first.seq != after + 1
        {
            return Err(End::broken(format!("the outbox has number {} after {after}", first.seq)));
        }
        self.session.queue.extend(more);
        Ok(())
    }

    /// Sends what is due while there is room.
    pub(super) fn pump(&mut self) {
        self.send_while_there_is_room(Self::next_out);
    }

    /// Sends what is made already while there is room, and makes no more.
    pub(in crate::upstream) fn finish_begun(&mut self) {
        self.send_while_there_is_room(|machine| machine.session.out.pop_front());
    }

    fn send_while_there_is_room(&mut self, mut next: impl FnMut(&mut Self) -> Option<Out>) {
        while self.has_room()
            && let Some(out) = next(self)
        {
            let has_to_wait = out.alone && !self.session.unanswered.is_empty();
            if has_to_wait || !self.is_fenced() {
                return self.session.out.push_front(out);
            }
            self.send_now(out.sent, out.message);
        }
    }

    fn has_room(&self) -> bool {
        let session = &self.session;
        let is_suspect = |(_, sent): &(u64, Sent)| self.is_suspect(*sent);
        let alone = self.trials.travels_alone() || session.unanswered.iter().any(is_suspect);
        let most = if alone { 1 } else { session.pace };
        session.unanswered.len() < most.min(session.limits.window())
    }

    /// Sends a message, whatever else is under way.
    pub(in crate::upstream) fn send_now(&mut self, sent: Sent, mut message: Message) {
        if self.session.unanswered.is_empty() {
            self.session.heard = self.now;
        }
        self.session.messages += 1;
        let id = self.session.messages;
        self.session.unanswered.push_back((id, sent));
        if sent == Sent::Subscription {
            return self.put(Output::Subscribe { id, topic: message.topic });
        }
        message.retain &= self.session.limits.retains;
        self.put(Output::Send { id, message });
    }

    /// Whether the broker takes no message of that size.
    pub(super) fn too_large(&self, message: &Message) -> bool {
        self.session.limits.packet_bytes_max.is_some_and(|max| message.packet_bytes() > max as usize)
    }

    fn next_out(&mut self) -> Option<Out> {
        // First: the status that another site left there must not be covered by our own.
        if let Some(out) = self.subscription_out(self.now).or_else(|| self.status_out()) {
            return Some(out);
        }
        // Numbers that are held make no message.
        while self.session.out.is_empty()
            && self.session.to_hold.len() < usize::from(IN_FLIGHT_MAX)
            && self.feed_numbers()
        {}
        self.session.out.pop_front()
    }

    /// The status where it changed, or was not sent for a while.
    fn status_out(&mut self) -> Option<Out> {
        let now = self.now;
        if self.session.state_looked.is_some_and(|at| now - at < STATE_LOOKED_EVERY) {
            return None;
        }
        self.session.state_looked = Some(now);
        let state = self.site.state();
        let due = self.session.status_sent.as_ref().is_none_or(|(at, sent)| {
            let changed = (&sent.leader, sent.boxes) != (&state.leader, state.boxes);
            changed || now - *at >= STATUS_EVERY
        });
        if !due || self.trials.is_barred(TrialTarget::Status, now) {
            return None;
        }
        let message = json::status(&self.setting.naming, true, &state);
        self.session.status_sent = Some((now, state));
        Some(self.out(Sent::Status, message))
    }

    fn subscription_out(&mut self, now: Instant) -> Option<Out> {
        if self.session.subscribed || self.trials.is_barred(TrialTarget::Subscription, now) {
            return None;
        }
        self.session.subscribed = true;
        let topic = self.setting.naming.status_topic();
        let message = Message { topic, ..Message::default() };
        Some(self.out(Sent::Subscription, message))
    }

    /// A message that may go out with others, unless the connection broke over its like before.
    pub(super) fn out(&self, sent: Sent, message: Message) -> Out {
        Out { sent, message, alone: self.is_suspect(sent) }
    }

    /// Whether the connection broke over such a message before.
    fn is_suspect(&self, sent: Sent) -> bool {
        let broke = |target| self.trials.breaks(target);
        let of_series = match sent {
            Sent::Summary { series, .. } | Sent::Retry { series, .. } => broke(TrialTarget::Series(series)),
            _ => false,
        };
        of_series || broke(target_of(sent))
    }

    /// Makes messages of the totals that are tried again, and of the next number. Returns whether there was one.
    fn feed_numbers(&mut self) -> bool {
        let now = self.now;
        let under_way: HashSet<SeriesId> = self.session.totals_under_way.keys().copied().collect();
        for latest in self.trials.totals_due(&under_way, now) {
            self.feed_total(&latest, None);
        }
        if self.session.resume.is_some_and(|resume| resume > now) {
            return false;
        }
        let Some((numbered, total)) = self.session.queue.pop() else { return false };
        let series = numbered.summary.series;
        let messages: Vec<Message> = self
            .setting
            .formats
            .iter()
            .filter_map(|format| format.summary(&self.setting.naming, &numbered))
            .collect();
        let total = total.filter(|latest| self.total_is_free(latest, now));
        let totals = total.as_ref().map_or(0, |latest| self.totals_of(latest).len());
        let token = self.session.ledger.sent(numbered.seq, messages.len() + totals);
        self.shared.published(numbered.seq);
        self.session.under_way.insert(numbered.seq, numbered);
        for message in messages {
            match self.refused_before(series, &message, now) {
                Some(cause) => self.go_aside(token, cause),
                None => {
                    let out = self.out(Sent::Summary { token, series }, message);
                    self.session.out.push_back(out);
                }
            }
        }
        if let Some(latest) = total {
            self.feed_total(&latest, Some(token));
        }
        true
    }

    /// Why a summary is not tried on its own topic now, if it is not.
    fn refused_before(&self, series: SeriesId, message: &Message, now: Instant) -> Option<u8> {
        if !self.site.sets_aside() {
            return None;
        }
        if self.too_large(message) {
            return Some(trials::PACKET_TOO_LARGE);
        }
        let target = TrialTarget::Series(series);
        self.trials.cause(target).filter(|_| self.trials.is_barred(target, now))
    }

    fn totals_of(&self, latest: &Numbered) -> Vec<Message> {
        self.setting.formats.iter().filter_map(|format| format.total(&self.setting.naming, latest)).collect()
    }

    /// Whether a total is sent now; if not, it is kept for later.
    fn total_is_free(&mut self, latest: &Numbered, now: Instant) -> bool {
        let target = TrialTarget::Total(latest.summary.series);
        let too_large = self.totals_of(latest).iter().any(|message| self.too_large(message));
        let free = !too_large && !self.trials.is_barred(target, now);
        if !free {
            self.trials.keep_total(latest.clone());
        }
        free
    }

    fn feed_total(&mut self, latest: &Numbered, token: Option<Token>) {
        let (series, seq) = (latest.summary.series, latest.seq);
        let sent = match token {
            Some(token) => Sent::Total { token, series, latest: seq },
            None => Sent::LateTotal { series, latest: seq },
        };
        let messages = self.totals_of(latest);
        if token.is_none() && messages.iter().any(|message| self.too_large(message)) {
            return;
        }
        self.session.totals_under_way.insert(series, latest.clone());
        self.trials.on_total_sent(latest);
        for message in messages {
            let out = self.out(sent, message);
            self.session.out.push_back(out);
        }
    }
}

/// What is refused if this is.
pub(super) fn target_of(sent: Sent) -> TrialTarget {
    match sent {
        Sent::Summary { token, .. } => TrialTarget::Number(token.seq),
        Sent::Retry { seq, .. } => TrialTarget::Number(seq),
        Sent::Total { series, .. } | Sent::LateTotal { series, .. } | Sent::Clear { series, .. } => {
            TrialTarget::Total(series)
        }
        Sent::Aside { .. } => TrialTarget::Undeliverable,
        Sent::Status | Sent::Offline => TrialTarget::Status,
        Sent::Subscription => TrialTarget::Subscription,
    }
}
