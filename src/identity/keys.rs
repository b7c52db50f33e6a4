//! A box's private key and certificate, and what is derived from them.

use std::fmt;
use std::path::Path;

use ring::signature::{Ed25519KeyPair, KeyPair};
use ring::{digest, hkdf};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ParsedCertificate;
use tally_core::id::KeyHash;

use super::IdentityError;
use super::files::{NODE_CERTIFICATE, NODE_KEY, invalid, read};

const REMEDY: &str = "copy the box's files again from the directory that `tallyd provision` made";

/// The private key of this box and its certificate. Its `Debug` shows neither.
pub struct Keys {
    private: PrivatePkcs8KeyDer<'static>,
    certificate: CertificateDer<'static>,
    hash: KeyHash,
}

impl Keys {
    /// Reads `node.key` and `node.crt` of a data directory and checks that they belong together.
    ///
    /// # Errors
    /// A file cannot be read, is not what it has to be, or the two do not belong together.
    pub fn load(dir: &Path) -> Result<Keys, IdentityError> {
        let (key_path, certificate_path) = (dir.join(NODE_KEY), dir.join(NODE_CERTIFICATE));
        warn_if_others_can_read(&key_path);
        let key = read(&key_path, REMEDY)?;
        let certificate = read(&certificate_path, REMEDY)?;
        let private = PrivatePkcs8KeyDer::from_pem_slice(&key)
            .map_err(|_| invalid(&key_path, "is not a private key in PEM (PKCS#8)", REMEDY))?;
        let certificate = CertificateDer::from_pem_slice(&certificate)
            .map_err(|_| invalid(&certificate_path, "is not a certificate in PEM", REMEDY))?;
        let hash = key_hash(&certificate)
            .ok_or_else(|| invalid(&certificate_path, "is not an X.509 certificate", REMEDY))?;
        let signer =
            rustls::crypto::ring::sign::any_supported_type(&PrivateKeyDer::from(private.clone_key()))
                .map_err(|_| invalid(&key_path, "is of an unsupported kind; use Ed25519", REMEDY))?;
        let own = signer.public_key().map(|key| hash_of(key.as_ref()));
        if own != Some(hash) {
            return Err(invalid(&certificate_path, "does not certify the key in node.key", REMEDY));
        }
        Ok(Keys { private, certificate, hash })
    }

    /// Its key pair and its public key, for what is signed outside of TLS; `None` for a key that is not Ed25519.
    pub(crate) fn ed25519(&self) -> Option<(Ed25519KeyPair, [u8; 32])> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(self.private.secret_pkcs8_der()).ok()?;
        let public = pair.public_key().as_ref().try_into().ok()?;
        Some((pair, public))
    }

    /// The hash of the public key, as members list it.
    pub const fn key_hash(&self) -> KeyHash {
        self.hash
    }

    /// The private key, for TLS.
    pub(crate) fn private(&self) -> PrivateKeyDer<'static> {
        self.private.clone_key().into()
    }

    /// The certificate, for TLS.
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// Derives a secret for one purpose (HKDF-SHA256 of the private key): the same in each incarnation of the box,
    /// unknown to everybody else, and of no help to find the key.
    pub(crate) fn derive(&self, purpose: &str) -> [u8; 32] {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tally/1 derived from a node key");
        let mut secret = [0; 32];
        salt.extract(self.private.secret_pkcs8_der())
            .expand(&[purpose.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut secret))
            .expect("32 bytes are what HKDF-SHA256 gives");
        secret
    }
}

impl Clone for Keys {
    fn clone(&self) -> Keys {
        Keys { private: self.private.clone_key(), certificate: self.certificate.clone(), hash: self.hash }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("key_hash", &self.key_hash()).finish_non_exhaustive()
    }
}

/// The hash of the public key in a certificate; `None` for what is no certificate. Neither its
/// dates and the signature are not checked.
pub fn key_hash(certificate: &CertificateDer<'_>) -> Option<KeyHash> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    Some(hash_of(parsed.subject_public_key_info().as_ref()))
}

/// The hash of a public key (SubjectPublicKeyInfo).
pub(super) fn hash_of(public_key: &[u8]) -> KeyHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, public_key).as_ref());
    KeyHash(hash)
}

fn warn_if_others_can_read(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    // A warning, not a refusal: some copies (a FAT stick) cannot keep modes.
    let mode = std::fs::metadata(path).map_or(0, |data| data.permissions().mode());
    if mode & 0o077 != 0 {
        tracing::warn!("{} can be read by users other than its owner: run chmod 600 on it", path.display());
    }
}
