//! Gathers, at the leader, entries that nobody waits for: closes and ticks that are due, and counts of all boxes. They
//! share one append, and so one write at every box. Boxes send such counts at the same instants of site time (see
//! `instants`).
//!
//! Gathered entries are in nobody's log, and need not be: the box that counted them sends them again until they are
//! applied.

use std::time::{Duration, Instant};

use tally_core::id::{LogIndex, NodeId};
use tracing::debug;

use super::Node;
use super::wire::APPEND_BYTES_MAX;
use crate::site::{Body, Envelope, entry};

/// An idle site's elapsed time goes on in the log at least this often, so that a key taken after a
/// long silence is not taken for old.
const TICK_EVERY_MS: u64 = 60_000;
/// More is not waited with.
const GATHERED_BYTES_MAX: usize = APPEND_BYTES_MAX as usize;
/// A body takes so many bytes beside itself.
const BODY_BYTES: usize = 64;

/// What a leader has gathered for its next append.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    envelopes: Vec<(NodeId, Envelope<Body>)>,
    bytes: usize,
    /// When all of it goes; `None`: nothing is waited with.
    until: Option<Instant>,
}

impl Gathered {
    /// Takes an envelope of a box that nobody waits for.
    fn take(&mut self, from: NodeId, envelope: Envelope<Body>, wait: Duration, now: Instant) {
        self.bytes += envelope.inside.len() + BODY_BYTES;
        self.envelopes.push((from, envelope));
        self.open(wait, now);
        if self.bytes > GATHERED_BYTES_MAX {
            self.hurry(now);
        }
    }

    /// Something is to go that can wait for company.
    fn open(&mut self, wait: Duration, now: Instant) {
        self.until.get_or_insert(now + wait);
    }

    /// Something goes now: what was gathered goes along.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.until = self.until.map(|until| until.min(now));
    }

    /// The same goes by itself now, since somebody waits behind it.
    pub(super) fn drop_copy(&mut self, envelope: &Envelope<Body>) {
        self.envelopes.retain(|(_, gathered)| gathered != envelope);
    }

    /// Drops everything: a box that no longer leads appends nothing.
    pub(super) fn clear(&mut self) {
        *self = Gathered::default();
    }

    /// When it goes.
    pub(super) fn due(&self) -> Option<Instant> {
        self.until
    }
}

impl Node {
    /// Puts an envelope that nobody waits for into the log, with what others send at the same instant.
    pub(super) fn gather(&mut self, from: NodeId, envelope: Envelope<Body>) {
        let wait = self.batches.join_wait();
        self.gathered.take(from, envelope, wait, self.moment.now);
    }

    /// What a leader proposes because time has passed.
    pub(super) fn propose_by_time(&mut self) {
        let Some(stamp) = self.stamp().filter(|_| !self.state_check.is_out()) else { return };
        self.raise_level();
        let last = self.site().stamp();
        if self.windows_due().is_some() {
            self.gathered.open(self.batches.join_wait(), self.moment.now);
        }
        if stamp.elapsed.since_ms(last.elapsed.max(self.ticked)) >= TICK_EVERY_MS
            && self.append(entry::tick()).is_ok()
        {
            self.ticked = stamp.elapsed;
        }
    }

    /// Up to when windows are to be closed now.
    fn windows_due(&mut self) -> Option<tally_core::time::SiteTime> {
        let stamp = self.stamp().filter(|_| !self.state_check.is_out())?;
        let site = self.site();
        let is_applied = site.applied() >= self.close_proposed;
        site.close_due(stamp.site).filter(|_| is_applied)
    }

    /// Puts what was gathered into the log once it is time, and after it what closes the windows that are over.
    pub(super) fn append_gathered(&mut self) {
        let now = self.moment.now;
        if self.gathered.due().is_none_or(|due| now < due) {
            return;
        }
        let gathered = std::mem::take(&mut self.gathered);
        let me = self.shared.identity.node_id();
        for (from, envelope) in gathered.envelopes {
            match self.append_checked(&envelope) {
                Ok(index) => self.tell_commit_to(from, index),
                Err(_) if from == me => self.batches.on_not_sent(now),
                Err(why) => debug!("rejected an entry of another box: {why}"),
            }
        }
        if let Some(until) = self.windows_due()
            && let Ok(index) = self.append(entry::close(until))
        {
            self.close_proposed = index;
        }
    }

    /// A box that waits for a commit is told of it at once, not with the next heartbeat.
    pub(super) fn tell_commit_to(&mut self, from: NodeId, index: LogIndex) {
        if from != self.shared.identity.node_id() {
            self.tell_commit.insert(from, index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(100);

    fn of(body: &[u8]) -> Envelope<Body> {
        Envelope::plain(body.into())
    }

    fn gathered(now: Instant) -> Gathered {
        let mut gathered = Gathered::default();
        gathered.take(NodeId(2), of(b"two"), WAIT, now);
        gathered
    }

    #[test]
    fn what_comes_later_goes_with_the_first() {
        let now = Instant::now();
        let mut gathered = gathered(now);
        gathered.take(NodeId(3), of(b"three"), WAIT, now + WAIT / 2);
        gathered.open(WAIT, now + WAIT / 2);
        assert_eq!((gathered.due(), gathered.envelopes.len()), (Some(now + WAIT), 2));
    }

    #[test]
    fn what_goes_at_once_takes_along_what_is_gathered_and_begins_no_waiting() {
        let now = Instant::now();
        let mut nothing = Gathered::default();
        nothing.hurry(now);
        assert_eq!(nothing.due(), None);
        let mut gathered = gathered(now);
        gathered.hurry(now + WAIT / 4);
        assert_eq!(gathered.due(), Some(now + WAIT / 4));
    }

    #[test]
    fn a_copy_that_goes_by_itself_does_not_go_twice() {
        let now = Instant::now();
        let mut gathered = gathered(now);
        gathered.drop_copy(&of(b"three"));
        assert_eq!(gathered.envelopes.len(), 1);
        gathered.drop_copy(&of(b"two"));
        assert!(gathered.envelopes.is_empty());
    }

    #[test]
    fn much_is_not_waited_with() {
        let now = Instant::now();
        let mut gathered = gathered(now);
        gathered.take(NodeId(3), of(&vec![0; GATHERED_BYTES_MAX]), WAIT, now);
        assert_eq!(gathered.due(), Some(now));
    }
}
