//! Boxes come and go while the site counts.

use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::boxes::{Place, Site, TestBox};
use crate::harness::{free_port, tallyd, until};
use crate::load::Load;
use crate::net::standstill::{ATTEMPTS, Standstill};
use crate::witness::until_tolerates;

/// Runs a command of the program at a box, which must do it.
fn told(one: &TestBox, arguments: &[&str]) -> String {
    let output = try_told(one, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn try_told(one: &TestBox, arguments: &[&str]) -> Output {
    tallyd().args(arguments).args(["--url", &one.admin_url()]).output().unwrap()
}

/// Runs a command that changes a member, which the box must do. If nothing is known of what came of it, and the change
/// does not come into force, it is asked for again. What the command said, if it knew.
pub(crate) fn changed(
    one: &TestBox,
    arguments: &[&str],
    is_in_force: impl Fn() -> Option<bool>,
) -> Option<String> {
    for _ in 0..ATTEMPTS {
        let output = try_told(one, arguments);
        // Unknown, and certainly not done.
        if output.status.code() != Some(4) && output.status.code() != Some(3) {
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            return Some(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            if is_in_force() == Some(true) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(15));
        }
    }
    panic!("{arguments:?}: nothing came of it again and again");
}

/// What a member is, and whether it is one, as this box says if it answers.
fn membership(one: &TestBox, name: &str) -> Option<Option<String>> {
    let status = one.try_status()?;
    let member = status["members"].as_array()?.iter().find(|member| member["name"] == name).cloned();
    Some(match member {
        Some(member) => Some(member["membership"].as_str()?.to_owned()),
        None => None,
    })
}

pub(crate) fn is(one: &TestBox, name: &str, membership_wanted: &str) -> Option<bool> {
    Some(membership(one, name)?.as_deref() == Some(membership_wanted))
}

fn until_is(one: &TestBox, name: &str, membership_wanted: &str) {
    let what = format!("{} says that {name} is {membership_wanted}", one.name);
    until(&what, || is(one, name, membership_wanted)?.then_some(()));
}

pub(crate) fn is_member(one: &TestBox, name: &str) -> Option<bool> {
    Some(membership(one, name)?.is_some())
}

pub(crate) fn is_gone(one: &TestBox, name: &str) -> Option<bool> {
    Some(membership(one, name)?.is_none())
}

pub(crate) fn place() -> Place {
    let address = format!("127.0.0.1:{}", free_port());
    Place { address, http: free_port(), statsd: free_port(), namespace: None }
}

/// Provisions a further box, tells the site and starts it.
fn add_box(site: &mut Site, role: &str) -> usize {
    let made = site.extend(place());
    let new = site.boxes.len() - 1;
    let member = format!("{}={}", site.boxes[new].name, made["address"].as_str().unwrap());
    let (id, key) = (made["id"].to_string(), made["key"].as_str().unwrap().to_owned());
    let arguments = ["member", "add", &member, "--id", &id, "--key", &key, "--role", role, "--no-wait"];
    changed(&site.boxes[0], &arguments, || is_member(&site.boxes[0], &site.boxes[new].name));
    site.boxes[new].start();
    site.boxes[new].until_ready();
    new
}

#[test]
fn a_fourth_and_a_fifth_box_come_and_go_under_load_without_a_failed_add() {
    let mut site = Site::start(3);
    let load = Load::start(&site, 6);
    let goes_on = |load: &Load| {
        let before = load.done();
        until("the load goes on", || (load.done() > before + 200).then_some(()));
    };
    goes_on(&load);
    for name in ["box4", "box5"] {
        add_box(&mut site, "voter");
        until_is(&site.boxes[0], name, "voter");
        goes_on(&load);
    }
    until_tolerates(&site.boxes[1], 2);
    site.assert_same_digests();
    for name in ["box4", "box5"] {
        let said = changed(&site.boxes[1], &["member", "remove", name], || is_gone(&site.boxes[1], name));
        assert!(said.is_none_or(|said| said.contains("was removed from the site")));
        goes_on(&load);
    }
    until("a box that was not asked says that box4 is gone, too", || {
        is_gone(&site.boxes[2], "box4")?.then_some(())
    });
    let tally = load.finish();
    assert_eq!(tally.retries, 0, "some add was not acknowledged at its first try");
    for mut gone in site.boxes.drain(3..) {
        gone.kill();
    }
    tally.assert_held(&site);
    site.assert_same_digests();
}

#[test]
fn a_member_that_was_added_is_remembered_by_a_site_that_starts_again() {
    let mut site = Site::start(3);
    let fourth = add_box(&mut site, "observer");
    until_is(&site.boxes[0], "box4", "observer");
    let votes = || is(&site.boxes[0], "box4", "voter");
    let said = changed(&site.boxes[0], &["member", "promote", "box4"], votes);
    assert!(said.is_none_or(|said| said == "box4 is a voter\n"));
    for one in &mut site.boxes {
        one.kill();
    }
    site.start_all();
    until_is(&site.boxes[fourth], "box4", "voter");
    site.boxes[0].add("parts", 7);
    assert_eq!(site.boxes[fourth].total("parts"), 7);
    site.assert_same_digests();
}

#[test]
fn a_site_of_one_becomes_one_of_two_and_remembers_it() {
    let mut site = Site::start(1);
    site.boxes[0].add("parts", 5);
    let second = add_box(&mut site, "voter");
    until_is(&site.boxes[0], "box2", "voter");
    site.boxes[second].add("parts", 2);
    for one in &mut site.boxes {
        one.kill();
    }
    site.start_all();
    assert_eq!(site.boxes[0].total("parts"), 7);
    site.assert_same_digests();
}

#[test]
fn a_dead_box_is_replaced_by_another_one() {
    let mut site = Site::start(3);
    site.boxes[0].add("parts", 5);
    let dead = site.follower();
    let name = site.boxes[dead].name.clone();
    site.boxes[dead].kill();
    let asked = site.boxes.iter().position(|one| one.process.is_some()).unwrap();
    changed(&site.boxes[asked], &["member", "remove", &name], || is_gone(&site.boxes[asked], &name));
    site.boxes.remove(dead);
    add_box(&mut site, "voter");
    until_is(&site.boxes[0], "box4", "voter");
    assert_eq!(site.boxes[2].total("parts"), 5);
    until_tolerates(&site.boxes[0], 1);
    let output = try_told(&site.boxes[0], &["member", "promote", &name]);
    assert_eq!(output.status.code(), Some(1), "a removed member is none");
}

#[test]
fn leadership_is_handed_over_when_asked_and_nothing_fails() {
    let site = Site::start(3);
    let load = Load::start(&site, 6);
    until("the load runs", || (load.done() > 100).then_some(()));
    for _ in 0..4 {
        let handed_over = (0..ATTEMPTS).any(|_| was_handed_over(&site, &load));
        assert!(handed_over, "this machine stood still again and again, so nothing can be said");
    }
    load.finish().assert_held(&site);
    let output = try_told(&site.boxes[0], &["leader", "transfer", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
}

/// Transfers leadership to a box that follows: whether that took one election, and each add was acknowledged at its
/// first try; `false` if the machine spoilt it.
fn was_handed_over(site: &Site, load: &Load) -> bool {
    let standstill = Standstill::watch();
    let successor = site.follower();
    let name = site.boxes[successor].name.clone();
    let term = || site.boxes[successor].status()["term"].as_u64().unwrap();
    let (term_before, done, retries) = (term(), load.done(), load.retries());
    // Asked of any box.
    let output = try_told(&site.boxes[2], &["leader", "transfer", &name]);
    let leads = output.status.success() && output.stdout == format!("{name} is the leader\n").into_bytes();
    let leader = site.leader();
    // Those that were under way at the transfers are over by then.
    until("the load goes on", || (load.done() > done + 100).then_some(()));
    let (elections, retried) = (term() - term_before, load.retries() - retries);
    let held = leads && leader == successor && elections == 1 && retried == 0;
    assert!(
        held || standstill.was_long(),
        "{output:?}; {} leads after {elections} elections, {retried} adds were tried again",
        site.boxes[leader].name
    );
    held
}

#[test]
fn a_leader_that_is_stopped_in_order_is_not_missed() {
    let mut site = Site::start(3);
    let leader = site.leader();
    let others: Vec<u16> = (0..3).filter(|at| *at != leader).map(|at| site.boxes[at].http).collect();
    let load = Load::at(&others, 4);
    until("the load runs", || (load.done() > 200).then_some(()));
    site.boxes[leader].terminate();
    let before = load.done();
    until("the others go on", || (load.done() > before + 200).then_some(()));
    let slowest = load.slowest();
    let tally = load.finish();
    assert_eq!(tally.retries, 0, "some add was not acknowledged at its first try");
    eprintln!("slowest add while the leader was restarted: {slowest:?}");
    // Nobody had to miss it: it said to whom leadership goes before it went.
    let said = |one: &TestBox| one.log().contains("to this box, because the leader is stopping");
    assert!((0..3).any(|at| at != leader && said(&site.boxes[at])), "it did not transfer leadership");
    site.start_all();
    tally.assert_held(&site);
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let site = Site::start(1);
    let one = &site.boxes[0];
    until("the members are known", || {
        let output = try_told(one, &["member", "remove", "box1", "--no-wait"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        said.contains("last voter").then(|| assert_eq!(output.status.code(), Some(1)))
    });
    let listed: Value = serde_json::from_str(&told(one, &["members", "--json"])).unwrap();
    assert_eq!(listed["members"][0]["name"], "box1");
    let output = try_told(one, &["member", "add", "box2=10.0.0.9:7400", "--id", "2", "--key", "short"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("64 hexadecimal digits"), "{said}");
}
