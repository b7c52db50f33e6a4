//! A data directory of any bytes: it is recovered or refused, never both in part.
//!
//! The input's first byte says how the files are taken: as they are, or with checksums that fit, so that a fuzzer gets
//! behind these. Then come files: what kind, a number, how many parts; each part of a segment begins a block.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tally_core::id::{LogIndex, NodeId, Subterm, Term};
use tally_core::raft::{HardState, Position};
use tallyd::storage::{BLOCK_BYTES, Entry, OpenError, Options, Owner, Recovered, Storage, WriteGroup};

use crate::input::{Input, put_part};
use crate::memory::Memory;

const DIR: &str = "/data";
const OWNER: Owner = Owner { site_id: 0x9f3c_51d2_a07b_e644, node: 1 };
const FILES_MAX: usize = 8;
/// In a segment's first block: where its salt stands.
const SALT: std::ops::Range<usize> = 40..48;

const SEALED: u8 = 1;
const FOUNDED: u8 = 2;

fn options() -> Options {
    Options {
        segment_bytes: 4 * BLOCK_BYTES as u64,
        keep_entries: 2,
        keep_bytes: 1 << 20,
        spare_segments: 1,
        ..Options::default()
    }
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let fs = directory(&mut input);
    let before = fs.files();
    match open(&fs) {
        Ok((storage, recovered)) => go_on(&fs, storage, &recovered),
        Err(error) => {
            let text = error.to_string();
            let changed = changed_bytes(&before, &fs.files());
            if matches!(
                error,
                OpenError::Damaged { .. } | OpenError::Foreign { .. } | OpenError::Newer { .. }
            ) {
                // One wrong byte may have been put right, for certain, before more was found.
                assert!(changed <= 1 || before.is_empty(), "{changed} bytes were changed, and then: {text}");
            }
            let again = open(&fs).err().map(|error| error.to_string());
            assert!(
                again.as_ref() == Some(&text) || (changed > 0 && again.is_some()),
                "the same directory is not refused in the same way again: {text}\n{again:?}"
            );
        }
    }
}

fn open(fs: &Memory) -> Result<(Storage<Memory>, Recovered), OpenError> {
    Storage::open(fs.clone(), Path::new(DIR), OWNER, options())
}

fn changed_bytes(before: &BTreeMap<PathBuf, Vec<u8>>, after: &BTreeMap<PathBuf, Vec<u8>>) -> usize {
    if !before.keys().eq(after.keys()) {
        return usize::MAX;
    }
    let pairs = before.values().zip(after.values());
    pairs
        .map(|(before, after)| {
            let differ = before.iter().zip(after).filter(|(before, after)| before != after).count();
            differ + before.len().abs_diff(after.len())
        })
        .sum()
}

/// What was recovered is whole, can be written on, and is there again.
fn go_on(fs: &Memory, mut storage: Storage<Memory>, recovered: &Recovered) {
    let base = recovered.snapshot.as_ref().map_or(Position::ZERO, |(position, _)| *position);
    let mut last = base;
    for entry in &recovered.entries {
        assert_eq!(entry.position.index, last.index.next(), "a gap in what was recovered");
        last = entry.position;
    }
    // Terms are the core's to judge: it does not start on a log that contradicts itself.
    assert_eq!(recovered.last.index, last.index);
    if last.index > base.index {
        let read = storage.read(base.index.next(), last.index, usize::MAX).expect("it was just read");
        assert_eq!(read, recovered.entries);
    }
    // No honest log gets there; the core refuses it.
    if last.index.0 >= 1 << 62 || recovered.boot == u64::MAX {
        return;
    }
    let position = Position { index: last.index.next(), ..recovered.last };
    let entry = Entry { position, payload: Bytes::from_static(b"one more") };
    let hard_state = HardState { term: recovered.hard_state.term, vote: Some(NodeId(2)) };
    let group =
        WriteGroup { hard_state: Some(hard_state), truncate_after: None, entries: vec![entry.clone()] };
    storage.write(&group).expect("nothing is in the way");
    drop(storage);
    let (_, again) = open(fs).expect("what it wrote it reads");
    let mut entries = recovered.entries.clone();
    entries.push(entry);
    assert_eq!(again.entries, entries);
    assert_eq!(again.snapshot, recovered.snapshot);
    assert_eq!((again.hard_state, again.boot), (hard_state, recovered.boot + 1));
}

fn directory(input: &mut Input<'_>) -> Memory {
    let fs = Memory::default();
    let flags = input.byte();
    let sealed = flags & SEALED != 0;
    if flags & FOUNDED != 0 {
        fs.put(&Path::new(DIR).join("format"), b"tallyd data 1\n".to_vec());
        for dir in ["log", "snapshots"] {
            use tallyd::storage::FileSystem;
            fs.create_dir_all(&Path::new(DIR).join(dir)).expect("in memory");
        }
    }
    for _ in 0..FILES_MAX {
        if input.is_empty() {
            break;
        }
        let kind = input.byte() % 6;
        let log =
            |ending: &str, number: u8| Path::new(DIR).join("log").join(format!("{number:012}.{ending}"));
        match kind {
            0 => put_segment(&fs, &log("log", input.byte()), input, sealed),
            1 => put_segment(&fs, &log("full", input.byte()), input, sealed),
            2 => put_segment(&fs, &log("spare", input.byte()), input, sealed),
            3 | 4 => {
                let (index, term, subterm) = (input.byte(), input.byte(), input.byte());
                let name = format!("{index}-{term}-{subterm}.snap");
                let mut bytes = input.part().to_vec();
                bytes.extend_from_slice(input.part());
                if sealed {
                    seal_snapshot(&mut bytes);
                }
                fs.put(&Path::new(DIR).join("snapshots").join(name), bytes);
            }
            _ => {
                let names = ["format", "format.tmp", "log/new.tmp", "snapshots/new.tmp", "log/x", "lock"];
                let name = names[usize::from(input.byte()) % names.len()];
                fs.put(&Path::new(DIR).join(name), input.part().to_vec());
            }
        }
    }
    fs
}

fn put_segment(fs: &Memory, path: &Path, input: &mut Input<'_>, sealed: bool) {
    let mut bytes = Vec::new();
    for _ in 0..input.byte() % 8 {
        let start = bytes.len();
        bytes.extend_from_slice(input.part());
        let length = bytes.len() - start;
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        if !sealed {
            continue;
        }
        if start == 0 {
            seal_header(&mut bytes);
        } else if let Some(salt) = bytes.get(SALT).and_then(|salt| salt.try_into().ok()) {
            seal_group(&mut bytes[start..], length, u64::from_le_bytes(salt));
        }
    }
    fs.put(path, bytes);
}

fn seal_header(block: &mut [u8]) {
    if block.len() >= BLOCK_BYTES {
        let crc = crc32c::crc32c(&block[12..BLOCK_BYTES]);
        block[8..12].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Length, second check and checksum of a group: see `storage/group.rs`.
fn seal_group(group: &mut [u8], length: usize, salt: u64) {
    if length <= 40 {
        return;
    }
    group[8..12].copy_from_slice(&u32::try_from(length).expect("a small one").to_le_bytes());
    let mut hash = salt ^ 0xCBF2_9CE4_8422_2325;
    for word in group[8..32].chunks(8).chain(group[40..length].chunks(8)) {
        let mut bytes = [0; 8];
        bytes[..word.len()].copy_from_slice(word);
        hash = (hash ^ u64::from_le_bytes(bytes)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        hash ^= hash >> 29;
    }
    group[32..40].copy_from_slice(&hash.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &group[8..length]);
    group[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn seal_snapshot(bytes: &mut [u8]) {
    const HEADER: usize = 72;
    if bytes.len() < HEADER {
        return;
    }
    let (head, body) = bytes.split_at_mut(HEADER);
    head[56..64].copy_from_slice(&(body.len() as u64).to_le_bytes());
    head[68..72].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    let crc = crc32c::crc32c(&head[12..]);
    head[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// What is in a directory, as the input that makes it.
fn as_input(fs: &Memory) -> Vec<u8> {
    let mut out = vec![FOUNDED];
    for (path, bytes) in fs.files() {
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        let kind = match path.extension().and_then(|ending| ending.to_str()) {
            Some("log") => 0,
            Some("full") => 1,
            Some("spare") => 2,
            Some("snap") => 3,
            _ => continue,
        };
        out.push(kind);
        if kind == 3 {
            out.extend(name.split('-').map(|number| number.parse::<u8>().expect("small numbers")));
            put_part(&mut out, &bytes);
            put_part(&mut out, b"");
            continue;
        }
        out.push(name.parse::<u8>().expect("small numbers"));
        let parts = parts_of(&bytes);
        out.push(u8::try_from(parts.len()).expect("few"));
        parts.into_iter().for_each(|part| put_part(&mut out, part));
    }
    out
}

/// The first block and the groups of a segment, without the zeros after each.
fn parts_of(segment: &[u8]) -> Vec<&[u8]> {
    let mut parts = vec![&segment[..117]];
    let mut at = BLOCK_BYTES;
    while segment.get(at..at + 4) == Some(b"TLYG") && parts.len() < 7 {
        let length = u32::from_le_bytes(segment[at + 8..at + 12].try_into().expect("four bytes")) as usize;
        parts.push(&segment[at..at + length]);
        at += length.next_multiple_of(BLOCK_BYTES);
    }
    parts
}

/// A log that grew, was cut, got a snapshot, and was replaced by a leader's.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let fs = Memory::default();
    let mut seeds = Vec::new();
    let mut keep = |fs: &Memory| {
        let as_is = as_input(fs);
        seeds.push([&[as_is[0] | SEALED], &as_is[1..]].concat());
        seeds.push(as_is);
    };
    let (mut storage, _) = open(&fs).expect("an empty directory");
    keep(&fs);
    let at = |index, term| Position { index: LogIndex(index), term: Term(term), subterm: Subterm(1) };
    let entry =
        |index, term| Entry { position: at(index, term), payload: Bytes::from(vec![index as u8; 20]) };
    let group = |from: u64, to: u64, term| WriteGroup {
        hard_state: Some(HardState { term: Term(term), vote: Some(NodeId(term)) }),
        truncate_after: (from > 1).then(|| LogIndex(from - 1)),
        entries: (from..=to).map(|index| entry(index, term)).collect(),
    };
    for (from, to, term) in [(1, 3, 1), (4, 4, 1), (3, 5, 2), (6, 8, 2), (9, 9, 3)] {
        storage.write(&group(from, to, term)).expect("in memory");
        keep(&fs);
    }
    storage.save_snapshot(at(8, 2), Bytes::from_static(b"the state at 8")).expect("in memory");
    keep(&fs);
    let hard_state = HardState { term: Term(4), vote: None };
    storage.install_snapshot(at(20, 4), Bytes::from_static(b"a leader's"), hard_state).expect("in memory");
    keep(&fs);
    storage.write(&group(21, 22, 4)).expect("in memory");
    keep(&fs);
    let other = |number: u8, text: &[u8]| {
        let mut out = vec![0, 5, number];
        put_part(&mut out, text);
        out
    };
    seeds.extend([other(0, b"tallyd data 1\n"), other(0, b"tallyd data 2\n"), other(1, b""), Vec::new()]);
    seeds
}
