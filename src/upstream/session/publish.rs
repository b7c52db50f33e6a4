//! What goes out next: a status, held numbers, then numbers in order, each with its series' total.

use super::*;

impl<O: Outbox> Session<'_, O> {
    /// Numbers what has no number yet and takes numbered summaries into the queue.
    pub(super) async fn fill(&mut self) -> Result<(), End> {
        if let Some(count) = numbers_due(self.outbox.position())
            && let Err(error) = self.outbox.number(count).await
        {
            self.is.shared.trouble(&format!("cannot number summaries: {error}"));
            self.resume = Some(Instant::now() + self.backoff.next(crate::upstream::jitter()));
        }
        let after = self.queue.last().unwrap_or(self.ledger.next() - 1);
        // All of them: which total is the latest of its series shows only at the last.
        let more = self.outbox.numbered(after, usize::MAX);
        // A gap would mean that the outbox lost a number; sending past it would hide that.
        if let Some(first) = more.first()
            && first.seq != after + 1
        {
            return Err(End::broken(format!("the outbox has number {} after {after}", first.seq)));
        }
        self.queue.extend(more);
        Ok(())
    }

    /// Sends what is due while there is room.
    pub(super) async fn pump(&mut self) -> Result<(), End> {
        self.send_while_there_is_room(Self::next_out).await
    }

    /// Sends what is made already while there is room, and makes no more.
    pub(super) async fn finish_begun(&mut self) -> Result<(), End> {
        self.send_while_there_is_room(|session| session.out.pop_front()).await
    }

    async fn send_while_there_is_room(
        &mut self,
        mut next: impl FnMut(&mut Self) -> Option<Out> + Send,
    ) -> Result<(), End> {
        while self.has_room()
            && let Some(out) = next(self)
        {
            if out.alone && !self.unanswered.is_empty() {
                self.out.push_front(out);
                break;
            }
            self.fence().await?;
            self.send(out)?;
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        let alone =
            self.is.trials.travels_alone() || self.unanswered.iter().any(|sent| self.is_suspect(*sent));
        let most = if alone { 1 } else { self.pace };
        self.unanswered.len() < most && self.connection.room() > 0
    }

    fn send(&mut self, out: Out) -> Result<(), End> {
        if self.unanswered.is_empty() {
            self.heard = Instant::now();
        }
        let result = match out.sent {
            Sent::Subscription => self.connection.subscribe(out.sent, &out.message.topic),
            sent => self.connection.send(sent, out.message),
        };
        // The message itself or the client: what is not sent must not look as if it were under way.
        result.map_err(End::broken)?;
        self.unanswered.push_back(out.sent);
        Ok(())
    }

    fn next_out(&mut self) -> Option<Out> {
        // First: the status that another site left there must not be covered by our own.
        if let Some(out) = self.subscription_out(Instant::now()).or_else(|| self.status_out()) {
            return Some(out);
        }
        // Numbers that are held make no message.
        while self.out.is_empty() && self.to_hold.len() < usize::from(IN_FLIGHT_MAX) && self.feed_numbers() {}
        self.out.pop_front()
    }

    /// The status where it changed, or was not sent for a while.
    fn status_out(&mut self) -> Option<Out> {
        let now = Instant::now();
        if self.state_looked.is_some_and(|at| now - at < STATE_LOOKED_EVERY) {
            return None;
        }
        self.state_looked = Some(now);
        let state = self.outbox.state();
        let due = self.status_sent.as_ref().is_none_or(|(at, sent)| {
            let changed = (&sent.leader, sent.boxes) != (&state.leader, state.boxes);
            changed || now - *at >= STATUS_EVERY
        });
        if !due || self.is.trials.is_barred(trials::Target::Status, now) {
            return None;
        }
        let message = json::status(self.is.naming, true, &state);
        self.status_sent = Some((now, state));
        Some(self.out(Sent::Status, message))
    }

    fn subscription_out(&mut self, now: Instant) -> Option<Out> {
        if self.subscribed || self.is.trials.is_barred(trials::Target::Subscription, now) {
            return None;
        }
        self.subscribed = true;
        let topic = self.is.naming.status_topic();
        let message = Message { topic, ..Message::default() };
        Some(self.out(Sent::Subscription, message))
    }

    /// A message that may go out with others, unless the connection broke over its like before.
    pub(super) fn out(&self, sent: Sent, message: Message) -> Out {
        Out { sent, message, alone: self.is_suspect(sent) }
    }

    /// Whether the connection broke over such a message before.
    fn is_suspect(&self, sent: Sent) -> bool {
        let broke = |target| self.is.trials.breaks(target);
        let of_series = match sent {
            Sent::Summary { series, .. } | Sent::Retry { series, .. } => {
                broke(trials::Target::Series(series))
            }
            _ => false,
        };
        of_series || broke(target_of(sent))
    }

    /// Makes messages of the totals that are tried again, and of the next number. Returns whether there was one.
    fn feed_numbers(&mut self) -> bool {
        let now = Instant::now();
        let under_way: HashSet<SeriesId> = self.totals_under_way.keys().copied().collect();
        for latest in self.is.trials.totals_due(&under_way, now) {
            self.feed_total(&latest, None);
        }
        if self.resume.is_some_and(|resume| resume > now) {
            return false;
        }
        let Some((numbered, total)) = self.queue.pop() else { return false };
        let series = numbered.summary.series;
        let messages: Vec<Message> =
            self.is.formats.iter().filter_map(|format| format.summary(self.is.naming, &numbered)).collect();
        let total = total.filter(|latest| self.total_is_free(latest, now));
        let totals = total.as_ref().map_or(0, |latest| self.totals_of(latest).len());
        let token = self.ledger.sent(numbered.seq, messages.len() + totals);
        self.is.shared.published(numbered.seq);
        self.under_way.insert(numbered.seq, numbered);
        for message in messages {
            match self.refused_before(series, &message, now) {
                Some(cause) => self.go_aside(token, cause),
                None => {
                    let out = self.out(Sent::Summary { token, series }, message);
                    self.out.push_back(out);
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
        if !self.outbox.sets_aside() {
            return None;
        }
        if self.connection.too_large(message).is_some() {
            return Some(trials::PACKET_TOO_LARGE);
        }
        let target = trials::Target::Series(series);
        self.is.trials.cause(target).filter(|_| self.is.trials.is_barred(target, now))
    }

    fn totals_of(&self, latest: &Numbered) -> Vec<Message> {
        self.is.formats.iter().filter_map(|format| format.total(self.is.naming, latest)).collect()
    }

    /// Whether a total is sent now; if not, it is kept for later.
    fn total_is_free(&mut self, latest: &Numbered, now: Instant) -> bool {
        let target = trials::Target::Total(latest.summary.series);
        let too_large =
            self.totals_of(latest).iter().any(|message| self.connection.too_large(message).is_some());
        let free = !too_large && !self.is.trials.is_barred(target, now);
        if !free {
            self.is.trials.keep_total(latest.clone());
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
        if token.is_none() && messages.iter().any(|message| self.connection.too_large(message).is_some()) {
            return;
        }
        self.totals_under_way.insert(series, latest.clone());
        for message in messages {
            let out = self.out(sent, message);
            self.out.push_back(out);
        }
    }
}

/// What is refused if this is.
pub(super) fn target_of(sent: Sent) -> trials::Target {
    match sent {
        Sent::Summary { token, .. } => trials::Target::Number(token.seq),
        Sent::Retry { seq, .. } => trials::Target::Number(seq),
        Sent::Total { series, .. } | Sent::LateTotal { series, .. } => trials::Target::Total(series),
        Sent::Aside { .. } => trials::Target::Undeliverable,
        Sent::Status | Sent::Offline => trials::Target::Status,
        Sent::Subscription => trials::Target::Subscription,
    }
}
