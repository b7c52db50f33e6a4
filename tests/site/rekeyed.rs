//! A new key for a box: killed wherever it may be, it is one member with one key.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use tallyd::identity::Issued;

use crate::boxes::{Site, TestBox};
use crate::harness::until;
use crate::joining::told;
use crate::load::Load;
use crate::witness::until_tolerates;

/// The key that a box has on its disk.
fn key_in(directory: &Path) -> Option<String> {
    let certificate = CertificateDer::from_pem_file(directory.join("node.crt")).ok()?;
    Some(tallyd::identity::key_hash(&certificate)?.to_string())
}

/// The key by which a box knows another.
fn key_of(name: &str, at: &TestBox) -> Option<String> {
    let answer = at.client().get("/v1/members").ok()?;
    let members = answer.json();
    let member = members["members"].as_array()?.iter().find(|member| member["name"] == name)?.clone();
    member["key"].as_str().map(str::to_owned)
}

/// Waits until all boxes know this one by the key on its disk, which is another than before, and all are connected.
fn until_rotated(site: &Site, at: usize, before: &str) -> String {
    let one = &site.boxes[at];
    let key = until("the new key is on the disk", || {
        let key = key_in(&one.directory)?;
        (key != before && !one.directory.join("key.next").exists()).then_some(key)
    });
    for other in &site.boxes {
        until(&format!("{} knows the new key of {}", other.name, one.name), || {
            (key_of(&one.name, other)? == key).then_some(())
        });
        until_tolerates(other, (site.boxes.len() as u64 - 1) / 2);
    }
    let identity: Value =
        serde_json::from_slice(&std::fs::read(one.directory.join("identity.json")).unwrap()).unwrap();
    let members = identity["members"].as_array().unwrap();
    let me = members.iter().find(|member| member["name"] == *one.name).unwrap();
    assert_eq!(me["key"], key.as_str());
    assert_eq!(site.boxes[0].status()["members"].as_array().unwrap().len(), site.boxes.len());
    key
}

#[test]
fn each_box_gets_a_new_key_under_load_and_its_old_one_opens_nothing() {
    let mut site = Site::start(3);
    let load = Load::start(&site, 2);
    for at in 0..3 {
        let before = key_in(&site.boxes[at].directory).unwrap();
        let said = told(&site.boxes[at], &["key", "rotate"]);
        let name = site.boxes[at].name.clone();
        assert!(said.starts_with(&format!("{name} (number {}) has a new key: ", at + 1)), "{said}");
        let key = until_rotated(&site, at, &before);
        assert!(said.contains(&key), "{said}");
        let done = load.done();
        until("the load goes on", || (load.done() > done + 50).then_some(()));
    }
    eprintln!("the slowest add took {:?}, after {} retries in all", load.slowest(), load.retries());
    let tally = load.finish();
    tally.assert_held(&site);
    site.assert_same_digests();
    // A thief with the old key of box3, which is kept beside the new one, is not let in.
    site.boxes[2].kill();
    let directory = site.boxes[2].directory.clone();
    let old = key_in(&directory.join("key.former")).unwrap();
    assert_ne!(Some(old.clone()), key_in(&directory));
    let (identity, kept) = (directory.join("identity.json"), directory.join("key.new"));
    let text = std::fs::read_to_string(&identity).unwrap();
    let new = key_in(&directory).unwrap();
    std::fs::create_dir(&kept).unwrap();
    for file in ["node.key", "node.crt"] {
        std::fs::copy(directory.join(file), kept.join(file)).unwrap();
        std::fs::rename(directory.join("key.former").join(file), directory.join(file)).unwrap();
    }
    std::fs::write(&identity, text.replace(&new, &old)).unwrap();
    site.boxes[2].start();
    until("the old key is refused", || {
        let status = site.boxes[2].try_status()?;
        let refused = |member: &Value| member["refused"] == "own-unknown-key";
        status["members"].as_array()?.iter().any(refused).then_some(())
    });
    assert_eq!(site.boxes[2].status()["ready"], false);
}

#[test]
fn a_box_that_is_killed_at_any_step_of_a_rotation_is_one_member_with_one_key() {
    let mut site = Site::start(3);
    let at = site.follower();
    let one = site.boxes[at].directory.clone();
    let before = key_in(&one).unwrap();

    // The new key is on its disk, and the site has not heard of it.
    site.boxes[at].kill();
    std::fs::create_dir(one.join("key.next")).unwrap();
    Issued::self_signed("box").unwrap().save(&one.join("key.next")).unwrap();
    let next = key_in(&one.join("key.next")).unwrap();
    site.boxes[at].start();
    site.boxes[at].until_ready();
    assert_eq!(key_in(&one), Some(before.clone()));

    // The site has agreed, and the box does not know it: it was killed when it had asked.
    let said = told(&site.boxes[at], &["key", "rotate"]);
    assert!(said.contains(&next), "the same key: {said}");
    let after = until_rotated(&site, at, &before);
    assert_eq!(after, next);
    site.boxes[at].kill();
    let back = |folder: &str, to: &str| {
        let _ = std::fs::create_dir(one.join(to));
        for file in ["node.key", "node.crt"] {
            std::fs::copy(one.join(folder).join(file), one.join(to).join(file)).unwrap();
        }
    };
    let identity = one.join("identity.json");
    let text = std::fs::read_to_string(&identity).unwrap();
    back("", "key.next");
    back("key.former", "");
    std::fs::remove_dir_all(one.join("key.former")).unwrap();
    std::fs::write(&identity, text.replace(&after, &before)).unwrap();
    assert_eq!(key_in(&one), Some(before.clone()));
    site.boxes[at].start();
    until_rotated(&site, at, &before);

    // The identity has the new key, and the files are half moved.
    site.boxes[at].kill();
    back("", "key.next");
    std::fs::copy(one.join("key.former/node.crt"), one.join("node.crt")).unwrap();
    site.boxes[at].start();
    assert_eq!(until_rotated(&site, at, &before), after);
    site.boxes[at].add("parts", 1);
    site.assert_same_digests();
}

#[test]
fn a_member_that_was_away_meanwhile_knows_the_old_key_only_and_is_reached_all_the_same() {
    let (mut site, mut witness) = Site::provision_with_witness();
    witness.start();
    site.start_all();
    for one in &site.boxes {
        until_tolerates(one, 1);
    }
    site.boxes[1].kill();
    until("the witness stands in", || {
        let answer = site.boxes[0].client().post("/v1/counters/parts", r#"{"add":1}"#).ok()?;
        (answer.status == 200).then_some(())
    });
    let before = key_in(&site.boxes[0].directory).unwrap();
    told(&site.boxes[0], &["key", "rotate"]);
    until("the new key is on the disk", || (key_in(&site.boxes[0].directory)? != before).then_some(()));
    // Nobody but the box itself could tell it.
    site.boxes[1].start();
    for one in &site.boxes {
        until_tolerates(one, 1);
    }
    let key = key_in(&site.boxes[0].directory).unwrap();
    assert_eq!(key_of("box1", &site.boxes[1]), Some(key));
    site.assert_same_digests();
}
