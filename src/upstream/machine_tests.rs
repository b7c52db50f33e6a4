//! The machine by itself, without a broker and without waiting.

use std::collections::VecDeque;

use futures_util::FutureExt;

use super::broker_harness::*;
use super::*;
use crate::mqtt::{Answer, Ending, Limits, Refusal};

struct Played {
    site: Site,
    machine: Machine<Node>,
    now: Instant,
    /// Topics and numbers of what was sent, in order.
    sent: Vec<(String, Option<u64>)>,
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
        Played { site, machine, now, sent: Vec::new(), answers_take: VecDeque::new() }
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
                    let seq = message.properties.iter().find(|(name, _)| *name == "seq");
                    self.sent.push((message.topic, seq.map(|(_, seq)| seq.parse().unwrap())));
                    Input::Answer { connection, answer }
                }
                Output::Subscribe { id, topic } => {
                    self.sent.push((format!("subscription to {topic}"), None));
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
        assert_eq!(sent, ["subscription to tally/s/status", "tally/s/status"], "after {seconds} s");
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
