//! What status and metrics show of the upstream.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::clock::wall_ms;
use crate::metrics::Counter;

/// How the upstream is, on this box.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UpstreamStatus {
    /// The broker, without secrets; `None`: none is configured.
    pub url: Option<String>,
    /// `off` (none configured), `standby` (another box leads), `connecting`, `connected`.
    pub state: State,
    /// Since when it is so, Unix milliseconds of this box's clock.
    pub since: u64,
    /// Summaries handed to the broker by this process, repeats included.
    pub published: u64,
    /// Summaries known to be with the broker, as counted by this process.
    pub acknowledged: u64,
    /// Messages that the broker refused.
    pub refused: u64,
    /// Connections made by this process.
    pub connections: u64,
    /// The latest trouble; it stays until something is acknowledged after it.
    pub last_error: Option<Trouble>,
    /// Whether this box reached the broker when a leader that did not asked it to try.
    pub probe: Option<Probe>,
}

/// A try to reach the broker for a leader that does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// When, Unix milliseconds of this box's clock.
    pub at: u64,
    /// Whether the broker took the connection.
    pub reached: bool,
    /// Why not.
    pub what: Option<String>,
}

/// What the upstream is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No broker is configured: summaries wait in the outbox.
    #[default]
    Off,
    /// Another box leads, and does it.
    Standby,
    /// Not connected, and trying.
    Connecting,
    /// Connected and confirmed as the leader.
    Connected,
}

/// Something went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// When, Unix milliseconds of this box's clock.
    pub at: u64,
    /// What, and what to do about it.
    pub what: String,
}

/// Written by the upstream's task, read by whoever shows it. Clones share it.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    url: Option<String>,
    view: Mutex<View>,
    published: Counter,
    acknowledged: Counter,
    refused: Counter,
    connections: Counter,
}

#[derive(Debug, Default)]
struct View {
    state: State,
    since: u64,
    last_error: Option<Trouble>,
    probe: Option<Probe>,
}

impl Shared {
    pub(super) fn new(url: Option<String>) -> Shared {
        let view = Mutex::new(View { since: wall_ms(), ..View::default() });
        let counter = Counter::default;
        Shared(Arc::new(Inner {
            url,
            view,
            published: counter(),
            acknowledged: counter(),
            refused: counter(),
            connections: counter(),
        }))
    }

    /// How it is now.
    pub fn status(&self) -> UpstreamStatus {
        let inner = &self.0;
        let view = self.view();
        UpstreamStatus {
            url: inner.url.clone(),
            state: view.state,
            since: view.since,
            published: inner.published.get(),
            acknowledged: inner.acknowledged.get(),
            refused: inner.refused.get(),
            connections: inner.connections.get(),
            last_error: view.last_error.clone(),
            probe: view.probe.clone(),
        }
    }

    pub(super) fn enter(&self, state: State) {
        let mut view = self.view();
        if view.state != state {
            view.state = state;
            view.since = wall_ms();
        }
    }

    pub(super) fn connected(&self) {
        self.0.connections.raise();
    }

    pub(super) fn probed(&self, result: &Result<(), String>) {
        let (reached, what) = (result.is_ok(), result.clone().err());
        let mut view = self.view();
        if view.probe.as_ref().is_none_or(|before| before.reached != reached) {
            match &what {
                None => tracing::info!("upstream: this box reaches the broker, which the leader does not"),
                Some(what) => tracing::info!("upstream: nor does this box reach the broker: {what}"),
            }
        }
        view.probe = Some(Probe { at: wall_ms(), reached, what });
    }

    pub(super) fn published(&self) {
        self.0.published.raise();
    }

    pub(super) fn acknowledged(&self, count: u64) {
        self.0.acknowledged.add(count);
        self.view().last_error = None;
    }

    pub(super) fn refused(&self) {
        self.0.refused.raise();
    }

    /// Notes trouble, and logs it unless it is the same as before: a broker that is away for a month
    /// must not fill the log.
    pub(super) fn trouble(&self, what: String) {
        let mut view = self.view();
        if view.last_error.as_ref().is_none_or(|last| last.what != what) {
            tracing::warn!("upstream: {what}");
        }
        view.last_error = Some(Trouble { at: wall_ms(), what });
    }

    fn view(&self) -> std::sync::MutexGuard<'_, View> {
        // Nothing in here panics while holding the lock.
        self.0.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
