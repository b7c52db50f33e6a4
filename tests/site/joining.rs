//! Boxes found a site and join it by a token, as the README has it: real processes, the real commands.

#[cfg(debug_assertions)]
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::boxes::{SITE, Site, TestBox};
use crate::harness::{Process, free_port, tallyd, until};
use crate::joining_refused::ask_and_leave;
use crate::load::Load;
use crate::members::is_gone;
use crate::witness::until_tolerates;

/// Runs a command of the program at a box.
pub(crate) fn tried(one: &TestBox, arguments: &[&str]) -> Output {
    let url = format!("http://127.0.0.1:{}", one.http);
    tallyd().args(arguments).args(["--url", &url]).output().unwrap()
}

/// The same, which the box must do.
pub(crate) fn told(one: &TestBox, arguments: &[&str]) -> String {
    let output = tried(one, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Starts a box that waits for a site, and sees that it does.
pub(crate) fn start_waiting(one: &mut TestBox) {
    one.start();
    until(&format!("{} waits", one.name), || (one.try_status()?["role"] == "waiting").then_some(()));
}

pub(crate) fn address(one: &TestBox) -> String {
    format!("127.0.0.1:{}", one.quic)
}

/// Founds a site on a box that waits.
pub(crate) fn found(one: &mut TestBox) {
    start_waiting(one);
    let said = told(one, &["init", "--site", SITE, "--advertise", &address(one)]);
    assert!(
        said.starts_with("plant7 (") && said.contains("has one box: box1, reached at 127.0.0.1:"),
        "{said}"
    );
    one.until_ready();
}

/// Makes a token; gives the token itself.
pub(crate) fn token(one: &TestBox, arguments: &[&str]) -> String {
    let said = told(one, &[&["token", "create", "--json"], arguments].concat());
    let made: Value = serde_json::from_str(&said).unwrap();
    made["token"].as_str().unwrap().to_owned()
}

/// Joins by a box that is a member, the token on standard input.
pub(crate) fn join(one: &TestBox, by: &TestBox, token: &str) -> Output {
    let url = format!("http://127.0.0.1:{}", one.http);
    let mut command = tallyd();
    command.args(["join", &address(by), "--token-file", "-", "--url", &url]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), format!("{token}\n").as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// The same, which must be done.
pub(crate) fn joined(one: &TestBox, by: &TestBox, token: &str) -> String {
    let output = join(one, by, token);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn member(at: &TestBox, name: &str) -> Value {
    let status = at.status();
    status["members"].as_array().unwrap().iter().find(|member| member["name"] == name).unwrap().clone()
}

#[test]
fn a_box_without_a_site_waits_and_founds_nothing_and_says_so_once() {
    let mut site = Site::waiting(1);
    let one = &mut site.boxes[0];
    start_waiting(one);
    let mut client = one.client();
    let ready = client.get("/readyz").unwrap();
    assert_eq!((ready.status, &*ready.json()["type"].to_string()), (503, "\"urn:tallyd:error:no-site\""));
    let add = client.post("/v1/counters/parts", r#"{"add":1}"#).unwrap();
    assert_eq!((add.status, &*add.json()["type"].to_string()), (503, "\"urn:tallyd:error:not-committed\""));
    assert_eq!(client.get("/healthz").unwrap().status, 200);
    let said = told(one, &["status"]);
    assert!(said.contains("no site yet: tallyd init or tallyd join"), "{said}");
    let statsd = std::net::UdpSocket::bind(("127.0.0.1", one.statsd));
    assert!(statsd.is_ok(), "StatsD is not listened to");
    assert!(!one.directory.join("identity.json").exists());
    assert_eq!(one.log().matches("no site yet").count(), 1);
    one.terminate();
}

#[test]
fn a_box_whose_disk_is_mounted_late_begins_when_its_identity_appears() {
    let mut provisioned = Site::provision(1, "1s", "");
    let one = &mut provisioned.boxes[0];
    let identity = one.directory.join("identity.json");
    let hidden = one.directory.join("hidden");
    std::fs::rename(&identity, &hidden).unwrap();
    start_waiting(one);
    std::fs::rename(&hidden, &identity).unwrap();
    one.until_ready();
    one.add("parts", 1);
}

#[test]
fn one_box_becomes_three_under_load_and_each_add_is_there_once() {
    let mut site = Site::waiting(3);
    found(&mut site.boxes[0]);
    for at in [1, 2] {
        start_waiting(&mut site.boxes[at]);
    }
    let load = Load::at(&[site.boxes[0].http], 4);
    let goes_on = |load: &Load| {
        let before = load.done();
        until("the load goes on", || (load.done() > before + 100).then_some(()));
    };
    goes_on(&load);
    let token = token(&site.boxes[0], &["--uses", "2"]);
    let said = joined(&site.boxes[1], &site.boxes[0], &token);
    assert!(said.starts_with("box2 is number 2 of plant7; followed "), "{said}");
    assert!(said.ends_with("waits for another box to vote\n"), "{said}");
    goes_on(&load);
    let why = until("box1 says why the vote of box2 waits", || {
        member(&site.boxes[0], "box2")["vote_waits"].as_str().map(str::to_owned)
    });
    let second = member(&site.boxes[0], "box2");
    assert_eq!((&second["membership"], &second["votes"]), (&"observer".into(), &false.into()));
    assert!(why.contains("waits for a third box or a witness") && why.contains("promote box2"), "{why}");
    assert!(told(&site.boxes[0], &["status"]).contains(&why));
    // By any box: this one observes.
    let said = joined(&site.boxes[2], &site.boxes[1], &token);
    assert!(said.starts_with("box3 is number 3 of plant7; followed ") && said.contains("votes: "), "{said}");
    goes_on(&load);
    for one in &site.boxes {
        until_tolerates(one, 1);
    }
    let tally = load.finish();
    assert_eq!(tally.retries, 0, "some add was not acknowledged at its first try");
    tally.assert_held(&site);
    site.assert_same_digests();
    let listed = told(&site.boxes[2], &["token", "list"]);
    assert!(listed.contains("box2, box3"), "{listed}");
    // They come back as what they are.
    for one in &mut site.boxes {
        one.kill();
    }
    site.start_all();
    for one in &site.boxes {
        until_tolerates(one, 1);
    }
    site.assert_same_digests();
}

#[test]
fn the_site_that_somebody_tried_first_grows_without_losing_a_count() {
    let mut site = Site::waiting(3);
    // A folder and nothing else.
    let one = &mut site.boxes[0];
    std::fs::remove_file(one.directory.join("tallyd.toml")).unwrap();
    let mut command = one.command();
    command.env("TALLYD_API_LISTEN", format!("127.0.0.1:{}", one.http));
    command.env("TALLYD_INGEST_STATSD_LISTEN", format!("127.0.0.1:{}", one.statsd));
    command.env("TALLYD_CLUSTER_LISTEN", address(one));
    command.env("TALLYD_NODE_NAME", "box1");
    one.start_by(command, None);
    one.until_ready();
    assert_eq!(one.add("parts", 1204), 1204);
    let site_id = one.status()["site_id"].clone();
    let refused = tried(one, &["token", "create", "--uses", "2"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("nobody can reach this box yet") && said.contains("--advertise"), "{said}");
    let reached = address(one);
    let token = token(one, &["--uses", "2", "--advertise", &reached]);
    for at in [1, 2] {
        start_waiting(&mut site.boxes[at]);
        joined(&site.boxes[at], &site.boxes[0], &token);
    }
    until_tolerates(&site.boxes[2], 1);
    site.boxes[2].add("parts", 3);
    for one in &site.boxes {
        assert_eq!(one.total("parts"), 1207);
        assert_eq!(one.status()["site_id"], site_id);
    }
    site.assert_same_digests();
    // Its own start finds the address in its identity.
    let identity = std::fs::read_to_string(site.boxes[0].directory.join("identity.json")).unwrap();
    assert!(identity.contains(&reached), "{identity}");
    // Any of them may die.
    site.boxes[0].kill();
    until("the others go on", || {
        let answer = site.boxes[1].client().post("/v1/counters/parts", r#"{"add":1}"#).ok()?;
        (answer.status == 200).then_some(())
    });
}

#[test]
fn a_box_whose_answer_was_lost_asks_again_and_is_one_member_by_one_use() {
    let mut site = Site::waiting(2);
    found(&mut site.boxes[0]);
    let token = token(&site.boxes[0], &[]);
    // It asks, and goes away before the answer comes.
    let joining = site.boxes[1].directory.join("joining");
    ask_and_leave(&joining, &site.boxes[1], &site.boxes[0], &token);
    until("the site has taken it in", || {
        (site.boxes[0].try_status()?["members"].as_array()?.len() == 2).then_some(())
    });
    start_waiting(&mut site.boxes[1]);
    let said = joined(&site.boxes[1], &site.boxes[0], &token);
    assert!(said.starts_with("box2 is number 2 of plant7"), "{said}");
    let listed: Value = serde_json::from_str(&told(&site.boxes[0], &["token", "list", "--json"])).unwrap();
    let one = &listed["tokens"][0];
    assert_eq!((&one["uses_left"], &one["used_by"]), (&0.into(), &serde_json::json!(["box2"])));
    assert_eq!(site.boxes[0].status()["members"].as_array().unwrap().len(), 2);
    assert!(!joining.exists());
}

#[cfg(debug_assertions)]
#[test]
fn a_board_that_is_in_2090_joins_a_site_that_is_in_1970() {
    let mut site = Site::waiting(2);
    for (one, ahead_ms) in site.boxes.iter_mut().zip([-1_790_000_000_000_i64, 2_000_000_000_000]) {
        let clock = one.directory.with_extension("clock");
        std::fs::write(&clock, format!("{ahead_ms} unsynced\n")).unwrap();
        one.start_with(&[("TALLYD_TEST_CLOCK", Path::new(&clock))]);
        until("it waits", || (one.try_status()?["role"] == "waiting").then_some(()));
    }
    told(&site.boxes[0], &["init", "--site", SITE, "--advertise", &address(&site.boxes[0])]);
    site.boxes[0].until_ready();
    let token = token(&site.boxes[0], &[]);
    assert!(joined(&site.boxes[1], &site.boxes[0], &token).contains("number 2"));
}

#[test]
fn of_five_boxes_with_one_token_for_two_at_once_two_join() {
    let mut site = Site::waiting(6);
    found(&mut site.boxes[0]);
    for one in &mut site.boxes[1..] {
        start_waiting(one);
    }
    let token = token(&site.boxes[0], &["--uses", "2"]);
    let all = &site.boxes;
    let outcomes: Vec<Output> = std::thread::scope(|scope| {
        let tries: Vec<_> = all[1..].iter().map(|one| scope.spawn(|| join(one, &all[0], &token))).collect();
        tries.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let codes: Vec<_> = outcomes.iter().map(|outcome| outcome.status.code()).collect();
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 2, "{outcomes:?}");
    assert_eq!(codes.iter().filter(|code| **code == Some(1)).count(), 3, "{outcomes:?}");
    assert_eq!(site.boxes[0].status()["members"].as_array().unwrap().len(), 3);
    until_tolerates(&site.boxes[0], 1);
}

#[test]
fn a_board_takes_the_place_of_a_dead_box_and_of_a_living_one() {
    let mut site = Site::waiting(5);
    found(&mut site.boxes[0]);
    let both = token(&site.boxes[0], &["--uses", "2"]);
    for at in [1, 2] {
        start_waiting(&mut site.boxes[at]);
        joined(&site.boxes[at], &site.boxes[0], &both);
    }
    until_tolerates(&site.boxes[0], 1);
    site.boxes[0].add("parts", 5);
    for (at, old, number) in [(3, 2, 4), (4, 3, 5)] {
        if at == 3 {
            site.boxes[old].kill();
        }
        let place = token(&site.boxes[0], &["--replace", "box3"]);
        // It has a name of its own in its configuration no longer: the token says how it is called.
        let config = site.boxes[at].directory.join("tallyd.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(
            &config,
            text.replace("[node]\n", "").replace(&format!("name = \"box{}\"\n", at + 1), ""),
        )
        .unwrap();
        start_waiting(&mut site.boxes[at]);
        let said = joined(&site.boxes[at], &site.boxes[1], &place);
        assert!(
            said.starts_with(&format!("box3 is number {number} of plant7, in the place of number")),
            "{said}"
        );
        until("the new box3 votes", || {
            let new = site.boxes[0].try_status()?;
            let members = new["members"].as_array()?;
            let new = members.iter().find(|member| member["id"] == number)?;
            (members.len() == 3 && new["name"] == "box3" && new["membership"] == "voter").then_some(())
        });
        until_tolerates(&site.boxes[0], 1);
        assert_eq!(site.boxes[at].total("parts"), 5);
    }
    // The first of them, started again, is told that it was removed.
    site.boxes[2].start();
    site.boxes[2].until_log("was removed from the site");
    assert_eq!(site.boxes[2].status()["ready"], false);
    let said = told(&site.boxes[0], &["member", "remove", "box3"]);
    assert!(said.contains("was removed"), "{said}");
    assert_eq!(is_gone(&site.boxes[0], "box3"), Some(true));
}

#[test]
fn a_box_with_a_site_of_its_own_is_told_what_it_holds_and_joins_with_that_set_aside() {
    let mut site = Site::waiting(2);
    found(&mut site.boxes[0]);
    let own = &mut site.boxes[1];
    start_waiting(own);
    told(own, &["init", "--site", "mine"]);
    own.until_ready();
    own.add("coffee", 3);
    let token = token(&site.boxes[0], &[]);
    let refused = join(&site.boxes[1], &site.boxes[0], &token);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("of the site mine") && said.contains("1 series") && said.contains("--set-aside"),
        "{said}"
    );
    let by = address(&site.boxes[0]);
    // With a token that is none there everything stays as it was.
    let wrong = "tally1-00041-06105-0r3gg-28a1c-60t3g-fzsrn";
    let output = tried(&site.boxes[1], &["join", &by, "--token", wrong, "--set-aside"]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    site.boxes[1].until_ready();
    assert_eq!(site.boxes[1].total("coffee"), 3);
    let said = told(&site.boxes[1], &["join", &by, "--token", &token, "--set-aside"]);
    assert!(said.contains("box2 is number 2 of plant7") && said.contains("aside-1"), "{said}");
    assert_eq!(site.boxes[1].total("coffee"), 0);
    let aside = site.boxes[1].directory.with_added_extension("aside-1");
    assert!(aside.join("identity.json").exists() && aside.join("log").exists());
    // What was counted there can be read there.
    let http = free_port();
    let mut command = tallyd();
    command.args(["run", "--data-dir"]).arg(&aside);
    command.env("TALLYD_API_LISTEN", format!("127.0.0.1:{http}")).env("TALLYD_INGEST_STATSD_LISTEN", "off");
    let _process = Process::start(&mut command, &aside.with_extension("log"));
    let mut client = crate::http::Client::new(http);
    let total = until("the old site is there", || {
        let answer = client.get("/v1/series/coffee").ok()?;
        (answer.status == 200).then(|| answer.json()["total"].clone())
    });
    assert_eq!(total, 3);
}
