//! What the API asks of the daemon and not of the node: to found a site here, to join one, to be reached by others.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::problem::{Name, Problem};
use super::reads::to_json;
use super::{ApiState, BODY_BYTES_MAX, body, json_response, parse};
use crate::identity::{check_address, is_name};
use crate::join::Token;

/// How many requests may wait for the daemon.
pub(crate) const ADMIN_MAX: usize = 4;
/// How long a join is tried if the request does not say.
const JOIN_MS_DEFAULT: u64 = 60_000;
/// How long it may be tried.
const JOIN_MS_MAX: u64 = 600_000;

/// A request for the daemon.
#[derive(Debug)]
pub(crate) enum Admin {
    /// Found a site on this box, or rename the one that it has alone.
    Init { ask: InitAsk, reply: Reply<Founded> },
    /// Join a site.
    Join { ask: JoinAsk, reply: Reply<JoinedForm> },
    /// Where do others reach this box? If nowhere yet: there from now on.
    Advertise { address: Option<String>, reply: Reply<String> },
}

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Problem>>;

/// The body of `POST /v1/init`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InitAsk {
    pub(crate) site: String,
    pub(crate) name: Option<String>,
    pub(crate) advertise: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Founded {
    pub(crate) site: String,
    pub(crate) site_id: String,
    pub(crate) name: String,
    pub(crate) number: u64,
    /// Where others reach it; null: nowhere yet.
    pub(crate) address: Option<String>,
}

/// The body of `POST /v1/join`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JoinBody {
    address: String,
    token: String,
    name: Option<String>,
    advertise: Option<String>,
    #[serde(default)]
    set_aside: bool,
    timeout_ms: Option<u64>,
}

/// What it asks for.
#[derive(Clone, Debug)]
pub(crate) struct JoinAsk {
    pub(crate) address: String,
    pub(crate) token: Token,
    pub(crate) name: Option<String>,
    pub(crate) advertise: Option<String>,
    /// Move what this box has out of the way.
    pub(crate) set_aside: bool,
    pub(crate) timeout_ms: u64,
}

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct JoinedForm {
    pub(crate) site: String,
    pub(crate) site_id: String,
    pub(crate) name: String,
    pub(crate) number: u64,
    /// The number of the box in whose place it is.
    pub(crate) replaces: Option<u64>,
    /// Where the data is that this box had.
    pub(crate) set_aside: Option<String>,
}

const INIT_EXAMPLE: &str = r#"{"site": "plant7", "name": "box1", "advertise": "10.0.0.11:7400"}"#;
const JOIN_EXAMPLE: &str = r#"{"address": "10.0.0.11:7400", "token": "tally1-..."}"#;

fn check_name(key: &str, name: &str) -> Result<(), Problem> {
    match is_name(name) {
        true => Ok(()),
        false => Err(Problem::malformed(format!("{key}: {name:?} is not a name (1 to 32 of a-z 0-9 -)"))),
    }
}

pub(super) fn check_reached_at(key: &str, address: &str) -> Result<(), Problem> {
    check_address(address).map(|_| ()).map_err(|why| Problem::malformed(format!("{key}: {why}")))
}

/// Reads the body of `POST /v1/init`.
pub(super) fn init_of(body: &[u8]) -> Result<InitAsk, Problem> {
    let ask: InitAsk = parse::json(body, INIT_EXAMPLE)?;
    check_name("site", &ask.site)?;
    ask.name.as_deref().map_or(Ok(()), |name| check_name("name", name))?;
    ask.advertise.as_deref().map_or(Ok(()), |address| check_reached_at("advertise", address))?;
    Ok(ask)
}

/// Reads the body of `POST /v1/join`.
pub(super) fn join_of(body: &[u8]) -> Result<JoinAsk, Problem> {
    let JoinBody { address, token, name, advertise, set_aside, timeout_ms } =
        parse::json(body, JOIN_EXAMPLE)?;
    check_reached_at("address", &address)?;
    name.as_deref().map_or(Ok(()), |name| check_name("name", name))?;
    advertise.as_deref().map_or(Ok(()), |address| check_reached_at("advertise", address))?;
    let token = Token::parse(&token).map_err(|why| Problem::malformed(format!("token: {why}")))?;
    let timeout_ms = timeout_ms.unwrap_or(JOIN_MS_DEFAULT).min(JOIN_MS_MAX);
    Ok(JoinAsk { address, token, name, advertise, set_aside, timeout_ms })
}

/// Asks the daemon and waits for what it says.
pub(super) async fn ask<T>(
    admin: &mpsc::Sender<Admin>,
    request: impl FnOnce(Reply<T>) -> Admin,
) -> Result<T, Problem> {
    let (reply, answer) = oneshot::channel();
    admin.try_send(request(reply)).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => {
            Problem::new(Name::NotCommitted, "this box is founding or joining a site already: retry")
        }
        mpsc::error::TrySendError::Closed(_) => Problem::new(Name::NotCommitted, "this box is stopping"),
    })?;
    let stopped =
        |_| Problem::new(Name::OutcomeUnknown, "this box stopped meanwhile: run the same command again");
    answer.await.map_err(stopped)?
}

/// `POST /v1/init`
pub(super) async fn init(
    State(shared): State<Arc<ApiState>>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let asked = init_of(&body::read(request.into_body(), BODY_BYTES_MAX).await?)?;
    let founded = ask(&shared.admin, |reply| Admin::Init { ask: asked, reply }).await?;
    to_json(&founded).map(json_response)
}

/// `POST /v1/join`
pub(super) async fn join(
    State(shared): State<Arc<ApiState>>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let asked = join_of(&body::read(request.into_body(), BODY_BYTES_MAX).await?)?;
    let joined = ask(&shared.admin, |reply| Admin::Join { ask: asked, reply }).await?;
    to_json(&joined).map(json_response)
}
