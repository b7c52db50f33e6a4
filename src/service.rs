//! systemd: ready, watchdog, status. Without systemd all of it does nothing.

use std::time::Duration;

use systemd::NotifyState;
use tokio::task::JoinHandle;

use crate::node::Handle;

/// How often the status line is written anew.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// Tells systemd that the box is up, and from then on how it is and that it is alive.
pub fn ready(handle: Handle) -> JoinHandle<()> {
    // Without a NOTIFY_SOCKET there is nobody to tell.
    let _ = systemd::notify(&[NotifyState::Ready]);
    tokio::spawn(async move {
        let every = systemd::watchdog_enabled().map_or(STATUS_EVERY, |limit| (limit / 3).min(STATUS_EVERY));
        loop {
            let status = handle.status();
            let line = format!("{}; {}; applied {}", status.role, status.tolerates.text, status.applied);
            let _ = systemd::notify(&[NotifyState::Watchdog, NotifyState::Status(&line)]);
            tokio::time::sleep(every).await;
        }
    })
}

/// Tells systemd that the box is stopping.
pub fn stopping() {
    let _ = systemd::notify(&[NotifyState::Stopping]);
}
