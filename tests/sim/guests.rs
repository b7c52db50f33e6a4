//! More clients of the boxes: pollers and gateways with their meters, StatsD programs, visitors with bad input.

use crate::boxes::SimBox;
use crate::clients::{Gateways, Habit, Meter, Poller, Statsd, Visitor};
use crate::events::Event;
use crate::plan::{Micros, SECOND, size};
use crate::world::World;
use tally_core::id::NodeId;
use tallyd::site::entry;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Guest {
    Poller(usize),
    Gateway(usize, usize),
    Statsd(usize),
    Visitor,
}

#[derive(Debug, Default)]
pub(crate) struct Guests {
    pollers: Vec<Poller>,
    gateways: Vec<Gateways>,
    statsd: Vec<Statsd>,
    visitor: Visitor,
}

/// A meter lives on by as much as a reader waits at most.
const METER_EVERY: Micros = 150_000;
/// When a site that is not in use yet goes idle.
const SLEEP_AT: Micros = 2 * SECOND;

impl World {
    /// Adds these clients, after so long.
    pub(crate) fn guests_come(&mut self, after: Micros) {
        let (boxes, rng) = (self.boxes.len() as u64, &mut self.rng);
        let guests = &mut self.guests;
        for number in 0..self.plan.pollers {
            guests.pollers.push(Poller::new(size(rng.below(boxes)), number, rng));
        }
        guests.gateways.extend((0..self.plan.gateways).map(|number| Gateways::new(number, rng)));
        guests.statsd.resize_with(self.boxes.len(), Statsd::default);
        let pollers = (0..self.guests.pollers.len()).map(Guest::Poller);
        let gateways = (0..self.guests.gateways.len()).flat_map(|at| [0, 1].map(|of| Guest::Gateway(at, of)));
        let statsd = (0..self.boxes.len()).map(Guest::Statsd);
        for guest in pollers.chain(gateways).chain(statsd).chain([Guest::Visitor]).collect::<Vec<Guest>>() {
            self.after(after, Event::Guest(guest));
        }
    }

    /// The programs of a further box come after so long.
    pub(crate) fn guest_comes(&mut self, place: usize, after: Micros) {
        self.guests.statsd.resize_with(place + 1, Statsd::default);
        self.after(after, Event::Guest(Guest::Statsd(place)));
    }

    /// Before anybody uses the site it stands still for so long that sources are folded; when that begins.
    pub(crate) fn plan_sleep(&mut self) -> Micros {
        for place in 0..self.boxes.len() {
            let folds = entry::set(self.rng.next(), "sources.silent_age", "1h");
            let input = Some(self.operator.ask(folds));
            self.after(SLEEP_AT / 2, Event::Ask { place, input });
        }
        self.after(SLEEP_AT, Event::Sleep);
        SLEEP_AT
    }

    pub(crate) fn guest(&mut self, guest: Guest) {
        let (now, is_steady) = (self.now, self.healed);
        let (boxes, rng, coverage) = (&self.boxes, &mut self.rng, &mut self.coverage);
        let guests = &mut self.guests;
        let every = match guest {
            Guest::Poller(which) => {
                let Poller { place, meter, .. } = &mut guests.pollers[which];
                if !is_steady {
                    meter.live(boxes, rng, coverage);
                    if rng.chance(30) {
                        meter.restart(boxes, coverage);
                    }
                }
                let one = &boxes[*place];
                one.tell_time(now);
                guests.pollers[which].poll(one, is_steady, rng, coverage);
                METER_EVERY
            }
            Guest::Gateway(which, of) => {
                let gateways = &mut guests.gateways[which];
                if !is_steady {
                    gateways.meter.live(boxes, rng, coverage);
                }
                let asked = gateways.wake(of, (now, is_steady), boxes, rng, coverage);
                if let Some((place, input)) = asked {
                    self.tell(|world| world.tell_gateway(which, of, place));
                    self.after(1, Event::Ask { place, input: Some(input) });
                }
                2 * METER_EVERY
            }
            Guest::Statsd(_) | Guest::Visitor if is_steady => return,
            Guest::Statsd(place) => {
                let checks = &mut self.checks;
                guests.statsd[place].send(now, &boxes[place], rng, (checks, coverage));
                2 * self.plan.counts_every
            }
            Guest::Visitor => {
                let place = size(rng.below(boxes.len() as u64));
                boxes[place].tell_time(now);
                guests.visitor.visit(&boxes[place], rng, (&mut self.checks, coverage));
                1_000_000
            }
        };
        if let Guest::Poller(which) = guest {
            let meter = &self.guests.pollers[which].meter;
            self.tell(|world| format!("{meter:?} is read, {:?} is counted", meter.counted(&world.boxes)));
        }
        let span = self.rng.between(1_000, every);
        self.after(span, Event::Guest(guest));
    }

    /// What a gateway reports, by the clock of which box, and what is counted.
    fn tell_gateway(&self, which: usize, of: usize, place: usize) -> String {
        let meter = &self.guests.gateways[which].meter;
        let clock = |one: &SimBox| one.incarnation.as_ref().map(|running| running.handle.clock().site());
        let clocks: Vec<_> = self.boxes.iter().map(clock).collect();
        let counted = meter.counted(&self.boxes);
        format!("gateway {of} tells box {}: {meter:?}, {counted:?} is counted; clocks: {clocks:?}", place + 1)
    }

    /// Meters of whose growth something is not counted, where that can be told.
    pub(crate) fn uncounted_meters(&self) -> Vec<String> {
        // Before level 2 a box counts by itself; without room a meter is not known.
        if self.checks.founded < 2 || self.checks.is_narrow {
            return Vec::new();
        }
        let is_clean = self.are_clocks_right();
        let members: Vec<NodeId> = self.members().iter().map(|one| one.id).collect();
        let is_in = |poller: &&Poller| members.contains(&NodeId(poller.place as u64 + 1));
        let polled = self.guests.pollers.iter().filter(is_in).map(|poller| &poller.meter);
        let shared = self.guests.gateways.iter().map(|gateways| &gateways.meter).filter(|_| is_clean);
        let judged = polled.chain(shared).filter(|meter| is_clean || meter.habit != Habit::Glitches);
        let lacks = |meter: &&Meter| {
            let total = meter.counted(&self.boxes).unwrap_or(0);
            !meter.is_counted(total)
        };
        judged.filter(lacks).map(|meter| format!("{meter:?}: {:?}", meter.counted(&self.boxes))).collect()
    }

    /// Whether no clock ever said what is not so.
    pub(crate) fn are_clocks_right(&self) -> bool {
        self.plan.has_clocks && self.never(["clocks stepped by an operator", "clocks set wrong"])
    }
}
