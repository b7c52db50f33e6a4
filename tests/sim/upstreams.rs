//! The boxes' shipped upstreams: what wakes them, and the messages that they send.

use std::collections::BTreeMap;
use std::time::Duration;

use tally_core::raft::MemberRole;
use tallyd::mqtt::{Answer, Message};
use tallyd::node::{BrokerWish, Command, Input as NodeInput, MemberStatus, RoleView};
use tallyd::random::Random;
use tallyd::request::RequestError;
use tallyd::site::Applied;
use tallyd::upstream::{Ask, BaseTopic, Input, Machine, Naming, NodeOutbox, Output, Setting, SharedStatus};
use tokio::sync::oneshot;

use crate::boxes::{Incarnation, SITE_ID};
use crate::broker::{Packet, SimBroker, Topic};
use crate::checks::Checks;
use crate::events::Event;
use crate::forms::{self, Forms};
use crate::plan::{Micros, SECOND};
use crate::world::World;

/// How long a request waits for its answer, and a connection for the broker's.
pub(crate) const REQUEST_WAIT: Micros = 10 * SECOND;
/// A failure tells so much of it.
const DESCRIBED_BYTES_MAX: usize = 20_000;
/// How long a broker may leave everything unanswered; less than in the product, where a history would not see it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// What happens between boxes and the broker.
#[derive(Debug)]
pub(crate) enum UpstreamEvent {
    /// The upstream is woken, if it is still due at this time.
    Wake { place: usize, incarnation: u64, due: Micros },
    /// A command of the upstream to its node.
    Asks { place: usize, incarnation: u64, command: Command },
    /// Something comes to it.
    Comes { place: usize, incarnation: u64, input: Input },
    /// A CONNECT reaches the broker.
    Connects { place: usize, incarnation: u64, number: u64 },
    /// A packet does.
    Arrives { serial: u64, packet: Packet },
    /// A connection is at its end at the box, and the broker hears of it.
    Ends { serial: u64 },
    /// Something goes wrong at the broker.
    Trouble,
    /// The broker comes back.
    Recovers,
}

impl UpstreamEvent {
    /// The box of the event, if the event has to wait while the box is paused.
    pub(crate) fn place(&self) -> Option<usize> {
        match self {
            UpstreamEvent::Wake { place, .. }
            | UpstreamEvent::Asks { place, .. }
            | UpstreamEvent::Comes { place, .. } => Some(*place),
            _ => None,
        }
    }
}

#[derive(Debug)]
enum Reply {
    Fence(oneshot::Receiver<Result<(), RequestError>>),
    Here(oneshot::Receiver<Result<Applied, RequestError>>),
}

#[derive(Debug)]
struct Asked {
    ticket: u64,
    reply: Reply,
    until: Micros,
}

/// The upstream of a box, in one of its incarnations.
#[derive(Debug)]
pub(crate) struct SimUpstream {
    incarnation: u64,
    machine: Machine<NodeOutbox>,
    asked: Vec<Asked>,
    /// The node's state that it last saw.
    seen: (RoleView, u64, BrokerWish),
    /// The time of the planned wake.
    wakes_at: Micros,
    /// The connection that it has, or makes: its number here and at the broker, and when the latest packet arrives.
    pub(crate) link: Option<Link>,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) number: u64,
    pub(crate) serial: Option<u64>,
    latest: Micros,
    /// What was sent and has no answer.
    unanswered: BTreeMap<u64, (Topic, Option<u64>)>,
}

/// The broker and all that speaks to it.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) broker: SimBroker,
    pub(crate) upstreams: Vec<Option<SimUpstream>>,
}

impl Outside {
    pub(crate) fn new(boxes: usize, level: u32, forms: Forms) -> Outside {
        Outside { broker: SimBroker::new(level, forms), upstreams: (0..boxes).map(|_| None).collect() }
    }

    pub(crate) fn describe(&self) -> String {
        let mut text = format!("\n{:?}\n{:?}", self.broker, self.upstreams);
        text.truncate(text.floor_char_boundary(DESCRIBED_BYTES_MAX));
        text
    }
}

fn setting(forms: Forms) -> Setting {
    let naming =
        Naming { site: "simulated".to_owned(), site_id: SITE_ID, base: BaseTopic::of_site("simulated") };
    let broker = "mqtt://broker".parse().expect("a URL");
    Setting { naming, formats: forms::formats(forms), broker, answer_timeout: ANSWER_TIMEOUT }
}

fn seen(incarnation: &Incarnation) -> (RoleView, u64, BrokerWish) {
    let handle = &incarnation.handle;
    (*handle.role().borrow(), *handle.applied().borrow(), *handle.broker_wish().borrow())
}

impl World {
    /// A box begins an incarnation: its upstream, too.
    pub(crate) fn start_upstream(&mut self, place: usize) {
        let random = Random::seeded(self.rng.next());
        let Some(incarnation) = &self.boxes[place].incarnation else { return };
        let outbox = NodeOutbox::new(incarnation.handle.clone());
        let machine = Machine::new(
            outbox,
            setting(self.plan.broker.forms),
            SharedStatus::new(None),
            random,
            incarnation.local_now(),
        );
        let up = SimUpstream {
            incarnation: incarnation.number,
            machine,
            asked: Vec::new(),
            seen: seen(incarnation),
            wakes_at: Micros::MAX,
            link: None,
        };
        self.outside.upstreams[place] = Some(up);
        self.run_upstream(place, Vec::new());
    }

    /// A box's incarnation is over.
    pub(crate) fn drop_upstream(&mut self, place: usize) {
        self.outside.upstreams[place] = None;
    }

    /// A box is told to stop.
    pub(crate) fn stop_upstream(&mut self, place: usize) {
        let Some(incarnation) = &self.boxes[place].incarnation else { return };
        let status = incarnation.handle.status();
        let is_box =
            |member: &&MemberStatus| member.connected && member.membership != Some(MemberRole::Witness);
        let last = status.members.iter().filter(is_box).count() <= 1;
        self.run_upstream(place, vec![Input::Stop { last }]);
    }

    /// The node has done a step: what it has answered, and whether there is something to look at.
    pub(crate) fn look_upstream(&mut self, place: usize) {
        let now = self.now;
        let (Some(up), Some(incarnation)) =
            (&mut self.outside.upstreams[place], &self.boxes[place].incarnation)
        else {
            return;
        };
        if up.incarnation != incarnation.number || up.machine.is_over() {
            return;
        }
        let inputs = up.answers(now);
        let seen = seen(incarnation);
        let has_changed = std::mem::replace(&mut up.seen, seen) != seen;
        if !inputs.is_empty() {
            return self.run_upstream(place, inputs);
        }
        if has_changed {
            let looks_at = up.machine.looks_at();
            let due = incarnation.true_time(now, looks_at);
            self.wake_upstream(place, due);
        }
    }

    fn wake_upstream(&mut self, place: usize, due: Micros) {
        let Some(up) = &mut self.outside.upstreams[place] else { return };
        if due < up.wakes_at {
            up.wakes_at = due;
            let incarnation = up.incarnation;
            self.queue.put(due, Event::Upstream(UpstreamEvent::Wake { place, incarnation, due }));
        }
    }

    /// Gives the upstream these inputs and carries out its outputs.
    fn run_upstream(&mut self, place: usize, inputs: Vec<Input>) {
        let now = self.now;
        inputs.iter().for_each(|input| self.tell(|_| format!("box {} hears {input:?}", place + 1)));
        self.boxes[place].tell_time(now);
        let (Some(up), Some(incarnation)) =
            (&mut self.outside.upstreams[place], &self.boxes[place].incarnation)
        else {
            return;
        };
        if up.incarnation != incarnation.number {
            return;
        }
        up.machine.wake(incarnation.local_now());
        for input in inputs {
            up.note(&input, &mut self.checks);
            up.machine.take(input);
        }
        up.machine.step();
        let outputs: Vec<Output> = std::iter::from_fn(|| up.machine.next_output()).collect();
        let due = up.machine.due().map(|due| incarnation.true_time(now, due));
        for output in outputs {
            self.tell(|_| format!("box {}: {}", place + 1, short(&output)));
            self.follow_upstream(place, output);
        }
        if let Some(due) = due {
            self.wake_upstream(place, due);
        }
    }

    /// Does as an upstream says.
    fn follow_upstream(&mut self, place: usize, output: Output) {
        let now = self.now;
        let delay = self.delay();
        let Some(up) = &mut self.outside.upstreams[place] else { return };
        let incarnation = up.incarnation;
        match output {
            Output::Ask { ticket, ask } => {
                let command = up.ask(ticket, ask, now);
                self.after(1, Event::Upstream(UpstreamEvent::Asks { place, incarnation, command }));
                if matches!(ask, Ask::SetAside { .. }) {
                    self.break_at_aside(place);
                }
            }
            Output::Connect { connection, .. } => {
                up.link =
                    Some(Link { number: connection, serial: None, latest: now, unanswered: BTreeMap::new() });
                let event = UpstreamEvent::Connects { place, incarnation, number: connection };
                self.after(delay, Event::Upstream(event));
            }
            Output::Send { id, message } => {
                self.send_packet(place, id, Topic::of(&message.topic), Some(message));
            }
            Output::Subscribe { id, .. } => {
                self.send_packet(place, id, Topic::Subscription, None);
            }
            Output::Close { connection, .. } => {
                if let Some(link) = up.link.take() {
                    self.checks.set_aside.ended(link.topics());
                    self.end_link(&link);
                }
                let input = Input::Closed { connection };
                let event = UpstreamEvent::Comes { place, incarnation, input };
                self.after(delay.min(SECOND), Event::Upstream(event));
            }
            Output::Abandon => {
                if let Some(link) = up.link.take() {
                    self.end_link(&link);
                }
            }
            Output::Probe { ticket } => {
                self.coverage.count("probes of the broker");
                let broker = &self.outside.broker;
                let reaches = !broker.is_down && !broker.is_silent && !broker.cut.contains(&place);
                let result = if reaches { Ok(()) } else { Err("cannot reach the broker".to_owned()) };
                let input = Input::Probed { ticket, result };
                self.after(2 * delay, Event::Upstream(UpstreamEvent::Comes { place, incarnation, input }));
            }
            Output::EndProbe => {}
        }
    }

    pub(crate) fn delay(&mut self) -> Micros {
        self.rng.between(50, self.plan.broker.delay_max)
    }

    fn end_link(&mut self, link: &Link) {
        if let Some(serial) = link.serial {
            let at = link.latest.max(self.now) + 1;
            self.queue.put(at, Event::Upstream(UpstreamEvent::Ends { serial }));
        }
    }

    fn send_packet(&mut self, place: usize, id: u64, topic: Topic, message: Option<Message>) {
        let at = self.now + self.delay();
        let seq = message.as_ref().and_then(|message| self.checks.publications.sent(&topic, message));
        let Some(up) = &mut self.outside.upstreams[place] else { return };
        let Some(link) = &mut up.link else { return };
        let Some(serial) = link.serial else { return };
        if topic == Topic::Subscription {
            self.checks.listeners.subscribes(serial);
        }
        // Nothing overtakes on a connection.
        link.latest = at.max(link.latest + 1);
        link.unanswered.insert(id, (topic.clone(), seq));
        let packet = Packet { id, term: up.machine.term(), topic, seq, message };
        if self.outside.broker.cut.contains(&place) {
            return;
        }
        self.queue.put(link.latest, Event::Upstream(UpstreamEvent::Arrives { serial, packet }));
    }

    pub(crate) fn upstream_happens(&mut self, event: UpstreamEvent) {
        match event {
            UpstreamEvent::Wake { place, incarnation, due } => {
                if let Some(up) = &mut self.outside.upstreams[place]
                    && (up.incarnation, up.wakes_at) == (incarnation, due)
                {
                    up.wakes_at = Micros::MAX;
                    self.run_upstream(place, Vec::new());
                }
            }
            UpstreamEvent::Asks { place, incarnation, command } => {
                if self.boxes[place].incarnation.as_ref().is_some_and(|running| running.number == incarnation)
                {
                    self.step(self.boxes[place].id, Some(NodeInput::Command(command)));
                }
            }
            UpstreamEvent::Comes { place, incarnation, input } => {
                if self.outside.upstreams[place].as_ref().is_some_and(|up| up.incarnation == incarnation) {
                    self.run_upstream(place, vec![input]);
                }
            }
            UpstreamEvent::Connects { place, incarnation, number } => {
                self.connects(place, incarnation, number)
            }
            UpstreamEvent::Arrives { serial, packet } => self.arrives(serial, &packet),
            UpstreamEvent::Ends { serial } => {
                let current = &mut self.outside.broker.current;
                if current.is_some_and(|current| current.serial == serial) {
                    *current = None;
                }
            }
            UpstreamEvent::Trouble => self.broker_trouble(),
            UpstreamEvent::Recovers => self.broker_recovers(),
        }
    }
}

/// The output in short, for the reader of a history.
fn short(output: &Output) -> String {
    match output {
        Output::Send { id, message } => {
            format!("sends {id}: {} {:?}", message.topic, message.properties.last())
        }
        other => format!("{other:?}"),
    }
}

impl Link {
    fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.unanswered.values().map(|(topic, _)| topic)
    }
}

impl SimUpstream {
    /// What the node has answered by now.
    fn answers(&mut self, now: Micros) -> Vec<Input> {
        let mut inputs = Vec::new();
        self.asked.retain_mut(|asked| {
            let Some(result) = asked.reply.look(now >= asked.until) else { return true };
            inputs.push(Input::Asked { ticket: asked.ticket, result });
            false
        });
        inputs
    }

    fn ask(&mut self, ticket: u64, ask: Ask, now: Micros) -> Command {
        let until = now + REQUEST_WAIT;
        let (command, reply) = match ask.body() {
            None => {
                let (reply, answer) = oneshot::channel();
                (Command::Fence { reply }, Reply::Fence(answer))
            }
            Some(body) => {
                let (reply, answer) = oneshot::channel();
                (Command::ProposeLocally { body, reply }, Reply::Here(answer))
            }
        };
        self.asked.push(Asked { ticket, reply, until });
        command
    }

    /// Keeps what was sent and is not answered, and tells the checks what the box hears.
    fn note(&mut self, input: &Input, checks: &mut Checks) {
        let Input::Answer { connection, answer } = input else {
            if let Input::Opened { connection, result: Err(_) } = input
                && self.link.as_ref().is_some_and(|link| link.number == *connection)
            {
                self.link = None;
            }
            return;
        };
        let Some(link) = self.link.as_mut().filter(|link| link.number == *connection) else { return };
        match answer {
            Answer::Acknowledged(id) => {
                if let Some((topic, Some(seq))) = link.unanswered.remove(id) {
                    checks.told.acknowledged(seq, &topic);
                }
            }
            Answer::Refused(id, _) => {
                link.unanswered.remove(id);
            }
            Answer::Ended(ending) => {
                if let (Some(code), 1) = (ending.refused, link.unanswered.len()) {
                    link.topics().for_each(|topic| checks.set_aside.refused(topic, code));
                }
                checks.set_aside.ended(link.topics());
                self.link = None;
            }
            Answer::Heard(_) => {}
        }
    }
}

impl Reply {
    fn look(&mut self, is_late: bool) -> Option<Result<(), String>> {
        use oneshot::error::TryRecvError;
        let result = match self {
            Reply::Fence(answer) => answer.try_recv(),
            Reply::Here(answer) => answer.try_recv().map(|result| result.map(|_| ())),
        };
        match result {
            Ok(result) => Some(result.map_err(|error| error.to_string())),
            Err(TryRecvError::Closed) => Some(Err("this box stopped".to_owned())),
            Err(TryRecvError::Empty) => is_late.then(|| Err("the site did not answer in time".to_owned())),
        }
    }
}
