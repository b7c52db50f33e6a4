//! TLS to a real Mosquitto: which certificates are taken, and what is said of the others.

use std::path::{Path, PathBuf};

use super::testing::*;
use super::*;

/// Runs openssl in a directory.
fn openssl(directory: &Path, arguments: &str) {
    let output = std::process::Command::new("openssl")
        .current_dir(directory)
        .args(arguments.split_whitespace())
        .output()
        .expect("these tests need openssl");
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn tls_broker(keys: &Path, more: &str) -> Broker {
    Broker::start(&format!("keyfile {0}/key.pem\ncertfile {0}/cert.pem\n{more}", keys.display()))
}

/// What comes of a connection to `SCHEME://localhost`, by the authorities of a file.
async fn tried(broker: &Broker, scheme: &str, ca_file: PathBuf) -> Result<(), String> {
    let url: BrokerUrl = format!("{scheme}://localhost:{}", broker.port).parse().unwrap();
    let access = Access {
        section: "upstream",
        url: &url,
        password_file: None,
        credential: "none",
        ca_file: Some(&ca_file),
    };
    let target = access.open("tallyd-test".to_owned()).unwrap();
    probe(target, "box1".to_owned()).await
}

#[track_caller]
fn assert_told(result: Result<(), String>, text: &str) {
    let told = result.expect_err(text);
    assert!(told.contains(text), "{told}");
}

#[tokio::test]
async fn mqtts_checks_the_brokers_certificate() {
    let keys = tempfile::tempdir().unwrap();
    write_certificate(keys.path(), &write_authority(keys.path(), "ca"));
    write_authority(keys.path(), "rogue");
    let broker = tls_broker(keys.path(), "");
    assert_told(
        tried(&broker, "mqtts", keys.path().join("rogue.pem")).await,
        "name that authority's certificate (PEM) in upstream.ca_file",
    );
    assert_eq!(tried(&broker, "mqtts", keys.path().join("ca.pem")).await, Ok(()));
}

#[tokio::test]
async fn a_self_signed_certificate_given_as_ca_file_is_taken_whatever_it_says() {
    // As openssl makes them: one that is an authority's, for another name; and one of version 1.
    let keys = tempfile::tempdir().unwrap();
    let make = "-newkey rsa:2048 -nodes -keyout key.pem -subj /CN=other.example";
    for (version, tls) in [(3, "tls_version tlsv1.2"), (3, ""), (1, "")] {
        if version == 3 {
            openssl(keys.path(), &format!("req -x509 {make} -days 2 -out cert.pem"));
        } else {
            openssl(keys.path(), &format!("req {make} -out request.pem"));
            openssl(keys.path(), "x509 -req -in request.pem -signkey key.pem -days 2 -out cert.pem");
        }
        let broker = tls_broker(keys.path(), tls);
        assert_eq!(tried(&broker, "mqtts", keys.path().join("cert.pem")).await, Ok(()), "{version} {tls}");
    }
}

#[tokio::test]
async fn another_broker_with_the_same_certificate_but_not_its_key_is_refused() {
    let keys = tempfile::tempdir().unwrap();
    write_certificate(keys.path(), &write_authority(keys.path(), "ca"));
    let pinned = keys.path().join("pinned.pem");
    std::fs::copy(keys.path().join("cert.pem"), &pinned).unwrap();
    // Another certificate for the same name by an authority of the same name.
    write_certificate(keys.path(), &write_authority(keys.path(), "ca"));
    let broker = tls_broker(keys.path(), "");
    assert_told(tried(&broker, "mqtts", pinned).await, "the broker's certificate is not accepted");
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_said_with_what_to_do() {
    let keys = tempfile::tempdir().unwrap();
    openssl(keys.path(), "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -subj /CN=ca -days 2 -out ca.pem");
    let sign = "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem";
    openssl(keys.path(), "req -newkey rsa:2048 -nodes -keyout key.pem -subj /CN=localhost -out request.pem");
    std::fs::write(keys.path().join("names"), "subjectAltName=DNS:broker.example").unwrap();
    std::fs::write(keys.path().join("own"), "subjectAltName=DNS:localhost").unwrap();
    let expired = "-days -1 -extfile own";
    for (extra, text) in
        [("-days 2", "subjectAltName"), ("-days 2 -extfile names", "broker.example"), (expired, "clock")]
    {
        openssl(keys.path(), &format!("{sign} {extra}"));
        let broker = tls_broker(keys.path(), "");
        assert_told(tried(&broker, "mqtts", keys.path().join("ca.pem")).await, text);
    }
    // TLS to a port that has none.
    let plain = Broker::start("");
    assert_told(tried(&plain, "mqtts", keys.path().join("ca.pem")).await, "TLS port (8883 as a rule)");
    // And the other way round.
    let broker = tls_broker(keys.path(), "");
    assert_told(tried(&broker, "mqtt", keys.path().join("ca.pem")).await, "mqtts://");
}
