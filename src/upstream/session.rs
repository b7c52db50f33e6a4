//! One connection's life: confirm leadership, number, publish in order, report what is acknowledged.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::Backoff;
use super::format::{Format, Message, Naming, Numbered, SiteState};
use super::json;
use super::ledger::{Ledger, Queue, Token};
use super::mqtt::{Answer, Connection, IN_FLIGHT_MAX, Target};
use super::outbox::{Outbox, Position};
use super::status::{Shared, State};

/// At most so many summaries are numbered and undelivered (counting.md).
const NUMBERED_MAX: u64 = 1_000;

/// How long a confirmed leadership is relied on: a box that was paused for longer asks again before
/// it publishes.
const FENCE_VALID: Duration = Duration::from_secs(1);

/// `Delivered` is proposed at most this often.
const DELIVERED_EVERY: Duration = Duration::from_secs(1);

/// The status topic is renewed this often even if neither leader nor boxes changed.
const STATUS_EVERY: Duration = Duration::from_secs(30);

/// Leader and boxes are compared with the status topic this often.
const STATE_LOOKED_EVERY: Duration = Duration::from_secs(1);

/// How soon after a look at the outbox the next one is taken: under load it changes all the time.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long a farewell may take: recording what was acknowledged needs a quorum, which may be gone.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// This box does not lead any more (in that term).
    NotLeading,
    /// The upstream is to stop.
    Stopped,
    /// Trouble, in words.
    Broken(String),
}

/// What an answer of the broker belongs to.
#[derive(Clone, Copy, Debug)]
enum Sent {
    /// A part of a number.
    Number(Token),
    Status,
    /// The last status of the last box.
    Offline,
}

/// See the module.
pub(super) struct Session<'a, O> {
    outbox: &'a mut O,
    term: u64,
    naming: &'a Naming,
    formats: &'a [Format],
    shared: &'a Shared,
    connection: Connection<Sent>,
    ledger: Ledger,
    queue: Queue,
    /// When the leadership was last confirmed: the start of the successful fence.
    fenced: Option<Instant>,
    /// The last number recorded as delivered, and when that was last tried.
    reported: (u64, Instant),
    status_sent: Option<(Instant, SiteState)>,
    /// When the site's state was last compared with that.
    state_looked: Option<Instant>,
    /// How many numbers may be under way: one at first, twice as many with each one taken. A broker
    /// that resets the connection over a message (Mosquitto 2.0.11 does where a rule denies one) takes the
    /// acknowledgements before it along; step by step everything before it is settled.
    pace: usize,
    /// After trouble that does not end the connection: when to try again.
    resume: Option<Instant>,
    backoff: Backoff,
    ended: bool,
}

impl<'a, O: Outbox> Session<'a, O> {
    /// Confirms leadership, connects, and confirms it again: a box that was paused must neither push
    /// the leader's connection out nor publish what it knew before.
    pub(super) async fn open(
        outbox: &'a mut O,
        term: u64,
        target: &Target,
        naming: &'a Naming,
        formats: &'a [Format],
        shared: &'a Shared,
    ) -> Result<Session<'a, O>, End> {
        confirm(outbox, term).await?;
        let now = outbox.state();
        let nobody = SiteState { leader: None, boxes: 0, ..now };
        let will = json::status(naming, false, &nobody);
        let connection = Connection::open(target, will).await.map_err(End::Broken)?;
        let fence_began = Instant::now();
        confirm(outbox, term).await?;
        let delivered = outbox.position().delivered;
        shared.connected();
        shared.enter(State::Connected);
        outbox.seen(Some(true));
        tracing::info!(broker = %target.url, delivered, "upstream: connected");
        if !connection.retains() {
            shared.trouble(
                "the broker keeps no retained messages: totals and status reach present subscribers only"
                    .to_owned(),
            );
        }
        Ok(Session {
            outbox,
            term,
            naming,
            formats,
            shared,
            connection,
            ledger: Ledger::new(delivered),
            queue: Queue::default(),
            fenced: Some(fence_began),
            reported: (delivered, Instant::now()),
            status_sent: None,
            state_looked: None,
            pace: 1,
            resume: None,
            backoff: Backoff::default(),
            ended: false,
        })
    }

    /// Runs until the connection or the leadership ends. May be cancelled, then only `close` is left.
    pub(super) async fn run(&mut self) -> End {
        loop {
            match self.round().await {
                Ok(()) => {}
                Err(end) => return end,
            }
        }
    }

    /// Records what was acknowledged and closes the connection. `last`: no box is left that could lead.
    pub(super) async fn close(mut self, end: &End, last: bool) {
        if matches!(end, End::Stopped) {
            // What is under way is mostly a round trip from being settled.
            let _ = tokio::time::timeout(FAREWELL, self.settle()).await;
        }
        if !matches!(end, End::NotLeading) {
            let recorded = tokio::time::timeout(FAREWELL, self.report()).await;
            if !matches!(recorded, Ok(Ok(()))) {
                tracing::info!(
                    "upstream: the latest acknowledgements are not recorded; their summaries are repeated"
                );
            }
        }
        if last && tokio::time::timeout(FAREWELL, self.say_offline()).await.is_err() {
            tracing::info!("upstream: the broker did not take the offline status; the will says it later");
        }
        if !self.ended {
            self.connection.close(last).await;
        }
    }

    /// Takes answers until nothing is under way.
    async fn settle(&mut self) {
        while !self.ended && self.ledger.under_way() > 0 {
            let answer = self.connection.answer().await;
            // Trouble is noted where it is taken; the farewell goes on regardless.
            let _ = self.take(answer);
        }
    }

    /// Publishes `offline` and waits until the broker has it: Mosquitto delays even the will of a
    /// session that has ended.
    async fn say_offline(&mut self) {
        let nobody = SiteState { leader: None, boxes: 0, ..self.outbox.state() };
        let message = json::status(self.naming, false, &nobody);
        if self.ended || self.connection.send(Sent::Offline, message).is_err() {
            return;
        }
        loop {
            match self.connection.answer().await {
                Answer::Acknowledged(Sent::Offline) | Answer::Refused(Sent::Offline, _) => return,
                answer => {
                    if self.take(answer).is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// One round: do all that is due, then wait for something to happen.
    async fn round(&mut self) -> Result<(), End> {
        self.check_term()?;
        let looked = Instant::now();
        if self.report_due().is_some_and(|due| due <= looked)
            && let Err(error) = self.report().await
        {
            self.shared.trouble(format!("cannot record what was delivered: {error}"));
            self.reported.1 = Instant::now();
        }
        if self.resume.is_none_or(|resume| resume <= looked) {
            self.resume = None;
            self.fill().await?;
            self.publish().await?;
        }
        self.send_status().await?;
        self.wait(looked).await
    }

    fn check_term(&self) -> Result<(), End> {
        if self.outbox.leads() == Some(self.term) { Ok(()) } else { Err(End::NotLeading) }
    }

    /// Makes sure that the leadership was confirmed a moment ago. Call it before anything is published.
    async fn fence(&mut self) -> Result<(), End> {
        if self.fenced.is_some_and(|at| at.elapsed() < FENCE_VALID) {
            return Ok(());
        }
        let began = Instant::now();
        confirm(self.outbox, self.term).await?;
        self.fenced = Some(began);
        Ok(())
    }

    /// Numbers what has no number yet and takes numbered summaries into the queue.
    async fn fill(&mut self) -> Result<(), End> {
        let position = self.outbox.position();
        if let Some(count) = numbers_due(position)
            && let Err(error) = self.outbox.number(count).await
        {
            self.shared.trouble(format!("cannot number summaries: {error}"));
            self.resume = Some(Instant::now() + self.backoff.next(super::jitter()));
        }
        let after = self.queue.last().unwrap_or(self.ledger.next() - 1);
        let more = self.outbox.numbered(after, NUMBERED_MAX as usize);
        // A gap would mean that the outbox lost a number; sending past it would hide that.
        if let Some(first) = more.first()
            && first.seq != after + 1
        {
            return Err(End::Broken(format!("the outbox has number {} after {after}", first.seq)));
        }
        self.queue.extend(more);
        Ok(())
    }

    /// Sends queued summaries while there is room.
    async fn publish(&mut self) -> Result<(), End> {
        // A summary and its total go out together, in every format.
        let needed = (2 * self.formats.len()).min(self.connection.window());
        while self.queue.next().is_some()
            && self.ledger.under_way() < self.pace
            && self.connection.room() >= needed
        {
            self.fence().await?;
            if let Some((numbered, total)) = self.queue.pop() {
                self.send_number(&numbered, total.as_ref()).map_err(End::Broken)?;
            }
        }
        Ok(())
    }

    fn send_number(&mut self, numbered: &Numbered, total: Option<&Numbered>) -> Result<(), String> {
        let mut messages: Vec<Message> = Vec::with_capacity(2 * self.formats.len());
        for format in self.formats {
            messages.extend(format.summary(self.naming, numbered));
            messages.extend(total.and_then(|latest| format.total(self.naming, latest)));
        }
        let token = self.ledger.sent(numbered.seq, messages.len());
        for message in messages {
            self.connection.send(Sent::Number(token), message)?;
        }
        self.shared.published();
        Ok(())
    }

    /// Sends the status where it changed, or was not sent for a while.
    async fn send_status(&mut self) -> Result<(), End> {
        if self.state_looked.is_some_and(|at| at.elapsed() < STATE_LOOKED_EVERY) {
            return Ok(());
        }
        self.state_looked = Some(Instant::now());
        let state = self.outbox.state();
        let due = self.status_sent.as_ref().is_none_or(|(at, sent)| {
            let changed = (&sent.leader, sent.boxes) != (&state.leader, state.boxes);
            changed || at.elapsed() >= STATUS_EVERY
        });
        if !due || self.connection.room() == 0 {
            return Ok(());
        }
        self.fence().await?;
        let message = json::status(self.naming, true, &state);
        self.connection.send(Sent::Status, message).map_err(End::Broken)?;
        self.status_sent = Some((Instant::now(), state));
        Ok(())
    }

    /// When acknowledged numbers are to be recorded next, if there are any.
    fn report_due(&self) -> Option<Instant> {
        let (reported, at) = self.reported;
        (self.ledger.taken() > reported).then(|| at + DELIVERED_EVERY)
    }

    async fn report(&mut self) -> Result<(), String> {
        let taken = self.ledger.taken();
        if taken > self.reported.0 {
            self.outbox.delivered(taken).await?;
            self.reported = (taken, Instant::now());
        }
        Ok(())
    }

    /// Waits for an answer, a change or the next moment at which something is due.
    async fn wait(&mut self, looked: Instant) -> Result<(), End> {
        let mut until = looked + Duration::from_secs(1);
        if let Some(resume) = self.resume {
            until = until.min(resume);
        }
        if let Some(due) = self.report_due() {
            until = until.min(due.max(looked));
        }
        let outbox = &mut *self.outbox;
        let changed = async move {
            tokio::time::sleep_until(looked + LOOK_EVERY).await;
            outbox.changed().await;
        };
        tokio::select! {
            answer = self.connection.answer() => {
                self.take(answer)?;
                // Those that came with it: one round for all of them.
                while let Some(answer) = self.connection.answer().now_or_never() {
                    self.take(answer)?;
                }
                Ok(())
            }
            () = changed => Ok(()),
            () = tokio::time::sleep_until(until) => Ok(()),
        }
    }

    fn take(&mut self, answer: Answer<Sent>) -> Result<(), End> {
        match answer {
            Answer::Acknowledged(Sent::Number(token)) => {
                let before = self.ledger.taken();
                if self.ledger.acknowledged(token) {
                    self.shared.acknowledged(self.ledger.taken() - before);
                    self.pace = self.pace.saturating_mul(2).min(usize::from(IN_FLIGHT_MAX));
                    self.backoff = Backoff::default();
                }
            }
            Answer::Acknowledged(Sent::Status | Sent::Offline) => {}
            Answer::Refused(Sent::Number(token), reason) => {
                self.shared.refused();
                if self.ledger.is_current(token) {
                    self.ledger.rewind();
                    self.queue.clear();
                    self.pace = 1;
                    self.resume = Some(Instant::now() + self.backoff.next(super::jitter()));
                    let next = self.ledger.next();
                    self.shared.trouble(format!(
                        "the broker refuses summaries: {reason}; nothing is skipped, number {next} and what follows are tried again"
                    ));
                }
            }
            Answer::Refused(Sent::Status | Sent::Offline, reason) => {
                self.shared.refused();
                self.shared.trouble(format!("the broker refuses the status topic: {reason}"));
            }
            Answer::Ended(why) => {
                self.ended = true;
                let awaited = match self.ledger.under_way() {
                    0 => String::new(),
                    some => {
                        format!("; {some} summaries from number {} are sent again", self.ledger.taken() + 1)
                    }
                };
                return Err(End::Broken(format!("{why}{awaited}")));
            }
        }
        Ok(())
    }
}

/// Confirms by ReadIndex that this box leads, still in that term.
async fn confirm(outbox: &impl Outbox, term: u64) -> Result<(), End> {
    let fence = outbox.fence().await;
    if outbox.leads() != Some(term) {
        return Err(End::NotLeading);
    }
    fence.map_err(|error| End::Broken(format!("cannot confirm leadership: {error}")))
}

/// How many summaries are to be numbered now, if any.
fn numbers_due(position: Position) -> Option<u32> {
    let outstanding = position.numbered_last.saturating_sub(position.delivered);
    let room = NUMBERED_MAX.saturating_sub(outstanding);
    let count = room.min(position.unnumbered as u64);
    u32::try_from(count).ok().filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_a_thousand_numbers_are_undelivered() {
        let due = |delivered, numbered_last, unnumbered| {
            numbers_due(Position { delivered, numbered_last, unnumbered })
        };
        assert_eq!(due(0, 0, 5_000), Some(1_000));
        assert_eq!(due(10, 800, 5_000), Some(210));
        assert_eq!(due(10, 1_010, 5_000), None);
        assert_eq!(due(0, 0, 3), Some(3));
        assert_eq!(due(5, 5, 0), None);
    }
}
