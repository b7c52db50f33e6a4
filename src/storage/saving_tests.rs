//! Snapshots that are saved in pieces while the log is being written.

use std::io::ErrorKind;

use tally_core::raft::HardState;

use super::WriteError;
use super::faulty::{Fault, FaultyFileSystem};
use super::storage_tests::{append, at, fill, open, reopen};

#[test]
fn the_log_is_written_between_the_pieces_of_a_snapshot() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, _) = open(&fs).unwrap();
    fill(&mut storage, 1, 3);
    let bytes = vec![9; 1_000_000];
    let mut saving = storage.begin_snapshot(at(3, 1), bytes.clone().into()).unwrap();
    let mut next = 4;
    let mut most = 0;
    loop {
        let before = storage.stats().bytes_written;
        let done = storage.step_snapshot(&mut saving).unwrap();
        most = most.max(storage.stats().bytes_written - before);
        if done {
            break;
        }
        fill(&mut storage, next, next);
        next += 1;
        let (_, found) = open(&fs.copy()).unwrap();
        assert_eq!(found.last, at(next - 1, 1), "acknowledged meanwhile");
    }
    assert!(next > 10 && most < 300_000, "{next} groups, at most {most} bytes before each");
    let (_, found) = reopen(&fs).unwrap();
    assert_eq!(found.snapshot, Some((at(3, 1), bytes)));
    assert_eq!(found.entries, append(4, next - 1, 1).entries);
}

#[test]
fn a_snapshot_that_is_overtaken_or_fails_midway_leaves_the_log_as_it_was() {
    let fs = FaultyFileSystem::new(1);
    let (mut storage, _) = open(&fs).unwrap();
    fill(&mut storage, 1, 5);
    let mut saving = storage.begin_snapshot(at(3, 1), vec![9; 600_000].into()).unwrap();
    assert!(!storage.step_snapshot(&mut saving).unwrap());
    fs.fail_after(1, Fault::Error(ErrorKind::Other)); // the sync
    assert!(storage.step_snapshot(&mut saving).is_err());
    assert!(!storage.is_poisoned());
    let mut saving = storage.begin_snapshot(at(3, 1), vec![9; 600_000].into()).unwrap();
    assert!(!storage.step_snapshot(&mut saving).unwrap());
    storage.install_snapshot(at(9, 4), "from the leader".into(), HardState::default()).unwrap();
    assert!(matches!(storage.step_snapshot(&mut saving), Err(WriteError::Invalid(_))), "it is over");
    let (_, found) = reopen(&fs).unwrap();
    assert_eq!((found.snapshot, found.last), (Some((at(9, 4), b"from the leader".to_vec())), at(9, 4)));
}
