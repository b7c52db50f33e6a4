//! Summaries that wait for delivery.

/// Bytes that a summary without a number is counted as, at most.
pub(super) const SUMMARY_BYTES_MAX: u64 = 160;
/// Bytes that a summary with a number is counted as.
pub(super) const NUMBERED_BYTES: u64 = 208;
