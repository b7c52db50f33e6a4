//! How a box becomes a member by a token: one entry, which any box may propose and all of them judge alike.

use tally_core::id::{KeyHash, NodeId};
use tally_core::time::Elapsed;

use super::Site;
use super::digest::mix_bytes;
use super::level::Level;
use super::members::{self, MemberRecord, MemberRefused, Members, Newcomer};
use super::tokens::{TokenChange, TokenId, TokenRecord, TokenRefused, Tokens};
use super::view::Applied;
use crate::codec::{Malformed, Reader, put_bytes};

/// A box that holds a token asks to become a member. Asked again under the same key it gets the same answer: its key is
/// the name of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// By which token.
    pub token: TokenId,
    /// The hash of its public key.
    pub key: KeyHash,
    /// What it is to be called, unless the token says that.
    pub name: String,
    /// HOST:PORT where the others reach it.
    pub address: String,
}

/// A box that is a member now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Its number.
    pub id: NodeId,
    /// In whose place.
    pub replaces: Option<NodeId>,
    /// It was a member already: nothing was changed.
    pub again: bool,
}

/// Why a box did not become a member; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefused {
    /// The site has no such token: it has ended, was revoked, or is another site's.
    #[error("the token is unknown: it has ended, was revoked, or is another site's")]
    UnknownToken,
    /// As many boxes as it is for have joined by it.
    #[error("the token is used up")]
    UsedUp,
    /// As for any change of the members.
    #[error(transparent)]
    Member(#[from] MemberRefused),
}

impl JoinRequest {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.token.0);
        out.extend_from_slice(&self.key.0);
        put_bytes(out, self.name.as_bytes());
        put_bytes(out, self.address.as_bytes());
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<JoinRequest, Malformed> {
        let (token, key) = (TokenId(reader.array()?), KeyHash(reader.array()?));
        let (name, address) = (reader.text()?.to_owned(), reader.text()?.to_owned());
        if !members::is_name(&name) || !members::is_address(&address) || address.is_empty() {
            return Err(Malformed);
        }
        Ok(JoinRequest { token, key, name, address })
    }
}

/// Judges a request; returns what came of it and the new digest.
pub(super) fn admit(
    members: &mut Members,
    tokens: &mut Tokens,
    request: JoinRequest,
    now: Elapsed,
    digest: u64,
) -> Result<(Joined, u64), JoinRefused> {
    let JoinRequest { token, key, name, address } = request;
    if let Some(known) = members.list().iter().find(|member| member.key == key) {
        let replaces = members.replaced_by(known.id);
        return Ok((Joined { id: known.id, replaces, again: true }, digest));
    }
    let found = tokens.find(token, now).ok_or(JoinRefused::UnknownToken)?;
    if found.uses == 0 {
        return Err(JoinRefused::UsedUp);
    }
    let (replaces, name) = match &found.replaces {
        Some((id, name)) => (Some(*id), name.clone()),
        None => (None, name),
    };
    let newcomer = Newcomer { key, name, address, role: found.role, replaces };
    let (id, replaces, digest) = members.join(newcomer, digest)?;
    let digest = mix_bytes(tokens.take_use(token, id, digest), &id.0.to_le_bytes());
    Ok((Joined { id, replaces, again: false }, digest))
}

/// Changes the tokens; returns the new digest.
pub(super) fn change_tokens(
    members: &Members,
    tokens: &mut Tokens,
    change: TokenChange,
    now: Elapsed,
    digest: u64,
) -> Result<u64, TokenRefused> {
    match change {
        TokenChange::Revoke(id) => tokens.revoke(id, digest),
        TokenChange::Create(new) => {
            let replaces = new.replaces.as_ref().map(|name| members.replaceable(name)).transpose()?;
            tokens.create(new, replaces, now, digest)
        }
    }
}

impl Site {
    /// The tokens that the site keeps, also those that have ended since its last tick.
    #[must_use]
    pub fn tokens(&self) -> &[TokenRecord] {
        self.tokens.list()
    }

    /// The token of that name, if it is good at the site's time as applied here.
    #[must_use]
    pub fn token(&self, id: TokenId) -> Option<&TokenRecord> {
        self.tokens.find(id, self.stamp.elapsed)
    }

    /// The members whose vote waits until it helps: those who joined by a token and were not promoted by an operator.
    pub fn patient_members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.patient()
    }

    /// Who takes whose place, for as long as the old one is in the configuration in force.
    pub fn replacements(&self) -> impl Iterator<Item = (NodeId, NodeId)> + '_ {
        self.members.replacements()
    }

    /// The member of that key.
    #[must_use]
    pub fn member_of_key(&self, key: KeyHash) -> Option<&MemberRecord> {
        self.members.list().iter().find(|member| member.key == key)
    }

    pub(super) fn apply_token(&mut self, nonce: u64, change: TokenChange) -> Applied {
        let now = self.stamp.elapsed;
        let changed = change_tokens(&self.members, &mut self.tokens, change, now, self.digest);
        self.digest = changed.unwrap_or(self.digest);
        Applied::Token { nonce, result: changed.map(|_| ()) }
    }

    pub(super) fn apply_join(&mut self, request: JoinRequest) -> Applied {
        let (key, now) = (request.key, self.stamp.elapsed);
        let joined = admit(&mut self.members, &mut self.tokens, request, now, self.digest);
        if let Ok((_, digest)) = &joined {
            self.digest = *digest;
        }
        Applied::Joined { key, result: joined.map(|(joined, _)| joined) }
    }

    /// Tokens that have ended are forgotten.
    pub(super) fn expire_tokens(&mut self) {
        if self.level >= Level::THREE {
            self.digest = self.tokens.expire(self.stamp.elapsed, self.digest);
        }
    }
}
