//! Two boxes and a witness: the leader whose disk is full transfers leadership to the other box, with the witness's vote.

use serde_json::Value;

use super::lab::in_lab;
use super::small_disk::SmallDisk;
use super::standstill::{ATTEMPTS, Standstill};
use crate::boxes::Site;
use crate::harness::until;
use crate::load::fill_log;

/// Room for the log's segments and snapshots.
const MEBIBYTES: u64 = 64;

#[test]
fn beside_a_witness_a_full_disk_hands_leadership_to_the_other_box() {
    in_lab("net::unhealthy_disk::beside_a_witness_a_full_disk_hands_leadership_to_the_other_box", || {
        let scratch = tempfile::tempdir().unwrap();
        let (mut site, mut witness) = Site::provision_with_witness();
        let mut disks = Vec::new();
        for one in &mut site.boxes {
            let disk = SmallDisk::mount(scratch.path(), &one.name, MEBIBYTES);
            one.directory = disk.take_in(&one.directory);
            disks.push(disk);
        }
        witness.start();
        site.start_all();
        site.boxes[0].add("a", 1);
        let full = (0..ATTEMPTS).find_map(|_| leader_full(&site, &disks));
        let full = full.expect("an election came between again and again");
        let other = 1 - full;
        site.boxes[other]
            .until_log("is transferring leadership to this box, because the leader's disk is unhealthy");
        site.boxes[other].add("a", 2);
        let answer = site.boxes[full].client().get("/readyz").unwrap();
        assert_eq!(answer.status, 503, "it hears a leader and cannot commit: {}", answer.text());
        disks[full].free();
        site.until_ready();
        site.boxes[full].add("a", 4);
        assert_eq!(site.boxes[full].total("a"), 7);
        site.assert_same_digests();
    });
}

/// Fills the leader's disk until the other box leads; who led. `None` if an election came between, on a machine that
/// stood still: then nobody led on a full disk.
fn leader_full(site: &Site, disks: &[SmallDisk]) -> Option<usize> {
    let full = site.leader();
    let other = 1 - full;
    let transfers = |status: &Value| {
        let count = |what: &str| status["transfers"][what].as_u64().unwrap();
        (count("disk"), count("failed"))
    };
    let standstill = Standstill::watch();
    let (disk, failed) = transfers(&site.boxes[full].status());
    disks[full].fill();
    fill_log(&site.boxes[other], || {
        // The box lives on what it can let go of, until others have taken that.
        disks[full].fill();
        site.boxes[full].try_status().is_some_and(|status| status["storage"]["state"] != "ok")
    });
    until("the other box leads", || (site.boxes[other].try_status()?["role"] == "leader").then_some(()));
    let status = until("the box whose disk is full sees that it does not lead any more", || {
        site.boxes[full].try_status().filter(|status| status["role"] != "leader")
    });
    assert_eq!(status["storage"]["state"], "full", "{}", status["storage"]);
    if transfers(&status) == (disk + 1, failed) {
        return Some(full);
    }
    assert!(standstill.was_long(), "it just stepped down: {}", status["transfers"]);
    disks[full].free();
    until("it takes writes again", || {
        (site.boxes[full].try_status()?["storage"]["state"] == "ok").then_some(())
    });
    None
}
