//! When the box freezes and sends its batches, and their receipts. Pure decisions: the node acts on them.
//!
//! One batch is in flight at a time. After its receipt the next one is frozen as soon as as many requests wait as were
//! just answered or waiting, and after 5 ms at most: so clients in a closed loop share one sync instead of splitting
//! into two halves, and a single client never waits. Counts without a waiter go once an interval (`instants`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tally_core::id::{Epoch, ReportNumber, SourceId, Term};
use tally_core::time::SiteTime;

use super::instants::Instants;
use super::unsent::Unsent;
use crate::accumulator::{Backlog, Batch};
use crate::deliberate::{self, Bug};
use crate::site::{Body, LastApplied, OpenRefused, readdress};

/// How long a batch waits for the clients that were just answered.
const GATHER: Duration = Duration::from_millis(5);
/// The first wait before a batch or an opening without an answer is sent again to the same leader.
const RESEND_FIRST: Duration = Duration::from_millis(500);
/// The longest such wait.
const RESEND_MAX: Duration = Duration::from_secs(4);
/// When the file of unsent batches is tried again.
const FILE_AGAIN: Duration = Duration::from_secs(1);

/// The box as a source: its epoch, and its batches.
#[derive(Debug)]
pub(super) struct Batches {
    /// Names this incarnation of the box's memory.
    nonce: u128,
    epoch: Option<(SourceId, Epoch)>,
    next: ReportNumber,
    in_flight: Option<InFlight>,
    /// Batches that an earlier incarnation froze: they follow the one in flight, the first of them under the next
    /// number.
    kept: VecDeque<Body>,
    file: File,
    /// The disk is writing the file.
    file_asked: bool,
    opening: Option<Sending>,
    /// Why the site did not open an epoch when it was asked last.
    refused: Option<OpenRefused>,
    /// The batch in flight was frozen under an epoch that is gone.
    readdresses: bool,
    /// When counts that nobody waits for are frozen.
    instants: Instants,
    target: usize,
    gather_until: Instant,
    sent: u64,
}

/// The content of the file of unsent batches (see `unsent`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum File {
    /// There is no file, or the site has answered for all of it.
    None,
    /// The batch in flight and those after it, perhaps also some that the site has answered for since.
    Current,
    /// The file must be rewritten before anything is sent, from that instant on.
    Stale(Option<Instant>),
    Writing,
}

/// What the disk must do with the file of unsent batches.
#[derive(Debug)]
pub(super) enum FileTask {
    Write(Unsent),
    Remove,
}

#[derive(Debug)]
struct InFlight {
    batch: Batch,
    number: ReportNumber,
    sending: Option<Sending>,
    /// Nobody waits for this batch or behind it: the leader may gather it with those of other boxes.
    patient: bool,
}

/// When something was last sent, and to the leader of which term.
#[derive(Clone, Copy, Debug)]
struct Sending {
    term: Term,
    at: Instant,
    wait: Duration,
}

impl Sending {
    fn is_due(sending: Option<Sending>, term: Term, now: Instant) -> bool {
        sending.is_none_or(|sent| sent.term != term || now >= sent.at + sent.wait)
    }

    fn repeated(sending: Option<Sending>, term: Term, now: Instant) -> Sending {
        let wait = match sending {
            Some(sent) if sent.term == term => (sent.wait * 2).min(RESEND_MAX),
            _ => RESEND_FIRST,
        };
        Sending { term, at: now, wait }
    }
}

impl Batches {
    pub(super) fn new(nonce: u128, commit_interval: Duration, now: Instant) -> Batches {
        Batches {
            nonce,
            epoch: None,
            next: ReportNumber::FIRST,
            in_flight: None,
            kept: VecDeque::new(),
            file: File::None,
            file_asked: false,
            opening: None,
            refused: None,
            readdresses: false,
            instants: Instants::new(commit_interval, now),
            target: 1,
            gather_until: now,
            sent: 0,
        }
    }

    /// The nonce under which this box's epoch is opened.
    pub(super) fn nonce(&self) -> u128 {
        self.nonce
    }

    /// The open epoch.
    pub(super) fn epoch(&self) -> Option<(SourceId, Epoch)> {
        self.epoch
    }

    /// Counts that nobody waits for are frozen so often.
    pub(super) fn commit_every(&mut self, interval: Duration) {
        self.instants.set_every(interval);
    }

    /// How long a leader waits for what others send at the same instant.
    pub(super) fn join_wait(&self) -> Duration {
        self.instants.join_wait()
    }

    /// Sets the next instant for counts without a waiter, by site time.
    pub(super) fn follow_site_time(&mut self, site: Option<SiteTime>, backlog: Backlog, now: Instant) {
        self.instants.on_site_time(site, backlog.cells == 0, now);
    }

    /// How many batches were frozen.
    pub(super) fn frozen_count(&self) -> u64 {
        self.sent
    }

    /// Whether the site has answered for all frozen batches, those of an earlier incarnation included.
    pub(super) fn is_settled(&self) -> bool {
        (self.in_flight.is_none() || deliberate::is(Bug::LeavesInFlight)) && self.file == File::None
    }

    /// How many batches of an earlier incarnation the site has not answered for yet.
    pub(super) fn earlier_count(&self) -> usize {
        match self.file {
            File::None => 0,
            _ => self.kept.len() + usize::from(self.in_flight.is_some()),
        }
    }

    /// Continues with the batches that an earlier incarnation saved.
    pub(super) fn resume(&mut self, unsent: Unsent) {
        let Unsent { nonce, epoch, first, bodies } = unsent;
        (self.nonce, self.epoch, self.next) = (nonce, epoch, first);
        if deliberate::is(Bug::RenumbersSaved) {
            self.next = first.next();
        }
        self.readdresses = epoch.is_none();
        self.kept = bodies.into();
        self.file = File::Current;
        self.load_next_earlier();
        if deliberate::is(Bug::SavedUnderNewEpoch) {
            let batch = self.in_flight.take().map(|flying| flying.batch);
            self.reopen(!nonce, batch);
        }
    }

    /// Puts the next batch of an earlier incarnation in flight, if there is one and none is.
    pub(super) fn load_next_earlier(&mut self) {
        if self.in_flight.is_none()
            && let Some(body) = self.kept.pop_front()
        {
            let batch = Batch::of_body(body);
            self.in_flight = Some(InFlight::new(batch, self.next));
            self.next = self.next.next();
        }
    }

    /// The number of the first batch that this incarnation would freeze, after all that are frozen already.
    pub(super) fn first_own_number(&self) -> ReportNumber {
        let mut number = self.next;
        self.kept.iter().for_each(|_| number = number.next());
        number
    }

    /// The frozen batches without a receipt, and whether the file has exactly these.
    pub(super) fn unsent(&self) -> (Unsent, bool) {
        let flying = self.in_flight.as_ref();
        let bodies = flying.map(|flying| flying.batch.body.clone()).into_iter();
        let unsent = Unsent {
            nonce: self.nonce,
            epoch: self.epoch,
            first: flying.map_or(self.next, |flying| flying.number),
            bodies: bodies.chain(self.kept.iter().cloned()).collect(),
        };
        (unsent, self.file == File::Current)
    }

    /// What must be done with the file now; the caller does it and calls [`Batches::file_done`].
    pub(super) fn file_task(&mut self, now: Instant) -> Option<FileTask> {
        if self.file_asked {
            return None;
        }
        let is_over = self.in_flight.is_none() && self.kept.is_empty()
            || deliberate::is(Bug::RemovesFileEarly) && self.epoch.is_some();
        let task = match self.file {
            File::Current | File::Stale(_) if is_over => FileTask::Remove,
            File::Stale(due) if self.epoch.is_some() && due.is_none_or(|due| now >= due) => {
                self.file = File::Writing;
                FileTask::Write(self.unsent().0)
            }
            _ => return None,
        };
        self.file_asked = true;
        Some(task)
    }

    /// The file was written or removed, or could not be.
    pub(super) fn file_done(&mut self, is_done: bool, now: Instant) {
        self.file_asked = false;
        if self.file == File::Writing {
            self.file = if is_done { File::Current } else { File::Stale(Some(now + FILE_AGAIN)) };
        }
    }

    /// All of the file was judged. What is counted from now on goes under an epoch of this incarnation's own: the
    /// numbers that follow those of a file are never used by another incarnation, whatever became of the file.
    pub(super) fn file_is_over(&mut self, nonce: u128) {
        self.file = File::None;
        self.reopen(nonce, None);
    }

    /// The batch in flight goes on without those who wait for it.
    pub(super) fn leave_waiters(&mut self) {
        if let Some(InFlight { batch, .. }) = &mut self.in_flight
            && batch.waiting() > 0
        {
            let body = std::mem::take(&mut batch.body);
            let left = std::mem::replace(batch, Batch::of_body(body));
            left.give_up("this box stopped before the site answered");
        }
    }

    /// The epoch is over. Of the batches of an earlier incarnation those are given up that may have been applied;
    /// how many.
    pub(super) fn give_up_kept(&mut self, last: LastApplied) -> usize {
        let before = self.kept.len();
        while !self.kept.is_empty() && last.may_include(self.next) {
            self.kept.pop_front();
            self.next = self.next.next();
        }
        before - self.kept.len()
    }

    /// Whether the epoch should be asked for now, of the leader of this term.
    pub(super) fn should_open(&self, term: Term, now: Instant) -> bool {
        self.epoch.is_none() && Sending::is_due(self.opening, term, now)
    }

    /// The epoch was requested from the leader of this term.
    pub(super) fn on_epoch_asked(&mut self, term: Term, now: Instant) {
        self.opening = Some(Sending::repeated(self.opening, term, now));
    }

    /// The epoch is open. Returns whether a frozen batch must be readdressed to it: only after a
    /// [`reopen`](Self::reopen), and once. The entry may come again, and by then other batches are in flight.
    #[must_use]
    pub(super) fn opened(&mut self, source: SourceId, epoch: Epoch) -> bool {
        if self.epoch.is_some() {
            return deliberate::is(Bug::OpenedAddressesAnew);
        }
        self.epoch = Some((source, epoch));
        self.opening = None;
        self.refused = None;
        std::mem::take(&mut self.readdresses)
    }

    /// The site opens no epoch for this box now; it is asked again.
    pub(super) fn on_epoch_refused(&mut self, why: OpenRefused) {
        if self.epoch.is_none() && self.refused != Some(why) {
            tracing::error!(
                "the site opens no epoch for this box, so the box cannot commit what it counts: {why}"
            );
            self.refused = Some(why);
        }
    }

    /// Why the site does not take what this box counts.
    pub(super) fn refusal(&self) -> Option<OpenRefused> {
        self.refused
    }

    /// Whether the next batch should be frozen now. `stopping`: do not wait for company.
    pub(super) fn should_freeze(&self, backlog: Backlog, stopping: bool, now: Instant) -> bool {
        if !self.is_settled() || self.epoch.is_none() {
            return false;
        }
        let gathered = backlog.waiting >= self.target || now >= self.gather_until || stopping;
        // What found no room in the last batch has waited for long enough.
        let idle_due = stopping || backlog.left_over || now >= self.instants.due();
        (backlog.waiting > 0 && gathered) || (backlog.cells > 0 && idle_due)
    }

    /// The number of the batch that is to be frozen.
    pub(super) fn next_number(&self) -> ReportNumber {
        self.next
    }

    /// A batch was frozen under the next number. `patient`: nobody waits for it, nor for what follows it.
    pub(super) fn on_frozen(&mut self, batch: Batch, patient: bool, now: Instant) {
        debug_assert!(self.is_settled(), "one batch is in flight, and its number is the one after the last");
        self.in_flight = Some(InFlight { patient, ..InFlight::new(batch, self.next) });
        self.next = self.next.next();
        self.instants.on_sent(now);
        self.sent += 1;
    }

    /// The body to send now to the leader of this term, if it is due, and whether it is patient. What goes again is
    /// not, and goes at once if somebody has come to wait behind it (`hurry`).
    pub(super) fn next_send(&mut self, term: Term, hurry: bool, now: Instant) -> Option<(&Body, bool)> {
        if matches!(self.file, File::Stale(_) | File::Writing) {
            return None;
        }
        let in_flight = self.in_flight.as_mut()?;
        let is_hurried = in_flight.patient && hurry;
        if !is_hurried && !Sending::is_due(in_flight.sending, term, now) {
            return None;
        }
        in_flight.patient &= !hurry && in_flight.sending.is_none();
        in_flight.sending = Some(Sending::repeated(in_flight.sending, term, now));
        Some((&in_flight.batch.body, in_flight.patient))
    }

    /// A deliberate bug: answers the waiters of the batch in flight as if it were applied.
    pub(super) fn answer_at_once(&mut self, site: &std::sync::Mutex<crate::site::Site>) {
        if let Some(InFlight { batch, .. }) = &mut self.in_flight
            && batch.waiting() > 0
        {
            let body = std::mem::take(&mut batch.body);
            let answered = std::mem::replace(batch, Batch::of_body(body));
            if let Ok(site) = site.lock() {
                answered.answer(&site, &[], &[]);
            }
        }
    }

    /// The batch could not be sent: it is tried again with a new leader at once, otherwise a little later.
    pub(super) fn on_not_sent(&mut self, now: Instant) {
        if let Some(sending) = self.in_flight.as_mut().and_then(|in_flight| in_flight.sending.as_mut()) {
            sending.at = now;
            sending.wait = Duration::from_millis(20);
        }
    }

    /// Takes the batch that this receipt is for, if it is the one in flight.
    pub(super) fn take_judged(
        &mut self,
        source: SourceId,
        epoch: Epoch,
        number: ReportNumber,
    ) -> Option<Batch> {
        if self.epoch != Some((source, epoch)) {
            return None;
        }
        self.in_flight.take_if(|in_flight| in_flight.number == number).map(|in_flight| in_flight.batch)
    }

    /// So many waiters were answered, and so many wait again already.
    pub(super) fn on_answered(&mut self, answered: usize, waiting: usize, now: Instant) {
        self.target = (answered + waiting).max(1);
        self.gather_until = now + GATHER;
    }

    /// The site has closed this epoch: the frozen batch goes again under a new one, as number one, and those of an
    /// earlier incarnation after it.
    pub(super) fn reopen(&mut self, nonce: u128, batch: Option<Batch>) {
        self.nonce = nonce;
        self.epoch = None;
        self.opening = None;
        self.next = ReportNumber::FIRST;
        self.in_flight = batch.map(|batch| {
            self.next = ReportNumber::FIRST.next();
            InFlight::new(batch, ReportNumber::FIRST)
        });
        self.load_next_earlier();
        self.readdresses = self.in_flight.is_some();
        if self.file != File::None {
            self.file = File::Stale(None);
        }
    }

    /// Addresses what is frozen to the epoch that was opened for it.
    pub(super) fn readdress(&mut self) {
        let Some((source, epoch)) = self.epoch else { return };
        let Some(InFlight { batch, number, .. }) = &mut self.in_flight else { return };
        let mut number = *number;
        for body in std::iter::once(&mut batch.body).chain(&mut self.kept) {
            // It was written here, or checked when it was read.
            if let Ok(readdressed) = readdress(body, source, epoch, number) {
                *body = readdressed;
            }
            number = number.next();
        }
        if self.file != File::None {
            self.file = File::Stale(None);
        }
    }

    /// When something here is due next, given what waits and whether a leader is known.
    pub(super) fn due(&self, backlog: Backlog, leader: bool) -> Option<Instant> {
        if !leader {
            return None;
        }
        if self.epoch.is_none() {
            return self.opening.map(|sent| sent.at + sent.wait);
        }
        if let Some(in_flight) = &self.in_flight {
            return in_flight.sending.map(|sent| sent.at + sent.wait);
        }
        let gather = (backlog.waiting > 0).then_some(self.gather_until);
        // Also where nothing waits now: counts that come until then are there without a word.
        let idle = if backlog.left_over { self.instants.last_sent() } else { self.instants.due() };
        gather.into_iter().chain((self.file == File::None).then_some(idle)).min()
    }
}

impl InFlight {
    fn new(batch: Batch, number: ReportNumber) -> InFlight {
        InFlight { batch, number, sending: None, patient: false }
    }
}

#[cfg(test)]
#[path = "batches_tests.rs"]
mod tests;
