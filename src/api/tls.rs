//! TLS of the API's listener: a certificate that was given, or one of this box's own making.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, PKCS_ECDSA_P256_SHA256};
use ring::digest;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::identity::{IdentityError, write_file};

/// The private key of this box's own making, PKCS#8 in PEM; only its owner may read it.
const KEY: &str = "api.key";
/// Its certificate in PEM.
const CERTIFICATE: &str = "api.crt";

/// What the listener's connections are encrypted with.
#[derive(Clone)]
pub(crate) struct Encryption {
    pub(super) acceptor: TlsAcceptor,
    /// SHA-256 of the certificate, by which clients may pin it.
    pub(crate) fingerprint: [u8; 32],
    /// It is of this box's own making: nobody vouches for it.
    pub(crate) is_self_made: bool,
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encryption({})", self.fingerprint_text())
    }
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error("{key} {file}: {what}")]
    File {
        /// The key of the configuration.
        key: &'static str,
        /// Which file.
        file: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// Its own cannot be kept.
    #[error(transparent)]
    Own(#[from] IdentityError),
    /// Its own cannot be made.
    #[error("cannot make a certificate for the API: {0}")]
    Made(#[from] rcgen::Error),
    /// The library refuses it.
    #[error("the certificate of the API cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

impl Encryption {
    /// With a certificate chain and a key that were given, both in PEM.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub(crate) fn given(certificate: &Path, key: &Path) -> Result<Encryption, TlsError> {
        Encryption::load(("api.tls_cert", certificate), ("api.tls_key", key), false)
    }

    /// With the one that is kept in the data directory, which is made if there is none. `names`: those by which the box
    /// is reached.
    ///
    /// # Errors
    /// It cannot be made, kept or read.
    pub(crate) fn own(dir: &Path, names: &[String]) -> Result<Encryption, TlsError> {
        let (certificate, key) = (dir.join(CERTIFICATE), dir.join(KEY));
        if !certificate.exists() {
            // Browsers refuse Ed25519.
            let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let mut params = CertificateParams::new(names)?;
            params
                .distinguished_name
                .push(DnType::CommonName, names.first().map_or("tallyd", String::as_str));
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            let made = params.self_signed(&pair)?;
            // The certificate last: without it the key is made anew.
            write_file(&key, pair.serialize_pem().as_bytes(), 0o600)?;
            write_file(&certificate, made.pem().as_bytes(), 0o644)?;
        }
        Encryption::load(("the API's own certificate", &certificate), ("the API's own key", &key), true)
    }

    fn load(
        certificate: (&'static str, &Path),
        key: (&'static str, &Path),
        is_self_made: bool,
    ) -> Result<Encryption, TlsError> {
        let read = |(key, file): (&'static str, &Path)| {
            crate::outside::read(file).map_err(|error| fail(key, file, &error))
        };
        let chain: Result<Vec<CertificateDer<'static>>, _> =
            CertificateDer::pem_slice_iter(&read(certificate)?).collect();
        let chain = chain.map_err(|error| fail(certificate.0, certificate.1, &error))?;
        let Some(first) = chain.first() else {
            return Err(fail(certificate.0, certificate.1, &"holds no certificate in PEM"));
        };
        let fingerprint = fingerprint(first);
        let private = PrivateKeyDer::from_pem_slice(&read(key)?)
            .map_err(|error| fail(key.0, key.1, &format!("holds no private key in PEM ({error})")))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(|error| fail(key.0, key.1, &format!("does not belong to the certificate ({error})")))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Encryption { acceptor: TlsAcceptor::from(Arc::new(config)), fingerprint, is_self_made })
    }

    /// The fingerprint as people compare it.
    pub(crate) fn fingerprint_text(&self) -> String {
        fingerprint_text(&self.fingerprint)
    }
}

fn fail(key: &'static str, file: &Path, what: &dyn fmt::Display) -> TlsError {
    TlsError::File { key, file: file.to_owned(), what: what.to_string() }
}

/// SHA-256 of a certificate.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
    hash
}

/// It as people compare it.
pub(crate) fn fingerprint_text(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_box_makes_its_certificate_once_and_keeps_the_key_to_itself() {
        let directory = tempfile::tempdir().unwrap();
        let names = ["box1".to_owned(), "10.0.0.11".to_owned()];
        let first = Encryption::own(directory.path(), &names).unwrap();
        assert!(first.is_self_made);
        let mode = std::fs::metadata(directory.path().join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Encryption::own(directory.path(), &[]).unwrap();
        assert_eq!(first.fingerprint, again.fingerprint);
        let text = std::fs::read_to_string(directory.path().join(KEY)).unwrap();
        assert!(!format!("{first:?}").contains(text.lines().nth(1).unwrap()));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        Encryption::own(directory.path(), &["box1".to_owned()]).unwrap();
        let other = tempfile::tempdir().unwrap();
        Encryption::own(other.path(), &["box1".to_owned()]).unwrap();
        std::fs::write(at("empty"), "").unwrap();
        for (certificate, key, says) in [
            (at("none"), at(KEY), "api.tls_cert"),
            (at("empty"), at(KEY), "api.tls_cert"),
            (at(CERTIFICATE), at("none"), "api.tls_key"),
            (at(CERTIFICATE), at(CERTIFICATE), "api.tls_key"),
            (at(CERTIFICATE), other.path().join(KEY), "does not belong"),
        ] {
            let error = Encryption::given(&certificate, &key).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(!Encryption::given(&at(CERTIFICATE), &at(KEY)).unwrap().is_self_made);
    }
}
