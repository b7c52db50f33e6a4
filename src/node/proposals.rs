//! Bodies that a waiter on this node has proposed: sent to the leader until they are applied, which gives the waiter's
//! answer.
//!
//! Each body has a random tag, by which the box recognises its own entries when it applies them.

use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tally_core::id::{ReportNumber, Term};
use tokio::sync::oneshot;

use super::handle::{NO_LEADER, REQUEST_WAIT};
use crate::request::RequestError;
use crate::site::{Applied, Body, Envelope, Verdict};

/// Most requests that may be on their way from one box.
const PENDING_MAX: usize = 16_384;
/// When one is sent again to the same leader.
const RESEND: Duration = Duration::from_secs(1);
/// When one that could not be sent is tried again: the connection or the leader's room may come back.
const TRY_AGAIN: Duration = Duration::from_millis(20);
/// A body is given up here a little before its client gives up, so that the client hears why.
const GIVE_UP: Duration = REQUEST_WAIT.saturating_sub(Duration::from_millis(500));

/// Who waits for which tag.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    pending: HashMap<u64, Pending>,
}

#[derive(Debug)]
struct Pending {
    envelope: Envelope<Body>,
    reply: oneshot::Sender<Result<Applied, RequestError>>,
    /// How many went off.
    copies: u32,
    began: Instant,
    /// To the leader of which term it was sent last, or was to be, and from when on that one may get it again.
    tried: Option<(Term, Instant)>,
}

impl Proposals {
    /// Takes a body; it is sent by the next [`due`](Self::due).
    pub(super) fn add(
        &mut self,
        tag: u64,
        body: Body,
        reply: oneshot::Sender<Result<Applied, RequestError>>,
        now: Instant,
    ) {
        if self.pending.len() >= PENDING_MAX {
            // The client may have gone.
            let _ = reply.send(Err(RequestError::TooBusy));
            return;
        }
        let envelope = Envelope::tagged(tag, body);
        self.pending.insert(tag, Pending { envelope, reply, copies: 0, began: now, tried: None });
    }

    /// The tags to send now to the leader of this term, in their order: again to the same one after a while, since
    /// whatever is proposed does no more when a second copy of it is applied. Those that have waited for too long
    /// are answered instead.
    pub(super) fn due(&mut self, leader: Option<Term>, now: Instant) -> Vec<u64> {
        if self.pending.is_empty() {
            return Vec::new();
        }
        let given_up: Vec<u64> =
            self.pending.iter().filter(|(_, pending)| pending.is_over(now)).map(|(tag, _)| *tag).collect();
        for tag in given_up {
            if let Some(pending) = self.pending.remove(&tag) {
                pending.give_up();
            }
        }
        let Some(term) = leader else { return Vec::new() };
        let due = |pending: &Pending| pending.next_at(Some(term)).is_some_and(|at| now >= at);
        let mut due: Vec<u64> =
            self.pending.iter().filter(|(_, pending)| due(pending)).map(|(tag, _)| *tag).collect();
        // Whatever the table's order is: what a node does follows from what comes to it.
        due.sort_unstable();
        due
    }

    /// The envelope to send, counted as sent.
    pub(super) fn send(&mut self, tag: u64, term: Term, now: Instant) -> Option<Envelope<Body>> {
        let pending = self.pending.get_mut(&tag)?;
        pending.copies += 1;
        pending.tried = Some((term, now + RESEND));
        Some(pending.envelope.clone())
    }

    /// The proposal certainly was not sent.
    pub(super) fn on_not_sent(&mut self, tag: u64, now: Instant) {
        if let Some(pending) = self.pending.get_mut(&tag) {
            pending.copies -= 1;
            pending.tried = pending.tried.map(|(term, _)| (term, now + TRY_AGAIN));
        }
    }

    /// An entry with this tag was applied.
    pub(super) fn on_applied(&mut self, tag: u64, applied: Applied) {
        let Some(pending) = self.pending.remove(&tag) else { return };
        let result = if pending.copies > 1 && could_be_applied_later(&applied) {
            let why =
                "a copy of this report came out of order, and another copy may still be applied".to_owned();
            Err(RequestError::OutcomeUnknown { why })
        } else {
            Ok(applied)
        };
        let _ = pending.reply.send(result);
    }

    /// There is no leader for long: what was never sent is certainly not done.
    pub(super) fn give_up_unsent(&mut self) {
        for (_, pending) in self.pending.extract_if(|_, pending| pending.copies == 0) {
            let why = NO_LEADER.to_owned();
            // The client may have gone.
            let _ = pending.reply.send(Err(RequestError::NotCommitted { why }));
        }
    }

    /// When to look again, with the leader of this term: the loop sleeps until then, so nothing is due for which
    /// [`due`](Self::due) would do nothing.
    pub(super) fn next_due(&self, leader: Option<Term>) -> Option<Instant> {
        let next = |pending: &Pending| {
            let gives_up = pending.began + GIVE_UP;
            pending.next_at(leader).map_or(gives_up, |at| at.min(gives_up))
        };
        self.pending.values().map(next).min()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }
}

impl Pending {
    /// From when on there is something to do about it with the leader of this term; `None`: nothing but to wait.
    fn next_at(&self, leader: Option<Term>) -> Option<Instant> {
        let leader = leader?;
        match self.tried {
            Some((term, at)) if term == leader => Some(at),
            // A new leader is tried at once.
            _ => Some(self.began),
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.reply.is_closed() || now >= self.began + GIVE_UP
    }

    fn give_up(self) {
        let error = if self.copies == 0 {
            let why = "no leader was connected in time; nothing was sent".to_owned();
            RequestError::NotCommitted { why }
        } else {
            let why = "the leader that received the request did not answer in time".to_owned();
            RequestError::OutcomeUnknown { why }
        };
        let _ = self.reply.send(Err(error));
    }
}

/// Whether a refusal could turn into an application when a second copy of the same body is applied
/// after others: only a report that came before its turn.
fn could_be_applied_later(applied: &Applied) -> bool {
    match applied {
        Applied::Report { number, verdict: Verdict::OutOfOrder { last }, .. } => {
            number.get() > last.map_or(0, ReportNumber::get)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_core::id::{Epoch, SourceId};

    type Answer = oneshot::Receiver<Result<Applied, RequestError>>;

    fn with(now: Instant) -> (Proposals, Answer) {
        let mut proposals = Proposals::default();
        let (reply, answer) = oneshot::channel();
        proposals.add(5, Body::from(&b"body"[..]), reply, now);
        (proposals, answer)
    }

    #[test]
    fn what_was_never_sent_is_certainly_not_committed() {
        let now = Instant::now();
        let (mut proposals, mut answer) = with(now);
        assert!(proposals.due(None, now + GIVE_UP).is_empty());
        assert!(matches!(answer.try_recv(), Ok(Err(RequestError::NotCommitted { .. }))));
    }

    #[test]
    fn what_did_not_go_off_is_tried_again_soon_and_certainly_not_done_if_it_never_does() {
        let now = Instant::now();
        let (mut proposals, mut answer) = with(now);
        assert!(proposals.send(5, Term(1), now).is_some());
        proposals.on_not_sent(5, now);
        assert!(proposals.due(Some(Term(1)), now).is_empty(), "not without a pause");
        assert_eq!(proposals.due(Some(Term(1)), now + TRY_AGAIN), [5]);
        assert_eq!(proposals.due(Some(Term(2)), now), [5], "nor has it been at the leader before");
        assert!(proposals.due(Some(Term(2)), now + GIVE_UP).is_empty());
        assert!(matches!(answer.try_recv(), Ok(Err(RequestError::NotCommitted { .. }))));
    }

    #[test]
    fn after_what_is_due_was_done_nothing_is_due_at_once() {
        for goes_off in [true, false] {
            for leader in [None, Some(Term(1)), Some(Term(2))] {
                let start = Instant::now();
                let (mut proposals, _answer) = with(start);
                proposals.send(5, Term(1), start);
                for ms in (0..12_000).step_by(7) {
                    let now = start + Duration::from_millis(ms);
                    for tag in proposals.due(leader, now) {
                        proposals.send(tag, leader.unwrap(), now);
                        if !goes_off {
                            proposals.on_not_sent(tag, now);
                        }
                    }
                    let next = proposals.next_due(leader);
                    assert!(next.is_none_or(|at| at > now), "{leader:?}, after {ms} ms");
                }
                assert_eq!(proposals.len(), 0);
            }
        }
    }

    #[test]
    fn what_has_no_answer_goes_to_the_next_leader_at_once_and_to_the_same_one_again() {
        let now = Instant::now();
        let (mut proposals, mut answer) = with(now);
        assert!(proposals.send(5, Term(1), now).is_some());
        assert!(proposals.due(Some(Term(1)), now).is_empty());
        assert_eq!(proposals.due(Some(Term(1)), now + RESEND), [5]);
        assert_eq!(proposals.due(Some(Term(2)), now), [5]);
        proposals.on_applied(5, Applied::Nothing);
        assert_eq!(answer.try_recv(), Ok(Ok(Applied::Nothing)));
    }

    #[test]
    fn a_refusal_that_another_copy_could_overturn_is_not_told_as_final() {
        let now = Instant::now();
        for (last, copies, is_final) in [(3, 2, false), (3, 1, true), (9, 2, true)] {
            let (mut proposals, mut answer) = with(now);
            for _ in 0..copies {
                proposals.send(5, Term(1), now);
            }
            let verdict = Verdict::OutOfOrder { last: ReportNumber::new(last) };
            let number = ReportNumber::new(7).unwrap();
            let (source, epoch) = (SourceId(1), Epoch(1));
            proposals.on_applied(5, Applied::Report { source, epoch, number, hash: 1, verdict });
            assert_eq!(answer.try_recv().unwrap().is_ok(), is_final, "last {last}, copies {copies}");
        }
    }
}
