//! One connection's incarnation: confirm leadership, number, publish in order, report what is acknowledged.

//!
//! * `publish`: what goes out next, one message after the other.
//! * `answers`: what became of it, and of the connection.
//! * `held`: numbers that the broker does not take.

mod answers;
mod held;
mod publish;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::Backoff;
use super::formats::{Formats, Naming, Numbered, SiteState, json};
use super::ledger::{Ledger, Queue, Token};
use super::outbox::{Outbox, Position};
use super::status::Shared;
use super::trials::{self, Trials};
use crate::mqtt::{Answer, Connection, Ending, IN_FLIGHT_MAX, Learned, Message, Target};
use crate::site::SeriesId;

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

/// Held numbers are looked through this often, the more of them the more seldom: so often where there are up to a
/// thousand.
const HELD_LOOKED_EVERY: Duration = Duration::from_millis(100);

/// How long a farewell may take: recording what was acknowledged needs a quorum, which may be gone.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// This box does not lead any more (in that term).
    NotLeading,
    /// The upstream is to stop.
    Stopped,
    /// Trouble.
    Broken(Ending),
}

impl End {
    /// Trouble of our own.
    fn broken(what: impl Into<String>) -> End {
        End::Broken(Ending { what: what.into(), ..Ending::default() })
    }
}

/// What an answer of the broker belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// A summary, on its own topic.
    Summary {
        token: Token,
        series: SeriesId,
    },
    /// The retained total that goes out with a number, as of the number `latest`.
    Total {
        token: Token,
        series: SeriesId,
        latest: u64,
    },
    /// A total that was refused before.
    LateTotal {
        series: SeriesId,
        latest: u64,
    },
    /// A summary on the topic of those that their own topics do not take; without a token it is held.
    Aside {
        seq: u64,
        token: Option<Token>,
    },
    /// A held summary, on its own topic.
    Retry {
        seq: u64,
        series: SeriesId,
    },
    Status,
    /// The last status of the last box.
    Offline,
    Subscription,
}

/// A message that is to go out.
struct Out {
    sent: Sent,
    message: Message,
    /// Whether nothing else may be under way: the connection may break over it.
    alone: bool,
}

/// What a session is told and keeps for the next one.
pub(super) struct Setting<'a> {
    pub(super) term: u64,
    pub(super) target: &'a Target,
    pub(super) naming: &'a Naming,
    pub(super) formats: &'a Formats,
    pub(super) shared: &'a Shared,
    pub(super) trials: &'a mut Trials,
    pub(super) learned: &'a mut Learned,
    /// How long the broker may leave all messages unanswered.
    pub(super) answer_timeout: Duration,
}

/// See the module.
pub(super) struct Session<'a, O> {
    outbox: &'a mut O,
    is: Setting<'a>,
    connection: Connection<Sent>,
    ledger: Ledger,
    queue: Queue,
    /// Messages that are to go out next.
    out: VecDeque<Out>,
    /// What was sent and has no answer, in order.
    unanswered: VecDeque<Sent>,
    /// When the last answer came, or the first message was sent that waits for one.
    heard: Instant,
    /// What was refused last, if nothing was taken since.
    last_refused: Option<Sent>,
    /// Numbers that were sent and are not taken.
    under_way: BTreeMap<u64, Numbered>,
    /// Totals that were sent and are not answered, the latest of each series.
    totals_under_way: BTreeMap<SeriesId, Numbered>,
    /// Refused numbers that are to be set aside, and why.
    to_hold: VecDeque<(Token, u8)>,
    /// Numbers that are settled because they are held, while others before them are not: the broker has none of them.
    settled_held: BTreeSet<u64>,
    /// Held numbers, and why.
    held: BTreeMap<u64, (Numbered, u8)>,
    /// Those of them that are under way again.
    retrying: BTreeSet<u64>,
    /// Those of them that were taken.
    to_release: Vec<u64>,
    held_looked: Option<Instant>,
    /// When the leadership was last confirmed: the start of the successful fence.
    fenced: Option<Instant>,
    /// The last number recorded as delivered, and when that was last tried.
    reported: (u64, Instant),
    status_sent: Option<(Instant, SiteState)>,
    /// When the site's state was last compared with that.
    state_looked: Option<Instant>,
    subscribed: bool,
    /// How many messages may be under way: one at first, twice as many with each one taken. A broker
    /// that breaks the connection over a message takes the acknowledgements before it along; step by step
    /// everything before it is settled.
    pace: usize,
    /// After trouble that does not end the connection: when numbers go on.
    resume: Option<Instant>,
    backoff: Backoff,
    ended: bool,
}

impl<'a, O: Outbox> Session<'a, O> {
    /// Confirms leadership, connects, and confirms it again: a box that was paused must neither push
    /// the leader's connection out nor publish what it knew before.
    pub(super) async fn open(outbox: &'a mut O, is: Setting<'a>) -> Result<Session<'a, O>, End> {
        confirm(outbox, is.term).await?;
        let now = outbox.state();
        let nobody = SiteState { leader: None, boxes: 0, ..now };
        let will = json::status(is.naming, false, &nobody);
        let connection = Connection::open(is.target, will, is.learned).await.map_err(End::Broken)?;
        let fence_began = Instant::now();
        confirm(outbox, is.term).await?;
        let delivered = outbox.position().delivered;
        is.shared.connected(connection.limits(), &is.target.url, delivered);
        outbox.seen(Some(true));
        is.trials.connected(fence_began);
        let mut session = Session {
            outbox,
            is,
            connection,
            ledger: Ledger::new(delivered),
            queue: Queue::default(),
            out: VecDeque::new(),
            unanswered: VecDeque::new(),
            heard: Instant::now(),
            last_refused: None,
            under_way: BTreeMap::new(),
            totals_under_way: BTreeMap::new(),
            to_hold: VecDeque::new(),
            settled_held: BTreeSet::new(),
            held: BTreeMap::new(),
            retrying: BTreeSet::new(),
            to_release: Vec::new(),
            held_looked: None,
            fenced: Some(fence_began),
            reported: (delivered, Instant::now()),
            status_sent: None,
            state_looked: None,
            subscribed: false,
            pace: 1,
            resume: None,
            backoff: Backoff::default(),
            ended: false,
        };
        session.read_held();
        Ok(session)
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

    /// Takes answers until nothing is under way; what was begun of a number goes out first, the rest does not.
    async fn settle(&mut self) {
        while !self.ended {
            if self.finish_begun().await.is_err() || self.unanswered.is_empty() {
                return;
            }
            let answer = self.connection.answer().await;
            // Trouble is noted where it is taken; the farewell goes on regardless.
            let _ = self.take(answer);
        }
    }

    /// Publishes `offline` and waits until the broker has it: Mosquitto delays even the will of a
    /// session that has ended.
    async fn say_offline(&mut self) {
        let nobody = SiteState { leader: None, boxes: 0, ..self.outbox.state() };
        let message = json::status(self.is.naming, false, &nobody);
        if self.ended || self.connection.send(Sent::Offline, message).is_err() {
            return;
        }
        self.unanswered.push_back(Sent::Offline);
        while self.unanswered.contains(&Sent::Offline) {
            let answer = self.connection.answer().await;
            if self.take(answer).is_err() {
                return;
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
            self.is.shared.trouble(&format!("cannot record what was delivered: {error}"));
            self.reported.1 = Instant::now();
        }
        self.release().await;
        self.hold().await;
        if self.resume.is_none_or(|resume| resume <= looked) {
            self.resume = None;
            self.fill().await?;
        }
        self.feed_held(looked);
        self.pump().await?;
        self.is.shared.refusing(self.refused_topics());
        self.check_answers()?;
        self.wait(looked).await
    }

    /// A broker that leaves everything unanswered holds up the site like one that is away.
    fn check_answers(&mut self) -> Result<(), End> {
        let timeout = self.is.answer_timeout;
        if self.unanswered.is_empty() || self.heard.elapsed() < timeout {
            return Ok(());
        }
        let what =
            format!("the broker has acknowledged nothing for {} s; connecting again", timeout.as_secs());
        Err(self.on_end(Ending { what, ..Ending::default() }))
    }

    fn check_term(&self) -> Result<(), End> {
        if self.outbox.leads() == Some(self.is.term) { Ok(()) } else { Err(End::NotLeading) }
    }

    /// Makes sure that the leadership was confirmed a moment ago. Call it before anything is published.
    async fn fence(&mut self) -> Result<(), End> {
        if self.fenced.is_some_and(|at| at.elapsed() < FENCE_VALID) {
            return Ok(());
        }
        let began = Instant::now();
        confirm(self.outbox, self.is.term).await?;
        self.fenced = Some(began);
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
        if !self.to_hold.is_empty() || !self.to_release.is_empty() {
            return Ok(());
        }
        let mut until = looked + Duration::from_secs(1);
        if let Some(resume) = self.resume {
            until = until.min(resume);
        }
        if !self.held.is_empty() {
            until = until.min(looked + self.held_looked_every());
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
}

/// Confirms by ReadIndex that this box leads, still in that term.
async fn confirm(outbox: &impl Outbox, term: u64) -> Result<(), End> {
    let fence = outbox.fence().await;
    if outbox.leads() != Some(term) {
        return Err(End::NotLeading);
    }
    fence.map_err(|error| End::broken(format!("cannot confirm leadership: {error}")))
}

/// How many summaries are to be numbered now, if any: as many as the entry can number.
fn numbers_due(position: Position) -> Option<u32> {
    let outstanding = position.numbered_last.saturating_sub(position.delivered);
    let room = position.numbered_max.saturating_sub(outstanding);
    let count = room.min(position.numberable as u64);
    u32::try_from(count).ok().filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_numbered_than_the_setting_lets_be_undelivered() {
        let due = |delivered, numbered_last, numberable, numbered_max| {
            numbers_due(Position { delivered, numbered_last, numberable, numbered_max })
        };
        assert_eq!(due(0, 0, 5_000, 1_000), Some(1_000));
        assert_eq!(due(10, 800, 5_000, 1_000), Some(210));
        assert_eq!(due(10, 1_010, 5_000, 1_000), None);
        assert_eq!(due(0, 0, 3, 1_000), Some(3));
        assert_eq!(due(5, 5, 0, 1_000), None);
        // An entry that can number nothing is not proposed, whatever the setting is and was.
        assert_eq!((due(0, 5, 100, 5), due(0, 100, 100, 5)), (None, None));
        assert_eq!((due(2, 5, 100, 5), due(0, 0, 20_000, 10_000)), (Some(2), Some(10_000)));
    }
}
