//! A disk that stands still for two seconds now and then is no failure: nobody is elected for it, and the site
//! goes on meanwhile.

use std::fs::File;
use std::time::{Duration, Instant};

use super::clients::Clients;
use super::lab::in_lab;
use super::plan::seed;
use super::site::NetSite;
use super::small_disk::SmallDisk;
use super::standstill::{ATTEMPTS, Standstill};
use crate::harness::until;

/// As the issue has it.
const STALL: Duration = Duration::from_secs(2);
/// Room for the log's segments (8 MiB each), snapshots, and the file system itself.
const MEBIBYTES: u64 = 64;
/// The leader's disk, then a follower's, and so on.
const STALLS: usize = 6;

#[test]
fn disks_that_stall_for_two_seconds_elect_nobody() {
    in_lab("net::slow_disk::disks_that_stall_for_two_seconds_elect_nobody", || {
        let seed = seed();
        let scratch = tempfile::tempdir().unwrap();
        let (mut net, disks) = NetSite::provision_on_small_disks(scratch.path(), MEBIBYTES);
        eprintln!("TALLYD_TEST_SEED={seed}; disks: {}", disks[0].kind);
        assert!(
            disks[0].can_freeze,
            "such a disk cannot be held up, so nothing can be shown: run this test as root, where loop devices are \
             to be had (in a container with the devices /dev/loop-control and /dev/loop*)"
        );
        net.site.start_all();
        let clients = Clients::start(&net.site, 4, seed);
        clients.until_more(40, "before any stall");
        for stall in 0..STALLS {
            let calm = (0..ATTEMPTS).any(|_| held_through(&net, &clients, &disks, stall % 2 == 0));
            assert!(calm, "this machine stood still again and again, so nothing can be said");
        }
        let notes = clients.finish();
        eprintln!("{STALLS} stalls of {STALL:?}, no election; the slowest add took {:.0?}", notes.slowest());
        notes.assert_linearizable(&net.site);
        net.site.assert_same_digests();
    });
}

/// Whether a disk stalled and nobody was elected; `false` if the machine spoilt it.
fn held_through(net: &NetSite, clients: &Clients, disks: &[SmallDisk], leaders: bool) -> bool {
    let leader = net.site.leader();
    let term = net.term();
    let victim = if leaders { leader } else { net.site.follower() };
    let disk = &disks[victim];
    let standstill = Standstill::watch();
    let frozen = disk.freeze();
    let begun = Instant::now();
    let (probe, waited) = std::thread::scope(|scope| {
        // The box is not the only one who waits.
        let probe = scope.spawn(|| File::create(disk.root.join("probe")).map(|_| begun.elapsed()));
        clients.until_more(20, "a disk stalls");
        let waited = begun.elapsed();
        // A group that was written before the disk stood still may still be synced after that.
        let before = until("the disk takes nothing more", || {
            let before = durable(net, victim);
            clients.until_more(20, "a disk stalls");
            (durable(net, victim).0 == before.0).then_some(before)
        });
        std::thread::sleep(STALL.saturating_sub(begun.elapsed()));
        clients.until_more(1, "the disk still stalls");
        let after = durable(net, victim);
        assert!(
            before.0 == after.0 && before.1 < after.1,
            "what the box has on disk and what is committed were {before:?} and are {after:?}"
        );
        drop(frozen);
        (probe.join().expect("it does not panic").unwrap(), waited)
    });
    assert!(probe >= STALL, "the disk stood still for {probe:?} only");
    clients.until_more(20, "after the stall");
    let elections = net.term() - term;
    eprintln!(
        "the disk of {} stood still for {probe:.1?}: 20 adds within {waited:.0?}, {elections} elections",
        if leaders { "the leader" } else { "a follower" }
    );
    assert!(elections == 0 || standstill.was_long(), "{elections} elections without a failure");
    elections == 0
}

/// Up to which index a box's log is durable, and up to which one the site's is committed, as the leader says.
fn durable(net: &NetSite, at: usize) -> (u64, u64) {
    let status = net.site.boxes[net.site.leader()].status();
    let members = status["members"].as_array().unwrap();
    let member = members.iter().find(|member| member["name"] == *net.site.boxes[at].name);
    (member.unwrap()["matched"].as_u64().unwrap(), status["commit"].as_u64().unwrap())
}
