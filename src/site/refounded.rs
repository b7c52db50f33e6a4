//! The state of a site for a new site of one box that goes on with it.

use super::{Members, Requests, Site, Sources, Tokens};

impl Site {
    /// The site's random identity.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.site_id
    }

    /// Makes it another site, or the same in another life: it has no members and no join tokens yet, and knows no
    /// source of its past, so that nothing that was reported to the old one after the backup is taken for reported.
    /// Series count on, but say that they begin `now` (Unix milliseconds), since their totals may go back for those who
    /// know the old site's.
    ///
    /// The state is as its bytes say: take [`Site::snapshot`] and restore it, so that all hashes are the new site's.
    pub fn refound(&mut self, site_id: u64, now: u64) {
        self.site_id = site_id;
        self.members = Members::default();
        self.requests = Requests::default();
        self.tokens = Tokens::default();
        self.sources = Sources::default();
        self.sources.level = self.level;
        self.departures = std::mem::take(&mut self.departures).without_memory();
        // A snapshot of nothing has no place in a log.
        self.applied = self.applied.max(tally_core::id::LogIndex(1));
        let since = now.max(self.stamp.site.0);
        let live = self.series_ids().collect::<Vec<_>>();
        live.into_iter().for_each(|id| self.table.since[id.0 as usize] = since);
    }
}
