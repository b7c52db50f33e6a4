//! An old box whose number was retired: started again it is told so, counts nothing any more, and loses nothing silently.

use serde_json::Value;

use crate::boxes::{Site, TestBox};
use crate::harness::until;
use crate::joining::{address, found, joined, start_waiting, token, told, tried};
use crate::witness::until_tolerates;

/// Waits until a box knows that it was removed.
pub(crate) fn until_removed(one: &TestBox) -> Value {
    until(&format!("{} knows that it was removed", one.name), || {
        let status = one.try_status()?;
        (status["role"] == "removed").then_some(status)
    })
}

/// A site of three boxes that joined.
fn three() -> Site {
    let mut site = Site::waiting(3);
    found(&mut site.boxes[0]);
    let both = token(&site.boxes[0], &["--uses", "2"]);
    for at in [1, 2] {
        start_waiting(&mut site.boxes[at]);
        joined(&site.boxes[at], &site.boxes[0], &both);
    }
    until_tolerates(&site.boxes[0], 1);
    site
}

/// Sees that a removed box counts nothing, and says so.
fn assert_counts_nothing(one: &TestBox) {
    let mut client = one.client();
    let add = client.post("/v1/counters/parts", r#"{"add":1}"#).unwrap();
    assert_eq!((add.status, &*add.json()["type"].to_string()), (503, "\"urn:tallyd:error:not-committed\""));
    let ready = client.get("/readyz").unwrap();
    assert_eq!((ready.status, &*ready.json()["type"].to_string()), (503, "\"urn:tallyd:error:not-ready\""));
    assert_eq!(client.get("/healthz").unwrap().status, 200);
    let statsd = std::net::UdpSocket::bind(("127.0.0.1", one.statsd));
    assert!(statsd.is_ok(), "StatsD is not listened to");
}

#[test]
fn an_old_card_is_told_by_any_member_that_it_was_removed_and_what_it_holds() {
    let mut site = three();
    // It has counted something that it cannot commit when it is stopped.
    site.boxes[0].kill();
    site.boxes[1].kill();
    site.boxes[2].statsd("parts:3|c\nparts:4|c");
    until("it has taken the counts", || {
        let status = site.boxes[2].try_status()?;
        (status["accumulator"]["pending"].as_u64()? > 0).then_some(())
    });
    site.boxes[2].terminate();
    site.boxes[0].start();
    site.boxes[1].start();
    site.boxes[0].until_ready();
    assert!(told(&site.boxes[0], &["member", "remove", "box3"]).contains("was removed"));
    // The one that it reaches does not lead.
    let leader = site.leader();
    let removed_by = site.boxes[leader].status()["last"].as_u64();
    until("the other box has applied that, too", || {
        (site.boxes[1 - leader].try_status()?["applied"].as_u64() >= removed_by).then_some(())
    });
    site.boxes[leader].kill();
    site.boxes[2].start();
    let status = until_removed(&site.boxes[2]);
    let text = status["text"].as_str().unwrap();
    assert!(text.starts_with("does NOT count: this box, box3 (number 3), was removed from plant7"), "{text}");
    assert!(text.contains("it holds 7 counts that the site never confirmed"), "{text}");
    assert_eq!((&status["verdict"]["counts"], &status["node_id"]), (&false.into(), &3.into()));
    assert_counts_nothing(&site.boxes[2]);
    let said = told(&site.boxes[2], &["status"]);
    assert!(said.starts_with(text), "{said}");
    assert_eq!(site.boxes[2].log().matches(text).count(), 1, "one line");
    // For good, whether it reaches somebody or not.
    site.boxes[2].terminate();
    let others = [0, 1].into_iter().filter(|at| *at != leader);
    for at in others {
        site.boxes[at].kill();
    }
    site.boxes[2].start();
    assert_eq!(until_removed(&site.boxes[2])["text"], text);
    for refused in [&["init", "--site", "other"][..], &["join", "127.0.0.1:9", "--token", TOKEN]] {
        let output = tried(&site.boxes[2], refused);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains("was removed from plant7"), "{said}");
    }
    site.boxes[0].start();
    site.boxes[1].start();
    site.boxes[0].until_ready();
    // The way on: what it holds is kept.
    let new = token(&site.boxes[0], &[]);
    let by = address(&site.boxes[0]);
    let said = told(&site.boxes[2], &["join", &by, "--token", &new, "--set-aside"]);
    assert!(said.contains("box3 is number 4 of plant7"), "{said}");
    assert!(said.contains("what this box had (7 counts that the site never confirmed) is in "), "{said}");
    assert!(site.boxes[2].directory.with_added_extension("aside-1").join("unsent.batches").exists());
    site.boxes[2].until_ready();
    assert_eq!(site.boxes[2].add("parts", 1), 1);
}

/// One that no site has made.
const TOKEN: &str = "tally1-00041-06105-0r3gg-28a1c-60t3g-fzsrn";

#[test]
fn a_box_that_is_removed_while_it_runs_goes_on_as_a_removed_one_and_the_others_count() {
    let mut site = three();
    let leader = site.leader();
    let name = site.boxes[leader].name.clone();
    let other = (leader + 1) % 3;
    told(&site.boxes[other], &["member", "remove", &name]);
    until_removed(&site.boxes[leader]);
    assert_counts_nothing(&site.boxes[leader]);
    assert_eq!(site.boxes[other].add("parts", 2), 2);
    site.boxes[leader].terminate();
}
