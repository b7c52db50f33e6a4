//! Numbers that the broker does not take: published to the topic for such, else held, and tried again.

use super::*;
use crate::upstream::reasons;

impl<O: Outbox> Session<'_, O> {
    /// The summary of a number goes to the topic for what is undeliverable, or is held if that does not take
    /// it either.
    pub(super) fn go_aside(&mut self, token: Token, cause: u8) {
        let Some(numbered) = self.under_way.get(&token.seq) else { return };
        let message = self.aside_message(numbered, cause);
        let target = trials::Target::Undeliverable;
        let free = !self.is.trials.is_barred(target, Instant::now())
            && self.connection.too_large(&message).is_none();
        // One message at a time finds out whether it is taken by now.
        let finding_out = self.is.trials.cause(target).is_some() && self.is_aside_under_way();
        if free && !finding_out {
            let out = self.out(Sent::Aside { seq: token.seq, token: Some(token) }, message);
            self.out.push_front(out);
        } else {
            self.to_hold.push_back((token, cause));
        }
    }

    fn is_aside_under_way(&self) -> bool {
        let is_aside = |sent: &Sent| matches!(sent, Sent::Aside { .. });
        self.unanswered.iter().any(is_aside) || self.out.iter().any(|out| is_aside(&out.sent))
    }

    fn aside_message(&self, numbered: &Numbered, cause: u8) -> Message {
        let format = self.is.formats.first();
        let topic = self.is.naming.summary_topic(&numbered.name);
        format.undeliverable(self.is.naming, numbered, &topic, &reasons::of_cause(cause))
    }

    /// Why a number is not taken by its own topic.
    pub(super) fn cause_of(&self, token: Token) -> u8 {
        let series = self.under_way.get(&token.seq).map(|numbered| numbered.summary.series);
        let of_number = self.is.trials.cause(trials::Target::Number(token.seq));
        let of_series = series.and_then(|series| self.is.trials.cause(trials::Target::Series(series)));
        of_number.or(of_series).unwrap_or(trials::BROKE)
    }

    /// Records what is held: only then it counts as settled here.
    pub(super) async fn hold(&mut self) {
        while let Some((token, cause)) = self.to_hold.pop_front() {
            if !self.ledger.is_current(token) {
                continue;
            }
            let recorded = self.outbox.set_aside(token.seq, cause).await;
            if !self.outbox.holds(token.seq) {
                let why = recorded.err().unwrap_or_else(|| "the site does not hold it".to_owned());
                self.stall(&format!("cannot set number {} aside: {why}", token.seq));
                return;
            }
            if let Some(numbered) = self.under_way.get(&token.seq) {
                self.held.insert(token.seq, (numbered.clone(), cause));
            }
            self.settled_held.insert(token.seq);
            self.settled(token);
            let tried = self.is.trials.cause(trials::Target::Number(token.seq)).is_some();
            if tried && let Some(wait) = self.is.trials.number_held() {
                self.resume = Some(Instant::now() + wait);
            }
        }
    }

    /// Records what was taken of the held ones.
    pub(super) async fn release(&mut self) {
        if self.to_release.is_empty() {
            return;
        }
        for seq in std::mem::take(&mut self.to_release) {
            match self.outbox.released(seq).await {
                Ok(()) => {
                    self.is.trials.forget(seq);
                    self.held.remove(&seq);
                }
                // It is held still, and so published again; unless the answer alone was lost.
                Err(error) => {
                    self.is
                        .shared
                        .trouble(&format!("cannot record that number {seq} was delivered: {error}"));
                    if !self.outbox.holds(seq) {
                        self.held.remove(&seq);
                    }
                }
            }
            self.retrying.remove(&seq);
        }
    }

    /// A held number was taken.
    pub(super) fn held_taken(&mut self, seq: u64) {
        self.to_release.push(seq);
        self.is.shared.delivered(1);
    }

    /// How often the held numbers are looked through.
    pub(super) fn held_looked_every(&self) -> Duration {
        HELD_LOOKED_EVERY * (1 + self.held.len() as u32 / 1000)
    }

    pub(super) fn read_held(&mut self) {
        let now = Instant::now();
        self.held = self.outbox.held().into_iter().map(|(held, cause)| (held.seq, (held, cause))).collect();
        for (held, cause) in self.held.values() {
            self.is.trials.adopt(held.summary.series, *cause, now);
        }
    }

    /// Makes messages of held numbers that are due: the newest of a series first, since an older one may be
    /// what the broker minds.
    pub(super) fn feed_held(&mut self, now: Instant) {
        if self.held.is_empty() || self.held_looked.is_some_and(|at| now - at < self.held_looked_every()) {
            return;
        }
        self.held_looked = Some(now);
        let mut finding_out: BTreeSet<SeriesId> = self
            .retrying
            .iter()
            .filter_map(|seq| self.held.get(seq))
            .map(|(held, _)| held.summary.series)
            .collect();
        let mut finding_aside = self.is_aside_under_way();
        let mut due = Vec::new();
        for (seq, (held, cause)) in self.held.iter().rev() {
            if self.out.len() + due.len() >= usize::from(IN_FLIGHT_MAX) {
                break;
            }
            if self.retrying.contains(seq) {
                continue;
            }
            let (series, aside) =
                (trials::Target::Series(held.summary.series), trials::Target::Undeliverable);
            let own = self.own_message(held).filter(|_| {
                !self.is.trials.is_barred(trials::Target::Number(*seq), now)
                    && !self.is.trials.is_barred(series, now)
                    && (self.is.trials.cause(series).is_none() || finding_out.insert(held.summary.series))
            });
            if let Some(message) = own {
                due.push((Sent::Retry { seq: *seq, series: held.summary.series }, message));
                continue;
            }
            let message = self.aside_message(held, *cause);
            let free = !self.is.trials.is_barred(aside, now) && self.connection.too_large(&message).is_none();
            if free && (self.is.trials.cause(aside).is_none() || !finding_aside) {
                finding_aside = true;
                due.push((Sent::Aside { seq: *seq, token: None }, message));
            }
        }
        for (sent, message) in due {
            if let Sent::Retry { seq, .. } | Sent::Aside { seq, .. } = sent {
                self.retrying.insert(seq);
            }
            let out = self.out(sent, message);
            self.out.push_back(out);
        }
    }

    /// A held summary for its own topic, if the broker takes one of its size.
    fn own_message(&self, held: &Numbered) -> Option<Message> {
        let format = self.is.formats.first();
        let message = format.summary(self.is.naming, held)?;
        self.connection.too_large(&message).is_none().then_some(message)
    }
}
