//! Who does not get in, and what they are told: each line, with its exit status.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tallyd::identity::Issued;
use tallyd::join::Token;
use tallyd::join::joiner::{Applicant, Joiner, JoinerStep};

use crate::boxes::{Site, TestBox};
use crate::harness::free_port;
use crate::joining::{address, found, join, joined, start_waiting, token, told, tried};

fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert_eq!(said.trim_end().lines().count(), 1, "one line: {said}");
}

#[test]
fn every_refusal_is_one_line_with_its_exit_status() {
    let mut site = Site::waiting(2);
    found(&mut site.boxes[0]);
    start_waiting(&mut site.boxes[1]);
    let (one, two) = (&site.boxes[0], &site.boxes[1]);
    let good = token(one, &[]);
    let by = address(one);
    let with = |token: &str, more: &[&str]| tried(two, &[&["join", &by, "--token", token], more].concat());

    let last = good.chars().last().unwrap();
    let typed = format!("{}{}", &good[..good.len() - 1], if last == '7' { '8' } else { '7' });
    assert_refused(&with(&typed, &[]), 2, &["mistyped", "nothing was sent"]);
    assert_refused(&with("K10abc", &[]), 2, &["not a token"]);

    let nobody = format!("127.0.0.1:{}", free_port());
    let output = tried(two, &["join", &nobody, "--token", &good]);
    assert_refused(&output, 3, &["cannot reach", &nobody, "is that box running"]);

    let unknown = with("tally1-00041-06105-0r3gg-28a1c-60t3g-fzsrn", &[]);
    assert_refused(&unknown, 1, &["does not know this token", &by, "tallyd token create"]);
    one.until_log("which this site does not know");

    let revoked = token(one, &[]);
    let listed = told(one, &["token", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let id = listed["tokens"][1]["id"].as_str().unwrap();
    assert!(told(one, &["token", "revoke", id]).contains("not good any more"));
    assert_refused(&tried(one, &["token", "revoke", id]), 1, &["no-such-token"]);
    assert_refused(&with(&revoked, &[]), 1, &["does not know this token"]);

    let ended = token(one, &["--ttl", "1ms"]);
    assert_refused(&with(&ended, &[]), 1, &["does not know this token"]);

    let elsewhere = format!("127.0.0.1:{}", free_port());
    let output = with(&good, &["--advertise", &elsewhere]);
    assert_refused(&output, 1, &["box1 cannot reach this box at", &elsewhere, "--advertise"]);

    assert_refused(&with(&good, &["--name", "box9"]), 1, &["node.name", "box2"]);
    assert_refused(&tried(one, &["join", &by, "--token", &good]), 1, &["box1 (number 1) of the site plant7"]);
    assert_refused(&tried(one, &["init", "--site", "other"]), 1, &["of the site plant7"]);
    let place = tried(one, &["token", "create", "--replace", "box7"]);
    assert_refused(&place, 1, &["no member of this name"]);

    // After all of that the token is as good as new.
    assert!(joined(two, one, &good).contains("number 2"));
    assert_refused(&join(two, one, &good), 1, &["box2 (number 2) of the site plant7"]);
}

#[test]
fn a_name_that_is_taken_is_told_with_whose_it_is() {
    let mut site = Site::waiting(2);
    found(&mut site.boxes[0]);
    let config = site.boxes[1].directory.join("tallyd.toml");
    let text = std::fs::read_to_string(&config).unwrap().replace("\"box2\"", "\"box1\"");
    std::fs::write(&config, text).unwrap();
    start_waiting(&mut site.boxes[1]);
    let good = token(&site.boxes[0], &[]);
    let output = join(&site.boxes[1], &site.boxes[0], &good);
    assert_refused(
        &output,
        1,
        &["plant7 has a box \"box1\" (number 1, reached)", "--name", "--replace box1"],
    );
}

#[test]
fn a_data_directory_with_half_a_box_in_it_is_used_for_nothing() {
    let mut site = Site::waiting(2);
    found(&mut site.boxes[0]);
    std::fs::create_dir(site.boxes[1].directory.join("log")).unwrap();
    start_waiting(&mut site.boxes[1]);
    let good = token(&site.boxes[0], &[]);
    assert_refused(&join(&site.boxes[1], &site.boxes[0], &good), 1, &["is not empty", "move it away"]);
    assert_refused(&tried(&site.boxes[1], &["init", "--site", "other"]), 1, &["is not empty"]);
}

/// Somebody in the middle, with a key of its own, who passes on each byte both ways. Gives its address.
fn relay_before(one: &TestBox) -> SocketAddr {
    let to = address(one).parse().unwrap();
    let (started, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let endpoint = relay_endpoint();
            started.send(endpoint.local_addr().unwrap()).unwrap();
            while let Some(incoming) = endpoint.accept().await {
                tokio::spawn(pass(endpoint.clone(), incoming, to));
            }
        });
    });
    address.recv().unwrap()
}

fn relay_endpoint() -> quinn::Endpoint {
    let made = rcgen::generate_simple_self_signed(vec!["relay".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    endpoint(made.cert.der().clone(), key, "127.0.0.1:0".parse().unwrap())
}

/// A box that joins, with this key, and says of itself what a test wants.
fn endpoint(
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

/// Does what a box does that joins, with a new key in that folder, until it has asked; the answer is not waited for.
pub(crate) fn ask_and_leave(joining: &Path, one: &TestBox, by: &TestBox, token: &str) {
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
    runtime.block_on(async {
        let endpoint = endpoint(certificate, key, address(one).parse().unwrap());
        let answering = endpoint.clone();
        // The dial back.
        tokio::spawn(async move {
            while let Some(incoming) = answering.accept().await {
                tokio::spawn(async move { incoming.await.unwrap().closed().await });
            }
        });
        let to: SocketAddr = address(by).parse().unwrap();
        let connection = endpoint.connect(to, "join.tally").unwrap().await.unwrap();
        let chain = connection.peer_identity().unwrap().downcast::<Vec<CertificateDer<'static>>>().unwrap();
        let mut exporter = [0; 32];
        connection.export_keying_material(&mut exporter, b"EXPORTER-tally-join-1", b"").unwrap();
        let site = tallyd::identity::key_hash(&chain[0]).unwrap();
        let (mut joiner, hello) = Joiner::new(applicant, &pair, exporter, site);
        let mut out = connection.open_uni().await.unwrap();
        let framed = |frame: Vec<u8>| [&(frame.len() as u32).to_le_bytes()[..], &frame].concat();
        out.write_all(&framed(hello)).await.unwrap();
        let mut read = connection.accept_uni().await.unwrap();
        let mut length = [0; 4];
        read.read_exact(&mut length).await.unwrap();
        let mut frame = vec![0; u32::from_le_bytes(length) as usize];
        read.read_exact(&mut frame).await.unwrap();
        let JoinerStep::Send(ask) = joiner.on_frame(&frame).unwrap() else { panic!("it asks") };
        out.write_all(&framed(ask)).await.unwrap();
        // Until the answer is on its way; it is not read.
        read.read_exact(&mut length).await.unwrap();
        connection.close(0_u32.into(), b"");
        endpoint.wait_idle().await;
    });
}

/// Passes on what the two ends say to each other.
async fn pass(endpoint: quinn::Endpoint, incoming: quinn::Incoming, to: SocketAddr) {
    let near = incoming.await.unwrap();
    let far = endpoint.connect(to, "join.tally").unwrap().await.unwrap();
    let copy = |from: quinn::Connection, to: quinn::Connection| async move {
        let mut read = from.accept_uni().await.ok()?;
        let mut write = to.open_uni().await.ok()?;
        while let Some(chunk) = read.read_chunk(1 << 16, true).await.ok()? {
            write.write_all(&chunk.bytes).await.ok()?;
        }
        Some(())
    };
    tokio::join!(copy(near.clone(), far.clone()), copy(far, near));
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
fn somebody_between_two_honest_ends_is_found_out_and_told_nothing() {
    let mut site = Site::waiting(2);
    found(&mut site.boxes[0]);
    start_waiting(&mut site.boxes[1]);
    let good = token(&site.boxes[0], &[]);
    let by = relay_before(&site.boxes[0]).to_string();
    let output = tried(&site.boxes[1], &["join", &by, "--token", &good]);
    assert_refused(&output, 1, &["does not hold this token", "somebody in between", "nothing was told"]);
    assert_eq!(site.boxes[0].status()["members"].as_array().unwrap().len(), 1);
    assert!(joined(&site.boxes[1], &site.boxes[0], &good).contains("number 2"));
}
