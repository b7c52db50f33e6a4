//! One connection's life: number, publish in order, record what is acknowledged, as long as leadership is confirmed.
//!
//! * here: what is known of the connection, and one round of work on it.
//! * `publish`: what goes out next, one message after the other.
//! * `answers`: what became of it, and of the connection.
//! * `held`: numbers that the broker refuses.

mod answers;
mod held;
mod publish;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::formats::{Numbered, SiteState, json};
use super::ledger::{Ledger, Queue, Token};
use super::machine::{Machine, Output};
use super::outbox::{Ask, Position, SiteView};
use super::trials::{self, Place, TrialTarget};
use crate::backoff::Backoff;
use crate::deliberate::{self, Bug};
use crate::mqtt::{Answer, Ending, IN_FLIGHT_MAX, Limits, Message};
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

/// And how late at most.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);

/// Held numbers are looked through this often, the more of them the more seldom: so often where there are up to a
/// thousand.
const HELD_LOOKED_EVERY: Duration = Duration::from_millis(100);

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
    pub(super) fn broken(what: impl Into<String>) -> End {
        End::Broken(Ending { what: what.into(), ..Ending::default() })
    }
}

/// What an answer of the broker belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// A summary, on its own topic.
    Summary {
        token: Token,
        series: SeriesId,
        place: Place,
    },
    /// The retained total that goes out with a number, as of the number `latest`.
    Total {
        token: Token,
        series: SeriesId,
        latest: u64,
        place: Place,
    },
    /// A total that was refused before.
    LateTotal {
        series: SeriesId,
        latest: u64,
        place: Place,
    },
    /// A summary on the topic of those that their own topics do not take; without a token it is held.
    Aside {
        seq: u64,
        token: Option<Token>,
        /// Why its own topic does not take it.
        cause: u8,
    },
    /// A held summary, on its own topic in the first format.
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
#[derive(Debug)]
struct Out {
    sent: Sent,
    message: Message,
    /// Whether nothing else may be under way: the connection may break over it.
    alone: bool,
}

/// What was asked of the site for this session and has no answer, each by its number.
#[derive(Debug, Default)]
struct Asks {
    /// And when it was asked.
    fence: Option<(u64, Instant)>,
    number: Option<u64>,
    /// And up to where.
    delivered: Option<(u64, u64)>,
    /// And which number is to be held, and why.
    set_aside: Option<(u64, Token, u8)>,
    /// And which number is not held any more.
    released: Option<(u64, u64)>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Session {
    /// Which connection it is; 0: none.
    pub(super) connection: u64,
    /// What the broker said of itself.
    pub(super) limits: Limits,
    asks: Asks,
    /// How many messages were sent.
    messages: u64,
    ledger: Ledger,
    queue: Queue,
    /// Messages that are to go out next.
    out: VecDeque<Out>,
    /// What was sent and has no answer, in order, with the messages' numbers.
    unanswered: VecDeque<(u64, Sent)>,
    /// When the last answer came, or the first message was sent that waits for one.
    heard: Instant,
    /// What was refused last, if nothing was acknowledged since.
    last_refused: Option<Sent>,
    /// Numbers that were sent and are not settled.
    under_way: BTreeMap<u64, Numbered>,
    /// Totals that were sent and are not answered in so many formats, the latest of each series.
    totals_under_way: BTreeMap<SeriesId, (Numbered, usize)>,
    /// Refused numbers that are to be set aside, and why.
    to_hold: VecDeque<(Token, u8)>,
    /// Numbers that are settled because they are held, while others before them are not: the broker has none of them.
    settled_held: BTreeSet<u64>,
    /// Held numbers, and why.
    held: BTreeMap<u64, (Numbered, u8)>,
    /// Those of them that are under way again.
    retrying: BTreeSet<u64>,
    /// Those of them that the broker has acknowledged.
    to_release: VecDeque<u64>,
    held_looked: Option<Instant>,
    /// When the leadership was last confirmed: the start of the successful fence.
    pub(super) fenced: Option<Instant>,
    /// The last number recorded as delivered, and when that was last tried.
    recorded: (u64, Instant),
    /// Whether the last try could not be recorded: then it is not tried again at once.
    record_failed: bool,
    status_sent: Option<(Instant, SiteState)>,
    /// When the site's state was last compared with that.
    state_looked: Option<Instant>,
    pub(super) subscribed: bool,
    /// How many messages may be under way: one at first, twice as many with each acknowledgement. A broker
    /// that breaks the connection over a message takes the acknowledgements before it along; step by step
    /// everything before it is settled.
    pace: usize,
    /// After trouble that does not end the connection: when numbers go on.
    resume: Option<Instant>,
    backoff: Backoff,
    /// When the last round of work was.
    looked: Instant,
    /// The connection is gone.
    pub(super) ended: bool,
    /// It went before anything was published.
    pub(super) ended_early: Option<Ending>,
}

impl Session {
    /// Of a connection that is to be made.
    pub(super) fn new(connection: u64, now: Instant) -> Session {
        Session {
            connection,
            limits: Limits::default(),
            asks: Asks::default(),
            messages: 0,
            ledger: Ledger::new(0),
            queue: Queue::default(),
            out: VecDeque::new(),
            unanswered: VecDeque::new(),
            heard: now,
            last_refused: None,
            under_way: BTreeMap::new(),
            totals_under_way: BTreeMap::new(),
            to_hold: VecDeque::new(),
            settled_held: BTreeSet::new(),
            held: BTreeMap::new(),
            retrying: BTreeSet::new(),
            to_release: VecDeque::new(),
            held_looked: None,
            fenced: None,
            recorded: (0, now),
            record_failed: false,
            status_sent: None,
            state_looked: None,
            subscribed: false,
            pace: 1,
            resume: None,
            backoff: super::BACKOFF,
            looked: now,
            ended: false,
            ended_early: None,
        }
    }

    /// From here on it publishes what comes after that number.
    pub(super) fn begin(&mut self, delivered: u64, now: Instant) {
        self.ledger = Ledger::new(delivered);
        self.recorded = (delivered, now);
        self.heard = now;
    }

    /// From when on it is to be woken for changes of the site.
    pub(super) fn looks_at(&self) -> Instant {
        self.looked + LOOK_EVERY
    }

    /// Whether nothing waits for an answer.
    pub(super) fn is_idle(&self) -> bool {
        self.unanswered.is_empty() && self.asks.fence.is_none()
    }

    pub(super) fn has_unanswered(&self, sent: Sent) -> bool {
        self.unanswered.iter().any(|(_, one)| *one == sent)
    }

    /// Whether the settled run is being recorded now.
    pub(super) fn is_recording(&self) -> bool {
        self.asks.delivered.is_some()
    }

    /// Up to which number everything is settled: acknowledged by the broker, or held by the site.
    fn settled_up_to(&self) -> u64 {
        if deliberate::is(Bug::DeliversUnacknowledged) {
            self.ledger.next() - 1
        } else {
            self.ledger.settled_up_to()
        }
    }

    /// Whether the whole settled run is recorded.
    pub(super) fn is_recorded(&self) -> bool {
        self.settled_up_to() <= self.recorded.0
    }

    /// When settled numbers are to be recorded next, if there are any.
    fn record_due(&self) -> Option<Instant> {
        let waits = !self.is_recorded() && !self.is_recording();
        waits.then(|| self.recorded.1 + DELIVERED_EVERY)
    }

    /// How often the held numbers are looked through.
    fn held_looked_every(&self) -> Duration {
        HELD_LOOKED_EVERY * (1 + self.held.len() as u32 / 1000)
    }
}

impl<S: SiteView> Machine<S> {
    /// One round: does all that is due.
    pub(super) fn round(&mut self) -> Result<(), End> {
        self.check_term()?;
        let now = self.now;
        self.session.looked = now;
        if self.session.record_due().is_some_and(|due| due <= now) || self.holds_up_numbers() {
            self.record();
        }
        self.release();
        self.hold();
        if self.session.resume.is_none_or(|resume| resume <= now) {
            self.session.resume = None;
            self.fill()?;
        }
        self.feed_held(now);
        self.pump();
        self.shared.refusing(self.refused_topics());
        self.check_answers()
    }

    /// When the next round is to be, though nothing comes.
    pub(super) fn session_due(&self) -> Instant {
        let session = &self.session;
        let looked = session.looked;
        let held = (!session.held.is_empty()).then(|| looked + session.held_looked_every());
        let record = session.record_due().map(|due| due.max(looked));
        let due = [session.resume, held, record].into_iter().flatten().min();
        let latest = looked + LOOK_EVERY_MAX;
        due.map_or(latest, |due| due.min(latest))
    }

    /// A broker that leaves everything unanswered holds up the site like one that is away.
    fn check_answers(&mut self) -> Result<(), End> {
        let timeout = self.setting.answer_timeout;
        let silent = self.now.saturating_duration_since(self.session.heard);
        if self.session.unanswered.is_empty() || silent < timeout {
            return Ok(());
        }
        let what = format!("the broker has acknowledged nothing for {} s; reconnecting", timeout.as_secs());
        Err(self.on_end(Ending { what, ..Ending::default() }))
    }

    pub(super) fn check_term(&self) -> Result<(), End> {
        if self.site.leads() == Some(self.attempt.term) { Ok(()) } else { Err(End::NotLeading) }
    }

    /// Whether the leadership was confirmed a moment ago. Nothing is published else; it is confirmed anew.
    fn is_fenced(&mut self) -> bool {
        let now = self.now;
        let is_valid = |at: Instant| now.saturating_duration_since(at) < FENCE_VALID;
        if self.session.fenced.is_some_and(is_valid) || deliberate::is(Bug::PublishesUnfenced) {
            return true;
        }
        if self.session.asks.fence.is_none() {
            let ticket = self.ask(Ask::Fence);
            self.session.asks.fence = Some((ticket, now));
        }
        false
    }

    /// Whether more could be numbered if what is settled were recorded: all numbers that the setting allows are given
    /// and settled. After an outage a site catches up as fast as the broker takes it.
    fn holds_up_numbers(&self) -> bool {
        // Most rounds have nothing to record, and need not ask the site.
        if self.session.is_recorded() || self.session.record_failed {
            return false;
        }
        let position = self.site.position();
        let is_full = position.numberable > 0 && numbers_due(position).is_none();
        is_full && self.session.settled_up_to() >= position.numbered_last
    }

    /// Has the site record the settled run as delivered.
    pub(super) fn record(&mut self) {
        let settled = self.session.settled_up_to();
        if !self.session.is_recorded() && !self.session.is_recording() {
            let ticket = self.ask(Ask::Delivered(settled));
            self.session.asks.delivered = Some((ticket, settled));
        }
    }

    /// What became of something that was asked of the site.
    pub(super) fn on_session_asked(&mut self, ticket: u64, result: Result<(), String>) -> Result<(), End> {
        let (asks, now) = (&mut self.session.asks, self.now);
        if let Some((_, asked)) = asks.fence.take_if(|(asked, _)| *asked == ticket) {
            self.confirm(result)?;
            self.session.fenced = Some(asked);
        } else if asks.number.take_if(|asked| *asked == ticket).is_some() {
            if let Err(error) = result {
                self.shared.trouble(&format!("cannot number summaries: {error}"));
                self.pause();
            }
        } else if let Some((_, up_to)) = asks.delivered.take_if(|(asked, _)| *asked == ticket) {
            self.session.recorded.1 = now;
            self.session.record_failed = result.is_err();
            match result {
                Ok(()) => self.session.recorded.0 = up_to,
                Err(error) => self.shared.trouble(&format!("cannot record deliveries: {error}")),
            }
        } else if let Some((_, token, cause)) = asks.set_aside.take_if(|(asked, ..)| *asked == ticket) {
            self.on_set_aside(token, cause, result);
        } else if let Some((_, seq)) = asks.released.take_if(|(asked, _)| *asked == ticket) {
            self.on_released(seq, result);
        }
        Ok(())
    }

    /// Numbers go on after a while.
    fn pause(&mut self) {
        let jitter = self.jitter();
        self.session.resume = Some(self.now + self.session.backoff.next(jitter));
    }
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
            numbers_due(Position { delivered, numbered_last, numberable, numbered_max, held: 0 })
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
