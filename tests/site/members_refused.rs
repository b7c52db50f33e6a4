//! Changes of the members that are refused, and change nothing: not at once, not after the power failed.

use crate::boxes::{Site, TestBox};
use crate::harness::until;
use crate::members::{place, try_told};

/// Runs a command that must be refused, certainly without effect, with this in its reason.
fn refused(one: &TestBox, arguments: &[&str], why: &str) {
    let output = until("it is refused for good", || {
        // Not for want of a leader at that moment.
        let output = try_told(one, arguments);
        (output.status.code() != Some(3)).then_some(output)
    });
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains(why), "{arguments:?}: {output:?}");
}

fn kill_all(site: &mut Site) {
    for one in &mut site.boxes {
        one.kill();
    }
}

#[test]
fn an_addition_that_is_refused_has_no_effect_when_the_site_starts_again() {
    let mut site = Site::start(3);
    site.boxes[0].add("parts", 5);
    let made = site.extend(place());
    let new = site.boxes.pop().unwrap();
    let member = format!("{}={}", new.name, made["address"].as_str().unwrap());
    let key = made["key"].as_str().unwrap();
    for number in ["1", "2", "3"] {
        let arguments = ["member", "add", &member, "--id", number, "--key", key, "--no-wait"];
        refused(&site.boxes[0], &arguments, "the number belongs to another member");
    }
    kill_all(&mut site);
    site.start_all();
    assert_eq!(site.boxes[0].total("parts"), 5);
    let names: Vec<String> = site.boxes[0].status()["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["box1", "box2", "box3"]);
}

#[test]
fn a_box_under_a_wrong_number_does_not_come_in_and_is_told_why() {
    let mut site = Site::start(1);
    let made = site.extend(place());
    let member = format!("{}={}", site.boxes[1].name, made["address"].as_str().unwrap());
    let key = made["key"].as_str().unwrap().to_owned();
    let arguments = ["member", "add", &member, "--id", "77", "--key", &key, "--no-wait"];
    assert!(try_told(&site.boxes[0], &arguments).status.success());
    site.boxes[1].start();
    until("both know why", || {
        let told = site.boxes[0].try_status()?["members"].as_array()?.get(1)?["refused"].as_str()?.to_owned();
        (told.ends_with("other-number") && site.boxes[1].log().contains("--id")).then_some(())
    });
    until("it is in the group, and does not vote", || {
        (site.boxes[0].try_status()?["members"][1]["membership"] == "observer").then_some(())
    });
    // The remedy that the message names.
    let name = site.boxes[1].name.clone();
    assert!(try_told(&site.boxes[0], &["member", "remove", &name]).status.success());
    let id = made["id"].to_string();
    let arguments = ["member", "add", &member, "--id", &id, "--key", &key];
    assert!(try_told(&site.boxes[0], &arguments).status.success());
    site.boxes[1].until_ready();
}

#[test]
fn a_box_without_which_nothing_could_be_committed_is_not_removed() {
    let mut site = Site::start(3);
    let dead = site.follower();
    let dead_name = site.boxes[dead].name.clone();
    site.boxes[dead].kill();
    let leader = site.leader();
    until("the leader knows that it is away", || {
        let status = site.boxes[leader].try_status()?;
        (status["members"][dead]["connected"] == false).then_some(())
    });
    let other = (0..3).find(|at| *at != dead && *at != leader).unwrap();
    let other_name = site.boxes[other].name.clone();
    for what in ["remove", "demote"] {
        let why = format!("because {dead_name} is not connected");
        refused(&site.boxes[leader], &["member", what, &other_name], &why);
    }
    site.boxes[leader].add("parts", 5);
    // The other way round it can be, and then nothing is in the way any more.
    assert!(try_told(&site.boxes[leader], &["member", "remove", &dead_name]).status.success());
    assert!(try_told(&site.boxes[leader], &["member", "remove", &other_name]).status.success());
    site.boxes[leader].add("parts", 2);
    assert_eq!(site.boxes[leader].total("parts"), 7);
    // It says what it is: by what it was told before it left, or by how it is received since.
    until("the removed box knows", || {
        let status = site.boxes[other].try_status()?;
        (status["ready"] == false && status["role"] == "removed").then_some(())
    });
}

#[test]
fn nobody_is_asked_to_lead_who_could_not() {
    let mut site = Site::start(1);
    let alone = &["leader", "transfer"];
    refused(&site.boxes[0], alone, "no other voter");
    let made = site.extend(place());
    let member = format!("{}={}", site.boxes[1].name, made["address"].as_str().unwrap());
    let (id, key) = (made["id"].to_string(), made["key"].as_str().unwrap().to_owned());
    let arguments = ["member", "add", &member, "--id", &id, "--key", &key, "--role", "observer"];
    assert!(try_told(&site.boxes[0], &arguments).status.success());
    let name = site.boxes[1].name.clone();
    refused(&site.boxes[0], &["leader", "transfer", &name], "only a voter can lead");
    // A new address of an observer makes no voter of it.
    let arguments = ["member", "add", &member, "--id", &id, "--key", &key, "--no-wait", "--json"];
    let output = try_told(&site.boxes[0], &arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("observer"), "{output:?}");
    let renamed = format!("other={}", made["address"].as_str().unwrap());
    let arguments = ["member", "add", &renamed, "--id", &id, "--key", &key];
    refused(&site.boxes[0], &arguments, "a name cannot change");
}
