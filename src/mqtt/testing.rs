//! For tests: a Mosquitto process, a subscriber to it, and certificates.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use super::BrokerUrl;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Broker {
    directory: tempfile::TempDir,
    pub(crate) port: u16,
    child: Option<Child>,
    extra: String,
}

impl Broker {
    pub(crate) fn start(extra: &str) -> Broker {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let directory = tempfile::tempdir().unwrap();
        let mut broker = Broker { directory, port, child: None, extra: extra.to_owned() };
        broker.run();
        broker
    }

    pub(crate) fn run(&mut self) {
        let file = self.path("mosquitto.conf");
        let text = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}/\n\
             max_queued_messages 0\nuser root\n{}\n",
            self.port,
            self.directory.path().display(),
            self.extra
        );
        std::fs::write(&file, text).unwrap();
        let started = Command::new("mosquitto")
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(started.expect("these tests need Mosquitto: `cargo xtask verify` installs it"));
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(std::time::Instant::now() < deadline, "Mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Has it write down its sessions, which a kill would make it forget.
    pub(crate) async fn save(&self) {
        let file = self.path("mosquitto.db");
        // There may be an older one; what matters is one that was written after this signal.
        let _ = std::fs::remove_file(&file);
        self.signal(rustix::process::Signal::USR1);
        let saved = async {
            while !file.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, saved).await.expect("Mosquitto saves its sessions");
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(self.child.as_ref().unwrap());
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn url(&self) -> BrokerUrl {
        format!("mqtt://127.0.0.1:{}", self.port).parse().unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `mosquitto_sub` on everything of the site; what it received, in order.
pub(crate) struct Subscriber {
    child: Child,
    pub(crate) received: watch::Receiver<Vec<Value>>,
}

impl Subscriber {
    pub(crate) async fn start(port: u16, extra: &[&str]) -> Subscriber {
        Subscriber::start_as(port, "%j", extra).await
    }

    /// One that can hear any bytes: it has each `payload` in hexadecimal digits.
    pub(crate) async fn start_in_hex(port: u16) -> Subscriber {
        let format = r#"{"topic":"%t","retain":%r,"content_type":"%C","payload":"%x"}"#;
        Subscriber::start_as(port, format, &[]).await
    }

    /// `format`: each message as a line of JSON.
    async fn start_as(port: u16, format: &str, extra: &[&str]) -> Subscriber {
        let mut child = Command::new("mosquitto_sub")
            .args([
                "-V",
                "5",
                "-h",
                "127.0.0.1",
                "-q",
                "1",
                "-t",
                "tally/#",
                "-t",
                "ready",
                "-F",
                format,
                "-p",
            ])
            .arg(port.to_string())
            .args(extra)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, received) = watch::channel(Vec::new());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let value = serde_json::from_str::<Value>(&line).unwrap();
                sender.send_modify(|all| all.push(value));
            }
        });
        let mut subscriber = Subscriber { child, received };
        // Only once it hears its own marker is it certain to be subscribed.
        let mark = async {
            loop {
                let _ = tokio::task::spawn_blocking(move || {
                    Command::new("mosquitto_pub")
                        .args(["-h", "127.0.0.1", "-t", "ready", "-m", "1", "-p"])
                        .arg(port.to_string())
                        .status()
                })
                .await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = mark => {}
            () = subscriber.until(|all| all.iter().any(|one| one["topic"] == "ready")) => {}
        }
        subscriber
    }

    pub(crate) async fn until(&mut self, holds: impl FnMut(&Vec<Value>) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, self.received.wait_for(holds)).await.map(|_| ());
        assert!(waited.is_ok(), "received only {:#?}", &*self.received.borrow());
    }

    pub(crate) fn on(&self, prefix: &str) -> Vec<Value> {
        self.received
            .borrow()
            .iter()
            .filter(|one| one["topic"].as_str().unwrap().starts_with(prefix))
            .cloned()
            .collect()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn payload(message: &Value) -> Value {
    match &message["payload"] {
        Value::String(text) => serde_json::from_str(text).unwrap(),
        other => other.clone(),
    }
}

pub(crate) fn write_authority(directory: &Path, name: &str) -> rcgen::Issuer<'static, rcgen::KeyPair> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(directory.join(format!("{name}.pem")), certificate.pem()).unwrap();
    rcgen::Issuer::new(params, key)
}

pub(crate) fn write_certificate(directory: &Path, authority: &rcgen::Issuer<'static, rcgen::KeyPair>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    std::fs::write(directory.join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
}
