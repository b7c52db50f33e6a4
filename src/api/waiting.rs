//! The API of a box that has no site yet: it answers what leads to one, and says so to everybody else.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::body::Body;
use axum::http::{Method, Request, Response};
use hyper::body::Incoming;
use serde::Serialize;
use tokio::sync::mpsc;

use super::admin::{Admin, ask, init_of, join_of};
use super::problem::{Name, Problem};
use super::reads::to_json;
use super::{ApiConfig, BODY_BYTES_MAX, Guard, body, json_response, page, typed_response};

/// What such a box says of itself, also to systemd.
pub(crate) const NO_SITE: &str = "no site yet: tallyd init or tallyd join";

/// Answers for a box that has no site yet.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    guard: Arc<Guard>,
    admin: mpsc::Sender<Admin>,
    state: Arc<WaitingState>,
}

/// How far it is.
#[derive(Debug)]
pub(crate) struct WaitingState {
    started: Instant,
    node: String,
    /// The address of the box by which it is joining.
    joining: Mutex<Option<String>>,
}

/// The answer of `GET /v1/status` at such a box.
#[derive(Debug, Serialize)]
struct WaitingStatus {
    /// `waiting` or `joining`.
    role: &'static str,
    ready: bool,
    /// What it would be called.
    node: String,
    /// What it waits for, in words.
    text: String,
    uptime_s: u64,
    version: &'static str,
    pid: u32,
}

impl WaitingState {
    pub(crate) fn new(node: String) -> WaitingState {
        WaitingState { started: Instant::now(), node, joining: Mutex::default() }
    }

    /// It joins by the box at this address, or does not any more.
    pub(crate) fn joins(&self, by: Option<String>) {
        *self.joining.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    fn joining(&self) -> Option<String> {
        self.joining.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How far it is, in words.
    pub(crate) fn line(&self) -> String {
        self.joining().map_or_else(|| NO_SITE.to_owned(), |address| format!("joining by {address}"))
    }
}

impl Waiting {
    pub(crate) fn new(config: &ApiConfig, admin: mpsc::Sender<Admin>, state: Arc<WaitingState>) -> Waiting {
        Waiting { guard: Arc::new(Guard::new(config.listen, config.token.as_ref())), admin, state }
    }

    async fn respond(&self, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
        self.guard.check(&request)?;
        let path = request.uri().path().to_owned();
        match (request.method(), &*path) {
            (&Method::GET | &Method::HEAD, "/healthz") => {
                Ok(typed_response("text/plain; charset=utf-8", "alive\n"))
            }
            (&Method::GET | &Method::HEAD, "/readyz") => Err(Problem::new(Name::NoSite, self.state.line())),
            (&Method::GET | &Method::HEAD, "/openapi.json") => Ok(page::openapi().await),
            (&Method::GET | &Method::HEAD, "/v1/status") => to_json(&self.status()).map(json_response),
            (&Method::POST, "/v1/init") => {
                let asked = init_of(&body::read(Body::new(request.into_body()), BODY_BYTES_MAX).await?)?;
                let founded = ask(&self.admin, |reply| Admin::Init { ask: asked, reply }).await?;
                to_json(&founded).map(json_response)
            }
            (&Method::POST, "/v1/join") => {
                let asked = join_of(&body::read(Body::new(request.into_body()), BODY_BYTES_MAX).await?)?;
                let joined = ask(&self.admin, |reply| Admin::Join { ask: asked, reply }).await?;
                to_json(&joined).map(json_response)
            }
            // Whoever counts keeps its counts, and tries again or elsewhere.
            _ => Err(Problem::new(
                Name::NotCommitted,
                format!("this box has {}; nothing was done", self.state.line()),
            )),
        }
    }

    fn status(&self) -> WaitingStatus {
        WaitingStatus {
            role: if self.state.joining().is_some() { "joining" } else { "waiting" },
            ready: false,
            node: self.state.node.clone(),
            text: self.state.line(),
            uptime_s: self.state.started.elapsed().as_secs(),
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
        }
    }
}

impl super::Answers for Waiting {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        self.respond(request).await.unwrap_or_else(Problem::into_response)
    }

    fn turned_away(&self) {}
}
