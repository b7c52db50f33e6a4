//! A whole history: what happens, in its order.

use tally_core::id::NodeId;
use tallyd::deliberate;
use tallyd::node::{Done, Input};
use tallyd::transport::Event as LinkEvent;

use crate::boxes::SimBox;
use crate::checks::{Checks, progress};
use crate::clients::{Adder, Counter, Operator, Reader, Reporter};
use crate::coverage::Coverage;
use crate::digest::Digest;
use crate::events::{Event, concerned};
use crate::guests::Guests;
use crate::links::Sent;
use crate::members::Changes;
use crate::network::Network;
use crate::plan::{Micros, Plan, SECOND, size};
use crate::queue::Queue;
use crate::rng::Rng;
use crate::roster::Roster;
use crate::sim::Setting;
use crate::trouble;
use crate::upstreams::{Outside, UpstreamEvent};
use crate::witnesses::{SimWitness, is_witness};

pub(crate) struct World {
    pub(crate) now: Micros,
    pub(crate) queue: Queue<Event>,
    pub(crate) rng: Rng,
    pub(crate) plan: Plan,
    pub(crate) network: Network,
    pub(crate) held: Vec<(u64, NodeId, NodeId, Sent)>,
    pub(crate) boxes: Vec<SimBox>,
    pub(crate) outside: Outside,
    pub(crate) checks: Checks,
    pub(crate) coverage: Coverage,
    pub(crate) adders: Vec<Adder>,
    pub(crate) reporters: Vec<Reporter>,
    pub(crate) counters: Vec<Counter>,
    pub(crate) reader: Reader,
    pub(crate) operator: Operator,
    pub(crate) guests: Guests,
    pub(crate) roster: Roster,
    pub(crate) witnesses: Vec<SimWitness>,
    pub(crate) changes: Changes,
    /// Nothing goes wrong any more.
    pub(crate) healed: bool,
    trace: bool,
    /// Of all that happens, if somebody wants it.
    digest: Option<Digest>,
}

/// Plays a whole history; panics at the first step that breaks an invariant.
pub(crate) fn play(seed: u64, setting: Setting, trace: bool) -> Coverage {
    deliberate::set(setting.bug);
    let mut world = World::new(seed, setting, trace);
    world.play_out();
    world.coverage
}

/// The same; a hash of all that happens in it, in order.
pub(crate) fn digest(seed: u64, setting: Setting) -> u64 {
    deliberate::set(setting.bug);
    let mut world = World::new(seed, setting, false);
    world.digest = Some(Digest::default());
    world.play_out();
    world.digest.unwrap_or_default().finish(&world.coverage)
}

impl World {
    fn play_out(&mut self) {
        if self.plan.put_back {
            return self.play_put_back();
        }
        let end = self.plan.trouble + self.plan.sleeps.unwrap_or(0);
        self.run_until(end);
        self.heal();
        self.come_to_rest();
        if self.outside.broker.refuses_anything() {
            self.end_refusals_for_good();
            self.come_to_rest();
        }
        self.check_end();
        self.put_tolerance_to_the_test();
    }

    fn new(seed: u64, setting: Setting, trace: bool) -> World {
        let mut rng = Rng::new(seed);
        let mut plan = Plan::new(&mut rng);
        (setting.bend)(&mut plan);
        if plan.put_back {
            plan = plan.of_put_back();
        }
        plan.calm = setting.calm.unwrap_or(plan.calm);
        let roster = Roster::new(&plan);
        let (witnesses, founders): (Vec<_>, Vec<_>) =
            roster.founders(&plan).into_iter().partition(|identity| is_witness(identity.node_id()));
        let witnesses = witnesses.into_iter().map(|identity| SimWitness::new(identity, rng.next())).collect();
        let boxes: Vec<SimBox> = founders
            .into_iter()
            .map(|identity| SimBox::new(&plan, identity, rng.between(950, 1050), rng.next()))
            .collect();
        let mut world = World {
            now: 0,
            queue: Queue::new(),
            network: Network::new(&plan),
            held: Vec::new(),
            outside: Outside::new(boxes.len(), plan.level, plan.broker.forms),
            boxes,
            checks: Checks {
                founded: plan.level,
                is_narrow: plan.is_narrow,
                fading: plan.fading,
                forms: plan.broker.forms,
                ..Checks::default()
            },
            coverage: Coverage::default(),
            adders: (0..plan.adders).map(Adder::new).chain((0..plan.fading).map(Adder::fading)).collect(),
            reporters: (0..plan.reporters).map(|place| Reporter::new(place, rng.next() >> 1)).collect(),
            reader: Reader::default(),
            operator: Operator::default(),
            guests: Guests::default(),
            roster,
            witnesses,
            changes: Changes::default(),
            counters: (0..plan.boxes).map(|_| Counter::default()).collect(),
            healed: false,
            trace,
            digest: None,
            rng,
            plan,
        };
        world.tell(|world| format!("{:?}", world.plan));
        world.checks.removed.founders(world.boxes.iter().map(|one| one.id));
        for at in world.witnesses.iter().map(|one| one.id).collect::<Vec<NodeId>>() {
            world.coverage.count("sites founded with a witness");
            let is_of_four = u64::from(world.plan.boxes == 4);
            world.coverage.add("sites of four boxes founded with a witness", is_of_four);
            world.witness_comes(at);
        }
        if let Some(every) = world.plan.changes_every {
            world.after(SECOND, Event::Change);
            world.coverage.add("sites whose members change", u64::from(every > 0));
        }
        for place in 0..world.boxes.len() {
            let at = world.boxes[place].id;
            let comes_late = world.plan.is_late && place > 0 && place + 1 == world.boxes.len();
            let span = world.rng.below(if comes_late { 5 * SECOND } else { 200_000 });
            world.coverage.add("boxes that first came late", u64::from(comes_late));
            world.after(span, Event::Start { at });
        }
        let broker = Event::Upstream(UpstreamEvent::Trouble);
        for event in [Event::Dial, Event::Operator, Event::Trouble, broker] {
            world.after(100_000, event);
        }
        let used_after = if world.plan.sleeps.is_some() { world.plan_sleep() } else { 100_000 };
        world.users_come(used_after);
        world
    }

    fn users_come(&mut self, after: Micros) {
        (0..self.boxes.len()).for_each(|place| self.after(after, Event::Counts(place)));
        (0..self.adders.len()).for_each(|place| self.after(after + 200_000, Event::Adder(place)));
        (0..self.reporters.len()).for_each(|place| self.after(after + 200_000, Event::Reporter(place)));
        self.after(after, Event::Reader);
        self.guests_come(after + 200_000);
    }

    pub(crate) fn after(&mut self, span: Micros, event: Event) {
        self.queue.put(self.now + span, event);
    }

    pub(crate) fn tell(&self, what: impl FnOnce(&World) -> String) {
        if self.trace {
            eprintln!("{:>10} {}", self.now, what(self));
        }
    }

    pub(crate) fn run_until(&mut self, end: Micros) {
        while self.now < end {
            let Some((at, event)) = self.queue.next() else { break };
            // While the site stood still its clocks went on.
            self.now = self.now.max(at);
            self.coverage.events += 1;
            if let Some(digest) = &mut self.digest {
                digest.note(self.now, &event);
            }
            self.happen(event);
        }
    }

    pub(crate) fn place(at: NodeId) -> usize {
        size(at.0) - 1
    }

    pub(crate) fn incarnation_of(&self, at: NodeId) -> Option<u64> {
        self.boxes[World::place(at)].incarnation.as_ref().map(|incarnation| incarnation.number)
    }

    fn happen(&mut self, event: Event) {
        if let Some((at, is_disk)) = concerned(&event) {
            let one = &self.boxes[World::place(at)];
            let until = one.paused_until.max(if is_disk { one.hangs_until } else { 0 });
            if until > self.now {
                let span = until - self.now;
                return self.after(span, event);
            }
        }
        match event {
            Event::Frame { from, to, serial, sent } => {
                if self.network.serial(from, to) == Some(serial) {
                    let Sent { lane, frame, .. } = sent;
                    if is_witness(to) {
                        return self.witness_hears(to, from, frame);
                    }
                    self.checks.changes.heard(self.now, to, from);
                    self.step(to, Some(Input::Links(LinkEvent::Received { from, lane, frame })));
                }
            }
            Event::Linked { at, peer, serial } => {
                if self.network.serial(at, peer) == Some(serial)
                    && let Some(incarnation) = &self.boxes[World::place(at)].incarnation
                {
                    incarnation.outlet.connect(peer);
                    self.step(at, Some(Input::Links(LinkEvent::Connected(peer))));
                }
            }
            Event::Unlinked { at, peer, serial } => {
                // A witness does not look who is there.
                if is_witness(at) {
                    return;
                }
                // Another one may have taken its place.
                if self.network.serial(at, peer).is_none_or(|current| current == serial)
                    && let Some(incarnation) = &self.boxes[World::place(at)].incarnation
                {
                    incarnation.outlet.disconnect(peer);
                    self.step(at, Some(Input::Links(LinkEvent::Disconnected(peer))));
                }
            }
            Event::Dial => self.dial(),
            Event::Wake { at, incarnation, due } => {
                if let Some(running) = &mut self.boxes[World::place(at)].incarnation
                    && (running.number, running.wakes_at) == (incarnation, due)
                {
                    running.wakes_at = Micros::MAX;
                    progress::it_sleeps(self.now, running);
                    self.step(at, None);
                }
            }
            Event::DiskBegins { at, incarnation } => self.disk_begins(at, incarnation),
            Event::DiskDone { at, incarnation, done } => self.disk_done(at, incarnation, done),
            Event::Ask { place, input } => self.step(self.boxes[place].id, input),
            Event::Upstream(event) => self.upstream_happens(event),
            Event::Start { at } => self.start(at),
            Event::DiskRecovers { at } => {
                let one = &mut self.boxes[World::place(at)];
                one.fs.break_down(None);
                one.fs.limit(None);
                one.slowness = 1;
            }
            Event::Trouble => {
                if !self.healed {
                    trouble::strike(self);
                    let span = self.rng.between(1, 2 * self.plan.calm);
                    self.after(span, Event::Trouble);
                }
            }
            Event::Guest(guest) => self.guest(guest),
            Event::Witness { at, event } => self.witness_happens(at, event),
            Event::Change => {
                if let Some(every) = self.plan.changes_every.filter(|_| !self.healed) {
                    self.change_members(every);
                }
            }
            Event::Sleep => {
                self.coverage.count("sites that stood still for an hour");
                let span = self.plan.sleeps.unwrap_or_default();
                for one in &mut self.boxes {
                    one.slept = Some((self.now, span));
                }
                self.now += span;
            }
            other => self.client(other),
        }
    }

    fn client(&mut self, event: Event) {
        let (now, begins) = (self.now, !self.healed);
        let (boxes, rng, checks) = (&self.boxes, &mut self.rng, &mut self.checks);
        let coverage = &mut self.coverage;
        match event {
            Event::Adder(client) => {
                if let Some(place) = self.adders[client].wake((now, begins), boxes, rng, (checks, coverage)) {
                    self.after(1, Event::Ask { place, input: None });
                }
                let span = self.rng.between(1_000, 60_000);
                self.after(span, Event::Adder(client));
            }
            Event::Reporter(client) => {
                if let Some((place, input)) =
                    self.reporters[client].wake((now, begins), boxes, rng, (checks, coverage))
                {
                    self.after(1, Event::Ask { place, input: Some(input) });
                }
                let span = self.rng.between(5_000, 100_000);
                self.after(span, Event::Reporter(client));
            }
            Event::Reader => {
                if let Some((place, input)) = self.reader.wake((now, begins), boxes, rng, (checks, coverage))
                {
                    self.after(1, Event::Ask { place, input: Some(input) });
                }
                let span = self.rng.between(1_000, 60_000);
                self.after(span, Event::Reader);
            }
            Event::Counts(place) if begins => {
                self.counters[place].count(now, &boxes[place], rng, checks);
                let span = self.rng.between(1, 2 * self.plan.counts_every);
                self.after(span, Event::Counts(place));
            }
            Event::Operator if begins => {
                if let Some((place, input)) = self.operator.act(boxes, rng, (checks, coverage)) {
                    self.after(1, Event::Ask { place, input: Some(input) });
                }
                let span = self.rng.between(200_000, 6 * SECOND);
                self.after(span, Event::Operator);
            }
            _ => {}
        }
    }

    /// A node takes something in, and does what follows.
    pub(crate) fn step(&mut self, at: NodeId, input: Option<Input>) {
        let place = World::place(at);
        if self.boxes[place].incarnation.is_none() {
            return;
        }
        self.boxes[place].step(self.now, input);
        self.follow_up(place);
    }

    /// Takes from a node what is to be done outside.
    pub(crate) fn follow_up(&mut self, place: usize) {
        let (now, at) = (self.now, self.boxes[place].id);
        let Some(incarnation) = &mut self.boxes[place].incarnation else { return };
        let number = incarnation.number;
        self.checks.stepped(now, at, incarnation);
        if incarnation.node.is_over() {
            return self.stopped(at);
        }
        let due = incarnation.due(now);
        let wakes = due < incarnation.wakes_at;
        if wakes {
            incarnation.wakes_at = due;
        }
        let (sent, closed) = (incarnation.outlet.take(), incarnation.outlet.closed());
        let disk = !incarnation.disk_works && incarnation.has_jobs();
        incarnation.disk_works |= disk;
        if wakes {
            self.queue.put(due, Event::Wake { at, incarnation: number, due });
        }
        if disk {
            self.after(1, Event::DiskBegins { at, incarnation: number });
        }
        for sent in sent {
            self.send(at, sent);
        }
        self.close(at, closed);
        self.look_upstream(place);
    }

    fn disk_begins(&mut self, at: NodeId, incarnation: u64) {
        if self.incarnation_of(at) != Some(incarnation) {
            return;
        }
        let place = World::place(at);
        let slowness = self.boxes[place].slowness;
        let Some(running) = &mut self.boxes[place].incarnation else { return };
        let Some(done) = running.work() else {
            running.disk_works = false;
            return;
        };
        for done in &done {
            match done {
                Done::Saved { result: Ok(_) } => self.coverage.count("snapshots saved"),
                Done::Opened { result: Ok(Some(_)), .. } => {
                    self.coverage.count("snapshots sent to another box")
                }
                Done::UnsentKept { leaving: true, result: Ok(()) } => {
                    self.coverage.count("orderly stops that saved counts");
                }
                _ => {}
            }
        }
        if self.boxes[place].fs.is_down() {
            self.coverage.count("power lost in the middle of an operation");
            return self.crash(at);
        }
        let slow = if self.rng.chance(20) { 20 } else { 1 };
        let span = 20 + self.rng.below(self.plan.sync_max * slow) * slowness;
        self.after(span.min(8 * SECOND), Event::DiskDone { at, incarnation, done });
    }

    fn disk_done(&mut self, at: NodeId, incarnation: u64, done: Vec<Done>) {
        if self.incarnation_of(at) != Some(incarnation) {
            return;
        }
        let place = World::place(at);
        for done in done {
            self.step(at, Some(Input::Disk(done)));
        }
        if let Some(running) = &mut self.boxes[place].incarnation {
            running.disk_works = true;
            self.after(1, Event::DiskBegins { at, incarnation });
        }
    }
}
