//! The thread that owns the storage. The node gives it jobs and receives their results, so a slow or hung disk delays
//! acknowledgements and nothing else.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tally_core::id::{LogIndex, NodeId};
use tally_core::raft::{HardState, Message, Position};
use tokio::sync::mpsc as tokio_mpsc;
use tracing::{error, warn};

use crate::storage::{
    Entry, FileSystem, ReadError, Saving, SnapshotHead, SnapshotReader, Storage, WriteError, WriteGroup,
};

/// How long an ending process waits for the disk: what was acknowledged is durable already.
const END_WAIT: Duration = Duration::from_secs(5);

/// So many pieces of a snapshot are saved between two groups where the log is near its bound.
const PIECES_OWED: u32 = 4;

/// A job for the disk. Jobs are done in order, except the pieces of a snapshot, which wait for everything else.
#[derive(Debug)]
pub enum Job {
    /// Make a group durable.
    Write { ticket: u64, group: WriteGroup },
    /// Replace the log by a snapshot that came from the leader, then make a group durable.
    Install { ticket: u64, position: Position, bytes: Bytes, hard_state: HardState, group: WriteGroup },
    /// Fetch entries for a follower that is behind; they go with this message.
    Read { to: NodeId, message: Message, first: LogIndex, last: LogIndex, bytes_max: usize },
    /// Write a snapshot of the state as of this position and let go of the log before it.
    Save { position: Position, bytes: Bytes },
    /// Open the latest snapshot for a follower that needs it; it stays open for it, whatever newer one
    /// there is.
    OpenSnapshot { to: NodeId, message: Message },
    /// Read a part of it.
    ReadSnapshot { to: NodeId, offset: u64, bytes_max: usize },
    /// Close it: the transfer has ended.
    CloseSnapshot { to: NodeId },
    /// Write the file of unsent batches anew, or remove it. `leaving`: for the next incarnation.
    KeepUnsent { bytes: Option<Vec<u8>>, leaving: bool },
}

/// The result of a job.
#[derive(Debug)]
pub enum Done {
    /// A group is durable, or not.
    Written {
        ticket: u64,
        result: Result<(), WriteError>,
        /// A snapshot was being saved and is given up for an installed one.
        superseded: bool,
    },
    /// Entries for a follower.
    Read { to: NodeId, message: Message, result: Result<Vec<Entry>, ReadError> },
    /// A snapshot is saved. `first`: the first index that the log still has.
    Saved { result: Result<LogIndex, WriteError> },
    /// The log begins with this entry now: what was kept for followers had to go.
    Begins { first: LogIndex },
    /// A snapshot is open for a follower, if there is one.
    Opened { to: NodeId, message: Message, result: Result<Option<SnapshotHead>, ReadError> },
    /// A part of it.
    SnapshotRead { to: NodeId, offset: u64, result: Result<Bytes, ReadError> },
    /// The file of unsent batches is as was asked for, or not.
    UnsentKept { leaving: bool, result: std::io::Result<()> },
}

/// The queue of jobs. Adding one never blocks.
#[derive(Debug)]
pub struct Jobs(mpsc::Sender<Job>);

impl Jobs {
    /// Makes the queue, and its receiving end for the worker.
    pub fn queue() -> (Jobs, mpsc::Receiver<Job>) {
        let (jobs, inbox) = mpsc::channel();
        (Jobs(jobs), inbox)
    }

    /// Adds a job.
    pub(super) fn ask(&self, job: Job) {
        if self.0.send(job).is_err() {
            error!("the disk thread ended: this box acknowledges nothing more; restart it");
        }
    }
}

/// The disk thread. It ends when all [`Jobs`] are dropped, after the jobs in the queue.
#[derive(Debug)]
pub(super) struct DiskThread {
    thread: Option<JoinHandle<()>>,
    /// The process waits for the thread until then at most.
    end_by: Option<Instant>,
}

impl DiskThread {
    /// Starts it.
    pub(super) fn start<F: FileSystem + 'static>(
        storage: Storage<F>,
        inbox: mpsc::Receiver<Job>,
    ) -> std::io::Result<(DiskThread, tokio_mpsc::UnboundedReceiver<Done>)> {
        // Bounded by what is asked for: one write, one save, and one read a follower at a time.
        let (outbox, done) = tokio_mpsc::unbounded_channel();
        let thread = thread::Builder::new()
            .name("disk".to_owned())
            .stack_size(256 << 10)
            .spawn(move || serve(storage, &inbox, &outbox))?;
        Ok((DiskThread { thread: Some(thread), end_by: None }, done))
    }

    /// Bounds how long the ending process waits for the thread.
    pub(super) fn end_by(&mut self, end: Instant) {
        self.end_by = Some(end);
    }
}

impl Drop for DiskThread {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let until = Instant::now() + END_WAIT;
        let until = self.end_by.map_or(until, |end| end.min(until));
        while !thread.is_finished() {
            if Instant::now() > until {
                return warn!("the disk does not answer: no longer waiting for it");
            }
            thread::sleep(Duration::from_millis(1));
        }
        if thread.join().is_err() {
            error!("the disk thread panicked");
        }
    }
}

/// Does jobs one after the other, in the disk thread or in a simulation.
#[derive(Debug)]
pub struct DiskWorker<F: FileSystem> {
    storage: Storage<F>,
    /// A snapshot that is being saved, a piece at a time between jobs.
    saving: Option<Saving<F::File>>,
    /// So many pieces of it come before the next job, since the log must not grow beyond its bound meanwhile.
    owed: u32,
    /// The first entry of the log, as the node knows it.
    first: LogIndex,
    /// Snapshots that are sent to followers.
    readers: BTreeMap<NodeId, SnapshotReader<F::File>>,
}

/// The next work of a [`DiskWorker`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A job, whenever one comes.
    Job,
    /// A job if there is one, else a piece of the snapshot that is being saved.
    JobOrPiece,
    /// A piece first.
    Piece,
}

fn serve<F: FileSystem>(
    storage: Storage<F>,
    inbox: &mpsc::Receiver<Job>,
    outbox: &tokio_mpsc::UnboundedSender<Done>,
) {
    let mut worker = DiskWorker::new(storage);
    loop {
        let job = match worker.next() {
            Next::Job => inbox.recv().map_err(|_| TryRecvError::Disconnected),
            Next::JobOrPiece => inbox.try_recv(),
            Next::Piece => Err(TryRecvError::Empty),
        };
        let done = match job {
            Ok(job) => worker.work(Some(job)),
            Err(TryRecvError::Empty) => worker.work(None),
            Err(TryRecvError::Disconnected) => return,
        };
        if done.into_iter().flatten().any(|done| outbox.send(done).is_err()) {
            return;
        }
    }
}

impl<F: FileSystem> DiskWorker<F> {
    /// Takes over an open storage.
    pub fn new(storage: Storage<F>) -> DiskWorker<F> {
        let first = storage.first_index();
        DiskWorker { storage, saving: None, owed: 0, first, readers: BTreeMap::new() }
    }

    /// The next work.
    pub fn next(&self) -> Next {
        match self.saving {
            None => Next::Job,
            Some(_) if self.owed > 0 => Next::Piece,
            Some(_) => Next::JobOrPiece,
        }
    }

    /// Does a job, or without one a piece of the snapshot that is being saved; what to tell the node now.
    pub fn work(&mut self, job: Option<Job>) -> [Option<Done>; 2] {
        let done = match job {
            Some(job) => self.job(job),
            None => self.save_piece(),
        };
        [done, self.first_index_news()]
    }

    fn job(&mut self, job: Job) -> Option<Done> {
        let storage = &mut self.storage;
        Some(match job {
            Job::Write { ticket, group } => {
                let result = write(storage, group);
                self.owed = if storage.is_tight() { PIECES_OWED } else { 0 };
                Done::Written { ticket, result, superseded: false }
            }
            Job::Install { ticket, position, bytes, hard_state, group } => {
                // It makes a snapshot that is being saved useless, and takes the place of its file.
                let saving = self.saving.take();
                let superseded = saving.is_some();
                Done::Written {
                    ticket,
                    result: install(storage, position, bytes, hard_state, group),
                    superseded,
                }
            }
            Job::Read { to, message, first, last, bytes_max } => {
                Done::Read { to, message, result: storage.read(first, last, bytes_max) }
            }
            Job::Save { position, bytes } => match save(storage, position, bytes) {
                Ok(saving) => {
                    self.saving = Some(saving);
                    return None;
                }
                Err(error) => Done::Saved { result: Err(error) },
            },
            Job::OpenSnapshot { to, message } => {
                let opened = storage.open_snapshot();
                let result = opened.map(|opened| {
                    opened.map(|reader| self.readers.entry(to).insert_entry(reader).get().head())
                });
                Done::Opened { to, message, result }
            }
            Job::ReadSnapshot { to, offset, bytes_max } => {
                let result = self.readers.get(&to)?.read(offset, bytes_max);
                Done::SnapshotRead { to, offset, result }
            }
            Job::CloseSnapshot { to } => {
                self.readers.remove(&to);
                return None;
            }
            Job::KeepUnsent { bytes, leaving } => {
                let result = match bytes {
                    Some(bytes) => storage.keep_unsent(&bytes),
                    None => storage.forget_unsent(),
                };
                Done::UnsentKept { leaving, result }
            }
        })
    }

    /// Reports the first index of the log, if the log has dropped entries since the node last heard of it.
    fn first_index_news(&mut self) -> Option<Done> {
        let first = self.storage.first_index();
        (std::mem::replace(&mut self.first, first) < first).then_some(Done::Begins { first })
    }

    fn save_piece(&mut self) -> Option<Done> {
        self.owed = self.owed.saturating_sub(1);
        let saving = self.saving.as_mut()?;
        let result = match self.storage.step_snapshot(saving) {
            Ok(false) => return None,
            Ok(true) => Ok(self.storage.first_index()),
            Err(error) => Err(error),
        };
        self.saving = None;
        Some(Done::Saved { result })
    }
}

/// Begins to save a snapshot. It may be what makes room after a failed write, so the log is read again first.
fn save<F: FileSystem>(
    storage: &mut Storage<F>,
    position: Position,
    bytes: Bytes,
) -> Result<Saving<F::File>, WriteError> {
    if storage.is_poisoned() {
        recover(storage)?;
    }
    storage.begin_snapshot(position, bytes)
}

/// Writes a group; after a failure before, what is on disk is read again first.
fn write<F: FileSystem>(storage: &mut Storage<F>, mut group: WriteGroup) -> Result<(), WriteError> {
    if storage.is_poisoned() {
        recover(storage)?;
        // The group that failed may have reached the disk all the same, and comes again now.
        if let Some(first) = group.entries.first().map(|entry| entry.position.index)
            && storage.last().index >= first
        {
            let keep = first.prev();
            group.truncate_after = Some(group.truncate_after.map_or(keep, |after| after.min(keep)));
        }
    }
    storage.write(&group)
}

/// Replaces the log by a snapshot and writes what follows it.
fn install<F: FileSystem>(
    storage: &mut Storage<F>,
    position: Position,
    bytes: Bytes,
    hard_state: HardState,
    group: WriteGroup,
) -> Result<(), WriteError> {
    if storage.is_poisoned() {
        recover(storage)?;
    }
    storage.install_snapshot(position, bytes, hard_state)?;
    if group.entries.is_empty() { Ok(()) } else { write(storage, group) }
}

/// Reads the disk again: after a failed write or sync nothing in memory is trusted.
fn recover<F: FileSystem>(storage: &mut Storage<F>) -> Result<(), WriteError> {
    match storage.recover() {
        Ok(_) => Ok(()),
        Err(error) => Err(WriteError::Unrecovered(Box::new(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::snapshots::Snapshots;
    use crate::node::step::truncation;
    use crate::storage::faulty::FaultyFileSystem;
    use crate::storage::{Options, Owner};
    use std::path::Path;
    use tally_core::id::Term;
    use tally_core::raft::Persist;

    fn entries(indexes: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
        let entry = |index| Entry { position: at(index), payload: Bytes::from_static(b"entry") };
        indexes.map(entry).collect()
    }

    fn at(index: u64) -> Position {
        Position { index: LogIndex(index), term: Term(2), ..Position::ZERO }
    }

    #[test]
    fn an_installation_that_was_given_up_and_came_to_its_end_is_not_in_the_way_of_its_group() {
        let owner = Owner { site_id: 1, node: 1 };
        let fs = FaultyFileSystem::new(1);
        let (mut storage, _) = Storage::open(fs, Path::new("/data"), owner, Options::default()).unwrap();
        let (state, hard_state) = (Bytes::from_static(b"state"), HardState::default());
        let mut snapshots = Snapshots::new(LogIndex(0), 0);
        snapshots.on_received(at(9), state);
        let persist = |ticket, last| Persist {
            ticket,
            hard_state: None,
            reset: Some(at(9)),
            truncate_after: None,
            entries: Some((LogIndex(10), LogIndex(last))),
        };
        let (position, bytes) = snapshots.install_with(&persist(1, 11)).expect("it is not on disk");
        // The core was told that it failed, since it took so long; then the disk answers.
        let group = WriteGroup { entries: entries(10..=11), ..WriteGroup::default() };
        install(&mut storage, position, bytes, hard_state, group).unwrap();
        snapshots.on_installed(1);
        let again = persist(2, 12);
        assert_eq!(snapshots.install_with(&again), None);
        let truncate_after = truncation(&again, false);
        let group = WriteGroup { truncate_after, entries: entries(10..=12), ..WriteGroup::default() };
        write(&mut storage, group).unwrap();
        assert_eq!(storage.last(), at(12));
    }
}
