//! TLS to a real Mosquitto: which certificates are taken, and what is said of the others.

use super::broker_harness::*;
use super::*;

#[tokio::test]
async fn mqtts_checks_the_brokers_certificate() {
    let keys = tempfile::tempdir().unwrap();
    write_certificate(keys.path(), &write_authority(keys.path(), "ca"));
    write_authority(keys.path(), "rogue");
    let tls = format!("keyfile {0}/key.pem\ncertfile {0}/cert.pem", keys.path().display());
    let broker = Broker::start(&tls);
    let site = Site::new();
    site.lead("box1", 1);
    site.count([0]);
    let url: BrokerUrl = format!("mqtts://localhost:{}", broker.port).parse().unwrap();
    let config = |name: &str| UpstreamConfig {
        url: Some(url.clone()),
        ca_file: Some(keys.path().join(name)),
        ..UpstreamConfig::default()
    };
    let refused = site.start("box1", &config("rogue.pem"));
    trouble(&refused, "name that authority's certificate").await;
    assert_eq!((refused.shared().status().connections, site.delivered()), (0, 0));
    refused.stop(false).await;
    let upstream = site.start("box1", &config("ca.pem"));
    site.until_delivered(1).await;
    upstream.stop(true).await;
}

/// Runs openssl in a directory.
fn openssl(directory: &std::path::Path, arguments: &str) {
    let output = std::process::Command::new("openssl")
        .current_dir(directory)
        .args(arguments.split_whitespace())
        .output()
        .expect("these tests need openssl");
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn tls_broker(keys: &std::path::Path, more: &str) -> Broker {
    Broker::start(&format!("keyfile {0}/key.pem\ncertfile {0}/cert.pem\n{more}", keys.display()))
}

fn config(broker: &Broker, host: &str, ca_file: std::path::PathBuf) -> UpstreamConfig {
    let url = format!("mqtts://{host}:{}", broker.port).parse().unwrap();
    UpstreamConfig { url: Some(url), ca_file: Some(ca_file), ..UpstreamConfig::default() }
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
        let site = Site::new();
        site.lead("box1", 1);
        site.count([0]);
        let upstream = site.start("box1", &config(&broker, "localhost", keys.path().join("cert.pem")));
        site.until_delivered(1).await;
        upstream.stop(true).await;
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
    let site = Site::new();
    site.lead("box1", 1);
    let refused = site.start("box1", &config(&broker, "localhost", pinned));
    trouble(&refused, "the broker's certificate is not accepted").await;
    assert_eq!(refused.shared().status().connections, 0);
    refused.stop(false).await;
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
        let site = Site::new();
        site.lead("box1", 1);
        let refused = site.start("box1", &config(&broker, "localhost", keys.path().join("ca.pem")));
        trouble(&refused, text).await;
        refused.stop(false).await;
    }
    // TLS to a port that has none.
    let plain = Broker::start("");
    let site = Site::new();
    site.lead("box1", 1);
    let refused = site.start("box1", &config(&plain, "localhost", keys.path().join("ca.pem")));
    trouble(&refused, "TLS port (8883 as a rule)").await;
    refused.stop(false).await;
    // And the other way round.
    let broker = tls_broker(keys.path(), "");
    let url = format!("mqtt://localhost:{}", broker.port).parse().unwrap();
    let refused = site.start("box1", &UpstreamConfig { url: Some(url), ..UpstreamConfig::default() });
    trouble(&refused, "mqtts://").await;
    refused.stop(false).await;
}
