//! Boxes whose wall clocks disagree: what site time makes of it. The clocks are injected, which only
//! builds with debug assertions can.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::boxes::Site;
use crate::harness::until;

const HOUR: i64 = 3_600_000;
const WEEK: i64 = 168 * HOUR;

/// Three boxes with a clock each.
struct Clocks {
    site: Site,
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

impl Clocks {
    /// Whose clocks are so many milliseconds ahead, and none synchronised.
    fn start(ahead_ms: [i64; 3]) -> Clocks {
        let mut clocks = Clocks { site: Site::provision(3, "1s", "") };
        for (at, ahead_ms) in ahead_ms.into_iter().enumerate() {
            clocks.set(at, ahead_ms, false);
            clocks.run(at);
        }
        clocks.site.until_ready();
        clocks
    }

    fn run(&mut self, at: usize) {
        let file = self.file(at);
        self.site.boxes[at].start_with(&[("TALLYD_TEST_CLOCK", &file)]);
    }

    fn file(&self, at: usize) -> PathBuf {
        self.site.boxes[at].directory.with_extension("clock")
    }

    fn set(&self, at: usize, ahead_ms: i64, synced: bool) {
        let flag = if synced { "synced" } else { "unsynced" };
        std::fs::write(self.file(at), format!("{ahead_ms} {flag}\n")).unwrap();
    }

    fn set_all(&self, ahead_ms: i64, synced: bool) {
        (0..3).for_each(|at| self.set(at, ahead_ms, synced));
    }

    fn clock(&self, at: usize) -> Value {
        self.site.boxes[at].status()["clock"].clone()
    }

    /// Waits until a box shows a site time so far ahead of the true one, to two seconds.
    fn until_ahead(&self, at: usize, ahead_ms: i64) {
        until(&format!("box {at} shows a time {ahead_ms} ms ahead (now {})", self.clock(at)), || {
            let site_ms = self.clock(at)["site_ms"].as_i64()?;
            ((site_ms - now_ms() - ahead_ms).abs() < 2000).then_some(())
        });
    }
}

#[test]
fn bad_clocks_of_a_minority_move_nothing_and_a_change_of_leader_does_not_either() {
    let mut clocks = Clocks::start([0, -now_ms(), WEEK]);
    (0..3).for_each(|at| clocks.until_ahead(at, 0));
    assert_eq!(clocks.clock(0)["synced"], false);
    for _ in 0..2 {
        let leader = clocks.site.leader();
        let members = until("the leader shows all clocks", || {
            let members = clocks.site.boxes[leader].status()["members"].as_array()?.clone();
            members.iter().all(|member| member["clock_offset_ms"].is_i64()).then_some(members)
        });
        for (member, ahead_ms) in members.iter().zip([0, -now_ms(), WEEK]) {
            let shown = member["clock_offset_ms"].as_i64().unwrap();
            assert!((shown - ahead_ms).abs() < 10_000, "{member}");
            assert_eq!(member["clock_synced"], false);
        }
        clocks.site.boxes[leader].kill();
        let next = clocks.site.leader();
        clocks.until_ahead(next, 0);
        clocks.run(leader);
        clocks.site.until_ready();
        (0..3).for_each(|at| clocks.until_ahead(at, 0));
    }
    assert_eq!(clocks.site.boxes[0].add("a", 5), 5);
    clocks.site.assert_same_digests();
}

#[test]
fn after_a_power_cut_of_the_whole_site_its_time_goes_on_whatever_the_clocks_say() {
    let mut clocks = Clocks::start([0; 3]);
    let mut total = 0;
    for ahead_ms in [-now_ms(), 0] {
        total += 1;
        assert_eq!(clocks.site.boxes[0].add("a", 1), total);
        let before = clocks.clock(0)["site_ms"].as_i64().unwrap();
        let closed = until("the window of what was counted is closed", || {
            let windows = clocks.site.boxes[0].client().get("/v1/windows/a?last=60").ok()?.ok();
            let starts: Vec<i64> =
                windows["windows"].as_array()?.iter().filter_map(|window| window["start"].as_i64()).collect();
            (starts.len() as u64 >= total).then_some(starts)
        });
        clocks.site.boxes.iter_mut().for_each(|one| one.kill());
        // Boards without a battery come up in 1970; others are right, and no time service was there yet.
        clocks.set_all(ahead_ms, false);
        (0..3).for_each(|at| clocks.run(at));
        clocks.site.until_ready();
        (0..3).for_each(|at| {
            let clock = clocks.clock(at);
            let site_ms = clock["site_ms"].as_i64().unwrap();
            assert!(site_ms >= before && site_ms <= now_ms() + 2000, "box {at}: {site_ms}, before: {before}");
            assert_eq!(clock["held_ms"], Value::Null);
        });
        total += 1;
        assert_eq!(clocks.site.boxes[1].add("a", 1), total);
        let last = until("what was counted since is in a window of its own", || {
            let windows = clocks.site.boxes[1].client().get("/v1/windows/a?last=60").ok()?.ok();
            let windows = windows["windows"].as_array()?;
            assert!(windows.iter().all(|window| window["late"] == false), "{windows:?}");
            (windows.len() > closed.len()).then(|| windows.last()?["start"].as_i64())?
        });
        assert!(closed.iter().all(|start| *start < last), "{last}, before: {closed:?}");
    }
    (0..3).for_each(|at| clocks.until_ahead(at, 0));
    clocks.site.assert_same_digests();
}

#[test]
fn a_far_jump_waits_for_a_synchronised_majority_or_an_operator() {
    let clocks = Clocks::start([0; 3]);
    let mut total = clocks.site.boxes[1].add("a", 1);
    clocks.set_all(WEEK, false);
    (0..3).for_each(|at| {
        until("the jump is held, and every box shows it", || {
            let clock = clocks.clock(at);
            let held = clock["held_ms"].as_i64()?;
            clock["text"].as_str()?;
            ((held - now_ms() - WEEK).abs() < 2000).then_some(())
        });
        clocks.until_ahead(at, 0);
    });
    // Two synchronised boxes are a majority.
    clocks.set(0, WEEK, true);
    clocks.set(2, WEEK, true);
    (0..3).for_each(|at| clocks.until_ahead(at, WEEK));
    until("the summaries say that the clock is synchronised", || {
        total += 1;
        assert_eq!(clocks.site.boxes[1].add("a", 1), total);
        let windows = clocks.site.boxes[0].client().get("/v1/windows/a?last=60").ok()?.ok();
        let last = windows["windows"].as_array()?.last()?.clone();
        (last["clock"] == "synced").then_some(())
    });
    // All clocks were wrong: an operator takes site time back.
    clocks.set_all(0, false);
    let mut client = clocks.site.boxes[1].admin();
    until("site time is stepped back", || {
        let stepped = client.post("/v1/clock/step", "").ok()?;
        let time = (stepped.status == 200).then(|| stepped.json()["time"].as_i64())??;
        ((time - now_ms()).abs() < 2000).then_some(())
    });
    (0..3).for_each(|at| clocks.until_ahead(at, 0));
    total += 7;
    assert_eq!(clocks.site.boxes[2].add("a", 7), total);
    clocks.site.assert_same_digests();
}
