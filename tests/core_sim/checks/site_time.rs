//! Monotonic site time: from entry to entry neither site time nor elapsed time goes back, at any box and across
//! boxes, whatever their clocks do.

use tally_core::id::LogIndex;
use tallyd::site::Stamp;

use crate::plan::size;

/// The stamp in force after each entry.
#[derive(Debug, Default)]
pub(crate) struct SiteTimes(Vec<Option<Stamp>>);

impl SiteTimes {
    pub(crate) fn applied(&mut self, index: LogIndex, stamp: Stamp) {
        let place = size(index.0);
        if self.0.len() <= place {
            self.0.resize(place + 1, None);
        }
        let neighbours = [self.0.get(place - 1), Some(&Some(stamp)), self.0.get(place + 1)];
        let known: Vec<Stamp> = neighbours.into_iter().flatten().flatten().copied().collect();
        for pair in known.windows(2) {
            let goes_on = pair[0].site <= pair[1].site && pair[0].elapsed <= pair[1].elapsed;
            assert!(goes_on, "monotonic site time: time goes back around entry {index}: {pair:?}");
        }
        let first = *self.0[place].get_or_insert(stamp);
        assert_eq!(first, stamp, "monotonic site time: two boxes have other times after entry {index}");
    }
}
