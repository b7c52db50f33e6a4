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
        // First: the status that another site left there must not be covered by our own. It may wait for a fence.
        if self.session.out.front().is_some_and(|out| out.sent == Sent::Subscription) {
            return self.session.out.pop_front();
        }
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
        series_target_of(sent).is_some_and(broke) || broke(target_of(sent))
    }

    /// Makes messages of the totals that are tried again, and of the next number. Returns whether there was one.
    fn feed_numbers(&mut self) -> bool {
        let now = self.now;
        let under_way: HashSet<SeriesId> = self.session.totals_under_way.keys().copied().collect();
        for latest in self.trials.totals_due(&under_way, now) {
            let series = latest.summary.series;
            let messages =
                self.totals_of(&latest, |machine, place| machine.trials.is_total_due(series, place, now));
            self.feed_total(&latest, None, messages);
        }
        if self.session.resume.is_some_and(|resume| resume > now) {
            return false;
        }
        let Some((numbered, total)) = self.session.queue.pop() else { return false };
        let series = numbered.summary.series;
        let formats = self.setting.formats.with_places();
        let messages: Vec<(Place, Message)> = formats
            .filter_map(|(place, format)| Some((place, format.summary(&self.setting.naming, &numbered)?)))
            .collect();
        let totals = total.as_ref().map_or_else(Vec::new, |latest| self.free_totals(latest, now));
        let lacking = if deliberate::is(Bug::SettlesByOneFormat) { 1 } else { messages.len() + totals.len() };
        let token = self.session.ledger.sent(numbered.seq, lacking);
        self.shared.published(numbered.seq);
        self.session.under_way.insert(numbered.seq, numbered);
        for (place, message) in messages {
            match self.refused_before(series, place, &message, now) {
                Some(cause) => self.go_aside(token, cause),
                None => {
                    let out = self.out(Sent::Summary { token, series, place }, message);
                    self.session.out.push_back(out);
                }
            }
        }
        if let Some(latest) = total {
            self.feed_total(&latest, Some(token), totals);
        }
        true
    }

    /// Why a summary is not tried on its own topic now, if it is not.
    fn refused_before(&self, series: SeriesId, place: Place, message: &Message, now: Instant) -> Option<u8> {
        if !self.site.sets_aside() {
            return None;
        }
        if self.too_large(message) {
            return Some(trials::PACKET_TOO_LARGE);
        }
        let target = TrialTarget::Series(series, place);
        self.trials.cause(target).filter(|_| self.trials.is_barred(target, now))
    }

    /// The messages of a total in the formats that are wanted and of which the broker takes one of that size.
    fn totals_of(
        &self,
        latest: &Numbered,
        is_wanted: impl Fn(&Self, Place) -> bool,
    ) -> Vec<(Place, Message)> {
        let formats = self.setting.formats.with_places().filter(|(place, _)| is_wanted(self, *place));
        let totals =
            formats.filter_map(|(place, format)| Some((place, format.total(&self.setting.naming, latest)?)));
        totals.filter(|(_, message)| !self.too_large(message)).collect()
    }

    /// What of a total is sent now; what is not is kept for later.
    fn free_totals(&mut self, latest: &Numbered, now: Instant) -> Vec<(Place, Message)> {
        let series = latest.summary.series;
        let is_free =
            |machine: &Self, place| !machine.trials.is_barred(TrialTarget::Total(series, place), now);
        let free = self.totals_of(latest, is_free);
        if free.len() < self.setting.formats.iter().count() {
            self.trials.keep_total(latest.clone());
        }
        free
    }

    fn feed_total(&mut self, latest: &Numbered, token: Option<Token>, messages: Vec<(Place, Message)>) {
        let (series, seq) = (latest.summary.series, latest.seq);
        if messages.is_empty() {
            return;
        }
        self.session.totals_under_way.insert(series, (latest.clone(), messages.len()));
        self.trials.on_total_sent(latest);
        for (place, message) in messages {
            let sent = match token {
                Some(token) => Sent::Total { token, series, latest: seq, place },
                None => Sent::LateTotal { series, latest: seq, place },
            };
            let out = self.out(sent, message);
            self.session.out.push_back(out);
        }
    }
}

/// What is refused if this is.
pub(super) fn target_of(sent: Sent) -> TrialTarget {
    match sent {
        Sent::Summary { token, place, .. } => TrialTarget::Number(token.seq, place),
        Sent::Retry { seq, .. } => TrialTarget::Number(seq, 0),
        Sent::Total { series, place, .. } | Sent::LateTotal { series, place, .. } => {
            TrialTarget::Total(series, place)
        }
        Sent::Aside { .. } => TrialTarget::Undeliverable,
        Sent::Status | Sent::Offline => TrialTarget::Status,
        Sent::Subscription => TrialTarget::Subscription,
    }
}

/// The series that is refused if this is, if it is one of its summaries.
pub(super) fn series_target_of(sent: Sent) -> Option<TrialTarget> {
    match sent {
        Sent::Summary { series, place, .. } => Some(TrialTarget::Series(series, place)),
        Sent::Retry { series, .. } => Some(TrialTarget::Series(series, 0)),
        _ => None,
    }
}
