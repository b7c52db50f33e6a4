//! Boxes are killed under load, with -9 and without a warning.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::boxes::Site;
use crate::broker::Broker;
use crate::harness::{Process, tallyd, until};
use crate::load::Load;
use crate::upstream::Ledger;

/// How long boxes are killed, unless the environment says otherwise.
const SECONDS: u64 = 25;

#[test]
fn killing_any_box_at_any_moment_loses_nothing() {
    let seconds = std::env::var("TALLYD_TEST_SECONDS").map_or(SECONDS, |text| text.parse().unwrap());
    let broker = Broker::start();
    let subscriber = broker.subscribe();
    let mut site = Site::start_with(3, "1s", &broker.config());
    site.set("window.grace", "200ms");
    let load = Load::start(&site, 6);
    let began = Instant::now();
    let mut kills = 0;
    while began.elapsed() < Duration::from_secs(seconds) {
        // Every second time the leader, in between each box in turn.
        let victim = if kills % 2 == 0 { site.leader() } else { kills / 2 % 3 };
        let before = load.done();
        site.boxes[victim].kill();
        kills += 1;
        until("the other two go on", || (load.done() > before + 20).then_some(()));
        site.boxes[victim].start();
        site.boxes[victim].until_ready();
        let before = load.done();
        until("all three go on", || (load.done() > before + 100).then_some(()));
    }
    let tally = load.finish();
    eprintln!("{kills} kills in {:?}", began.elapsed());
    tally.assert_held(&site);
    let ledger = Ledger::until_all(&subscriber, &tally.acknowledged);
    ledger.assert_sound();
    site.assert_same_digests();
}

#[test]
fn all_boxes_killed_at_once_keep_what_they_acknowledged() {
    let mut site = Site::start(3);
    let load = Load::start(&site, 6);
    for _ in 0..3 {
        let before = load.done();
        until("the load runs", || (load.done() > before + 100).then_some(()));
        // Processes are signalled one after another within a millisecond, then waited for.
        for one in &site.boxes {
            one.process.as_ref().unwrap().signal(rustix::process::Signal::KILL);
        }
        for one in &mut site.boxes {
            one.kill();
        }
        site.start_all();
    }
    let before = load.done();
    until("the load goes on", || (load.done() > before + 100).then_some(()));
    let tally = load.finish();
    tally.assert_held(&site);
    site.assert_same_digests();
}

#[test]
fn a_box_of_one_killed_under_load_loses_nothing() {
    let mut site = Site::start(1);
    let load = Load::start(&site, 4);
    for _ in 0..5 {
        let before = load.done();
        until("the load runs", || (load.done() > before + 50).then_some(()));
        site.boxes[0].kill();
        site.start_all();
    }
    let tally = load.finish();
    tally.assert_held(&site);
}

/// The number under a key, however deep in the report it stands.
fn find(report: &Value, key: &str) -> Option<u64> {
    match report {
        Value::Object(map) => {
            map.get(key).and_then(Value::as_u64).or_else(|| map.values().find_map(|each| find(each, key)))
        }
        Value::Array(list) => list.iter().find_map(|each| find(each, key)),
        _ => None,
    }
}

#[test]
fn the_bench_finds_nothing_lost_or_doubled_when_leaders_are_killed() {
    let mut site = Site::start(3);
    let urls: Vec<String> = site.boxes.iter().map(|one| format!("http://127.0.0.1:{}", one.http)).collect();
    let directory = tempfile::tempdir().unwrap();
    let mut command = tallyd();
    command.args(["bench", "--failover", "--clients", "8", "--series", "50", "--json", "--settle", "30"]);
    command.args(["--seconds", "10", "--url", &urls.join(",")]);
    let mut bench = Process::start(&mut command, &directory.path().join("bench"));
    let mut kills = 0;
    while kills < 3 {
        let leader = site.leader();
        let before = site.boxes[leader].status()["applied"].as_u64().unwrap();
        // In the middle of work: some entries of this leadership are applied.
        let runs = until("the bench runs, or is over", || {
            if bench.ended().is_some() {
                return Some(false);
            }
            (site.boxes[leader].try_status()?["applied"].as_u64()? > before + 50).then_some(true)
        });
        if !runs {
            break;
        }
        site.boxes[leader].kill();
        kills += 1;
        assert_ne!(site.leader(), leader);
        site.start_all();
    }
    assert!(kills > 0, "no leader was killed while the bench ran");
    let status = bench.wait();
    let said = bench.output();
    assert!(status.success(), "{said}");
    let report = said.find('{').and_then(|at| serde_json::from_str(&said[at..]).ok());
    let report: Value = report.unwrap_or_else(|| panic!("no report in {said}"));
    let number = |key: &str| find(&report, key).unwrap_or_else(|| panic!("{key} in {report}"));
    assert!(number("acknowledged") > 50, "{report}");
    assert_eq!((number("lost"), number("doubled"), number("unknown")), (0, 0, 0), "{report}");
    eprintln!("{} adds acknowledged, {kills} leaders killed", number("acknowledged"));
}
