//! Reading the segments of the log, oldest first, group by group, up to the end of the last one.

use std::path::PathBuf;

use bytes::Bytes;
use tally_core::id::LogIndex;
use tally_core::raft::HardState;

use super::BLOCK;
use crate::storage::fs::{FileSystem, StoredFile};
use crate::storage::group::{self, Group};
use crate::storage::index::{Index, Spot};
use crate::storage::log::{Log, Place, Segment, WRITE_AHEAD_BYTES};
use crate::storage::read_ahead::ReadAhead;
use crate::storage::repair::Expected;
use crate::storage::room::Spare;
use crate::storage::segment::{self, FileRole, SegmentHeader};
use crate::storage::{BLOCK_BYTES, Entry, OpenError, RESTORE_ADVICE};

/// The files of the log.
pub(super) struct Files {
    /// Numbers without a gap, oldest first.
    pub(super) segments: Vec<(u64, PathBuf)>,
    /// The newest was followed by another one.
    pub(super) followed: bool,
    pub(super) spares: Vec<Spare>,
    /// To be removed once the log was found whole.
    pub(super) useless: Vec<PathBuf>,
}

pub(super) fn list_files<F: FileSystem>(fs: &F, place: &Place) -> Result<Files, OpenError> {
    let error = |source| OpenError::from_io(&place.dir, source);
    let mut files = Files { segments: Vec::new(), followed: false, spares: Vec::new(), useless: Vec::new() };
    let mut full = 0;
    for name in fs.list(&place.dir).map_err(error)? {
        match segment::file_role(&name) {
            FileRole::Segment(number) => files.segments.push((number, place.dir.join(name))),
            FileRole::Full(number) => {
                full = full.max(number);
                files.segments.push((number, place.dir.join(name)));
            }
            FileRole::Spare(number) => {
                let path = place.dir.join(name);
                let bytes = fs.open(&path).and_then(|file| file.size()).map_err(error)?;
                // Others were left by another setting of the size.
                let usual = bytes == place.options.usual_bytes();
                match usual && files.spares.len() < place.options.spare_segments {
                    true => files.spares.push(Spare { number, bytes }),
                    false => files.useless.push(path),
                }
            }
            FileRole::Unfinished => files.useless.push(place.dir.join(name)),
            FileRole::Other => {}
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

/// Reads all segments: what the log has, and where it goes on.
pub(super) fn scan_segments<F: FileSystem>(
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
        let (segment, header) = opened.map_err(|error| error.with_intact_up_to(whole))?;
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

/// What the groups that were read so far come to.
pub(super) struct Scan {
    floor: LogIndex,
    pub(super) index: Index,
    hard_state: HardState,
    boot: u64,
    /// The next group's.
    pub(super) sequence: u64,
    /// Live entries after the floor.
    pub(super) entries: Vec<Entry>,
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
