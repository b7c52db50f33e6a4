//! The exchange of a box that joins, frame by frame, against a box that runs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use ring::signature::{Ed25519KeyPair, KeyPair};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tallyd::identity::Issued;
use tallyd::join::Token;
use tallyd::join::frames::{FromSite, Reason, decode};
use tallyd::join::joiner::{Applicant, Joiner, JoinerStep};

use crate::boxes::{Site, TestBox};
use crate::harness::{PATIENCE, until};
use crate::joining::{address, found, joined, start_waiting, token, told};

/// An exchange in which the site has proved itself, and the joiner has not asked yet.
pub(crate) struct Exchange {
    runtime: tokio::runtime::Runtime,
    endpoint: quinn::Endpoint,
    connection: quinn::Connection,
    out: quinn::SendStream,
    read: quinn::RecvStream,
    hello: Vec<u8>,
    ask: Vec<u8>,
    /// Told when the site dials back.
    dialled: tokio::sync::mpsc::UnboundedReceiver<()>,
}

impl Exchange {
    /// Begins it with a new key in that folder.
    pub(crate) fn begin(joining: &Path, one: &TestBox, by: &TestBox, token: &str) -> Exchange {
        std::fs::create_dir(joining).unwrap();
        Issued::self_signed(&one.name).unwrap().save(joining).unwrap();
        let key = PrivatePkcs8KeyDer::from_pem_file(joining.join("node.key")).unwrap();
        let certificate = CertificateDer::from_pem_file(joining.join("node.crt")).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der()).unwrap();
        let applicant = Applicant {
            token: Token::parse(token).unwrap(),
            key: pair.public_key().as_ref().try_into().unwrap(),
            name: one.name.clone(),
            is_name_chosen: true,
            address: Some(address(one)),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (tell, dialled) = tokio::sync::mpsc::unbounded_channel();
        let (listen, to): (SocketAddr, SocketAddr) =
            (address(one).parse().unwrap(), address(by).parse().unwrap());
        let (endpoint, connection, out, read, hello, ask) = runtime.block_on(async {
            let endpoint = endpoint(certificate, key, listen);
            let answering = endpoint.clone();
            // The dial back.
            tokio::spawn(async move {
                while let Some(incoming) = answering.accept().await {
                    let _ = tell.send(());
                    tokio::spawn(async move { incoming.await.unwrap().closed().await });
                }
            });
            let (connection, exporter, site) = connect(&endpoint, to).await;
            let (mut joiner, hello) = Joiner::new(applicant, &pair, exporter, site);
            let mut out = connection.open_uni().await.unwrap();
            out.write_all(&framed(&hello)).await.unwrap();
            let mut read = connection.accept_uni().await.unwrap();
            let frame = next(&mut read).await;
            let JoinerStep::Send(ask) = joiner.on_frame(&frame).unwrap() else { panic!("it asks") };
            (endpoint, connection, out, read, hello, ask)
        });
        Exchange { runtime, endpoint, connection, out, read, hello, ask, dialled }
    }

    pub(crate) fn ask(&mut self) {
        self.runtime.block_on(self.out.write_all(&framed(&self.ask))).unwrap();
    }

    /// Waits until the site has checked what it was asked, and dials back: then it decides.
    fn until_dialled(&mut self) {
        let dialled = async { tokio::time::timeout(PATIENCE, self.dialled.recv()).await };
        self.runtime.block_on(dialled).unwrap().unwrap();
    }

    /// Until the answer is on its way; it is not read.
    pub(crate) fn until_answered(&mut self) {
        self.runtime.block_on(self.read.read_exact(&mut [0; 4])).unwrap();
    }

    pub(crate) fn leave(self) {
        self.connection.close(0_u32.into(), b"");
        self.runtime.block_on(self.endpoint.wait_idle());
    }

    /// What a box says to these frames on a connection of their own; the frame after the last of them.
    fn replay(&self, by: &TestBox, frames: &[&[u8]]) -> FromSite {
        let to = address(by).parse().unwrap();
        self.runtime.block_on(async {
            let (connection, _, _) = connect(&self.endpoint, to).await;
            let mut out = connection.open_uni().await.unwrap();
            out.write_all(&framed(frames[0])).await.unwrap();
            let mut read = connection.accept_uni().await.unwrap();
            let mut said = next(&mut read).await;
            for frame in &frames[1..] {
                out.write_all(&framed(frame)).await.unwrap();
                said = next(&mut read).await;
            }
            connection.close(0_u32.into(), b"");
            decode(&said).unwrap()
        })
    }
}

async fn connect(
    endpoint: &quinn::Endpoint,
    to: SocketAddr,
) -> (quinn::Connection, [u8; 32], tally_core::id::KeyHash) {
    let connection = endpoint.connect(to, "join.tally").unwrap().await.unwrap();
    let chain = connection.peer_identity().unwrap().downcast::<Vec<CertificateDer<'static>>>().unwrap();
    let mut exporter = [0; 32];
    connection.export_keying_material(&mut exporter, b"EXPORTER-tally-join-1", b"").unwrap();
    let site = tallyd::identity::key_hash(&chain[0]).unwrap();
    (connection, exporter, site)
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_le_bytes()[..], frame].concat()
}

async fn next(read: &mut quinn::RecvStream) -> Vec<u8> {
    let mut length = [0; 4];
    read.read_exact(&mut length).await.unwrap();
    let mut frame = vec![0; u32::from_le_bytes(length) as usize];
    read.read_exact(&mut frame).await.unwrap();
    frame
}

/// Does what a box does that joins, with a new key in that folder, until it has asked; the answer is not waited for.
pub(crate) fn ask_and_leave(joining: &Path, one: &TestBox, by: &TestBox, token: &str) {
    let mut exchange = Exchange::begin(joining, one, by, token);
    exchange.ask();
    exchange.until_answered();
    exchange.leave();
}

/// A box that joins, with this key, and says of itself what a test wants.
pub(crate) fn endpoint(
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    listen: SocketAddr,
) -> quinn::Endpoint {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .unwrap();
    server.alpn_protocols = vec![b"tally-join/1".to_vec()];
    let mut client = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    client.alpn_protocols = vec![b"tally-join/1".to_vec()];
    let server = quinn::crypto::rustls::QuicServerConfig::try_from(server).unwrap();
    let client = quinn::crypto::rustls::QuicClientConfig::try_from(client).unwrap();
    let server = quinn::ServerConfig::with_crypto(Arc::new(server));
    let mut endpoint = quinn::Endpoint::server(server, listen).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(client)));
    endpoint
}

#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        unreachable!("TLS 1.3 alone is spoken")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn frames_that_somebody_recorded_let_nobody_in() {
    let mut site = Site::waiting(2);
    found(&mut site.boxes[0]);
    let good = token(&site.boxes[0], &[]);
    let joining = site.boxes[1].directory.join("joining");
    let recorded = Exchange::begin(&joining, &site.boxes[1], &site.boxes[0], &good);
    let refused = |said: FromSite| match said {
        FromSite::Refused(refused) => refused.reason,
        other => panic!("{other:?}"),
    };
    let by = &site.boxes[0];
    // A hello proves nothing, so it may be said again; the proof that answers it is of that connection.
    let again = recorded.replay(by, &[&recorded.hello]);
    assert!(matches!(again, FromSite::Site(_)), "{again:?}");
    assert_eq!(refused(recorded.replay(by, &[&recorded.hello, &recorded.ask])), Reason::BadProof);
    assert_eq!(refused(recorded.replay(by, &[&recorded.hello, &recorded.hello])), Reason::Malformed);
    assert_eq!(refused(recorded.replay(by, &[&recorded.ask])), Reason::Malformed);
    assert_eq!(by.status()["members"].as_array().unwrap().len(), 1);
    recorded.leave();
    // The token has lost nothing by that.
    start_waiting(&mut site.boxes[1]);
    assert!(joined(&site.boxes[1], &site.boxes[0], &good).contains("number 2"));
    let listed: serde_json::Value =
        serde_json::from_str(&told(&site.boxes[0], &["token", "list", "--json"])).unwrap();
    assert_eq!(listed["tokens"][0]["used_by"], serde_json::json!(["box2"]));
}

#[test]
fn a_leader_that_dies_between_the_ask_and_the_welcome_leaves_one_member_by_one_use() {
    let mut site = Site::start(3);
    site.add_waiting();
    let leader = site.leader();
    let by = (leader + 1) % 3;
    let good = token(&site.boxes[leader], &[]);
    let joining = site.boxes[3].directory.join("joining");
    let mut exchange = Exchange::begin(&joining, &site.boxes[3], &site.boxes[by], &good);
    // What it is asked for from here on it does not do.
    site.boxes[leader].process.as_ref().unwrap().signal(Signal::STOP);
    exchange.ask();
    exchange.until_dialled();
    site.boxes[leader].kill();
    // Whatever it is told, a moment later: it is one member once it asks again.
    exchange.until_answered();
    exchange.leave();
    start_waiting(&mut site.boxes[3]);
    let said = joined(&site.boxes[3], &site.boxes[by], &good);
    assert!(said.starts_with("box4 is number 4 of plant7"), "{said}");
    let listed: serde_json::Value =
        serde_json::from_str(&told(&site.boxes[by], &["token", "list", "--json"])).unwrap();
    let one = &listed["tokens"][0];
    assert_eq!((&one["uses_left"], &one["used_by"]), (&0.into(), &serde_json::json!(["box4"])));
    site.boxes[leader].start();
    for one in &site.boxes {
        until("each box names four", || (one.try_status()?["members"].as_array()?.len() == 4).then_some(()));
    }
    site.assert_same_digests();
}
