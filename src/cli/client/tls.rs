//! TLS to a box: its certificate is the pinned one, or one that an authority of this system vouches for.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::url::ServerUrl;
use crate::api::{fingerprint, fingerprint_text};

/// See the module.
#[derive(Debug)]
struct Verifier {
    pin: Option<[u8; 32]>,
    authorities: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    /// What the box presented.
    seen: Mutex<Option<[u8; 32]>>,
}

impl Verifier {
    fn seen(&self) -> Option<[u8; 32]> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let hash = fingerprint(end_entity);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(hash);
        match (&self.pin, &self.authorities) {
            // It vouches for itself: neither its name nor its dates matter.
            (Some(pin), _) if *pin == hash => Ok(ServerCertVerified::assertion()),
            (Some(_), _) => Err(CertificateError::ApplicationVerificationFailure.into()),
            (None, Some(authorities)) => {
                authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            (None, None) => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The handshake with a box.
///
/// # Errors
/// Why there is no trusted connection, and what to do; nothing was sent.
pub(super) async fn connect(
    stream: TcpStream,
    target: &ServerUrl,
    pin: Option<[u8; 32]>,
) -> Result<TlsStream<TcpStream>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let authorities = match pin {
        Some(_) => None,
        None => crate::mqtt::system_authorities().and_then(|roots| {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().ok()
        }),
    };
    let seen = Mutex::default();
    let verifier = Arc::new(Verifier { pin, authorities, provider: Arc::clone(&provider), seen });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let host = target.host().to_owned();
    let name = ServerName::try_from(host).map_err(|_| format!("{} is not a host name", target.host()))?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    connected.map_err(|error| describe(&error, target, pin, verifier.seen()))
}

fn describe(error: &io::Error, target: &ServerUrl, pin: Option<[u8; 32]>, seen: Option<[u8; 32]>) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let authority = &target.authority;
    match (inner, pin, seen) {
        (Some(Error::InvalidCertificate(_)), Some(pin), Some(seen)) => format!(
            "the certificate of {authority} has the SHA-256 {}, and {} is pinned: another box, a new certificate, or \
             somebody in between; nothing was sent",
            fingerprint_text(&seen),
            fingerprint_text(&pin)
        ),
        (Some(Error::InvalidCertificate(why)), None, Some(seen)) => {
            let seen = fingerprint_text(&seen);
            format!(
                "no authority of this system vouches for the certificate of {authority} ({why}); its SHA-256 is {seen}: \
                 compare that with what `tallyd status` shows on that box, then pin it: --url \
                 https://{authority}#sha256={seen}; nothing was sent"
            )
        }
        (Some(Error::InvalidMessage(_)), ..) => {
            format!("{authority} does not speak TLS: use http://{authority}, if that is meant")
        }
        _ => format!("TLS with {authority}: {error}"),
    }
}
