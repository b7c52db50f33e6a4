//! Reads: series, windows, status, health; and the answers for paths and methods that there are not.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Method, Response, Uri, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::forms::{SeriesForm, SummaryForm};
use super::problem::{Name, Problem};
use super::{ApiState, json_response, parse, typed_response};
use crate::node::{Handle, NodeStatus};
use crate::request::RequestError;

/// The most series of one page.
const PAGE_MAX: usize = 1000;

/// The series of a page where the request does not say.
const PAGE_DEFAULT: usize = 100;

/// The windows of an answer where the request does not say.
const WINDOWS_DEFAULT: usize = 60;

/// The most windows of one answer.
const WINDOWS_MAX: usize = 10_000;

/// How long `/readyz` waits for the site.
const READY_WAIT: Duration = Duration::from_secs(2);

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        Problem::into_response(self)
    }
}

/// Where a read looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Read {
    /// After a fence: it sees everything that was acknowledged before.
    Linearizable,
    /// At this box's copy as it is.
    Local,
}

impl Read {
    async fn fence(read: Option<Read>, node: &Handle) -> Result<(), Problem> {
        if read == Some(Read::Local) {
            return Ok(node.check_state()?);
        }
        match node.fence().await {
            Ok(()) => Ok(()),
            Err(error @ RequestError::TooBusy) => Err(error.into()),
            Err(RequestError::NotCommitted { why } | RequestError::OutcomeUnknown { why }) => {
                Err(unconfirmed(&why))
            }
            Err(error) => Err(unconfirmed(&error.to_string())),
        }
    }
}

fn unconfirmed(why: &str) -> Problem {
    Problem::new(
        Name::NotCommitted,
        format!(
            "{why}; the site did not confirm the read: retry, or read this box's copy with read=local \
             (command line: --local)"
        ),
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeriesQuery {
    read: Option<Read>,
}

/// `GET /v1/series/SERIES`
pub(super) async fn series(State(shared): State<Arc<ApiState>>, uri: Uri) -> Result<Response<Body>, Problem> {
    let name = parse::stored_series(uri.path().strip_prefix("/v1/series/").unwrap_or_default())?;
    let query: SeriesQuery = parse::query(&uri)?;
    Read::fence(query.read, &shared.node).await?;
    let view = shared.node.site(|site| site.find(&name).map(|id| site.series(id)));
    let view = view.ok_or_else(|| no_such_series(&name))?;
    to_json(&SeriesForm::new(&view)).map(json_response)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    #[serde(default)]
    prefix: String,
    after: Option<String>,
    limit: Option<usize>,
    read: Option<Read>,
}

#[derive(Serialize)]
struct PageForm<'a> {
    series: Vec<SeriesForm<'a>>,
    /// What to ask for as `after` next; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
    /// How many series the site has in all.
    count: usize,
}

/// `GET /v1/series`
pub(super) async fn page(State(shared): State<Arc<ApiState>>, uri: Uri) -> Result<Response<Body>, Problem> {
    let query: PageQuery = parse::query(&uri)?;
    let limit = check_limit("limit", query.limit.unwrap_or(PAGE_DEFAULT), PAGE_MAX)?;
    Read::fence(query.read, &shared.node).await?;
    // One more than asked for tells whether there is a next page.
    let (mut views, count) = shared
        .node
        .site(|site| (site.page(&query.prefix, query.after.as_deref(), limit + 1), site.series_len()));
    let more = views.len() > limit;
    views.truncate(limit);
    let next = if more { views.last().map(|view| view.name.as_str()) } else { None };
    let series = views.iter().map(SeriesForm::new).collect();
    to_json(&PageForm { series, next, count }).map(json_response)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowsQuery {
    last: Option<usize>,
    read: Option<Read>,
}

#[derive(Serialize)]
struct WindowsForm<'a> {
    series: &'a str,
    kind: &'static str,
    windows: Vec<SummaryForm<'a>>,
}

/// `GET /v1/windows/SERIES`
pub(super) async fn windows(
    State(shared): State<Arc<ApiState>>,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    let name = parse::stored_series(uri.path().strip_prefix("/v1/windows/").unwrap_or_default())?;
    let query: WindowsQuery = parse::query(&uri)?;
    let last = check_limit("last", query.last.unwrap_or(WINDOWS_DEFAULT), WINDOWS_MAX)?;
    Read::fence(query.read, &shared.node).await?;
    let found = shared.node.site(|site| site.find(&name).map(|id| (site.kind(id), site.windows(id, last))));
    let (kind, summaries) = found.ok_or_else(|| no_such_series(&name))?;
    let windows = summaries.iter().map(SummaryForm::new).collect();
    to_json(&WindowsForm { series: &name, kind: kind.as_str(), windows }).map(json_response)
}

/// `GET /v1/status`
pub(super) async fn status(State(shared): State<Arc<ApiState>>) -> Result<Response<Body>, Problem> {
    let api = ApiStatus { page: shared.link_base.as_deref(), fingerprint: shared.fingerprint.as_deref() };
    to_json(&StatusForm { status: &shared.node.status(), api }).map(json_response)
}

/// The status of the node and of its API.
#[derive(Serialize)]
struct StatusForm<'a> {
    #[serde(flatten)]
    status: &'a NodeStatus,
    api: ApiStatus<'a>,
}

#[derive(Serialize)]
struct ApiStatus<'a> {
    /// Where a browser elsewhere finds the page; null: the API listens on this machine only.
    page: Option<&'a str>,
    /// SHA-256 of the certificate; null: connections are not encrypted.
    fingerprint: Option<&'a str>,
}

/// `GET /healthz`: whoever reads this answer knows that the box's one thread still turns.
pub(super) async fn healthz() -> Response<Body> {
    typed_response("text/plain; charset=utf-8", "alive\n")
}

/// `GET /readyz`: a round through the quorum.
pub(super) async fn readyz(State(shared): State<Arc<ApiState>>) -> Result<Response<Body>, Problem> {
    let why = match tokio::time::timeout(READY_WAIT, shared.node.ready()).await {
        Ok(Ok(())) => return Ok(typed_response("text/plain; charset=utf-8", "ready\n")),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the site did not answer within {} s", READY_WAIT.as_secs()),
    };
    Err(Problem::new(Name::NotReady, format!("{why}; see GET /v1/status")))
}

/// Any path that there is not.
pub(super) async fn not_found(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(
        Name::NotFound,
        format!("there is no resource {path}; GET /openapi.json lists the resources"),
    )
}

/// The answer for a method that a path has not. `allowed`: those that it has.
pub(super) fn not_allowed(method: &Method, allowed: &str) -> Response<Body> {
    let detail = format!("{method} is not allowed for this path; allowed: {allowed}");
    let mut response = Problem::new(Name::MethodNotAllowed, detail).into_response();
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// A form as JSON.
pub(super) fn to_json(form: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(form).map_err(|error| {
        // Forms are made of strings, numbers and lists; this would be a fault of the program.
        tracing::error!(%error, "cannot encode an answer as JSON");
        Problem::new(Name::NotReady, "the answer cannot be encoded as JSON; please report this bug")
    })
}

fn check_limit(what: &str, asked: usize, max: usize) -> Result<usize, Problem> {
    if (1..=max).contains(&asked) {
        return Ok(asked);
    }
    Err(Problem::malformed(format!("the query: {what} must be from 1 to {max}, not {asked}")))
}

fn no_such_series(name: &str) -> Problem {
    Problem::new(Name::NoSuchSeries, format!("there is no series {name:?}; the first add creates it"))
}
