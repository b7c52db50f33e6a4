//! Recovery of the log: everything acknowledged is there, an unfinished write is cut, and anything else is damage,
//! which is refused with an explanation instead of repaired by guessing.
//!
//! Only the last group can be unfinished, because the next one is written after its sync. So a group that cannot be
//! read is unfinished if no group follows it, in this segment or a later one. The next write overwrites it. It could
//! also be an acknowledged group that is damaged: one wrong byte is corrected (see `repair`), more cannot be told from
//! a torn write.

mod scan;

use std::io;
use std::path::Path;

use tally_core::id::LogIndex;
use tally_core::raft::{HardState, Position};

use scan::{Scan, list_files, scan_segments};

use super::fs::{FileSystem, StoredFile};
use super::group::Facts;
use super::log::{Log, Place};
use super::room::Spare;
use super::segment;
use super::snapshot::{self, LoadError};
use super::{BLOCK_BYTES, OpenError, RESTORE_ADVICE, Recovered, WriteError};
use crate::deliberate::{self, Bug};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// Why the log is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    /// The box starts; `founding`: there need not be a log yet.
    Start { founding: bool },
    /// A write failed. The group of this number was acknowledged: it has to be there.
    Again { acknowledged: u64 },
}

/// Reads log and snapshots, cuts an unfinished write, and makes a group durable that says so (with
/// a raised boot number, if this is a start). Everything in the answer is durable.
pub(super) fn recover<F: FileSystem>(
    fs: &F,
    place: Place,
    snapshot_dir: &Path,
    occasion: Occasion,
) -> Result<(Log<F>, Recovered), OpenError> {
    // A killed process may have left names that are not durable yet.
    for dir in [&*place.dir, snapshot_dir] {
        fs.sync_dir(dir).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => directory_missing(dir),
            _ => OpenError::from_io(dir, source),
        })?;
    }
    let choice = choose_snapshot(fs, &place, snapshot_dir)?;
    let mut files = list_files(fs, &place)?;
    let useless = std::mem::take(&mut files.useless);
    if files.segments.is_empty() {
        if choice.newest().is_some() || occasion != (Occasion::Start { founding: true }) {
            return Err(log_missing(&place.dir, choice.newest()));
        }
        return create_log(fs, place, files.spares);
    }
    let floor = choice.chosen.as_ref().map_or(LogIndex::ZERO, |(position, _)| position.index);
    let followed = files.followed;
    let (mut log, mut scan) = scan_segments(fs, place, files, floor)?;
    if followed {
        return Err(newest_missing(&log, &scan));
    }
    if let Occasion::Again { acknowledged } = occasion
        && scan.sequence <= acknowledged
    {
        return Err(groups_missing(&log, &scan, acknowledged));
    }
    let reset = check_snapshot(&log, &scan, &choice, snapshot_dir)?;
    for path in useless {
        fs.remove(&path).map_err(|source| OpenError::from_io(&path, source))?;
    }
    if reset.is_some() {
        scan.entries.clear();
    }
    log.index = scan.index;
    log.floor = floor;
    make_room(fs, &mut log, snapshot_dir, &choice, occasion)?;
    log.since_snapshot = log.index.bytes_after(floor);
    log.boot = log.boot.saturating_add(u64::from(matches!(occasion, Occasion::Start { .. })));
    if let Some(tail) = log.segments.back()
        && !deliberate::is(Bug::TrustsCache)
    {
        // The last group may be in the cache only. Nothing is written after it before it is durable: the disk could
        // have that and not this.
        tail.file.sync_data().map_err(|source| OpenError::from_io(&tail.path, source))?;
    }
    let facts = Facts { boot: Some(log.boot), reset, ..Facts::default() };
    let mut put = log.put(fs, &facts, &[]);
    // Some file systems reserve nothing. Nothing was acknowledged: the same goes to the same place.
    while matches!(put, Err(WriteError::NoSpace { .. })) && log.free_one(fs)? {
        put = log.put(fs, &facts, &[]);
    }
    put?;
    log.untouched = false;
    log.count_bytes();
    let recovered = Recovered {
        hard_state: log.hard_state,
        snapshot: choice.chosen,
        last: log.index.last(),
        entries: scan.entries,
        boot: log.boot,
    };
    Ok((log, recovered))
}

/// Lets go of what is not needed before anything is written: an earlier release may have left a full partition, or
/// more than the bound.
fn make_room<F: FileSystem>(
    fs: &F,
    log: &mut Log<F>,
    snapshot_dir: &Path,
    choice: &Choice,
    occasion: Occasion,
) -> Result<(), OpenError> {
    // Later, one may be on its way. One that is damaged is left to be looked at.
    if matches!(occasion, Occasion::Start { .. }) && choice.damaged.is_none() {
        snapshot::remove_stale(fs, snapshot_dir, choice.chosen.as_ref().map(|(position, _)| *position));
    }
    log.snapshot_bytes =
        snapshot::weigh(fs, snapshot_dir).map_err(|source| OpenError::from_io(snapshot_dir, source))?;
    Ok(log.make_room(fs, 0)?)
}

/// The first segment of a directory without any.
fn create_log<F: FileSystem>(
    fs: &F,
    place: Place,
    spares: Vec<Spare>,
) -> Result<(Log<F>, Recovered), OpenError> {
    let mut log = Log::new(place, spares);
    log.boot = 1;
    log.roll(fs, BLOCK)?;
    let recovered = Recovered {
        hard_state: HardState::default(),
        snapshot: None,
        last: Position::ZERO,
        entries: Vec::new(),
        boot: 1,
    };
    Ok((log, recovered))
}

/// The newest segment was followed by one that is not there.
fn newest_missing<F: FileSystem>(log: &Log<F>, scan: &Scan) -> OpenError {
    let next = log.segments.back().map_or(1, |segment| segment.number + 1);
    OpenError::Damaged {
        file: segment::path(&log.place.dir, next),
        offset: 0,
        certain: format!(
            "the newest segment of the log is missing; the log is intact up to entry {}; later entries are \
             gone, perhaps with this box's vote.",
            scan.index.last().index
        ),
        advice: RESTORE_ADVICE.to_string(),
    }
}

/// Groups that the disk said were durable are not there any more.
fn groups_missing<F: FileSystem>(log: &Log<F>, scan: &Scan, acknowledged: u64) -> OpenError {
    OpenError::Damaged {
        file: log.segments.back().map(|segment| segment.path.clone()).unwrap_or_default(),
        offset: log.offset,
        certain: format!(
            "groups {} to {acknowledged} were acknowledged and are gone, although the disk reported them \
             durable (the log is intact up to entry {}).",
            scan.sequence,
            scan.index.last().index
        ),
        advice: RESTORE_ADVICE.to_string(),
    }
}

fn directory_missing(dir: &Path) -> OpenError {
    OpenError::Damaged {
        file: dir.to_path_buf(),
        offset: 0,
        certain: "the directory is missing (is a file system not mounted?).".to_string(),
        advice: RESTORE_ADVICE.to_string(),
    }
}

fn log_missing(dir: &Path, snapshot: Option<Position>) -> OpenError {
    let snapshot = snapshot.map_or_else(
        || "there was one, and there is no snapshot".to_owned(),
        |position| format!("but there is a snapshot up to entry {}", position.index),
    );
    OpenError::Damaged {
        file: dir.to_path_buf(),
        offset: 0,
        certain: format!(
            "the log is gone: {snapshot}; this box's vote is lost with it, which could allow two leaders.",
        ),
        advice: RESTORE_ADVICE.to_string(),
    }
}

/// The newest snapshot that can be used, and the newest that cannot.
struct Choice {
    chosen: Option<(Position, Vec<u8>)>,
    /// The chosen one came from a leader.
    foreign: bool,
    damaged: Option<(Position, String)>,
}

impl Choice {
    fn newest(&self) -> Option<Position> {
        self.damaged
            .as_ref()
            .map(|(position, _)| *position)
            .or_else(|| self.chosen.as_ref().map(|(position, _)| *position))
    }
}

fn choose_snapshot<F: FileSystem>(fs: &F, place: &Place, dir: &Path) -> Result<Choice, OpenError> {
    let mut choice = Choice { chosen: None, foreign: false, damaged: None };
    let listed = snapshot::list(fs, dir).map_err(|source| OpenError::from_io(dir, source))?;
    for position in listed {
        match snapshot::load(fs, dir, place.owner, position) {
            Ok(loaded) => {
                choice.foreign = loaded.foreign;
                choice.chosen = Some((position, loaded.bytes));
                break;
            }
            Err(LoadError::Damaged(what)) => {
                tracing::warn!(file = %snapshot::path(dir, position).display(), what, "a damaged snapshot");
                choice.damaged.get_or_insert((position, what));
            }
            Err(LoadError::Refused(refusal)) => return Err(refusal),
            Err(LoadError::Io(source)) => {
                return Err(OpenError::from_io(&snapshot::path(dir, position), source));
            }
        }
    }
    Ok(choice)
}

/// Whether log and snapshot belong together. Gives the position after which the log has to begin
/// anew, if the snapshot replaces it.
fn check_snapshot<F: FileSystem>(
    log: &Log<F>,
    scan: &Scan,
    choice: &Choice,
    snapshot_dir: &Path,
) -> Result<Option<Position>, OpenError> {
    let (base, last) = (scan.index.base().index, scan.index.last().index);
    let covered = choice.chosen.as_ref().map(|(position, _)| *position);
    let floor = covered.map_or(LogIndex::ZERO, |position| position.index);
    if let Some((position, what)) = &choice.damaged
        && (base > floor || last < position.index)
    {
        return Err(OpenError::Damaged {
            file: snapshot::path(snapshot_dir, *position),
            offset: 0,
            certain: format!(
                "{what}, and the log (entries {} to {last}) does not go back far enough without it.",
                base.next()
            ),
            advice: RESTORE_ADVICE.to_string(),
        });
    }
    if base > floor {
        let file = log.segments.front().map(|segment| segment.path.clone()).unwrap_or_default();
        return Err(OpenError::Damaged {
            file,
            offset: 0,
            certain: format!(
                "the log begins with entry {}, but the snapshot ends with entry {floor}: a segment or a \
                 snapshot is missing.",
                base.next()
            ),
            advice: RESTORE_ADVICE.to_string(),
        });
    }
    let reset = covered.filter(|position| scan.index.position(position.index) != Some(*position));
    match reset {
        Some(position) if !choice.foreign => Err(log_end_missing(log, scan, position)),
        // A snapshot from a leader became durable, and the group that begins the log anew did not.
        reset => Ok(reset),
    }
}

/// The log had what this box made a snapshot of, and has it no more.
fn log_end_missing<F: FileSystem>(log: &Log<F>, scan: &Scan, snapshot: Position) -> OpenError {
    OpenError::Damaged {
        file: log.segments.back().map(|segment| segment.path.clone()).unwrap_or_default(),
        offset: log.offset,
        certain: format!(
            "the log ends here, with entry {}, but this box wrote its snapshot when the log went to entry {} \
             or further: the end of the log is gone (is a later segment missing?), perhaps with this box's \
             vote.",
            scan.index.last().index,
            snapshot.index
        ),
        advice: RESTORE_ADVICE.to_string(),
    }
}
