//! Dropped messages of peers: counted by reason, and logged at a bounded rate.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tally_core::id::NodeId;
use tally_core::raft::Ignored;

use crate::figures::Counter;

/// The least time between two lines about a reason, so that a peer that retries all day does not fill the disk.
pub(crate) const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Why a message of a member was refused or ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A malformed frame.
    UnreadableFrame,
    /// A malformed proposal, which would stop every box if it were in the log.
    UnreadableBody,
    /// An entry with an invalid configuration.
    BadConfiguration,
    /// A snapshot that is damaged, or differs from its announcement.
    BadSnapshot,
    /// A frame that a box (or a witness) has no use for.
    NotForThis,
    /// A part of a snapshot that was not requested.
    PartNotAwaited,
    /// Entries, while too many already wait for this box's disk.
    DiskBehind,
    /// A request to transfer leadership that is not possible.
    TransferRefused,
    /// A list of members that is stale, or without this witness.
    StaleMembers,
    /// See [`Ignored::UnknownSender`]; the others likewise.
    UnknownSender,
    /// A message that only a voter may send.
    NotVoter,
    /// A configuration with too many members.
    TooManyMembers,
    /// Numbers that contradict each other or the committed log.
    Implausible,
    /// A message that later ones have overtaken.
    Stale,
    /// A vote request while a leader is heard.
    Leased,
    /// An answer without a request.
    NotAwaited,
    /// A message that needs an entry which the log does not have.
    LogUnreadable,
    /// A previous request of the member is still in progress: a witness is storing its record, or a part of a snapshot
    /// is being sent.
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
    /// The name of the reason in metrics.
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

    /// The reason in words, with what to do; `None` for reasons that occur in any healthy site.
    const fn explain(self) -> Option<&'static str> {
        Some(match self {
            Reason::UnreadableFrame => "a malformed frame; do all boxes run the same release?",
            Reason::UnreadableBody => "a malformed entry; do all boxes run the same release?",
            Reason::BadConfiguration => "an invalid configuration; do all boxes run the same release?",
            Reason::BadSnapshot => "an unusable snapshot; its disk may be damaged",
            Reason::NotForThis => {
                "a frame that this box has no use for; does its address belong to the right box?"
            }
            Reason::UnknownSender => "a message although it is not a member",
            Reason::NotVoter => "a message that only a voter may send",
            Reason::TooManyMembers => "a configuration with too many members",
            Reason::Implausible => {
                "numbers that contradict each other or the committed log; do all boxes run the same release, \
                 and was none restored from an old copy?"
            }
            Reason::TransferRefused => "a request to transfer leadership, which is not possible now",
            Reason::LogUnreadable => "a message that needs an entry that this log does not have",
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

/// Counts dropped messages, and logs some of them.
#[derive(Debug, Default)]
pub struct DroppedMessages {
    counters: [Counter; REASONS.len()],
    log: BoundedLog<{ REASONS.len() }>,
}

impl DroppedMessages {
    /// Counts a dropped message of this member.
    pub fn count_one(&self, from: NodeId, reason: Reason) {
        self.drop_because(from, reason, "ignored");
    }

    /// Counts a dropped message of this member, with a detail for the log.
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

    /// The number of messages dropped for this reason.
    pub fn count(&self, reason: Reason) -> u64 {
        self.counters[reason as usize].get()
    }

    /// The number of messages dropped for all malformed reasons, or for all others.
    pub fn sum(&self, malformed: bool) -> u64 {
        REASONS
            .iter()
            .filter(|reason| reason.is_malformed() == malformed)
            .map(|reason| self.count(*reason))
            .sum()
    }
}

/// Limits the rate of log lines for each of so many reasons.
#[derive(Debug)]
pub(crate) struct BoundedLog<const REASONS: usize>(Mutex<[Line; REASONS]>);

/// The time of the last line about a reason, and the number of lines left out since.
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
    /// Returns the number of lines about this reason that were left out, if one may be written now.
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
