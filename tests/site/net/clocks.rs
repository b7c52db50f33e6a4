//! All the boxes' wall clocks go wrong, one way after the other, while clients count and leaders die: site time
//! goes where the synchronised majority is, waits where it must, and never back.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::clients::Clients;
use super::clock::{Drift, HOUR_MS, MINUTE_MS, Wall, now_ms};
use super::lab::in_lab;
use super::plan::seed;
use super::site::{BOXES, NetSite};
use super::times::{SERIES, Times, stays_flagged, until_flagged};
use crate::harness::until;

/// Site time is that near to what it is to be.
const NEAR_MS: i64 = 2000;
/// So much of the time is looked at where its speed is what counts.
const LOOK: Duration = Duration::from_secs(4);
/// Far less than a tenth of that.
const AT_ONCE: Duration = Duration::from_millis(100);
/// Of a clock that drifts: so many thousandths more or less.
const DRIFT: i64 = 200;
/// So many windows more show that a flag stays.
const WINDOWS: usize = 2;

#[test]
fn site_time_follows_a_synchronised_majority_waits_for_one_and_never_goes_back() {
    in_lab(
        "net::clocks::site_time_follows_a_synchronised_majority_waits_for_one_and_never_goes_back",
        || {
            let seed = seed();
            eprintln!("TALLYD_TEST_SEED={seed}");
            let mut clocks = Clocks { net: NetSite::start_with_clocks([Wall::RIGHT; BOXES]), ahead_ms: 0 };
            let times = Times::watch(&clocks.net.site, i64::MAX);
            let clients = Clients::start(&clocks.net.site, 4, seed);
            clients.until_more(40, "with all clocks right");
            clocks.a_minority_moves_nothing();
            clocks.without_a_flag_windows_say_so();
            clocks.a_majority_some_minutes_ahead_is_followed();
            clocks.a_majority_behind_is_waited_for();
            clocks.hours_ahead_wait_for_a_synchronised_majority();
            clocks.hours_behind_are_not_followed();
            clocks.a_drift_is_followed();
            clients.until_more(40, "at the end");
            let notes = clients.finish();
            clocks.net.site.until_ready();
            notes.assert_linearizable(&clocks.net.site);
            times.finish(&clocks.net, &[SERIES, "history/1", "history/2"]);
            clocks.net.site.assert_same_digests();
        },
    );
}

/// Five boxes, and by how much site time is ahead of the true one.
struct Clocks {
    net: NetSite,
    ahead_ms: i64,
}

impl Clocks {
    /// One that is synchronised with something wrong, one that lost its flag and its time, and one, the leader,
    /// that is killed and starts in 1970: three are right.
    fn a_minority_moves_nothing(&mut self) {
        let since = until_flagged(&self.net, true);
        let leader = self.net.site.leader();
        let others: Vec<usize> = (0..BOXES).filter(|at| *at != leader).collect();
        for (ahead, behind) in [(3 * HOUR_MS, -10 * MINUTE_MS), (10 * MINUTE_MS, -3 * HOUR_MS)] {
            self.net.set_wall(leader, Wall::synced(ahead));
            self.net.set_wall(others[0], Wall::synced(behind));
            self.until_leader_knows(&[(leader, Wall::synced(ahead)), (others[0], Wall::synced(behind))]);
            self.until_site_time_is_near();
            stays_flagged(&self.net, since, true, WINDOWS);
        }
        self.net.set_wall(others[0], Wall::unsynced(10 * MINUTE_MS));
        self.restart(leader, Some(Wall::of_1970()));
        self.until_leader_knows(&[(leader, Wall::of_1970()), (others[0], Wall::unsynced(10 * MINUTE_MS))]);
        self.until_site_time_is_near();
        stays_flagged(&self.net, since, true, WINDOWS);
        self.set_all(Wall::RIGHT);
        eprintln!("clocks of two boxes were wrong: site time was right");
    }

    fn without_a_flag_windows_say_so(&mut self) {
        // One that is left is enough.
        let since = until_flagged(&self.net, true);
        (1..BOXES).for_each(|at| self.net.set_wall(at, Wall::unsynced(0)));
        let unsynced: Vec<_> = (1..BOXES).map(|at| (at, Wall::unsynced(0))).collect();
        self.until_leader_knows(&unsynced);
        stays_flagged(&self.net, since, true, WINDOWS);
        self.net.set_wall(0, Wall::unsynced(0));
        let since = until_flagged(&self.net, false);
        stays_flagged(&self.net, since, false, WINDOWS);
        self.until_site_time_is_near();
        self.set_all(Wall::RIGHT);
        until_flagged(&self.net, true);
        eprintln!("no clock was synchronised: the windows said so, site time was right");
    }

    fn a_majority_some_minutes_ahead_is_followed(&mut self) {
        let since = until_flagged(&self.net, true);
        self.ahead_ms = 4 * MINUTE_MS;
        (0..3).for_each(|at| self.net.set_wall(at, Wall::synced(self.ahead_ms)));
        self.until_site_time_is_near();
        self.set_all(Wall::synced(self.ahead_ms));
        stays_flagged(&self.net, since, true, WINDOWS);
        eprintln!("three clocks went four minutes ahead: so did site time");
    }

    fn a_majority_behind_is_waited_for(&mut self) {
        self.set_all(Wall::synced(self.ahead_ms - MINUTE_MS));
        let since = until_flagged(&self.net, false);
        let before = self.speed();
        assert!((0.3..0.7).contains(&before), "site time runs at half speed: {before:.2}");
        let leader = self.net.site.leader();
        self.restart(leader, None);
        let after = self.speed();
        assert!((0.3..0.7).contains(&after), "under the next leader too: {after:.2}");
        stays_flagged(&self.net, since, false, WINDOWS);
        self.set_all(Wall::synced(self.ahead_ms));
        self.until_site_time_is_near();
        until_flagged(&self.net, true);
        eprintln!(
            "all clocks went back a minute: site time ran at {before:.2}, then {after:.2} of its speed"
        );
    }

    fn hours_ahead_wait_for_a_synchronised_majority(&mut self) {
        let far_ms = self.ahead_ms + 2 * HOUR_MS;
        // A box asks for its flag once a second only: first the flags, then the time.
        self.set_all(Wall::unsynced(self.ahead_ms));
        let unsynced: Vec<_> = (0..BOXES).map(|at| (at, Wall::unsynced(self.ahead_ms))).collect();
        self.until_leader_knows(&unsynced);
        self.set_all(Wall::unsynced(far_ms));
        self.until_held(far_ms);
        let since = until_flagged(&self.net, false);
        let leader = self.net.site.leader();
        self.restart(leader, None);
        // Two of five that are synchronised are too few.
        (0..2).for_each(|at| self.net.set_wall(at, Wall::synced(far_ms)));
        self.until_leader_knows(&[(0, Wall::synced(far_ms)), (1, Wall::synced(far_ms))]);
        self.until_held(far_ms);
        stays_flagged(&self.net, since, false, WINDOWS);
        self.until_site_time_is_near();
        self.net.set_wall(2, Wall::synced(far_ms));
        self.ahead_ms = far_ms;
        self.until_site_time_is_near();
        until_flagged(&self.net, true);
        self.set_all(Wall::synced(far_ms));
        eprintln!("all clocks went two hours ahead: site time waited for three of them to be synchronised");
    }

    fn hours_behind_are_not_followed(&mut self) {
        self.set_all(Wall::synced(self.ahead_ms - 3 * HOUR_MS));
        until_flagged(&self.net, false);
        let speed = self.speed();
        assert!((0.3..0.7).contains(&speed), "site time runs at half speed: {speed:.2}");
        self.set_all(Wall::synced(self.ahead_ms));
        self.until_site_time_is_near();
        until_flagged(&self.net, true);
        eprintln!("all clocks went back three hours: site time ran at {speed:.2} of its speed");
    }

    fn a_drift_is_followed(&mut self) {
        for permille in [DRIFT, -DRIFT] {
            let files = (0..BOXES).map(|at| self.net.wall_file(at)).collect();
            let drift = Drift::start(files, Wall::synced(self.ahead_ms), permille);
            let speed = self.speed();
            let wall = drift.end();
            let wanted = 1.0 + permille as f64 / 1000.0;
            assert!((speed - wanted).abs() < 0.1, "the clocks run at {wanted:.2}, site time at {speed:.2}");
            self.ahead_ms = wall.ahead_ms;
            self.until_site_time_is_near();
            eprintln!("all clocks ran at {wanted:.2} of their speed: site time ran at {speed:.2}");
        }
    }

    fn set_all(&self, wall: Wall) {
        (0..BOXES).for_each(|at| self.net.set_wall(at, wall));
    }

    /// Kills a box, and starts it with its clock at this, once another box leads.
    fn restart(&mut self, at: usize, wall: Option<Wall>) {
        self.net.site.boxes[at].kill();
        self.net.site.leader();
        if let Some(wall) = wall {
            self.net.set_wall(at, wall);
        }
        self.net.start_box(at);
        self.net.site.until_ready();
    }

    fn clock(&self, at: usize) -> Option<Value> {
        Some(self.net.site.boxes[at].try_status()?["clock"].clone())
    }

    /// Waits until all boxes show the site time that is to be.
    fn until_site_time_is_near(&self) {
        until(&format!("site time is {} ms ahead", self.ahead_ms), || {
            let near = |at| {
                let site_ms = self.clock(at)?["site_ms"].as_i64()?;
                ((site_ms - now_ms() - self.ahead_ms).abs() < NEAR_MS).then_some(())
            };
            (0..BOXES).try_for_each(near)
        });
    }

    /// Waits until all boxes show that site time is to jump so far ahead and does not.
    fn until_held(&self, far_ms: i64) {
        until(&format!("a jump to {far_ms} ms ahead is held"), || {
            let held = |at| {
                let clock = self.clock(at)?;
                clock["text"].as_str()?;
                ((clock["held_ms"].as_i64()? - now_ms() - far_ms).abs() < NEAR_MS).then_some(())
            };
            (0..BOXES).try_for_each(held)
        });
        self.until_site_time_is_near();
    }

    /// Waits until the leader knows what these clocks say.
    fn until_leader_knows(&self, walls: &[(usize, Wall)]) {
        let all: Vec<usize> = (0..BOXES).collect();
        until(&format!("the leader knows of {walls:?}"), || {
            let status = self.net.site.boxes[self.net.leader_among(&all)?].try_status()?;
            let members = status["members"].as_array()?;
            let knows = |(at, wall): &(usize, Wall)| {
                let name = &self.net.site.boxes[*at].name;
                let member = members.iter().find(|member| member["name"] == **name)?;
                let apart_ms = member["clock_offset_ms"].as_i64()? + self.ahead_ms - wall.ahead_ms;
                (apart_ms.abs() < NEAR_MS && member["clock_synced"] == wall.synced).then_some(())
            };
            walls.iter().try_for_each(knows)
        });
    }

    /// How quickly site time goes by, beside the true time.
    fn speed(&self) -> f64 {
        // An answer that took long does not say of which moment it is.
        let look = || {
            until("box 1 shows site time at once", || {
                let asked = Instant::now();
                let site_ms = self.clock(0)?["site_ms"].as_i64()?;
                (asked.elapsed() < AT_ONCE).then_some((asked, site_ms))
            })
        };
        let (begun, before) = look();
        std::thread::sleep(LOOK);
        let (ended, after) = look();
        (after - before) as f64 / (ended - begun).as_millis() as f64
    }
}
