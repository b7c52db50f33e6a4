//! Log matching: entries of the same index and term are the same, and so is everything before them.
//! By induction: an index and a term decide the payload and the position before.

use std::collections::HashMap;
use std::rc::Rc;

use tally_core::raft::Position;

use crate::log::Entry;

#[derive(Debug, Default)]
pub(crate) struct LogMatching(HashMap<Position, (Position, Rc<[u8]>)>);

impl LogMatching {
    /// A box puts an entry after that position.
    pub(crate) fn put(&mut self, previous: Position, entry: &Entry) {
        let this = (previous, Rc::clone(&entry.payload));
        let known = self.0.entry(entry.position).or_insert_with(|| this.clone());
        assert_eq!(*known, this, "log matching: logs differ at {:?}", entry.position);
    }
}
