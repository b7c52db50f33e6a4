//! What the log costs on this disk: `cargo bench --bench storage`. Prints; judges nothing.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tally_core::id::{LogIndex, Subterm, Term};
use tally_core::raft::Position;
use tallyd::storage::{Entry, Options, Owner, RealFileSystem, Storage, WriteGroup};

const PAYLOAD: usize = 128;
const GROUPS: u64 = 2000;
const OWNER: Owner = Owner { site_id: 1, node: 1 };

fn main() -> io::Result<()> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("storage-bench");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let out = &mut io::stdout().lock();
    writeln!(out, "{PAYLOAD}-byte entries, {GROUPS} groups a row, one sync a group")?;
    writeln!(
        out,
        "entries/group  segments  bytes/payload byte  write median  p99  sync mean (us)  entries/s"
    )?;
    // Small segments, so that each row goes through several.
    let options =
        Options { segment_bytes: 2 << 20, keep_entries: 0, spare_segments: 64, ..Options::default() };
    let open = || Storage::open(RealFileSystem, &dir, OWNER, options.clone());
    let (mut storage, found) = open().map_err(io::Error::other)?;
    let mut last = found.last.index;
    for entries in [1, 16, 256] {
        for segments in ["new", "reused"] {
            if segments == "new" {
                free(&mut storage, 0)?;
                drop(storage);
                std::fs::remove_dir_all(&dir)?;
                storage = open().map_err(io::Error::other)?.0;
                last = LogIndex::ZERO;
            } else {
                free(&mut storage, last.0)?;
            }
            row(out, &mut storage, &mut last, entries, segments)?;
        }
    }
    let bytes = storage.stats().replay_bytes;
    drop(storage);
    let begun = Instant::now();
    let (_, found) = open().map_err(io::Error::other)?;
    let (took, count) = (begun.elapsed(), found.entries.len());
    writeln!(out, "opened with {count} entries in {} KiB of log to replay: {took:?}", bytes >> 10)?;
    std::fs::remove_dir_all(&dir)
}

/// Lets the log's full segments wait for reuse.
fn free(storage: &mut Storage, index: u64) -> io::Result<()> {
    match storage.position(LogIndex(index)) {
        Some(position) if index > 0 => {
            storage.save_snapshot(position, vec![0].into()).map_err(io::Error::other)
        }
        _ => Ok(()),
    }
}

fn row(
    out: &mut impl Write,
    storage: &mut Storage,
    last: &mut LogIndex,
    entries: u64,
    segments: &str,
) -> io::Result<()> {
    let payload = Bytes::from(vec![7; PAYLOAD]);
    let before = storage.stats();
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..GROUPS {
        let mut group = WriteGroup::default();
        for _ in 0..entries {
            *last = last.next();
            let position = Position { index: *last, term: Term(1), subterm: Subterm(1) };
            group.entries.push(Entry { position, payload: payload.clone() });
        }
        let begun = Instant::now();
        storage.write(&group).map_err(io::Error::other)?;
        took.push(begun.elapsed());
    }
    let after = storage.stats();
    let written = (after.bytes_written - before.bytes_written) as f64;
    let per_byte = written / (GROUPS * entries * PAYLOAD as u64) as f64;
    let sync = (after.sync_us_total - before.sync_us_total) / GROUPS;
    let total: Duration = took.iter().sum();
    took.sort_unstable();
    let at = |percent: usize| took[took.len() * percent / 100].as_micros();
    writeln!(
        out,
        "{entries:>13}  {segments:>8}  {per_byte:>18.2}  {:>9} us  {:>6} us  {sync:>8}  {:>9.0}",
        at(50),
        at(99),
        (GROUPS * entries) as f64 / total.as_secs_f64()
    )
}
