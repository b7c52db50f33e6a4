//! The simulated broker. It has one connection at a time under the site's client id: a newer one ends the older. By
//! topic, for a while or for good, it accepts messages, refuses them, breaks the connection over them or ignores them.
//! It goes down and comes back, stays silent, and changes its limits. The checks keep what it has accepted.

use std::collections::{BTreeMap, BTreeSet};

use tallyd::mqtt::{Answer, Ending, Limits, Message, Refusal};

use crate::coverage::Coverage;
use crate::forms::{FORMS, Form, Forms};
use crate::plan::{Micros, SECOND};
use crate::rng::Rng;

/// The base topic of every simulated site.
const BASE: &str = "tally/simulated/";

/// What a seed decides about the broker before a history begins.
#[derive(Clone, Debug)]
pub(crate) struct BrokerPlan {
    pub(crate) delay_max: Micros,
    /// Between one trouble with it and the next, on average.
    pub(crate) calm: Micros,
    /// Whether it refuses some topic until long after everything else is well.
    pub(crate) refuses_for_good: bool,
    /// How many acknowledgements in a thousand come much later than others.
    pub(crate) late_permille: u64,
    /// How many connections in a thousand break just when a number is to be set aside.
    pub(crate) breaks_at_asides: u64,
    /// What the site publishes.
    pub(crate) forms: Forms,
}

impl BrokerPlan {
    pub(crate) fn new(rng: &mut Rng) -> BrokerPlan {
        BrokerPlan {
            delay_max: rng.pick(&[500, 5_000, 60_000]),
            calm: rng.between(300_000, 4 * SECOND),
            refuses_for_good: rng.chance(100),
            late_permille: rng.pick(&[0, 20, 200]),
            breaks_at_asides: rng.pick(&[0, 0, 300]),
            forms: FORMS[rng.pick(&[0, 0, 0, 0, 0, 1, 2, 3])],
        }
    }
}

/// A message on its way, or a subscription.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    /// Its number on its connection.
    pub(crate) id: u64,
    /// The term in which the packet is sent.
    pub(crate) term: u64,
    pub(crate) topic: Topic,
    /// The number of the summary that it has.
    pub(crate) seq: Option<u64>,
    /// `None`: it subscribes to the topic.
    pub(crate) message: Option<Message>,
}

/// What a topic is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    Summary(Form, String),
    Total(Form, String),
    Undeliverable(Form),
    Status,
    Subscription,
}

impl Topic {
    pub(crate) fn of(topic: &str) -> Topic {
        let rest = topic.strip_prefix(BASE).unwrap_or_else(|| panic!("a topic of another site: {topic}"));
        let (level, series) = rest.split_once('/').map_or((rest, None), |(level, rest)| (level, Some(rest)));
        let (of, form) = Form::split(level);
        match (of, series) {
            ("summary", Some(series)) => Topic::Summary(form, series.to_owned()),
            ("total", Some(series)) => Topic::Total(form, series.to_owned()),
            ("undeliverable", None) => Topic::Undeliverable(form),
            ("status", None) if form == Form::Json => Topic::Status,
            _ => panic!("a topic that is not known: {topic}"),
        }
    }
}

/// How the broker treats a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Refuse(u8),
    /// Refuses, and closes the connection, as some brokers do.
    RefuseAndClose(u8),
    /// Refuses with a code that the client library does not know, which ends the connection.
    TooLarge,
    Close,
    Swallow,
}

#[derive(Clone, Copy, Debug)]
struct Rule {
    act: Act,
    for_good: bool,
}

/// The connection that it has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connected {
    pub(crate) serial: u64,
    /// The box, its incarnation, and the number that this gave the connection.
    pub(crate) place: usize,
    pub(crate) incarnation: u64,
    pub(crate) number: u64,
    unanswered: usize,
}

/// The broker's reaction to a packet.
#[derive(Debug, Default)]
pub(crate) struct Reaction {
    /// Whether the broker accepted the message.
    pub(crate) took: bool,
    pub(crate) answer: Option<Answer<u64>>,
    /// How the broker ends the connection, if it does.
    pub(crate) ends: Option<Ending>,
}

#[derive(Debug)]
pub(crate) struct SimBroker {
    pub(crate) is_down: bool,
    pub(crate) is_silent: bool,
    /// The boxes that cannot reach the broker.
    pub(crate) cut: BTreeSet<usize>,
    pub(crate) limits: Limits,
    pub(crate) current: Option<Connected>,
    rules: BTreeMap<Topic, Rule>,
    /// About everything.
    all: Option<Rule>,
    /// Topics that were published to.
    known: BTreeSet<Topic>,
    /// What it remembers of the client: whether that has subscribed.
    session: Option<bool>,
    /// It has forgotten the client, which has not come back since.
    has_forgotten: bool,
    /// The broker ends the connection at the packet after so many more; before it accepts that packet, or after.
    breaks_after: Option<(u64, bool)>,
    /// So many acknowledgements are lost.
    loses: u64,
    status: Option<Vec<u8>>,
    serials: u64,
    /// Whether a site can set aside what is too large.
    can_hold: bool,
    /// In which format it gets what it does not take otherwise.
    first_form: Form,
}

/// A limit on packets that some summaries are beyond.
const PACKET_BYTES: [u32; 3] = [260, 300, 340];

impl SimBroker {
    pub(crate) fn new(level: u32, forms: Forms) -> SimBroker {
        SimBroker {
            is_down: false,
            is_silent: false,
            cut: BTreeSet::new(),
            limits: Limits { retains: true, ..Limits::default() },
            current: None,
            rules: BTreeMap::new(),
            all: None,
            known: BTreeSet::new(),
            session: None,
            has_forgotten: false,
            breaks_after: None,
            loses: 0,
            status: None,
            serials: 0,
            can_hold: level >= 2,
            first_form: forms[0],
        }
    }

    /// Takes a connection, and goes on with its session, if it remembers it; the one that it had until now it ends.
    pub(crate) fn connect(
        &mut self,
        (place, incarnation): (usize, u64),
        number: u64,
        coverage: &mut Coverage,
    ) -> (u64, Option<Connected>) {
        self.serials += 1;
        coverage.count(match (self.session, std::mem::take(&mut self.has_forgotten)) {
            (Some(_), _) => "broker sessions resumed",
            (None, true) => "broker sessions begun anew, the last one lost",
            (None, false) => "broker sessions begun",
        });
        self.session.get_or_insert_default();
        let connected = Connected { serial: self.serials, place, incarnation, number, unanswered: 0 };
        (self.serials, self.current.replace(connected))
    }

    /// Something comes on a connection; `None`: it is not there any more, or nobody looks.
    pub(crate) fn take(
        &mut self,
        serial: u64,
        packet: &Packet,
        rng: &mut Rng,
        coverage: &mut Coverage,
    ) -> Option<Reaction> {
        let current = self.current.as_mut().filter(|current| current.serial == serial)?;
        // Receive Maximum is of publications (MQTT 5, 3.3.4); a stop publishes beside a subscription without an answer.
        current.unanswered += usize::from(packet.message.is_some());
        let most = self.limits.receive_max.map_or(usize::MAX, usize::from);
        let sent = current.unanswered;
        assert!(sent <= most, "limits: {sent} messages at once, and the broker takes {most}");
        if self.is_silent {
            return None;
        }
        self.known.insert(packet.topic.clone());
        if let Some((left, takes)) = &mut self.breaks_after {
            if *left == 0 {
                let took = *takes && packet.message.is_some();
                self.breaks_after = None;
                coverage.count("broker connections broken at a packet");
                return Some(Reaction { took, answer: None, ends: Some(broke()) });
            }
            *left -= 1;
        }
        if let Some(message) = &packet.message {
            assert!(
                !message.retain || self.limits.retains,
                "limits: a retained message, which it does not take"
            );
            if self.limits.packet_bytes_max.is_some_and(|max| message.packet_bytes() > max as usize) {
                let topic = &message.topic;
                assert!(
                    !self.can_hold,
                    "limits: a packet that the broker has said it does not take: {topic}"
                );
                let ends = Some(Ending { refused: Some(0x95), explained: true, ..broke() });
                return Some(Reaction { ends, ..Reaction::default() });
            }
        }
        let rule = self.rules.get(&packet.topic).or(self.all.as_ref()).copied();
        let reaction = match rule.map(|rule| rule.act) {
            None => self.taken(packet, coverage),
            Some(Act::Swallow) => return None,
            Some(Act::Close) => {
                coverage.count("broker connections broken over a topic");
                Reaction { took: rng.chance(100), answer: None, ends: Some(broke()) }
            }
            Some(Act::TooLarge) => {
                coverage.count("messages refused as too large");
                let ending = Ending { refused: Some(0x95), explained: true, ..broke() };
                Reaction { ends: Some(ending), ..Reaction::default() }
            }
            Some(Act::Refuse(code)) => {
                coverage.count("messages refused");
                Reaction { answer: Some(refused(packet, code)), ..Reaction::default() }
            }
            Some(Act::RefuseAndClose(code)) => {
                coverage.count("messages refused at the cost of the connection");
                Reaction { answer: Some(refused(packet, code)), ends: Some(broke()), took: false }
            }
        };
        Some(reaction)
    }

    fn taken(&mut self, packet: &Packet, coverage: &mut Coverage) -> Reaction {
        if let Some(message) = packet.message.as_ref().filter(|_| packet.topic == Topic::Status) {
            self.status = Some(message.payload.clone());
        }
        if packet.topic == Topic::Subscription {
            self.session = Some(true);
        }
        let is_lost = self.loses > 0;
        self.loses = self.loses.saturating_sub(1);
        if is_lost {
            coverage.count("acknowledgements lost");
        }
        let answer = (!is_lost).then_some(Answer::Acknowledged(packet.id));
        Reaction { took: packet.message.is_some(), answer, ends: None }
    }

    /// The answer to a publication is on its way.
    pub(crate) fn answered(&mut self, serial: u64) {
        if let Some(current) = self.current.as_mut().filter(|current| current.serial == serial) {
            current.unanswered = current.unanswered.saturating_sub(1);
        }
    }

    /// The retained message of the status topic.
    pub(crate) fn status(&self) -> Option<Vec<u8>> {
        self.status.clone()
    }

    /// Ends the broker's trouble, except what it refuses for good: that lasts until [`take_all`](Self::take_all).
    pub(crate) fn heal(&mut self) {
        self.is_silent = false;
        self.is_down = false;
        self.cut.clear();
        self.breaks_after = None;
        self.loses = 0;
        self.rules.retain(|_, rule| rule.for_good);
        self.all = None;
    }

    pub(crate) fn refuses_for_good(&self, series: &str) -> bool {
        let rules = FORMS[2].iter().map(|form| self.rules.get(&Topic::Summary(*form, series.to_owned())));
        rules.flatten().any(|rule| rule.for_good)
    }

    pub(crate) fn refuses_anything(&self) -> bool {
        !self.rules.is_empty()
    }

    pub(crate) fn take_all(&mut self) {
        self.rules.clear();
    }

    /// Something of a topic is not taken from now on.
    pub(crate) fn begin_to_refuse(&mut self, rng: &mut Rng, for_good: bool, coverage: &mut Coverage) {
        // A site that cannot set aside waits for as long as that lasts.
        let for_good = for_good && self.can_hold;
        let code = rng.pick(&[0x87, 0x97, 0x80]);
        let act = match rng.below(10) {
            0..=4 => Act::Refuse(code),
            5 | 6 => Act::RefuseAndClose(code),
            7 | 8 => rng.pick(&[Act::Close, Act::TooLarge]),
            _ => Act::Swallow,
        };
        let rule = Rule { act, for_good };
        if !for_good && rng.chance(80) {
            self.all = Some(rule);
            return;
        }
        let known: Vec<&Topic> =
            self.known.iter().filter(|topic| !for_good || matches!(topic, Topic::Summary(..))).collect();
        if known.is_empty() {
            return;
        }
        let topic = known[crate::plan::size(rng.below(known.len() as u64))].clone();
        if for_good {
            coverage.count("topics refused for good");
            // Its summaries wait, instead of going the other way.
            let code = Rule { act: Act::Refuse(code), for_good };
            self.rules.insert(Topic::Undeliverable(self.first_form), code);
        } else if matches!(topic, Topic::Summary(..)) && rng.chance(500) {
            let other = Topic::Undeliverable(self.first_form);
            self.rules.insert(other, Rule { act: Act::Refuse(0x87), for_good: false });
        }
        if self.rules.get(&topic).is_none_or(|rule| !rule.for_good) {
            self.rules.insert(topic, rule);
        }
    }

    /// The broker accepts everything again, except what it refuses for good.
    pub(crate) fn end_refusals(&mut self) {
        self.rules.retain(|_, rule| rule.for_good);
        self.all = None;
    }

    pub(crate) fn break_soon(&mut self, rng: &mut Rng) {
        self.breaks_after = Some((rng.below(12), rng.chance(500)));
    }

    pub(crate) fn lose_some(&mut self, rng: &mut Rng) {
        self.loses = rng.between(1, 4);
    }

    /// It comes back with other limits, with or without its state.
    pub(crate) fn restart(&mut self, limits: Limits, keeps_state: bool) {
        if !keeps_state {
            self.status = None;
            self.forget_session();
        }
        self.limits = limits;
    }

    /// It forgets the client; whether something of it was under way.
    pub(crate) fn forget_session(&mut self) -> bool {
        self.has_forgotten |= self.session.take().is_some();
        self.current.is_some_and(|current| current.unanswered > 0)
    }

    /// Whether the client hears what is published on the status topic.
    pub(crate) fn listens(&self) -> bool {
        self.session == Some(true)
    }
}

/// Limits that a broker may announce.
pub(crate) fn any_limits(rng: &mut Rng) -> Limits {
    Limits {
        receive_max: rng.pick(&[None, Some(1), Some(5)]),
        packet_bytes_max: rng.chance(300).then(|| rng.pick(&PACKET_BYTES)),
        retains: rng.chance(700),
        ..Limits::default()
    }
}

fn broke() -> Ending {
    Ending { what: "the broker closed the connection without a reason".to_owned(), ..Ending::default() }
}

pub(crate) fn taken_over() -> Ending {
    let what = "the broker closed the connection: session taken over (0x8E)".to_owned();
    Ending { what, explained: true, ..Ending::default() }
}

fn refused(packet: &Packet, code: u8) -> Answer<u64> {
    Answer::Refused(packet.id, Refusal { code, what: format!("refused ({code:#x})") })
}
