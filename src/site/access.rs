//! Access tokens of the API: who may ask how much of the boxes, until when. The site keeps a hash of each.

use std::fmt;

use serde::{Deserialize, Serialize};
use tally_core::id::NodeId;
use tally_core::time::Elapsed;

use super::digest::mix_bytes;
use super::level::Level;
use super::tokens::TOKEN_TTL_MS_MAX;
use super::view::Applied;
use super::{Site, members};
use crate::codec::{Malformed, Reader, put_bytes, put_varint};

/// The most access tokens that a site keeps.
pub const ACCESS_MAX: usize = 64;

/// How much somebody may ask: each role includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessRole {
    /// Read.
    Read,
    /// Add counts.
    Count,
    /// Change members, tokens, settings and the clock.
    Admin,
}

impl AccessRole {
    /// All of them.
    pub const ALL: [AccessRole; 3] = [AccessRole::Read, AccessRole::Count, AccessRole::Admin];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            AccessRole::Read => "read",
            AccessRole::Count => "count",
            AccessRole::Admin => "admin",
        }
    }
}

impl fmt::Display for AccessRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// SHA-256 of a token's 128 random bits: from it nobody finds them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccessHash(pub [u8; 32]);

impl fmt::Debug for AccessHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessHash(***)")
    }
}

/// A token as the box that made it tells the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAccess {
    /// By which people know it: as the name of a box.
    pub name: String,
    /// What its holder may do.
    pub role: AccessRole,
    /// By it the token is recognised.
    pub hash: AccessHash,
    /// How long it is good, in the site's elapsed time; `None`: until it is revoked.
    pub ttl_ms: Option<u64>,
    /// The box that made it.
    pub made_by: NodeId,
}

/// A change of the access tokens that somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessChange {
    /// Another token.
    Create(NewAccess),
    /// The token of this name is not good any more.
    Revoke(String),
}

/// A token that the site knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRecord {
    /// By which people know it.
    pub name: String,
    /// What its holder may do.
    pub role: AccessRole,
    /// By it the token is recognised.
    pub hash: AccessHash,
    /// Until when it is good; `None`: until it is revoked.
    pub ends: Option<Elapsed>,
    /// The box that made it.
    pub made_by: NodeId,
}

impl AccessRecord {
    fn is_good(&self, now: Elapsed) -> bool {
        self.ends.is_none_or(|ends| now < ends)
    }
}

/// Why a change of the access tokens was refused; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessRefused {
    /// As many as there may be.
    #[error("a site keeps at most {ACCESS_MAX} access tokens; revoke one first (tallyd access list)")]
    TooMany,
    /// One of that name is there.
    #[error(
        "the site has an access token of this name already; choose another name, or revoke that one first"
    )]
    NameTaken,
    /// Nothing to be revoked.
    #[error("the site has no access token of this name; `tallyd access list` lists them")]
    NoSuchName,
}

impl Site {
    /// The access tokens that are good at the site's time as applied here.
    pub fn access_tokens(&self) -> impl Iterator<Item = &AccessRecord> {
        self.access.good(self.stamp.elapsed)
    }

    /// The access token of that hash, if it is good.
    #[must_use]
    pub fn access_token(&self, hash: &AccessHash) -> Option<&AccessRecord> {
        self.access_tokens().find(|token| token.hash == *hash)
    }

    pub(super) fn apply_access(&mut self, nonce: u64, change: AccessChange) -> Applied {
        let changed = self.access.change(change, self.stamp.elapsed, self.digest);
        self.digest = changed.unwrap_or(self.digest);
        Applied::Access { nonce, result: changed.map(|_| ()) }
    }

    /// Tokens that have ended are forgotten.
    pub(super) fn expire_access(&mut self) {
        if self.level >= Level::FIVE {
            self.digest = self.access.expire(self.stamp.elapsed, self.digest);
        }
    }
}

/// The access tokens: replicated state, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AccessTokens {
    list: Vec<AccessRecord>,
}

impl AccessTokens {
    /// Those that are good now.
    pub(super) fn good(&self, now: Elapsed) -> impl Iterator<Item = &AccessRecord> {
        self.list.iter().filter(move |token| token.is_good(now))
    }

    pub(super) fn change(
        &mut self,
        change: AccessChange,
        now: Elapsed,
        digest: u64,
    ) -> Result<u64, AccessRefused> {
        match change {
            AccessChange::Create(new) => self.create(new, now, digest),
            AccessChange::Revoke(name) => {
                let place = self.list.iter().position(|token| token.name == name);
                let place = place.ok_or(AccessRefused::NoSuchName)?;
                self.list.remove(place);
                Ok(mix_bytes(digest, name.as_bytes()))
            }
        }
    }

    fn create(&mut self, new: NewAccess, now: Elapsed, digest: u64) -> Result<u64, AccessRefused> {
        if self.good(now).any(|token| token.name == new.name) {
            return Err(AccessRefused::NameTaken);
        }
        if self.good(now).count() >= ACCESS_MAX {
            return Err(AccessRefused::TooMany);
        }
        let digest = self.expire(now, digest);
        let NewAccess { name, role, hash, ttl_ms, made_by } = new;
        let ends = ttl_ms.map(|ttl_ms| Elapsed(now.0.saturating_add(ttl_ms)));
        let record = AccessRecord { name, role, hash, ends, made_by };
        let mut bytes = Vec::with_capacity(96);
        put_record(&mut bytes, &record);
        self.list.push(record);
        Ok(mix_bytes(digest, &bytes))
    }

    /// Forgets those that have ended.
    pub(super) fn expire(&mut self, now: Elapsed, digest: u64) -> u64 {
        let mut digest = digest;
        for ended in self.list.extract_if(.., |token| !token.is_good(now)) {
            digest = mix_bytes(digest, ended.name.as_bytes());
        }
        digest
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.list.len() as u64);
        for token in &self.list {
            put_record(out, token);
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<AccessTokens, Malformed> {
        let count = reader.varint()?;
        if count > ACCESS_MAX as u64 {
            return Err(Malformed);
        }
        let list = (0..count).map(|_| read_record(reader)).collect::<Result<Vec<_>, Malformed>>()?;
        let twice = |place: usize| list[..place].iter().any(|token| token.name == list[place].name);
        if (0..list.len()).any(twice) { Err(Malformed) } else { Ok(AccessTokens { list }) }
    }
}

fn put_record(out: &mut Vec<u8>, token: &AccessRecord) {
    put_head(out, &token.name, token.role, &token.hash, token.made_by);
    put_span(out, token.ends.map(|ends| ends.0));
}

fn read_record(reader: &mut Reader<'_>) -> Result<AccessRecord, Malformed> {
    let (name, role, hash, made_by) = read_head(reader)?;
    let ends = read_span(reader)?.map(Elapsed);
    Ok(AccessRecord { name, role, hash, ends, made_by })
}

fn put_head(out: &mut Vec<u8>, name: &str, role: AccessRole, hash: &AccessHash, made_by: NodeId) {
    put_bytes(out, name.as_bytes());
    out.push(role as u8);
    out.extend_from_slice(&hash.0);
    put_varint(out, made_by.0);
}

fn read_head(reader: &mut Reader<'_>) -> Result<(String, AccessRole, AccessHash, NodeId), Malformed> {
    let name = read_name(reader)?;
    let role = AccessRole::ALL.get(usize::from(reader.u8()?)).copied().ok_or(Malformed)?;
    Ok((name, role, AccessHash(reader.array()?), NodeId(reader.varint()?)))
}

fn put_span(out: &mut Vec<u8>, span: Option<u64>) {
    out.push(u8::from(span.is_some()));
    if let Some(span) = span {
        put_varint(out, span);
    }
}

fn read_span(reader: &mut Reader<'_>) -> Result<Option<u64>, Malformed> {
    Ok(if reader.bool()? { Some(reader.varint()?) } else { None })
}

fn read_name(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    let name = reader.text()?;
    if members::is_name(name) { Ok(name.to_owned()) } else { Err(Malformed) }
}

const CREATE: u8 = 0;
const REVOKE: u8 = 1;

pub(super) fn put_change(out: &mut Vec<u8>, change: &AccessChange) {
    match change {
        AccessChange::Create(new) => {
            out.push(CREATE);
            put_head(out, &new.name, new.role, &new.hash, new.made_by);
            put_span(out, new.ttl_ms);
        }
        AccessChange::Revoke(name) => {
            out.push(REVOKE);
            put_bytes(out, name.as_bytes());
        }
    }
}

pub(super) fn read_change(reader: &mut Reader<'_>) -> Result<AccessChange, Malformed> {
    match reader.u8()? {
        CREATE => {
            let (name, role, hash, made_by) = read_head(reader)?;
            let ttl_ms = read_span(reader)?;
            if ttl_ms.is_some_and(|ttl_ms| ttl_ms > TOKEN_TTL_MS_MAX) {
                return Err(Malformed);
            }
            Ok(AccessChange::Create(NewAccess { name, role, hash, ttl_ms, made_by }))
        }
        REVOKE => Ok(AccessChange::Revoke(read_name(reader)?)),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
