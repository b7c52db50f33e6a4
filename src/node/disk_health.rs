//! The state of the disk as the node sees it: the write in progress and its start, the trouble and its start, the time
//! of the next try. A hung disk shows itself only by not answering.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{error, info};

use super::Node;
use crate::clock::Moment;
use crate::deliberate::{self, Bug};
use crate::storage::{OpenError, WriteError};

/// After a failed write the disk is tried again this soon, then after twice as long, and so on.
const RETRY_LEAST: Duration = Duration::from_millis(250);
/// The slowest disk that works: what is much to write is not given up before it could be done at this rate.
const SLOWEST_BYTES_PER_SECOND: u64 = 1 << 20;
/// Waits between tries do not grow beyond this.
const RETRY_MOST: Duration = Duration::from_secs(10);

/// What keeps the disk from taking writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// No space is left.
    Full,
    /// The file system is mounted read-only.
    ReadOnly,
    /// The disk reports errors.
    Failing,
    /// The disk does not answer.
    Hung,
    /// The data on the disk cannot be read.
    Damaged,
}

impl DiskFault {
    /// All faults.
    pub const ALL: [DiskFault; 5] =
        [DiskFault::Full, DiskFault::ReadOnly, DiskFault::Failing, DiskFault::Hung, DiskFault::Damaged];

    fn of(error: &WriteError) -> DiskFault {
        match error {
            WriteError::NoSpace { .. } => DiskFault::Full,
            WriteError::ReadOnly { .. } => DiskFault::ReadOnly,
            WriteError::Unrecovered(error) => match **error {
                OpenError::NoSpace { .. } => DiskFault::Full,
                OpenError::ReadOnly { .. } => DiskFault::ReadOnly,
                OpenError::Damaged { .. } => DiskFault::Damaged,
                _ => DiskFault::Failing,
            },
            WriteError::Io { .. } | WriteError::Poisoned | WriteError::Invalid(_) => DiskFault::Failing,
        }
    }

    /// The name in status and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            DiskFault::Full => "full",
            DiskFault::ReadOnly => "read-only",
            DiskFault::Failing => "failing",
            DiskFault::Hung => "hung",
            DiskFault::Damaged => "damaged",
        }
    }

    /// What to do about it.
    pub(super) const fn advice(self) -> &'static str {
        match self {
            DiskFault::Full => {
                "free some space on the data directory's file system; this box then resumes by itself"
            }
            DiskFault::ReadOnly => {
                "find out from the system's log why the file system is read-only, check it and remount it \
                 read-write; this box then resumes by itself"
            }
            DiskFault::Failing => {
                "this box retries by itself; if the trouble persists, see the system's log, check the card \
                 or disk, and replace it"
            }
            DiskFault::Hung => {
                "this box resumes by itself once the disk answers; if the trouble persists, see the system's \
                 log and replace the card or disk"
            }
            DiskFault::Damaged => {
                "stop this box and do not start it on this data again: replace the card or disk; if the \
                 site's other boxes run, replace this box (`tallyd provision --extend DIR --replace`), else \
                 restore a backup"
            }
        }
    }
}

/// The disk does not take writes.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) kind: DiskFault,
    /// What the system said, with the file.
    pub(super) what: String,
    /// Since when, Unix milliseconds of this box's clock.
    pub(super) since_ms: u64,
}

impl Trouble {
    pub(super) const fn advice(&self) -> &'static str {
        self.kind.advice()
    }
}

#[derive(Clone, Copy, Debug)]
struct Writing {
    ticket: u64,
    since: Instant,
    /// How long the write may take.
    patience: Duration,
    /// The core was told that this write failed: a later answer only shows that the disk answers again.
    given_up: bool,
}

/// The meaning of an answer of the disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// The disk takes writes; `again`: it did not before.
    Written { again: bool },
    /// The disk does not take writes; `anew`: it did before, or the fault is another one.
    Failed { anew: bool },
}

/// The health of the disk.
#[derive(Debug)]
pub(super) struct DiskHealth {
    writing: Option<Writing>,
    trouble: Option<Trouble>,
    retry_at: Option<Instant>,
    retry_wait: Duration,
    /// A group that the disk has for longer is given up; what comes with a snapshot may take longer.
    hung_after: Duration,
}

impl DiskHealth {
    pub(super) fn new(hung_after: Duration) -> DiskHealth {
        DiskHealth { writing: None, trouble: None, retry_at: None, retry_wait: RETRY_LEAST, hung_after }
    }

    pub(super) fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// Since when the disk has had its present group.
    pub(super) fn writing_since(&self) -> Option<Instant> {
        self.writing.map(|writing| writing.since)
    }

    /// Whether a group may be handed to the disk now.
    pub(super) fn may_write(&mut self, now: Instant) -> bool {
        // Over once and for all: if there is nothing to write then, the loop is not to wake for it again and again.
        self.retry_at.take_if(|at| *at <= now);
        self.writing.is_none() && self.retry_at.is_none()
    }

    /// When there is something to do next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        match self.writing {
            Some(writing) if writing.given_up => None,
            Some(writing) => Some(writing.since + writing.patience),
            None => self.retry_at,
        }
    }

    /// The disk was given a group, with a snapshot of so many bytes to install before it.
    pub(super) fn on_write_begun(&mut self, ticket: u64, snapshot_bytes: u64, now: Instant) {
        self.retry_at = None;
        let patience = self.hung_after + Duration::from_secs(snapshot_bytes / SLOWEST_BYTES_PER_SECOND);
        self.writing = Some(Writing { ticket, since: now, patience, given_up: false });
    }

    /// The group that the disk has had for too long, returned once: the core must be told that it failed.
    pub(super) fn take_hung(&mut self, moment: Moment) -> Option<u64> {
        let writing = self.writing.as_mut().filter(|writing| !writing.given_up)?;
        let waited = moment.now.saturating_duration_since(writing.since);
        if waited < writing.patience {
            return None;
        }
        writing.given_up = true;
        let ticket = writing.ticket;
        let what = format!("a write to the log has not finished for {} ms", waited.as_millis());
        self.set(DiskFault::Hung, what, moment);
        Some(ticket)
    }

    /// The disk has answered about its present group.
    pub(super) fn on_answer(&mut self, result: &Result<(), WriteError>, moment: Moment) -> Answered {
        self.writing = None;
        match result {
            Ok(()) => {
                self.retry_at = None;
                self.retry_wait = RETRY_LEAST;
                Answered::Written { again: self.trouble.take().is_some() }
            }
            Err(error) => {
                self.retry_at = Some(moment.now + self.retry_wait);
                self.retry_wait = (self.retry_wait * 2).min(RETRY_MOST);
                Answered::Failed { anew: self.set(DiskFault::of(error), error.to_string(), moment) }
            }
        }
    }

    fn set(&mut self, kind: DiskFault, what: String, moment: Moment) -> bool {
        let before = self.trouble.as_ref().map(|trouble| (trouble.kind, trouble.since_ms));
        let since_ms = before.map_or_else(|| moment.wall_ms(), |(_, since)| since);
        self.trouble = Some(Trouble { kind, what, since_ms });
        before.map(|(kind, _)| kind) != Some(kind)
    }
}

impl Node {
    /// A disk that does not answer is a failed one: a leader transfers leadership or steps down. The
    /// group stays with the disk; when it answers, its content is written again.
    pub(super) fn give_up_hung_disk(&mut self) {
        let Some(ticket) = self.disk_health.take_hung(self.moment) else { return };
        error!("the disk hangs: this box acknowledges nothing until the disk answers");
        self.shared.metrics.disk_hangs.raise();
        self.disk_changed();
        if deliberate::is(Bug::CallsHungWritten) {
            let now = self.now();
            return self.raft.handle_persisted(now, ticket);
        }
        self.on_persist_failed(ticket);
    }

    /// The disk has answered about a group.
    pub(super) fn on_written(&mut self, ticket: u64, result: &Result<(), WriteError>) {
        let since = self.disk_health.writing_since();
        let answered = self.disk_health.on_answer(result, self.moment);
        if let Err(error) = result
            && !deliberate::is(Bug::CallsFailedWritten)
        {
            self.shared.metrics.disk_failures.raise();
            if answered == (Answered::Failed { anew: true }) {
                error!("the disk rejects writes, so this box acknowledges nothing: {error}");
                self.disk_changed();
            }
            return self.on_persist_failed(ticket);
        }
        if answered == (Answered::Written { again: true }) {
            info!("the disk accepts writes again");
            self.disk_changed();
        }
        if let Some(since) = since {
            self.heartbeats.adaptive.on_sync(self.moment.now.saturating_duration_since(since));
        }
        self.on_persisted(ticket);
        self.snapshots.on_installed(ticket);
        let now = self.now();
        self.raft.handle_persisted(now, ticket);
    }

    /// Shows the trouble at once, before requests are refused because of it.
    fn disk_changed(&mut self) {
        self.status_at = None;
        self.refresh_status();
        self.shared.disk_ok.store(self.disk_health.trouble().is_none(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;
    use std::path::PathBuf;

    fn at(now: Instant) -> Moment {
        Moment { now, wall: Wall::default() }
    }

    fn full() -> Result<(), WriteError> {
        Err(WriteError::NoSpace { path: PathBuf::from("/data/log") })
    }

    #[test]
    fn tries_come_less_and_less_often_within_a_bound_and_begin_anew() {
        let mut health = DiskHealth::new(Duration::from_secs(10));
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for ticket in 0..8 {
            assert!(health.may_write(now));
            health.on_write_begun(ticket, 0, now);
            assert!(!health.may_write(now), "one group at a time");
            assert_eq!(health.on_answer(&full(), at(now)), Answered::Failed { anew: ticket == 0 });
            let due = health.next_due().unwrap();
            assert!(!health.may_write(due - Duration::from_millis(1)));
            waits.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(health.trouble().unwrap().kind, DiskFault::Full);
        health.on_write_begun(9, 0, now);
        assert_eq!(health.on_answer(&Ok(()), at(now)), Answered::Written { again: true });
        assert!(health.trouble().is_none() && health.may_write(now));
        health.on_write_begun(10, 0, now);
        health.on_answer(&full(), at(now));
        assert_eq!(health.next_due(), Some(now + RETRY_LEAST));
    }

    #[test]
    fn a_try_for_which_there_is_nothing_to_write_is_not_due_for_ever() {
        let mut health = DiskHealth::new(Duration::from_secs(10));
        let now = Instant::now();
        health.on_write_begun(1, 0, now);
        health.on_answer(&full(), at(now));
        let due = health.next_due().unwrap();
        // The core has nothing, because it was not told yet that the group before failed.
        assert!(health.may_write(due));
        assert_eq!(health.next_due(), None);
        assert!(health.may_write(due), "what comes later goes at once");
    }

    #[test]
    fn a_large_snapshot_may_take_longer_to_install_than_a_group_to_write() {
        let mut health = DiskHealth::new(Duration::from_secs(10));
        let start = Instant::now();
        health.on_write_begun(1, 300 << 20, start);
        assert_eq!(health.next_due(), Some(start + Duration::from_secs(310)));
        assert_eq!(health.take_hung(at(start + Duration::from_secs(309))), None);
        assert_eq!(health.take_hung(at(start + Duration::from_secs(310))), Some(1));
    }

    #[test]
    fn a_group_that_does_not_come_back_is_given_up_once_and_nothing_is_written_meanwhile() {
        let mut health = DiskHealth::new(Duration::from_secs(10));
        let start = Instant::now();
        health.on_write_begun(7, 0, start);
        assert_eq!(health.take_hung(at(start + Duration::from_secs(9))), None);
        assert_eq!(health.next_due(), Some(start + Duration::from_secs(10)));
        let late = start + Duration::from_secs(10);
        assert_eq!(health.take_hung(at(late)), Some(7));
        assert_eq!(health.take_hung(at(late + Duration::from_secs(99))), None);
        assert!(!health.may_write(late + Duration::from_secs(99)));
        assert_eq!(health.trouble().unwrap().kind, DiskFault::Hung);
        assert_eq!(health.on_answer(&Ok(()), at(late)), Answered::Written { again: true });
        assert!(health.may_write(late));
    }
}
