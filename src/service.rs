//! Notifies systemd: ready, watchdog, status. Without systemd this does nothing.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use systemd::NotifyState;
use tokio::task::JoinHandle;

use crate::node::{Handle, NodeStatus};

/// How often the status line is updated though nothing in it has changed that matters.
const STATUS_EVERY: Duration = Duration::from_secs(60);
/// The most notifications that may wait.
const QUEUE_MAX: usize = 4;

/// A notification for systemd.
#[derive(Debug)]
enum ServiceState {
    Ready,
    /// What `systemctl status` shows.
    Status(String),
    /// The process works.
    Alive,
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
    let queue = start();
    let status_task =
        tokio::spawn(notify(queue.clone(), line, std::future::pending, Alive::<fn() -> u64>::Always));
    Service { queue, status_task }
}

/// The same of a box: the line follows each change of role, fault tolerance and disk, and the box is alive as long as
/// the loop goes round that drives consensus and storage.
pub fn ready_box(handle: Handle) -> Service {
    let queue = start();
    let alive = queue.clone();
    let status_task = tokio::spawn(async move {
        let rounds = Alive::While { rounds: || handle.rounds(), seen: None };
        notify(alive, || line(&handle.status()), || handle.status_changed(), rounds).await;
    });
    Service { queue, status_task }
}

/// Starts the thread that notifies systemd, which is told first that this process is ready.
fn start() -> SyncSender<ServiceState> {
    let (queue, inbox) = sync_channel(QUEUE_MAX);
    // A thread of its own: a service manager that does not read would hold up whoever tells it.
    let thread = std::thread::Builder::new().name("service".to_owned()).stack_size(128 << 10);
    let started = thread.spawn(move || {
        for state in inbox {
            // Without a NOTIFY_SOCKET there is nobody to tell.
            let _ = match state {
                ServiceState::Ready => systemd::notify(&[NotifyState::Ready]),
                ServiceState::Status(line) => systemd::notify(&[NotifyState::Status(&line)]),
                ServiceState::Alive => systemd::notify(&[NotifyState::Watchdog]),
                ServiceState::Stopping => systemd::notify(&[NotifyState::Stopping]),
            };
        }
    });
    if let Err(error) = started {
        tracing::warn!("cannot notify systemd: {error}");
    }
    // A full queue already has a notification.
    let _ = queue.try_send(ServiceState::Ready);
    queue
}

/// Notifies systemd until it is aborted. `changed` waits for a change of the line that matters.
async fn notify<Changed: Future<Output = ()>>(
    queue: SyncSender<ServiceState>,
    line: impl Fn() -> String,
    changed: impl Fn() -> Changed,
    mut alive: Alive<impl Fn() -> u64>,
) {
    let every = systemd::watchdog_enabled().map_or(STATUS_EVERY, |limit| (limit / 3).min(STATUS_EVERY));
    loop {
        match alive.is_so() {
            true => drop(queue.try_send(ServiceState::Alive)),
            // It is killed soon, and this line says why.
            false => tracing::error!(
                "the loop of consensus and storage hangs: systemd is not told that this box is alive"
            ),
        }
        let due = tokio::time::sleep(every);
        tokio::pin!(due);
        loop {
            let _ = queue.try_send(ServiceState::Status(line()));
            tokio::select! {
                () = &mut due => break,
                () = changed() => {}
            }
        }
    }
}

/// How it is known that the process works.
enum Alive<Rounds> {
    /// By this task's own turns.
    Always,
    /// By the rounds of a loop: it has gone round since it was asked last.
    While { rounds: Rounds, seen: Option<u64> },
}

impl<Rounds: Fn() -> u64> Alive<Rounds> {
    fn is_so(&mut self) -> bool {
        match self {
            Alive::Always => true,
            Alive::While { rounds, seen } => {
                let now = rounds();
                seen.replace(now) != Some(now)
            }
        }
    }
}

impl Service {
    /// Tells systemd that the process is stopping.
    pub fn stopping(&self) {
        self.status_task.abort();
        let _ = self.queue.try_send(ServiceState::Stopping);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Whoever serves next has a line of its own.
        self.status_task.abort();
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
    fn only_a_loop_that_goes_round_is_alive() {
        let rounds = std::cell::Cell::new(0);
        let mut alive = Alive::While { rounds: || rounds.get(), seen: None };
        assert!(alive.is_so(), "just started");
        assert!(!alive.is_so(), "it stands still");
        rounds.set(1);
        assert!(alive.is_so());
        assert!(!alive.is_so());
    }

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
