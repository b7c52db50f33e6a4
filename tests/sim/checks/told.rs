//! What is recorded as delivered the broker has acknowledged, in each format; what it has not is told: a number that is
//! passed over is undeliverable, or held until it is acknowledged after all.

use std::collections::{BTreeMap, BTreeSet};

use tally_core::id::LogIndex;
use tallyd::site::Site;

use super::SetAside;
use crate::broker::Topic;
use crate::forms::{Form, Forms};

/// Of a number, whose acknowledgement a box has heard, on the connection that it had.
#[derive(Debug, Default)]
struct Acknowledged {
    forms: BTreeSet<Form>,
    as_undeliverable: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Told {
    acknowledged: BTreeMap<u64, Acknowledged>,
    /// As of this entry:
    applied: LogIndex,
    delivered: u64,
    held: BTreeSet<u64>,
    /// What was ever held, and how many of them were let go of.
    set_aside: BTreeSet<u64>,
    pub(crate) released: u64,
}

impl Told {
    pub(crate) fn acknowledged(&mut self, seq: u64, topic: &Topic) {
        let one = self.acknowledged.entry(seq).or_default();
        match topic {
            Topic::Summary(form, _) => drop(one.forms.insert(*form)),
            _ => one.as_undeliverable = true,
        }
    }

    pub(crate) fn set_aside(&self) -> u64 {
        self.set_aside.len() as u64
    }

    pub(crate) fn was_held(&self, seq: u64) -> bool {
        self.set_aside.contains(&seq)
    }

    /// Looks at a site's state.
    pub(crate) fn look(&mut self, site: &Site, forms: Forms, certain: &SetAside) {
        if site.applied() <= self.applied {
            return;
        }
        self.applied = site.applied();
        for seq in self.delivered + 1..=site.delivered() {
            let is_acknowledged = self
                .acknowledged
                .get(&seq)
                .is_some_and(|of| of.as_undeliverable || forms.iter().all(|form| of.forms.contains(form)));
            assert!(
                is_acknowledged || self.was_held(seq) || site.holds(seq),
                "told: number {seq} is recorded as delivered, and nobody has heard that the broker has it"
            );
        }
        self.delivered = site.delivered();
        if site.held_len() == 0 && self.held.is_empty() {
            return;
        }
        let held = site.held(0, usize::MAX);
        for one in &held {
            let seq = one.summary.seq.expect("what is held has a number");
            if self.held.insert(seq) {
                self.set_aside.insert(seq);
                certain.held(seq, site.name(one.summary.series), one.cause);
                // Only what is acknowledged from now on is a reason to let go of it.
                self.acknowledged.remove(&seq);
            }
        }
        let released: Vec<u64> = self.held.iter().copied().filter(|seq| !site.holds(*seq)).collect();
        for seq in released {
            self.held.remove(&seq);
            self.released += 1;
            assert!(
                self.acknowledged.contains_key(&seq),
                "told: number {seq} is held no more, and nobody has heard that the broker has it"
            );
        }
    }
}
