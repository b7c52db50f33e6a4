//! Reading the log back: what was acknowledged is all there, a write that did not finish is cut,
//! and anything else is damage, which is refused with words instead of repaired by guessing.
//!
//! Only one group can be unfinished, the last: the next is written after its sync. So a group that
//! cannot be read is an unfinished one if no group stands after it, in this segment or a later one.
//! The next write goes over it. It could also be one that was acknowledged and is damaged; one wrong
//! byte is put right (see `repair`), more cannot be told from a torn write.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tally_core::id::LogIndex;
use tally_core::raft::{HardState, Position};

use super::fs::{FileSystem, StoredFile};
use super::group::{self, Facts, Group};
use super::index::{Index, Spot};
use super::log::{Log, Place, Segment, WRITE_AHEAD_BYTES};
use super::read_ahead::ReadAhead;
use super::repair::Expected;
use super::room::Spare;
use super::segment::{self, Named, SegmentHeader};
use super::snapshot::{self, LoadError};
use super::{BLOCK_BYTES, Entry, OpenError, RESTORE_ADVICE, Recovered, WriteError};
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
            io::ErrorKind::NotFound => no_directory(dir),
            _ => OpenError::from_io(dir, source),
        })?;
    }
    let choice = choose_snapshot(fs, &place, snapshot_dir)?;
    let mut files = list(fs, &place)?;
    let useless = std::mem::take(&mut files.useless);
    if files.segments.is_empty() {
        if choice.newest().is_some() || occasion != (Occasion::Start { founding: true }) {
            return Err(no_log(&place.dir, choice.newest()));
        }
        return found(fs, place, files.spares);
    }
    let floor = choice.chosen.as_ref().map_or(LogIndex::ZERO, |(position, _)| position.index);
    let followed = files.followed;
    let (mut log, mut scan) = scan(fs, place, files, floor)?;
    if followed {
        return Err(newest_missing(&log, &scan));
    }
    if let Occasion::Again { acknowledged } = occasion
        && scan.sequence <= acknowledged
    {
        return Err(gone(&log, &scan, acknowledged));
    }
    let reset = check(&log, &scan, &choice, snapshot_dir)?;
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
fn found<F: FileSystem>(fs: &F, place: Place, spares: Vec<Spare>) -> Result<(Log<F>, Recovered), OpenError> {
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
fn gone<F: FileSystem>(log: &Log<F>, scan: &Scan, acknowledged: u64) -> OpenError {
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

fn no_directory(dir: &Path) -> OpenError {
    OpenError::Damaged {
        file: dir.to_path_buf(),
        offset: 0,
        certain: "the directory is missing (is a file system not mounted?).".to_string(),
        advice: RESTORE_ADVICE.to_string(),
    }
}

fn no_log(dir: &Path, snapshot: Option<Position>) -> OpenError {
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

/// The files of the log.
struct Files {
    /// Numbers without a gap, oldest first.
    segments: Vec<(u64, PathBuf)>,
    /// The newest was followed by another one.
    followed: bool,
    spares: Vec<Spare>,
    /// To be removed once the log was found whole.
    useless: Vec<PathBuf>,
}

fn list<F: FileSystem>(fs: &F, place: &Place) -> Result<Files, OpenError> {
    let error = |source| OpenError::from_io(&place.dir, source);
    let mut files = Files { segments: Vec::new(), followed: false, spares: Vec::new(), useless: Vec::new() };
    let mut full = 0;
    for name in fs.list(&place.dir).map_err(error)? {
        match segment::named(&name) {
            Named::Segment(number) => files.segments.push((number, place.dir.join(name))),
            Named::Full(number) => {
                full = full.max(number);
                files.segments.push((number, place.dir.join(name)));
            }
            Named::Spare(number) => {
                let path = place.dir.join(name);
                let bytes = fs.open(&path).and_then(|file| file.size()).map_err(error)?;
                // Others were left by another setting of the size.
                let usual = bytes == place.options.usual_bytes();
                match usual && files.spares.len() < place.options.spare_segments {
                    true => files.spares.push(Spare { number, bytes }),
                    false => files.useless.push(path),
                }
            }
            Named::Unfinished => files.useless.push(place.dir.join(name)),
            Named::Other => {}
        }
    }
    files.segments.sort_unstable();
    files.followed = files.segments.last().is_some_and(|(newest, _)| *newest == full);
    // Segments are removed oldest first, but a file system may forget a removal and keep a later
    // one. What stands before a gap was free; if it was not, the check of the log's beginning fails.
    if let Some(gap) = files.segments.windows(2).rposition(|pair| pair[0].0 + 1 != pair[1].0) {
        let freed = files.segments.drain(..=gap);
        files.useless.extend(freed.map(|(_, path)| path));
    }
    Ok(files)
}

/// Reads all segments.
fn scan<F: FileSystem>(
    fs: &F,
    place: Place,
    files: Files,
    floor: LogIndex,
) -> Result<(Log<F>, Scan), OpenError> {
    let mut log = Log::<F>::new(place, files.spares);
    let mut scan: Option<Scan> = None;
    for (number, path) in files.segments {
        let whole = scan.as_ref().map_or(floor, |scan| scan.index.last().index);
        let opened = open_segment(fs, &log.place, number, path);
        let (segment, header) = opened.map_err(|error| error.whole_up_to(whole))?;
        let scan = match &mut scan {
            None => scan.insert(Scan::new(&header, floor)),
            Some(scan) => {
                let before = log.segments.back().expect("a scan has begun with a segment");
                scan.check_next(before, log.offset, &segment, &header)?;
                scan
            }
        };
        log.offset = scan.segment(&segment, BLOCK)?;
        log.segments.push_back(segment);
    }
    let mut scan = scan.expect("there is at least one segment");
    let tail = log.segments.back_mut().expect("there is at least one segment");
    scan.check_tail(tail, log.offset)?;
    // If a segment is missing this is refused, and nothing is changed.
    if !files.followed && scan.repair_tail(tail, log.offset)? {
        log.offset = scan.segment(tail, log.offset)?;
    }
    tail.written_to = tail.written_to.max(log.offset.next_multiple_of(WRITE_AHEAD_BYTES)).min(tail.bytes);
    log.hard_state = scan.hard_state;
    log.boot = scan.boot;
    log.sequence = scan.sequence;
    Ok((log, scan))
}

fn open_segment<F: FileSystem>(
    fs: &F,
    place: &Place,
    number: u64,
    path: PathBuf,
) -> Result<(Segment<F::File>, SegmentHeader), OpenError> {
    let error = |source| OpenError::from_io(&path, source);
    let file = fs.open(&path).map_err(error)?;
    file.forget_cache().map_err(error)?;
    let bytes = file.size().map_err(error)?;
    let mut block = vec![0; BLOCK_BYTES];
    let read = file.read_at(0, &mut block).map_err(error)?;
    let dir = place.dir.parent().unwrap_or(&place.dir);
    let header = SegmentHeader::decode(&block[..read], &path, dir, place.owner, number)?;
    if bytes < header.bytes {
        return Err(OpenError::Damaged {
            certain: format!(
                "the file was made {} bytes long and has {bytes}: its end is missing, with anything written \
                 there.",
                header.bytes
            ),
            offset: bytes,
            file: path,
            advice: RESTORE_ADVICE.to_string(),
        });
    }
    let written_to = if header.reused { bytes } else { BLOCK };
    Ok((Segment { number, path, file, salt: header.salt, bytes, written_to }, header))
}

/// What was read so far.
struct Scan {
    floor: LogIndex,
    index: Index,
    hard_state: HardState,
    boot: u64,
    /// The next group's.
    sequence: u64,
    /// Live entries after the floor.
    entries: Vec<Entry>,
    window: ReadAhead,
}

impl Scan {
    fn new(header: &SegmentHeader, floor: LogIndex) -> Scan {
        Scan {
            floor,
            index: Index::new(header.previous),
            hard_state: header.hard_state,
            boot: header.boot,
            sequence: header.sequence,
            entries: Vec::new(),
            window: ReadAhead::default(),
        }
    }

    /// Takes the groups of a segment from an offset on; where they end.
    fn segment<S: StoredFile>(&mut self, segment: &Segment<S>, from: u64) -> Result<u64, OpenError> {
        self.window.forget();
        let mut offset = from;
        while let Some(bytes) = self.window.group(segment, offset)? {
            let bytes = Bytes::copy_from_slice(bytes);
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let spot = Spot { first: LogIndex::ZERO, segment: segment.number, offset, bytes: length };
            let taken = group::decode(&bytes)
                .ok_or("the group cannot be decoded")
                .and_then(|group| self.take(group, spot));
            taken.map_err(|what| OpenError::Damaged {
                file: segment.path.clone(),
                offset,
                certain: format!("group {} has a valid checksum, but {what}.", self.sequence),
                advice: RESTORE_ADVICE.to_string(),
            })?;
            offset += u64::from(length).next_multiple_of(BLOCK);
        }
        Ok(offset)
    }

    fn take(&mut self, group: Group, mut spot: Spot) -> Result<(), &'static str> {
        if group.sequence != self.sequence {
            return Err("groups before it are missing");
        }
        if group.last_before != self.index.last().index {
            return Err("it does not follow the end of the log");
        }
        if group.facts.truncate.is_some_and(|to| to.index > self.index.last().index) {
            return Err("it truncates the log after its end");
        }
        self.sequence = self.sequence.saturating_add(1);
        self.boot = group.facts.boot.unwrap_or(self.boot);
        self.hard_state = group.facts.hard_state.unwrap_or(self.hard_state);
        if let Some(to) = group.facts.truncate {
            self.index.truncate(to);
            let live = self.entries.partition_point(|entry| entry.position.index <= to.index);
            self.entries.truncate(live);
        }
        if let Some(to) = group.facts.reset {
            self.index.reset(to);
            self.entries.clear();
        }
        spot.first = self.index.last().index.next();
        self.index.append(spot, &group.entries);
        let floor = self.floor;
        self.entries.extend(group.entries.into_iter().filter(|entry| entry.position.index > floor));
        Ok(())
    }

    /// The next segment must go on where `before` ended (at `offset`).
    fn check_next<S>(
        &self,
        before: &Segment<S>,
        offset: u64,
        next: &Segment<S>,
        header: &SegmentHeader,
    ) -> Result<(), OpenError> {
        if header.sequence != self.sequence {
            return Err(OpenError::Damaged {
                file: before.path.clone(),
                offset,
                certain: format!(
                    "group {} should be here and cannot be read, but the next segment begins with group {}: \
                     entries {} to {} or later were acknowledged and are damaged.",
                    self.sequence,
                    header.sequence,
                    self.index.last().index.next(),
                    header.previous.index
                ),
                advice: RESTORE_ADVICE.to_string(),
            });
        }
        if header.previous != self.index.last() || header.hard_state != self.hard_state {
            return Err(OpenError::Damaged {
                file: next.path.clone(),
                offset: 0,
                certain: "the segment does not follow the one before it.".to_string(),
                advice: RESTORE_ADVICE.to_string(),
            });
        }
        Ok(())
    }

    /// Nothing may stand after the end of the last segment.
    fn check_tail<S: StoredFile>(&mut self, tail: &Segment<S>, end: u64) -> Result<(), OpenError> {
        let mut offset = end + BLOCK;
        while offset < tail.bytes {
            if let Some(bytes) = self.window.group(tail, offset)? {
                let later = group::decode(&Bytes::copy_from_slice(bytes));
                let later = later.map_or(LogIndex::ZERO, |group| group.last_before);
                return Err(OpenError::Damaged {
                    file: tail.path.clone(),
                    offset: end,
                    certain: format!(
                        "group {} should be here and cannot be read, but a later one, at byte {offset}, can: \
                         the groups between were acknowledged and are damaged (the log is intact up to entry \
                         {}, and went to entry {later} or further).",
                        self.sequence,
                        self.index.last().index
                    ),
                    advice: RESTORE_ADVICE.to_string(),
                });
            }
            offset += BLOCK;
        }
        Ok(())
    }

    /// Puts the last group right if one wrong byte is all that is wrong with it; whether it did.
    /// Whatever else stands after the end is a write that did not finish, and is cut.
    fn repair_tail<S: StoredFile>(&mut self, tail: &Segment<S>, end: u64) -> Result<bool, OpenError> {
        let last_before = self.index.last().index.0;
        let expected = Expected { salt: tail.salt, sequence: self.sequence, last_before };
        let Some((at, byte)) = self.window.wrong_byte(tail, end, expected)? else {
            if self.window.unfinished(tail, end, self.sequence)? {
                tracing::info!(file = %tail.path.display(), offset = end, "truncated an unfinished write");
            }
            return Ok(false);
        };
        let error = |source| OpenError::from_io(&tail.path, source);
        let offset = end + at;
        tracing::warn!(
            file = %tail.path.display(), offset,
            "repaired a corrupt byte in the last group of the log: check the disk"
        );
        // A write torn here leaves the byte as it was or right.
        tail.file.write_at(offset, &[byte]).map_err(error)?;
        tail.file.sync_data().map_err(error)?;
        Ok(true)
    }
}

/// Whether log and snapshot belong together. Gives the position after which the log has to begin
/// anew, if the snapshot replaces it.
fn check<F: FileSystem>(
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
        Some(position) if !choice.foreign => Err(log_lost(log, scan, position)),
        // A snapshot from a leader became durable, and the group that begins the log anew did not.
        reset => Ok(reset),
    }
}

/// The log had what this box made a snapshot of, and has it no more.
fn log_lost<F: FileSystem>(log: &Log<F>, scan: &Scan, snapshot: Position) -> OpenError {
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
