//! Join tokens: who may become a member, how often, until when. The site keeps what it takes to recognise a token and
//! to prove itself to who holds it, never the token.

use std::fmt;

use tally_core::id::NodeId;
use tally_core::raft::MemberRole;
use tally_core::time::Elapsed;

use super::digest::mix_bytes;
use super::members;
use crate::codec::{Malformed, Reader, put_bytes, put_varint};

/// The most tokens that a site keeps.
pub const TOKENS_MAX: usize = 64;
/// The most uses of one token.
pub const TOKEN_USES_MAX: u32 = 64;
/// The longest life of a token: a year, in milliseconds.
pub const TOKEN_TTL_MS_MAX: u64 = 366 * 86_400_000;

/// Names a token in lists and logs; derived from its secret, and of no help to find that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; 8]);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl TokenId {
    /// Reads 16 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<TokenId> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.then(|| u64::from_str_radix(text, 16).ok())?.map(|number| TokenId(number.to_be_bytes()))
    }
}

/// The key by which the site proves to a joiner that it knows the token. No text shows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SiteKey(pub [u8; 32]);

impl fmt::Debug for SiteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SiteKey(***)")
    }
}

/// A token as the box that made it tells the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// Its name.
    pub id: TokenId,
    /// By it the site proves itself.
    pub site_key: SiteKey,
    /// The public half of the Ed25519 key that a joiner holds.
    pub join_public: [u8; 32],
    /// What a box that joins by it is to be: a voter or an observer.
    pub role: MemberRole,
    /// How many boxes may join by it.
    pub uses: u32,
    /// How long it is good, in the site's elapsed time.
    pub ttl_ms: u64,
    /// The member whose place its holder takes.
    pub replaces: Option<String>,
    /// The box that made it.
    pub made_by: NodeId,
}

/// A change of the tokens that somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenChange {
    /// Another token.
    Create(NewToken),
    /// A token is not good any more.
    Revoke(TokenId),
}

/// A token that the site knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its name.
    pub id: TokenId,
    /// By it the site proves itself.
    pub site_key: SiteKey,
    /// The public half of the Ed25519 key that a joiner holds.
    pub join_public: [u8; 32],
    /// What a box that joins by it is to be.
    pub role: MemberRole,
    /// How many boxes may still join by it.
    pub uses: u32,
    /// Until when it is good.
    pub ends: Elapsed,
    /// The number and the name of the member whose place its holder takes.
    pub replaces: Option<(NodeId, String)>,
    /// The box that made it.
    pub made_by: NodeId,
    /// Who joined by it, in that order.
    pub used_by: Vec<NodeId>,
}

/// Why a change of the tokens was refused; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// As many as there may be.
    #[error("a site keeps at most 64 tokens that are good; revoke one first (tallyd token list)")]
    TooMany,
    /// A token of that name is there.
    #[error("the site has a token of this id already; make another")]
    Known,
    /// Nobody to be replaced.
    #[error("the site has no member of this name to be replaced; `tallyd members` lists them")]
    NoSuchMember,
    /// A witness is not replaced by a box.
    #[error(
        "a witness cannot be replaced by a token; use `tallyd provision --extend DIR --replace --witness`"
    )]
    Witness,
    /// Nothing to be revoked.
    #[error("the site has no token of this id; `tallyd token list` lists them")]
    NoSuchToken,
}

/// The tokens: replicated state, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tokens {
    list: Vec<TokenRecord>,
}

impl Tokens {
    pub(super) fn list(&self) -> &[TokenRecord] {
        &self.list
    }

    /// The token of that name, if it is good now.
    pub(super) fn find(&self, id: TokenId, now: Elapsed) -> Option<&TokenRecord> {
        self.list.iter().find(|token| token.id == id && now < token.ends)
    }

    pub(super) fn revoke(&mut self, id: TokenId, digest: u64) -> Result<u64, TokenRefused> {
        let place = self.list.iter().position(|token| token.id == id).ok_or(TokenRefused::NoSuchToken)?;
        self.list.remove(place);
        Ok(mix_bytes(digest, &id.0))
    }

    /// Adds a token that is good from now on. `replaces`: whose place it is for.
    pub(super) fn create(
        &mut self,
        new: NewToken,
        replaces: Option<(NodeId, String)>,
        now: Elapsed,
        digest: u64,
    ) -> Result<u64, TokenRefused> {
        if self.list.iter().any(|token| token.id == new.id) {
            return Err(TokenRefused::Known);
        }
        let mut digest = digest;
        if self.list.len() >= TOKENS_MAX {
            // Kept only for those whose answer was lost.
            let used_up = self.list.iter().position(|token| token.uses == 0).ok_or(TokenRefused::TooMany)?;
            digest = mix_bytes(digest, &self.list.remove(used_up).id.0);
        }
        let NewToken { id, site_key, join_public, role, uses, ttl_ms, made_by, replaces: _ } = new;
        let ends = Elapsed(now.0.saturating_add(ttl_ms));
        let used_by = Vec::new();
        let record = TokenRecord { id, site_key, join_public, role, uses, ends, replaces, made_by, used_by };
        let digest = mix_record(digest, &record);
        self.list.push(record);
        Ok(digest)
    }

    /// Somebody has joined by it.
    pub(super) fn take_use(&mut self, id: TokenId, by: NodeId, digest: u64) -> u64 {
        let Some(token) = self.list.iter_mut().find(|token| token.id == id) else { return digest };
        token.uses = token.uses.saturating_sub(1);
        token.used_by.push(by);
        mix_record(digest, token)
    }

    /// Forgets those that have ended.
    pub(super) fn expire(&mut self, now: Elapsed, digest: u64) -> u64 {
        let mut digest = digest;
        for ended in self.list.extract_if(.., |token| token.ends <= now) {
            digest = mix_bytes(digest, &ended.id.0);
        }
        digest
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.list.len() as u64);
        for token in &self.list {
            put_record(out, token);
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Tokens, Malformed> {
        let count = reader.varint()?;
        if count > TOKENS_MAX as u64 {
            return Err(Malformed);
        }
        let list = (0..count).map(|_| read_record(reader)).collect::<Result<Vec<_>, Malformed>>()?;
        let twice = |place: usize| list[..place].iter().any(|token| token.id == list[place].id);
        if (0..list.len()).any(twice) { Err(Malformed) } else { Ok(Tokens { list }) }
    }
}

fn mix_record(digest: u64, token: &TokenRecord) -> u64 {
    let mut bytes = Vec::with_capacity(160);
    put_record(&mut bytes, token);
    mix_bytes(digest, &bytes)
}

fn put_record(out: &mut Vec<u8>, token: &TokenRecord) {
    out.extend_from_slice(&token.id.0);
    out.extend_from_slice(&token.site_key.0);
    out.extend_from_slice(&token.join_public);
    out.push(members::role_code(token.role));
    put_varint(out, token.uses.into());
    put_varint(out, token.ends.0);
    out.push(u8::from(token.replaces.is_some()));
    if let Some((id, name)) = &token.replaces {
        put_varint(out, id.0);
        put_bytes(out, name.as_bytes());
    }
    put_varint(out, token.made_by.0);
    put_varint(out, token.used_by.len() as u64);
    for id in &token.used_by {
        put_varint(out, id.0);
    }
}

fn read_record(reader: &mut Reader<'_>) -> Result<TokenRecord, Malformed> {
    let (id, site_key) = (TokenId(reader.array()?), SiteKey(reader.array()?));
    let (join_public, role) = (reader.array()?, members::read_role(reader)?);
    let (uses, ends) = (read_uses(reader)?, Elapsed(reader.varint()?));
    let replaces = match reader.bool()? {
        true => Some((NodeId(reader.varint()?), read_name(reader)?)),
        false => None,
    };
    let (made_by, used) = (NodeId(reader.varint()?), read_uses(reader)?);
    let used_by = (0..used).map(|_| reader.varint().map(NodeId)).collect::<Result<Vec<_>, Malformed>>()?;
    if role == MemberRole::Witness {
        return Err(Malformed);
    }
    Ok(TokenRecord { id, site_key, join_public, role, uses, ends, replaces, made_by, used_by })
}

fn read_uses(reader: &mut Reader<'_>) -> Result<u32, Malformed> {
    u32::try_from(reader.varint()?).ok().filter(|uses| *uses <= TOKEN_USES_MAX).ok_or(Malformed)
}

fn read_name(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    let name = reader.text()?;
    if members::is_name(name) { Ok(name.to_owned()) } else { Err(Malformed) }
}

const CREATE: u8 = 0;
const REVOKE: u8 = 1;

pub(super) fn put_change(out: &mut Vec<u8>, change: &TokenChange) {
    match change {
        TokenChange::Create(new) => {
            out.push(CREATE);
            out.extend_from_slice(&new.id.0);
            out.extend_from_slice(&new.site_key.0);
            out.extend_from_slice(&new.join_public);
            out.push(members::role_code(new.role));
            put_varint(out, new.uses.into());
            put_varint(out, new.ttl_ms);
            put_varint(out, new.made_by.0);
            out.push(u8::from(new.replaces.is_some()));
            if let Some(name) = &new.replaces {
                put_bytes(out, name.as_bytes());
            }
        }
        TokenChange::Revoke(id) => {
            out.push(REVOKE);
            out.extend_from_slice(&id.0);
        }
    }
}

pub(super) fn read_change(reader: &mut Reader<'_>) -> Result<TokenChange, Malformed> {
    match reader.u8()? {
        CREATE => {
            let (id, site_key) = (TokenId(reader.array()?), SiteKey(reader.array()?));
            let (join_public, role) = (reader.array()?, members::read_role(reader)?);
            let (uses, ttl_ms, made_by) = (read_uses(reader)?, reader.varint()?, NodeId(reader.varint()?));
            let replaces = if reader.bool()? { Some(read_name(reader)?) } else { None };
            let new = NewToken { id, site_key, join_public, role, uses, ttl_ms, replaces, made_by };
            if new.uses == 0 || new.ttl_ms > TOKEN_TTL_MS_MAX || new.role == MemberRole::Witness {
                return Err(Malformed);
            }
            Ok(TokenChange::Create(new))
        }
        REVOKE => Ok(TokenChange::Revoke(TokenId(reader.array()?))),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
