//! What peers said that led to nothing: counted by reason, and told in the log at a bounded rate.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tally_core::id::NodeId;
use tally_core::raft::Ignored;

use crate::figures::Counter;

/// At most one line in this time for each reason: a peer that tries all day must not fill the disk.
pub(crate) const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Why something that a member sent was refused or ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A frame that cannot be read.
    UnreadableFrame,
    /// A proposed body that cannot be read: in the log it would stop every box.
    UnreadableBody,
    /// An entry with members that are no group.
    BadConfiguration,
    /// A snapshot that is damaged, or not what it was announced as.
    BadSnapshot,
    /// A frame that a box (or a witness) has no use for.
    NotForThis,
    /// A part of a snapshot that was not asked for.
    PartNotAwaited,
    /// Entries, while too many wait for this box's disk already.
    DiskBehind,
    /// It asks to transfer leadership, which cannot be.
    TransferRefused,
    /// A list of members that is old, or without this witness.
    StaleMembers,
    /// See [`Ignored::UnknownSender`]; the others likewise.
    UnknownSender,
    /// Only a voter may send this.
    NotVoter,
    /// More members than there is room for.
    TooManyMembers,
    /// Numbers that do not belong together, or contradict what is committed.
    Implausible,
    /// Overtaken by later messages.
    Stale,
    /// Asks for a vote while a leader is heard.
    Leased,
    /// An answer to nothing that was asked.
    NotAwaited,
    /// Needs an entry that the log does not show.
    LogUnreadable,
    /// What it asked for before is still under way: a witness is storing its record, a part of a snapshot is sent.
    Busy,
}

/// All reasons, in the order of their numbers.
pub const REASONS: [Reason; 18] = [
    Reason::UnreadableFrame,
    Reason::UnreadableBody,
    Reason::BadConfiguration,
    Reason::BadSnapshot,
    Reason::NotForThis,
    Reason::PartNotAwaited,
    Reason::DiskBehind,
    Reason::TransferRefused,
    Reason::StaleMembers,
    Reason::UnknownSender,
    Reason::NotVoter,
    Reason::TooManyMembers,
    Reason::Implausible,
    Reason::Stale,
    Reason::Leased,
    Reason::NotAwaited,
    Reason::LogUnreadable,
    Reason::Busy,
];

impl Reason {
    /// As metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::UnreadableFrame => "unreadable-frame",
            Reason::UnreadableBody => "unreadable-body",
            Reason::BadConfiguration => "bad-configuration",
            Reason::BadSnapshot => "bad-snapshot",
            Reason::NotForThis => "not-for-this",
            Reason::PartNotAwaited => "part-not-awaited",
            Reason::DiskBehind => "disk-behind",
            Reason::TransferRefused => "transfer-refused",
            Reason::StaleMembers => "stale-members",
            Reason::UnknownSender => "unknown-sender",
            Reason::NotVoter => "not-voter",
            Reason::TooManyMembers => "too-many-members",
            Reason::Implausible => "implausible",
            Reason::Stale => "stale",
            Reason::Leased => "leased",
            Reason::NotAwaited => "not-awaited",
            Reason::LogUnreadable => "log-unreadable",
            Reason::Busy => "busy",
        }
    }

    /// Whether the bytes themselves were wrong; otherwise they only came at the wrong time or from the wrong box.
    pub const fn is_malformed(self) -> bool {
        use Reason::{BadConfiguration, BadSnapshot, UnreadableBody, UnreadableFrame};
        matches!(self, UnreadableFrame | UnreadableBody | BadConfiguration | BadSnapshot)
    }

    /// In words, with what to do; `None` for what comes to pass in any healthy site.
    const fn explain(self) -> Option<&'static str> {
        Some(match self {
            Reason::UnreadableFrame => "a frame that cannot be read; do all boxes run the same release?",
            Reason::UnreadableBody => "a body that cannot be read; do all boxes run the same release?",
            Reason::BadConfiguration => "members that are no group; do all boxes run the same release?",
            Reason::BadSnapshot => "a snapshot that cannot be used; its disk may be damaged",
            Reason::NotForThis => "a frame that is of no use here; is it the box that it should be?",
            Reason::UnknownSender => "a message though it is no member (any more)",
            Reason::NotVoter => "a message that only a voter may send",
            Reason::TooManyMembers => "a group with more members than there is room for",
            Reason::Implausible => {
                "numbers that do not belong together, or contradict what is committed; do all boxes run the same \
                 release, and was none put back to an old copy?"
            }
            Reason::TransferRefused => "a wish to transfer leadership, which cannot be now",
            Reason::LogUnreadable => "a message that needs an entry which this log does not show",
            Reason::PartNotAwaited
            | Reason::DiskBehind
            | Reason::StaleMembers
            | Reason::Stale
            | Reason::Leased
            | Reason::NotAwaited
            | Reason::Busy => return None,
        })
    }
}

impl From<Ignored> for Reason {
    fn from(why: Ignored) -> Reason {
        match why {
            Ignored::UnknownSender => Reason::UnknownSender,
            Ignored::NotVoter => Reason::NotVoter,
            Ignored::TooManyMembers => Reason::TooManyMembers,
            Ignored::Malformed => Reason::Implausible,
            Ignored::Stale => Reason::Stale,
            Ignored::Leased => Reason::Leased,
            Ignored::NotAwaited => Reason::NotAwaited,
            Ignored::LogUnreadable => Reason::LogUnreadable,
            Ignored::Busy => Reason::Busy,
        }
    }
}

/// Counts what was refused, and logs some of it.
#[derive(Debug, Default)]
pub struct DroppedMessages {
    counters: [Counter; REASONS.len()],
    log: BoundedLog<{ REASONS.len() }>,
}

impl DroppedMessages {
    /// Something that this member sent led to nothing.
    pub fn count_one(&self, from: NodeId, reason: Reason) {
        self.drop_because(from, reason, "not taken");
    }

    /// Likewise, with what else is known of it.
    pub fn drop_because(&self, from: NodeId, reason: Reason, detail: &str) {
        self.counters[reason as usize].raise();
        let name = reason.as_str();
        let Some(why) = reason.explain() else {
            return tracing::debug!("box {from}: {name}: {detail}");
        };
        match self.log.due(reason as usize, Instant::now()) {
            None => {}
            Some(0) => tracing::warn!("box {from} sent {why} ({name}): {detail}"),
            Some(more) => {
                tracing::warn!("box {from} sent {why} ({name}): {detail} ({more} more since the last line)");
            }
        }
    }

    /// How often for this reason.
    pub fn count(&self, reason: Reason) -> u64 {
        self.counters[reason as usize].get()
    }

    /// How often for all reasons that are malformed, or for all others.
    pub fn sum(&self, malformed: bool) -> u64 {
        REASONS
            .iter()
            .filter(|reason| reason.is_malformed() == malformed)
            .map(|reason| self.count(*reason))
            .sum()
    }
}

/// When a line may be written again, for each of so many reasons.
#[derive(Debug)]
pub(crate) struct BoundedLog<const REASONS: usize>(Mutex<[Line; REASONS]>);

/// The last line about a reason, and how many were left out since.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    written: Option<Instant>,
    left_out: u64,
}

impl<const REASONS: usize> Default for BoundedLog<REASONS> {
    fn default() -> Self {
        BoundedLog(Mutex::new([Line::default(); REASONS]))
    }
}

impl<const REASONS: usize> BoundedLog<REASONS> {
    /// How many lines about this reason were left out, if one may be written now.
    pub(crate) fn due(&self, reason: usize, now: Instant) -> Option<u64> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = &mut lines[reason];
        if line.written.is_some_and(|written| now.duration_since(written) < LOG_INTERVAL) {
            line.left_out += 1;
            return None;
        }
        line.written = Some(now);
        Some(std::mem::take(&mut line.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_stands_at_its_number() {
        for (at, reason) in REASONS.iter().enumerate() {
            assert_eq!(*reason as usize, at);
        }
    }

    #[test]
    fn a_reason_is_logged_once_in_ten_seconds_with_the_number_left_out() {
        let log = BoundedLog::<2>::default();
        let start = Instant::now();
        assert_eq!(log.due(0, start), Some(0));
        assert_eq!(log.due(0, start), None);
        assert_eq!(log.due(1, start), Some(0));
        assert_eq!(log.due(0, start + LOG_INTERVAL / 2), None);
        assert_eq!(log.due(0, start + LOG_INTERVAL), Some(2));
    }

    #[test]
    fn what_is_refused_is_counted_by_reason() {
        let refusals = DroppedMessages::default();
        refusals.count_one(NodeId(2), Reason::UnreadableFrame);
        refusals.count_one(NodeId(2), Reason::from(Ignored::Malformed));
        refusals.count_one(NodeId(3), Reason::from(Ignored::Malformed));
        assert_eq!((refusals.count(Reason::UnreadableFrame), refusals.count(Reason::Implausible)), (1, 2));
        assert_eq!((refusals.sum(true), refusals.sum(false)), (1, 2));
    }
}
