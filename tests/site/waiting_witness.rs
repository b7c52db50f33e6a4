//! A witness that cannot take its place yet: accepted, and told why it waits.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::boxes::Site;
use crate::harness::tallyd;

#[test]
fn a_witness_beside_an_odd_number_of_boxes_is_told_to_wait_and_why() {
    let site = Site::start(3);
    let (witness, made) = site.extend_by_witness();
    let url = site.boxes[0].admin_url();
    let member = format!("{}={}", witness.name, made["address"].as_str().unwrap());
    let (id, key) = (made["id"].to_string(), made["key"].as_str().unwrap().to_owned());
    let arguments =
        ["member", "add", &member, "--id", &id, "--key", &key, "--role", "witness", "--url", &url];
    let begun = Instant::now();
    let output = tallyd().args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.starts_with("w will become the witness\na witness requires an even number"), "{said}");
    assert!(said.contains("not 3: w waits"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(30), "there is nothing to wait for");
    // Gone, nothing waits.
    let removed = tallyd().args(["member", "remove", "w", "--json", "--url", &url]).output().unwrap();
    let told: Value = serde_json::from_slice(&removed.stdout).unwrap();
    assert!(told["note"].is_null() && told["in_force"] == true, "{told}");
}
