//! The send queue of one peer and lane. Its size is limited, and only the connection in use takes frames from it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::{Lane, SendError};

/// How many bytes are passed to QUIC at once, so that a batch is not an entire long queue.
const BATCH_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Queue {
    frame_bytes_max: usize,
    frames_max: usize,
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// The connection that takes frames; `None` refuses frames.
    owner: Option<u64>,
    /// The owner's writer, when it waits.
    writer: Option<Waker>,
}

impl Queue {
    pub(super) fn new(lane: Lane) -> Queue {
        let (frames_max, bytes_max) = match lane {
            Lane::Control => (4096, 1 << 20),
            Lane::Entries => (4096, 8 << 20),
            Lane::Requests => (16_384, 8 << 20),
            Lane::Snapshot => (16, 4 << 20),
        };
        let frame_bytes_max = lane.frame_bytes_max();
        Queue { frame_bytes_max, frames_max, bytes_max, state: Mutex::default() }
    }

    pub(super) fn push(&self, frame: Bytes) -> Result<(), SendError> {
        self.try_push(frame).map_err(|(error, _)| error)
    }

    pub(super) fn has_room(&self) -> bool {
        let state = self.lock();
        state.owner.is_some() && state.frames.len() < self.frames_max && state.bytes < self.bytes_max / 2
    }

    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Gives the queue to another connection, or to none, which drops all waiting frames.
    pub(super) fn set_owner(&self, owner: Option<u64>) {
        let mut state = self.lock();
        state.owner = owner;
        if owner.is_none() {
            state.frames = VecDeque::new();
            state.bytes = 0;
        }
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Moves the next frames into `batch`, which is empty; false when `owner` owns the queue no longer.
    pub(super) fn poll_take(&self, cx: &mut Context<'_>, owner: u64, batch: &mut Vec<Bytes>) -> Poll<bool> {
        let mut state = self.lock();
        if state.owner != Some(owner) {
            return Poll::Ready(false);
        }
        let mut taken = 0;
        while taken < BATCH_BYTES {
            let Some(frame) = state.frames.pop_front() else { break };
            taken += frame.len();
            batch.push(frame);
        }
        if batch.is_empty() {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.bytes -= taken;
        drop(state);
        Poll::Ready(true)
    }

    fn try_push(&self, frame: Bytes) -> Result<(), (SendError, Bytes)> {
        if frame.len() > self.frame_bytes_max {
            return Err((SendError::TooLarge, frame));
        }
        let mut state = self.lock();
        if state.owner.is_none() {
            return Err((SendError::NotConnected, frame));
        }
        if state.frames.len() >= self.frames_max || state.bytes + frame.len() > self.bytes_max {
            return Err((SendError::Full, frame));
        }
        state.bytes += frame.len();
        state.frames.push_back(frame);
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics while holding the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::future::poll_fn;

    fn take(queue: &Queue, owner: u64) -> Option<(bool, Vec<Bytes>)> {
        let mut batch = Vec::new();
        let open = poll_fn(|cx| queue.poll_take(cx, owner, &mut batch)).now_or_never()?;
        Some((open, batch))
    }

    fn frame(bytes: usize) -> Bytes {
        Bytes::from(vec![1; bytes])
    }

    #[test]
    fn a_queue_without_a_connection_refuses_and_forgets() {
        let queue = Queue::new(Lane::Control);
        assert_eq!(queue.push(frame(1)), Err(SendError::NotConnected));
        queue.set_owner(Some(1));
        assert_eq!(queue.push(frame(1)), Ok(()));
        queue.set_owner(None);
        assert_eq!(queue.bytes(), 0);
        assert!(!queue.has_room());
        queue.set_owner(Some(2));
        assert_eq!(take(&queue, 2), None);
    }

    #[test]
    fn frames_and_bytes_are_bounded() {
        let queue = Queue::new(Lane::Snapshot);
        queue.set_owner(Some(1));
        assert_eq!(queue.push(frame((1 << 20) + 1)), Err(SendError::TooLarge));
        for _ in 0..4 {
            assert_eq!(queue.push(frame(1 << 20)), Ok(()));
        }
        assert_eq!(queue.push(frame(1)), Err(SendError::Full));
        queue.set_owner(None);
        queue.set_owner(Some(1));
        for _ in 0..16 {
            assert_eq!(queue.push(frame(0)), Ok(()));
        }
        assert_eq!(queue.push(frame(0)), Err(SendError::Full));
    }

    #[test]
    fn only_the_connection_in_use_takes_and_in_order() {
        let queue = Queue::new(Lane::Entries);
        queue.set_owner(Some(1));
        for bytes in [1, 2, 3] {
            queue.push(frame(bytes)).unwrap();
        }
        queue.set_owner(Some(2));
        assert_eq!(take(&queue, 1), Some((false, vec![])));
        assert_eq!(take(&queue, 2), Some((true, vec![frame(1), frame(2), frame(3)])));
    }
}
