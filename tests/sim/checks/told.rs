//! Only what the broker has acknowledged is recorded as delivered. A number that is passed over is held until it is
//! acknowledged after all.

use std::collections::BTreeSet;

use tally_core::id::LogIndex;
use tallyd::site::Site;

use super::SetAside;

#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Numbers whose acknowledgement a box has heard, on the connection that it had.
    acknowledged: BTreeSet<u64>,
    /// The entry of which the following is known.
    applied: LogIndex,
    delivered: u64,
    held: BTreeSet<u64>,
    /// How many numbers were set aside, and released.
    pub(crate) set_aside: u64,
    pub(crate) released: u64,
}

impl Told {
    pub(crate) fn acknowledged(&mut self, seq: u64) {
        self.acknowledged.insert(seq);
    }

    /// Checks a site's state.
    pub(crate) fn look(&mut self, site: &Site, certain: &SetAside) {
        if site.applied() <= self.applied {
            return;
        }
        self.applied = site.applied();
        for seq in self.delivered + 1..=site.delivered() {
            assert!(
                self.acknowledged.contains(&seq) || site.holds(seq),
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
                self.set_aside += 1;
                certain.held(seq, site.name(one.summary.series), one.cause);
            }
        }
        let released: Vec<u64> = self.held.iter().copied().filter(|seq| !site.holds(*seq)).collect();
        for seq in released {
            self.held.remove(&seq);
            self.released += 1;
            assert!(
                self.acknowledged.contains(&seq),
                "told: number {seq} is held no more, and nobody has heard that the broker has it"
            );
        }
    }
}
