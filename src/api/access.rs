//! Access tokens over HTTP: made, listed, revoked.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawPathParams, State};
use axum::http::{Request, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::members::name_in;
use super::problem::{Name, Problem};
use super::reads::to_json;
use super::{AccessToken, ApiConfig, ApiState, BODY_BYTES_MAX, body, json_response, parse};
use crate::identity::{Identity, check_address, is_name};
use crate::request::AccessError;
use crate::site::{AccessChange, AccessRecord, AccessRefused, AccessRole, NewAccess, Site, TOKEN_TTL_MS_MAX};
use crate::units::Unit;

const EXAMPLE: &str = r#"{"name": "phone", "role": "read", "ttl": "30d"}"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    name: String,
    role: AccessRole,
    ttl: Option<String>,
}

/// The answer of `POST /v1/access`: the only one with the token itself.
#[derive(Serialize)]
struct CreatedForm {
    token: String,
    /// Where a browser elsewhere finds the page; null: the API listens on this machine only.
    page: Option<String>,
    #[serde(flatten)]
    record: AccessForm,
}

/// A token as lists show it.
#[derive(Serialize)]
struct AccessForm {
    name: String,
    role: AccessRole,
    /// Null: until it is revoked.
    ends_in_ms: Option<u64>,
    /// The name of the box that made it, or its number if it is not a member any more.
    made_by: String,
}

impl AccessForm {
    fn of(token: &AccessRecord, site: &Site, identity: &Identity) -> AccessForm {
        let maker = site.members().iter().find(|member| member.id == token.made_by);
        let maker = maker.or_else(|| identity.member(token.made_by));
        let now = site.stamp().elapsed.0;
        AccessForm {
            name: token.name.clone(),
            role: token.role,
            ends_in_ms: token.ends.map(|ends| ends.0.saturating_sub(now)),
            made_by: maker.map_or_else(|| format!("number {}", token.made_by), |member| member.name.clone()),
        }
    }
}

/// `GET /v1/access`
pub(super) async fn list(State(shared): State<Arc<ApiState>>) -> Result<Response<Body>, Problem> {
    shared.node.fence().await?;
    let identity = shared.node.identity();
    let forms: Vec<AccessForm> = shared
        .node
        .site(|site| site.access_tokens().map(|token| AccessForm::of(token, site, identity)).collect());
    to_json(&json!({ "access": forms })).map(json_response)
}

/// `POST /v1/access`
pub(super) async fn create(
    State(shared): State<Arc<ApiState>>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let body = body::read(request.into_body(), BODY_BYTES_MAX).await?;
    let CreateBody { name, role, ttl } = parse::json(&body, EXAMPLE)?;
    if !is_name(&name) {
        return Err(Problem::malformed(format!("name: {name:?} is not a name (1 to 32 of a-z 0-9 -)")));
    }
    let ttl_ms = ttl.map(|text| ttl_of(&text)).transpose()?;
    let token = AccessToken::random()
        .map_err(|_| Problem::new(Name::NotReady, "the system's random generator does not answer"))?;
    let (hash, made_by) = (token.hash(), shared.node.identity().node_id());
    change(&shared, &AccessChange::Create(NewAccess { name, role, hash, ttl_ms, made_by })).await?;
    let identity = shared.node.identity();
    let record = shared
        .node
        .site(|site| site.access_token(&hash).map(|record| AccessForm::of(record, site, identity)));
    let record = record.ok_or_else(|| Problem::new(Name::NotCommitted, "the token has ended meanwhile"))?;
    let page = shared.link_base.clone();
    to_json(&CreatedForm { token: token.reveal(), page, record }).map(json_response)
}

fn ttl_of(text: &str) -> Result<u64, Problem> {
    let ttl_ms = Unit::Duration.parse(text).map_err(|why| Problem::malformed(format!("ttl: {why}")))?;
    match (1..=TOKEN_TTL_MS_MAX).contains(&ttl_ms) {
        true => Ok(ttl_ms),
        false => {
            Err(Problem::malformed("ttl: up to 366 days; without one the token is good until it is revoked"))
        }
    }
}

/// `DELETE /v1/access/NAME`
pub(super) async fn revoke(
    State(shared): State<Arc<ApiState>>,
    params: RawPathParams,
) -> Result<Response<Body>, Problem> {
    let name = name_in(&params);
    if !is_name(&name) {
        return Err(Problem::malformed(format!("{name:?} is not a name (1 to 32 of a-z 0-9 -)")));
    }
    change(&shared, &AccessChange::Revoke(name.clone())).await?;
    to_json(&json!({ "name": name })).map(json_response)
}

async fn change(shared: &ApiState, change: &AccessChange) -> Result<(), Problem> {
    shared.node.change_access(change).await.map_err(|error| match error {
        AccessError::Request(error) => error.into(),
        AccessError::Refused(why) => {
            let name = match why {
                AccessRefused::NoSuchName => Name::NoSuchAccess,
                AccessRefused::TooMany | AccessRefused::NameTaken => Name::AccessRefused,
            };
            Problem::new(name, why.to_string())
        }
    })
}

/// How a browser elsewhere reaches the page of this box: by the host that the other boxes dial, or by where it listens.
pub(super) fn link_base(config: &ApiConfig, identity: &Identity) -> Option<String> {
    let listen = config.listen;
    if listen.ip().to_canonical().is_loopback() {
        return None;
    }
    let host = match check_address(&identity.me().address) {
        _ if !listen.ip().is_unspecified() => match listen {
            std::net::SocketAddr::V4(at) => at.ip().to_string(),
            std::net::SocketAddr::V6(at) => format!("[{}]", at.ip()),
        },
        Ok((host, _)) => host.to_owned(),
        // Alone, and nobody was told where it is reached.
        Err(_) => identity.me().name.clone(),
    };
    let scheme = if config.encryption.is_some() { "https" } else { "http" };
    Some(format!("{scheme}://{host}:{}/", listen.port()))
}
