//! An amount for the window that is open now is never late, whatever an operator did to site time.

use std::collections::BTreeMap;

use tally_core::id::NodeId;
use tally_core::time::SiteTime;
use tallyd::site::Site;

use super::OneIncarnation;

#[derive(Debug, Default)]
pub(crate) struct Windows {
    /// Up to where the history was looked at, at whichever box was first there.
    position: u64,
    /// Site time when a box was looked at last.
    seen: BTreeMap<NodeId, (u64, SiteTime)>,
    /// To when an operator set it back.
    set_back: Vec<SiteTime>,
}

impl Windows {
    pub(crate) fn look(&mut self, (at, incarnation): OneIncarnation, site: &Site) {
        let now = site.stamp().site;
        let before = self
            .seen
            .insert(at, (incarnation, now))
            .filter(|(of, _)| *of == incarnation)
            .map(|(_, seen)| seen);
        let (position, closed) = site.closed_after(self.position, "");
        self.position = position.max(self.position);
        if before.is_some_and(|before| now < before) {
            self.set_back.push(now);
        }
        let Some(before) = before.filter(|before| *before <= now) else { return };
        for summary in closed.iter().filter(|summary| summary.late) {
            let end = SiteTime(summary.start.0 + summary.span_ms);
            // Of a long window the site may have lived through a part before, which shorter ones have summarised.
            if self.set_back.iter().any(|at| summary.start < *at && *at < end) {
                continue;
            }
            assert!(
                summary.start > before || end <= now,
                "windows: {} was counted late in the window of {} to {end}, which is open at {now}",
                site.name(summary.series),
                summary.start
            );
        }
    }
}
