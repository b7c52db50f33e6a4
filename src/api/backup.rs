//! `GET /v1/backup`: the whole site in one answer, as `tallyd backup` keeps it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;

use super::problem::{Name, Problem};
use super::{ApiState, typed_response};

/// One at a time: each has the site's whole state in memory.
#[derive(Debug)]
struct Turn<'a>(&'a AtomicBool);

impl Turn<'_> {
    fn take(busy: &AtomicBool) -> Option<Turn<'_>> {
        (!busy.swap(true, Ordering::AcqRel)).then_some(Turn(busy))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The site as it is here, with everything that any box acknowledged before.
pub(super) async fn backup(State(shared): State<Arc<ApiState>>) -> Result<Response<Body>, Problem> {
    let Some(_turn) = Turn::take(&shared.backs_up) else {
        return Err(Problem::new(
            Name::TooBusy,
            "this box is making another backup; retry, or ask another box",
        ));
    };
    shared.node.fence().await?;
    let identity = shared.node.identity();
    let (site, node) = (&identity.site, &identity.me().name);
    let bytes = shared.node.site(|state| crate::backup::write(state, site, node, identity.window_ms));
    Ok(typed_response("application/octet-stream", bytes))
}
