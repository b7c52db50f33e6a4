//! Who may talk to the API at all: a token where one is set, no web pages of other origins.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, Method, Request, header};
use ring::hmac;
use ring::rand::SystemRandom;

use super::problem::{Name, Problem};
use crate::secret::Secret;

/// The checks of one listener.
#[derive(Debug)]
pub(crate) struct Guard {
    token: Option<Token>,
    /// Whether host names other than loopback ones are refused: DNS rebinding would otherwise make a
    /// page of any origin one of ours.
    names_are_local: bool,
}

/// A token as a tag under a random key: comparing tags tells nothing about the token by its timing.
#[derive(Debug)]
struct Token {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl Guard {
    pub(crate) fn new(listen: SocketAddr, token: Option<&Secret>) -> Guard {
        let token = token.map(|secret| {
            let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
                .expect("the system's random generator works: identities and epochs need it too");
            let tag = hmac::sign(&key, secret.reveal().as_bytes());
            Token { key, tag }
        });
        let names_are_local = token.is_none() && listen.ip().is_loopback();
        Guard { token, names_are_local }
    }

    /// Whether a request may be answered.
    pub(crate) fn check<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        let headers = request.headers();
        if self.names_are_local {
            check_host(headers)?;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            check_origin(headers)?;
        }
        match &self.token {
            Some(token) if !is_public(request.uri().path()) => token.check(headers),
            _ => Ok(()),
        }
    }
}

/// Health is for probes that have no token; the page and the description hold nothing of the site
/// (the page asks for the token and then fetches).
fn is_public(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/" | "/openapi.json")
}

impl Token {
    fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let refused = |why: &str| {
            let detail = format!(
                "{why}; send the header 'Authorization: Bearer TOKEN' with the token of this box's api.token_file"
            );
            Err(Problem::new(Name::Unauthorized, detail))
        };
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return refused("this listener needs a token and the request has none");
        };
        let Some((scheme, presented)) = value.as_bytes().split_at_checked(7) else {
            return refused("the Authorization header is no bearer token");
        };
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return refused("the Authorization header is no bearer token");
        }
        match hmac::verify(&self.key, presented.trim_ascii(), self.tag.as_ref()) {
            Ok(()) => Ok(()),
            Err(_) => refused("the token is not this listener's"),
        }
    }
}

fn check_host(headers: &HeaderMap) -> Result<(), Problem> {
    // HTTP/1.0 clients send none; browsers always do.
    let Some(host) = headers.get(header::HOST) else { return Ok(()) };
    let text = host.to_str().unwrap_or_default();
    if is_local_name(host_of(text)) {
        return Ok(());
    }
    let detail = format!(
        "the request's Host is {text:?}; a listener on loopback without a token serves IP addresses and \
         localhost only, so that no web page can reach it under a name of its own; use http://127.0.0.1, or set \
         api.token_file"
    );
    Err(Problem::new(Name::ForbiddenHost, detail))
}

/// An address cannot be rebound, a loopback name neither.
fn is_local_name(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok()
}

/// `HOST[:PORT]` without the port and without the brackets of an IPv6 address.
fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    authority.split(':').next().unwrap_or(authority)
}

/// Browsers name the page's origin in whatever can change something.
fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let refused = |what: &str| {
        let detail = format!("{what}; only programs and this box's own page may change something here");
        Err(Problem::new(Name::CrossOrigin, detail))
    };
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
        if authority.is_empty() || !authority.eq_ignore_ascii_case(own) {
            return refused(&format!("the request comes from a page of {origin:?}"));
        }
    }
    match headers.get("sec-fetch-site").map(|value| value.as_bytes()) {
        Some(b"cross-site" | b"same-site") => refused("the request comes from a page of another site"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(guard: &Guard, method: Method, path: &str, headers: &[(&str, &str)]) -> Option<Name> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        guard.check(&request.body(()).unwrap()).err().map(|problem| problem.name)
    }

    #[test]
    fn a_page_of_another_origin_changes_nothing() {
        let guard = Guard::new("127.0.0.1:7480".parse().unwrap(), None);
        let post = |headers: &[(&str, &str)]| asks(&guard, Method::POST, "/v1/counters/a", headers);
        let host = ("host", "127.0.0.1:7480");
        assert_eq!(post(&[host]), None);
        assert_eq!(post(&[host, ("origin", "http://127.0.0.1:7480")]), None);
        assert_eq!(post(&[host, ("origin", "http://127.0.0.1:80")]), Some(Name::CrossOrigin));
        assert_eq!(post(&[host, ("origin", "http://evil.example")]), Some(Name::CrossOrigin));
        assert_eq!(post(&[host, ("origin", "null")]), Some(Name::CrossOrigin));
        assert_eq!(post(&[host, ("sec-fetch-site", "cross-site")]), Some(Name::CrossOrigin));
        assert_eq!(post(&[host, ("sec-fetch-site", "same-origin")]), None);
    }

    #[test]
    fn a_rebound_name_is_not_served_on_loopback() {
        let guard = Guard::new("127.0.0.1:7480".parse().unwrap(), None);
        let get = |host: &str| asks(&guard, Method::GET, "/v1/series", &[("host", host)]);
        for host in
            ["127.0.0.1:7480", "localhost", "LOCALHOST:7480", "[::1]:7480", "box.localhost", "10.1.2.3"]
        {
            assert_eq!(get(host), None, "{host}");
        }
        for host in ["evil.example", "evil.example:7480", "localhost.evil.example", "notlocalhost", ""] {
            assert_eq!(get(host), Some(Name::ForbiddenHost), "{host}");
        }
        assert_eq!(asks(&guard, Method::GET, "/v1/series", &[]), None);
    }

    #[test]
    fn a_token_opens_everything_but_only_the_right_one() {
        let secret = Secret::new("s3cret");
        let guard = Guard::new("0.0.0.0:7480".parse().unwrap(), Some(&secret));
        let get = |path: &str, headers: &[(&str, &str)]| asks(&guard, Method::GET, path, headers);
        assert_eq!(get("/v1/series", &[("host", "box1.plant")]), Some(Name::Unauthorized));
        assert_eq!(get("/metrics", &[]), Some(Name::Unauthorized));
        for wrong in ["Bearer s3cre", "Bearer s3cret2", "Bearer ", "Basic s3cret", "s3cret", ""] {
            assert_eq!(get("/v1/series", &[("authorization", wrong)]), Some(Name::Unauthorized), "{wrong}");
        }
        assert_eq!(get("/v1/series", &[("authorization", "bearer s3cret")]), None);
        for path in ["/healthz", "/readyz", "/"] {
            assert_eq!(get(path, &[]), None);
        }
        assert_eq!(get("/healthz/../v1/series", &[]), Some(Name::Unauthorized));
    }
}
