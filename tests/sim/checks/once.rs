//! A change of the members that is told twice is made once: the site does not judge its second copy.

use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub(crate) struct Once(BTreeSet<u64>);

impl Once {
    /// The site has said what became of the change of this number.
    pub(crate) fn judged(&mut self, nonce: u64) {
        assert!(self.0.insert(nonce), "once: change {nonce:#x} of the members is judged a second time");
    }
}
