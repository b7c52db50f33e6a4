//! What a box does that has had no leader for longer than a failover takes: it answers waiting and new requests with
//! not-committed at once, so that a client goes to another box instead of waiting.
//!
//! That is right also if the neighbours hear a leader and only this box does not (a link is cut). They could forward
//! its requests, but this box would not learn the results: answers are decided where entries are applied, and the log
//! does not reach this box.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Node;
use super::handle::{NO_LEADER, REQUEST_WAIT};

/// A failover takes far less, with quick disks and links,
const LEAST: Duration = Duration::from_secs(2);
/// and with slow ones as many election timeouts at most, nearly always.
const ELECTION_TIMEOUTS: u32 = 4;

impl Node {
    /// Tells those who wait, once there has been no leader for long.
    pub(super) fn notice_leader(&mut self) {
        if self.leader_term().is_some() {
            self.leaderless_since = None;
            self.shared.leaderless.store(false, Ordering::Relaxed);
            return;
        }
        let now = self.moment.now;
        let since = *self.leaderless_since.get_or_insert(now);
        let is_out = self.state_check.is_out();
        let patience = (self.heartbeats.adaptive.timeout() * ELECTION_TIMEOUTS).clamp(LEAST, REQUEST_WAIT);
        if now < since + patience && !is_out {
            return;
        }
        // Also those that came since the last look, before they could see it.
        self.shared.leaderless.store(true, Ordering::Relaxed);
        self.shared.accumulator.give_up_waiting(NO_LEADER);
        self.proposals.give_up_unsent();
        self.reads.give_up();
    }
}
