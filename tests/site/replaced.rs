//! A box whose disk is lost comes back under its own name and at its own address, with new keys and a new number.

use std::io::Write;
use std::process::Output;

use serde_json::Value;

use crate::boxes::{Site, TestBox};
use crate::harness::{tallyd, until};

fn told(at: &TestBox, arguments: &[&str]) -> Output {
    let url = format!("http://127.0.0.1:{}", at.http);
    let output = tallyd().args(arguments).args(["--url", &url]).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Makes a box of the site anew; gives its number and its key.
fn replace(one: &TestBox) -> (String, String) {
    let out = one.directory.parent().unwrap();
    let place = format!("{}=127.0.0.1:{}", one.name, one.quic);
    let mut command = tallyd();
    command.arg("provision").arg("--extend").arg(out).args(["--json", "--replace", "--box", &place]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let config = one.directory.join("tallyd.toml");
    let mut config = std::fs::OpenOptions::new().append(true).open(config).unwrap();
    let ways = format!(
        "[api]\nlisten = \"127.0.0.1:{}\"\n[ingest.statsd]\nlisten = \"127.0.0.1:{}\"\n",
        one.http, one.statsd
    );
    config.write_all(ways.as_bytes()).unwrap();
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    (made["id"].to_string(), made["key"].as_str().unwrap().to_owned())
}

#[test]
fn a_box_is_replaced_under_its_own_name_and_address_and_the_old_disk_is_not_heard() {
    let mut site = Site::start(3);
    site.boxes[0].add("parts", 5);
    for turn in 4..6 {
        site.boxes[2].kill();
        let (id, key) = replace(&site.boxes[2]);
        assert_eq!(id, turn.to_string());
        told(&site.boxes[0], &["member", "remove", "box3"]);
        let member = format!("box3=127.0.0.1:{}", site.boxes[2].quic);
        told(&site.boxes[0], &["member", "add", &member, "--id", &id, "--key", &key, "--no-wait"]);
        site.boxes[2].start();
        until("the new box3 votes", || {
            let status = site.boxes[0].try_status()?;
            let members = status["members"].as_array()?;
            let new = members.iter().find(|member| member["name"] == "box3")?;
            (new["id"] == turn && new["membership"] == "voter").then_some(())
        });
        site.boxes[2].until_ready();
        assert_eq!(site.boxes[2].total("parts"), 5);
        // The new one is ready as soon as the leader is connected to it; this box may be so a moment later.
        until("box1 is connected to the new box3", || {
            (site.boxes[0].try_status()?["tolerates"]["failures"] == 1).then_some(())
        });
    }
    site.assert_same_digests();
    // The disk of the first one, started again beside: it reaches nobody, and nothing is lost by it.
    let mut old = site.boxes.remove(2);
    old.kill();
    old.directory.set_file_name("box3.old-3");
    old.start();
    let of_old = until("the old one tells how it is", || {
        let status = old.try_status()?;
        (status["node_id"] == 3).then_some(status)
    });
    assert_eq!(of_old["ready"], false, "{of_old}");
    site.boxes[0].add("parts", 2);
    assert_eq!(site.boxes[1].total("parts"), 7);
    old.kill();
}
