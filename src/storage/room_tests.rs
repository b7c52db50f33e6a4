//! The bound on log, snapshots and spare files, and the handling of a full disk.

use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use tally_core::id::LogIndex;
use tally_core::raft::HardState;

use super::faulty::FaultyFileSystem;
use super::storage_tests::{append, at, fill, open};
use super::{BLOCK_BYTES, Budget, Entry, Options, Owner, ReadError, Storage, WriteError, WriteGroup};

const KIB: usize = 1 << 10;
const OWNER: Owner = Owner { site_id: 0xABCD, node: 2 };

fn dir() -> &'static Path {
    Path::new("/data")
}

fn open_with(fs: &FaultyFileSystem, options: Options) -> Storage<FaultyFileSystem> {
    Storage::open(fs.clone(), dir(), OWNER, options).unwrap().0
}

/// Segments of 32 KiB, 64 KiB kept for followers, and 512 KiB in all.
fn bounded() -> Options {
    Options {
        segment_bytes: 32 << 10,
        keep_entries: 10_000,
        keep_bytes: 64 << 10,
        spare_segments: 2,
        bytes_max: 512 << 10,
    }
}

/// As an older release kept its log: in large pieces, many of them.
fn unbounded() -> Options {
    let large = 1 << 30;
    Options {
        segment_bytes: 128 << 10,
        keep_entries: large,
        keep_bytes: large,
        bytes_max: large,
        ..bounded()
    }
}

fn group(index: u64, bytes: usize) -> WriteGroup {
    let entry = Entry { position: at(index, 1), payload: vec![7; bytes].into() };
    WriteGroup { entries: vec![entry], ..WriteGroup::default() }
}

#[test]
fn no_space_is_answered_by_freeing_what_a_snapshot_covers() {
    let fs = FaultyFileSystem::new(1);
    let mut storage = open_with(&fs, Options { keep_bytes: 1 << 30, bytes_max: 1 << 30, ..bounded() });
    for index in 1..=100 {
        storage.write(&group(index, 3000)).unwrap();
    }
    storage.save_snapshot(at(100, 1), "small".into()).unwrap();
    assert_eq!(storage.first_index(), LogIndex(1), "all is kept for followers");
    fs.fill_up(0);
    let used = fs.used();
    for index in 101..=180 {
        storage.write(&group(index, 3000)).unwrap_or_else(|error| panic!("entry {index}: {error}"));
        assert!(fs.used() <= used);
    }
    assert!(storage.first_index() > LogIndex(50), "what was kept for followers had to go");
    // A snapshot, too, gets its space from what the one before covers.
    fs.fill_up(0);
    storage.save_snapshot(at(180, 1), vec![9; 20 * KIB].into()).unwrap();
    fs.restart(true);
    let (_, found) = Storage::open(fs.clone(), dir(), OWNER, bounded()).unwrap();
    assert_eq!(found.last, at(180, 1));
    assert_eq!(found.snapshot.unwrap().0, at(180, 1));
}

#[test]
fn without_space_for_the_next_segment_nothing_is_in_doubt_and_a_snapshot_makes_room() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, _) = open(&fs).unwrap();
    fill(&mut storage, 1, 14);
    fs.fill_up(BLOCK_BYTES); // no room for a segment of eight blocks
    assert!(matches!(storage.write(&append(15, 15, 1)), Err(WriteError::NoSpace { .. })));
    assert!(!storage.is_poisoned() && storage.is_tight());
    storage.save_snapshot(at(14, 1), "small".into()).unwrap();
    storage.write(&append(15, 15, 1)).unwrap();
    fs.restart(true);
    assert_eq!(open(&fs).unwrap().1.last, at(15, 1));
}

#[test]
fn before_the_partition_is_full_a_snapshot_is_asked_for() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, _) = open(&fs).unwrap();
    fill(&mut storage, 1, 7);
    fs.fill_up(20 * BLOCK_BYTES);
    assert!(!storage.is_tight());
    fill(&mut storage, 8, 14);
    assert!(storage.is_tight(), "room for one segment and half of another");
    storage.save_snapshot(at(14, 1), "small".into()).unwrap();
    assert!(!storage.is_tight(), "there is a spare one now");
}

#[test]
fn a_full_partition_that_an_older_release_left_is_no_reason_not_to_start() {
    // 31 groups fill a segment: after 186 the next write needs a new one.
    for (count, covered, unfinished) in
        [(186, 40, 0), (186, 186, 0), (186, 150, 100 * KIB), (200, 150, 0), (200, 200, 1)]
    {
        let fs = FaultyFileSystem::new(1);
        let mut storage = open_with(&fs, unbounded());
        for index in 1..=count {
            storage.write(&group(index, 3000)).unwrap();
            if index == covered {
                storage.save_snapshot(at(covered, 1), "small".into()).unwrap();
            }
        }
        if unfinished > 0 {
            drop(storage.begin_snapshot(at(count, 1), vec![1; unfinished].into()));
        }
        fs.fill_up(0);
        fs.restart(false);
        let before = fs.used();
        let (mut storage, found) = Storage::open(fs.clone(), dir(), OWNER, bounded()).unwrap();
        assert_eq!((found.last, found.entries.len() as u64), (at(count, 1), count - covered));
        assert!(fs.used() + unfinished <= before, "what was not finished is gone");
        if covered > 100 {
            assert!(storage.stats().bytes_used <= 512 << 10, "{} bytes", storage.stats().bytes_used);
        }
        for index in count + 1..=count + 100 {
            storage.write(&group(index, 3000)).unwrap();
            if (index - count).is_multiple_of(20) {
                storage.save_snapshot(at(index, 1), "small".into()).unwrap();
            }
        }
        assert!(storage.stats().bytes_used <= 512 << 10, "{} bytes", storage.stats().bytes_used);
    }
}

#[test]
fn stale_files_go_and_what_is_said_to_be_used_is_what_is_there() {
    let fs = FaultyFileSystem::new(1);
    let mut storage = open_with(&fs, bounded());
    for index in 1..=40 {
        storage.write(&group(index, 3000)).unwrap();
    }
    storage.save_snapshot(at(20, 1), vec![1; 5000].into()).unwrap();
    drop(storage.begin_snapshot(at(40, 1), vec![1; 50_000].into()).unwrap());
    fs.restart(false);
    let storage = open_with(&fs, bounded());
    let counted: usize = fs
        .files()
        .iter()
        .filter(|file| file.starts_with("/data/log") || file.starts_with("/data/snapshots"))
        .map(|file| fs.contents(file).len())
        .sum();
    assert_eq!(storage.stats().bytes_used, counted as u64);
    assert!(!fs.files().iter().any(|file| file.ends_with("new.tmp")));
}

#[test]
fn what_was_kept_for_followers_is_told_to_be_gone() {
    let fs = FaultyFileSystem::new(1);
    let mut storage = open_with(&fs, Options { keep_bytes: 400 << 10, ..bounded() });
    for index in 1..=80 {
        storage.write(&group(index, 3000)).unwrap();
    }
    storage.save_snapshot(at(80, 1), "small".into()).unwrap();
    assert_eq!(storage.first_index(), LogIndex(1));
    for index in 81..=150 {
        storage.write(&group(index, 3000)).unwrap();
        assert!(storage.stats().bytes_used <= 512 << 10);
    }
    assert!(storage.first_index() > LogIndex(1));
    assert!(matches!(storage.read(LogIndex(1), LogIndex(2), 1), Err(ReadError::Compacted { .. })));
    // A follower that is installed anew stays within it, too.
    storage.install_snapshot(at(900, 2), vec![3; 100 * KIB].into(), HardState::default()).unwrap();
    assert!(storage.stats().bytes_used <= 512 << 10);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// As the node does it: a snapshot when the log has a share of the bound, written while the log goes on.
    #[test]
    fn log_snapshots_and_spare_files_stay_within_the_bound(
        seed in 0u64..1000,
        steps in prop::collection::vec((1usize..9000, 0usize..150), 300..600),
        restarts in 0usize..4,
    ) {
        let fs = FaultyFileSystem::new(seed);
        let mut storage = open_with(&fs, bounded());
        let (mut index, mut last_bytes, mut saving) = (0, 0, None);
        for (step, (payload, state)) in steps.iter().enumerate() {
            if restarts > 0 && step % (steps.len() / restarts).max(1) == 7 {
                saving = None;
                drop(storage);
                fs.restart(true);
                storage = open_with(&fs, bounded());
            }
            index += 1;
            storage.write(&group(index, *payload)).unwrap();
            let stats = storage.stats();
            prop_assert!(stats.bytes_used <= 512 << 10, "step {step}: {stats:?}");
            let there: usize = fs.files().iter().map(|file| fs.contents(file).len()).sum();
            prop_assert!(there <= 513 << 10, "step {step}: {there} bytes");
            saving = match saving {
                Some(mut saving) => (!storage.step_snapshot(&mut saving).unwrap()).then_some(saving),
                None if stats.replay_bytes >= (512 * 1024 - 2 * last_bytes - (128 << 10)) / 2 => {
                    last_bytes = (*state as u64) << 10;
                    let bytes = Bytes::from(vec![1; *state << 10]);
                    Some(storage.begin_snapshot(at(index, 1), bytes).unwrap())
                }
                None => None,
            };
        }
        drop(storage);
        fs.restart(true);
        let (_, found) = Storage::open(fs.clone(), dir(), OWNER, bounded()).unwrap();
        prop_assert_eq!(found.last, at(index, 1));
    }
}

#[test]
fn in_steady_running_all_segments_are_used_again_whatever_the_bound() {
    for bound in [8, 16, 64] {
        let budget = Budget::new(bound << 20);
        let fs = FaultyFileSystem::new(1);
        let mut storage = open_with(&fs, budget.options());
        let each = budget.snapshot_log_bytes() / BLOCK_BYTES as u64;
        let mut written = 0;
        for round in 0..8 {
            let before = storage.stats().bytes_written;
            for index in round * each + 1..=(round + 1) * each {
                storage.write(&group(index, 100)).unwrap();
            }
            written = storage.stats().bytes_written - before;
            storage.save_snapshot(at((round + 1) * each, 1), "small".into()).unwrap();
        }
        let headers = written - each * BLOCK_BYTES as u64;
        assert!(
            headers <= 5 * BLOCK_BYTES as u64,
            "{bound} MiB: no zeros, {headers} bytes beside the groups"
        );
    }
}

#[test]
fn zeros_follow_a_small_group_in_a_new_file_and_no_large_one() {
    let fs = FaultyFileSystem::new(1);
    let mut storage = open_with(&fs, Options::default());
    let mut written = |index, bytes| {
        let before = storage.stats().bytes_written;
        storage.write(&group(index, bytes)).unwrap();
        storage.stats().bytes_written - before
    };
    assert_eq!(written(1, 20 * KIB), 24 << 10, "zeros would cost more than they save");
    assert_eq!(written(2, 100), (128 - 28) << 10);
    assert_eq!(written(3, 100), 4 << 10);
}
