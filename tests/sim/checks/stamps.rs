//! A leader's stamp is not before any stamp in the log that it continues, applied or not, back to an operator's step.

use std::collections::BTreeMap;

use bytes::Bytes;
use tally_core::id::{LogIndex, NodeId};
use tally_core::time::SiteTime;
use tallyd::site::{Envelope, StampedEntry, entry};

use crate::boxes::Logged;

#[derive(Debug, Default)]
pub(crate) struct Stamps(BTreeMap<NodeId, Vec<Stamped>>);

/// An entry of a box's log, and the latest time that is stamped on it and those before it.
#[derive(Debug)]
struct Stamped {
    index: LogIndex,
    latest: SiteTime,
}

impl Stamps {
    /// A box is about to write this into its log.
    pub(crate) fn logged(&mut self, at: NodeId, logged: &Logged) {
        let log = self.0.entry(at).or_default();
        match logged {
            Logged::Snapshot => log.clear(),
            Logged::Entry(position, payload) => Stamps::written(log, at, position.index, payload),
        }
    }

    fn written(log: &mut Vec<Stamped>, at: NodeId, index: LogIndex, payload: &Bytes) {
        while log.last().is_some_and(|last| last.index >= index) {
            log.pop();
        }
        if log.last().is_some_and(|last| last.index.next() != index) {
            // A snapshot came in between.
            log.clear();
        }
        let before = log.last().map_or(SiteTime(0), |last| last.latest);
        let entry = Envelope::<StampedEntry>::read(payload).map(|envelope| envelope.inside);
        let latest = match entry.as_ref().and_then(|entry| entry.split().ok()) {
            None => before,
            Some((stamp, body)) if entry::is_step_clock(body) => stamp.site,
            Some((stamp, body)) => {
                assert!(
                    stamp.site >= before,
                    "site time: entry {index} is of {}, and an earlier one in the log of {at} of {before}: {:?}",
                    stamp.site,
                    body
                );
                stamp.site
            }
        };
        log.push(Stamped { index, latest });
    }
}
