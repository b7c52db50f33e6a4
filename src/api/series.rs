//! Removing and renaming series over HTTP, as `tallyd series remove` and `tallyd series rename` use them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response, Uri};
use serde::{Deserialize, Serialize};

use super::forms::SeriesForm;
use super::problem::{Name, Problem};
use super::reads::to_json;
use super::{ApiState, BODY_BYTES_MAX, body, json_response, parse};
use crate::request::SeriesError;
use crate::site::{Removed, SERIES_REMOVED_MAX, SeriesRefused};

#[derive(Serialize)]
struct RemovedForm<'a> {
    removed: Vec<SeriesForm<'a>>,
    /// There are more that begin so: ask again.
    more: bool,
}

/// `DELETE /v1/series/SERIES`
pub(super) async fn remove(State(shared): State<Arc<ApiState>>, uri: Uri) -> Result<Response<Body>, Problem> {
    let name = parse::stored_series(uri.path().strip_prefix("/v1/series/").unwrap_or_default())?;
    let removed = shared.node.remove_series(&name, false).await.map_err(|error| problem(error, &name))?;
    answer(&removed)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveQuery {
    prefix: Option<String>,
}

/// `DELETE /v1/series?prefix=P`
pub(super) async fn remove_all(
    State(shared): State<Arc<ApiState>>,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    let query: RemoveQuery = parse::query(&uri)?;
    // A forgotten name must not remove everything.
    let Some(prefix) = query.prefix.filter(|prefix| !prefix.is_empty()) else {
        return Err(Problem::malformed(
            "the query: prefix says with what the names of the series to remove begin; it cannot be empty",
        ));
    };
    let removed = shared.node.remove_series(&prefix, true).await.map_err(|error| problem(error, &prefix))?;
    answer(&removed)
}

fn answer(removed: &Removed) -> Result<Response<Body>, Problem> {
    debug_assert!(removed.removed.len() <= SERIES_REMOVED_MAX, "an entry removes no more");
    let forms = removed.removed.iter().map(SeriesForm::new).collect();
    to_json(&RemovedForm { removed: forms, more: removed.more }).map(json_response)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RenameBody {
    to: String,
}

/// `POST /v1/series/SERIES/rename`
pub(super) async fn rename(
    State(shared): State<Arc<ApiState>>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let path = request.uri().path().to_owned();
    let raw = path.strip_prefix("/v1/series/").and_then(|rest| rest.strip_suffix("/rename"));
    let Some(raw) = raw else {
        let detail = "a series is only renamed by POST: /v1/series/SERIES/rename; adds go to /v1/counters, \
            /v1/updowns and /v1/samples";
        return Err(Problem::new(Name::NotFound, detail));
    };
    let from = parse::stored_series(raw)?.into_owned();
    let body = body::read(request.into_body(), BODY_BYTES_MAX).await?;
    let to = parse::json::<RenameBody>(&body, r#"{"to": "line1/press3/parts"}"#)?.to;
    tally_core::id::SeriesName::new(&to).map_err(|error| Problem::malformed(format!("to: {error}")))?;
    shared.node.rename_series(&from, &to).await.map_err(|error| match error {
        SeriesError::Refused(why @ SeriesRefused::Taken) => {
            Problem::new(Name::SeriesRefused, format!("{to:?}: {why}"))
        }
        error => problem(error, &from),
    })?;
    to_json(&serde_json::json!({"series": to, "was": from})).map(json_response)
}

fn problem(error: SeriesError, name: &str) -> Problem {
    match error {
        SeriesError::Refused(SeriesRefused::NotThere) => {
            Problem::new(Name::NoSuchSeries, format!("there is no series {name:?}"))
        }
        SeriesError::Refused(why) => Problem::new(Name::SeriesRefused, format!("{name:?}: {why}")),
        SeriesError::Request(error) => error.into(),
    }
}
