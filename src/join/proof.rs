//! What both ends sign: the connection that they share, and who they are.

use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use ring::{digest, hmac};
use tally_core::id::KeyHash;

use super::frames::{Fixed, SIGNATURE_BYTES};
use super::token::Token;
use crate::site::SiteKey;

/// Bytes of the TLS exporter that both ends see.
pub const EXPORTER_BYTES: usize = 32;
/// Its label.
pub(crate) const EXPORTER_LABEL: &[u8] = b"EXPORTER-tally-join-1";

/// The SubjectPublicKeyInfo of an Ed25519 key, but for the key (RFC 8410).
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The hash by which the site knows an Ed25519 key.
pub(crate) fn hash_of_ed25519(key: &[u8; 32]) -> KeyHash {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&ED25519_SPKI);
    context.update(key);
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    KeyHash(hash)
}

/// What the proofs of one exchange are about.
#[derive(Clone, Copy, Debug)]
pub struct Proofs {
    /// The exporter of the connection's TLS session.
    pub exporter: [u8; EXPORTER_BYTES],
    /// The key of the box of the site.
    pub site: KeyHash,
    /// The key of the joiner.
    pub joiner: KeyHash,
}

impl Proofs {
    fn site_message(&self) -> Vec<u8> {
        [&b"site"[..], &self.exporter, &self.site.0, &self.joiner.0].concat()
    }

    fn join_message(&self, name: &str, address: Option<&str>) -> Vec<u8> {
        let address = address.unwrap_or_default();
        // Their lengths keep what is signed for one from being taken for the other.
        let lengths = [name.len() as u16, address.len() as u16].map(u16::to_be_bytes).concat();
        [
            &b"join"[..],
            &self.exporter,
            &self.site.0,
            &self.joiner.0,
            &lengths,
            name.as_bytes(),
            address.as_bytes(),
        ]
        .concat()
    }

    fn own_message(&self) -> Vec<u8> {
        [&b"mine"[..], &self.exporter].concat()
    }

    /// The site proves that it knows the token.
    #[must_use]
    pub fn by_site(&self, key: &SiteKey) -> Fixed<32> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key.0);
        let mut proof = [0; 32];
        proof.copy_from_slice(hmac::sign(&key, &self.site_message()).as_ref());
        Fixed(proof)
    }

    /// Whether the site knows it.
    #[must_use]
    pub fn is_by_site(&self, token: &Token, proof: &Fixed<32>) -> bool {
        hmac::verify(&token.hmac(), &self.site_message(), &proof.0).is_ok()
    }

    /// The joiner proves that it holds the token.
    #[must_use]
    pub fn by_token(&self, token: &Token, name: &str, address: Option<&str>) -> Fixed<SIGNATURE_BYTES> {
        signed(&token.join_pair(), &self.join_message(name, address))
    }

    /// Whether it does.
    #[must_use]
    pub fn is_by_token(
        &self,
        public: &[u8; 32],
        name: &str,
        address: Option<&str>,
        proof: &Fixed<SIGNATURE_BYTES>,
    ) -> bool {
        UnparsedPublicKey::new(&ED25519, public).verify(&self.join_message(name, address), &proof.0).is_ok()
    }

    /// The joiner proves that its key is its own.
    #[must_use]
    pub fn by_key(&self, key: &Ed25519KeyPair) -> Fixed<SIGNATURE_BYTES> {
        signed(key, &self.own_message())
    }

    /// Whether it is.
    #[must_use]
    pub fn is_by_key(&self, public: &[u8; 32], proof: &Fixed<SIGNATURE_BYTES>) -> bool {
        UnparsedPublicKey::new(&ED25519, public).verify(&self.own_message(), &proof.0).is_ok()
    }
}

fn signed(key: &Ed25519KeyPair, message: &[u8]) -> Fixed<SIGNATURE_BYTES> {
    let mut signature = [0; SIGNATURE_BYTES];
    signature.copy_from_slice(key.sign(message).as_ref());
    Fixed(signature)
}
