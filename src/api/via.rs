//! How a request came, and on whose behalf it is answered.

use std::fmt;
use std::net::IpAddr;

use axum::http::{HeaderMap, header};

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Over the admin socket, from a process of this user.
    Socket {
        /// Its number, as the kernel says.
        user: Option<u32>,
    },
    /// Over TCP.
    Tcp {
        /// From there.
        peer: IpAddr,
        /// Over TLS.
        is_encrypted: bool,
    },
}

impl Via {
    /// Over TCP; IPv4 in IPv6 is IPv4.
    pub(crate) fn tcp(peer: IpAddr, is_encrypted: bool) -> Via {
        Via::Tcp { peer: peer.to_canonical(), is_encrypted }
    }
}

/// Whether somebody passed it on: it is then not of this machine, whoever brought it.
pub(super) fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(header::FORWARDED) || headers.contains_key("x-forwarded-for")
}

/// On whose behalf a request is answered, for the log of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Whoever may open the admin socket.
    User(Option<u32>),
    /// Without a token.
    Nobody(Via),
    /// With the token of `api.token_file`.
    FileToken(Via),
    /// With the access token of this name.
    Token(String, Via),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::User(None) => write!(f, "an unknown user over the admin socket"),
            Caller::User(Some(user)) => match crate::permissions::user_name(*user) {
                Some(name) => write!(f, "user {name} ({user}) over the admin socket"),
                None => write!(f, "user number {user} over the admin socket"),
            },
            Caller::Nobody(via) => write!(f, "somebody without a token {via}"),
            Caller::FileToken(via) => write!(f, "the token of api.token_file {via}"),
            Caller::Token(name, via) => write!(f, "the token {name:?} {via}"),
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Via::Socket { .. } => write!(f, "over the admin socket"),
            Via::Tcp { peer, .. } => write!(f, "from {peer}"),
        }
    }
}
