//! What is committed is on the disks of a majority of the voters when the first box calls it so, and
//! no box ever holds another entry committed at that index.

use tally_core::id::{LogIndex, Term};

use crate::log::{Entry, Log};
use crate::plan::size;

#[derive(Debug, Default)]
pub(crate) struct Committed(Vec<Known>);

/// A committed entry.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) entry: Entry,
    /// The term in which a box first called it committed; it was committed in that term or before.
    pub(crate) term: Term,
}

/// A box that calls something committed.
pub(crate) struct Learner<'a> {
    pub(crate) log: &'a Log,
    pub(crate) term: Term,
    pub(crate) commit: LogIndex,
    /// What was looked at before.
    pub(crate) seen: LogIndex,
}

impl Committed {
    /// `holders` counts the voters on whose disks an entry is.
    pub(crate) fn learned(&mut self, by: &Learner<'_>, quorum: usize, holders: impl Fn(&Entry) -> usize) {
        let log = by.log;
        for index in by.seen.0 + 1..=by.commit.0 {
            let Some(entry) = log.get(LogIndex(index)) else {
                assert!(index <= log.base.index.0, "entry {index} is committed and not there");
                assert!(index <= self.0.len() as u64, "a snapshot covers what nobody committed");
                continue;
            };
            match self.0.get(size(index) - 1) {
                Some(known) => assert_eq!(&known.entry, entry, "two boxes differ about a committed entry"),
                None => {
                    assert_eq!(index, self.0.len() as u64 + 1);
                    let holders = holders(entry);
                    assert!(holders >= quorum, "{:?} is committed on {holders} disks", entry.position);
                    self.0.push(Known { entry: entry.clone(), term: by.term });
                }
            }
        }
    }

    pub(crate) fn after(&self, index: LogIndex) -> &[Known] {
        &self.0[size(index.0).min(self.0.len())..]
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }
}
