//! The site's own certificate authority: it certifies the boxes' keys.

use std::fmt;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SerialNumber,
};
use tally_core::id::KeyHash;

use super::files::{CA_CERTIFICATE, CA_KEY, NODE_CERTIFICATE, NODE_KEY, invalid, read, write_file};
use super::keys::hash_of;
use super::{IdentityError, SiteId};
use crate::random;

const REMEDY: &str = "name the directory that `tallyd provision --out` made; it has ca.key and ca.crt";

/// The authority of a site, with its private key. Its `Debug` does not show the key.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    certificate_pem: String,
}

/// The credentials of a box: its new private key and the certificate for it.
pub struct Issued {
    /// The hash of the public key, as members list it.
    pub key_hash: KeyHash,
    private_pem: String,
    certificate_pem: String,
    /// None for a key whose certificate is its own.
    authority_pem: Option<String>,
}

impl Authority {
    /// Makes a new authority for a site.
    ///
    /// # Errors
    /// Keys cannot be made.
    pub fn found(site: &str, site_id: SiteId) -> Result<Authority, IdentityError> {
        let issuer = issuer(site, site_id, new_key()?)?;
        Ok(Authority { certificate_pem: issuer.pem(), issuer })
    }

    /// Reads `ca.key` and `ca.crt` from where [`Authority::save`] wrote them.
    ///
    /// # Errors
    /// A file cannot be read, or is not what it has to be.
    pub fn load(dir: &Path, site: &str, site_id: SiteId) -> Result<Authority, IdentityError> {
        let (key_path, certificate_path) = (dir.join(CA_KEY), dir.join(CA_CERTIFICATE));
        let key = String::from_utf8_lossy(&read(&key_path, REMEDY)?).into_owned();
        let certificate_pem = String::from_utf8_lossy(&read(&certificate_path, REMEDY)?).into_owned();
        let key = KeyPair::from_pem(&key)
            .map_err(|_| invalid(&key_path, "is not a private key in PEM (PKCS#8)", REMEDY))?;
        Ok(Authority { issuer: issuer(site, site_id, key)?, certificate_pem })
    }

    /// Makes a key for a box and certifies it.
    ///
    /// # Errors
    /// Keys cannot be made.
    pub fn issue(&self, node: &str, site_id: SiteId) -> Result<Issued, IdentityError> {
        let key = new_key()?;
        let mut params = params(node)?;
        params.subject_alt_names =
            CertificateParams::new(vec![server_name(site_id)]).map_err(crypto)?.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(crypto)?;
        Ok(Issued {
            key_hash: hash_of(&key.subject_public_key_info()),
            private_pem: key.serialize_pem(),
            certificate_pem: certificate.pem(),
            authority_pem: Some(self.certificate_pem.clone()),
        })
    }

    /// Writes `ca.key` and `ca.crt` into a directory.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        write_file(&dir.join(CA_KEY), self.issuer.key().serialize_pem().as_bytes(), 0o600)?;
        write_file(&dir.join(CA_CERTIFICATE), self.certificate_pem.as_bytes(), 0o644)
    }
}

fn issuer(
    site: &str,
    site_id: SiteId,
    key: KeyPair,
) -> Result<CertifiedIssuer<'static, KeyPair>, IdentityError> {
    let mut params = params(&format!("tally site {site} {site_id}"))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, key).map_err(crypto)
}

impl Issued {
    /// Makes a key for a box, and a certificate that carries it and is signed by it: only the key counts.
    ///
    /// # Errors
    /// Keys cannot be made.
    pub fn self_signed(node: &str) -> Result<Issued, IdentityError> {
        let key = new_key()?;
        let mut params = params(node)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).map_err(crypto)?;
        Ok(Issued {
            key_hash: hash_of(&key.subject_public_key_info()),
            private_pem: key.serialize_pem(),
            certificate_pem: certificate.pem(),
            authority_pem: None,
        })
    }

    /// Writes `node.key`, `node.crt` and, where there is an authority, `ca.crt` into a directory.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        write_file(&dir.join(NODE_KEY), self.private_pem.as_bytes(), 0o600)?;
        write_file(&dir.join(NODE_CERTIFICATE), self.certificate_pem.as_bytes(), 0o644)?;
        match &self.authority_pem {
            Some(authority) => write_file(&dir.join(CA_CERTIFICATE), authority.as_bytes(), 0o644),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("key_hash", &self.key_hash).finish_non_exhaustive()
    }
}

/// The name of a box of the site in TLS, which distinguishes sites before any key is
/// seen. (The suffix keeps a site id of digits only from being taken for an address.)
pub(crate) fn server_name(site_id: SiteId) -> String {
    format!("{site_id}.tally")
}

/// Makes an Ed25519 key: small, fast on boards without special instructions, and signing needs no randomness,
/// which a board may lack just after boot.
fn new_key() -> Result<KeyPair, IdentityError> {
    KeyPair::generate_for(&PKCS_ED25519).map_err(crypto)
}

fn params(common_name: &str) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    // Boxes have no clock to trust and provisioning may run on one of them; the pinned key decides.
    // RFC 5280, 4.1.2.5: 9999-12-31 is for certificates without a known end.
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    params.not_after = rcgen::date_time_ymd(9999, 12, 31);
    let mut serial = random::bytes::<16>()?;
    // Positive, and of the same length for all.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn crypto(error: rcgen::Error) -> IdentityError {
    IdentityError::Crypto(error.to_string())
}
