//! systemd: ready, watchdog, status. Without systemd all of it does nothing.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use systemd::NotifyState;
use tokio::task::JoinHandle;

use crate::node::NodeStatus;

/// How often the status line is written anew.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// So much may wait to be told.
const QUEUE_MAX: usize = 4;

/// What systemd is told.
#[derive(Debug)]
enum ServiceState {
    Ready,
    Alive(String),
    Stopping,
}

/// The way to systemd.
#[derive(Debug)]
pub struct Service {
    told: SyncSender<ServiceState>,
    telling: JoinHandle<()>,
}

/// Tells systemd that this process is up, and from then on how it is, in a line, and that it is alive.
pub fn ready(line: impl Fn() -> String + Send + 'static) -> Service {
    let (told, inbox) = sync_channel(QUEUE_MAX);
    // A thread of its own: a service manager that does not read would hold up whoever tells it.
    let thread = std::thread::Builder::new().name("service".to_owned()).stack_size(128 << 10);
    let started = thread.spawn(move || {
        for told in inbox {
            // Without a NOTIFY_SOCKET there is nobody to tell.
            let _ = match told {
                ServiceState::Ready => systemd::notify(&[NotifyState::Ready]),
                ServiceState::Alive(line) => {
                    systemd::notify(&[NotifyState::Watchdog, NotifyState::Status(&line)])
                }
                ServiceState::Stopping => systemd::notify(&[NotifyState::Stopping]),
            };
        }
    });
    if let Err(error) = started {
        tracing::warn!("systemd hears nothing of this process: {error}");
    }
    let alive = told.clone();
    // One that is told too much at once has heard enough to know.
    let _ = told.try_send(ServiceState::Ready);
    let telling = tokio::spawn(async move {
        let every = systemd::watchdog_enabled().map_or(STATUS_EVERY, |limit| (limit / 3).min(STATUS_EVERY));
        loop {
            let _ = alive.try_send(ServiceState::Alive(line()));
            tokio::time::sleep(every).await;
        }
    });
    Service { told, telling }
}

impl Service {
    /// Tells systemd that the process is stopping.
    pub fn stopping(&self) {
        self.telling.abort();
        let _ = self.told.try_send(ServiceState::Stopping);
    }
}

/// What `systemctl status` shows of a box: trouble with the disk first.
pub fn line(status: &NodeStatus) -> String {
    let disk = match (status.storage.state, &status.storage.what) {
        (Some(fault), Some(what)) => format!("disk {}: {what}; ", fault.as_str()),
        _ => String::new(),
    };
    format!("{disk}{}; {}; applied {}", status.role.as_str(), status.tolerates.text, status.applied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{DiskFault, NodeRole};

    #[test]
    fn the_line_begins_with_what_is_wrong_with_the_disk() {
        let mut status = NodeStatus { role: NodeRole::Follower, applied: 7, ..NodeStatus::default() };
        status.tolerates.text = "2 of 3".to_owned();
        assert_eq!(line(&status), "follower; 2 of 3; applied 7");
        status.storage.state = Some(DiskFault::Full);
        status.storage.what = Some("no space left for /data/log".to_owned());
        assert_eq!(line(&status), "disk full: no space left for /data/log; follower; 2 of 3; applied 7");
    }
}
