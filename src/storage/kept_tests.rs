use std::io::ErrorKind;

use super::super::faulty::{Fault, FaultyFileSystem};
use super::super::storage_tests::{at, fill, open, reopen};

#[test]
fn what_is_kept_is_whole_whatever_fails_and_wherever_the_power_does() {
    for fault in [Fault::Crash, Fault::Error(ErrorKind::StorageFull)] {
        let mut seen = Vec::new();
        for after in 0..8 {
            let fs = FaultyFileSystem::new(1);
            let (mut storage, _) = open(&fs).unwrap();
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
    let (mut storage, _) = open(&fs).unwrap();
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

#[test]
fn spare_files_give_way_on_a_full_disk() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, _) = open(&fs).unwrap();
    fill(&mut storage, 1, 400);
    storage.save_snapshot(at(400, 1), vec![9; 100].into()).unwrap();
    let is_spare = |path: &std::path::PathBuf| path.extension().is_some_and(|kind| kind == "spare");
    let spares = fs.files().iter().filter(|path| is_spare(path)).count();
    assert!(spares > 0, "{:?}", fs.files());
    fs.fill_up(100);
    storage.keep_unsent(&[2; 3_000]).unwrap();
    drop(storage);
    fs.restart(true);
    fs.limit(None);
    assert_eq!(reopen(&fs).unwrap().0.unsent(9_000).unwrap().unwrap(), [2; 3_000]);
}
