//! One wrong byte anywhere in the data directory never leads to another state unnoticed: either everything
//! acknowledged is there, or the directory is refused, with file and offset, and left unchanged.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use proptest::prelude::*;
use tally_core::id::{LogIndex, NodeId, Term};
use tally_core::raft::{HardState, Position};

use super::faulty::FaultyFileSystem;
use super::fs::FileSystem;
use super::{Entry, OpenError, Options, Owner, Recovered, Storage, WriteGroup};

const OWNER: Owner = Owner { site_id: 7, node: 3 };
const DIR: &str = "/data";

/// A directory with all kinds of things in it, and what it says.
struct Data {
    fs: FaultyFileSystem,
    said: Recovered,
}

fn options() -> Options {
    Options {
        segment_bytes: 16 << 10,
        keep_entries: 6,
        keep_bytes: 40 << 10,
        spare_segments: 2,
        ..Options::default()
    }
}

fn open(fs: &FaultyFileSystem) -> Result<Recovered, OpenError> {
    Storage::open(fs.clone(), Path::new(DIR), OWNER, options()).map(|(_, found)| found)
}

impl Data {
    /// Some groups before a snapshot (in between a restart and a truncation), and some after it.
    fn new(before: u64, after: u64, bytes: usize, restart: bool, installed: bool) -> Data {
        let fs = FaultyFileSystem::new(5);
        let (mut storage, _) = Storage::open(fs.clone(), Path::new(DIR), OWNER, options()).unwrap();
        for index in 1..=before {
            write(&mut storage, index, 1, bytes, None);
        }
        let position = Position { index: LogIndex(before), term: Term(1), ..Position::ZERO };
        if installed {
            let hard_state = HardState { term: Term(2), vote: None };
            storage.install_snapshot(position, vec![7; 300].into(), hard_state).unwrap();
        } else {
            storage.save_snapshot(position, vec![7; 300].into()).unwrap();
        }
        for index in before + 1..=before + after {
            write(&mut storage, index, 2, bytes, None);
        }
        let last = before + after;
        if restart {
            drop(storage);
            storage = Storage::open(fs.clone(), Path::new(DIR), OWNER, options()).unwrap().0;
        }
        write(&mut storage, last.max(before + 1), 3, bytes, Some(LogIndex(last.max(before + 1) - 1)));
        drop(storage);
        let said = open(&fs.copy()).unwrap();
        Data { fs, said }
    }

    /// Opens a copy in which a byte is another.
    fn check(&self, file: &Path, at: usize, flip: u8) {
        let fs = self.fs.copy();
        fs.damage(file, |bytes| bytes[at] ^= flip);
        let before = contents(&fs);
        let context = format!("{}, byte {at}, {flip:#x}", file.display());
        match open(&fs) {
            Ok(found) => {
                let floor = found.snapshot.as_ref().map_or(0, |(position, _)| position.index.0);
                let after = |entry: &&Entry| entry.position.index.0 > floor;
                assert!(found.snapshot.is_none() || found.snapshot == self.said.snapshot, "{context}");
                assert_eq!(found.last, self.said.last, "{context}");
                assert_eq!(found.hard_state, self.said.hard_state, "{context}");
                assert_eq!(found.boot, self.said.boot, "{context}");
                if found.snapshot.is_some() {
                    assert_eq!(found.entries, self.said.entries, "{context}");
                } else {
                    // Without the snapshot the whole log.
                    let covered = self.said.snapshot.as_ref().map_or(0, |(position, _)| position.index.0);
                    assert_eq!(found.entries.len() as u64, found.last.index.0, "{context}");
                    let later = found.entries.iter().filter(|entry| entry.position.index.0 > covered);
                    assert!(later.eq(self.said.entries.iter().filter(after)), "{context}");
                }
            }
            Err(error) => {
                let text = error.to_string();
                let kind = matches!(
                    error,
                    OpenError::Damaged { .. } | OpenError::Newer { .. } | OpenError::Foreign { .. }
                );
                assert!(kind, "{context}: {text}");
                assert!(text.contains("/data"), "{context}: {text}");
                if matches!(error, OpenError::Damaged { .. }) {
                    assert!(
                        text.contains(", byte ") && text.contains("Nothing was changed"),
                        "{context}: {text}"
                    );
                }
                assert_eq!(contents(&fs), before, "{context}: {text}");
            }
        }
    }
}

fn write(
    storage: &mut Storage<FaultyFileSystem>,
    index: u64,
    term: u64,
    bytes: usize,
    cut: Option<LogIndex>,
) {
    let position = Position { index: LogIndex(index), term: Term(term), ..Position::ZERO };
    let payload = Bytes::from(vec![index.to_le_bytes()[0]; bytes]);
    let hard_state = Some(HardState { term: Term(term), vote: Some(NodeId(index % 3)) });
    let group = WriteGroup { hard_state, truncate_after: cut, entries: vec![Entry { position, payload }] };
    storage.write(&group).unwrap();
}

/// The contents of all files but the lock, which names the process that has the directory open.
fn contents(fs: &FaultyFileSystem) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs.files().into_iter().filter(|file| !file.ends_with("lock"));
    files.map(|file| (file.clone(), fs.contents(&file))).collect()
}

#[test]
fn any_byte_that_says_something() {
    let data = Data::new(6, 5, 40, true, false);
    let mut checked = 0;
    for (file, bytes) in contents(&data.fs) {
        for (at, byte) in bytes.iter().enumerate() {
            // What is not zero says something, and so do the zeros near it.
            if *byte != 0 || at % 4096 < 120 || at % 911 == 0 {
                data.check(&file, at, [1, 0x80, 0xff][at % 3]);
                checked += 1;
            }
        }
    }
    assert!(checked > 2000, "{checked}");
}

#[test]
fn a_segment_that_lost_its_end_is_refused_wherever_it_was_cut() {
    let data = Data::new(12, 9, 700, true, false);
    let segments: Vec<(PathBuf, usize)> = contents(&data.fs)
        .into_iter()
        .filter(|(path, _)| path.extension().is_some_and(|kind| kind == "log" || kind == "full"))
        .map(|(path, bytes)| (path, bytes.len()))
        .collect();
    assert!(segments.len() > 1, "{segments:?}");
    for (path, whole) in segments {
        for length in (0..whole).step_by(512).chain([whole - 1]) {
            let fs = data.fs.copy();
            fs.damage(&path, |bytes| bytes.truncate(length));
            let before = contents(&fs);
            let error = open(&fs).unwrap_err();
            assert!(matches!(error, OpenError::Damaged { .. }), "{length} of {}: {error}", path.display());
            assert!(error.to_string().contains("Nothing was changed"), "{error}");
            assert_eq!(contents(&fs), before);
        }
    }
}

#[test]
fn without_its_newest_segment_a_log_is_refused_and_left_as_it_is_whatever_else_is_wrong_with_it() {
    let data = Data::new(1, 9, 5000, true, false);
    let ends = |end: &'static str| {
        data.fs.files().into_iter().filter(move |file| file.extension().is_some_and(|found| found == end))
    };
    let (newest, before) = (ends("log").next_back().unwrap(), ends("full").next_back().unwrap());
    data.fs.remove(&newest).unwrap();
    assert!(matches!(open(&data.fs.copy()), Err(OpenError::Damaged { .. })));
    for (at, byte) in data.fs.contents(&before).iter().enumerate().filter(|(_, byte)| **byte != 0).step_by(7)
    {
        data.check(&before, at, byte | 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_byte_of_any_directory(
        before in 1u64..12,
        after in 0u64..12,
        bytes in 0usize..9000,
        restart in any::<bool>(),
        installed in any::<bool>(),
        file in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        near in prop::option::of(0usize..120),
        flip in 1u8..,
    ) {
        let data = Data::new(before, after, bytes, restart, installed);
        let files = contents(&data.fs);
        let (file, bytes) = &files[file.index(files.len())];
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            let at = near.map_or(at, |near| (at / 4096 * 4096 + near).min(bytes.len() - 1));
            data.check(file, at, flip);
        }
    }
}
