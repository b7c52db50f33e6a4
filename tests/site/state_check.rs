//! A box whose state is wrong by one bit: it is noticed, taken out of service, and put right. The bit is flipped by a
//! file that only builds with debug assertions look at.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::boxes::Site;
use crate::harness::until;

/// Far above all that is counted here.
const BIT: u32 = 40;

struct Flips {
    site: Site,
    added: i64,
}

impl Flips {
    fn start(boxes: usize) -> Flips {
        let mut flips = Flips { site: Site::provision(boxes, "1s", ""), added: 0 };
        (0..boxes).for_each(|at| flips.run(at));
        flips.site.until_ready();
        // Before all boxes have said so, the site's level could be one at which digests are not told.
        flips.until_checks(|at, check| (check["compared_with"] == boxes - 1).then_some(at));
        flips
    }

    fn run(&mut self, at: usize) {
        let file = self.file(at);
        self.site.boxes[at].start_with(&[("TALLYD_TEST_FLIP", &file)]);
    }

    fn file(&self, at: usize) -> PathBuf {
        self.site.boxes[at].directory.with_extension("flip")
    }

    /// Counts, at a box that answers.
    fn count(&mut self) {
        let body = "{\"add\":1}";
        for one in &self.site.boxes {
            let mut client = one.client().patient_for(Duration::from_secs(3));
            let key = format!("add-{}", self.added);
            let headers = [("idempotency-key", key.as_str())];
            let answer = client.request("POST", "/v1/counters/a", &headers, body.as_bytes());
            if answer.is_ok_and(|answer| answer.status == 200) {
                self.added += 1;
                return;
            }
        }
    }

    fn check(&self, at: usize) -> Option<Value> {
        Some(self.site.boxes[at].try_status()?["state_check"].clone())
    }

    /// Counts until each box's check of its state is as it should be.
    fn until_checks<T>(&mut self, is: impl Fn(usize, &Value) -> Option<T>) {
        until("the boxes have compared their states", || {
            self.count();
            (0..self.site.boxes.len()).try_for_each(|at| is(at, &self.check(at)?).map(|_| ()))
        });
    }

    /// Flips a bit at a box, and waits until that box has noticed and has the right state again.
    fn flip_and_mend(&mut self, at: usize) {
        let seen = self.check(at).unwrap()["mismatches"].as_u64().unwrap();
        let lines = self.site.boxes[at].log().matches("in service again").count();
        std::fs::write(self.file(at), format!("a {BIT}")).unwrap();
        until("the box has the state anew", || {
            self.count();
            let check = self.check(at)?;
            let is_new = self.site.boxes[at].log().matches("in service again").count() > lines;
            (is_new && check["state"] == "ok" && check["mismatches"].as_u64()? > seen).then_some(())
        });
        self.site.boxes[at].until_log("it is out of service until it has theirs");
    }

    fn assert_right(&mut self) {
        self.until_checks(|_, check| (check["state"] == "ok").then_some(()));
        for one in &self.site.boxes {
            assert_eq!(one.total("a"), self.added, "{}", one.name);
        }
        self.site.assert_same_digests();
    }
}

#[test]
fn a_box_with_a_wrong_bit_takes_itself_out_of_service_and_gets_the_state_anew() {
    let mut flips = Flips::start(3);
    let follower = flips.site.follower();
    flips.flip_and_mend(follower);
    flips.assert_right();
    let metrics = flips.site.boxes[follower].client().get("/metrics").unwrap();
    assert!(metrics.text().contains("\ntallyd_digest_mismatches_total 1\n"), "{}", metrics.text());
    // The snapshot on its disk is a right one.
    until("it has a snapshot of its own", || {
        let storage = flips.site.boxes[follower].try_status()?["storage"].clone();
        (storage["snapshot_index"].as_u64()? > 0).then_some(())
    });
    flips.site.boxes[follower].kill();
    flips.run(follower);
    flips.site.until_ready();
    flips.assert_right();
    let leader = flips.site.leader();
    flips.flip_and_mend(leader);
    flips.assert_right();
    flips.site.boxes[leader].until_log("transferring leadership to");
    assert!(flips.site.boxes[leader].status()["transfers"]["state"].as_u64() >= Some(1));
}

#[test]
fn of_two_boxes_that_differ_both_say_so_and_neither_stops() {
    let mut flips = Flips::start(2);
    std::fs::write(flips.file(1), format!("a {BIT}")).unwrap();
    flips.until_checks(|_, check| {
        let says = check["text"].as_str()?.contains("no majority shows which is right");
        (check["state"] == "differs" && says).then_some(())
    });
    let before = flips.added;
    until("both go on", || {
        flips.count();
        (flips.added > before + 20).then_some(())
    });
    for one in &flips.site.boxes {
        assert_eq!(one.status()["ready"], true);
        assert!(!one.log().contains("out of service until"), "{}", one.log());
    }
    assert_eq!(flips.site.boxes[0].total("a"), flips.added);
}
