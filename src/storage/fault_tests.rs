//! What the storage does when the disk fails, lies or is full.

use std::io::ErrorKind;

use tally_core::id::LogIndex;

use super::faulty::{Fault, FaultyFileSystem};
use super::storage_tests::{BLOCK, append, at, fill, open, reopen, segment};
use super::{BLOCK_BYTES, OpenError, WriteError};

#[test]
fn after_a_failed_sync_the_cache_is_not_believed() {
    let mut lost = 0;
    for seed in 0..40 {
        let fs = FaultyFileSystem::new(seed);
        let (mut storage, _) = open(&fs).unwrap();
        fill(&mut storage, 1, 2);
        fs.fail_after(1, Fault::Error(ErrorKind::Other)); // the sync, not the write
        assert!(matches!(storage.write(&append(3, 3, 1)), Err(WriteError::Io { .. })));
        assert!(storage.is_poisoned());
        assert!(matches!(storage.write(&append(3, 3, 1)), Err(WriteError::Poisoned)));
        assert!(matches!(storage.save_snapshot(at(2, 1), "s".into()), Err(WriteError::Poisoned)));
        assert_eq!(storage.read(LogIndex(1), LogIndex(9), 99).unwrap().len(), 2, "reading goes on");
        let found = storage.recover().unwrap();
        lost += usize::from(found.last == at(2, 1));
        let (_, again) = reopen(&fs).unwrap();
        assert_eq!(again.entries, found.entries, "what recovery gave is durable");
    }
    assert!((5..35).contains(&lost), "both outcomes occur: lost {lost} of 40");
}

#[test]
fn a_lie_of_the_disk_that_recovery_meets_is_told() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, _) = open(&fs).unwrap();
    fill(&mut storage, 1, 2);
    fs.fail_after(1, Fault::Lie); // the sync, not the write
    storage.write(&append(3, 3, 1)).unwrap();
    fs.forget(&segment(1));
    fs.fail_after(1, Fault::Error(ErrorKind::Other));
    assert!(storage.write(&append(4, 4, 1)).is_err());
    fs.damage(&segment(1), |bytes| bytes[4 * BLOCK_BYTES..].fill(0)); // nothing of it arrived
    for _ in 0..2 {
        let error = storage.recover().unwrap_err();
        let OpenError::Damaged { file, offset, certain, .. } = &error else { panic!("{error}") };
        assert_eq!((file, *offset), (&segment(1), 3 * BLOCK));
        assert!(certain.contains("acknowledged and are gone"), "{error}");
        assert!(certain.contains("intact up to entry 2"), "{error}");
        assert!(storage.is_poisoned());
    }
}

#[test]
fn a_full_disk_stops_writing_and_space_lets_it_go_on() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, _) = open(&fs).unwrap();
    fs.limit(Some(10 * BLOCK_BYTES));
    fill(&mut storage, 1, 7); // the space of the segment was reserved
    assert!(matches!(storage.write(&append(8, 8, 1)), Err(WriteError::NoSpace { .. })));
    assert!(!storage.is_poisoned(), "nothing was written, so nothing is in doubt");
    assert!(matches!(storage.recover(), Err(OpenError::NoSpace { .. })));
    assert!(matches!(storage.write(&append(8, 8, 1)), Err(WriteError::Poisoned)));
    fs.limit(None);
    let found = storage.recover().unwrap();
    assert_eq!(found.entries, append(1, 7, 1).entries);
    storage.write(&append(8, 8, 1)).unwrap();
    assert_eq!(reopen(&fs).unwrap().1.last, at(8, 1));
}

#[test]
fn a_snapshot_that_does_not_fit_leaves_the_log_as_it_was() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, _) = open(&fs).unwrap();
    fill(&mut storage, 1, 2);
    fs.limit(Some(9 * BLOCK_BYTES));
    let result = storage.save_snapshot(at(2, 1), vec![0; 3 * BLOCK_BYTES].into());
    assert!(matches!(result, Err(WriteError::NoSpace { .. })));
    assert!(!storage.is_poisoned());
    storage.write(&append(3, 3, 1)).unwrap();
    storage.save_snapshot(at(3, 1), "small".into()).unwrap();
}

#[test]
fn a_read_only_file_system_is_named_as_such() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, _) = open(&fs).unwrap();
    fs.fail_after(0, Fault::Error(ErrorKind::ReadOnlyFilesystem));
    assert!(matches!(storage.write(&append(1, 1, 1)), Err(WriteError::ReadOnly { .. })));
}
