//! Access control of the API: what the one who asks may do, and the refusal of web pages of other origins.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use axum::http::{HeaderMap, HeaderValue, Method, Request, header};
use ring::hmac;
use ring::rand::SystemRandom;

use super::ApiConfig;
use super::access_token::AccessToken;
use super::limits::Limits;
use super::problem::{Name, Problem};
use super::via::{Caller, Via, is_forwarded};
use crate::secret::Secret;
use crate::site::{AccessHash, AccessRole};

/// The checks of one box.
#[derive(Debug)]
pub(crate) struct Guard {
    token: Option<FileToken>,
    /// Those who are not of this machine may read without a token.
    anonymous_reads: bool,
    /// The listener is of this machine only.
    is_loopback: bool,
    /// Where the admin socket is, for advice.
    socket: Option<PathBuf>,
    limits: Mutex<Limits>,
}

/// The token of `api.token_file`, kept as a tag under a random key, so that the timing of a comparison reveals nothing
/// about the token.
#[derive(Debug)]
struct FileToken {
    key: hmac::Key,
    tag: hmac::Tag,
}

/// Finds the access token of a hash, if it is good: its name and its role.
pub(crate) trait Known: FnOnce(&AccessHash) -> Option<(String, AccessRole)> {}

impl<F: FnOnce(&AccessHash) -> Option<(String, AccessRole)>> Known for F {}

impl Guard {
    pub(crate) fn new(config: &ApiConfig) -> Guard {
        let token = config.token.as_ref().map(FileToken::new);
        let is_loopback = config.listen.ip().to_canonical().is_loopback();
        Guard {
            token,
            anonymous_reads: config.anonymous_reads,
            is_loopback,
            socket: config.socket.clone(),
            limits: Mutex::default(),
        }
    }

    /// Whether a request may be answered, and on whose behalf. `need`: the role for it; `None`: it is open to all.
    /// `known`: who else is known by a token.
    pub(crate) fn check<B>(
        &self,
        request: &Request<B>,
        via: Via,
        need: Option<AccessRole>,
        known: impl Known,
    ) -> Result<Caller, Problem> {
        match via {
            // What passes requests on over the socket must not make admins of those who send them.
            Via::Socket { user } if need.is_none() || !is_forwarded(request.headers()) => {
                Ok(Caller::User(user))
            }
            Via::Socket { .. } => self.by_token(request.headers(), via, need, known),
            Via::Tcp { peer, is_encrypted } => self.check_tcp(request, (peer, is_encrypted), need, known),
        }
    }

    fn check_tcp<B>(
        &self,
        request: &Request<B>,
        (peer, is_encrypted): (IpAddr, bool),
        need: Option<AccessRole>,
        known: impl Known,
    ) -> Result<Caller, Problem> {
        let (headers, via) = (request.headers(), Via::Tcp { peer, is_encrypted });
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            check_origin(headers)?;
        }
        if need.is_some() && headers.contains_key(header::AUTHORIZATION) {
            if !is_encrypted && !peer.is_loopback() {
                return Err(not_taken());
            }
            return self.by_token(headers, via, need, known);
        }
        let is_local = peer.is_loopback() && self.token.is_none() && !is_forwarded(headers);
        let role = match if is_local { check_host(headers) } else { Ok(()) } {
            Ok(()) if is_local => Some(AccessRole::Count),
            // Elsewhere the box is reached by its own name, too: whoever does that is not taken for local.
            Err(problem) if self.is_loopback => return Err(problem),
            _ if self.anonymous_reads => Some(AccessRole::Read),
            _ => None,
        };
        if role < need { Err(self.no_token(need)) } else { Ok(Caller::Nobody(via)) }
    }

    fn by_token(
        &self,
        headers: &HeaderMap,
        via: Via,
        need: Option<AccessRole>,
        known: impl Known,
    ) -> Result<Caller, Problem> {
        let Some(value) = headers.get(header::AUTHORIZATION) else { return Err(self.no_token(need)) };
        let (address, now) = (address_of(via), Instant::now());
        self.limits().check_address(address, now)?;
        let found = bearer(value).and_then(|presented| {
            if self.token.as_ref().is_some_and(|token| token.is(presented)) {
                return Some((Caller::FileToken(via), AccessRole::Admin));
            }
            let token = AccessToken::parse(std::str::from_utf8(presented).ok()?).ok()?;
            let hash = token.hash();
            known(&hash).map(|(name, role)| (Caller::Token(name, via), role))
        });
        let Some((caller, role)) = found else {
            self.limits().wrong(address, now);
            let why = "the token is wrong, has ended or was revoked (header 'Authorization: Bearer TOKEN')";
            return Err(Problem::new(Name::Unauthorized, why));
        };
        if let Caller::Token(name, _) = &caller {
            self.limits().check_token(name, now)?;
        }
        match need {
            Some(need) if role < need => Err(Problem::new(
                Name::RoleTooLow,
                format!("this needs a token with the role {need}, and this one has the role {role}"),
            )),
            _ => Ok(caller),
        }
    }

    fn limits(&self) -> std::sync::MutexGuard<'_, Limits> {
        // Nothing in there panics while it holds the lock.
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Without a token, and one is needed.
    fn no_token(&self, need: Option<AccessRole>) -> Problem {
        let need = need.unwrap_or(AccessRole::Read);
        let socket = match (need, &self.socket) {
            (AccessRole::Admin, Some(path)) => by_socket(path),
            _ => String::new(),
        };
        let detail = format!(
            "this needs the role {need}: {socket}send the header 'Authorization: Bearer TOKEN' with a token of `tallyd \
             access create`, or of api.token_file (tallyd: --token-file FILE)"
        );
        Problem::new(Name::Unauthorized, detail)
    }
}

fn by_socket(path: &Path) -> String {
    format!(
        "use the admin socket, as root or as a member of the group tallyd (tallyd: --url unix:{}), or ",
        path.display()
    )
}

fn not_taken() -> Problem {
    let why = "this listener is not encrypted, so it takes no token, and lets anybody read (api.anonymous = \"read\"); set \
        api.tls_cert and api.tls_key, or leave out api.anonymous, for TLS. A token that was sent here was readable on \
        its way: revoke it";
    Problem::new(Name::TokenNotTaken, why)
}

/// Whose wrong tokens are counted together: those of an address, or of a network of the last mile.
fn address_of(via: Via) -> Option<IpAddr> {
    match via {
        Via::Socket { .. } => None,
        Via::Tcp { peer: IpAddr::V6(address), .. } => {
            // Whoever has one address of a /64 has all of them.
            let network = address.to_bits() >> 64 << 64;
            Some(IpAddr::V6(network.into()))
        }
        Via::Tcp { peer, .. } => Some(peer),
    }
}

impl FileToken {
    fn new(secret: &Secret) -> FileToken {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .expect("the system's random generator works: identities and epochs need it too");
        let tag = hmac::sign(&key, secret.reveal().as_bytes());
        FileToken { key, tag }
    }

    fn is(&self, presented: &[u8]) -> bool {
        hmac::verify(&self.key, presented, self.tag.as_ref()).is_ok()
    }
}

/// The token in an `Authorization` header.
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, presented) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| presented.trim_ascii())
}

fn check_host(headers: &HeaderMap) -> Result<(), Problem> {
    // HTTP/1.0 clients send none; browsers always do.
    let Some(host) = headers.get(header::HOST) else { return Ok(()) };
    let text = host.to_str().unwrap_or_default();
    if is_local_name(host_of(text)) {
        return Ok(());
    }
    let detail = format!(
        "the request's Host is {text:?}; without a token, a loopback listener serves only IP addresses and \
         localhost, so that no web page can reach it under another name; use http://127.0.0.1, or send a token"
    );
    Err(Problem::new(Name::ForbiddenHost, detail))
}

/// Whether a host is an address or a loopback name, neither of which DNS can rebind.
fn is_local_name(host: &str) -> bool {
    const UNDER: &str = ".localhost";
    let is_under = || {
        let end = host.len().checked_sub(UNDER.len()).and_then(|at| host.get(at..));
        end.is_some_and(|end| end.eq_ignore_ascii_case(UNDER))
    };
    host.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost") || is_under()
}

/// `HOST[:PORT]` without the port and without the brackets of an IPv6 address.
fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    authority.split(':').next().unwrap_or(authority)
}

/// Checks the origin, which browsers send with every request that can change something.
fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let refused = |what: &str| {
        let detail = format!("{what}; only programs and this box's own page may send changes");
        Err(Problem::new(Name::CrossOrigin, detail))
    };
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
        if authority.is_empty() || !authority.eq_ignore_ascii_case(own) {
            return refused(&format!("the request comes from a web page of {origin:?}"));
        }
    }
    match headers.get("sec-fetch-site").map(|value| value.as_bytes()) {
        Some(b"cross-site" | b"same-site") => refused("the request comes from a web page of another site"),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
