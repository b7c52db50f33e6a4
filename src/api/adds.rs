//! `POST /v1/counters/SERIES` and its like: one add that is answered once it is committed. The hot path.

use std::time::Duration;

use axum::body::HttpBody;
use axum::http::Request;
use bytes::Bytes;
use tally_core::report::Kind;

use super::problem::{Asked, Problem};
use super::{ADDS, BODY_BYTES_MAX, body, forms, parse};
use crate::node::Handle;
use crate::request::Add;

/// The kind and the raw name of the series, if the path is one that adds are posted to.
pub(super) fn target(path: &str) -> Option<(Kind, &str)> {
    ADDS.iter().find_map(|(prefix, kind)| path.strip_prefix(prefix).map(|raw| (*kind, raw)))
}

/// Adds and answers.
pub(super) async fn add<B>(
    node: &Handle,
    kind: Kind,
    raw: &str,
    request: Request<B>,
) -> Result<String, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let series = parse::series(raw)?.into_owned();
    let key = parse::key(request.headers())?;
    let patience = parse::patience(request.headers()).unwrap_or(Duration::MAX);
    let body = body::read(request.into_body(), BODY_BYTES_MAX).await?;
    let amount = parse::amount(kind, &body, node.clock().site())?;
    // The answer needs the name too, and the node keeps its own.
    let asked = Asked::Add { keyed: key.is_some() };
    let add = Add { series: series.clone(), amount, key };
    let added = node.add_within(add, patience).await.map_err(|error| asked.problem(error))?;
    Ok(forms::added(kind, &series, added.total, added.time.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_tells_the_kind_and_the_series() {
        assert_eq!(target("/v1/counters/a/b"), Some((Kind::Counter, "a/b")));
        assert_eq!(target("/v1/updowns/a%2Fb"), Some((Kind::Updown, "a%2Fb")));
        assert_eq!(target("/v1/samples/"), Some((Kind::Sample, "")));
        for path in ["/v1/counters", "/v1/series/a", "/v2/counters/a", "/", "v1/counters/a"] {
            assert_eq!(target(path), None, "{path}");
        }
    }
}
