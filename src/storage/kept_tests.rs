use std::io::ErrorKind;

use super::super::faulty::{Fault, FaultyFileSystem};
use super::super::storage_tests::{open, reopen};

#[test]
fn what_is_kept_is_whole_whatever_fails_and_wherever_the_power_does() {
    for fault in [Fault::Crash, Fault::Error(ErrorKind::StorageFull)] {
        let mut seen = Vec::new();
        for after in 0..8 {
            let fs = FaultyFileSystem::new(1);
            let (storage, _) = open(&fs).unwrap();
            storage.keep_unsent(&[1; 5_000]).unwrap();
            fs.fail_after(after, fault);
            let kept = storage.keep_unsent(&[2; 9_000]);
            drop(storage);
            fs.restart(true);
            let (storage, _) = reopen(&fs).unwrap();
            let found = storage.unsent(10_000).unwrap().unwrap();
            assert!(found == [1; 5_000] || found == [2; 9_000], "{fault:?} after {after}");
            assert!(
                kept.is_err() || found == [2; 9_000],
                "{fault:?} after {after}: it said that it was durable"
            );
            seen.push(kept.is_ok());
        }
        assert!(!seen[0] && seen[7], "{fault:?}: {seen:?}");
    }
}

#[test]
fn what_is_forgotten_is_gone_and_what_is_set_aside_is_kept() {
    let fs = FaultyFileSystem::new(1);
    let (storage, _) = open(&fs).unwrap();
    assert_eq!(storage.unsent(9).unwrap(), None);
    for number in 1..3 {
        storage.keep_unsent(&[number]).unwrap();
        assert_eq!(storage.set_unsent_aside().unwrap(), format!("unsent.batches.aside-{number}"));
        assert_eq!(storage.unsent(9).unwrap(), None);
    }
    storage.keep_unsent(&[3; 10]).unwrap();
    assert!(storage.unsent(9).is_err(), "larger than may be");
    storage.forget_unsent().unwrap();
    drop(storage);
    fs.restart(true);
    let (storage, _) = reopen(&fs).unwrap();
    assert_eq!(storage.unsent(9).unwrap(), None);
    storage.forget_unsent().unwrap();
}
