//! Two boxes and a witness: either box may fail, and the witness hardly writes.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::boxes::{Place, Site, TestBox};
use crate::harness::{free_port, tallyd, until};
use crate::load::Load;
use crate::members::{changed, is, is_gone, is_member};
use crate::net::standstill::{ATTEMPTS, Standstill};

/// A site of two boxes and a witness, all running, the witness reached by both.
fn start() -> (Site, TestBox) {
    let (mut site, mut witness) = Site::provision_with_witness();
    witness.start();
    site.start_all();
    until_peers(&witness, 2);
    until_tolerates(&site.boxes[0], 1);
    until_tolerates(&site.boxes[1], 1);
    (site, witness)
}

/// What the witness tells of its only site.
fn slot(witness: &TestBox) -> Value {
    let status = witness.status();
    assert_eq!(status["role"], "witness");
    status["sites"][0].clone()
}

fn writes(witness: &TestBox) -> u64 {
    slot(witness)["writes"].as_u64().unwrap()
}

fn until_peers(witness: &TestBox, wanted: usize) {
    until(&format!("{wanted} boxes are connected to the witness"), || {
        let status = witness.try_status()?;
        let peers = status["sites"][0]["peers"].as_array()?;
        (peers.iter().filter(|peer| peer["connected"] == true).count() == wanted).then_some(())
    });
}

pub(crate) fn until_tolerates(one: &TestBox, failures: u64) {
    until(&format!("{} tolerates {failures}", one.name), || {
        (one.try_status()?["tolerates"]["failures"] == failures).then_some(())
    });
}

fn until_says(one: &TestBox, words: &str) {
    let mut said = String::new();
    until(&format!("the status of {} says {words:?}", one.name), || {
        said = one.try_status()?["tolerates"]["text"].as_str()?.to_owned();
        said.contains(words).then_some(())
    });
}

/// So many more adds are acknowledged.
fn goes_on(load: &Load) {
    let before = load.done();
    until("the load goes on", || (load.done() > before + 200).then_some(()));
}

/// What happens to a box, and how it comes back.
type Failure = (fn(&mut TestBox), fn(&mut TestBox));

const KILLED: Failure = (TestBox::kill, TestBox::start);
const STANDS_STILL: Failure = (|one| signal(one, Signal::STOP), |one| signal(one, Signal::CONT));

fn signal(one: &mut TestBox, signal: Signal) {
    one.process.as_ref().expect("it runs").signal(signal);
}

/// What happens meanwhile at the witness and to the term, as one box sees it.
struct Meanwhile {
    standstill: Standstill,
    writes: u64,
    term: u64,
}

impl Meanwhile {
    fn begin(one: &TestBox, witness: &TestBox) -> Meanwhile {
        let term = one.status()["term"].as_u64().unwrap();
        Meanwhile { standstill: Standstill::watch(), writes: writes(witness), term }
    }

    /// How often the witness wrote, and how many elections there were: no more than these, unless the machine
    /// stood still.
    fn end(&self, one: &TestBox, witness: &TestBox, elections_most: u64) -> (u64, u64) {
        let elections = one.status()["term"].as_u64().unwrap() - self.term;
        assert!(elections <= elections_most || self.standstill.was_long(), "{elections} elections");
        (writes(witness) - self.writes, elections)
    }
}

/// A box fails, the other one goes on, the box comes back and catches up; how often the witness wrote for that.
fn one_failure(
    site: &mut Site,
    witness: &TestBox,
    load: &Load,
    victim: usize,
    (fail, recover): Failure,
) -> u64 {
    let (left, leads) = (1 - victim, site.leader() == victim);
    let meanwhile = Meanwhile::begin(&site.boxes[left], witness);
    fail(&mut site.boxes[victim]);
    goes_on(load);
    // A vote for each election, and that from now on the other one counts alone.
    let (wrote, elections) = meanwhile.end(&site.boxes[left], witness, u64::from(leads));
    let name = &site.boxes[victim].name;
    assert!((1..=1 + elections).contains(&wrote), "{name} failed: {wrote} writes; {}", slot(witness));
    assert_eq!(slot(witness)["voters"], serde_json::json!([site.boxes[left].name]));
    let meanwhile = Meanwhile::begin(&site.boxes[left], witness);
    goes_on(load);
    recover(&mut site.boxes[victim]);
    site.boxes[victim].until_ready();
    site.boxes.iter().for_each(|one| until_tolerates(one, 1));
    goes_on(load);
    site.assert_same_digests();
    let (more, elections) = meanwhile.end(&site.boxes[left], witness, 0);
    assert!(more <= elections, "a recovery costs the witness nothing, not {more} writes; {}", slot(witness));
    let role = if leads { "the leader" } else { "the other one" };
    eprintln!("{}, {role}, failed and came back: the witness wrote {wrote} times", site.boxes[victim].name);
    wrote
}

#[test]
fn either_box_may_be_killed_and_the_other_goes_on_and_the_witness_hardly_writes() {
    let (mut site, witness) = start();
    until_says(&site.boxes[0], "two boxes and a witness: tolerates 1 failure");
    let load = Load::start(&site, 4);
    goes_on(&load);
    // Each of them while it follows and while it leads.
    let mut left = BTreeSet::from([(0, false), (0, true), (1, false), (1, true)]);
    while !left.is_empty() {
        let leader = site.leader();
        let follows = (1 - leader, false);
        // The leader goes last: then the other one leads.
        let next = if left.contains(&follows) { follows } else { (leader, true) };
        left.remove(&next);
        one_failure(&mut site, &witness, &load, next.0, KILLED);
    }
    load.finish().assert_held(&site);
    let wrote = writes(&witness);
    let metrics = witness.client().get("/metrics").unwrap().text();
    let figure = format!(
        "tallyd_witness_writes_total{{site=\"plant7\",site_id=\"{}\"}} {wrote}",
        slot(&witness)["site_id"].as_str().unwrap(),
    );
    assert!(metrics.lines().any(|line| line == figure), "{figure}\n{metrics}");
    let url = format!("http://127.0.0.1:{}", witness.http);
    let said = tallyd().args(["status", "--url", &url]).output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains(&format!("record    {wrote} writes")), "{said}");
}

#[test]
fn a_box_that_stands_still_costs_the_witness_no_more_than_one_that_dies() {
    let (mut site, witness) = start();
    let victim = site.leader();
    // At the other one: clients would wait long for one that stands still and refuses nobody.
    let load = Load::at(&[site.boxes[1 - victim].http], 4);
    goes_on(&load);
    // While it leads, then while it follows.
    for _ in 0..2 {
        one_failure(&mut site, &witness, &load, victim, STANDS_STILL);
    }
    load.finish().assert_held(&site);
}

#[test]
fn a_witness_that_is_killed_or_stopped_in_normal_running_is_not_noticed() {
    let (site, mut witness) = start();
    let load = Load::start(&site, 4);
    goes_on(&load);
    let unnoticed = (0..ATTEMPTS).any(|_| is_not_missed(&site, &mut witness, &load));
    assert!(unnoticed, "this machine stood still again and again, so nothing can be said");
    load.finish().assert_held(&site);
}

/// Kills the witness, and stops it: whether nobody noticed; `false` if the machine spoilt it.
fn is_not_missed(site: &Site, witness: &mut TestBox, load: &Load) -> bool {
    let seen = |witness: &TestBox| {
        let slot = slot(witness);
        let record = ["writes", "term", "voted_for", "voters"].map(|key| (key, slot[key].clone()));
        (site.boxes[0].status()["term"].clone(), record, load.retries())
    };
    let boot = |witness: &TestBox| slot(witness)["boot"].as_u64().unwrap();
    let standstill = Standstill::watch();
    let (before, boot_before) = (seen(witness), boot(witness));
    witness.kill();
    until_says(&site.boxes[0], "without the witness: tolerates no failure");
    goes_on(load);
    witness.start();
    until_peers(witness, 2);
    goes_on(load);
    witness.terminate();
    goes_on(load);
    witness.start();
    until_peers(witness, 2);
    goes_on(load);
    let after = seen(witness);
    assert_eq!(boot(witness), boot_before + 2);
    assert!(
        after == before || standstill.was_long(),
        "an election, a write or an add that had to be tried again: {before:?}, then {after:?}"
    );
    after == before
}

#[test]
fn without_a_box_and_the_witness_nothing_is_committed_until_either_returns() {
    let (mut site, mut witness) = start();
    site.boxes[0].add("parts", 5);
    for box_returns in [true, false] {
        let victim = site.follower();
        let left = 1 - victim;
        witness.kill();
        site.boxes[victim].kill();
        until_says(&site.boxes[left], "nothing is committed until");
        let mut client = site.boxes[left].client();
        let answer = client.post("/v1/counters/parts", "{\"add\":1}").unwrap();
        assert_eq!(answer.status, 503, "{}", answer.text());
        if box_returns {
            site.boxes[victim].start();
        } else {
            witness.start();
        }
        site.boxes[left].until_ready();
        site.boxes[left].add("after", 1);
        if box_returns {
            witness.start();
        } else {
            site.boxes[victim].start();
        }
        site.until_ready();
        until_peers(&witness, 2);
        site.boxes.iter().for_each(|one| until_tolerates(one, 1));
    }
    assert_eq!(site.boxes[1].total("after"), 2);
    site.assert_same_digests();
}

#[test]
fn a_box_that_lacks_what_was_counted_without_it_does_not_lead_and_says_whom_it_waits_for() {
    let (mut site, witness) = start();
    let first = site.follower();
    let second = 1 - first;
    site.boxes[first].kill();
    until("the other one counts with the witness", || {
        (slot(&witness)["voters"] == serde_json::json!([site.boxes[second].name])).then_some(())
    });
    site.boxes[second].add("parts", 7);
    site.boxes[second].kill();
    site.boxes[first].start();
    let name = site.boxes[second].name.clone();
    until_says(&site.boxes[first], &format!("no leader until {name} returns"));
    site.boxes[second].start();
    site.until_ready();
    assert_eq!(site.boxes[first].total("parts"), 7);
    site.assert_same_digests();
}

#[test]
fn a_running_site_of_two_is_given_a_witness() {
    let mut site = Site::start(2);
    let load = Load::start(&site, 4);
    goes_on(&load);
    let (mut witness, made) = site.extend_by_witness();
    witness.start();
    let member = format!("w={}", made["address"].as_str().unwrap());
    let (id, key) = (made["id"].to_string(), made["key"].as_str().unwrap());
    let arguments = ["member", "add", &member, "--id", &id, "--key", key, "--role", "witness"];
    let said = changed(&site.boxes[0], &arguments, || is(&site.boxes[0], "w", "witness"));
    assert!(said.is_none_or(|said| said == "w is the witness\n"));
    until_peers(&witness, 2);
    site.boxes.iter().for_each(|one| until_tolerates(one, 1));
    goes_on(&load);
    let leader = site.leader();
    site.boxes[leader].kill();
    goes_on(&load);
    site.boxes[leader].start();
    site.until_ready();
    load.finish().assert_held(&site);
}

#[test]
fn a_record_of_a_newer_version_is_refused_and_so_is_a_witness_that_forgot() {
    let (site, mut witness) = start();
    witness.terminate();
    let file = witness.directory.join("witness.state");
    let good = std::fs::read(&file).unwrap();
    let refused = |bytes: &[u8], words: &[&str]| {
        std::fs::write(&file, bytes).unwrap();
        let output = witness.command().output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        for word in words {
            assert!(said.contains(word), "{word:?} is not in {said}");
        }
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "nothing was changed");
    };
    let mut newer = good.clone();
    newer[4] = 2;
    let checksum = crc32c::crc32c(&newer[..24]).to_le_bytes();
    newer[24..28].copy_from_slice(&checksum);
    refused(&newer, &["version 2", "this program supports version 1", "run the newer tallyd"]);
    let mut damaged = good.clone();
    *damaged.last_mut().unwrap() ^= 1;
    refused(&damaged, &["torn or damaged", "tallyd member remove w", "--extend DIR --witness"]);
    // Without its state it may have forgotten a vote: the boxes do not talk to it.
    std::fs::remove_file(&file).unwrap();
    witness.start();
    for one in &site.boxes {
        until("the box sees that the witness is in an earlier incarnation", || {
            one.log().contains("boot counter did not increase").then_some(())
        });
        until_says(one, "without the witness");
    }
    witness.kill();
    std::fs::write(&file, good).unwrap();
    witness.start();
    until_peers(&witness, 2);
}

#[test]
fn a_dead_box_is_replaced_and_the_witness_stands_beside_the_new_one() {
    let (mut site, mut witness) = start();
    site.boxes[0].add("parts", 5);
    site.boxes[1].kill();
    // If that one led, what is sent to it meanwhile has an unknown outcome.
    site.boxes[0].until_ready();
    changed(&site.boxes[0], &["member", "remove", "box2"], || is_gone(&site.boxes[0], "box2"));
    site.boxes.remove(1);
    let address = format!("127.0.0.1:{}", free_port());
    let made = site.extend(Place { address, http: free_port(), statsd: free_port(), namespace: None });
    let member = format!("{}={}", site.boxes[1].name, made["address"].as_str().unwrap());
    let (id, key) = (made["id"].to_string(), made["key"].as_str().unwrap());
    site.boxes[1].start();
    let arguments = ["member", "add", &member, "--id", &id, "--key", key];
    changed(&site.boxes[0], &arguments, || is_member(&site.boxes[0], &site.boxes[1].name));
    // The witness has learnt of the new box from the leader, and remembers it.
    until_peers(&witness, 2);
    site.boxes.iter().for_each(|one| until_tolerates(one, 1));
    witness.kill();
    witness.start();
    until_peers(&witness, 2);
    site.boxes.iter().for_each(|one| until_tolerates(one, 1));
    site.boxes[0].kill();
    site.boxes[1].until_ready();
    assert_eq!(site.boxes[1].total("parts"), 5);
    site.boxes[1].add("parts", 2);
    // Of those whom it was provisioned with only the witness is left: it knows the new box by its log.
    site.boxes[0].start();
    site.until_ready();
    site.assert_same_digests();
}

#[test]
fn one_process_is_the_witness_of_many_sites_and_a_bad_slot_harms_no_other() {
    let mut both = [Site::provision_with_witness(), Site::provision_with_witness()];
    let parent = tempfile::tempdir().unwrap();
    for ((_, witness), name) in both.iter().zip(["first", "second"]) {
        symlink(&witness.directory, parent.path().join(name)).unwrap();
    }
    let slot_of_second = both[1].1.directory.clone();
    let ((first, witness), (second, _)) = {
        let [first, second] = &mut both;
        ((&mut first.0, &mut first.1), (&mut second.0, &mut second.1))
    };
    witness.directory = parent.path().to_owned();
    let listen = format!("127.0.0.1:{}", witness.http);
    let environment = [("TALLYD_API_LISTEN", Path::new(&listen))];
    witness.start_with(&environment);
    for site in [&mut *first, &mut *second] {
        site.start_all();
        site.boxes.iter().for_each(|one| until_tolerates(one, 1));
        site.boxes[0].kill();
        site.boxes[1].until_ready();
        site.boxes[1].add("parts", 1);
    }
    let url = format!("http://{listen}");
    let said = tallyd().args(["status", "--url", &url]).output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.starts_with("witness of 2 sites, ready\n"), "{said}");
    assert_eq!(said.matches("counted   for box2 as of").count(), 2, "{said}");
    witness.terminate();
    std::fs::write(slot_of_second.join("witness.state"), "nonsense").unwrap();
    witness.start_with(&environment);
    until("the first site is served", || {
        let status = witness.try_status()?;
        let refused = status["refused"][0]["why"].as_str()?;
        assert!(refused.contains("witness.state: the file is not the state of a witness"), "{refused}");
        (status["sites"].as_array()?.len() == 1 && status["ready"] == false).then_some(())
    });
    assert_eq!(witness.client().get("/readyz").unwrap().status, 503);
    assert_eq!(witness.client().get("/healthz").unwrap().status, 200);
    first.boxes[1].until_ready();
    first.boxes[1].add("parts", 1);
}

#[test]
fn a_box_is_run_as_a_box_and_a_witness_as_a_witness() {
    let (mut site, witness) = Site::provision_with_witness();
    let refused = |one: &TestBox, flag: Option<&str>, words: &str| {
        let output = tallyd().arg("run").args(flag).arg("--data-dir").arg(&one.directory).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(words), "{said}");
    };
    refused(&site.boxes[0], Some("--witness"), "which is not a witness: run it without --witness");
    refused(&witness, None, "the witness of its site: run it with --witness");
    site.start_all();
    assert!(!witness.directory.join("log").exists());
}
