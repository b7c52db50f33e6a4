//! Which numbers were sent to the broker and which of them are settled: pure, so that any order of answers can be tried.
//!
//! The outbox is the truth; the ledger is this connection's page of it. A message is settled when the broker has
//! acknowledged it, or when the site holds the number instead. A number is settled when all of its messages are, and
//! only the unbroken run of settled numbers is ever reported as delivered.

use std::collections::{HashMap, VecDeque};

use super::formats::Numbered;
use crate::deliberate::{self, Bug};
use crate::site::SeriesId;

/// Names a message that was sent, so that its answer finds its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Token {
    /// The number that the message is of.
    pub(super) seq: u64,
    /// Of which try: answers to an earlier one count nothing.
    attempt: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Up to here every number is settled.
    settled: u64,
    /// The numbers after `settled` that were sent, without a gap: how many of its messages each still lacks.
    lacking: VecDeque<usize>,
    attempt: u64,
}

impl Ledger {
    /// A page that begins after what the site knows as delivered.
    pub(super) fn new(delivered: u64) -> Ledger {
        Ledger { settled: delivered, lacking: VecDeque::new(), attempt: 0 }
    }

    /// The number to send next.
    pub(super) fn next(&self) -> u64 {
        self.settled + self.lacking.len() as u64 + 1
    }

    /// The end of the unbroken run of settled numbers.
    pub(super) fn settled_up_to(&self) -> u64 {
        self.settled
    }

    /// How many numbers were sent and are not settled.
    pub(super) fn under_way(&self) -> usize {
        self.lacking.len()
    }

    /// Notes that the next number is sent, in so many messages (one or more); they all share the token.
    pub(super) fn sent(&mut self, seq: u64, messages: usize) -> Token {
        assert_eq!(seq, self.next(), "numbers are sent in order");
        assert!(messages > 0, "a number that is not sent at all would be skipped");
        self.lacking.push_back(messages);
        Token { seq, attempt: self.attempt }
    }

    /// Settles one message of a number. Returns whether that lengthened the run of settled numbers.
    pub(super) fn settle(&mut self, token: Token) -> bool {
        if token.attempt != self.attempt || token.seq <= self.settled {
            return false;
        }
        let place = (token.seq - self.settled - 1) as usize;
        if let Some(lacking) = self.lacking.get_mut(place) {
            *lacking = lacking.saturating_sub(1);
        }
        let before = self.settled;
        while self.lacking.front() == Some(&0) {
            self.lacking.pop_front();
            self.settled += 1;
        }
        self.settled > before
    }

    /// Whether the token is of the present try: an old one's refusal was dealt with already.
    pub(super) fn is_current(&self, token: Token) -> bool {
        token.attempt == self.attempt
    }

    /// Forgets what is under way: everything after the settled run is to be sent again.
    pub(super) fn rewind(&mut self) {
        self.lacking.clear();
        self.attempt += 1;
    }
}

/// The numbered summaries that wait to be sent, and which of them carries its series' retained total.
///
/// A total goes out once for all of a series' summaries that wait, with the *latest* of them: a new
/// leader repeats summaries that the old one had sent, and a total as of a repeated one would go back.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Numbered>,
    totals: HashMap<SeriesId, Numbered>,
}

impl Queue {
    /// The last number in here.
    pub(super) fn last(&self) -> Option<u64> {
        self.waiting.back().map(|numbered| numbered.seq)
    }

    /// The first number in here.
    pub(super) fn first(&self) -> Option<u64> {
        self.waiting.front().map(|numbered| numbered.seq)
    }

    /// Takes in numbered summaries, in order.
    pub(super) fn extend(&mut self, more: Vec<Numbered>) {
        for numbered in more {
            // A late sample is no total: that of the one before it is still to go out.
            if numbered.makes_a_total() {
                self.totals.insert(numbered.summary.series, numbered.clone());
            }
            self.waiting.push_back(numbered);
        }
    }

    /// The next summary to send, and the one whose total goes with it, if one is due.
    pub(super) fn pop(&mut self) -> Option<(Numbered, Option<Numbered>)> {
        let numbered = self.waiting.pop_front()?;
        let total = self.totals.remove(&numbered.summary.series);
        let total = if deliberate::is(Bug::RepeatsTotals) { Some(numbered.clone()) } else { total };
        Some((numbered, total))
    }

    /// Empties it: after a rewind everything is read from the outbox again.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.totals.clear();
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
