//! The broker's answers on their way back to the boxes, and the broker's faults.

use tallyd::mqtt::{Answer, Ending, Limits};
use tallyd::upstream::Input;

use crate::broker::{self, Packet, Topic};
use crate::events::Event;
use crate::forms::Form;
use crate::plan::{SECOND, size};
use crate::upstreams::{REQUEST_WAIT, UpstreamEvent};
use crate::world::World;

impl World {
    pub(crate) fn connects(&mut self, place: usize, incarnation: u64, number: u64) {
        let delay = self.delay();
        let broker = &mut self.outside.broker;
        let refusal = self.rng.chance(50) && !self.healed;
        if broker.is_silent || broker.cut.contains(&place) || broker.is_down || refusal {
            let is_fast = (broker.is_down && self.rng.chance(700)) || refusal;
            let span = if is_fast { delay } else { REQUEST_WAIT };
            self.coverage.count("connections to the broker that failed");
            let ending = Ending { what: "cannot reach the broker".to_owned(), ..Ending::default() };
            let input = Input::Opened { connection: number, result: Err(ending) };
            self.after(span, Event::Upstream(UpstreamEvent::Comes { place, incarnation, input }));
            return;
        }
        let limits = broker.limits;
        let (serial, older) = broker.connect((place, incarnation), number, &mut self.coverage);
        self.coverage.count("connections to the broker");
        if let Some(older) = older {
            self.coverage.count("connections to the broker taken over");
            self.break_connection(older, broker::taken_over());
        }
        if let Some(up) = &mut self.outside.upstreams[place]
            && let Some(link) = up.link.as_mut().filter(|link| link.number == number)
        {
            link.serial = Some(serial);
        }
        let input = Input::Opened { connection: number, result: Ok(limits) };
        self.after(delay, Event::Upstream(UpstreamEvent::Comes { place, incarnation, input }));
    }

    /// The broker ends a connection, and its box hears so.
    fn break_connection(&mut self, connected: broker::Connected, ending: Ending) {
        let delay = self.delay();
        let broker = &mut self.outside.broker;
        if broker.current.is_some_and(|current| current.serial == connected.serial) {
            broker.current = None;
        }
        let broker::Connected { place, incarnation, number, .. } = connected;
        let input = Input::Answer { connection: number, answer: Answer::Ended(ending) };
        self.after(delay, Event::Upstream(UpstreamEvent::Comes { place, incarnation, input }));
    }

    pub(crate) fn break_current(&mut self) {
        if let Some(current) = self.outside.broker.current {
            let what = "the connection to the broker broke".to_owned();
            self.break_connection(current, Ending { what, ..Ending::default() });
        }
    }

    /// A number is to be set aside: the connection may break before it is, and the next one be there before that, too.
    pub(crate) fn break_at_aside(&mut self, place: usize) {
        if self.healed || !self.rng.chance(self.plan.broker.breaks_at_asides) {
            return;
        }
        self.coverage.count("connections broken while a number was set aside");
        self.break_current();
        if self.rng.chance(500) {
            self.boxes[place].hangs_until = self.now + self.rng.between(100_000, 1_500_000);
        }
    }

    pub(crate) fn arrives(&mut self, serial: u64, packet: &Packet) {
        let broker = &mut self.outside.broker;
        let Some(current) = broker.current.filter(|current| current.serial == serial) else { return };
        let reaction = broker.take(serial, packet, &mut self.rng, &mut self.coverage);
        let Some(reaction) = reaction else { return };
        if reaction.took {
            self.checks.broker_took(packet, (serial, broker.listens()));
            self.coverage.count(match &packet.topic {
                Topic::Summary(Form::Json, _) => "summaries published",
                Topic::Summary(Form::Cbor, _) => "summaries published as CBOR",
                Topic::Total(Form::Json, _) => "totals published",
                Topic::Total(Form::Cbor, _) => "totals published as CBOR",
                Topic::Undeliverable(Form::Json) => "summaries published as undeliverable",
                Topic::Undeliverable(Form::Cbor) => "summaries published as undeliverable, as CBOR",
                Topic::Status | Topic::Subscription => "statuses published",
            });
        }
        if let Some(answer) = reaction.answer {
            self.answer(current, packet, answer);
        }
        if let Some(ending) = reaction.ends {
            self.break_connection(current, ending);
        }
    }

    fn answer(&mut self, current: broker::Connected, packet: &Packet, answer: Answer<u64>) {
        if let Answer::Refused(_, refusal) = &answer {
            self.checks.set_aside.refused(&packet.topic, refusal.code);
        }
        if packet.message.is_some() {
            self.outside.broker.answered(current.serial);
        }
        let broker::Connected { place, incarnation, number, .. } = current;
        let mut delay = self.delay();
        if self.rng.chance(self.plan.broker.late_permille) && !self.healed {
            self.coverage.count("acknowledgements late");
            delay += self.rng.between(10_000, 2 * SECOND);
        }
        let heard = packet.message.is_none().then(|| self.outside.broker.status()).flatten();
        for answer in [Some(answer), heard.map(Answer::Heard)].into_iter().flatten() {
            let input = Input::Answer { connection: number, answer };
            self.after(delay, Event::Upstream(UpstreamEvent::Comes { place, incarnation, input }));
        }
    }

    pub(crate) fn broker_trouble(&mut self) {
        if self.healed {
            return;
        }
        self.tell(|world| format!("{:?}", world.outside.broker));
        let coverage = &mut self.coverage;
        let broker = &mut self.outside.broker;
        match self.rng.below(13) {
            0 => {
                coverage.count("brokers down");
                broker.is_down = true;
                self.break_current();
                self.recover_broker();
            }
            1 => {
                coverage.count("brokers silent");
                broker.is_silent = true;
                self.recover_broker();
            }
            2 => {
                coverage.count("boxes that did not reach the broker");
                let place = size(self.rng.below(self.boxes.len() as u64));
                broker.cut.insert(place);
                if self.rng.chance(500) && broker.current.is_some_and(|current| current.place == place) {
                    self.break_current();
                }
                self.recover_broker();
            }
            3 => broker.break_soon(&mut self.rng),
            4 => broker.lose_some(&mut self.rng),
            5..=7 => {
                let for_good = self.plan.broker.refuses_for_good && self.rng.chance(500);
                broker.begin_to_refuse(&mut self.rng, for_good, coverage);
            }
            8 | 9 => {
                coverage.count("refusals ended");
                broker.end_refusals();
            }
            10 => {
                let limits = broker::any_limits(&mut self.rng);
                self.restart_broker(limits);
            }
            11 => {
                coverage.count("broker sessions dropped");
                if broker.forget_session() {
                    coverage.count("broker sessions dropped with messages under way");
                }
                self.break_current();
            }
            _ => self.break_current(),
        }
        let span = self.rng.between(1, 2 * self.plan.broker.calm);
        self.after(span, Event::Upstream(UpstreamEvent::Trouble));
    }

    fn restart_broker(&mut self, limits: Limits) {
        let keeps = self.rng.chance(500);
        self.coverage.count(if keeps {
            "brokers restarted"
        } else {
            "brokers restarted without their state"
        });
        self.break_current();
        self.outside.broker.restart(limits, keeps);
        self.checks.set_aside.limited |= limits.packet_bytes_max.is_some();
    }

    fn recover_broker(&mut self) {
        let span = self.rng.between(100_000, 5 * SECOND);
        self.after(span, Event::Upstream(UpstreamEvent::Recovers));
    }

    pub(crate) fn broker_recovers(&mut self) {
        let broker = &mut self.outside.broker;
        broker.is_down = false;
        broker.cut.clear();
        // A broker that was silent has lost what it was sent.
        if std::mem::take(&mut broker.is_silent) && self.rng.chance(500) {
            self.break_current();
        }
    }

    pub(crate) fn heal_broker(&mut self) {
        self.outside.broker.heal();
        let limits = Limits { retains: true, ..Default::default() };
        if self.outside.broker.limits != limits {
            self.restart_broker(limits);
        }
    }

    /// Ends the refusals for good, too.
    pub(crate) fn end_refusals_for_good(&mut self) {
        self.outside.broker.take_all();
        if self.rng.chance(500) {
            self.break_current();
        }
    }
}
