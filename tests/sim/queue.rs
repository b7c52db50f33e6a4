//! The queue of events, ordered by time; events of the same time keep the order in which they were added.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::plan::Micros;

#[derive(Debug)]
struct Due<E> {
    at: Micros,
    sequence: u64,
    event: E,
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Due<E>) -> bool {
        self.sequence == other.sequence
    }
}

impl<E> Eq for Due<E> {}

impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Due<E>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Due<E> {
    fn cmp(&self, other: &Due<E>) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

#[derive(Debug)]
pub(crate) struct Queue<E> {
    due: BinaryHeap<Reverse<Due<E>>>,
    sequence: u64,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Queue<E> {
        Queue { due: BinaryHeap::new(), sequence: 0 }
    }

    pub(crate) fn put(&mut self, at: Micros, event: E) {
        self.sequence += 1;
        self.due.push(Reverse(Due { at, sequence: self.sequence, event }));
    }

    pub(crate) fn next(&mut self) -> Option<(Micros, E)> {
        let Reverse(due) = self.due.pop()?;
        Some((due.at, due.event))
    }
}
