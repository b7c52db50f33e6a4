//! Fences: reads that must see everything acknowledged before. At the leader a round of heartbeats
//! confirms them; another box asks the leader, one question at a time for all that wait.

use std::time::{Duration, Instant};

use tally_core::id::{LogIndex, NodeId, Term};
use tokio::sync::oneshot;

use super::handle::{NO_LEADER, REQUEST_WAIT};
use super::requests::RequestError;

type Reply = oneshot::Sender<Result<(), RequestError>>;

/// Most fences that may wait at one box.
const WAITING_MAX: usize = 16_384;
/// When a question without an answer is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// A box asks fewer questions than two to this in one life.
const QUESTION_BITS: u32 = 40;

/// Who waits for which part of a fence.
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
}

#[derive(Debug)]
struct Asked {
    id: u64,
    term: Term,
    at: Instant,
    replies: Vec<(Reply, Instant)>,
}

/// Who asked the leader.
#[derive(Debug)]
pub(super) enum Asker {
    /// Requests at this box.
    Here(Vec<Reply>),
    /// Another box, under its id.
    Peer(NodeId, u64),
}

impl Reads {
    /// For the `boot`-th life of this box. Its questions have other numbers than those of its lives before, which a
    /// leader may still answer: what was committed when they were asked is too old.
    pub(super) fn new(boot: u64) -> Reads {
        Reads { next_id: boot << QUESTION_BITS, ..Reads::default() }
    }

    /// A fence is wanted.
    pub(super) fn add(&mut self, reply: Reply, now: Instant) {
        if self.fresh.len() >= WAITING_MAX {
            let _ = reply.send(Err(RequestError::TooBusy));
            return;
        }
        self.fresh.push((reply, now));
    }

    /// Whether some wait to be asked for.
    pub(super) fn any_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// At the leader: all fresh ones, for one round.
    pub(super) fn take_fresh(&mut self) -> Vec<Reply> {
        // A question that this box sent when it did not lead is moot.
        let stale = self.asked.take().into_iter().flat_map(|asked| asked.replies);
        stale.chain(self.fresh.drain(..)).map(|(reply, _)| reply).collect()
    }

    /// At the leader: these wait for a round, and then for an index.
    pub(super) fn await_round(&mut self, round: u64, index: LogIndex, asker: Asker) {
        self.rounds.push((round, index, asker));
    }

    /// At the leader: rounds up to here are confirmed. Returns the peers that are to be answered.
    pub(super) fn confirmed(&mut self, round: u64) -> Vec<(NodeId, u64, LogIndex)> {
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

    /// Leadership ended: local ones are asked for anew, the peers that asked are told to.
    pub(super) fn stepped_down(&mut self, now: Instant) -> Vec<(NodeId, u64)> {
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
        let replies = match self.asked.take() {
            Some(asked) if asked.term == term && now < asked.at + ASK_AGAIN => {
                self.asked = Some(asked);
                return None;
            }
            // Unanswered: those that came since may share the next question, not the old answer.
            Some(asked) => asked.replies.into_iter().chain(self.fresh.drain(..)).collect(),
            None if self.fresh.is_empty() => return None,
            None => std::mem::take(&mut self.fresh),
        };
        self.next_id += 1;
        self.asked = Some(Asked { id: self.next_id, term, at: now, replies });
        Some(self.next_id)
    }

    /// The leader's answer to a question.
    pub(super) fn answered(&mut self, id: u64, index: Option<LogIndex>) {
        let Some(asked) = self.asked.take_if(|asked| asked.id == id) else { return };
        match index {
            Some(index) => {
                self.indexes.extend(asked.replies.into_iter().map(|(reply, _)| (index, reply)));
            }
            None => self.fresh.extend(asked.replies),
        }
    }

    /// This box has applied up to here.
    pub(super) fn applied(&mut self, applied: LogIndex) {
        for (_, reply) in self.indexes.extract_if(.., |(index, _)| *index <= applied) {
            let _ = reply.send(Ok(()));
        }
    }

    /// Gives up what waited too long without a leader.
    pub(super) fn expire(&mut self, now: Instant) {
        let patience = REQUEST_WAIT / 2;
        let over = |(_, since): &mut (Reply, Instant)| now >= *since + patience;
        for (reply, _) in self.fresh.extract_if(.., over) {
            let why = "no leader confirmed this read in time".to_owned();
            let _ = reply.send(Err(RequestError::NotCommitted { why }));
        }
    }

    /// There is no leader for long.
    pub(super) fn give_up(&mut self) {
        let asked = self.asked.take().into_iter().flat_map(|asked| asked.replies);
        for (reply, _) in asked.chain(self.fresh.drain(..)) {
            let _ = reply.send(Err(RequestError::NotCommitted { why: NO_LEADER.to_owned() }));
        }
    }

    /// When to look again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let asked = self.asked.as_ref().map(|asked| asked.at + ASK_AGAIN);
        let fresh = self.fresh.first().map(|(_, since)| *since + REQUEST_WAIT / 2);
        asked.into_iter().chain(fresh).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_to_an_earlier_life_of_a_box_confirms_nothing() {
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
        reads.answered(before, Some(LogIndex(4)));
        reads.applied(LogIndex(9));
        assert!(told.try_recv().is_err(), "4 was committed before more was, and then the box started again");
        reads.answered(id, Some(LogIndex(9)));
        reads.applied(LogIndex(9));
        assert_eq!(told.await, Ok(Ok(())));
    }
}
