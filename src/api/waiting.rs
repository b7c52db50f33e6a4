//! The API of a box that counts nothing: it has no site yet, or was removed from its site. It answers what leads to a
//! site, and says how it is to everybody else.

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
use super::{ApiConfig, BODY_BYTES_MAX, Guard, Via, body, json_response, need, page, typed_response};
use crate::identity::Identity;
use crate::node::Verdict;
use crate::site::{AccessHash, AccessRole};

/// What a box without a site says of itself, also to systemd.
pub(crate) const NO_SITE: &str = "no site yet: tallyd init or tallyd join";

/// Answers for a box that counts nothing.
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
    idle: Idle,
    /// The address of the box by which it is joining.
    joining: Mutex<Option<String>>,
}

/// Why it counts nothing.
#[derive(Clone, Debug)]
pub(crate) struct Idle {
    role: &'static str,
    /// In one line.
    text: String,
    verdict: Verdict,
    /// The site that it was a member of, and its number there.
    was: Option<Was>,
}

#[derive(Clone, Debug, Serialize)]
struct Was {
    site: String,
    site_id: String,
    node_id: u64,
}

/// The answer of `GET /v1/status` at such a box.
#[derive(Debug, Serialize)]
struct WaitingStatus {
    /// `waiting`, `joining` or `removed`.
    role: &'static str,
    ready: bool,
    /// What it would be called, or was.
    node: String,
    #[serde(flatten)]
    was: Option<Was>,
    verdict: Verdict,
    /// What it waits for, in words.
    text: String,
    uptime_s: u64,
    version: &'static str,
    pid: u32,
}

impl Idle {
    /// It has no site yet.
    pub(crate) fn no_site() -> Idle {
        let verdict = Verdict::does_not_count("no site yet", "tallyd init or tallyd join");
        Idle { role: "waiting", text: NO_SITE.to_owned(), verdict, was: None }
    }

    /// It was removed from its site.
    pub(crate) fn removed(verdict: Verdict, identity: &Identity) -> Idle {
        let was = Was {
            site: identity.site.clone(),
            site_id: identity.site_id.to_string(),
            node_id: identity.node,
        };
        Idle { role: "removed", text: verdict.text.clone(), verdict, was: Some(was) }
    }

    /// Why it counts nothing, in one line.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it was a member of a site.
    pub(crate) fn was_member(&self) -> bool {
        self.was.is_some()
    }
}

impl WaitingState {
    pub(crate) fn new(node: String, idle: Idle) -> WaitingState {
        WaitingState { started: Instant::now(), node, idle, joining: Mutex::default() }
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
        self.joining().map_or_else(|| self.idle.text.clone(), |address| format!("joining by {address}"))
    }

    /// What a request is told that this box cannot do now.
    fn not_done(&self) -> Problem {
        let line = self.line();
        // Whoever counts keeps its counts, and tries again or elsewhere.
        let what = if self.idle.was_member() { line } else { format!("this box has {line}") };
        Problem::new(Name::NotCommitted, format!("{what}; nothing was done"))
    }

    fn not_ready(&self) -> Problem {
        let name = if self.idle.was_member() { Name::NotReady } else { Name::NoSite };
        Problem::new(name, self.line())
    }

    fn status(&self) -> WaitingStatus {
        let (role, verdict) = match self.joining() {
            Some(_) => ("joining", Verdict::does_not_count(self.line(), "wait until it has joined")),
            None => (self.idle.role, self.idle.verdict.clone()),
        };
        WaitingStatus {
            role,
            ready: false,
            node: self.node.clone(),
            was: self.idle.was.clone(),
            verdict,
            text: self.line(),
            uptime_s: self.started.elapsed().as_secs(),
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
        }
    }
}

impl Waiting {
    pub(crate) fn new(config: &ApiConfig, admin: mpsc::Sender<Admin>, state: Arc<WaitingState>) -> Waiting {
        Waiting { guard: Arc::new(Guard::new(config)), admin, state }
    }

    async fn respond(&self, request: Request<Incoming>, via: Via) -> Result<Response<Body>, Problem> {
        let need = need(request.method(), request.uri().path()).role();
        // It has no site that knows tokens.
        let caller = self.guard.check(&request, via, need, |_: &AccessHash| None)?;
        if need == Some(AccessRole::Admin) {
            tracing::info!("{} {} by {caller}", request.method(), request.uri().path());
        }
        let path = request.uri().path().to_owned();
        match (request.method(), &*path) {
            (&Method::GET | &Method::HEAD, "/healthz") => {
                Ok(typed_response("text/plain; charset=utf-8", "alive\n"))
            }
            (&Method::GET | &Method::HEAD, "/readyz") => Err(self.state.not_ready()),
            (&Method::GET | &Method::HEAD, "/openapi.json") => Ok(page::openapi().await),
            (&Method::GET | &Method::HEAD, "/v1/status") => to_json(&self.state.status()).map(json_response),
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
            _ => Err(self.state.not_done()),
        }
    }
}

impl super::Answers for Waiting {
    async fn answer(&self, request: Request<Incoming>, via: Via) -> Response<Body> {
        self.respond(request, via).await.unwrap_or_else(Problem::into_response)
    }

    fn turned_away(&self) {}
}
