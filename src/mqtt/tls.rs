//! TLS to the broker: which authorities may vouch for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};

use super::pinned::Verifier;
use super::target::AccessError;

/// Where systems keep their authorities in one PEM file: Debian, Fedora, SUSE, Alpine.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A client's configuration that trusts the file's authorities and certificates, or else the system's
/// authorities (`SSL_CERT_FILE` first, as everywhere).
pub(super) fn client_config(
    section: &'static str,
    ca_file: Option<&Path>,
) -> Result<Arc<ClientConfig>, AccessError> {
    let (roots, pinned) = match ca_file {
        Some(file) => from_bundle(section, file)?,
        // What is in there vouches for others; it is not meant as a broker's own.
        None => (from_system(section)?, Vec::new()),
    };
    let wrong = |error: &dyn std::fmt::Display| AccessError::Tls { section, what: error.to_string() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| wrong(&error))?;
    let verifier = Verifier::new(authorities, pinned, Arc::clone(&provider));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn from_bundle(
    section: &'static str,
    file: &Path,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), AccessError> {
    let bytes = crate::outside::read(file)
        .map_err(|error| AccessError::Unreadable { file: file.to_owned(), error })?;
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok).collect();
    let mut roots = RootCertStore::empty();
    // What does not parse is passed over: system bundles have such entries, and one that is missing
    // is told by the handshake.
    roots.add_parsable_certificates(certificates.iter().cloned());
    if roots.is_empty() {
        return Err(AccessError::NoAuthorities { section, looked_in: file.display().to_string() });
    }
    Ok((roots, certificates))
}

/// The system's authorities, as far as it has any.
pub(crate) fn system_authorities() -> Option<RootCertStore> {
    from_system("").ok()
}

fn from_system(section: &'static str) -> Result<RootCertStore, AccessError> {
    let named = crate::environment::value("SSL_CERT_FILE").map(PathBuf::from);
    let places: Vec<PathBuf> = named.into_iter().chain(SYSTEM_BUNDLES.map(PathBuf::from)).collect();
    let found = places.iter().filter(|file| file.exists()).find_map(|file| from_bundle(section, file).ok());
    found.map(|(roots, _)| roots).ok_or_else(|| {
        let places: Vec<String> = places.iter().map(|file| file.display().to_string()).collect();
        AccessError::NoAuthorities { section, looked_in: places.join(", ") }
    })
}

/// Why a handshake failed, in words, with what to do.
pub(super) fn describe(error: &rustls::Error, section: &str) -> String {
    match error {
        rustls::Error::InvalidCertificate(why) => {
            format!("the broker's certificate is not accepted: {}", certificate(why, section))
        }
        rustls::Error::InvalidMessage(_) => {
            "the broker does not use TLS on this port; use its TLS port (usually 8883), or mqtt:// without \
             TLS"
            .to_owned()
        }
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure => {
                format!(
                    "the broker ended the TLS handshake ({}); it may require a client certificate, which \
                     tallyd does not have: let it accept user and password",
                    in_words(alert)
                )
            }
            AlertDescription::ProtocolVersion => {
                "the broker offers neither TLS 1.2 nor 1.3: enable one of them there".to_owned()
            }
            alert => format!("the broker ended the TLS handshake: {}; see the broker's log", in_words(alert)),
        },
        rustls::Error::PeerIncompatible(why) => {
            format!(
                "the broker and tallyd have no common TLS version or cipher ({}): enable TLS 1.2 or 1.3 with \
                 modern ciphers there",
                in_words(why)
            )
        }
        other => format!("TLS: {other}"),
    }
}

fn certificate(why: &CertificateError, section: &str) -> String {
    let make_v3 = "reissue it as version 3 with subjectAltName (openssl x509 -req ... -extfile with \
        subjectAltName=DNS:NAME)";
    match why {
        CertificateError::UnknownIssuer => {
            format!(
                "it is signed by an unknown authority; set {section}.ca_file to that authority's certificate \
                 (PEM), or to the broker's own if it is self-signed"
            )
        }
        CertificateError::NotValidForName => {
            format!(
                "it is for a name other than the one in {section}.url; use a name that the certificate has"
            )
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> = presented.iter().map(|name| plain_name(name)).collect();
            let names = if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") };
            format!(
                "it is not for {:?} but for {names}; use such a name in {section}.url, or reissue the \
                 certificate with subjectAltName=DNS:{}",
                expected.to_str(),
                expected.to_str()
            )
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired; renew it at the broker, or set this box's clock if that is wrong".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet by this box's clock; set the clock, or wait until a time service sets it"
                .to_owned()
        }
        CertificateError::BadSignature => {
            format!(
                "its signature is wrong: {section}.ca_file has another authority of the same name; use the \
                 present one"
            )
        }
        CertificateError::Revoked => "it was revoked; renew it at the broker".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not valid for a server (extendedKeyUsage); issue one for serverAuth".to_owned()
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "its signature algorithm is no longer accepted (SHA-1, short RSA keys); reissue it with SHA-256"
                .to_owned()
        }
        // These have no names of their own in the library's errors.
        other => match format!("{other:?}") {
            text if text.contains("UnsupportedCertVersion") => {
                format!(
                    "it has X.509 version 1, which TLS does not accept; {make_v3}, or enable TLS 1.3 at the \
                     broker and set {section}.ca_file to this very certificate"
                )
            }
            text if text.contains("CaUsedAsEndEntity") => {
                format!(
                    "it belongs to an authority; set {section}.ca_file to this very certificate, or issue \
                     one for the broker that the authority signs"
                )
            }
            _ => format!("{}; {make_v3}", in_words(other)),
        },
    }
}

/// A name as a certificate has it, of what the library writes for one: `DnsName("broker")`.
fn plain_name(written: &str) -> &str {
    let inner = written.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(written).trim_matches('"')
}

/// What the library calls `NoCipherSuitesInCommon` as people read it: `no cipher suites in common`.
fn in_words(called: &impl std::fmt::Debug) -> String {
    let called = format!("{called:?}");
    let mut words = String::with_capacity(called.len() + 8);
    let mut before = ' ';
    for c in called.chars() {
        if c.is_uppercase() && before.is_lowercase() {
            words.push(' ');
        }
        words.extend(c.to_lowercase());
        before = c;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_names_itself() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        assert!(matches!(client_config("upstream", Some(&file)), Err(AccessError::Unreadable { .. })));
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let error = client_config("upstream", Some(&file)).unwrap_err().to_string();
        assert!(error.contains("ca.pem"), "{error}");
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_told_with_what_to_do() {
        let told = |why| describe(&rustls::Error::InvalidCertificate(why), "upstream");
        for (why, text) in [
            (CertificateError::UnknownIssuer, "upstream.ca_file"),
            (CertificateError::NotValidForName, "upstream.url"),
            (CertificateError::Expired, "clock"),
            (CertificateError::NotValidYet, "clock"),
            (CertificateError::InvalidPurpose, "serverAuth"),
            (CertificateError::BadEncoding, "subjectAltName"),
        ] {
            assert!(told(why.clone()).contains(text), "{}", told(why));
        }
    }

    #[test]
    fn nothing_is_told_in_the_words_of_the_library() {
        let presented = vec!["DnsName(\"elsewhere.example\")".to_owned(), "IpAddress(10.0.0.1)".to_owned()];
        let expected = rustls::pki_types::ServerName::try_from("broker").unwrap();
        let told =
            describe(&CertificateError::NotValidForNameContext { expected, presented }.into(), "upstream");
        assert!(told.contains("not for \"broker\" but for elsewhere.example, 10.0.0.1; use"), "{told}");
        for (error, text) in [
            (rustls::Error::AlertReceived(AlertDescription::AccessDenied), "handshake: access denied;"),
            (rustls::Error::AlertReceived(AlertDescription::HandshakeFailure), "(handshake failure)"),
            (rustls::PeerIncompatible::NoCipherSuitesInCommon.into(), "(no cipher suites in common)"),
            (CertificateError::BadEncoding.into(), "bad encoding; reissue it"),
        ] {
            assert!(describe(&error, "upstream").contains(text), "{}", describe(&error, "upstream"));
        }
    }

    #[test]
    fn a_made_authority_is_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        let made = rcgen::generate_simple_self_signed(vec!["broker".to_owned()]).unwrap();
        std::fs::write(&file, made.cert.pem()).unwrap();
        assert!(client_config("upstream", Some(&file)).is_ok());
    }
}
