//! HTTP: the API under `/v1`, metrics, health and the page. Any box answers any request.

mod access;
mod access_token;
mod adds;
mod admin;
mod admin_socket;
mod backup;
mod body;
mod clock;
mod connections;
mod decimal;
mod forms;
mod guard;
mod limits;
mod map_only;
mod members;
mod metrics;
mod page;
pub mod parse;
mod problem;
mod reads;
pub mod report_body;
mod reports;
mod routes;
mod series;
mod server;
mod settings;
mod socket;
mod stream;
mod tls;
mod tokens;
mod via;
mod waiting;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::{HeaderValue, Method, Request, Response, header};
use bytes::Bytes;
use hyper::body::Incoming;
use tally_core::report::Kind;
use tokio::sync::mpsc;
use tower::ServiceExt;

pub use body::{BODY_BYTES_MAX, REPORT_BYTES_MAX};
pub use members::member_of;
pub use problem::{Name, Problem};
pub use report_body::CELLS_MAX;
pub use server::{Answers, ApiError, Listeners, bind, serve};
pub use via::Via;

use crate::node::Handle;
use crate::secret::Secret;
use crate::site::{AccessHash, AccessRole};
pub(crate) use access_token::AccessToken;
pub(crate) use admin::{ADMIN_MAX, Admin, Founded, InitAsk, JoinAsk, JoinedForm, Reply, RotatedForm};
pub(crate) use admin_socket::{AdminSocket, SERVICE_SOCKET, SOCKET, of_session};
pub(crate) use guard::Guard;
pub(crate) use metrics::{Text, log_figures};
pub(crate) use routes::{Need, need};
pub use tls::TlsError;
pub(crate) use tls::{Encryption, fingerprint, fingerprint_text};
pub(crate) use waiting::{Idle, NO_SITE, Waiting, WaitingState};

/// The configuration of the API's listener.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// The listen address.
    pub listen: SocketAddr,
    /// The token of `api.token_file`, an admin's; with it, nothing is answered without a token.
    pub token: Option<Secret>,
    /// Who is not of this machine may read without a token.
    pub anonymous_reads: bool,
    /// Where the admin socket is, if there is one.
    pub socket: Option<PathBuf>,
    /// What TCP connections are encrypted with; `None`: they are not.
    pub(crate) encryption: Option<Encryption>,
    /// The most connections at once; beyond it, the connection that was idle longest is closed.
    pub connections_max: usize,
    /// How long a connection may do nothing before it is closed.
    pub idle_max: Duration,
}

impl ApiConfig {
    /// Makes the default configuration for a listen address.
    pub fn new(listen: SocketAddr) -> ApiConfig {
        ApiConfig {
            listen,
            token: None,
            anonymous_reads: false,
            socket: None,
            encryption: None,
            connections_max: 1024,
            idle_max: Duration::from_secs(60),
        }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.encryption.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.listen)
    }
}

/// Answers requests, whatever listener received them.
#[derive(Clone, Debug)]
pub struct Api {
    shared: Arc<ApiState>,
    router: Router,
}

/// What the handlers share.
#[derive(Debug)]
struct ApiState {
    node: Handle,
    /// For what the daemon does and not the node.
    admin: mpsc::Sender<Admin>,
    guard: Guard,
    /// How a browser elsewhere reaches this box, as far as this box knows; `None`: only from this machine.
    link_base: Option<String>,
    /// SHA-256 of the certificate of its connections.
    fingerprint: Option<String>,
    /// The number of present watchers, which is limited because each costs work at every change.
    watchers: AtomicUsize,
    /// A backup is being made.
    backs_up: AtomicBool,
}

impl Api {
    /// Makes an API over a node. What is for the daemon and not for the node goes to `admin`.
    pub(crate) fn new(config: &ApiConfig, node: Handle, admin: mpsc::Sender<Admin>) -> Api {
        let guard = Guard::new(config);
        let link_base = access::link_base(config, node.identity());
        let fingerprint = config.encryption.as_ref().map(Encryption::fingerprint_text);
        let shared = Arc::new(ApiState {
            node,
            admin,
            guard,
            link_base,
            fingerprint,
            watchers: AtomicUsize::new(0),
            backs_up: AtomicBool::new(false),
        });
        Api { router: routes::router(shared.clone()), shared }
    }

    /// Answers one request.
    pub async fn answer<B>(&self, request: Request<B>, via: Via) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let metrics = self.shared.node.metrics();
        metrics.api_requests.raise();
        let response = self.routed(request, via).await;
        if !response.status().is_success() {
            metrics.api_problems.raise();
        }
        response
    }

    async fn routed<B>(&self, request: Request<B>, via: Via) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let need = routes::need(request.method(), request.uri().path());
        let known = |hash: &AccessHash| {
            self.shared
                .node
                .site(|site| site.access_token(hash).map(|token| (token.name.clone(), token.role)))
        };
        let caller = match self.shared.guard.check(&request, via, need.role(), known) {
            Ok(caller) => caller,
            Err(problem) => return problem.into_response(),
        };
        match need {
            Need::Role(Some(AccessRole::Admin)) => {}
            Need::Role(_) => return self.passed(request).await,
            Need::NoSuchMethod(route) => return reads::not_allowed(request.method(), &route.allow()),
            Need::NoSuchPath => return reads::not_found(request.uri().clone()).await.into_response(),
        }
        // The log of changes.
        let what = (request.method() != Method::GET)
            .then(|| format!("{} {}", request.method(), request.uri().path()));
        let answer = Box::pin(self.passed(request)).await;
        if let Some(what) = what {
            tracing::info!("{what} by {caller}: {}", answer.status().as_u16());
        }
        answer
    }

    /// Answers a request that may be answered.
    async fn passed<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        // Adds pass by the router: there are many of them, and what they need is little.
        if *request.method() == Method::POST
            && let Some((kind, raw)) = adds::target(request.uri().path())
        {
            let raw = raw.to_owned();
            return match adds::add(&self.shared.node, kind, &raw, request).await {
                Ok(text) => json_response(text),
                Err(problem) => problem.into_response(),
            };
        }
        let request = request.map(Body::new);
        // Boxed, so that a connection that only adds does not carry the state of all other handlers.
        let answer = Box::pin(self.router.clone().oneshot(request)).await;
        answer.unwrap_or_else(|never| match never {})
    }
}

impl Answers for Api {
    async fn answer(&self, request: Request<Incoming>, via: Via) -> Response<Body> {
        Api::answer(self, request, via).await
    }

    fn turned_away(&self) {
        self.shared.node.metrics().api_turned_away.raise();
    }
}

/// A series as the API shows it.
pub(crate) fn series_json(view: &crate::site::SeriesView) -> String {
    serde_json::to_string(&forms::SeriesForm::new(view)).unwrap_or_default()
}

/// A window of a series as the API shows it.
pub(crate) fn summary_json(window: &crate::site::Summary) -> String {
    serde_json::to_string(&forms::SummaryForm::new(window)).unwrap_or_default()
}

pub(crate) fn json_response(text: impl Into<Body>) -> Response<Body> {
    typed_response("application/json", text)
}

pub(crate) fn typed_response(content_type: &'static str, text: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(text.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The kinds of adds, by the path that they are posted to.
const ADDS: [(&str, Kind); 3] =
    [("/v1/counters/", Kind::Counter), ("/v1/updowns/", Kind::Updown), ("/v1/samples/", Kind::Sample)];

#[cfg(test)]
#[path = "live_tests.rs"]
mod live_tests;
