//! What the broker refuses: what is tried again when, and what travels alone. Pure, and kept over connections.
//!
//! A target that is refused is barred for a pause that doubles up to an hour with each further refusal; when the
//! pause is over, one message tries again. A connection that breaks says nothing of why: with several messages under
//! way each of them is suspect, so the next ones travel alone; one over which the connection broke three times
//! when it travelled alone counts as refused.
//!
//! Some brokers end the connection with each refusal. There every target is found out once, without delay; but of
//! those that are known to cost the connection only one is tried again at a time, and none for a while after one did,
//! however many there are: the connection belongs to those that are accepted.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use super::formats::Numbered;
use crate::deliberate::{self, Bug};
use crate::site::SeriesId;

/// So many connections break over a message that travels alone until it counts as refused.
const STRIKES_MAX: u32 = 3;

/// The first pause after a refusal, and after a connection that broke, which costs more to try.
const PAUSE_REFUSED: Duration = Duration::from_secs(2);
const PAUSE_BROKEN: Duration = Duration::from_secs(5);
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// A target that was tried again cost the connection: no other one that may is tried again for so long.
const RISK_PAUSE: Duration = Duration::from_secs(5);

/// The wait before a connection by which it is found out over which message the last one broke: three times
/// for each at most.
const FIND_OUT_AFTER: Duration = Duration::from_millis(250);

/// The same where the broker said over which, by refusing it: once for each.
const FIND_OUT_SOON: Duration = Duration::from_millis(20);

/// How many messages beyond the suspects travel alone: a new connection sends a status and a subscription too.
const ALONE_MORE: usize = 4;

/// So many numbers may be refused in a row without a pause: then the broker seems to accept nothing.
const REFUSED_IN_A_ROW_MAX: u32 = 32;

/// How many totals that the broker refuses are kept to be tried again.
const TOTALS_MAX: usize = 1000;

/// Why the connection broke is not known.
pub(super) const BROKE: u8 = 0;

/// MQTT's reason code for it.
pub(super) const PACKET_TOO_LARGE: u8 = 0x95;

/// A format, by its place in the configuration: each has topics of its own, and what the broker minds of one it may take of
/// another.
pub(super) type Place = u8;

/// What can be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TrialTarget {
    /// The summaries of a series.
    Series(SeriesId, Place),
    /// One number.
    Number(u64, Place),
    /// The retained total of a series.
    Total(SeriesId, Place),
    /// The topic for summaries that their own topics do not take.
    Undeliverable,
    /// The status topic.
    Status,
    /// The subscription to it.
    Subscription,
}

#[derive(Clone, Copy, Debug)]
struct Bar {
    cause: u8,
    /// Whether a try costs the connection.
    breaks: bool,
    /// That was known before it was tried last.
    known: bool,
    until: Instant,
    pause: Duration,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Trials {
    bars: BTreeMap<TrialTarget, Bar>,
    /// How often the connection broke over each, alone.
    strikes: BTreeMap<TrialTarget, u32>,
    /// So many messages more travel alone.
    alone: usize,
    /// Something was refused that was not before, or a try of it cost the connection, since that was asked last: how
    /// soon to go on.
    learned: Option<Duration>,
    /// The broker ends the connection with each refusal.
    words_cost: bool,
    /// Until then nothing is tried again that may cost the connection.
    no_risk_before: Option<Instant>,
    refused_in_a_row: u32,
    /// Totals that the broker refused, each the latest of its series.
    totals: BTreeMap<SeriesId, Numbered>,
}

impl Trials {
    /// Whether nothing is to be sent to the target now.
    pub(super) fn is_barred(&self, target: TrialTarget, now: Instant) -> bool {
        let no_risk = self.no_risk_before.is_some_and(|before| before > now);
        self.bars.get(&target).is_some_and(|bar| bar.until > now || no_risk && self.is_risky(bar))
    }

    fn is_risky(&self, bar: &Bar) -> bool {
        bar.breaks || self.words_cost
    }

    /// Why the target was refused last, if it was and no message to it was acknowledged since.
    pub(super) fn cause(&self, target: TrialTarget) -> Option<u8> {
        self.bars.get(&target).map(|bar| bar.cause)
    }

    /// The targets that are refused, and why.
    pub(super) fn refused(&self) -> impl Iterator<Item = (TrialTarget, u8)> {
        self.bars.iter().map(|(target, bar)| (*target, bar.cause))
    }

    /// Whether the connection broke over it, or breaks over all that is refused.
    pub(super) fn breaks(&self, target: TrialTarget) -> bool {
        self.bars.get(&target).is_some_and(|bar| self.is_risky(bar))
    }

    /// Notes a refusal, over which the connection may have broken; returns whether it is news.
    pub(super) fn refuse(&mut self, target: TrialTarget, cause: u8, breaks: bool, now: Instant) -> bool {
        let first = if breaks { PAUSE_BROKEN } else { PAUSE_REFUSED };
        let before = self.bars.get(&target);
        let pause = before.map_or(first, |bar| (bar.pause * 2).min(PAUSE_MAX));
        let known = before.is_some_and(|bar| self.is_risky(bar));
        if breaks && known {
            self.no_risk_before = Some(now + RISK_PAUSE);
        }
        // The status is sent seldom as it is, and shows when the broker accepts something again.
        let until = if target == TrialTarget::Status && !breaks { now } else { now + pause };
        let is_news = self.bars.insert(target, Bar { cause, breaks, known, until, pause }).is_none();
        if is_news {
            self.learned.get_or_insert(FIND_OUT_AFTER);
        }
        is_news
    }

    /// Notes that a message to the target was acknowledged. Returns whether the target was refused before.
    pub(super) fn on_acknowledged(&mut self, target: TrialTarget) -> bool {
        self.strikes.remove(&target);
        self.bars.remove(&target).is_some()
    }

    /// Forgets a number that is not tried any more, in whichever format.
    pub(super) fn forget(&mut self, number: u64) {
        let of_number = TrialTarget::Number(number, 0)..=TrialTarget::Number(number, Place::MAX);
        self.strikes.extract_if(of_number.clone(), |_, _| true).for_each(drop);
        self.bars.extract_if(of_number, |_, _| true).for_each(drop);
    }

    /// Whether a number was refused, in whichever format.
    pub(super) fn is_refused(&self, number: u64) -> bool {
        self.bars
            .range(TrialTarget::Number(number, 0)..=TrialTarget::Number(number, Place::MAX))
            .next()
            .is_some()
    }

    /// A series was set aside by a leader before: it is tried when its pause is over.
    pub(super) fn adopt(&mut self, series: SeriesId, cause: u8, now: Instant) {
        if self.cause(TrialTarget::Series(series, 0)).is_none() {
            // The library knows no acknowledgement with 0x95.
            let breaks = matches!(cause, BROKE | PACKET_TOO_LARGE);
            self.refuse(TrialTarget::Series(series, 0), cause, breaks, now);
        }
    }

    /// The broker may be another, or be configured otherwise: what it refused by a word is tried again at once.
    pub(super) fn on_connected(&mut self, now: Instant) {
        if !self.words_cost {
            self.lift(now, |bar| !bar.breaks);
        }
    }

    /// The broker accepts again what it refused: everything is tried again at once.
    pub(super) fn lift_all(&mut self, now: Instant) {
        self.lift(now, |_| true);
        self.refused_in_a_row = 0;
    }

    fn lift(&mut self, now: Instant, of: impl Fn(&Bar) -> bool) {
        for bar in self.bars.values_mut().filter(|bar| of(bar)) {
            bar.until = bar.until.min(now);
        }
    }

    /// The connection broke with these unanswered. Returns the one that counts as refused, if any does.
    pub(super) fn on_broken(&mut self, unanswered: &[TrialTarget]) -> Option<TrialTarget> {
        self.alone = self.alone.max(if unanswered.is_empty() { 0 } else { unanswered.len() + ALONE_MORE });
        let [target] = unanswered else { return None };
        // One that was refused before was only tried again.
        if self.bars.contains_key(target) {
            return Some(*target);
        }
        let strikes = self.strikes.entry(*target).or_default();
        *strikes += 1;
        if *strikes < STRIKES_MAX && !deliberate::is(Bug::SetsAsideEarly) {
            return None;
        }
        self.strikes.remove(target);
        Some(*target)
    }

    /// The connection ended right after the target was refused: Mosquitto 2.0.11 does that. So a try costs the
    /// connection, and of all that is refused.
    pub(super) fn on_broken_after(&mut self, target: TrialTarget, now: Instant) {
        self.words_cost = true;
        if let Some(bar) = self.bars.get_mut(&target) {
            bar.breaks = true;
            bar.pause = bar.pause.max(PAUSE_BROKEN);
            bar.until = now + bar.pause;
            if bar.known {
                self.no_risk_before = Some(now + RISK_PAUSE);
            }
            // The broker is there, and the next try of this one waits by itself: all others need not.
            self.learned = Some(FIND_OUT_SOON);
        }
    }

    /// The connection went on after a refusal.
    pub(super) fn on_survived(&mut self) {
        self.words_cost = false;
    }

    /// How soon to connect again after a connection that broke, if that brought something to light or the next one is
    /// to: over which message it breaks, or what is refused; tries of that become ever rarer, so this comes to an end.
    pub(super) fn finds_out(&mut self) -> Option<Duration> {
        let strikes = (!self.strikes.is_empty()).then_some(FIND_OUT_AFTER);
        self.learned.take().or(strikes)
    }

    /// Whether the next message travels alone.
    pub(super) fn travels_alone(&self) -> bool {
        self.alone > 0
    }

    /// A message was answered, whatever the answer.
    pub(super) fn on_answer(&mut self) {
        self.alone = self.alone.saturating_sub(1);
    }

    /// The broker has acknowledged a message: it accepts something.
    pub(super) fn on_any_acknowledged(&mut self) {
        self.refused_in_a_row = 0;
    }

    /// A number is held that was refused just now. Returns how long the next one is to wait, if the broker seems to accept nothing.
    pub(super) fn on_number_held(&mut self) -> Option<Duration> {
        self.refused_in_a_row = self.refused_in_a_row.saturating_add(1);
        let beyond = self.refused_in_a_row.checked_sub(REFUSED_IN_A_ROW_MAX)?;
        Some(Duration::from_secs(1 << beyond.min(12)).min(PAUSE_MAX))
    }

    /// Keeps a total that was refused, unless a later one of its series is kept.
    pub(super) fn keep_total(&mut self, latest: Numbered) {
        let series = latest.summary.series;
        let is_newer = self.totals.get(&series).is_none_or(|kept| kept.seq <= latest.seq);
        if is_newer && (self.totals.len() < TOTALS_MAX || self.totals.contains_key(&series)) {
            self.totals.insert(series, latest);
        }
    }

    /// A total was sent: an older one that is kept must not be tried again after it, whatever becomes of this one.
    pub(super) fn on_total_sent(&mut self, latest: &Numbered) {
        if self.totals.contains_key(&latest.summary.series) {
            self.keep_total(latest.clone());
        }
    }

    /// A total as of a number was taken: an older one is not wanted any more, unless another format lacks it.
    pub(super) fn on_total_acknowledged(&mut self, series: SeriesId, seq: u64) {
        let is_complete = self.total_bars(series).next().is_none();
        if is_complete && self.totals.get(&series).is_some_and(|kept| kept.seq <= seq) {
            self.totals.remove(&series);
        }
    }

    /// In which formats a series' total is refused.
    fn total_bars(&self, series: SeriesId) -> impl Iterator<Item = TrialTarget> {
        let of_series = TrialTarget::Total(series, 0)..=TrialTarget::Total(series, Place::MAX);
        self.bars.range(of_series).map(|(target, _)| *target)
    }

    /// Whether a total that is kept is to be tried again in this format now: where it was refused, if that is known.
    pub(super) fn is_total_due(&self, series: SeriesId, place: Place, now: Instant) -> bool {
        let target = TrialTarget::Total(series, place);
        let is_lacking = self.cause(target).is_some() || self.total_bars(series).next().is_none();
        is_lacking && !self.is_barred(target, now)
    }

    /// Totals to be tried again now, but for those of `under_way`.
    pub(super) fn totals_due(&self, under_way: &HashSet<SeriesId>, now: Instant) -> Vec<Numbered> {
        let due = self.totals.values().filter(|kept| {
            let series = kept.summary.series;
            let mut refused = self.total_bars(series);
            let is_due = refused.next().is_none_or(|first| {
                let mut all = std::iter::once(first).chain(refused);
                all.any(|target| !self.is_barred(target, now))
            });
            is_due && !under_way.contains(&series)
        });
        due.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: TrialTarget = TrialTarget::Number(7, 0);

    #[tokio::test]
    async fn pauses_double_up_to_an_hour_and_what_is_taken_is_free() {
        let mut trials = Trials::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for time in 0..14 {
            assert_eq!(trials.refuse(NUMBER, 0x87, false, now), time == 0);
            let began = now;
            while trials.is_barred(NUMBER, now) {
                now += Duration::from_secs(1);
            }
            pauses.push((now - began).as_secs());
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600, 3600]);
        assert!(trials.on_acknowledged(NUMBER));
        assert_eq!((trials.cause(NUMBER), trials.on_acknowledged(NUMBER)), (None, false));
    }

    #[test]
    fn three_breaks_alone_are_a_refusal_and_a_fourth_is_one_at_once() {
        let mut trials = Trials::default();
        assert_eq!(trials.on_broken(&[NUMBER, TrialTarget::Status]), None);
        assert!(trials.travels_alone());
        assert_eq!((trials.on_broken(&[NUMBER]), trials.on_broken(&[NUMBER])), (None, None));
        assert_eq!(trials.on_broken(&[]), None);
        assert_eq!(trials.on_broken(&[NUMBER]), Some(NUMBER));
        trials.refuse(NUMBER, BROKE, true, Instant::now());
        assert_eq!(trials.on_broken(&[NUMBER]), Some(NUMBER));
    }

    #[test]
    fn what_was_answered_in_between_is_no_suspect() {
        let mut trials = Trials::default();
        assert_eq!((trials.on_broken(&[NUMBER]), trials.on_broken(&[NUMBER])), (None, None));
        trials.on_acknowledged(NUMBER);
        assert_eq!(trials.finds_out(), None);
        assert_eq!((trials.on_broken(&[NUMBER]), trials.on_broken(&[TrialTarget::Status])), (None, None));
        for _ in 0..100 {
            trials.on_answer();
        }
        assert!(!trials.travels_alone());
    }

    #[test]
    fn a_broker_that_takes_nothing_is_given_fewer_and_fewer_numbers() {
        let mut trials = Trials::default();
        let waits: Vec<Option<u64>> =
            (0..48).map(|_| trials.on_number_held().map(|wait| wait.as_secs())).collect();
        assert!(waits[..31].iter().all(Option::is_none));
        assert_eq!((waits[31], waits[32], waits[47]), (Some(1), Some(2), Some(3600)));
        trials.on_any_acknowledged();
        assert_eq!(trials.on_number_held(), None);
    }

    #[tokio::test]
    async fn a_refusal_that_ends_the_connection_is_not_tried_again_by_the_next_one() {
        let mut trials = Trials::default();
        let now = Instant::now();
        trials.refuse(NUMBER, 0x87, false, now);
        trials.on_broken_after(NUMBER, now);
        trials.on_connected(now);
        assert!(trials.is_barred(NUMBER, now) && trials.breaks(NUMBER));
    }

    #[tokio::test]
    async fn what_costs_the_connection_is_found_out_at_once_and_tried_again_one_at_a_time() {
        let mut trials = Trials::default();
        let start = Instant::now();
        let refuse = |trials: &mut Trials, number: u64, now: Instant| {
            trials.refuse(TrialTarget::Number(number, 0), 0x87, false, now);
            trials.on_broken_after(TrialTarget::Number(number, 0), now);
            trials.on_connected(now);
        };
        for number in 0..100 {
            refuse(&mut trials, number, start);
            assert_eq!(trials.finds_out(), Some(FIND_OUT_SOON), "each of them once");
        }
        let mut tries = 0;
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            let due = (0..100).find(|number| !trials.is_barred(TrialTarget::Number(*number, 0), now));
            if let Some(number) = due {
                refuse(&mut trials, number, now);
                tries += 1;
                assert!(
                    (0..100).all(|number| trials.is_barred(TrialTarget::Number(number, 0), now)),
                    "{second} s"
                );
            }
        }
        assert!((110..=120).contains(&tries), "one every 5 s: {tries}");
        // A held one of an earlier leader is no other.
        trials.adopt(SeriesId(7), 0x87, start);
        assert!(trials.breaks(TrialTarget::Series(SeriesId(7), 0)));
        trials.on_survived();
        assert!(!trials.breaks(TrialTarget::Series(SeriesId(7), 0)), "refusals cost nothing any more");
    }

    #[test]
    fn a_total_that_is_kept_is_not_tried_again_after_a_later_one_was_sent() {
        let mut trials = Trials::default();
        let total = |seq| Numbered {
            seq,
            name: "parts".to_owned(),
            summary: crate::site::Summary {
                seq: Some(seq),
                series: SeriesId(0),
                start: tally_core::time::SiteTime(0),
                span_ms: 1,
                amount: tally_core::report::Amount::Counter(1),
                total: Some(i128::from(seq)),
                late: false,
                synced: true,
            },
        };
        trials.keep_total(total(5));
        trials.on_total_sent(&total(10));
        // Whatever became of it.
        assert_eq!(trials.totals_due(&HashSet::new(), Instant::now()), [total(10)]);
        trials.on_total_acknowledged(SeriesId(0), 10);
        trials.on_total_sent(&total(11));
        assert_eq!(trials.totals_due(&HashSet::new(), Instant::now()), []);
    }

    #[test]
    fn what_is_refused_in_one_format_is_not_free_because_another_takes_it() {
        let (mut trials, now) = (Trials::default(), Instant::now());
        let [json, cbor] = [0, 1].map(|place| TrialTarget::Number(7, place));
        for _ in 0..2 {
            assert_eq!(trials.on_broken(&[cbor]), None);
            trials.on_acknowledged(json);
        }
        assert_eq!(trials.on_broken(&[cbor]), Some(cbor));
        trials.refuse(cbor, BROKE, true, now);
        trials.on_acknowledged(json);
        assert!(trials.is_refused(7) && trials.is_barred(cbor, now));
        trials.forget(7);
        assert!(!trials.is_refused(7));
    }

    #[tokio::test]
    async fn a_new_connection_tries_again_what_was_refused_by_a_word() {
        let mut trials = Trials::default();
        let now = Instant::now();
        trials.refuse(TrialTarget::Undeliverable, 0x87, false, now);
        trials.refuse(NUMBER, BROKE, true, now);
        trials.on_connected(now);
        assert_eq!(
            (trials.is_barred(TrialTarget::Undeliverable, now), trials.is_barred(NUMBER, now)),
            (false, true)
        );
        trials.lift_all(now);
        assert!(!trials.is_barred(NUMBER, now));
        assert_eq!(trials.cause(NUMBER), Some(BROKE));
    }
}
