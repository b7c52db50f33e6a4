//! An orderly stop: waiters are answered, counts are committed or else saved, leadership is transferred, all within
//! the given time.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::disk::Job;
use super::successors::TransferReason;
use super::{Node, NodeError};

/// The wait before a save that the disk did not take is tried again.
const SAVE_AGAIN: Duration = Duration::from_millis(250);
/// How long a stop waits for another box that could lead.
const SUCCESSOR_WAIT: Duration = Duration::from_secs(1);

/// The deadlines of an orderly stop.
#[derive(Clone, Copy, Debug)]
pub struct StopTimes {
    /// Counts that are not committed by then are saved for the next start.
    pub commit_by: Instant,
    /// The node ends by then.
    pub end_by: Instant,
}

#[cfg(test)]
impl StopTimes {
    /// Enough for what a test has.
    pub(super) fn from(now: Instant) -> StopTimes {
        let commit_by = now + Duration::from_secs(5);
        StopTimes { commit_by, end_by: commit_by + Duration::from_secs(2) }
    }
}

#[derive(Debug)]
pub(super) struct Stopping {
    since: Instant,
    times: StopTimes,
    pub(super) saving: Saving,
    replies: Vec<oneshot::Sender<()>>,
    /// The bytes to save, until they are saved.
    unsaved: Option<Vec<u8>>,
    /// When a save that the disk did not take is tried again.
    again_at: Option<Instant>,
    /// Some counts could neither be committed nor saved.
    pub(super) lost: bool,
}

impl Stopping {
    pub(super) fn new(times: StopTimes, reply: oneshot::Sender<()>, now: Instant) -> Stopping {
        Stopping {
            since: now,
            times,
            saving: Saving::No,
            replies: vec![reply],
            unsaved: None,
            again_at: None,
            lost: false,
        }
    }

    /// The stop is requested again: the one in progress continues.
    pub(super) fn asked_again(&mut self, times: StopTimes, reply: oneshot::Sender<()>) {
        self.times.commit_by = self.times.commit_by.min(times.commit_by);
        self.times.end_by = self.times.end_by.min(times.end_by);
        self.replies.push(reply);
    }

    /// Hurries the stop: counts that are not committed by now are saved.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.times.commit_by = now;
    }
}

/// What remains of a node that has stopped.
#[derive(Debug)]
pub struct StoppedNode {
    /// Why it ended, if no stop was requested.
    pub failed: Option<NodeError>,
    /// The process waits for the disk until then at most.
    pub end_by: Option<Instant>,
    /// The requesters of the stop, who wait for its end.
    pub replies: Vec<oneshot::Sender<()>>,
    /// Some counts could neither be committed nor saved; the simulation asks for it.
    pub lost: bool,
}

/// The progress of saving what was gathered and not committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saving {
    /// Not begun: it may still be committed.
    No,
    /// The disk is writing it.
    Asked,
    /// Finished, or given up.
    Done,
}

impl Node {
    /// Whether the box stops or is about to: batches no longer wait for company.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_some() || self.answer_by.is_some()
    }

    /// Whether the gathered counts are in the file or being written to it: this incarnation must not send them any
    /// more.
    pub(super) fn is_saving(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stopping| stopping.saving != Saving::No)
    }

    /// When the loop must check the stop again.
    pub(super) fn stop_due(&self) -> Option<Instant> {
        let now = self.moment.now;
        let of_stop = self.stopping.as_ref().map(|stopping| match stopping.saving {
            Saving::No => stopping.times.commit_by,
            Saving::Asked | Saving::Done => {
                stopping.again_at.map_or(stopping.times.end_by, |at| at.min(stopping.times.end_by))
            }
        });
        [of_stop, self.answer_by].into_iter().flatten().filter(|due| *due > now).min()
    }

    /// Answers the waiters with what is known, in time for their connections to send it.
    pub(super) fn answer_before_stop(&mut self) {
        let Some(by) = self.answer_by else { return };
        if self.moment.now >= by || self.shared.leaderless.load(Ordering::Relaxed) {
            self.shared.accumulator.give_up_waiting("this box is stopping");
            self.batches.leave_waiters();
        }
    }

    /// Whether the stop is complete.
    pub fn is_over(&self) -> bool {
        self.failed.is_some()
            || self.stopping.as_ref().is_some_and(|stopping| stopping.saving == Saving::Done)
    }

    /// The next step of a stop: transfers leadership, or saves what nobody will commit.
    pub(super) fn advance_stop(&mut self) {
        let now = self.moment.now;
        let Some(Stopping { times, saving, .. }) = &self.stopping else { return };
        let (times, saving) = (*times, *saving);
        match saving {
            Saving::Done => return,
            Saving::Asked => {
                if now >= times.end_by {
                    tracing::error!("the disk does not answer in time: uncommitted counts may not be saved");
                    self.on_save_given_up();
                } else if self.stopping.as_mut().and_then(|it| it.again_at.take_if(|at| *at <= now)).is_some()
                {
                    self.ask_to_save();
                }
                return;
            }
            Saving::No => {}
        }
        let is_late = now >= times.commit_by;
        let backlog = self.shared.accumulator.backlog();
        let is_committed = self.batches.is_settled() && backlog.waiting == 0 && backlog.cells == 0;
        if is_committed {
            if is_late || (self.proposals.len() == 0 && !self.transfer_before_stop()) {
                self.set_saving(Saving::Done);
            }
            return;
        }
        // With a leader somebody may still commit it.
        if is_late || self.shared.leaderless.load(Ordering::Relaxed) {
            let saving = self.save_unsent();
            self.set_saving(saving);
        }
    }

    /// Has the disk save these bytes for the next incarnation.
    pub(super) fn save_for_next_incarnation(&mut self, bytes: Vec<u8>) {
        if let Some(stopping) = &mut self.stopping {
            stopping.unsaved = Some(bytes);
        }
        self.ask_to_save();
    }

    fn ask_to_save(&self) {
        let bytes = self.stopping.as_ref().and_then(|stopping| stopping.unsaved.clone());
        if bytes.is_some() {
            self.disk.ask(Job::KeepUnsent { bytes, leaving: true });
        }
    }

    /// The disk did not take the save: it is tried again while there is time.
    pub(super) fn on_not_saved(&mut self) {
        if let Some(stopping) = &mut self.stopping {
            stopping.again_at = Some(self.moment.now + SAVE_AGAIN);
        }
    }

    /// Gives the save up: the uncommitted counts are lost.
    pub(super) fn on_save_given_up(&mut self) {
        if let Some(stopping) = &mut self.stopping {
            (stopping.saving, stopping.lost) = (Saving::Done, true);
        }
    }

    pub(super) fn set_saving(&mut self, saving: Saving) {
        if let Some(stopping) = &mut self.stopping {
            stopping.saving = saving;
        }
    }

    /// Begins to transfer leadership, if it can. Returns whether a successor may still take over.
    fn transfer_before_stop(&mut self) -> bool {
        if !self.leads() {
            return false;
        }
        self.is_transferring()
            || self.transfer_leadership(None, TransferReason::Stopping).is_ok()
            || self.awaits_successor()
    }

    /// Whether a box that stops waits for another one to be able to take over: one that is connected may be a little
    /// behind, or not have answered for a moment.
    fn awaits_successor(&self) -> bool {
        let configuration = self.raft.configuration();
        let others = configuration.voters().filter(|id| configuration.witness() != Some(*id));
        let is_there = others.filter(|id| self.connected.contains(id)).count() > 0;
        let waits = |stopping: &Stopping| self.moment.now < stopping.since + SUCCESSOR_WAIT;
        is_there && self.stopping.as_ref().is_some_and(waits)
    }

    /// Ends the node: why it ended, and what is still to be answered.
    pub fn finish(mut self) -> StoppedNode {
        let now = self.now();
        self.raft.resign(now);
        let failed = self.failed.take();
        let backlog = self.shared.accumulator.backlog();
        if self.stopping.is_some() && backlog.cells > 0 {
            tracing::warn!("counts of {} series arrived after the stop began and are lost", backlog.cells);
        }
        match self.stopping.take() {
            None => StoppedNode { failed, end_by: None, replies: Vec::new(), lost: false },
            Some(Stopping { times, replies, lost, .. }) => {
                StoppedNode { failed, end_by: Some(times.end_by), replies, lost }
            }
        }
    }
}
