//! Checks a broker's certificate: by the authorities, or because it is itself one that the section's `ca_file` holds.
//!
//! A self-signed certificate that is given as `ca_file` is compared byte for byte. It vouches for itself then:
//! neither its name nor its dates nor what it may be used for matter, since nobody else has its key. That the
//! broker has it is proven by the handshake's signature as always.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

/// See the module.
#[derive(Debug)]
pub(super) struct Verifier {
    authorities: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// `pinned`: the certificates that are taken for themselves.
    pub(super) fn new(
        authorities: Arc<WebPkiServerVerifier>,
        pinned: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Verifier {
        Verifier { authorities, pinned, provider }
    }

    fn is_pinned(&self, certificate: &CertificateDer<'_>) -> bool {
        self.pinned.iter().any(|pinned| pinned == certificate)
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
        if self.is_pinned(end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        self.authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let result = self.authorities.verify_tls13_signature(message, certificate, signed);
        if result.is_ok() || !self.is_pinned(certificate) {
            return result;
        }
        // The library reads certificates of version 3 only; of an older one the key alone is needed here.
        let Some(key) = public_key(certificate) else { return result };
        let key = SubjectPublicKeyInfoDer::from(key);
        verify_tls13_signature_with_raw_key(
            message,
            &key,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// The subjectPublicKeyInfo of a certificate, DER (RFC 5280, 4.1): the sixth field, or the seventh behind
/// a version.
fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (outer, _) = element(certificate)?;
    let (tbs, _) = element(outer.content)?;
    let mut rest = tbs.content;
    let (first, after) = element(rest)?;
    if first.tag == VERSION {
        rest = after;
    }
    // Serial number, signature, issuer, validity, subject.
    for _ in 0..5 {
        (_, rest) = element(rest)?;
    }
    let (key, _) = element(rest)?;
    (key.tag == SEQUENCE).then_some(key.whole)
}

struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

/// The first DER element, and what follows it.
fn element(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    let whole = &bytes[..bytes.len() - after.len()];
    Some((Element { tag, content, whole }, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_certificates_key_is_found() {
        let made = rcgen::generate_simple_self_signed(vec!["broker".to_owned()]).unwrap();
        let key = public_key(made.cert.der()).unwrap();
        assert_eq!(key, rcgen::PublicKeyData::subject_public_key_info(&made.signing_key));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), at in 0usize..400, value: u8) {
            let _ = public_key(&bytes);
            let made = rcgen::generate_simple_self_signed(vec!["b".to_owned()]).unwrap();
            let mut der = made.cert.der().to_vec();
            if let Some(byte) = der.get_mut(at) {
                *byte = value;
            }
            let _ = public_key(&der);
        }
    }
}
