//! `GET /v1/watch`: server-sent events, one a changed total or closed window.
//!
//! Nothing is queued for a watcher: at each turn it receives what changed since its last turn, so
//! that a slow one sees fewer steps of a total, and costs no memory.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response, Uri, header};
use bytes::Bytes;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tally_core::id::LogIndex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::forms::{SeriesForm, SummaryForm};
use super::problem::{Name, Problem};
use super::{ApiState, parse, typed_response};
use crate::site::{SeriesView, Summary};

/// The most watchers of a box.
const WATCHERS_MAX: usize = 64;

/// The least time between two turns of a watcher.
const TURN: Duration = Duration::from_millis(250);

/// The interval of keepalive comments when nothing changes.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// The most changed series in one piece of the stream; the others follow in the next.
const EVENTS_MAX: usize = 512;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WatchQuery {
    #[serde(default)]
    prefix: String,
}

/// `GET /v1/watch`
pub(super) async fn watch(State(shared): State<Arc<ApiState>>, uri: Uri) -> Result<Response<Body>, Problem> {
    let query: WatchQuery = parse::query(&uri)?;
    let seat = Seat::take(shared)?;
    let watcher = Watcher::new(seat, query.prefix);
    let events = stream::unfold(watcher, |mut watcher| async move {
        let chunk = watcher.next().await?;
        Some((Ok::<_, Infallible>(chunk), watcher))
    });
    let mut response = typed_response("text/event-stream", Body::from_stream(events));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// One of the places for watchers, which is freed on drop.
struct Seat(Arc<ApiState>);

impl Seat {
    fn take(shared: Arc<ApiState>) -> Result<Seat, Problem> {
        let free = |taken| if taken < WATCHERS_MAX { Some(taken + 1) } else { None };
        match shared.watchers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free) {
            Ok(_) => Ok(Seat(shared)),
            Err(_) => {
                let detail =
                    format!("this box already has {WATCHERS_MAX} watchers; try another box, or retry later");
                Err(Problem::new(Name::TooManyWatchers, detail))
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Watcher {
    seat: Seat,
    prefix: String,
    applied: watch::Receiver<u64>,
    /// The log index up to which the watcher has looked for changes.
    seen: LogIndex,
    /// The position in the ring of closed windows up to which the watcher has sent them.
    ring: u64,
    /// Changes that were found and not sent yet.
    pending: Vec<SeriesView>,
    greeted: bool,
    turn: Instant,
}

impl Watcher {
    fn new(seat: Seat, prefix: String) -> Watcher {
        let node = &seat.0.node;
        let applied = node.applied();
        let (seen, ring) = node.site(|site| (site.applied(), site.closed_after(u64::MAX, &prefix).0));
        Watcher {
            prefix,
            applied,
            seen,
            ring,
            pending: Vec::new(),
            greeted: false,
            turn: Instant::now(),
            seat,
        }
    }

    /// The next piece of the stream; `None` when the box stops.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.greeted {
            // Tells at once that the request was understood, and from where on the watcher sees.
            self.greeted = true;
            return Some(Bytes::from(format!(": watching from index {}\n\n", self.seen)));
        }
        let quiet_until = Instant::now() + KEEPALIVE;
        loop {
            sleep_until(self.turn).await;
            if self.pending.is_empty() {
                let left = quiet_until.saturating_duration_since(Instant::now());
                match timeout(left, self.applied.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return None,
                    Err(_) => return Some(Bytes::from_static(b": keepalive\n\n")),
                }
            }
            self.turn = Instant::now() + TURN;
            let text = self.look();
            if !text.is_empty() {
                return Some(Bytes::from(text));
            }
        }
    }

    /// Finds what changed and writes as much of it as goes into one piece.
    fn look(&mut self) -> String {
        let mut text = String::new();
        let Watcher { seat, prefix, seen, ring, pending, .. } = self;
        if pending.is_empty() && seat.0.node.check_state().is_ok() {
            seat.0.node.site(|site| {
                *pending = site.changed_since(*seen, prefix);
                *seen = site.applied();
                let (position, closed) = site.closed_after(*ring, prefix);
                *ring = position;
                for summary in &closed {
                    push_window(&mut text, site.name(summary.series), summary);
                }
            });
        }
        let rest = pending.split_off(pending.len().min(EVENTS_MAX));
        for view in pending.iter() {
            push_event(&mut text, "total", &SeriesForm::new(view));
        }
        *pending = rest;
        text
    }
}

fn push_window(text: &mut String, series: &str, summary: &Summary) {
    push_event(text, "window", &SummaryForm::of(series, summary));
}

fn push_event(text: &mut String, event: &str, data: &impl Serialize) {
    // JSON in one line: no newline can end the event early.
    if let Ok(data) = serde_json::to_string(data) {
        for part in ["event: ", event, "\ndata: ", &data, "\n\n"] {
            text.push_str(part);
        }
    }
}
