//! Who is let in and who is not, with intruders that have a TLS configuration of their own.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tally_core::id::KeyHash;

use super::*;

const LIFE: Incarnation = Incarnation { boot: 3, nonce: 7 };

/// Dials box 1 with a rustls configuration of the attacker's own.
async fn intrude(site: &TestSite, config: rustls::ClientConfig, name: &str) -> Option<quinn::Connection> {
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let client = quinn::ClientConfig::new(Arc::new(tls));
    within(endpoint.connect_with(client, site.address(1), name).unwrap()).await.ok()
}

/// Dials box 1 as box 2, in an incarnation of its own.
async fn enter(site: &TestSite, incarnation: Incarnation) -> (quinn::Connection, quinn::SendStream) {
    enter_as(site, NodeId(2), incarnation).await
}

/// The same, by a box 2 that takes itself for another member.
async fn enter_as(
    site: &TestSite,
    node: NodeId,
    incarnation: Incarnation,
) -> (quinn::Connection, quinn::SendStream) {
    let connection = intrude(site, client_of(site, &site.keys(2)), &name_of(site)).await.unwrap();
    let control = within(link::open_control(&connection, Hello { node, incarnation })).await.unwrap();
    (connection, control)
}

/// Box 2's own view of box 1, as a start for what intruders do.
fn client_of(site: &TestSite, keys: &Keys) -> rustls::ClientConfig {
    let pins = Arc::new(tls::Pins::new(&site.identities[1]));
    tls::client(keys, &pins, NodeId(1)).unwrap()
}

fn name_of(site: &TestSite) -> String {
    crate::identity::server_name(site.identities[0].site_id)
}

#[tokio::test]
async fn a_peer_with_another_sites_key_is_refused_and_counted() {
    let (site, other) = (TestSite::new(2), TestSite::new(2));
    let one = site.start(1).await;
    // It knows the site's name and trusts its box, but its key is not a member's.
    let connection = intrude(&site, client_of(&site, &other.keys(2)), &name_of(&site)).await;
    one.wait_refused(Refusal::UnknownKey).await;
    // The dialling side of TLS 1.3 learns of it a moment later.
    if let Some(connection) = connection {
        within(connection.closed()).await;
    }
    assert!(!one.transport.peers()[0].connected);
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_refused_and_counted() {
    let site = TestSite::new(2);
    let one = site.start(1).await;
    let mut config = client_of(&site, &site.keys(2));
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    if let Some(connection) = intrude(&site, config, &name_of(&site)).await {
        within(connection.closed()).await;
    }
    one.wait_refused(Refusal::NoCertificate).await;
    assert!(!one.transport.peers()[0].connected);
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(
        &self,
        _hints: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_copied_key_another_site_and_another_protocol_are_told_apart() {
    let site = TestSite::new(2);
    let one = site.start(1).await;
    intrude(&site, client_of(&site, &site.keys(1)), &name_of(&site)).await;
    one.wait_refused(Refusal::OwnKey).await;
    intrude(&site, client_of(&site, &site.keys(2)), "0000000000000000.tally").await;
    one.wait_refused(Refusal::OtherSite).await;
    let mut config = client_of(&site, &site.keys(2));
    config.alpn_protocols = vec![b"tally/9".to_vec()];
    intrude(&site, config, &name_of(&site)).await;
    one.wait_refused(Refusal::OtherProtocol).await;
}

#[tokio::test]
async fn a_box_of_another_site_at_a_peers_address_is_refused_by_the_dialler() {
    let mut site = TestSite::new(2);
    let other = TestSite::new(1);
    for identity in &mut site.identities {
        identity.members[1].address = other.address(1).to_string();
    }
    let stranger = other.start(1).await;
    let one = site.start(1).await;
    wait_until(|| {
        one.metrics.refused(Refusal::UnknownKey).get() + one.metrics.refused(Refusal::RefusedByPeer).get() > 0
    })
    .await;
    stranger.wait_refused(Refusal::OtherSite).await;
    assert!(!one.transport.peers()[0].connected);
}

#[tokio::test]
async fn boxes_whose_addresses_are_swapped_are_told_so() {
    let mut site = TestSite::new(3);
    let third = site.start(3).await;
    let members = &mut site.identities[0].members;
    members[1].address = members[2].address.clone();
    let one = site.start(1).await;
    one.wait_refused(Refusal::OtherMember).await;
    drop(third);
}

#[tokio::test]
async fn an_oversized_frame_closes_that_connection_and_nothing_else() {
    let site = TestSite::new(3);
    let (mut one, three) = (site.start(1).await, site.start(3).await);
    one.wait_connected(3).await;
    let (connection, mut control) = enter(&site, LIFE).await;
    one.wait_connected(2).await;
    control.write_all(&[1, 0, 1, 0]).await.unwrap();
    one.wait_refused(Refusal::OversizedFrame).await;
    within(connection.closed()).await;
    assert_eq!(one.next().await, Event::Disconnected(NodeId(2)));
    three.transport.send(NodeId(1), Lane::Control, Bytes::from_static(b"still here")).unwrap();
    assert_eq!(one.frame().await, (Some(Lane::Control), Bytes::from_static(b"still here")));
}

#[tokio::test]
async fn a_box_that_takes_itself_for_another_member_is_refused_and_both_sides_know_why() {
    let mut site = TestSite::new(2);
    let mut one = site.start(1).await;
    let (connection, _control) = enter_as(&site, NodeId(4), LIFE).await;
    assert_refused(&connection, Refusal::OtherNumber).await;
    assert_eq!(one.transport.peers()[0].refused, Some(Refusal::OtherNumber));
    // Itself: a box whose identity says 4 where the site says 2.
    site.identities[1].node = 4;
    site.identities[1].members[1].id = NodeId(4);
    let two = site.start(2).await;
    two.wait_refused(Refusal::OwnOtherNumber).await;
    assert!(!two.transport.peers()[0].connected);
    end(&site, 2, two).await;
    site.identities[1].node = 2;
    site.identities[1].members[1].id = NodeId(2);
    let _two = site.start(2).await;
    one.wait_connected(2).await;
    assert_eq!(one.transport.peers()[0].refused, None, "that is over");
}

#[tokio::test]
async fn an_unknown_lane_closes_the_connection() {
    let site = TestSite::new(2);
    let mut one = site.start(1).await;
    let (connection, _control) = enter(&site, LIFE).await;
    one.wait_connected(2).await;
    connection.open_uni().await.unwrap().write_all(&[4]).await.unwrap();
    one.wait_refused(Refusal::UnknownLane).await;
    assert_eq!(one.next().await, Event::Disconnected(NodeId(2)));
}

#[tokio::test]
async fn of_two_connections_the_older_is_closed_without_a_word_to_the_node() {
    let site = TestSite::new(2);
    let mut one = site.start(1).await;
    let (older, _control) = enter(&site, LIFE).await;
    one.wait_connected(2).await;
    let (newer, _control) = enter(&site, LIFE).await;
    one.wait_connected(2).await;
    within(older.closed()).await;
    wait_until(|| one.metrics.connections_ended.get() == 1).await;
    assert!(newer.close_reason().is_none());
    assert!(one.events.try_recv().is_err());
}

/// Ends a box, and waits until its port is free.
async fn end(site: &TestSite, node: u64, ended: TestBox) {
    ended.transport.close().await;
    drop(ended);
    wait_until(|| UdpSocket::bind(site.address(node)).is_ok()).await;
}

async fn assert_refused(connection: &quinn::Connection, reason: Refusal) {
    let quinn::ConnectionError::ApplicationClosed(close) = within(connection.closed()).await else {
        panic!("closed in another way")
    };
    assert_eq!(&*close.reason, reason.as_str().as_bytes());
}

#[tokio::test]
async fn a_box_that_restarts_or_moves_comes_back_and_one_that_was_emptied_does_not() {
    let site = TestSite::new(2);
    let mut one = site.start(1).await;
    let (before, control) = enter(&site, LIFE).await;
    one.wait_connected(2).await;
    drop(control);
    before.close(0u8.into(), b"");
    assert_eq!(one.next().await, Event::Disconnected(NodeId(2)));
    let (moved, _control) = enter(&site, LIFE).await;
    one.wait_connected(2).await;
    moved.close(0u8.into(), b"");
    let (restarted, _control) = enter(&site, Incarnation { boot: 4, nonce: 1 }).await;
    one.wait_connected(2).await;
    restarted.close(0u8.into(), b"");
    for (boot, nonce) in [(1, 8), (3, 7), (4, 2)] {
        let (connection, _control) = enter(&site, Incarnation { boot, nonce }).await;
        assert_refused(&connection, Refusal::EarlierIncarnation).await;
    }
    assert_eq!(one.metrics.refused(Refusal::EarlierIncarnation).get(), 3);
    // It is remembered beyond this box's own restart.
    let file = site.dirs[0].path().join("peers.seen");
    wait_until(|| std::fs::read_to_string(&file).is_ok_and(|text| text.starts_with("2 4 "))).await;
    end(&site, 1, one).await;
    let one = site.start(1).await;
    let (connection, _control) = enter(&site, LIFE).await;
    assert_refused(&connection, Refusal::EarlierIncarnation).await;
    one.wait_refused(Refusal::EarlierIncarnation).await;
}

#[tokio::test]
async fn a_copy_that_starts_beside_the_original_is_refused_and_the_original_stays() {
    let (site, mut one, two) = TestSite::pair().await;
    for boot in [1, 9] {
        let (copy, _control) = enter(&site, Incarnation { boot, nonce: 1 }).await;
        assert_refused(&copy, Refusal::Cloned).await;
    }
    assert_eq!(one.metrics.refused(Refusal::Cloned).get(), 2);
    two.transport.send(NodeId(1), Lane::Control, Bytes::from_static(b"still here")).unwrap();
    assert_eq!(one.frame().await, (Some(Lane::Control), Bytes::from_static(b"still here")));
    assert_eq!(one.metrics.connections_ended.get(), 0);
}

/// As when the machine that both run on stands still: the acknowledgement is not there yet when the time is up.
#[test]
fn a_copy_is_refused_also_when_all_stand_still_while_the_original_is_listened_for() {
    let mut site = TestSite::new(2);
    site.identities[0].members[1].address.clear();
    let site = Arc::new(site);
    let other = site.clone();
    let ((stand_still, stood_still), (end, ended)) =
        (tokio::sync::oneshot::channel(), tokio::sync::oneshot::channel());
    let original = std::thread::spawn(move || {
        run(async {
            let _two = other.start(2).await;
            std::thread::sleep(stood_still.await.unwrap());
            let _ = ended.await;
        });
    });
    run(async {
        let mut one = site.start(1).await;
        one.wait_connected(2).await;
        let (copy, _control) = enter(&site, Incarnation { boot: 9, nonce: 1 }).await;
        // While what may be under way yet is waited for; then the original is asked for a sign of life.
        tokio::time::sleep(Duration::from_millis(40)).await;
        stand_still.send(Duration::from_millis(1300)).unwrap();
        tokio::time::sleep(Duration::from_millis(15)).await;
        std::thread::sleep(Duration::from_millis(1100));
        assert_refused(&copy, Refusal::Cloned).await;
    });
    end.send(()).unwrap();
    original.join().unwrap();
}

#[tokio::test]
async fn a_box_that_was_emptied_is_told_so_itself() {
    let site = TestSite::new(2);
    let (mut one, mut two) = (site.start(1).await, site.start(2).await);
    one.wait_connected(2).await;
    two.wait_connected(1).await;
    end(&site, 2, two).await;
    let mut two = site.start(2).await;
    two.wait_connected(1).await;
    end(&site, 2, two).await;
    std::fs::remove_file(site.dirs[1].path().join("boot")).unwrap();
    let two = site.start(2).await;
    one.wait_refused(Refusal::EarlierIncarnation).await;
    two.wait_refused(Refusal::OwnEarlierIncarnation).await;
    // When box 1 dials, box 2 takes the connection, until box 1 refuses it.
    wait_until(|| !two.transport.peers()[0].connected).await;
}

#[tokio::test]
async fn certificates_that_have_run_out_still_connect() {
    let site = TestSite::new(2);
    for dir in &site.dirs {
        let keys = expire(dir.path());
        assert_eq!(Keys::load(dir.path()).unwrap().key_hash(), keys, "the key is the same");
    }
    let (mut one, mut two) = (site.start(1).await, site.start(2).await);
    one.wait_connected(2).await;
    two.wait_connected(1).await;
}

/// Replaces the certificate by one for the same key that ran out in 2001.
fn expire(dir: &Path) -> KeyHash {
    let key = rcgen::KeyPair::from_pem(&std::fs::read_to_string(dir.join("node.key")).unwrap()).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let pem = params.self_signed(&key).unwrap().pem();
    std::fs::write(dir.join("node.crt"), &pem).unwrap();
    crate::identity::key_hash(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap()
}
