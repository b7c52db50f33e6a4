//! The end of a box of the site, without I/O.

use tally_core::id::KeyHash;

use super::frames::{Ask, FromJoiner, FromSite, Hello, PROTOCOL, Reason, Refused, SiteHello, decode, encode};
use super::proof::{EXPORTER_BYTES, Proofs, hash_of_ed25519};
use crate::identity::{SiteId, check_address, is_name};
use crate::site::{Level, SiteKey, TokenId};

/// The longest text of a refusal, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// What the box says of itself and its site.
#[derive(Clone, Debug)]
pub struct SiteFacts {
    /// The site's name.
    pub site: String,
    /// Its random identity.
    pub site_id: SiteId,
    /// The feature level in force.
    pub level: Level,
    /// The hash of the box's own key.
    pub key: KeyHash,
    /// The box's own name.
    pub node: String,
}

/// A token as the site has it.
#[derive(Clone, Debug)]
pub struct KnownToken {
    /// By it the site proves itself.
    pub site_key: SiteKey,
    /// By it the joiner does.
    pub join_public: [u8; 32],
    /// Whom it replaces.
    pub name: Option<String>,
}

/// What the box does next.
#[derive(Debug, PartialEq, Eq)]
pub enum SiteStep {
    /// Send this and wait for the next frame.
    Send(Vec<u8>),
    /// Send this and close: the joiner is refused.
    Refuse(Vec<u8>, Reason),
    /// Dial the joiner and, if it answers under its key, ask the site.
    Asked(Asked),
}

/// What a joiner asks for, having proved that it holds the token and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// By which token.
    pub token: TokenId,
    /// The hash of its key.
    pub key: KeyHash,
    /// What it is to be called.
    pub name: String,
    /// Where it is reached; absent: from where it dials.
    pub address: Option<String>,
}

/// One exchange.
#[derive(Debug)]
pub struct SiteSide {
    facts: SiteFacts,
    exporter: [u8; EXPORTER_BYTES],
    state: State,
}

#[derive(Debug)]
enum State {
    Hello,
    Ask(Box<Greeted>),
    Over,
}

/// What is known of a joiner that has said hello.
#[derive(Debug)]
struct Greeted {
    token: TokenId,
    known: KnownToken,
    key: [u8; 32],
    proofs: Proofs,
}

impl SiteSide {
    /// Waits for the first frame.
    #[must_use]
    pub fn new(facts: SiteFacts, exporter: [u8; EXPORTER_BYTES]) -> SiteSide {
        SiteSide { facts, exporter, state: State::Hello }
    }

    /// A frame has come. `find`: the token of that name, if a box of that key may join by it.
    pub fn on_frame(
        &mut self,
        frame: &[u8],
        find: impl FnOnce(TokenId, KeyHash) -> Option<KnownToken>,
    ) -> SiteStep {
        let said = match decode::<FromJoiner>(frame) {
            Ok(said) => said,
            Err(why) => {
                return self.refuse(Reason::Malformed, &format!("this box cannot read what it said: {why}"));
            }
        };
        match (std::mem::replace(&mut self.state, State::Over), said) {
            (State::Hello, FromJoiner::Hello(hello)) => self.on_hello(&hello, find),
            (State::Ask(greeted), FromJoiner::Ask(ask)) => self.on_ask(&greeted, ask),
            _ => self.refuse(Reason::Malformed, "what it said is out of order"),
        }
    }

    fn on_hello(
        &mut self,
        hello: &Hello,
        find: impl FnOnce(TokenId, KeyHash) -> Option<KnownToken>,
    ) -> SiteStep {
        let (first, last) = hello.protocols;
        if !(first..=last).contains(&PROTOCOL) || hello.level < self.facts.level.get() {
            let text = format!(
                "{} runs release {}, at feature level {}, which is too far from this box's: install the same \
                 release on both",
                self.facts.node,
                env!("CARGO_PKG_VERSION"),
                self.facts.level
            );
            return self.refuse(Reason::Release, &text);
        }
        let (token, joiner) = (TokenId(hello.token.0), hash_of_ed25519(&hello.key.0));
        let Some(known) = find(token, joiner) else {
            return self.refuse(Reason::UnknownToken, "");
        };
        let proofs = Proofs { exporter: self.exporter, site: self.facts.key, joiner };
        let answer = FromSite::Site(SiteHello {
            proof: proofs.by_site(&known.site_key),
            site: self.facts.site.clone(),
            site_id: self.facts.site_id,
            level: self.facts.level.get(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            name: known.name.clone(),
        });
        self.state = State::Ask(Box::new(Greeted { token, known, key: hello.key.0, proofs }));
        SiteStep::Send(encode(&answer))
    }

    fn on_ask(&mut self, greeted: &Greeted, ask: Ask) -> SiteStep {
        let Greeted { token, known, key, proofs } = greeted;
        let Ask { name, address, holds_token, holds_key } = ask;
        let address_text = address.as_deref();
        let holds_both = proofs.is_by_token(&known.join_public, &name, address_text, &holds_token)
            && proofs.is_by_key(key, &holds_key);
        if !holds_both {
            return self
                .refuse(Reason::BadProof, "the proof does not fit: it does not hold the token, or its key");
        }
        if !is_name(&name) {
            return self.refuse(Reason::Malformed, "its name is not a name (1 to 32 of a-z 0-9 -)");
        }
        if let Some(Err(why)) = address_text.map(check_address) {
            return self.refuse(Reason::Malformed, &why);
        }
        SiteStep::Asked(Asked { token: *token, key: proofs.joiner, name, address })
    }

    fn refuse(&mut self, reason: Reason, text: &str) -> SiteStep {
        self.state = State::Over;
        SiteStep::Refuse(refused(reason, text), reason)
    }
}

/// The frame of a refusal.
pub(crate) fn refused(reason: Reason, text: &str) -> Vec<u8> {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    encode(&FromSite::Refused(Refused { reason, text: text[..end].to_owned() }))
}
