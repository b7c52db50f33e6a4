//! Starts, power failures and orderly stops of boxes.

use std::time::Duration;

use tally_core::id::NodeId;
use tallyd::node::{Command, Input, StopTimes};
use tokio::sync::oneshot;

use crate::events::Event;
use crate::plan::SECOND;
use crate::world::World;

impl World {
    pub(crate) fn start(&mut self, at: NodeId) {
        let place = World::place(at);
        if self.boxes[place].incarnation.is_some() || self.boxes[place].is_off {
            return;
        }
        let seed = self.rng.next();
        if !self.boxes[place].start(self.now, seed) {
            self.tell(|_| format!("box {at} cannot start"));
            self.coverage.count("boxes that could not start");
            return self.after(300_000, Event::Start { at });
        }
        self.tell(|_| format!("box {at} starts"));
        self.coverage.count("boxes started");
        let incarnation = self.boxes[place].incarnation.as_ref().expect("it has just started");
        self.coverage.add("incarnations that went on with saved counts", u64::from(incarnation.has_unsent));
        self.start_upstream(place);
        self.follow_up(place);
        // Its jobs of the start.
        self.after(1, Event::Ask { place, input: None });
    }

    pub(crate) fn crash(&mut self, at: NodeId) {
        let place = World::place(at);
        let Some(incarnation) = &self.boxes[place].incarnation else { return };
        self.checks.conservation.crashed((at, incarnation.number));
        self.checks.refused.ended(at, incarnation);
        self.tell(|_| format!("box {at} loses its power"));
        self.coverage.count("power lost at a box");
        self.boxes[place].end(true);
        self.go_away(at);
    }

    /// An orderly stop has come to its end.
    pub(crate) fn stopped(&mut self, at: NodeId) {
        let place = World::place(at);
        self.tell(|_| format!("box {at} has stopped in good order"));
        self.coverage.count("orderly stops");
        let number = self.incarnation_of(at).unwrap_or_default();
        if let Some(incarnation) = &self.boxes[place].incarnation {
            self.checks.refused.ended(at, incarnation);
        }
        if !self.boxes[place].leave() {
            // It has said so.
            self.checks.conservation.crashed((at, number));
        }
        self.go_away(at);
    }

    fn go_away(&mut self, at: NodeId) {
        self.drop_upstream(World::place(at));
        self.lose_connections(at);
        let away = self.rng.pick(&[20_000, 300_000, 3 * SECOND]);
        let away = self.rng.between(5_000, away);
        self.after(away, Event::Start { at });
    }

    /// An operator stops a box in good order.
    pub(crate) fn stop(&mut self, at: NodeId) {
        let place = World::place(at);
        self.boxes[place].tell_time(self.now);
        let commit = self.rng.between(100, 6_000);
        let Some(incarnation) =
            self.boxes[place].incarnation.as_mut().filter(|incarnation| !incarnation.is_stopping)
        else {
            return;
        };
        incarnation.is_stopping = true;
        let now = incarnation.local_now();
        self.tell(|_| format!("box {at} is told to stop"));
        self.coverage.count("orderly stops asked for");
        let commit_by = now + Duration::from_millis(commit);
        // Longer than any disk here hangs.
        let times = StopTimes { commit_by, end_by: commit_by + Duration::from_secs(60) };
        let (reply, _) = oneshot::channel();
        self.stop_upstream(place);
        self.step(at, Some(Input::Command(Command::Stop { times, reply })));
    }
}
