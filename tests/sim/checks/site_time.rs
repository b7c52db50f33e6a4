//! Site time never goes back from one entry to the next, unless an operator sets it back.

use std::collections::BTreeMap;

use tally_core::id::LogIndex;
use tally_core::time::SiteTime;
use tallyd::site::Site;

#[derive(Debug, Default)]
pub(crate) struct SiteTimes {
    stamps: BTreeMap<LogIndex, SiteTime>,
    /// An operator may have set it back.
    is_stepped: bool,
}

impl SiteTimes {
    pub(crate) fn stepped(&mut self) {
        self.is_stepped = true;
    }

    pub(crate) fn look(&mut self, site: &Site) {
        let (index, stamp) = (site.applied(), site.stamp().site);
        if self.is_stepped || self.stamps.insert(index, stamp).is_some() {
            return;
        }
        let before = self.stamps.range(..index).next_back();
        let after = self.stamps.range(index.next()..).next();
        let follows = |(first, earlier): (&LogIndex, &SiteTime), (second, later): (&LogIndex, &SiteTime)| {
            assert!(
                earlier <= later,
                "site time: it is {earlier} at entry {first} and {later} at entry {second}"
            );
        };
        let this = (&index, &stamp);
        before.into_iter().for_each(|before| follows(before, this));
        after.into_iter().for_each(|after| follows(this, after));
    }
}
