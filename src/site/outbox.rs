//! Summaries that wait for delivery: first without a number, then numbered, then delivered.
//!
//! Summaries without a number lie in a slab, linked twice: in the order in which they will be
//! numbered, and by series and lateness. When there are too many, neighbours of a series merge
//! pairwise in sweeps from the oldest on: a sweep merges each pair of the same level (0: as
//! closed; a merged pair is one level up), so that old windows get coarser step by step and none
//! much coarser than its neighbours. A sweep that finds no such pair is followed by one that merges
//! any neighbours. A place costs a few steps of a sweep on average. What is left at the end is one
//! summary a series and one late one; the bounds leave room for that.

use std::collections::VecDeque;

use tally_core::report::Ties;
use tally_core::time::SiteTime;

use super::digest::mix;
use super::packed::{Packed, WIDE_BYTES};
use super::series::Closed;
use super::settings::Settings;
use super::view::{SeriesId, Summary};
use crate::deliberate::{self, Bug};

/// Bytes that a summary without a number is counted as, what is wide in it apart.
const SUMMARY_BYTES: u64 = 64;
/// The same, at most.
pub(super) const SUMMARY_BYTES_MAX: u64 = SUMMARY_BYTES + WIDE_BYTES;
/// Bytes that a summary with a number is counted as.
pub(super) const NUMBERED_BYTES: u64 = 208;

/// How far back a late summary of the same window is looked for.
const LATE_SEARCH_MAX: usize = 64;

/// How many places an empty slab keeps.
const SLAB_KEPT: usize = 4096;

/// No place of the slab.
const NONE: u32 = u32::MAX;

/// Summaries on their way to the subscriber.
#[derive(Debug)]
pub(super) struct Outbox {
    nodes: Vec<CountNode>,
    /// Free places of the slab.
    free: Vec<u32>,
    queue: Ends,
    chains: Vec<Chains>,
    unnumbered: usize,
    heap_bytes: u64,
    numbered: VecDeque<Summary>,
    last: u64,
    delivered: u64,
    sweep: Sweep,
    /// By the feature level.
    pub(super) ties: Ties,
}

#[derive(Clone, Debug)]
struct CountNode {
    amount: Packed,
    start: u64,
    end: u64,
    series: u32,
    /// Neighbours in the order of numbers.
    prev: u32,
    next: u32,
    /// Neighbours in the chain of its series and lateness.
    older: u32,
    newer: u32,
    level: u8,
    late: bool,
    synced: bool,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    first: u32,
    last: u32,
}

/// What the outbox knows of a series.
#[derive(Clone, Debug)]
struct Chains {
    /// The sum of increases over all numbers up to the last one.
    numbered: i128,
    /// How many without a number there are.
    waiting: u32,
    /// Not late; late.
    ends: [Ends; 2],
}

/// How far the present sweep has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sweep {
    at: u32,
    /// Merges neighbours of different levels too.
    any: bool,
    merged: bool,
}

/// What a new summary says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    pub(super) late: bool,
    pub(super) synced: bool,
}

const EMPTY: Ends = Ends { first: NONE, last: NONE };

impl Outbox {
    pub(super) const fn new() -> Outbox {
        Outbox {
            nodes: Vec::new(),
            free: Vec::new(),
            queue: EMPTY,
            chains: Vec::new(),
            unnumbered: 0,
            heap_bytes: 0,
            numbered: VecDeque::new(),
            last: 0,
            delivered: 0,
            sweep: Sweep { at: NONE, any: false, merged: true },
            ties: Ties::Larger,
        }
    }

    /// Numbered and undelivered, and without a number.
    pub(super) fn len(&self) -> usize {
        self.numbered.len() + self.unnumbered
    }

    pub(super) const fn unnumbered_len(&self) -> usize {
        self.unnumbered
    }

    /// How many of a series have no number yet.
    pub(super) fn unnumbered_of(&self, series: u32) -> usize {
        self.chains.get(series as usize).map_or(0, |chain| chain.waiting as usize)
    }

    /// The series of this id is no more, and no summary of it is left: another one may get the id.
    pub(super) fn forget(&mut self, series: u32) {
        if let Some(chain) = self.chains.get_mut(series as usize) {
            chain.numbered = 0;
        }
    }

    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    pub(super) const fn delivered_up_to(&self) -> u64 {
        self.delivered
    }

    /// Bytes of all summaries, as the bound counts them.
    pub(super) fn bytes(&self) -> u64 {
        let numbered = self.numbered.len() as u64 * NUMBERED_BYTES;
        numbered + self.unnumbered as u64 * SUMMARY_BYTES + self.heap_bytes
    }

    /// Numbered and undelivered ones after `after`, in order.
    pub(super) fn numbered(&self, after: u64, limit: usize) -> impl Iterator<Item = &Summary> {
        let skip = usize::try_from(after.saturating_sub(self.delivered)).unwrap_or(usize::MAX);
        self.numbered.iter().skip(skip).take(limit)
    }

    /// Appends a summary; a late one joins the one of its window if that has no number yet.
    pub(super) fn push(&mut self, closed: Closed, marks: Marks) {
        if !(marks.late && self.merge_late(&closed, marks)) {
            self.append(closed, marks);
        }
    }

    fn append(&mut self, closed: Closed, marks: Marks) {
        let Closed { series, start, end, amount } = closed;
        let late = usize::from(marks.late);
        let chain = self.chain(series).ends[late];
        self.heap_bytes += amount.heap_bytes();
        let (prev, older) = (self.queue.last, chain.last);
        let Marks { late, synced } = marks;
        let node = CountNode {
            amount,
            start,
            end,
            series,
            prev,
            next: NONE,
            older,
            newer: NONE,
            level: 0,
            late,
            synced,
        };
        let place = self.place(node);
        match prev {
            NONE => self.queue.first = place,
            prev => self.nodes[prev as usize].next = place,
        }
        self.queue.last = place;
        let chain = &mut self.chains[series as usize];
        chain.waiting += 1;
        let ends = &mut chain.ends[usize::from(late)];
        ends.last = place;
        match older {
            NONE => ends.first = place,
            older => self.nodes[older as usize].newer = place,
        }
        self.unnumbered += 1;
    }

    /// Gives numbers to the oldest, as many as asked for and as may be at once; to none of a series that `is_stopped`.
    pub(super) fn number(
        &mut self,
        count: u32,
        settings: &Settings,
        is_stopped: impl Fn(u32) -> bool,
        mut digest: u64,
    ) -> u64 {
        debug_assert!(
            deliberate::is(Bug::NumbersAnew) || self.last - self.delivered == self.numbered.len() as u64,
            "numbers follow each other without a gap"
        );
        let mut at = self.queue.first;
        for _ in 0..count {
            while let Some(node) = self.nodes.get(at as usize)
                && is_stopped(node.series)
            {
                at = node.next;
            }
            if self.numbered.len() as u64 >= settings.outbox_numbered_max() || at == NONE {
                break;
            }
            let next = self.nodes[at as usize].next;
            let node = self.remove(at);
            at = next;
            let amount = node.amount.amount();
            let chain = &mut self.chains[node.series as usize];
            // A part of the series' totals, which do not overflow.
            chain.numbered = chain.numbered.saturating_add(amount.increase().unwrap_or(0));
            self.last += u64::from(!deliberate::is(Bug::NumbersAnew) || !self.last.is_multiple_of(7));
            digest = mix(mix(mix(digest, self.last), u64::from(node.series)), chain.numbered as u64);
            self.numbered.push_back(Summary {
                seq: Some(self.last),
                series: SeriesId(node.series),
                start: SiteTime(node.start),
                span_ms: node.end - node.start,
                amount,
                total: Some(chain.numbered),
                late: node.late,
                synced: node.synced,
            });
        }
        digest
    }

    /// Forgets what was delivered; what is not numbered yet cannot have been.
    pub(super) fn deliver(&mut self, up_to: u64) {
        let up_to = up_to.min(self.last);
        while self.delivered < up_to && self.numbered.pop_front().is_some() {
            self.delivered += 1;
        }
    }

    /// Gives no number up to this one, which is ahead. Everything that has a number is delivered.
    pub(super) fn pass_over(&mut self, up_to: u64) {
        debug_assert!(self.numbered.is_empty(), "what has a number is published under it");
        (self.last, self.delivered) = (up_to, up_to);
    }

    /// Merges neighbours until the bounds hold; returns the digest with what was merged.
    pub(super) fn thin(&mut self, settings: &Settings, mut digest: u64) -> u64 {
        while self.len() as u64 > settings.outbox_summaries_max()
            || self.bytes() > settings.outbox_bytes_max()
        {
            let Some(merged) = self.thin_once() else { break };
            let node = &self.nodes[merged as usize];
            digest = mix(mix(mix(digest, u64::from(node.series)), node.start), node.end);
        }
        digest
    }

    /// Goes on with the sweep until it has merged a pair; `None`: there is none to merge.
    fn thin_once(&mut self) -> Option<u32> {
        let mut sweeps = 0;
        loop {
            let at = self.sweep.at;
            if at == NONE {
                // The first is the rest of one under way: two whole ones must come up empty.
                sweeps += 1;
                if sweeps > 3 {
                    return None;
                }
                self.sweep = Sweep { at: self.queue.first, any: !self.sweep.merged, merged: false };
                if self.sweep.at == NONE {
                    return None;
                }
                continue;
            }
            let node = &self.nodes[at as usize];
            let newer = node.newer;
            self.sweep.at = node.next;
            if newer == NONE || !(self.sweep.any || self.nodes[newer as usize].level == node.level) {
                continue;
            }
            if self.merge(at, newer) {
                self.sweep.merged = true;
                return Some(at);
            }
        }
    }

    /// Merges the second into the first, its older neighbour, which keeps its place.
    fn merge(&mut self, first: u32, second: u32) -> bool {
        let (a, b) = (&self.nodes[first as usize], &self.nodes[second as usize]);
        let Some(amount) = a.amount.merged(b.amount.amount(), self.ties) else { return false };
        let level = a.level.max(b.level).saturating_add(1);
        let b = self.remove(second);
        let a = &mut self.nodes[first as usize];
        self.heap_bytes += amount.heap_bytes();
        self.heap_bytes -= a.amount.heap_bytes();
        a.amount = amount;
        a.level = level;
        a.start = a.start.min(b.start);
        a.end = a.end.max(b.end);
        a.synced &= b.synced;
        true
    }

    fn merge_late(&mut self, closed: &Closed, marks: Marks) -> bool {
        let mut at = self.chain(closed.series).ends[1].last;
        for _ in 0..LATE_SEARCH_MAX {
            let Some(node) = self.nodes.get_mut(at as usize) else { return false };
            if node.start == closed.start && node.end == closed.end {
                let Some(amount) = node.amount.merged(closed.amount.amount(), self.ties) else {
                    return false;
                };
                self.heap_bytes += amount.heap_bytes();
                self.heap_bytes -= node.amount.heap_bytes();
                node.amount = amount;
                node.synced &= marks.synced;
                return true;
            }
            at = node.older;
        }
        false
    }

    fn chain(&mut self, series: u32) -> &mut Chains {
        let count = series as usize + 1;
        if self.chains.len() < count {
            self.chains.resize(count, Chains { numbered: 0, waiting: 0, ends: [EMPTY; 2] });
        }
        &mut self.chains[series as usize]
    }

    fn place(&mut self, node: CountNode) -> u32 {
        match self.free.pop() {
            Some(place) => {
                self.nodes[place as usize] = node;
                place
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        }
    }

    /// Takes a node out of the queue, its chain, the slab and the sweep's way.
    fn remove(&mut self, place: u32) -> CountNode {
        let vacant = CountNode {
            amount: Packed::Counter(0),
            start: 0,
            end: 0,
            series: 0,
            prev: NONE,
            next: NONE,
            older: NONE,
            newer: NONE,
            level: 0,
            late: false,
            synced: false,
        };
        let node = core::mem::replace(&mut self.nodes[place as usize], vacant);
        match node.prev {
            NONE => self.queue.first = node.next,
            prev => self.nodes[prev as usize].next = node.next,
        }
        match node.next {
            NONE => self.queue.last = node.prev,
            next => self.nodes[next as usize].prev = node.prev,
        }
        let chain = &mut self.chains[node.series as usize];
        chain.waiting -= 1;
        let ends = &mut chain.ends[usize::from(node.late)];
        match node.older {
            NONE => ends.first = node.newer,
            older => self.nodes[older as usize].newer = node.newer,
        }
        match node.newer {
            NONE => ends.last = node.older,
            newer => self.nodes[newer as usize].older = node.older,
        }
        if self.sweep.at == place {
            self.sweep.at = node.next;
        }
        self.heap_bytes -= node.amount.heap_bytes();
        self.unnumbered -= 1;
        self.free.push(place);
        if self.unnumbered == 0 && self.nodes.len() > SLAB_KEPT {
            // The slab of a long outage is not kept.
            self.nodes = Vec::new();
            self.free = Vec::new();
        }
        node
    }
}

#[path = "outbox_snapshot.rs"]
mod snapshot;

pub(super) use snapshot::{put_summary, read_summary};

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
