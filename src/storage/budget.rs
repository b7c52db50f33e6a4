//! The space that a box's log, snapshots and spare files may take together, and its division.

use std::path::Path;

use super::{BLOCK_BYTES, Options};

const MIB: u64 = 1 << 20;
/// The default is no more than this, however large the partition.
const DEFAULT_BYTES_MAX: u64 = 256 * MIB;

/// The bound on log, snapshots and spare files together. It holds for as long as a snapshot of the state has no more
/// than a third of it: while a snapshot is written the old one and the log since it are still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget(u64);

impl Budget {
    /// The least bound: less gains nothing, since a single group of entries may have a MiB.
    pub const LEAST: u64 = 8 * MIB;
    /// A partition has at least this, so that the least bound is no more than half of it.
    pub const LEAST_PARTITION: u64 = 2 * Budget::LEAST;

    /// A bound; never below the least.
    pub fn new(bytes_max: u64) -> Budget {
        Budget(bytes_max.max(Budget::LEAST))
    }

    /// The default for a partition of that size: a quarter of it, at most 256 MiB.
    pub fn of_partition(total: u64) -> Budget {
        Budget::new((total / 4).min(DEFAULT_BYTES_MAX))
    }

    /// The bound itself, in bytes.
    pub fn bytes_max(self) -> u64 {
        self.0
    }

    /// How the log is kept within it.
    pub fn options(self) -> Options {
        let usual = Options::default();
        let block = BLOCK_BYTES as u64;
        let segment_bytes = usual.segment_bytes.min(self.0 / 32).next_multiple_of(block);
        // What is freed does not begin and end with the snapshots.
        let freed = self.snapshot_log_bytes().div_ceil(segment_bytes) + 1;
        Options {
            segment_bytes,
            spare_segments: usize::try_from(freed).unwrap_or(usual.spare_segments),
            keep_bytes: usual.keep_bytes.min(self.0 / 8),
            bytes_max: self.0,
            ..usual
        }
    }

    /// A snapshot is due after so much log at the latest, unless the state is large.
    pub fn snapshot_log_bytes(self) -> u64 {
        (16 * MIB).min(self.0 / 8)
    }
}

/// The size of the partition that a directory is on, in bytes, as far as the system says it.
pub fn partition_bytes(dir: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(dir).ok()?;
    // Some file systems have no size of their own.
    Some(found.f_blocks.saturating_mul(found.f_frsize)).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_a_quarter_of_the_partition_within_bounds() {
        for (partition, bound) in [(4, 8), (16, 8), (48, 12), (512, 128), (1024, 256), (1 << 20, 256)] {
            assert_eq!(Budget::of_partition(partition * MIB).bytes_max(), bound * MIB, "of {partition} MiB");
        }
    }

    #[test]
    fn a_large_bound_keeps_the_log_as_ever_and_a_small_one_in_small_pieces() {
        assert_eq!(Budget::new(256 * MIB).options(), Options::default());
        assert_eq!(Budget::new(256 * MIB).snapshot_log_bytes(), 16 * MIB);
        let least = Budget::new(0).options();
        assert_eq!((least.bytes_max, least.segment_bytes, least.keep_bytes), (8 * MIB, MIB / 4, MIB));
    }
}
