//! The page and the description of the API: files that are part of the program.

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};

use super::problem::{Name, Problem};
use super::{json_response, typed_response};

/// One file for browsers, three for those who edit it.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    include_str!("page/page.html")
        .replace("/* style */", include_str!("page/page.css"))
        .replace("/* script */", include_str!("page/page.js"))
});

const OPENAPI: &str = include_str!("openapi.json");

/// What stands in the page where each answer puts its own nonce.
const NONCE: &str = "NONCE-OF-THIS-ANSWER";

/// `GET /`
pub(super) async fn page() -> Result<Response<Body>, Problem> {
    let nonce = crate::random::bytes()
        .map(|random| format!("{:032x}", u128::from_be_bytes(random)))
        .map_err(|_| Problem::new(Name::NotReady, "the system's random generator does not answer"))?;
    let mut response = typed_response("text/html; charset=utf-8", PAGE.replace(NONCE, &nonce));
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&policy(&nonce)) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Only this page's own script and style, nothing from or to elsewhere, no frames.
fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// `GET /openapi.json`
pub(super) async fn openapi() -> Response<Body> {
    json_response(OPENAPI)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fetched() -> (String, String) {
        let response = page().await.unwrap();
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (policy, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_page_runs_its_own_script_and_no_other() {
        let (policy, page) = fetched().await;
        let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
        assert_eq!(page.matches(nonce).count(), 2, "script and style");
        assert!(!page.contains(NONCE));
        assert!(page.contains("\"use strict\"") && page.contains("prefers-color-scheme"));
        assert_ne!(policy, fetched().await.0, "a nonce is used once");
    }

    #[tokio::test]
    async fn the_page_needs_nothing_from_elsewhere_and_writes_text_only_as_text() {
        let (_, page) = fetched().await;
        let foreign = page.replace("http://www.w3.org/2000/svg", "");
        for unwanted in [
            "http://",
            "https://",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "eval(",
            " src=",
            "@import",
        ] {
            assert!(!foreign.contains(unwanted), "{unwanted}");
        }
    }

    #[test]
    fn the_description_is_json() {
        let value: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        assert_eq!(value["openapi"], "3.1.0");
    }
}
