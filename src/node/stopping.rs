//! How a box stops in good order: those who wait are answered, what was counted is committed or else saved, leadership
//! is handed over; all of it within the time that it is given.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Node;
use super::heirs::HandoverReason;

/// How long an orderly stop waits for what was counted here to be committed, where nobody says otherwise,
const STOP_WAIT: Duration = Duration::from_secs(5);
/// and then for the disk to save what was not.
const SAVE_WAIT: Duration = Duration::from_secs(2);
/// And, of the first, for another box that could lead.
const HEIR_WAIT: Duration = Duration::from_secs(1);

/// Until when a stop does what.
#[derive(Clone, Copy, Debug)]
pub struct StopTimes {
    /// What is not committed by then is saved for the next start.
    pub commit_by: Instant,
    /// The node ends.
    pub end_by: Instant,
}

impl Default for StopTimes {
    fn default() -> StopTimes {
        let commit_by = Instant::now() + STOP_WAIT;
        StopTimes { commit_by, end_by: commit_by + SAVE_WAIT }
    }
}

#[derive(Debug)]
pub(super) struct Stopping {
    since: Instant,
    times: StopTimes,
    pub(super) saving: Saving,
    reply: oneshot::Sender<()>,
}

impl Stopping {
    pub(super) fn new(times: StopTimes, reply: oneshot::Sender<()>) -> Stopping {
        Stopping { since: Instant::now(), times, saving: Saving::No, reply }
    }

    /// Somebody is in a hurry: what is not committed by now is saved.
    pub(super) fn hurry(&mut self) {
        self.times.commit_by = Instant::now();
    }
}

/// What becomes of what was gathered and not committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saving {
    /// It is still to be committed.
    No,
    /// The disk writes it.
    Asked,
    /// Nothing is left to be done.
    Done,
}

impl Node {
    /// Whether the box stops or is about to: nothing waits for company any more.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_some() || self.answer_by.is_some()
    }

    /// Whether what was gathered is in the file, or on its way: nothing else may become of it in this life.
    pub(super) fn is_saving(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stopping| stopping.saving != Saving::No)
    }

    /// When the loop must look whether it is over.
    pub(super) fn stop_due(&self) -> Option<Instant> {
        let now = Instant::now();
        let of_stop = self.stopping.as_ref().map(|stopping| match stopping.saving {
            Saving::No => stopping.times.commit_by,
            Saving::Asked | Saving::Done => stopping.times.end_by,
        });
        [of_stop, self.answer_by].into_iter().flatten().filter(|due| *due > now).min()
    }

    /// Tells those who wait what is known, in time for their connections to carry it.
    pub(super) fn answer_before_stop(&mut self) {
        let Some(by) = self.answer_by else { return };
        if Instant::now() >= by || self.shared.leaderless.load(Ordering::Relaxed) {
            self.shared.accumulator.give_up_waiting("this box stops");
            self.batches.leave_waiters();
        }
    }

    pub(super) fn may_leave(&mut self) -> bool {
        let now = Instant::now();
        let Some(Stopping { times, saving, .. }) = &self.stopping else { return false };
        match saving {
            Saving::Done => return true,
            Saving::Asked if now < times.end_by => return false,
            Saving::Asked => {
                tracing::error!(
                    "the disk does not answer: what was gathered and not committed may not be saved"
                );
                return true;
            }
            Saving::No => {}
        }
        let is_late = now >= times.commit_by;
        let backlog = self.shared.accumulator.backlog();
        let is_committed = self.batches.is_settled() && backlog.waiting == 0 && backlog.cells == 0;
        if is_committed {
            return is_late || (self.proposals.len() == 0 && !self.hands_over());
        }
        // There is nobody to commit it.
        if !is_late && !self.shared.leaderless.load(Ordering::Relaxed) {
            return false;
        }
        let saving = self.save_unsent();
        if let Some(stopping) = &mut self.stopping {
            stopping.saving = saving;
        }
        saving == Saving::Done
    }

    /// Whether a leader that stops still has somebody to take over from it.
    fn hands_over(&mut self) -> bool {
        if !self.leads() {
            return false;
        }
        self.is_handing_over() || self.hand_over(None, HandoverReason::Stopping).is_ok() || self.awaits_heir()
    }

    /// Whether a box that stops waits for another one to be able to take over: one that is connected may be a little
    /// behind, or not have answered for a moment.
    fn awaits_heir(&self) -> bool {
        let configuration = self.raft.configuration();
        let others = configuration.voters().filter(|id| configuration.witness() != Some(*id));
        let is_there = others.filter(|id| self.connected.contains(id)).count() > 0;
        let waits = |stopping: &Stopping| Instant::now() < stopping.since + HEIR_WAIT;
        is_there && self.stopping.as_ref().is_some_and(waits)
    }

    /// Hands over as well as it can and tells the others.
    pub(super) async fn leave(mut self) {
        let now = self.now();
        self.raft.resign(now);
        if let Some(transport) = &self.transport {
            transport.close().await;
        }
        if let Some(stopping) = self.stopping.take() {
            self.disk.end_by(stopping.times.end_by);
            // Whoever asked may have given up waiting.
            let _ = stopping.reply.send(());
        }
    }
}
