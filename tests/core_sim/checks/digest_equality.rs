//! Digest equality: boxes that applied the same index have the same state.

use std::collections::BTreeMap;

use tally_core::id::LogIndex;

#[derive(Debug, Default)]
pub(crate) struct DigestEquality(BTreeMap<LogIndex, u64>);

impl DigestEquality {
    pub(crate) fn applied(&mut self, index: LogIndex, digest: u64) {
        let known = *self.0.entry(index).or_insert(digest);
        assert_eq!(known, digest, "digest equality: two boxes applied up to {index} and differ");
    }
}
