//! The pace of a site: what the leader decides is in force everywhere.

use std::path::Path;

use serde_json::Value;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::boxes::Site;
use crate::harness::until;

const TIMEOUTS_MS: [u64; 3] = [300, 400, 500];

fn pace(site: &Site, at: usize) -> Value {
    site.boxes[at].status()["pace"].clone()
}

#[test]
fn all_boxes_have_the_election_timeout_that_the_leader_announces() {
    let mut site = Site::provision(3, "1s", "");
    for (one, timeout_ms) in site.boxes.iter_mut().zip(TIMEOUTS_MS) {
        let timeout = format!("{timeout_ms}ms");
        one.start_with(&[("TALLYD_CLUSTER_ELECTION_TIMEOUT_MIN", Path::new(&timeout))]);
    }
    site.until_ready();
    let leader = site.leader();
    // A machine that is busy with other tests may need a longer one than the least that was asked for.
    until("all boxes have the leader's timeout", || {
        let timeouts: Vec<u64> =
            (0..3).map(|at| pace(&site, at)["election_timeout_ms"].as_u64()).collect::<Option<_>>()?;
        (timeouts.iter().all(|timeout| *timeout == timeouts[leader])
            && timeouts[leader] >= TIMEOUTS_MS[leader])
            .then_some(())
    });
    until("the leader shows itself four times in a timeout", || {
        let pace = pace(&site, leader);
        (pace["heartbeat_ms"].as_u64()? == pace["election_timeout_ms"].as_u64()? / 4).then_some(())
    });
    site.boxes[leader].kill();
    let next = site.leader();
    assert_ne!(next, leader);
    assert_eq!(site.boxes[next].add("a", 3), 3);
}

/// How long terms are watched on a starved machine.
const STARVED_FOR: Duration = Duration::from_secs(20);
/// And for how long at most they may rise before: the timeout has to have followed.
const WARM_UP: Duration = Duration::from_secs(25);

/// Processes that take all the processor time they get, until this is dropped.
pub(crate) struct Burners(Vec<Child>);

impl Burners {
    pub(crate) fn start(count: usize) -> Burners {
        let burn = || {
            // Ends by itself, should this test be killed.
            let mut command = Command::new("timeout");
            command.args(["--signal=KILL", "90", "sh", "-c", "while :; do :; done"]);
            command.stdin(Stdio::null()).spawn().unwrap()
        };
        Burners((0..count).map(|_| burn()).collect())
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        for burner in &mut self.0 {
            // `timeout` passes a TERM on; of a KILL its child would hear nothing.
            let pid = rustix::process::Pid::from_child(burner);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = burner.wait();
        }
    }
}

/// The highest term that a box knows, if all tell.
pub(crate) fn term(site: &Site) -> Option<u64> {
    site.boxes
        .iter()
        .map(|one| one.try_status()?["term"].as_u64())
        .try_fold(0, |most, term| Some(most.max(term?)))
}

#[test]
fn on_a_starved_machine_nobody_campaigns_once_the_timeout_has_followed() {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let mut site = Site::provision(3, "1s", "");
    for one in &mut site.boxes {
        one.start();
        let pid = one.process.as_ref().unwrap().pid().to_string();
        let nice = Command::new("renice").args(["-n", "10", "-p", &pid]).output().unwrap();
        assert!(nice.status.success(), "{}", String::from_utf8_lossy(&nice.stderr));
    }
    site.until_ready();
    let _burners = Burners::start(cores * 9 / 2);
    let begun = Instant::now();
    until("the timeout follows the lateness", || {
        let late = (0..3).filter(|at| pace(&site, *at)["late_us"].as_u64() > Some(20_000)).count();
        (late > 0 && begun.elapsed() >= WARM_UP).then_some(())
    });
    let before = until("all boxes tell the term", || term(&site));
    let mut added = 0;
    let watched = Instant::now();
    while watched.elapsed() < STARVED_FOR {
        added += 1;
        assert_eq!(site.boxes[added % 3].add("a", 1), added as u64);
    }
    let after = until("all boxes tell the term", || term(&site));
    let paces: Vec<Value> = (0..3).map(|at| pace(&site, at)).collect();
    assert_eq!(after, before, "elections without a failure: {paces:?}");
}
