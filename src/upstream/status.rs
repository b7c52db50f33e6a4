//! What status and metrics show of the upstream.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::formats::FormatStatus;
use super::machine::GOOD_AFTER;
use crate::clock::wall_ms;
use crate::figures::Counter;
use crate::mqtt::{BrokerUrl, Ending, Limits, WILL_DELAY_S};

/// How the upstream is, on this box.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UpstreamStatus {
    /// The broker, without secrets; `None`: none is configured.
    pub url: Option<String>,
    /// `off` (none configured), `standby` (another box leads), `connecting`, `connected`.
    pub state: State,
    /// Since when it is so, Unix milliseconds of this box's clock.
    pub since: u64,
    /// In which formats summaries are published.
    pub formats: Vec<FormatStatus>,
    /// Summaries handed to the broker by this process, repeats included.
    pub published: u64,
    /// Summaries known to be with the broker, as counted by this process.
    pub acknowledged: u64,
    /// Messages that the broker refused.
    pub refused: u64,
    /// Of the published ones, those that this process had published before: subscribers may have them twice.
    pub repeated: u64,
    /// Summaries that the broker has on `undeliverable`, since it did not take them on their own topics.
    pub undeliverable: u64,
    /// How many summaries the broker takes on no topic: they are held and tried again.
    pub held: u64,
    /// The first of them.
    pub held_first: Vec<HeldStatus>,
    /// Topics that the broker refuses: the first few.
    pub refuses: Vec<RefusedTopic>,
    /// What the broker said that it can do, when it was connected last.
    pub limits: Option<Limits>,
    /// Another site that publishes under the same topics.
    pub other_site: Option<OtherSite>,
    /// Connections made by this process.
    pub connections: u64,
    /// The latest trouble; it stays until something is acknowledged after it.
    pub last_error: Option<Trouble>,
    /// Whether this box reached the broker when a leader that did not asked it to try.
    pub probe: Option<Probe>,
}

/// How many topics and held summaries are shown.
pub(super) const SHOWN_MAX: usize = 20;

/// A rival that was not heard for so long is gone: sites renew their status every 30 s.
const OTHER_SITE_FOR_MS: u64 = 150_000;

/// A summary that the broker does not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeldStatus {
    /// Its number.
    pub seq: u64,
    /// Of which series.
    pub series: String,
    /// Its own topic.
    pub topic: String,
    /// Why it was set aside, in words.
    pub cause: String,
}

/// A topic that the broker refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusedTopic {
    /// Which.
    pub topic: String,
    /// Why, in words.
    pub cause: String,
}

/// Another site with this site's topics: the two overwrite each other's retained totals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OtherSite {
    /// Its identity.
    pub site_id: String,
    /// `online` or `offline`, as it says.
    pub state: String,
    /// When it was heard last, Unix milliseconds of this box's clock.
    pub at: u64,
    /// What it means and what to do.
    pub what: String,
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
pub struct SharedStatus(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    url: Option<String>,
    view: Mutex<View>,
    published: Counter,
    acknowledged: Counter,
    refused: Counter,
    connections: Counter,
    repeated: Counter,
    undeliverable: Counter,
}

#[derive(Debug, Default)]
struct View {
    state: State,
    since: u64,
    last_error: Option<Trouble>,
    /// Whether that says why: what explains less does not take its place.
    explained: bool,
    probe: Option<Probe>,
    refuses: Vec<RefusedTopic>,
    limits: Option<Limits>,
    other_site: Option<OtherSite>,
    /// The highest number that this process has published.
    published_to: u64,
    /// Trouble that the log has, since the connection was good.
    logged: Vec<String>,
    /// Whether the log's latest word is that the broker is connected.
    logged_connected: bool,
}

/// The most troubles that are remembered as logged.
const LOGGED_MAX: usize = 16;

impl SharedStatus {
    /// Of an upstream to a broker, without secrets; `None`: none is configured.
    pub fn new(url: Option<String>) -> SharedStatus {
        let view = Mutex::new(View { since: wall_ms(), ..View::default() });
        let counter = Counter::default;
        SharedStatus(Arc::new(Inner {
            url,
            view,
            published: counter(),
            acknowledged: counter(),
            refused: counter(),
            connections: counter(),
            repeated: counter(),
            undeliverable: counter(),
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
            formats: Vec::new(),
            published: inner.published.get(),
            acknowledged: inner.acknowledged.get(),
            refused: inner.refused.get(),
            connections: inner.connections.get(),
            repeated: inner.repeated.get(),
            undeliverable: inner.undeliverable.get(),
            held: 0,
            held_first: Vec::new(),
            refuses: view.refuses.clone(),
            limits: view.limits,
            other_site: view
                .other_site
                .clone()
                .filter(|other| wall_ms().saturating_sub(other.at) < OTHER_SITE_FOR_MS),
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

    /// The broker is connected; its limits are told where they cost something.
    pub(super) fn connected(&self, limits: Limits, broker: &BrokerUrl, delivered: u64) {
        self.0.connections.raise();
        self.enter(State::Connected);
        let mut view = self.view();
        if !view.logged_connected {
            tracing::info!(%broker, delivered, "upstream: connected");
            view.logged_connected = true;
        }
        let is_news = view.limits != Some(limits);
        view.limits = Some(limits);
        drop(view);
        if !limits.retains {
            self.trouble(
                "the broker does not support retained messages: totals and status reach only connected \
                 subscribers",
            );
        }
        if is_news && limits.session_expiry_s.is_some_and(|expiry| expiry < WILL_DELAY_S) {
            tracing::warn!(
                "upstream: the broker keeps a session for only {} s: after that subscribers receive \
                 `offline`, although another box may be about to connect",
                limits.session_expiry_s.unwrap_or_default()
            );
        }
    }

    pub(super) fn probed(&self, result: &Result<(), String>) {
        let (reached, what) = (result.is_ok(), result.clone().err());
        let mut view = self.view();
        if view.probe.as_ref().is_none_or(|before| before.reached != reached) {
            match &what {
                None => tracing::info!("upstream: this box reaches the broker, and the leader does not"),
                Some(what) => tracing::info!("upstream: this box does not reach the broker either: {what}"),
            }
        }
        view.probe = Some(Probe { at: wall_ms(), reached, what });
    }

    /// A number is handed to the broker.
    pub(super) fn published(&self, seq: u64) {
        self.0.published.raise();
        let mut view = self.view();
        if seq <= view.published_to {
            self.0.repeated.raise();
        }
        view.published_to = view.published_to.max(seq);
    }

    /// So many numbers more are with the broker.
    pub(super) fn delivered(&self, count: u64) {
        if count == 0 {
            return;
        }
        self.0.acknowledged.add(count);
        let mut view = self.view();
        view.last_error = None;
        view.explained = false;
        if view.state == State::Connected
            && wall_ms().saturating_sub(view.since) > GOOD_AFTER.as_millis() as u64
        {
            view.logged.clear();
        }
    }

    pub(super) fn refused(&self) {
        self.0.refused.raise();
    }

    pub(super) fn undeliverable(&self) {
        self.0.undeliverable.raise();
    }

    /// The topics that the broker refuses now, and why.
    pub(super) fn refusing(&self, topics: Vec<(String, String)>) {
        let topics = topics.into_iter().map(|(topic, cause)| RefusedTopic { topic, cause }).collect();
        self.view().refuses = topics;
    }

    /// The broker refuses something; in the log once, when it begins to. It may say so again and again, and why is
    /// shown as long as it does: other summaries may be delivered in between, and it may break the connection over it.
    pub(super) fn refusal(&self, what: &str, is_news: bool) {
        if is_news {
            tracing::warn!("upstream: {what}");
        }
        self.note(what, true, &mut self.view());
    }

    /// Another site says that it is, or was, on our topics.
    pub(super) fn other_site(&self, topic: &str, site_id: String, state: String) {
        let what = format!(
            "another site ({site_id}) also publishes to {topic}: the two overwrite each other's retained \
             totals and status; rename one of them, or set upstream.base"
        );
        let mut view = self.view();
        let now = wall_ms();
        let known = view.other_site.as_ref().is_some_and(|other| {
            other.site_id == site_id && now.saturating_sub(other.at) < OTHER_SITE_FOR_MS
        });
        if !known {
            tracing::warn!("upstream: {what}; it is {state}");
        }
        view.other_site = Some(OtherSite { site_id, state, at: now, what });
    }

    /// The site was put back to an older state.
    pub(super) fn put_back(&self, what: &str) {
        tracing::warn!("upstream: {what}");
        self.note(what, true, &mut self.view());
    }

    /// A connection ended or did not come about.
    pub(super) fn ended(&self, ending: &Ending) {
        let mut view = self.view();
        let what = format!("{}{}", ending.what, ending.again);
        if self.is_unlogged(&ending.what, &mut view) {
            tracing::warn!("upstream: {what}");
            view.logged_connected = false;
        }
        self.note(&what, ending.explained, &mut view);
    }

    /// Notes trouble, and logs it unless that was done since the connection was good: a broker that is away for
    /// a month must not fill the log.
    pub(super) fn trouble(&self, what: &str) {
        let mut view = self.view();
        if self.is_unlogged(what, &mut view) {
            tracing::warn!("upstream: {what}");
        }
        self.note(what, true, &mut view);
    }

    fn is_unlogged(&self, what: &str, view: &mut View) -> bool {
        if view.logged.iter().any(|logged| logged == what) {
            return false;
        }
        if view.logged.len() == LOGGED_MAX {
            view.logged.remove(0);
        }
        view.logged.push(what.to_owned());
        true
    }

    /// What says why stays until something is delivered; what only says that it broke does not take its place.
    fn note(&self, what: &str, explained: bool, view: &mut View) {
        let at = wall_ms();
        match &mut view.last_error {
            Some(last) if view.explained && !explained => last.at = at,
            last => *last = Some(Trouble { at, what: what.to_owned() }),
        }
        view.explained |= explained;
    }

    fn view(&self) -> std::sync::MutexGuard<'_, View> {
        // Nothing in here panics while holding the lock.
        self.0.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
