//! The guarantees of the storage, one test each.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tally_core::id::{LogIndex, NodeId, Subterm, Term};
use tally_core::raft::{HardState, Position};

use super::faulty::FaultyFileSystem;
use super::{
    BLOCK_BYTES, Entry, OpenError, Options, Owner, ReadError, RealFileSystem, Recovered, Storage, WriteError,
    WriteGroup,
};

pub(super) const OWNER: Owner = Owner { site_id: 0xABCD, node: 2 };
pub(super) const BLOCK: u64 = BLOCK_BYTES as u64;

pub(super) fn dir() -> &'static Path {
    Path::new("/data")
}

pub(super) fn segment(number: u64) -> PathBuf {
    dir().join(format!("log/{number:012}.log"))
}

/// A segment that another follows.
fn full(number: u64) -> PathBuf {
    dir().join(format!("log/{number:012}.full"))
}

/// Segments of seven groups of one block.
pub(super) fn small() -> Options {
    Options {
        segment_bytes: 8 * BLOCK,
        keep_entries: 0,
        keep_bytes: 0,
        spare_segments: 2,
        ..Options::default()
    }
}

pub(super) fn open(fs: &FaultyFileSystem) -> Result<(Storage<FaultyFileSystem>, Recovered), OpenError> {
    Storage::open(fs.clone(), dir(), OWNER, small())
}

pub(super) fn reopen(fs: &FaultyFileSystem) -> Result<(Storage<FaultyFileSystem>, Recovered), OpenError> {
    fs.restart(true);
    open(fs)
}

pub(super) fn at(index: u64, term: u64) -> Position {
    Position { index: LogIndex(index), term: Term(term), subterm: Subterm(0) }
}

fn entry(index: u64, term: u64) -> Entry {
    Entry { position: at(index, term), payload: Bytes::from(format!("{index} in {term}")) }
}

pub(super) fn append(first: u64, last: u64, term: u64) -> WriteGroup {
    WriteGroup { entries: (first..=last).map(|index| entry(index, term)).collect(), ..WriteGroup::default() }
}

/// Entries 1..=count, a group each.
pub(super) fn fill(storage: &mut Storage<FaultyFileSystem>, first: u64, last: u64) {
    for index in first..=last {
        storage.write(&append(index, index, 1)).unwrap();
    }
}

#[test]
fn a_group_comes_back_whole() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, found) = open(&fs).unwrap();
    assert_eq!((found.boot, found.last, found.snapshot), (1, Position::ZERO, None));
    let hard_state = HardState { term: Term(4), vote: Some(NodeId(3)) };
    let mut group = append(1, 5, 2);
    group.hard_state = Some(hard_state);
    group
        .entries
        .push(Entry { position: Position { subterm: Subterm(9), ..at(6, 4) }, payload: Bytes::new() });
    storage.write(&group).unwrap();
    let (_, found) = reopen(&fs).unwrap();
    assert_eq!(found.entries, group.entries);
    assert_eq!(found.hard_state, hard_state);
    assert_eq!(found.last, group.entries[5].position);
    assert_eq!(found.boot, 2);
}

#[test]
fn a_group_is_one_sync_and_as_few_blocks_as_hold_it() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, _) = open(&fs).unwrap();
    storage.write(&append(1, 1, 1)).unwrap(); // writes all of the small segment's blocks once
    let before = storage.stats();
    let payload = Bytes::from_static(&[7; 20]);
    let entries = (2..182).map(|index| Entry { position: at(index, 1), payload: payload.clone() }).collect();
    storage.write(&WriteGroup { entries, ..WriteGroup::default() }).unwrap();
    let after = storage.stats();
    assert_eq!(after.bytes_written - before.bytes_written, BLOCK, "180 entries of 20 bytes fit one block");
    assert_eq!(after.syncs - before.syncs, 1);
}

#[test]
fn what_changes_nothing_writes_nothing_and_a_start_writes_one_block() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, _) = open(&fs).unwrap();
    let hard_state = Some(HardState { term: Term(1), vote: None });
    storage.write(&WriteGroup { hard_state, ..WriteGroup::default() }).unwrap();
    let before = storage.stats();
    storage.write(&WriteGroup { hard_state, ..WriteGroup::default() }).unwrap();
    storage.write(&WriteGroup { truncate_after: Some(LogIndex(9)), ..WriteGroup::default() }).unwrap();
    assert_eq!(storage.stats(), before);
    let (storage, _) = reopen(&fs).unwrap();
    assert_eq!((storage.stats().bytes_written, storage.stats().syncs), (BLOCK, 1));
}

#[test]
fn a_gap_a_term_going_back_and_a_cut_into_the_snapshot_are_refused() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, _) = open(&fs).unwrap();
    storage.write(&append(1, 4, 3)).unwrap();
    storage.save_snapshot(at(3, 3), "s".into()).unwrap();
    let cut = WriteGroup { truncate_after: Some(LogIndex(2)), ..WriteGroup::default() };
    for group in [append(6, 6, 3), append(4, 4, 3), append(5, 5, 2), cut] {
        assert!(matches!(storage.write(&group), Err(WriteError::Invalid(_))), "{group:?}");
    }
    for position in [at(5, 3), at(4, 2), at(2, 3)] {
        assert!(
            matches!(storage.save_snapshot(position, "t".into()), Err(WriteError::Invalid(_))),
            "{position:?}"
        );
    }
    storage.write(&append(5, 5, 3)).unwrap();
}

#[test]
fn a_truncation_is_a_fact_of_a_later_group() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, _) = open(&fs).unwrap();
    storage.write(&append(1, 6, 1)).unwrap();
    let before = fs.contents(&segment(1))[..2 * BLOCK_BYTES].to_vec();
    let group = WriteGroup { truncate_after: Some(LogIndex(3)), ..append(4, 5, 2) };
    storage.write(&group).unwrap();
    assert!(fs.contents(&segment(1)).starts_with(&before), "nothing acknowledged was written over");
    let expected = [append(1, 3, 1).entries, append(4, 5, 2).entries].concat();
    assert_eq!(storage.read(LogIndex(1), LogIndex(99), usize::MAX).unwrap(), expected);
    let (_, found) = reopen(&fs).unwrap();
    assert_eq!(found.entries, expected);
    assert_eq!(found.last, at(5, 2));
}

#[test]
fn reading_keeps_to_the_bytes_and_to_what_is_there() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, _) = open(&fs).unwrap();
    fill(&mut storage, 1, 20);
    let one = entry(9, 1).payload.len();
    let indices =
        |entries: Vec<Entry>| entries.iter().map(|entry| entry.position.index.0).collect::<Vec<_>>();
    let mut read = |first, last, bytes| storage.read(LogIndex(first), LogIndex(last), bytes).map(indices);
    assert_eq!(read(1, 9, 3 * one).unwrap(), [1, 2, 3]);
    assert_eq!(read(4, 6, usize::MAX).unwrap(), [4, 5, 6]);
    assert_eq!(read(4, 6, 0).unwrap(), [4], "at least one");
    assert!(matches!(read(21, 30, 1), Err(ReadError::Missing { last: LogIndex(20), .. })));
    assert!(matches!(read(0, 3, 1), Err(ReadError::Compacted { first: LogIndex(1), .. })));
    storage.save_snapshot(at(20, 1), "s".into()).unwrap();
    let first = storage.first_index();
    assert!(first > LogIndex(1));
    assert!(matches!(
        storage.read(LogIndex(1), LogIndex(3), 1),
        Err(ReadError::Compacted { first: there, .. }) if there == first
    ));
}

#[test]
fn an_unfinished_write_is_cut_and_written_over() {
    for torn in 0..5 {
        let fs = FaultyFileSystem::new(1);
        let (mut storage, _) = open(&fs).unwrap();
        fill(&mut storage, 1, 2);
        let big = Entry { payload: Bytes::from(vec![5; 4 * BLOCK_BYTES]), ..entry(3, 1) };
        storage.write(&WriteGroup { entries: vec![big], ..WriteGroup::default() }).unwrap();
        // One block of the last group of five is lost.
        let start = (3 + torn) * BLOCK_BYTES;
        fs.damage(&segment(1), |bytes| bytes[start..start + BLOCK_BYTES].fill(0));
        let (mut storage, found) = reopen(&fs).unwrap();
        assert_eq!(found.last, at(2, 1));
        storage.write(&append(3, 3, 2)).unwrap();
        let (_, found) = reopen(&fs).unwrap();
        assert_eq!(found.entries[2], entry(3, 2));
    }
}

#[test]
fn damage_before_a_whole_group_is_refused_and_nothing_is_changed() {
    for broken in [1, 100, 4000] {
        let fs = FaultyFileSystem::new(1);
        let (mut storage, _) = open(&fs).unwrap();
        let big = Bytes::from(vec![1; 4000]);
        for index in 1..=4 {
            let entries = vec![Entry { payload: big.clone(), ..entry(index, 1) }];
            storage.write(&WriteGroup { entries, ..WriteGroup::default() }).unwrap();
        }
        fs.damage(&segment(1), |bytes| bytes[2 * BLOCK_BYTES + broken] ^= 4);
        let before = fs.contents(&segment(1));
        let error = reopen(&fs).map(|_| ()).unwrap_err();
        let OpenError::Damaged { file, offset, .. } = &error else { panic!("{error}") };
        assert_eq!((file, *offset), (&segment(1), 2 * BLOCK));
        let text = error.to_string();
        assert!(text.contains("intact up to entry 1, and went to entry 2 or further"), "{text}");
        assert!(text.contains("move this data directory away"), "{text}");
        assert_eq!(fs.contents(&segment(1)), before);
    }
}

#[test]
fn damage_at_the_end_of_a_segment_that_another_follows_is_refused() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, _) = open(&fs).unwrap();
    fill(&mut storage, 1, 9);
    use super::FileSystem as _;
    fs.sync_dir(&dir().join("log")).unwrap(); // or the power loss takes the new name away
    fs.damage(&full(1), |bytes| bytes[7 * BLOCK_BYTES + 38] ^= 1);
    let error = reopen(&fs).map(|_| ()).unwrap_err();
    let OpenError::Damaged { file, offset, certain, .. } = &error else { panic!("{error}") };
    assert_eq!((file, *offset), (&full(1), 7 * BLOCK));
    assert!(certain.contains("entries 7 to 7 or later"), "{certain}");
}

#[test]
fn a_segment_that_is_missing_or_under_a_wrong_name_is_refused() {
    use super::FileSystem as _;
    for (from, to) in [(full(1), segment(9)), (full(2), segment(9)), (segment(3), segment(2))] {
        let fs = FaultyFileSystem::new(1);
        let (mut storage, _) = open(&fs).unwrap();
        fill(&mut storage, 1, 18);
        fs.rename(&from, &to).unwrap();
        fs.sync_dir(&dir().join("log")).unwrap();
        let error = reopen(&fs).map(|_| ()).unwrap_err();
        assert!(
            matches!(error, OpenError::Damaged { .. }),
            "{} as {}: {error}",
            from.display(),
            to.display()
        );
    }
    for (gone, says) in [
        (full(1), "the log begins with entry 8, but the snapshot ends with entry 0"),
        (full(2), "the log begins with entry 15"),
        (segment(3), "the newest segment of the log is missing; the log is intact up to entry 14"),
    ] {
        let fs = FaultyFileSystem::new(1);
        let (mut storage, _) = open(&fs).unwrap();
        fill(&mut storage, 1, 18);
        fs.remove(&gone).unwrap();
        fs.sync_dir(&dir().join("log")).unwrap();
        let error = reopen(&fs).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn stale_groups_of_a_reused_segment_stay_dead() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, _) = open(&fs).unwrap();
    fill(&mut storage, 1, 21);
    storage.save_snapshot(at(21, 1), "s".into()).unwrap();
    let bytes = storage.stats().log_bytes;
    fill(&mut storage, 22, 30); // into segments that hold whole groups of an earlier incarnation
    assert_eq!(storage.stats().log_bytes, bytes, "files were used again");
    let last = segment(5);
    assert!(fs.contents(&last).chunks(BLOCK_BYTES).filter(|block| block.starts_with(b"TLYG")).count() > 5);
    let (_, found) = reopen(&fs).unwrap();
    assert_eq!(found.last, at(30, 1));
    assert_eq!(found.entries, append(22, 30, 1).entries);
}

#[test]
fn the_vote_and_the_boot_number_survive_the_segments_that_they_were_written_in() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, _) = open(&fs).unwrap();
    let hard_state = HardState { term: Term(1), vote: Some(NodeId(9)) };
    storage.write(&WriteGroup { hard_state: Some(hard_state), ..WriteGroup::default() }).unwrap();
    drop(storage);
    let (mut storage, _) = reopen(&fs).unwrap();
    for index in 1..100 {
        fill(&mut storage, index, index);
        storage.save_snapshot(at(index, 1), "s".into()).unwrap();
    }
    assert!(storage.stats().log_bytes <= 4 * 8 * BLOCK, "{:?}", storage.stats());
    let (_, found) = reopen(&fs).unwrap();
    assert_eq!((found.hard_state, found.boot), (hard_state, 3));
    assert_eq!((found.last, found.entries.len()), (at(99, 1), 0));
}

#[test]
fn what_the_snapshot_does_not_cover_is_kept_whatever_the_bounds() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, _) = open(&fs).unwrap();
    fill(&mut storage, 1, 40);
    storage.save_snapshot(at(9, 1), "s".into()).unwrap();
    assert_eq!(storage.first_index(), LogIndex(8), "the segment of entry 9 begins with entry 8");
    assert_eq!(reopen(&fs).unwrap().1.entries, append(10, 40, 1).entries);
}

#[test]
fn entries_behind_a_snapshot_are_kept_for_followers_within_bounds() {
    let fs = FaultyFileSystem::new(1);
    let options = Options { keep_entries: 1000, keep_bytes: 24 * BLOCK, ..small() };
    let (mut storage, _) = Storage::open(fs.clone(), dir(), OWNER, options.clone()).unwrap();
    fill(&mut storage, 1, 14);
    storage.save_snapshot(at(14, 1), "s".into()).unwrap();
    assert_eq!(storage.first_index(), LogIndex(1), "two segments: within the bytes");
    fill(&mut storage, 15, 35);
    storage.save_snapshot(at(35, 1), "s".into()).unwrap();
    let first = storage.first_index();
    assert!(first > LogIndex(14) && first < LogIndex(35), "{first}");
    drop(storage);
    fs.restart(true);
    let (mut storage, found) = Storage::open(fs, dir(), OWNER, options).unwrap();
    assert_eq!(storage.first_index(), first);
    assert!(found.entries.is_empty(), "only what is after the snapshot");
    assert_eq!(storage.read(first, LogIndex(35), usize::MAX).unwrap(), append(first.0, 35, 1).entries);
}

#[test]
fn an_installed_snapshot_replaces_the_log() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, _) = open(&fs).unwrap();
    fill(&mut storage, 1, 20);
    let hard_state = HardState { term: Term(7), vote: None };
    storage.install_snapshot(at(12, 6), "from the leader".into(), hard_state).unwrap();
    assert_eq!((storage.first_index(), storage.last()), (LogIndex(13), at(12, 6)));
    assert!(matches!(storage.write(&append(21, 21, 7)), Err(WriteError::Invalid(_))));
    storage.write(&append(13, 14, 7)).unwrap();
    let (storage, found) = reopen(&fs).unwrap();
    assert_eq!(found.snapshot, Some((at(12, 6), b"from the leader".to_vec())));
    assert_eq!((found.entries, found.hard_state), (append(13, 14, 7).entries, hard_state));
    assert_eq!(storage.load_snapshot().unwrap().unwrap().1, b"from the leader");
}

#[test]
fn a_damaged_snapshot_is_done_without_only_if_the_log_goes_back_far_enough() {
    for (keep, usable) in [(1000, true), (0, false)] {
        let fs = FaultyFileSystem::new(1);
        let options = Options { keep_entries: keep, keep_bytes: 1 << 30, ..small() };
        let (mut storage, _) = Storage::open(fs.clone(), dir(), OWNER, options.clone()).unwrap();
        fill(&mut storage, 1, 10);
        storage.save_snapshot(at(10, 1), "all of it".into()).unwrap();
        drop(storage);
        let snapshot = dir().join("snapshots/10-1-0.snap");
        fs.damage(&snapshot, |bytes| *bytes.last_mut().unwrap() ^= 1);
        let opened = Storage::open(fs, dir(), OWNER, options).map(|(_, found)| found);
        if usable {
            let found = opened.unwrap();
            assert_eq!((found.snapshot, found.entries), (None, append(1, 10, 1).entries));
        } else {
            let error = opened.unwrap_err();
            assert!(matches!(&error, OpenError::Damaged { file, .. } if *file == snapshot), "{error}");
            assert!(error.to_string().contains("its checksum is wrong"), "{error}");
        }
    }
}

#[test]
fn a_snapshot_without_its_log_is_refused() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, _) = open(&fs).unwrap();
    fill(&mut storage, 1, 2);
    storage.save_snapshot(at(2, 1), "s".into()).unwrap();
    use super::FileSystem as _;
    fs.remove(&segment(1)).unwrap();
    fs.sync_dir(&dir().join("log")).unwrap();
    let error = reopen(&fs).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("vote is lost"), "{error}");
}

#[test]
fn another_box_s_data_is_refused() {
    let fs = FaultyFileSystem::new(1);
    drop(open(&fs).unwrap());
    for owner in [Owner { node: 3, ..OWNER }, Owner { site_id: 1, ..OWNER }] {
        let error = Storage::open(fs.clone(), dir(), owner, small()).map(|_| ()).unwrap_err();
        assert!(matches!(error, OpenError::Foreign { found_node: 2, found_site: 0xABCD, .. }), "{error}");
    }
    open(&fs).unwrap();
}

#[test]
fn data_of_a_newer_version_is_refused() {
    let fs = FaultyFileSystem::new(1);
    drop(open(&fs).unwrap());
    fs.damage(&dir().join("format"), |bytes| *bytes = b"tallyd data 2\n".to_vec());
    let error = open(&fs).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 2, known: 1, .. }), "{error}");
    assert!(error.to_string().contains("a newer version of tallyd wrote"), "{error}");
    fs.damage(&dir().join("format"), |bytes| *bytes = b"photos\n".to_vec());
    assert!(matches!(open(&fs), Err(OpenError::Damaged { .. })));
}

#[test]
fn a_group_too_large_for_one_segment_gets_a_larger_one() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, _) = open(&fs).unwrap();
    let huge = Entry { payload: Bytes::from(vec![9; 100_000]), ..entry(1, 1) };
    storage.write(&WriteGroup { entries: vec![huge.clone()], ..WriteGroup::default() }).unwrap();
    fill(&mut storage, 2, 10);
    let (mut storage, found) = reopen(&fs).unwrap();
    assert_eq!((&found.entries[0], found.last), (&huge, at(10, 1)));
    assert_eq!(storage.read(LogIndex(1), LogIndex(1), 0).unwrap(), [huge]);
}

#[test]
fn the_real_file_system_locks_writes_and_finds_again() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("data");
    let open = || Storage::open(RealFileSystem, &dir, OWNER, small());
    let (mut storage, _) = open().unwrap();
    let error = open().map(|_| ()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, OpenError::Locked { pid: Some(pid), .. } if pid == std::process::id()), "{text}");
    assert!(text.contains("another tallyd") && text.contains(&*dir.to_string_lossy()), "{text}");
    for index in 1..=40 {
        storage.write(&append(index, index, 1)).unwrap();
        if index % 10 == 0 {
            storage.save_snapshot(at(index, 1), vec![1; 10_000].into()).unwrap();
        }
    }
    let metrics = storage.metrics();
    assert!(metrics.sync_us_total.load(Ordering::Relaxed) >= metrics.sync_us_max.load(Ordering::Relaxed));
    assert_eq!(storage.stats().snapshots, 4);
    storage.write(&append(41, 41, 1)).unwrap();
    drop(storage);
    let (_, found) = open().unwrap();
    assert_eq!((found.entries, found.boot), (vec![entry(41, 1)], 2));
    assert_eq!(found.snapshot, Some((at(40, 1), vec![1; 10_000])));
    let names = |folder: &str| std::fs::read_dir(dir.join(folder)).unwrap().count();
    assert_eq!(names("snapshots"), 1);
    assert!(names("log") <= 4);
}
