//! Join tokens over HTTP: made, listed, revoked.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawPathParams, State};
use axum::http::{Request, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tally_core::id::NodeId;
use tally_core::raft::MemberRole;

use super::admin::{Admin, ask, check_reached_at};
use super::members::name_in;
use super::problem::{Name, Problem};
use super::reads::to_json;
use super::{ApiState, BODY_BYTES_MAX, body, json_response, parse};
use crate::identity::{Identity, is_name};
use crate::join::Token;
use crate::request::TokenError;
use crate::site::{
    NewToken, Site, TOKEN_TTL_MS_MAX, TOKEN_USES_MAX, TokenChange, TokenId, TokenRecord, TokenRefused,
};
use crate::units::Unit;

const EXAMPLE: &str = r#"{"ttl": "24h", "uses": 2, "role": "voter"}"#;
/// How long a token is good if nothing is said.
const TTL_MS_DEFAULT: u64 = 24 * 3_600_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    ttl: Option<String>,
    uses: Option<u32>,
    role: Option<MemberRole>,
    replace: Option<String>,
    advertise: Option<String>,
}

/// The answer of `POST /v1/tokens`: the only one with the token itself.
#[derive(Serialize)]
struct CreatedForm {
    token: String,
    /// A box of the site, where it is to be used.
    address: String,
    #[serde(flatten)]
    record: TokenForm,
}

/// A token as lists show it.
#[derive(Serialize)]
struct TokenForm {
    id: String,
    role: MemberRole,
    uses_left: u32,
    ends_in_ms: u64,
    /// The name that its holder gets.
    replaces: Option<String>,
    /// The name of the box that made it, or its number if it is not a member any more.
    made_by: String,
    used_by: Vec<String>,
}

/// `GET /v1/tokens`
pub(super) async fn list(State(shared): State<Arc<ApiState>>) -> Result<Response<Body>, Problem> {
    shared.node.fence().await?;
    let forms: Vec<TokenForm> = shared.node.site(|site| {
        let now = site.stamp().elapsed.0;
        let good = site.tokens().iter().filter(|token| token.ends.0 > now);
        good.map(|token| TokenForm::of(token, site, shared.node.identity())).collect()
    });
    to_json(&json!({ "tokens": forms })).map(json_response)
}

impl TokenForm {
    fn of(token: &TokenRecord, site: &Site, identity: &Identity) -> TokenForm {
        let name = |id: &NodeId| {
            let member = site.members().iter().find(|member| member.id == *id);
            match member.or_else(|| identity.member(*id)) {
                Some(member) => member.name.clone(),
                None => format!("number {id}"),
            }
        };
        TokenForm {
            id: token.id.to_string(),
            role: token.role,
            uses_left: token.uses,
            ends_in_ms: token.ends.0.saturating_sub(site.stamp().elapsed.0),
            replaces: token.replaces.as_ref().map(|(_, name)| name.clone()),
            made_by: name(&token.made_by),
            used_by: token.used_by.iter().map(name).collect(),
        }
    }
}

/// `POST /v1/tokens`
pub(super) async fn create(
    State(shared): State<Arc<ApiState>>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let body = body::read(request.into_body(), BODY_BYTES_MAX).await?;
    let asked: CreateBody = parse::json(&body, EXAMPLE)?;
    let new = asked.checked()?;
    // Where others reach this box; if it is nowhere yet, there from now on.
    let address = ask(&shared.admin, |reply| Admin::Advertise { address: asked.advertise, reply }).await?;
    let token = Token::random()
        .map_err(|_| Problem::new(Name::NotReady, "the system's random generator does not answer"))?;
    let new = NewToken {
        id: token.id(),
        site_key: token.site_key(),
        join_public: token.join_public(),
        made_by: shared.node.identity().node_id(),
        ..new
    };
    change(&shared, &TokenChange::Create(new)).await?;
    let record = shared.node.site(|site| {
        site.token(token.id()).map(|record| TokenForm::of(record, site, shared.node.identity()))
    });
    let record = record.ok_or_else(|| Problem::new(Name::NotCommitted, "the token has ended meanwhile"))?;
    to_json(&CreatedForm { token: token.reveal(), address, record }).map(json_response)
}

impl CreateBody {
    /// The token that is asked for, without its secrets.
    fn checked(&self) -> Result<NewToken, Problem> {
        let ttl_ms = self.ttl.as_deref().map_or(Ok(TTL_MS_DEFAULT), |text| {
            Unit::Duration.parse(text).map_err(|why| Problem::malformed(format!("ttl: {why}")))
        })?;
        if !(1..=TOKEN_TTL_MS_MAX).contains(&ttl_ms) {
            return Err(Problem::malformed("ttl: a token is good for up to 366 days"));
        }
        let uses = self.uses.unwrap_or(1);
        if !(1..=TOKEN_USES_MAX).contains(&uses) {
            return Err(Problem::malformed(format!("uses: must be from 1 to {TOKEN_USES_MAX}, not {uses}")));
        }
        let role = self.role.unwrap_or(MemberRole::Voter);
        if role == MemberRole::Witness {
            return Err(Problem::malformed(
                "role: voter or observer; witnesses are made by `tallyd provision`",
            ));
        }
        let replaces = self.replace.clone();
        if let Some(name) = replaces.as_deref().filter(|name| !is_name(name)) {
            return Err(Problem::malformed(format!(
                "replace: {name:?} is not a name (1 to 32 of a-z 0-9 -)"
            )));
        }
        if replaces.is_some() && uses > 1 {
            return Err(Problem::malformed("uses: only one box can take the place of another"));
        }
        self.advertise.as_deref().map_or(Ok(()), |address| check_reached_at("advertise", address))?;
        let (id, site_key) = (TokenId([0; 8]), crate::site::SiteKey([0; 32]));
        Ok(NewToken { id, site_key, join_public: [0; 32], role, uses, ttl_ms, replaces, made_by: NodeId(0) })
    }
}

/// `DELETE /v1/tokens/ID`
pub(super) async fn revoke(
    State(shared): State<Arc<ApiState>>,
    params: RawPathParams,
) -> Result<Response<Body>, Problem> {
    let text = name_in(&params);
    let id = TokenId::from_hex(&text).ok_or_else(|| {
        Problem::malformed(format!("{text:?} is not the id of a token (16 hexadecimal digits)"))
    })?;
    change(&shared, &TokenChange::Revoke(id)).await?;
    to_json(&json!({ "id": id.to_string() })).map(json_response)
}

async fn change(shared: &ApiState, change: &TokenChange) -> Result<(), Problem> {
    shared.node.change_tokens(change).await.map_err(|error| match error {
        TokenError::Request(error) => error.into(),
        TokenError::Refused(why) => {
            let name = match why {
                TokenRefused::NoSuchMember => Name::NoSuchMember,
                TokenRefused::NoSuchToken => Name::NoSuchToken,
                TokenRefused::TooMany | TokenRefused::Known | TokenRefused::Witness => Name::MemberRefused,
            };
            Problem::new(name, why.to_string())
        }
    })
}
