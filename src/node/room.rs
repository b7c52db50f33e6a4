//! Keeps the log within `storage.bytes_max`: when a snapshot is due for it, and what is reported if the state alone is
//! too large.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tally_core::id::LogIndex;
use tally_core::raft::LogView;
use tracing::{info, warn};

use super::disk_health::DiskFault;
use super::{Node, wire};
use crate::storage::{Budget, Stats};

/// A snapshot that could not be written is tried again no earlier.
const RETRY_EVERY: Duration = Duration::from_secs(2);

/// How much of the log may be under way to a follower: its disk gets it in one group.
pub(super) fn inflight_bytes_max(bytes_max: u64) -> u32 {
    let most = 4 * wire::APPEND_BYTES_MAX;
    u32::try_from(bytes_max / 16).map_or(most, |share| share.clamp(wire::APPEND_BYTES_MAX, most))
}

/// How much may wait to be committed: no snapshot frees it.
pub(super) fn uncommitted_bytes_max(bytes_max: u64) -> u64 {
    (bytes_max / 8).clamp(1 << 20, 16 << 20)
}

/// After how many bytes of log a snapshot is due at the latest, when the last one had `last` bytes: what is left once
/// that one and the next have their place, by halves, since the state may grow as the log does. Never less than a
/// quarter of the last one, so that it is not written again and again.
pub(super) fn log_bytes_max(bytes_max: u64, last: u64) -> u64 {
    let segment = Budget::new(bytes_max).options().segment_bytes;
    let left = bytes_max.saturating_sub(last.saturating_mul(2)).saturating_sub(4 * segment);
    (left / 2).max(last / 4).max(segment)
}

/// What to say where log, snapshots and spare files cannot stay within their bound.
pub(super) fn bound_exceeded(stats: &Stats) -> Option<String> {
    let Stats { bytes_used, bytes_max, snapshot_bytes, .. } = *stats;
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    if snapshot_bytes.saturating_mul(3) > bytes_max {
        return Some(format!(
            "a snapshot of the state has {} MiB, more than a third of storage.bytes_max ({} MiB), so log and \
             snapshots exceed the limit: raise it on a larger partition, or keep fewer series and summaries",
            mib(snapshot_bytes),
            mib(bytes_max)
        ));
    }
    (bytes_used > bytes_max).then(|| {
        format!(
            "log and snapshots take {} MiB, more than storage.bytes_max ({} MiB): the next snapshot frees \
             the log that it covers",
            mib(bytes_used),
            mib(bytes_max)
        )
    })
}

impl Node {
    /// Whether a snapshot is wanted for the space that it frees, when the log has grown by so many bytes.
    pub(super) fn needs_room(&self, grown: u64) -> bool {
        let full = self.disk_health.trouble().is_some_and(|trouble| trouble.kind == DiskFault::Full);
        let low = self.storage_metrics.low.load(Ordering::Relaxed);
        let bytes_max = self.storage_metrics.bytes_max.load(Ordering::Relaxed);
        // Where others have filled the partition it is low for ever: then it is to be worth it.
        let much = (self.snapshots.last_bytes / 4).max(Budget::new(bytes_max).options().segment_bytes / 2);
        (full || low && grown >= much) && self.snapshots.retry_at.is_none_or(|at| at <= self.moment.now)
    }

    /// A snapshot could not be written: when to try again though the log may not grow.
    pub(super) fn snapshot_failed_for_now(&mut self) {
        self.snapshots.retry_at = Some(self.moment.now + RETRY_EVERY);
    }

    /// The log on disk begins with this entry: followers that need an earlier one get a snapshot.
    pub(super) fn log_begins(&mut self, first: LogIndex) {
        let Some(base) = self.tail.position(first.prev()) else { return };
        if base.index.0 > 0 && self.raft.compacted(base) {
            self.tail.forget_through(base.index);
        }
    }

    /// After a snapshot: says once when the state is too large for the bound, and when it is not any more.
    pub(super) fn tell_room(&mut self) {
        let stats = self.storage_metrics.stats();
        let is_large = stats.snapshot_bytes.saturating_mul(3) > stats.bytes_max;
        if std::mem::replace(&mut self.snapshots.told_large, is_large) == is_large {
            return;
        }
        match bound_exceeded(&stats) {
            Some(words) if is_large => warn!("{words}"),
            _ => info!("the state fits storage.bytes_max again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn two_snapshots_and_the_log_between_them_are_within_the_bound_up_to_a_third() {
        for bytes_max in [8, 12, 64, 256].map(|mib| mib * MIB) {
            for share in 0..=33 {
                let last = bytes_max * share / 100;
                let (log, segment) =
                    (log_bytes_max(bytes_max, last), Budget::new(bytes_max).options().segment_bytes);
                assert!(last * 2 + log + 2 * segment <= bytes_max, "{bytes_max}: {share} %, {log}");
            }
        }
        assert_eq!(log_bytes_max(8 * MIB, 40 * MIB), 10 * MIB, "beyond it, not at any price");
    }

    #[test]
    fn a_state_that_is_too_large_for_the_bound_is_told() {
        let stats = |bytes_used, snapshot_bytes| Stats {
            bytes_used: bytes_used * MIB,
            bytes_max: 12 * MIB,
            snapshot_bytes: snapshot_bytes * MIB,
            ..Stats::default()
        };
        assert_eq!(bound_exceeded(&stats(12, 4)), None);
        assert!(
            bound_exceeded(&stats(11, 5))
                .unwrap()
                .contains("more than a third of storage.bytes_max (12 MiB)")
        );
        assert!(bound_exceeded(&stats(13, 1)).unwrap().contains("take 13 MiB"));
    }

    #[test]
    fn small_boxes_have_less_under_way() {
        assert_eq!((inflight_bytes_max(256 * MIB), uncommitted_bytes_max(256 * MIB)), (4 << 20, 16 << 20));
        assert_eq!((inflight_bytes_max(8 * MIB), uncommitted_bytes_max(8 * MIB)), (1 << 20, 1 << 20));
    }
}
