//! `POST /v1/clock/step`: sets site time for an operator, as `tallyd clock step` does.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use serde::Deserialize;

use super::problem::Problem;
use super::reads::to_json;
use super::{ApiState, BODY_BYTES_MAX, body, json_response, parse};

/// The body is an empty object: the time comes from the boxes' clocks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepBody {}

/// `POST /v1/clock/step`
pub(super) async fn step(
    State(shared): State<Arc<ApiState>>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let body = body::read(request.into_body(), BODY_BYTES_MAX).await?;
    if !body.is_empty() {
        let StepBody {} = parse::json(&body, "{}")?;
    }
    let (was, time) = shared.node.step_clock().await?;
    to_json(&serde_json::json!({"was": was.0, "time": time.0})).map(json_response)
}
