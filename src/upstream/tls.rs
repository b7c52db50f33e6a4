//! TLS to the broker: which authorities may vouch for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::config::UpstreamError;

/// Where systems keep their authorities in one PEM file: Debian, Fedora, SUSE, Alpine.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A client's configuration that trusts the file's authorities, or else the system's (`SSL_CERT_FILE`
/// first, as everywhere).
pub(super) fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, UpstreamError> {
    let roots = match ca_file {
        Some(file) => from_bundle(file)?,
        None => from_system()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| UpstreamError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn from_bundle(file: &Path) -> Result<RootCertStore, UpstreamError> {
    let bytes =
        std::fs::read(file).map_err(|error| UpstreamError::Unreadable { file: file.to_owned(), error })?;
    let mut roots = RootCertStore::empty();
    // What does not parse is passed over: system bundles have such entries, and one that is missing
    // is told by the handshake.
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok));
    if roots.is_empty() {
        return Err(UpstreamError::NoAuthorities { looked_in: file.display().to_string() });
    }
    Ok(roots)
}

fn from_system() -> Result<RootCertStore, UpstreamError> {
    let named = crate::environment::value("SSL_CERT_FILE").map(PathBuf::from);
    let places: Vec<PathBuf> = named.into_iter().chain(SYSTEM_BUNDLES.map(PathBuf::from)).collect();
    let found = places.iter().filter(|file| file.exists()).find_map(|file| from_bundle(file).ok());
    found.ok_or_else(|| {
        let places: Vec<String> = places.iter().map(|file| file.display().to_string()).collect();
        UpstreamError::NoAuthorities { looked_in: places.join(", ") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_names_itself() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        assert!(matches!(client_config(Some(&file)), Err(UpstreamError::Unreadable { .. })));
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let error = client_config(Some(&file)).unwrap_err().to_string();
        assert!(error.contains("ca.pem"), "{error}");
    }

    #[test]
    fn a_made_authority_is_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        let made = rcgen::generate_simple_self_signed(vec!["broker".to_owned()]).unwrap();
        std::fs::write(&file, made.cert.pem()).unwrap();
        assert!(client_config(Some(&file)).is_ok());
    }
}
