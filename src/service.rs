//! Notifies systemd: ready, watchdog, status. Without systemd this does nothing.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use systemd::NotifyState;
use tokio::task::JoinHandle;

use crate::node::NodeStatus;

/// How often the status line is updated.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// The most notifications that may wait.
const QUEUE_MAX: usize = 4;

/// A notification for systemd.
#[derive(Debug)]
enum ServiceState {
    Ready,
    Alive(String),
    Stopping,
}

/// The notifier of systemd.
#[derive(Debug)]
pub struct Service {
    queue: SyncSender<ServiceState>,
    status_task: JoinHandle<()>,
}

/// Notifies systemd that this process is ready, and from then on of its status line and that it is alive.
pub fn ready(line: impl Fn() -> String + Send + 'static) -> Service {
    let (queue, inbox) = sync_channel(QUEUE_MAX);
    // A thread of its own: a service manager that does not read would hold up whoever tells it.
    let thread = std::thread::Builder::new().name("service".to_owned()).stack_size(128 << 10);
    let started = thread.spawn(move || {
        for state in inbox {
            // Without a NOTIFY_SOCKET there is nobody to tell.
            let _ = match state {
                ServiceState::Ready => systemd::notify(&[NotifyState::Ready]),
                ServiceState::Alive(line) => {
                    systemd::notify(&[NotifyState::Watchdog, NotifyState::Status(&line)])
                }
                ServiceState::Stopping => systemd::notify(&[NotifyState::Stopping]),
            };
        }
    });
    if let Err(error) = started {
        tracing::warn!("cannot notify systemd: {error}");
    }
    let alive = queue.clone();
    // A full queue already has a notification.
    let _ = queue.try_send(ServiceState::Ready);
    let status_task = tokio::spawn(async move {
        let every = systemd::watchdog_enabled().map_or(STATUS_EVERY, |limit| (limit / 3).min(STATUS_EVERY));
        loop {
            let _ = alive.try_send(ServiceState::Alive(line()));
            tokio::time::sleep(every).await;
        }
    });
    Service { queue, status_task }
}

impl Service {
    /// Tells systemd that the process is stopping.
    pub fn stopping(&self) {
        self.status_task.abort();
        let _ = self.queue.try_send(ServiceState::Stopping);
    }
}

/// What `systemctl status` shows of a box: first whether it counts, and if not, why and what to do.
pub fn line(status: &NodeStatus) -> String {
    format!("{}; {}; applied {}", status.verdict.text, status.role.as_str(), status.applied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{NodeRole, Verdict};

    #[test]
    fn the_line_begins_with_the_verdict() {
        let verdict = Verdict::does_not_count("this box's disk is full", "free some space");
        let status = NodeStatus { role: NodeRole::Follower, applied: 7, verdict, ..NodeStatus::default() };
        assert_eq!(
            line(&status),
            "does NOT count: this box's disk is full; do: free some space; follower; applied 7"
        );
    }
}
