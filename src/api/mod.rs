//! HTTP: the API under `/v1`, metrics, health and the page. Any box answers any request.

mod adds;
mod admin;
mod body;
mod clock;
mod connections;
mod decimal;
mod forms;
mod guard;
mod map_only;
mod members;
mod metrics;
mod page;
pub mod parse;
mod problem;
mod reads;
pub mod report_body;
mod reports;
mod server;
mod settings;
mod socket;
mod tokens;
mod waiting;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use axum::routing::{MethodRouter, delete, get, post, put};
use bytes::Bytes;
use hyper::body::Incoming;
use tally_core::report::Kind;
use tokio::sync::mpsc;
use tower::ServiceExt;

pub use body::{BODY_BYTES_MAX, REPORT_BYTES_MAX};
pub use members::member_of;
pub use problem::{Name, Problem};
pub use report_body::CELLS_MAX;
pub use server::{Answers, ApiError, bind, serve};

use crate::node::Handle;
use crate::secret::Secret;
pub(crate) use admin::{ADMIN_MAX, Admin, Founded, InitAsk, JoinAsk, JoinedForm, Reply};
pub(crate) use guard::Guard;
pub(crate) use metrics::{Text, log_figures};
pub(crate) use waiting::{NO_SITE, Waiting, WaitingState};

/// The configuration of the API's listener.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// The listen address. A non-loopback address needs a token, which the reader of the configuration enforces.
    pub listen: SocketAddr,
    /// The token that clients present as `Authorization: Bearer TOKEN`; `None`: no token is required.
    pub token: Option<Secret>,
    /// The most connections at once; beyond it, the connection that was idle longest is closed.
    pub connections_max: usize,
    /// How long a connection may do nothing before it is closed.
    pub idle_max: Duration,
}

impl ApiConfig {
    /// Makes the default configuration for a listen address.
    pub fn new(listen: SocketAddr) -> ApiConfig {
        ApiConfig { listen, token: None, connections_max: 1024, idle_max: Duration::from_secs(60) }
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
    /// The number of present watchers, which is limited because each costs work at every change.
    watchers: AtomicUsize,
}

impl Api {
    /// Makes an API over a node. What is for the daemon and not for the node goes to `admin`.
    pub(crate) fn new(config: &ApiConfig, node: Handle, admin: mpsc::Sender<Admin>) -> Api {
        let guard = Guard::new(config.listen, config.token.as_ref());
        let shared = Arc::new(ApiState { node, admin, guard, watchers: AtomicUsize::new(0) });
        Api { router: router(shared.clone()), shared }
    }

    /// Answers one request.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let metrics = self.shared.node.metrics();
        metrics.api_requests.raise();
        let response = self.routed(request).await;
        if !response.status().is_success() {
            metrics.api_problems.raise();
        }
        response
    }

    async fn routed<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        if let Err(problem) = self.shared.guard.check(&request) {
            return problem.into_response();
        }
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
        let method = request.method().clone();
        // Boxed, so that a connection that only adds does not carry the state of all other handlers.
        let answer = Box::pin(self.router.clone().oneshot(request)).await;
        let answer = answer.unwrap_or_else(|never| match never {});
        match answer.status() {
            StatusCode::METHOD_NOT_ALLOWED => {
                reads::not_allowed(&method, answer.headers().get(header::ALLOW))
            }
            _ => answer,
        }
    }
}

impl Answers for Api {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        Api::answer(self, request).await
    }

    fn turned_away(&self) {
        self.shared.node.metrics().api_turned_away.raise();
    }
}

fn router(shared: Arc<ApiState>) -> Router {
    Router::new()
        .route("/", only(get(page::page)))
        .route("/openapi.json", only(get(page::openapi)))
        .route("/healthz", only(get(reads::healthz)))
        .route("/readyz", only(get(reads::readyz)))
        .route("/metrics", only(get(metrics::metrics)))
        .route("/v1/status", only(get(reads::status)))
        .route("/v1/series", only(get(reads::page)))
        .route("/v1/series/{*series}", only(get(reads::series)))
        .route("/v1/windows/{*series}", only(get(reads::windows)))
        .route("/v1/watch", only(get(watch::watch)))
        .route("/v1/settings", only(get(settings::list)))
        .route("/v1/settings/{key}", only(put(settings::set)))
        .route("/v1/members", only(get(members::list).post(members::add)))
        .route("/v1/members/{name}", only(put(members::set_role).delete(members::remove)))
        .route("/v1/tokens", only(get(tokens::list).post(tokens::create)))
        .route("/v1/tokens/{id}", only(delete(tokens::revoke)))
        .route("/v1/init", only(post(admin::init)))
        .route("/v1/join", only(post(admin::join)))
        .route("/v1/leader/transfer", only(post(members::transfer)))
        .route("/v1/clock/step", only(post(clock::step)))
        .route("/v1/sources/{name}/epochs", only(post(reports::open_epoch)))
        .route("/v1/reports", only(post(reports::report)))
        // Adds themselves do not come here, only other methods.
        .route("/v1/counters/{*series}", only(post(reads::not_found)))
        .route("/v1/updowns/{*series}", only(post(reads::not_found)))
        .route("/v1/samples/{*series}", only(post(reads::not_found)))
        .fallback(reads::not_found)
        .with_state(shared)
}

/// Makes a route that answers other methods with a problem.
fn only(route: MethodRouter<Arc<ApiState>>) -> MethodRouter<Arc<ApiState>> {
    route.fallback(reads::method_not_allowed)
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
