//! The page and the description of the API: files that are part of the program.

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};

use super::{json_response, typed_response};

const PAGE: &str = include_str!("page/page.html");
const SCRIPT: &str = include_str!("page/page.js");
const STYLE: &str = include_str!("page/page.css");
const OPENAPI: &str = include_str!("openapi.json");

/// The content security policy: only this box's own script and style, no other origins, no frames.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' \
    data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /`
pub(super) async fn page() -> Response<Body> {
    part("text/html; charset=utf-8", PAGE)
}

/// `GET /page.js`
pub(super) async fn script() -> Response<Body> {
    part("text/javascript; charset=utf-8", SCRIPT)
}

/// `GET /page.css`
pub(super) async fn style() -> Response<Body> {
    part("text/css; charset=utf-8", STYLE)
}

/// A part of the page. A newer release has others: none is kept.
fn part(content_type: &'static str, text: &'static str) -> Response<Body> {
    let mut response = typed_response(content_type, text);
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// `GET /openapi.json`
pub(super) async fn openapi() -> Response<Body> {
    json_response(OPENAPI)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_page_runs_its_own_script_and_no_other() {
        for response in [page().await, script().await, style().await] {
            let header = |name| response.headers()[name].to_str().unwrap();
            let policy = header(header::CONTENT_SECURITY_POLICY);
            assert!(
                policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe")
            );
            assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
            assert_eq!(header(header::X_CONTENT_TYPE_OPTIONS), "nosniff");
            assert_eq!(header(header::REFERRER_POLICY), "no-referrer");
        }
        // A browser with this policy runs nothing that is in the page itself.
        for inline in ["<style", "style=", "onclick", "onload", "<script>"] {
            assert!(!PAGE.contains(inline), "{inline}");
        }
        assert!(PAGE.contains("src=\"page.js\"") && PAGE.contains("href=\"page.css\""));
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_writes_text_only_as_text() {
        let foreign = [PAGE, SCRIPT, STYLE].concat().replace("http://www.w3.org/2000/svg", "");
        for unwanted in
            ["http://", "https://", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "@import"]
        {
            assert!(!foreign.contains(unwanted), "{unwanted}");
        }
        assert_eq!(foreign.matches(" src=").count(), 1, "its script");
    }

    #[test]
    fn the_description_is_json() {
        let value: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        assert_eq!(value["openapi"], "3.1.0");
    }
}
