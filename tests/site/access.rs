//! Who may ask what of a box: over the admin socket, from its machine, with a token, over TLS.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use crate::boxes::{Site, TestBox};
use crate::browser::Browser;
use crate::harness::{tallyd, until};
use crate::http::{Answer, read_answer};
use crate::members::try_told;

/// A request that passed a proxy.
const FORWARDED: (&str, &str) = ("x-forwarded-for", "192.0.2.7");

/// A command that must be done; what it printed.
fn told(one: &TestBox, arguments: &[&str]) -> String {
    let output = try_told(one, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn create(one: &TestBox, name: &str, role: &str) -> String {
    told(one, &["access", "create", name, "--role", role]).trim().to_owned()
}

/// Asks as somebody from elsewhere, with a token.
fn with(one: &TestBox, token: &str, method: &str, path: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [FORWARDED, ("authorization", bearer.as_str())];
    one.client().request(method, path, &headers, body.as_bytes()).unwrap()
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn whoever_may_open_the_socket_administers_and_others_of_the_machine_read_and_count() {
    let mut site = Site::start(1);
    let body = br#"{"value":"3s"}"#;
    let one = &site.boxes[0];
    let mode = std::fs::metadata(one.directory.join("tallyd.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o117, 0, "for its owner, and the group tallyd where there is one");
    assert_eq!(one.add("parts", 5), 5);
    let refused = one.client().request("PUT", "/v1/settings/window.grace", &[], body).unwrap();
    assert_eq!((refused.status, refused.problem()), (401, "unauthorized".to_owned()));
    assert!(refused.text().contains(&one.admin_url()), "{}", refused.text());
    assert_eq!(one.admin().request("PUT", "/v1/settings/window.grace", &[], body).unwrap().status, 200);
    let user = rustix::process::getuid().as_raw();
    one.until_log(&format!("({user}) over the admin socket: 200"));
    assert!(one.log().contains("PUT /v1/settings/window.grace by user "), "{}", one.log());

    // Whoever brought it.
    for mut client in [one.client(), one.admin()] {
        assert_eq!(client.request("GET", "/v1/status", &[FORWARDED], b"").unwrap().status, 401);
        assert_eq!(
            client.request("PUT", "/v1/settings/window.grace", &[FORWARDED], body).unwrap().status,
            401
        );
        assert_eq!(client.request("GET", "/healthz", &[FORWARDED], b"").unwrap().status, 200);
    }

    // The command line finds the socket by the data directory.
    let mut command = tallyd();
    command.args(["settings", "window.grace", "4s", "--data-dir"]).arg(&one.directory);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", error(&output));

    // What a killed box leaves does not keep the next one out, and no other box takes a living one's.
    site.boxes[0].kill();
    site.start_all();
    let one = &site.boxes[0];
    assert_eq!(one.admin().request("PUT", "/v1/settings/window.grace", &[], body).unwrap().status, 200);
    let other = tempfile::tempdir().unwrap();
    let mut command = tallyd();
    command.args(["run", "--data-dir"]).arg(other.path());
    command.env("TALLYD_API_SOCKET", one.directory.join("tallyd.sock"));
    let port = crate::harness::free_port();
    command.env("TALLYD_API_LISTEN", format!("127.0.0.1:{port}"));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error(&output).contains("api.socket") && error(&output).contains("another tallyd"), "{output:?}");
    assert_eq!(one.admin().get("/v1/tokens").unwrap().status, 200);
    site.boxes[0].terminate();
    assert!(!site.boxes[0].directory.join("tallyd.sock").exists());
}

#[test]
fn a_token_is_good_at_every_box_for_its_role_until_it_is_revoked_and_wrong_ones_are_bounded() {
    let site = Site::start(3);
    let token = create(&site.boxes[0], "press", "count");
    for one in &site.boxes {
        // It comes with the log: a list waits for what is committed.
        assert!(told(one, &["access", "list"]).contains("press"));
        assert_eq!(with(one, &token, "POST", "/v1/counters/parts", r#"{"add":2}"#).status, 200);
        let refused = with(one, &token, "DELETE", "/v1/members/box3", "");
        assert_eq!((refused.status, refused.problem()), (403, "role-too-low".to_owned()));
    }
    let admin = create(&site.boxes[1], "office", "admin");
    assert!(told(&site.boxes[2], &["access", "list"]).contains("office"));
    let set = with(&site.boxes[2], &admin, "PUT", "/v1/settings/window.grace", r#"{"value":"3s"}"#);
    assert_eq!(set.status, 200, "{}", set.text());
    site.boxes[2].until_log("by the token \"office\" from 127.0.0.1: 200");
    let listed = told(&site.boxes[1], &["access", "list"]);
    assert!(listed.contains("press") && listed.contains("when revoked"), "{listed}");
    let again = try_told(&site.boxes[1], &["access", "create", "press", "--role", "read"]);
    assert_eq!(again.status.code(), Some(1), "{}", error(&again));

    told(&site.boxes[2], &["access", "revoke", "press"]);
    let revoked = Instant::now();
    for one in &site.boxes {
        until("the token is refused", || {
            (with(one, &token, "GET", "/v1/status", "").status == 401).then_some(())
        });
    }
    assert!(revoked.elapsed() < Duration::from_secs(1), "refused everywhere after {:?}", revoked.elapsed());

    let one = &site.boxes[0];
    let guess = || with(one, "tallya1-00000-00000-00000-00000-00000-00000", "GET", "/v1/status", "");
    let last = until("wrong tokens are not even looked at", || {
        let answer = guess();
        assert!(answer.status == 401 || answer.status == 429, "{}", answer.text());
        (answer.status == 429).then_some(answer)
    });
    assert_eq!(last.problem(), "too-many-tries");
    let wait: u64 = last.header("retry-after").unwrap().parse().unwrap();
    assert!((30..=60).contains(&wait), "{wait}");
    assert_eq!(
        with(one, &admin, "GET", "/v1/status", "").status,
        429,
        "nor right ones, else they could be guessed"
    );
    assert_eq!(one.total("parts"), 6, "who needs no token is not concerned");
    for one in &site.boxes {
        for secret in [&token, &admin] {
            assert!(!one.log().contains(&secret[8..19]), "{}", one.log());
        }
    }
}

/// Asks over TLS and takes only the certificate in this file.
fn over_tls(port: u16, certificate: &Path, headers: &[(&str, &str)]) -> Answer {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(session, TcpStream::connect(("127.0.0.1", port)).unwrap());
    let mut head = format!("GET /v1/status HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    read_answer(&mut BufReader::new(stream)).unwrap()
}

/// Starts a box that others could reach, and waits until it can commit.
fn start_open(one: &mut TestBox, more: &[(&str, &Path)]) {
    let listen = format!("0.0.0.0:{}", one.http);
    one.start_with(&[&[("TALLYD_API_LISTEN", Path::new(&listen))], more].concat());
    let ready = || (one.admin().get("/readyz").ok()?.status == 200).then_some(());
    until("it can commit", ready);
}

fn status(one: &TestBox) -> Value {
    one.admin().get("/v1/status").unwrap().ok()
}

#[test]
fn beyond_loopback_connections_are_encrypted_and_a_pin_vouches_for_the_box() {
    let mut site = Site::provision(1, "1s", "");
    start_open(&mut site.boxes[0], &[]);
    let one = &site.boxes[0];
    let fingerprint = status(one)["api"]["fingerprint"].as_str().unwrap().to_owned();
    one.until_log(&format!("#sha256={fingerprint}"));
    let (certificate, key) = (one.directory.join("api.crt"), one.directory.join("api.key"));
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(over_tls(one.http, &certificate, &[FORWARDED]).status, 401);
    let token = create(one, "reader", "read");
    let bearer = format!("Bearer {token}");
    let asked = over_tls(one.http, &certificate, &[FORWARDED, ("authorization", &bearer)]);
    assert_eq!(asked.status, 200, "{}", asked.text());

    let file = one.directory.join("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let get = |url: &str| {
        let mut command = tallyd();
        command.args(["status", "--timeout", "5s", "--url", url, "--token-file"]).arg(&file);
        command.output().unwrap()
    };
    let https = format!("https://127.0.0.1:{}", one.http);
    let output = get(&format!("{https}#sha256={fingerprint}"));
    assert!(output.status.success(), "{}", error(&output));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains(&format!("#sha256={fingerprint}")), "{said}");
    for (url, code, says) in [
        (https.clone(), 3, format!("--url {https}#sha256={fingerprint}")),
        (
            format!("{https}#sha256={}", "ab".repeat(32)),
            3,
            "somebody in between; nothing was sent".to_owned(),
        ),
        (format!("http://127.0.0.1:{}", one.http), 1, "this port speaks TLS: use https://".to_owned()),
        (format!("http://192.0.2.1:{}", one.http), 2, "could be read on its way".to_owned()),
    ] {
        let output = get(&url);
        assert_eq!(output.status.code(), Some(code), "{url}: {}", error(&output));
        assert!(error(&output).contains(&says), "{url}: {}", error(&output));
    }

    // It keeps its certificate.
    site.boxes[0].terminate();
    start_open(&mut site.boxes[0], &[]);
    assert_eq!(status(&site.boxes[0])["api"]["fingerprint"], fingerprint.as_str());
    // Anybody may read: then without TLS, and no token is taken from elsewhere.
    site.boxes[0].terminate();
    start_open(&mut site.boxes[0], &[("TALLYD_API_ANONYMOUS", Path::new("read"))]);
    let one = &site.boxes[0];
    assert!(status(one)["api"]["fingerprint"].is_null());
    let mut client = one.client();
    assert_eq!(client.request("GET", "/v1/status", &[FORWARDED], b"").unwrap().status, 200);
    let added = client.request("POST", "/v1/counters/a", &[FORWARDED], br#"{"add":1}"#).unwrap();
    assert_eq!(added.status, 401);
    let output = get(&https);
    assert_eq!(output.status.code(), Some(3));
    assert!(error(&output).contains("does not speak TLS"), "{}", error(&output));
}

#[test]
fn a_link_opens_the_page_and_leaves_no_token_in_the_address() {
    let token_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token_file.path(), "a-token-of-the-old-kind\n").unwrap();
    let mut site = Site::provision(1, "1s", "");
    let one = &mut site.boxes[0];
    one.start_with(&[("TALLYD_API_TOKEN_FILE", token_file.path())]);
    one.until_ready();
    one.admin().post("/v1/counters/coffee", r#"{"add":3}"#).unwrap().ok();
    let page = format!("http://127.0.0.1:{}/", one.http);

    let mut without = Browser::open(&page, 800);
    without.until("document.querySelector('#login').hidden === false");

    let refused = try_told(one, &["access", "link"]);
    assert_eq!(refused.status.code(), Some(3), "it listens on this machine only");
    assert!(error(&refused).contains("api.listen"), "{}", error(&refused));
    let shown = told(one, &["access", "link", "--name", "phone", "--page", &page]);
    let link = shown.lines().find(|line| line.starts_with("http")).unwrap();
    assert!(link.starts_with(&format!("{page}#tallya1-")), "{link}");
    assert!(shown.contains('\u{2588}') && shown.contains("role read, good for 90 d"), "{shown}");
    let mut browser = Browser::open(link, 360);
    browser.until("document.querySelectorAll('#series li').length === 1");
    browser.until("document.querySelector('#verdict').textContent.startsWith('works; ')");
    assert_eq!(browser.value("location.href"), page.as_str());
    assert_eq!(browser.value("sessionStorage.getItem('token').slice(0, 8)"), "tallya1-");
    assert_eq!(browser.value("document.querySelector('#login').hidden"), true);
    let secret = &link[link.len() - 20..];
    assert!(!one.log().contains(secret));

    told(one, &["access", "revoke", "phone"]);
    browser.until("document.querySelector('#login').hidden === false");
    assert_eq!(
        browser.value("sessionStorage.getItem('token')"),
        Value::Null,
        "it is not tried again and again"
    );
}
