//! The replicated settings over HTTP, as `tallyd settings` uses them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawPathParams, State};
use axum::http::{Request, Response};
use serde::{Deserialize, Serialize};

use super::problem::{Name, Problem};
use super::reads::to_json;
use super::{ApiState, BODY_BYTES_MAX, body, json_response, parse};
use crate::request::SetError;

/// A setting with its value.
#[derive(Serialize)]
struct SettingForm {
    key: String,
    value: String,
    default: String,
    help: String,
}

/// `GET /v1/settings`
pub(super) async fn list(State(shared): State<Arc<ApiState>>) -> Result<Response<Body>, Problem> {
    to_json(&serde_json::json!({ "settings": forms(&shared) })).map(json_response)
}

fn forms(shared: &ApiState) -> Vec<SettingForm> {
    shared.node.site(|site| {
        let list = site.settings().list().into_iter();
        list.map(|(key, value, default, help)| SettingForm {
            key: key.to_string(),
            value: value.to_string(),
            default: default.to_string(),
            help: help.to_string(),
        })
        .collect()
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetBody {
    value: String,
}

/// `PUT /v1/settings/KEY`
pub(super) async fn set(
    State(shared): State<Arc<ApiState>>,
    params: RawPathParams,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let key = params.iter().next().map(|(_, value)| value.to_owned()).unwrap_or_default();
    let body = body::read(request.into_body(), BODY_BYTES_MAX).await?;
    let value = parse::json::<SetBody>(&body, r#"{"value": "60s"}"#)?.value;
    let known = forms(&shared);
    if !known.iter().any(|setting| setting.key == key) {
        let keys: Vec<&str> = known.iter().map(|setting| setting.key.as_str()).collect();
        let detail = format!("there is no setting {key:?}; the settings are {}", keys.join(", "));
        return Err(Problem::new(Name::NoSuchSetting, detail));
    }
    let value = shared.node.set(&key, &value).await.map_err(|error| match error {
        // Most of them name the setting themselves.
        SetError::Invalid(why) if why.starts_with(&key) => Problem::malformed(why),
        SetError::Invalid(why) => Problem::malformed(format!("{key}: {why}")),
        SetError::Request(error) => error.into(),
    })?;
    to_json(&serde_json::json!({"key": key, "value": value})).map(json_response)
}
