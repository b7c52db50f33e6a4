//! Bytes in flight by index: to one follower, or to being committed.

use heapless::Deque;

use crate::id::LogIndex;

/// How many parts are told apart.
pub(super) const PARTS_MAX: usize = 16;

/// Parts of the log, ascending, each by its last index and its bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    pub(super) parts: Deque<(LogIndex, u64), PARTS_MAX>,
    pub(super) bytes: u64,
}

impl Ledger {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.parts.is_full()
    }

    /// Adds a part; if there is no room it is counted together with the one before.
    #[inline(never)]
    pub(super) fn push(&mut self, last: LogIndex, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.parts.is_full()
            && let Some(newest) = self.parts.back_mut()
        {
            *newest = (last, newest.1.saturating_add(bytes));
            return;
        }
        let pushed = self.parts.push_back((last, bytes));
        debug_assert!(pushed.is_ok(), "there is room");
    }

    /// What goes up to here has arrived.
    #[inline(never)]
    pub(super) fn arrived(&mut self, index: LogIndex) {
        while let Some((_, bytes)) = self.parts.front().copied().filter(|(last, _)| *last <= index) {
            self.parts.pop_front();
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    pub(super) fn clear(&mut self) {
        self.parts.clear();
        self.bytes = 0;
    }
}
