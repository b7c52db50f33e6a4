//! systemd: ready, watchdog, status. Without systemd all of it does nothing.

use std::time::Duration;

use systemd::NotifyState;
use tokio::task::JoinHandle;

use crate::node::{Handle, NodeStatus};

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
            let line = line(&status);
            let _ = systemd::notify(&[NotifyState::Watchdog, NotifyState::Status(&line)]);
            tokio::time::sleep(every).await;
        }
    })
}

/// What `systemctl status` shows: trouble with the disk first.
fn line(status: &NodeStatus) -> String {
    let disk = match &status.storage.what {
        Some(what) => format!("disk {}: {what}; ", status.storage.state),
        None => String::new(),
    };
    format!("{disk}{}; {}; applied {}", status.role, status.tolerates.text, status.applied)
}

/// Tells systemd that the box is stopping.
pub fn stopping() {
    let _ = systemd::notify(&[NotifyState::Stopping]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_begins_with_what_is_wrong_with_the_disk() {
        let mut status = NodeStatus { role: "follower", applied: 7, ..NodeStatus::default() };
        status.tolerates.text = "2 of 3".to_owned();
        status.storage.state = "ok";
        assert_eq!(line(&status), "follower; 2 of 3; applied 7");
        status.storage.state = "full";
        status.storage.what = Some("no space left for /data/log".to_owned());
        assert_eq!(line(&status), "disk full: no space left for /data/log; follower; 2 of 3; applied 7");
    }
}
