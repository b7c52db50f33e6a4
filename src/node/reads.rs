//! Fences: reads that must see everything acknowledged before. At the leader a round of heartbeats
//! confirms them; another box asks the leader, one question at a time for all that wait.

use std::time::{Duration, Instant};

use tally_core::id::{LogIndex, NodeId, Term};
use tokio::sync::oneshot;

use super::handle::{NO_LEADER, REQUEST_WAIT};
use crate::request::RequestError;

type Reply = oneshot::Sender<Result<(), RequestError>>;

/// The most fences that may wait at one box.
const WAITING_MAX: usize = 16_384;
/// How often reads are dropped whose clients have gone.
const PRUNE_EVERY: Duration = Duration::from_millis(500);
/// The longest wait for a leader to confirm a fence.
const PATIENCE: Duration = Duration::from_millis(REQUEST_WAIT.as_millis() as u64 / 2);
/// When a question without an answer is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// A box asks fewer questions than two to this in one incarnation.
const QUESTION_BITS: u32 = 40;

/// The waiters of each stage of a fence.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Not asked for yet.
    fresh: Vec<(Reply, Instant)>,
    /// Asked of the leader under this id.
    asked: Option<Asked>,
    next_id: u64,
    /// At the leader: waiting for a round, in rising order.
    rounds: Vec<(u64, LogIndex, Asker)>,
    /// Waiting for an index to be applied here.
    indexes: Vec<(LogIndex, Reply)>,
    pruned: Option<Instant>,
}

#[derive(Debug)]
struct Asked {
    id: u64,
    term: Term,
    at: Instant,
    replies: Vec<(Reply, Instant)>,
}

/// The source of a question to the leader.
#[derive(Debug)]
pub(super) enum Asker {
    /// Requests at this box.
    Here(Vec<Reply>),
    /// Another box, under its id.
    Peer(NodeId, u64),
}

impl Reads {
    /// For the `boot`-th incarnation of this box. Its questions have other numbers than those of its incarnations
    /// before, which a leader may still answer: what was committed when they were asked is too old.
    pub(super) fn new(boot: u64) -> Reads {
        Reads { next_id: boot << QUESTION_BITS, ..Reads::default() }
    }

    /// Adds a fence.
    pub(super) fn add(&mut self, reply: Reply, now: Instant) {
        if self.waiting() >= WAITING_MAX {
            let _ = reply.send(Err(RequestError::TooBusy));
            return;
        }
        self.fresh.push((reply, now));
    }

    /// At the leader: whether some wait for a round to be asked for.
    pub(super) fn any_unconfirmed(&self) -> bool {
        !self.fresh.is_empty() || self.asked.is_some()
    }

    /// How many fences wait here.
    fn waiting(&self) -> usize {
        let asked = self.asked.as_ref().map_or(0, |asked| asked.replies.len());
        let in_rounds = |(_, _, asker): &(u64, LogIndex, Asker)| match asker {
            Asker::Here(replies) => replies.len(),
            Asker::Peer(..) => 0,
        };
        self.fresh.len() + asked + self.rounds.iter().map(in_rounds).sum::<usize>() + self.indexes.len()
    }

    /// At the leader: takes all fresh fences, for one round.
    pub(super) fn take_fresh(&mut self) -> Vec<Reply> {
        // A question that this box sent when it did not lead is moot.
        let stale = self.asked.take().into_iter().flat_map(|asked| asked.replies);
        stale.chain(self.fresh.drain(..)).map(|(reply, _)| reply).collect()
    }

    /// At the leader: these wait for a round, and then for an index.
    pub(super) fn await_round(&mut self, round: u64, index: LogIndex, asker: Asker) {
        // A box waits for one answer at a time. The first round will do for a question that it repeats.
        if let Asker::Peer(peer, id) = asker {
            let asks =
                |other: &Asker| matches!(other, Asker::Peer(other, same) if (*other, *same) == (peer, id));
            if self.rounds.iter().any(|(_, _, other)| asks(other)) {
                return;
            }
            self.rounds.retain(|(_, _, other)| !matches!(other, Asker::Peer(other, _) if *other == peer));
        }
        self.rounds.push((round, index, asker));
    }

    /// At the leader: rounds up to here are confirmed. Returns the peers to answer.
    pub(super) fn on_confirmed(&mut self, round: u64) -> Vec<(NodeId, u64, LogIndex)> {
        let mut peers = Vec::new();
        let done = self.rounds.partition_point(|(wanted, _, _)| *wanted <= round);
        for (_, index, asker) in self.rounds.drain(..done) {
            match asker {
                Asker::Here(replies) => self.indexes.extend(replies.into_iter().map(|reply| (index, reply))),
                Asker::Peer(peer, id) => peers.push((peer, id, index)),
            }
        }
        peers
    }

    /// Leadership ended: local fences begin anew. Returns the questions of peers, which must be asked anew, too.
    pub(super) fn on_step_down(&mut self, now: Instant) -> Vec<(NodeId, u64)> {
        let mut peers = Vec::new();
        for (_, _, asker) in self.rounds.drain(..) {
            match asker {
                Asker::Here(replies) => self.fresh.extend(replies.into_iter().map(|reply| (reply, now))),
                Asker::Peer(peer, id) => peers.push((peer, id)),
            }
        }
        peers
    }

    /// At another box: the id of the question to send to the leader of this term now, if one is due.
    pub(super) fn question(&mut self, term: Term, now: Instant) -> Option<u64> {
        match &mut self.asked {
            Some(asked) if asked.term == term && now < asked.at + ASK_AGAIN => return None,
            // Unanswered: the same again, so that an answer that takes longer than this still counts. Those that
            // came since must not share it, since it may be older than they are.
            Some(asked) => (asked.term, asked.at) = (term, now),
            None if self.fresh.is_empty() => return None,
            None => {
                self.next_id += 1;
                let replies = std::mem::take(&mut self.fresh);
                self.asked = Some(Asked { id: self.next_id, term, at: now, replies });
            }
        }
        self.asked.as_ref().map(|asked| asked.id)
    }

    /// The leader's answer to a question.
    pub(super) fn on_answer(&mut self, id: u64, index: Option<LogIndex>) {
        let Some(asked) = self.asked.take_if(|asked| asked.id == id) else { return };
        match index {
            Some(index) => {
                self.indexes.extend(asked.replies.into_iter().map(|(reply, _)| (index, reply)));
            }
            None => self.fresh.extend(asked.replies),
        }
    }

    /// This box has applied up to here.
    pub(super) fn on_applied(&mut self, applied: LogIndex) {
        for (_, reply) in self.indexes.extract_if(.., |(index, _)| *index <= applied) {
            let _ = reply.send(Ok(()));
        }
    }

    /// Ends fences that have waited too long for a leader, and drops those whose clients have gone.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.pruned.is_none_or(|at| now >= at + PRUNE_EVERY) {
            self.pruned = Some(now);
            self.prune();
        }
        let over = |(_, since): &mut (Reply, Instant)| now >= *since + PATIENCE;
        let asked = self.asked.iter_mut().flat_map(|asked| asked.replies.extract_if(.., over));
        for (reply, _) in self.fresh.extract_if(.., over).chain(asked) {
            let why = "no leader confirmed this read in time".to_owned();
            let _ = reply.send(Err(RequestError::NotCommitted { why }));
        }
        self.asked.take_if(|asked| asked.replies.is_empty());
    }

    /// Drops fences whose clients have gone, also at a box that cannot apply and at a leader that is not confirmed.
    fn prune(&mut self) {
        self.fresh.retain(|(reply, _)| !reply.is_closed());
        self.indexes.retain(|(_, reply)| !reply.is_closed());
        if let Some(asked) = &mut self.asked {
            asked.replies.retain(|(reply, _)| !reply.is_closed());
        }
        for (_, _, asker) in &mut self.rounds {
            if let Asker::Here(replies) = asker {
                replies.retain(|reply| !reply.is_closed());
            }
        }
    }

    /// There has been no leader for long: all waiting fences fail.
    pub(super) fn give_up(&mut self) {
        let asked = self.asked.take().into_iter().flat_map(|asked| asked.replies);
        for (reply, _) in asked.chain(self.fresh.drain(..)) {
            let _ = reply.send(Err(RequestError::NotCommitted { why: NO_LEADER.to_owned() }));
        }
    }

    /// When to look again, at a follower of the leader of this term (`None`: it leads itself, or reaches no leader).
    /// The loop sleeps until then, so nothing is due for which nothing can be done.
    pub(super) fn next_due(&self, leader: Option<Term>) -> Option<Instant> {
        let again = self
            .asked
            .as_ref()
            .zip(leader)
            .map(|(asked, term)| if asked.term == term { asked.at + ASK_AGAIN } else { asked.at });
        let asked = self.asked.iter().flat_map(|asked| &asked.replies);
        let gives_up = asked.chain(&self.fresh).map(|(_, since)| *since + PATIENCE);
        gives_up.chain(again).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_to_an_earlier_incarnation_of_a_box_confirms_nothing() {
        let (term, now) = (Term(3), Instant::now());
        let ask = |boot: u64| {
            let mut reads = Reads::new(boot);
            let (reply, told) = oneshot::channel();
            reads.add(reply, now);
            let id = reads.question(term, now).expect("one waits");
            (reads, id, told)
        };
        let (_, before, _) = ask(7);
        let (mut reads, id, mut told) = ask(8);
        reads.on_answer(before, Some(LogIndex(4)));
        reads.on_applied(LogIndex(9));
        assert!(told.try_recv().is_err(), "4 was committed before more was, and then the box started again");
        reads.on_answer(id, Some(LogIndex(9)));
        reads.on_applied(LogIndex(9));
        assert_eq!(told.await, Ok(Ok(())));
    }

    fn fence(reads: &mut Reads, now: Instant) -> oneshot::Receiver<Result<(), RequestError>> {
        let (reply, told) = oneshot::channel();
        reads.add(reply, now);
        told
    }

    #[test]
    fn an_answer_that_takes_longer_than_the_question_is_repeated_still_counts() {
        let (term, start) = (Term(3), Instant::now());
        let mut reads = Reads::new(1);
        let mut first = fence(&mut reads, start);
        let id = reads.question(term, start).expect("one waits");
        let mut late = fence(&mut reads, start);
        for again in 1..5 {
            assert_eq!(reads.question(term, start + again * ASK_AGAIN), Some(id));
        }
        assert_eq!(reads.question(Term(4), start + 4 * ASK_AGAIN), Some(id), "a new leader is asked at once");
        reads.on_answer(id, Some(LogIndex(4)));
        reads.on_applied(LogIndex(9));
        assert_eq!(first.try_recv(), Ok(Ok(())));
        assert!(late.try_recv().is_err(), "it came after the question");
        assert_ne!(reads.question(term, start + 4 * ASK_AGAIN), Some(id));
    }

    #[test]
    fn a_box_that_comes_to_lead_confirms_what_it_asked_as_a_follower() {
        let now = Instant::now();
        let mut reads = Reads::new(1);
        let mut told = fence(&mut reads, now);
        reads.question(Term(3), now).expect("one waits");
        assert!(reads.any_unconfirmed());
        let replies = reads.take_fresh();
        reads.await_round(1, LogIndex(4), Asker::Here(replies));
        assert!(!reads.any_unconfirmed());
        assert!(reads.on_confirmed(1).is_empty());
        reads.on_applied(LogIndex(4));
        assert_eq!(told.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn reads_that_wait_for_an_index_that_is_never_applied_are_bounded_and_forgotten_with_their_clients() {
        let (term, now) = (Term(3), Instant::now());
        let mut reads = Reads::new(1);
        let mut clients = Vec::new();
        let ask_and_answer = |reads: &mut Reads, clients: &mut Vec<_>| {
            clients.extend((0..1024).map(|_| fence(reads, now)));
            if let Some(id) = reads.question(term, now) {
                reads.on_answer(id, Some(LogIndex(u64::MAX)));
            }
        };
        for _ in 0..WAITING_MAX / 1024 {
            ask_and_answer(&mut reads, &mut clients);
        }
        assert_eq!(reads.waiting(), WAITING_MAX);
        assert!(clients.iter_mut().all(|client| client.try_recv().is_err()));
        ask_and_answer(&mut reads, &mut clients);
        assert_eq!(reads.waiting(), WAITING_MAX);
        assert_eq!(clients.pop().unwrap().try_recv(), Ok(Err(RequestError::TooBusy)));
        drop(clients);
        reads.expire(now + PRUNE_EVERY);
        assert_eq!(reads.waiting(), 0);
    }

    #[test]
    fn a_box_that_asks_again_and_again_has_one_question_at_the_leader() {
        let mut reads = Reads::new(1);
        for round in 1..100 {
            reads.await_round(round, LogIndex(round), Asker::Peer(NodeId(2), round / 10));
            reads.await_round(round, LogIndex(round), Asker::Peer(NodeId(3), 7));
        }
        assert_eq!(reads.rounds.len(), 2);
        assert_eq!(
            reads.on_confirmed(99),
            [(NodeId(3), 7, LogIndex(1)), (NodeId(2), 9, LogIndex(90))],
            "a question that is repeated has the answer to its first copy"
        );
    }

    #[test]
    fn after_what_is_due_was_done_nothing_is_due_at_once() {
        for leader in [None, Some(Term(3)), Some(Term(4))] {
            let start = Instant::now();
            let mut reads = Reads::new(1);
            let mut told = fence(&mut reads, start);
            reads.question(Term(3), start).expect("one waits");
            let _late = fence(&mut reads, start);
            for ms in (0..12_000).step_by(7) {
                let now = start + Duration::from_millis(ms);
                leader.and_then(|term| reads.question(term, now));
                reads.expire(now);
                assert!(reads.next_due(leader).is_none_or(|at| at > now), "{leader:?}, after {ms} ms");
            }
            assert!(matches!(told.try_recv(), Ok(Err(RequestError::NotCommitted { .. }))));
            assert_eq!(reads.waiting(), 0);
        }
    }
}
