//! The table of open connections and their activity, by which idle connections make room for new ones.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::task::AbortHandle;

/// All connections of the listener.
#[derive(Debug)]
pub(super) struct Connections {
    max: usize,
    began: Instant,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Arc<Activity>>,
}

/// The activity of a connection.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    /// A request is being answered; without one, the connection is idle.
    busy: AtomicBool,
    /// When the connection became idle, in milliseconds after `began`.
    idle_since_ms: AtomicU64,
    task: OnceLock<AbortHandle>,
}

/// A connection's place in the table, given back on drop.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    number: u64,
    pub(super) activity: Arc<Activity>,
}

impl Connections {
    pub(super) fn new(max: usize) -> Arc<Connections> {
        Arc::new(Connections { max: max.max(1), began: Instant::now(), table: Mutex::default() })
    }

    /// Returns a place for a new connection. If there is none, closes the connection that was idle longest.
    /// `None`: all connections are busy.
    pub(super) fn admit(self: &Arc<Connections>) -> Option<Place> {
        let mut table = self.lock();
        if table.open.len() >= self.max && !table.close_longest_idle() {
            return None;
        }
        let activity = Arc::new(Activity {
            began: self.began,
            busy: AtomicBool::new(false),
            idle_since_ms: AtomicU64::new(self.began.elapsed().as_millis() as u64),
            task: OnceLock::new(),
        });
        let number = table.next;
        table.next += 1;
        table.open.insert(number, activity.clone());
        Some(Place { connections: self.clone(), number, activity })
    }

    /// Closes the connections that were idle for that long.
    pub(super) fn close_idle(&self, longer_than: Duration) {
        let now_ms = self.began.elapsed().as_millis() as u64;
        let long_ms = longer_than.as_millis() as u64;
        self.lock().open.retain(|_, activity| {
            let keep = activity.idle_since().is_none_or(|since| now_ms.saturating_sub(since) < long_ms);
            if !keep {
                activity.close();
            }
            keep
        });
    }

    /// Closes the connection that was idle longest, to free a descriptor. False if none was idle.
    pub(super) fn close_longest_idle(&self) -> bool {
        self.lock().close_longest_idle()
    }

    /// The number of open connections.
    pub(super) fn len(&self) -> usize {
        self.lock().open.len()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing in here panics while holding the lock.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn close_longest_idle(&mut self) -> bool {
        let idle = self.open.iter().filter_map(|(number, activity)| Some((activity.idle_since()?, *number)));
        let Some((_, number)) = idle.min() else { return false };
        if let Some(activity) = self.open.remove(&number) {
            activity.close();
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().open.remove(&self.number);
    }
}

impl Activity {
    /// Names the task that serves the connection, for those who close it.
    pub(super) fn served_by(&self, task: AbortHandle) {
        // Set once: a place is made for one task.
        let _ = self.task.set(task);
    }

    /// Marks the connection busy until the returned guard is dropped.
    pub(super) fn begin(self: &Arc<Activity>) -> Busy {
        self.busy.store(true, Ordering::Relaxed);
        Busy(self.clone())
    }

    fn idle_since(&self) -> Option<u64> {
        if self.busy.load(Ordering::Relaxed) {
            None
        } else {
            Some(self.idle_since_ms.load(Ordering::Relaxed))
        }
    }

    fn close(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// A guard that keeps its connection busy.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        let now_ms = self.0.began.elapsed().as_millis() as u64;
        self.0.idle_since_ms.store(now_ms, Ordering::Relaxed);
        self.0.busy.store(false, Ordering::Relaxed);
    }
}

/// A body that lasts as long as its client watches; the connection is busy until the body ends.
#[derive(Debug)]
pub(super) struct Ongoing {
    pub(super) body: Body,
    pub(super) _busy: Busy,
}

impl HttpBody for Ongoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_that_was_idle_longest_makes_room() {
        let connections = Connections::new(2);
        let first = connections.admit().unwrap();
        let second = connections.admit().unwrap();
        first.activity.idle_since_ms.store(2, Ordering::Relaxed);
        second.activity.idle_since_ms.store(1, Ordering::Relaxed);
        let _third = connections.admit().unwrap();
        assert_eq!(connections.len(), 2);
        assert!(!connections.lock().open.contains_key(&second.number));
        assert!(connections.lock().open.contains_key(&first.number));
    }

    #[test]
    fn a_busy_connection_is_never_closed_for_another() {
        let connections = Connections::new(1);
        let first = connections.admit().unwrap();
        let busy = first.activity.begin();
        assert!(connections.admit().is_none());
        connections.close_idle(Duration::ZERO);
        assert_eq!(connections.len(), 1);
        drop(busy);
        assert!(connections.admit().is_some());
    }

    #[test]
    fn a_place_is_given_back_when_its_connection_ends() {
        let connections = Connections::new(10);
        drop(connections.admit().unwrap());
        assert_eq!(connections.len(), 0);
        let _idle = connections.admit().unwrap();
        connections.close_idle(Duration::from_secs(1000));
        assert_eq!(connections.len(), 1);
        connections.close_idle(Duration::ZERO);
        assert_eq!(connections.len(), 0);
    }
}
