//! The machine by itself, without a broker and without waiting.

use std::collections::VecDeque;

use futures_util::FutureExt;

use super::broker_harness::*;
use super::formats::json;
use super::*;
use crate::mqtt::{Answer, Ending, Limits, Refusal};
use crate::site::{DepartureView, SeriesId};

struct Played {
    site: Site,
    machine: Machine<Node>,
    now: Instant,
    /// Topics and numbers of what was sent, in order.
    sent: Vec<(String, Option<u64>)>,
    /// Topics that were cleared.
    cleared: Vec<String>,
    /// What the broker retains of the last number.
    numbered: Option<Vec<u8>>,
    /// Statuses, in order.
    statuses: Vec<serde_json::Value>,
    /// How long the site takes to answer what it is asked next; all else it answers at once.
    answers_take: VecDeque<Duration>,
}

impl Played {
    fn new() -> Played {
        Played::with(Formats::default())
    }

    fn with(formats: Formats) -> Played {
        let site = Site::new();
        let naming = Naming { site: "s".to_owned(), site_id: SITE_ID, base: BaseTopic::of_site("s") };
        let setting = Setting {
            naming,
            formats,
            broker: "mqtt://broker".parse().unwrap(),
            answer_timeout: ANSWER_TIMEOUT,
        };
        let now = Instant::now();
        let (shared, random) = (SharedStatus::new(None), Random::seeded(1));
        let machine = Machine::new(site.outbox("box1"), setting, shared, random, now);
        Played {
            site,
            machine,
            now,
            sent: Vec::new(),
            cleared: Vec::new(),
            numbered: None,
            statuses: Vec::new(),
            answers_take: VecDeque::new(),
        }
    }

    /// Does all that is due at this time, with a broker that refuses these topics.
    fn play(&mut self, refuses: impl Fn(&str) -> bool) {
        let mut connection = self.machine.session.connection;
        self.machine.wake(self.now);
        self.machine.step();
        while let Some(output) = self.machine.next_output() {
            let input = match output {
                Output::Ask { ticket, ask } => {
                    let result = self.machine.site.ask(ask).now_or_never().unwrap();
                    self.now += self.answers_take.pop_front().unwrap_or_default();
                    self.machine.wake(self.now);
                    Input::Asked { ticket, result }
                }
                Output::Connect { connection: number, .. } => {
                    connection = number;
                    let limits = Limits { retains: true, ..Limits::default() };
                    Input::Opened { connection, result: Ok(limits) }
                }
                Output::Send { id, message } => {
                    let refusal = Refusal { code: 0x87, what: "refused".to_owned() };
                    let answer = match refuses(&message.topic) {
                        true => Answer::Refused(id, refusal),
                        false => Answer::Acknowledged(id),
                    };
                    if message.payload.is_empty() {
                        assert!(message.retain, "nothing is cleared without it");
                        self.cleared.push(message.topic.clone());
                    }
                    if message.topic == "tally/s/status" {
                        self.statuses.push(serde_json::from_slice(&message.payload).unwrap());
                    }
                    if message.topic == "tally/s/status/numbered" && !refuses(&message.topic) {
                        self.numbered = Some(message.payload.clone());
                    }
                    let seq = message.properties.iter().find(|(name, _)| *name == "seq");
                    self.sent.push((message.topic, seq.map(|(_, seq)| seq.parse().unwrap())));
                    Input::Answer { connection, answer }
                }
                Output::Subscribe { id, topic } => {
                    self.sent.push((format!("subscription to {topic}"), None));
                    if let Some(retained) = &self.numbered {
                        let answer = Answer::Heard(retained.clone());
                        self.machine.take(Input::Answer { connection, answer });
                    }
                    Input::Answer { connection, answer: Answer::Acknowledged(id) }
                }
                Output::Close { connection, .. } => Input::Closed { connection },
                Output::Abandon | Output::Probe { .. } | Output::EndProbe => continue,
            };
            self.machine.take(input);
            self.machine.step();
        }
    }

    fn later(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn sent(&self, topic: &str) -> Vec<u64> {
        self.sent.iter().filter(|(one, _)| one == topic).filter_map(|(_, seq)| *seq).collect()
    }
}

#[test]
fn a_total_that_one_leadership_kept_is_not_published_by_the_next() {
    let mut played = Played::new();
    let total = "tally/s/total/series/0";
    played.site.lead("box1", 1);
    played.site.count([0]);
    played.play(|topic| topic == total);
    assert_eq!(played.sent(total), [1]);
    // Another box leads and publishes a later one; before this one looks, it leads again.
    played.site.count([0]);
    for ask in [Ask::Number(1), Ask::Delivered(2)] {
        played.site.outbox("box2").ask(ask).now_or_never().unwrap().unwrap();
    }
    played.site.lead("box1", 3);
    for _ in 0..20 {
        played.later(1);
        played.play(|_| false);
    }
    played.site.count([0]);
    for _ in 0..3 {
        played.later(1);
        played.play(|_| false);
    }
    assert_eq!(played.sent(total), [1, 3]);
}

#[test]
fn the_subscription_goes_before_the_status_however_late_the_leadership_is_confirmed() {
    for seconds in [0, 2] {
        let mut played = Played::new();
        played.answers_take = [Duration::ZERO, Duration::from_secs(seconds)].into();
        played.site.lead("box1", 1);
        played.play(|_| false);
        let sent: Vec<&str> = played.sent.iter().map(|(topic, _)| topic.as_str()).collect();
        assert_eq!(sent, ["subscription to tally/s/status/#", "tally/s/status"], "after {seconds} s");
    }
}

#[test]
fn what_comes_of_an_earlier_connection_counts_nothing() {
    let mut played = Played::new();
    played.site.lead("box1", 1);
    played.play(|_| false);
    let first = played.machine.session.connection;
    let ended = Answer::Ended(Ending::default());
    played.machine.take(Input::Answer { connection: first, answer: ended });
    for _ in 0..3 {
        played.later(1);
        played.play(|_| false);
    }
    assert_ne!(played.machine.session.connection, first);
    played.site.count([0]);
    played.machine.wake(played.now);
    played.machine.step();
    // Whatever number it has on the new one.
    for id in 0..100 {
        played.machine.take(Input::Answer { connection: first, answer: Answer::Acknowledged(id) });
    }
    played.later(5);
    played.machine.wake(played.now);
    played.machine.step();
    assert_eq!(played.site.delivered(), 0);
    played.play(|_| false);
    played.later(2);
    played.play(|_| false);
    assert_eq!(played.site.delivered(), 1);
}

#[test]
fn a_backlog_goes_out_as_fast_as_the_broker_takes_it_however_few_may_be_undelivered() {
    let mut played = Played::new();
    played.site.change(|state| state.numbered_max = 3);
    played.site.lead("box1", 1);
    played.site.count([0; 20]);
    played.play(|_| false);
    assert!(
        played.site.delivered() >= 18,
        "no time has passed, and {} are delivered",
        played.site.delivered()
    );
}

#[test]
fn a_refusal_names_the_topic_of_the_format_that_is_published() {
    let mut played = Played::with(Formats::try_from(vec!["cbor".to_owned()]).unwrap());
    let own = "tally/s/summary-cbor/series/0";
    played.site.lead("box1", 1);
    played.site.count([0]);
    played.play(|topic| topic == own);
    let refused = played.machine.shared.status().refuses;
    assert_eq!(refused.iter().map(|one| one.topic.as_str()).collect::<Vec<&str>>(), [own]);
    assert!(played.sent.iter().any(|(topic, _)| topic == "tally/s/undeliverable-cbor"));
}

fn departure(id: u64, is_overtaken: bool) -> DepartureView {
    DepartureView { id, series: SeriesId(0), name: "series/0".to_owned(), is_overtaken }
}

#[test]
fn a_name_that_left_is_cleared_until_the_broker_takes_that_by_whoever_leads_then() {
    let mut played = Played::new();
    let total = "tally/s/total/series/0";
    played.site.lead("box1", 1);
    played.site.count([0]);
    played.play(|_| false);
    played.site.change(|state| state.departures.insert(7, departure(7, false)));
    for _ in 0..3 {
        played.later(1);
        played.play(|topic| topic == total);
    }
    assert!(!played.cleared.is_empty(), "it was tried");
    assert_eq!(played.site.change(|state| state.departures.len()), 1, "it is not done, and not forgotten");
    // The next leadership finds it at the site, and the broker takes it by now.
    played.site.lead("box1", 2);
    let before = played.cleared.len();
    for _ in 0..3 {
        played.later(1);
        played.play(|_| false);
    }
    assert_eq!(played.cleared[before..], [total.to_owned()], "once");
    assert_eq!(played.site.change(|state| state.departures.len()), 0);
}

#[test]
fn the_total_of_another_series_of_the_name_is_not_cleared() {
    let mut played = Played::new();
    played.site.lead("box1", 1);
    played.site.change(|state| state.departures.insert(7, departure(7, true)));
    for _ in 0..3 {
        played.later(1);
        played.play(|_| false);
    }
    assert_eq!((played.cleared.len(), played.site.change(|state| state.departures.len())), (0, 0));
}

impl Played {
    /// A site that tells the broker its numbers.
    fn telling() -> Played {
        let played = Played::new();
        played.site.change(|state| state.passes_over = true);
        played.site.lead("box1", 1);
        played
    }

    /// Goes on for so many seconds.
    fn go_on(&mut self, seconds: u64, refuses: impl Fn(&str) -> bool) {
        for _ in 0..seconds {
            self.later(1);
            self.play(&refuses);
        }
    }
}

fn told(site_id: &str, numbered: u64) -> Option<Vec<u8>> {
    Some(serde_json::json!({"numbered": numbered, "time": 1, "site_id": site_id}).to_string().into_bytes())
}

#[test]
fn the_broker_is_told_of_a_number_before_its_summary_goes_out() {
    let mut played = Played::telling();
    played.site.count([0, 0]);
    played.play(|_| false);
    assert_eq!(played.sent("tally/s/summary/series/0"), [0; 0], "what the broker retains is not known");
    played.go_on(2, |_| false);
    let topics: Vec<&str> = played.sent.iter().map(|(topic, _)| topic.as_str()).collect();
    let place = |wanted: &str| topics.iter().position(|topic| *topic == wanted).unwrap();
    assert!(place("tally/s/status/numbered") < place("tally/s/summary/series/0"), "{topics:?}");
    assert_eq!(
        json::own_numbered(&played.machine.setting.naming, &played.numbered.clone().unwrap()),
        Some(2)
    );
    assert_eq!(played.sent("tally/s/summary/series/0"), [1, 2]);
    // One message for all numbers that were given at once.
    assert_eq!(topics.iter().filter(|topic| **topic == "tally/s/status/numbered").count(), 1);
}

#[test]
fn a_broker_that_is_not_told_holds_up_nothing() {
    let mut played = Played::telling();
    played.site.count([0]);
    played.go_on(3, |topic| topic == "tally/s/status/numbered");
    assert_eq!(played.site.delivered(), 1);
    assert_eq!(played.machine.shared.status().refuses[0].topic, "tally/s/status/numbered");
}

#[test]
fn a_site_that_was_put_back_publishes_what_has_a_number_goes_offline_and_uses_no_number_twice() {
    let mut played = Played::telling();
    played.site.count([0, 0]);
    played.site.outbox("box1").ask(Ask::Number(2)).now_or_never().unwrap().unwrap();
    played.site.count([0]);
    played.numbered = told(&SITE_ID.to_string(), 40);
    played.go_on(5, |_| false);
    assert_eq!(played.sent("tally/s/summary/series/0"), [1, 2, 41]);
    assert_eq!(played.sent("tally/s/total/series/0"), [41], "no total goes back");
    let states: Vec<&str> = played.statuses.iter().map(|status| status["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["offline", "online"]);
    let why = played.statuses[0]["why"].as_str().unwrap();
    assert!(why.contains("put back") && why.contains("the next one is 41"), "{why}");
    // The next connection finds nothing wrong.
    let connection = played.machine.session.connection;
    played.machine.take(Input::Answer { connection, answer: Answer::Ended(Ending::default()) });
    played.site.count([0]);
    played.go_on(5, |_| false);
    assert_eq!(played.sent("tally/s/summary/series/0"), [1, 2, 41, 42]);
    assert!(played.statuses.iter().skip(1).all(|status| status["state"] == "online"));
}

#[test]
fn the_last_number_of_another_site_or_one_that_cannot_be_changes_nothing() {
    for retained in [
        told("0000000000000001", 40),
        told(&SITE_ID.to_string(), u64::MAX),
        told(&SITE_ID.to_string(), 0),
        Some(b"{}".to_vec()),
        Some(Vec::new()),
    ] {
        let mut played = Played::telling();
        played.numbered = retained;
        played.site.count([0]);
        played.go_on(4, |_| false);
        assert_eq!(played.sent("tally/s/summary/series/0"), [1]);
    }
}
