//! How often boxes write to their disks.

use crate::boxes::{Site, TestBox};

const ROUNDS: u64 = 8;

/// How often a box has synced its disk.
fn syncs(one: &TestBox) -> u64 {
    one.status()["storage"]["syncs"].as_u64().unwrap()
}

#[test]
fn what_three_boxes_count_in_the_same_second_is_one_write_at_each() {
    let site = Site::start_with(3, "60s", "");
    let count = |round: i64| {
        site.boxes.iter().for_each(|one| one.statsd("wear:1|c"));
        site.boxes.iter().for_each(|one| one.until_total("wear", 3 * round));
    };
    // The first counts open what is new.
    count(1);
    let before: Vec<u64> = site.boxes.iter().map(syncs).collect();
    (2..2 + ROUNDS as i64).for_each(count);
    for (one, before) in site.boxes.iter().zip(before) {
        let more = syncs(one) - before;
        // Windows are closed, and a busy machine may keep a box from a common write now and then.
        assert!(more <= ROUNDS + ROUNDS / 2, "{}: {more} writes for {ROUNDS} seconds", one.name);
    }
}
