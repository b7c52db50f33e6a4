//! The end of a box that joins, without I/O.

use ring::signature::Ed25519KeyPair;
use tally_core::id::KeyHash;
use tally_core::raft::MemberRole;

use super::frames::{
    Ask, Fixed, FromJoiner, FromSite, Hello, PROTOCOL, Reason, Refused, SiteHello, Welcome, decode, encode,
};
use super::proof::{EXPORTER_BYTES, Proofs, hash_of_ed25519};
use super::token::Token;
use crate::identity::{Identity, MemberRecord};
use crate::site::Level;

/// What a box that joins says of itself.
#[derive(Clone, Debug)]
pub struct Applicant {
    /// The token that it holds.
    pub token: Token,
    /// Its public key.
    pub key: [u8; 32],
    /// What it would be called.
    pub name: String,
    /// Whether an operator or a configuration chose that name.
    pub is_name_chosen: bool,
    /// HOST:PORT where the others reach it; absent: from where it dials.
    pub address: Option<String>,
}

/// What the joiner does next.
#[derive(Debug)]
pub enum JoinerStep {
    /// Send this and wait for the next frame.
    Send(Vec<u8>),
    /// It is a member: this is who it is.
    Joined(Box<Identity>, Option<u64>),
}

/// Why the joiner goes no further with this exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinerError {
    /// The box at the other end has proved nothing.
    NotTheSite,
    /// What it said cannot be read, or is out of order.
    Malformed(String),
    /// The releases are too far apart.
    Release(String),
    /// The token is for another name than the one that was chosen.
    OtherName(String),
    /// The site said no.
    Refused(Refused),
}

/// One exchange.
#[derive(Debug)]
pub struct Joiner<'a> {
    applicant: Applicant,
    pair: &'a Ed25519KeyPair,
    proofs: Proofs,
    state: State,
    asked: bool,
}

#[derive(Debug)]
enum State {
    Site,
    Welcome(SiteHello),
    Over,
}

impl<'a> Joiner<'a> {
    /// Begins an exchange with the box of this key; the frame is to be sent.
    #[must_use]
    pub fn new(
        applicant: Applicant,
        pair: &'a Ed25519KeyPair,
        exporter: [u8; EXPORTER_BYTES],
        site: KeyHash,
    ) -> (Joiner<'a>, Vec<u8>) {
        let proofs = Proofs { exporter, site, joiner: hash_of_ed25519(&applicant.key) };
        let hello = FromJoiner::Hello(Hello {
            protocols: (PROTOCOL, PROTOCOL),
            level: Level::MAX.get(),
            token: Fixed(applicant.token.id().0),
            key: Fixed(applicant.key),
        });
        (Joiner { applicant, pair, proofs, state: State::Site, asked: false }, encode(&hello))
    }

    /// Whether the request has gone off: the box may be a member whatever is heard of it.
    #[must_use]
    pub const fn has_asked(&self) -> bool {
        self.asked
    }

    /// A frame has come.
    ///
    /// # Errors
    /// Why this exchange leads to nothing.
    pub fn on_frame(&mut self, frame: &[u8]) -> Result<JoinerStep, JoinerError> {
        let said = decode::<FromSite>(frame).map_err(JoinerError::Malformed)?;
        match (std::mem::replace(&mut self.state, State::Over), said) {
            (_, FromSite::Refused(refused)) => Err(JoinerError::Refused(refused)),
            (State::Site, FromSite::Site(site)) => self.on_site(site),
            (State::Welcome(site), FromSite::Welcome(welcome)) => self.on_welcome(&site, welcome),
            _ => Err(JoinerError::Malformed("an answer that was not asked for".to_owned())),
        }
    }

    fn on_site(&mut self, site: SiteHello) -> Result<JoinerStep, JoinerError> {
        if !self.proofs.is_by_site(&self.applicant.token, &site.proof) {
            return Err(JoinerError::NotTheSite);
        }
        if site.level > Level::MAX.get() {
            return Err(JoinerError::Release(site.release));
        }
        if let Some(name) = &site.name {
            if self.applicant.is_name_chosen && *name != self.applicant.name {
                return Err(JoinerError::OtherName(name.clone()));
            }
            self.applicant.name.clone_from(name);
        }
        let Applicant { token, name, address, .. } = &self.applicant;
        let ask = FromJoiner::Ask(Ask {
            holds_token: self.proofs.by_token(token, name, address.as_deref()),
            holds_key: self.proofs.by_key(self.pair),
            name: name.clone(),
            address: address.clone(),
        });
        self.state = State::Welcome(site);
        self.asked = true;
        Ok(JoinerStep::Send(encode(&ask)))
    }

    fn on_welcome(&self, site: &SiteHello, welcome: Welcome) -> Result<JoinerStep, JoinerError> {
        let Welcome { number, replaces, members, window_ms, level } = welcome;
        if !members.iter().any(|member| member.key == self.proofs.site) {
            return Err(JoinerError::Malformed("the box that answered is not among the members".to_owned()));
        }
        let me = |member: &MemberRecord| member.id.0 == number && member.key == self.proofs.joiner;
        if !members.iter().any(me) {
            return Err(JoinerError::Malformed("this box is not among the members".to_owned()));
        }
        // A box follows in silence until the site's leader says more; a witness is no matter of one that does not vote.
        let known =
            members.into_iter().filter(|member| member.role != MemberRole::Witness).map(|mut member| {
                member.role = if me(&member) { MemberRole::Observer } else { MemberRole::Voter };
                member
            });
        let identity = Identity {
            site: site.site.clone(),
            site_id: site.site_id,
            node: number,
            window_ms,
            level,
            members: known.collect(),
        };
        identity.check().map_err(JoinerError::Malformed)?;
        Ok(JoinerStep::Joined(Box::new(identity), replaces))
    }
}

/// Whether another try may lead to something.
#[must_use]
pub const fn may_be_tried_again(reason: Reason) -> bool {
    matches!(reason, Reason::NotNow | Reason::Unknown)
}
