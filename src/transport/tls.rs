//! Authenticates peers by the public keys that the membership pins. A certificate only carries a key;
//! its dates, names and issuer are not checked.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use tally_core::id::{KeyHash, NodeId};

use crate::identity::{Identity, Keys, MemberRecord, key_hash};

/// The version of the protocol; another one is refused by TLS itself.
const ALPN: &[u8] = b"tally/1";
/// The protocol of boxes that want to become members.
pub(super) const JOIN_ALPN: &[u8] = b"tally-join/1";

/// The keys of the members.
#[derive(Debug)]
pub(super) struct Pins {
    me: NodeId,
    members: RwLock<Vec<(NodeId, KeyHash)>>,
}

impl Pins {
    pub(super) fn new(identity: &Identity) -> Pins {
        Pins { me: identity.node_id(), members: RwLock::new(keys_of(&identity.members)) }
    }

    /// Replaces the pinned keys by those of these members.
    pub(super) fn replace(&self, members: &[MemberRecord]) {
        *self.members.write().unwrap_or_else(PoisonError::into_inner) = keys_of(members);
    }

    /// Returns the member that a certificate belongs to, if it is another member's.
    pub(super) fn peer(&self, certificate: &CertificateDer<'_>) -> Result<NodeId, CertificateError> {
        let hash = key_hash(certificate).ok_or(CertificateError::BadEncoding)?;
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        match members.iter().find(|(_, key)| *key == hash) {
            // The errors are chosen by the alert they cause, which refusal.rs tells apart.
            None => Err(CertificateError::UnknownIssuer),
            Some((id, _)) if *id == self.me => Err(CertificateError::Revoked),
            Some((id, _)) => Ok(*id),
        }
    }

    /// Returns the member at the other end of a connection.
    pub(super) fn peer_of(&self, connection: &quinn::Connection) -> Option<NodeId> {
        let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        self.peer(chain.first()?).ok()
    }
}

fn keys_of(members: &[MemberRecord]) -> Vec<(NodeId, KeyHash)> {
    members.iter().map(|member| (member.id, member.key)).collect()
}

/// TLS of the accepting side: any other member may connect, and whoever wants to join, without a certificate. A member
/// without one is refused after the handshake.
pub(super) fn server(keys: &Keys, pins: &Arc<Pins>) -> Result<rustls::ServerConfig, Error> {
    let provider = provider();
    let verifier = Verifier { pins: pins.clone(), expected: None, provider: provider.clone() };
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(vec![keys.certificate()], keys.private())?;
    config.alpn_protocols = vec![ALPN.to_vec(), JOIN_ALPN.to_vec()];
    // Each connection proves the key anew; tickets would only cost memory.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// TLS of the dialling side: only this member may answer.
pub(super) fn client(keys: &Keys, pins: &Arc<Pins>, peer: NodeId) -> Result<rustls::ClientConfig, Error> {
    let provider = provider();
    let verifier = Verifier { pins: pins.clone(), expected: Some(peer), provider: provider.clone() };
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(vec![keys.certificate()], keys.private())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// TLS of the dialling side where neither knows the other yet. Who answers is proved afterwards.
pub(super) fn stranger_client() -> Result<rustls::ClientConfig, Error> {
    let provider = provider();
    let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyKey { provider }))
        .with_no_client_auth();
    config.alpn_protocols = vec![JOIN_ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// TLS of a box that wants to join, where it is dialled back.
pub(super) fn stranger_server(keys: &Keys) -> Result<rustls::ServerConfig, Error> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![keys.certificate()], keys.private())?;
    config.alpn_protocols = vec![JOIN_ALPN.to_vec()];
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// ring's algorithms, the cheapest cipher of this processor first.
fn provider() -> Arc<CryptoProvider> {
    use rustls::crypto::ring::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256};
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites = if has_aes_instructions() {
        vec![TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256]
    } else {
        vec![TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256]
    };
    Arc::new(provider)
}

fn has_aes_instructions() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

#[derive(Debug)]
struct Verifier {
    pins: Arc<Pins>,
    /// The only member that may be at the other end; `None`: any.
    expected: Option<NodeId>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn verify(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let peer = self.pins.peer(certificate)?;
        if self.expected.is_some_and(|expected| expected != peer) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(())
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Only TLS 1.3 is ever negotiated.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.2 is not supported".into()))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(certificate)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        // Before the handshake is done nobody knows whether a member connects or a box that wants to be one.
        false
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(certificate)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

/// Whoever has the key of the certificate that it shows.
#[derive(Debug)]
struct AnyKey {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        key_hash(certificate).ok_or(CertificateError::BadEncoding)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
