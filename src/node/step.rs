//! One step of the node: everything that follows from its inputs, in a fixed order.

use bytes::Bytes;
use tally_core::id::{Epoch, LogIndex, ReportNumber, SourceId, Term};
use tally_core::raft::{Event, LogView, Persist, Role};
use tracing::{error, info, warn};

use super::disk::Job;
use super::reads::Asker;
use super::wire::{APPEND_BYTES_MAX, Frame};
use super::{Node, NodeError, RoleView};
use crate::accumulator::{Batch, Limits, ReadingsMode};
use crate::deliberate::{self, Bug};
use crate::request::RequestError;
use crate::site::entry::{self, ReportWriter, SourceKind};
use crate::site::{Applied, Body, Envelope, LastApplied, Level, OpenRefused, Verdict};
use crate::storage::WriteGroup;
use crate::transport::Lane;

impl Node {
    /// Does all that follows from what came in and from the time.
    pub fn step(&mut self) {
        let now = self.now();
        if now >= self.raft.poll_timeout() {
            self.raft.handle_timeout(now);
        }
        self.give_up_hung_disk();
        self.take_events();
        if self.release_withheld() {
            self.take_events();
        }
        self.check_state();
        self.notice_leader();
        self.answer_before_stop();
        self.keep_timeouts();
        self.look_for_successor();
        self.keep_unsent_file();
        self.send_own_batch();
        self.send_proposals();
        self.propose_by_time();
        self.append_gathered();
        // A wrong state says wrongly who the members are to be.
        if !self.state_check.is_out() {
            self.step_membership();
        }
        self.advance_reads();
        self.send_messages();
        self.persist();
        // A leader of one, or one whose followers were quicker than its own disk, may commit by now.
        self.apply();
        // Whoever was just answered, here or at another box, may be followed by the next at once.
        self.tell_commits();
        self.keep_unsent_file();
        self.send_own_batch();
        self.append_gathered();
        self.advance_stop();
        self.send_messages();
        self.send_snapshots();
        self.persist();
        self.snapshot_if_due();
        self.refresh_status();
        self.shared.rounds.raise();
    }

    /// Tells boxes that wait for the commit of what they proposed.
    fn tell_commits(&mut self) {
        let commit = self.raft.commit_index();
        for (peer, _) in self.tell_commit.extract_if(.., |_, index| *index <= commit) {
            self.raft.request_heartbeat(peer);
        }
    }

    /// Once a term: a campaign that wins at once is over before it is seen.
    fn count_campaign(&mut self) {
        let term = self.raft.term();
        if std::mem::replace(&mut self.campaigned, term) != term {
            self.shared.metrics.campaigns.raise();
        }
    }

    fn take_events(&mut self) {
        if self.raft.role() == Role::Candidate {
            self.count_campaign();
        }
        while let Some(event) = self.raft.poll_event() {
            match event {
                Event::BecameLeader { noop } => {
                    self.shared.metrics.leaderships.raise();
                    self.count_campaign();
                    info!("this box is the leader in term {}", noop.term);
                    self.tail.push(noop, Bytes::new());
                    self.members.begin_to_lead(noop.index);
                    self.close_proposed = LogIndex::ZERO;
                    self.transfers.successors.begin_term();
                    self.begin_leading();
                }
                Event::SteppedDown { term } => {
                    info!("this box is no longer the leader (term {term})");
                    self.end_transfer();
                    self.end_leading();
                    for (peer, id) in self.reads.on_step_down(self.moment.now) {
                        self.answer_read(peer, id, None);
                    }
                }
                Event::OwnEntry { entry, configuration } => self.store_own(entry, configuration),
                Event::ConfigurationChanged(entry) => self.on_configuration(&entry),
                Event::TransferFailed { to } => self.on_transfer_failed(to),
                Event::LeaderChanged { leader, term } => {
                    self.transfers.set_asked(false);
                    self.shared.metrics.leader_changes.raise();
                    // The one before may have removed itself.
                    self.know_members();
                    match leader.filter(|_| !self.leads()) {
                        Some(id) => {
                            let name = self.members.get(id).map_or("an unknown box", |it| &it.name);
                            info!("{name} is the leader in term {term}");
                        }
                        None if !self.leads() => info!("no leader is known in term {term}"),
                        None => {}
                    }
                }
            }
            self.status_at = None;
            self.show_role();
        }
    }

    /// Tells the other rooms who leads. They do for a leader what its state says: with a wrong one it is none.
    pub(super) fn show_role(&mut self) {
        let leads = self.leads() && !self.state_check.is_out();
        let view = RoleView { leads, leader: self.raft.leader(), term: self.raft.term().0 };
        self.role.send_if_modified(|role| std::mem::replace(role, view) != view);
    }

    /// Puts a body into the log under this leader's stamp.
    pub(super) fn append(&mut self, body: Body) -> Result<LogIndex, String> {
        self.append_envelope(&Envelope::plain(body))
    }

    /// The same with the envelope that it came in.
    fn append_envelope(&mut self, envelope: &Envelope<Body>) -> Result<LogIndex, String> {
        // By the very code that will apply it, whoever made it: what cannot be read must not get into the log.
        entry::check(&envelope.inside).map_err(|error| error.to_string())?;
        self.append_checked(envelope)
    }

    /// The same for a body of which [`entry::check`] has said that it can be read.
    pub(super) fn append_checked(&mut self, envelope: &Envelope<Body>) -> Result<LogIndex, String> {
        let body = &envelope.inside;
        if body.len() as u64 + 64 > u64::from(APPEND_BYTES_MAX) {
            return Err(format!("an entry has at most {APPEND_BYTES_MAX} bytes"));
        }
        let now = self.now();
        let (stamp, step) = if entry::is_step_clock(body) {
            let stepped = self.leader_clock.step(now, self.moment.wall);
            let (stamp, step) = stepped.ok_or("too few boxes answered to compare their clocks")?;
            (stamp, Some(step))
        } else {
            (self.stamp().ok_or("too few boxes answered to know the time")?, None)
        };
        let payload = envelope.stamped(stamp);
        let range = self.raft.propose(now, 1, payload.len() as u64).map_err(|error| error.to_string())?;
        self.tail.replace_from(range, std::iter::once(payload));
        self.gathered.hurry(self.moment.now);
        if let Some(step) = step {
            self.leader_clock.on_step_logged(step);
        }
        Ok(range.first)
    }

    /// Sends an envelope to whoever leads.
    fn pass_to_leader(&mut self, envelope: &Envelope<Body>) -> bool {
        if self.leads() {
            if envelope.is_patient() {
                self.gather(self.shared.identity.node_id(), Envelope::plain(envelope.inside.clone()));
                return true;
            }
            self.gathered.drop_copy(envelope);
            return self.append_envelope(envelope).is_ok();
        }
        match self.raft.leader() {
            Some(leader) => self.send(leader, Lane::Requests, &Frame::Propose(envelope.encode())),
            None => false,
        }
    }

    /// The term of the leader to which this box's batches can go now. What is due for them is due only then.
    pub(super) fn batches_term(&self) -> Option<Term> {
        let term = self.leader_term().filter(|_| !self.is_saving())?;
        // A leader that does not know the time yet hears of it from the others.
        (!self.leads() || self.leader_clock.is_known()).then_some(term)
    }

    /// Opens the box's epoch, freezes a batch when one is due, sends it until its receipt comes.
    fn send_own_batch(&mut self) {
        let Some(term) = self.batches_term() else { return };
        let now = self.moment.now;
        if self.batches.should_open(term, now) {
            let nonce = self.batches.nonce();
            let name = self.shared.identity.me().name.clone();
            // The epoch follows from the nonce, so that a repeated request is the same bytes.
            let epoch = tally_core::id::Epoch((nonce >> 64) as u64);
            let body = entry::open(SourceKind::Box, &name, nonce, epoch);
            self.batches.on_epoch_asked(term, now);
            self.pass_to_leader(&Envelope::plain(body));
            return;
        }
        let Some((source, epoch)) = self.batches.epoch() else { return };
        let mut backlog = self.shared.accumulator.backlog();
        self.batches.follow_site_time(self.shared.clock.site_at(now), backlog, now);
        if self.batches.should_freeze(backlog, self.is_stopping(), now) {
            let number = self.batches.next_number();
            let writer = ReportWriter::new(source, epoch, number, 0);
            let batch = self.shared.accumulator.freeze(writer);
            let was_left_over = backlog.left_over;
            backlog = self.shared.accumulator.backlog();
            let patient = batch.waiting() == 0 && !was_left_over && !backlog.left_over;
            self.batches.on_frozen(batch, patient, now);
        }
        let hurry = backlog.waiting > 0 || self.is_stopping();
        if let Some((body, patient)) = self.batches.next_send(term, hurry, now) {
            let body = body.clone();
            let envelope = if patient { Envelope::patient(body) } else { Envelope::plain(body) };
            if deliberate::is(Bug::AnswersWhenSent) {
                self.batches.answer_at_once(&self.shared.site);
            }
            if !self.pass_to_leader(&envelope) {
                self.batches.on_not_sent(now);
            }
        }
    }

    fn send_proposals(&mut self) {
        let term = self.leader_term();
        let now = self.moment.now;
        for tag in self.proposals.due(term, now) {
            let Some(term) = term else { return };
            if let Some(envelope) = self.proposals.send(tag, term, now)
                && !self.pass_to_leader(&envelope)
            {
                self.proposals.on_not_sent(tag, now);
            }
        }
    }

    fn advance_reads(&mut self) {
        let now = self.moment.now;
        if self.state_check.is_out() {
            return self.reads.expire(now);
        }
        if self.leads() {
            if self.reads.any_unconfirmed() {
                let core_now = self.now();
                // Too early: a commit of this term wakes the loop.
                if let Ok(read) = self.raft.read_index(core_now) {
                    let replies = self.reads.take_fresh();
                    self.reads.await_round(read.round, read.index, Asker::Here(replies));
                }
            }
            let confirmed =
                if deliberate::is(Bug::ReadsWithoutRound) { u64::MAX } else { self.raft.read_confirmed() };
            for (peer, id, index) in self.reads.on_confirmed(confirmed) {
                self.answer_read(peer, id, Some(index));
            }
        } else if let (Some(leader), Some(term)) = (self.raft.leader(), self.leader_term())
            && let Some(id) = self.reads.question(term, now)
        {
            self.send(leader, Lane::Requests, &Frame::ReadIndex { id });
        }
        self.reads.expire(now);
        let applied = self.site().applied();
        self.reads.on_applied(applied);
    }

    fn persist(&mut self) {
        if self.disk_health.may_write(self.moment.now)
            && let Some(persist) = self.raft.poll_persist()
        {
            self.ask_disk(persist);
        }
    }

    fn ask_disk(&mut self, persist: Persist) {
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
        }
        let ticket = persist.ticket;
        let entries = match persist.entries {
            None => Vec::new(),
            Some((first, last)) => match self.tail.entries(first, last) {
                Some(entries) => entries,
                None => {
                    // What is not durable never leaves memory; if it did, acknowledging would be a lie.
                    error!("entries {first} to {last} must be written and are not in memory");
                    let now = self.now();
                    return self.raft.handle_persist_failed(now, ticket);
                }
            },
        };
        debug_assert!(
            entries.is_sorted_by(|before, after| before.position.index.next() == after.position.index),
            "the disk gets entries without a gap"
        );
        let installing = self.snapshots.install_with(&persist);
        let truncate_after = truncation(&persist, installing.is_some());
        let group = WriteGroup { hard_state: persist.hard_state, truncate_after, entries };
        let snapshot_bytes = installing.as_ref().map_or(0, |(_, bytes)| bytes.len() as u64);
        // Not since the wake: what the step did until now is none of the disk's delay.
        self.disk_health.on_write_begun(ticket, snapshot_bytes, self.shared.clock.now());
        self.disk.ask(match installing {
            Some((position, bytes)) => {
                Job::Install { ticket, position, bytes, hard_state: self.hard_state, group }
            }
            None => Job::Write { ticket, group },
        });
    }

    /// Applies what is committed, and tells those who wait.
    fn apply(&mut self) {
        let commit = match deliberate::is(Bug::AppliesUncommitted) {
            true => self.raft.last().index,
            false => self.raft.commit_index(),
        };
        let mut index = self.site().applied();
        // With a wrong state nothing more is said by it; what is committed meanwhile is applied to the right one.
        if index >= commit || self.state_check.is_out() {
            return;
        }
        while index < commit && self.failed.is_none() {
            index = index.next();
            let Some(payload) = self.tail.payload(index) else {
                warn!("entry {index} is committed and not in memory");
                return;
            };
            let Envelope { tag, inside: entry } = Envelope::read(payload).unwrap_or_default();
            let (applied, digest) = {
                let mut site = self.site();
                let applied = site.apply(index, &entry);
                debug_assert!(
                    applied.is_err() || site.applied() == index,
                    "entries are applied one after the other"
                );
                (applied, site.digest())
            };
            self.state_check.on_applied(index, digest);
            match applied {
                Ok(applied) => self.on_applied(index, tag, applied),
                Err(error) => {
                    self.failed = Some(NodeError::Entry { index: index.0, why: error.to_string() });
                }
            }
        }
        self.after_apply();
        self.advance_reads();
    }

    /// What follows from a new state: clocks, settings, waiters for indexes, memory.
    pub(super) fn after_apply(&mut self) {
        let (applied, stamp, limits) = {
            let site = self.site();
            (site.applied(), site.stamp(), Limits::of(&site))
        };
        let now = self.now();
        self.leader_clock.on_applied(stamp, now);
        self.shared.clock.applied(stamp.site, stamp.elapsed);
        self.shared.accumulator.configure(limits);
        self.take_readings();
        self.tell_held_jumps();
        self.tail.shrink(applied.min(self.raft.durable_index()));
        self.applied.send_replace(applied.0);
        self.reads.on_applied(applied);
    }

    /// Says when jumps of meters came to be held.
    fn tell_held_jumps(&mut self) {
        let held = self.site().held_jumps_len();
        if held > self.jumps_held {
            warn!(
                "{held} jumps of meters beyond step_max are held until a later reading confirms them: GET \
                 /v1/status shows them (meters.jumps)"
            );
        }
        self.jumps_held = held;
    }

    /// Tells whether readings of meters are taken: that is known once this box has its epoch, by which it had caught
    /// up with the site as it was then.
    fn take_readings(&self) {
        // An epoch of an earlier incarnation says nothing of what this box knows.
        if self.batches.epoch().is_some() && self.batches.earlier_count() == 0 {
            let taken = self.site().level() >= Level::TWO && !deliberate::is(Bug::MetersByProcess);
            let mode = if taken { ReadingsMode::Taken } else { ReadingsMode::Refused };
            self.shared.accumulator.set_readings_mode(mode);
        }
    }

    fn on_applied(&mut self, index: LogIndex, tag: Option<u64>, applied: Applied) {
        self.shared.metrics.entries_applied.raise();
        if let Some((term, reply)) = self.local_proposals.remove(&index) {
            let same = self.tail.position(index).is_some_and(|position| position.term == term);
            let lost =
                || RequestError::NotCommitted { why: "another leader's entry took its place".to_owned() };
            let _ = reply.send(if same { Ok(applied.clone()) } else { Err(lost()) });
        }
        match &applied {
            Applied::Opened { nonce, result } if *nonce == self.batches.nonce() => self.on_own_epoch(*result),
            Applied::Member { result: Ok(()), .. }
            | Applied::Joined { result: Ok(_), .. }
            | Applied::Members => {
                self.know_members();
            }
            Applied::Report { source, epoch, number, verdict, .. } => {
                if let Some(batch) = self.batches.take_judged(*source, *epoch, *number) {
                    self.on_own_receipt(batch, *number, verdict);
                }
            }
            Applied::Malformed => {
                self.shared.metrics.entries_malformed.raise();
                warn!("entry {index} is malformed: no box applies it");
            }
            Applied::Level(level) => info!("the site is at feature level {level}"),
            Applied::Stepped { from, to } => {
                warn!("an operator set site time from {from} ms to {to} ms");
                self.shared.clock.stepped(*to);
            }
            _ => {}
        }
        if let Some(tag) = tag {
            self.proposals.on_applied(tag, applied);
        }
    }

    /// The site opened this box's epoch, or refused to; a copy of the same entry may come again.
    fn on_own_epoch(&mut self, result: Result<(SourceId, Epoch), OpenRefused>) {
        match result {
            Ok((source, epoch)) => {
                if self.batches.opened(source, epoch) {
                    self.batches.readdress();
                }
            }
            Err(why) => self.batches.on_epoch_refused(why),
        }
    }

    fn on_own_receipt(&mut self, mut batch: Batch, number: ReportNumber, verdict: &Verdict) {
        match verdict {
            Verdict::Receipt { refused, keyed, .. } => {
                let answered = batch.waiting();
                self.shared.accumulator.readings_answered(&batch, refused);
                self.shared.accumulator.settle(&mut batch);
                batch.answer(&self.site(), refused, keyed);
                self.refused_cells.tell(refused);
                self.shared.metrics.cells_refused.add(refused.len() as u64);
                self.shared.metrics.adds_answered.add(answered as u64);
                let waiting = self.shared.accumulator.backlog().waiting;
                self.batches.on_answered(answered, waiting, self.moment.now);
                self.batches.load_next_earlier();
            }
            Verdict::OutOfOrder { last } if *last >= Some(number) => {
                self.shared.accumulator.settle(&mut batch);
                batch.give_up(
                    "the batch was applied before, and the site has forgotten the results of its cells",
                );
                match last {
                    // Somebody else used the numbers that would come next: under them nothing new would be counted.
                    Some(last) if *last >= self.batches.first_own_number() => {
                        warn!(
                            "this box's epoch was used elsewhere (is its data directory a copy?); opening a \
                             new one"
                        );
                        self.batches.give_up_kept(LastApplied::Number(*last));
                        self.batches.reopen(self.random.next_u128(), None);
                    }
                    _ => self.batches.load_next_earlier(),
                }
            }
            Verdict::UnknownEpoch { last } if last.may_include(number) => {
                // It was applied, or nobody knows: it never goes again, so nothing is counted twice.
                warn!("the site closed this box's epoch; opening a new one");
                self.shared.accumulator.settle(&mut batch);
                batch.give_up("the site closed this box's epoch and has forgotten the result");
                let given_up = self.batches.give_up_kept(*last);
                if given_up > 0 {
                    error!(
                        "the site has forgotten the results of {given_up} more batches that were saved at a \
                         stop: they are not sent again, because they may already be counted"
                    );
                }
                self.batches.reopen(self.random.next_u128(), None);
            }
            Verdict::Changed { .. } | Verdict::OutOfOrder { .. } | Verdict::UnknownEpoch { .. } => {
                // Certainly not applied, and never will be under this number.
                warn!("the site refused this box's report ({verdict:?}); sending it again under a new epoch");
                self.batches.reopen(self.random.next_u128(), Some(batch));
            }
        }
    }
}

/// After which entry those on disk are dropped. The core does not say it with a reset, which leaves none. A disk that
/// has installed the snapshot after all, when that was given up already, may also have entries that came with it.
pub(super) fn truncation(persist: &Persist, installs: bool) -> Option<LogIndex> {
    match persist.reset {
        Some(base) if !installs => Some(base.index),
        _ => persist.truncate_after,
    }
}
