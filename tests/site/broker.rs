//! A Mosquitto of the test's own, and a subscriber that keeps what it received.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Process, free_port, show_log, until};

/// What is missing if these cannot be started.
const NEEDED: &str = "these tests need Mosquitto (packages mosquitto and mosquitto-clients): \
                      `cargo xtask verify` installs it";

/// A broker whose port and files stay while its process comes and goes.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) port: u16,
    directory: tempfile::TempDir,
    process: Option<Process>,
    /// Further lines of its configuration.
    extra: String,
    /// And those that hold until it is restarted with others.
    passing: String,
}

impl Broker {
    pub(crate) fn start() -> Broker {
        let directory = tempfile::tempdir().unwrap();
        Broker::run_first(directory, String::new())
    }

    fn run_first(directory: tempfile::TempDir, extra: String) -> Broker {
        let mut broker =
            Broker { port: free_port(), directory, process: None, extra, passing: String::new() };
        broker.run();
        broker
    }

    /// One that lets everybody publish to these topics only.
    pub(crate) fn start_with_rules(topics: &[&str]) -> Broker {
        let directory = tempfile::tempdir().unwrap();
        let rules = directory.path().join("acl");
        write_rules(&rules, topics);
        Broker::run_first(directory, format!("acl_file {}\n", rules.display()))
    }

    /// Changes the topics that everybody may publish to.
    pub(crate) fn allow(&self, topics: &[&str]) {
        write_rules(&self.directory.path().join("acl"), topics);
        self.process.as_ref().expect("it runs").signal(Signal::HUP);
    }

    /// Ends it in good order, in which it writes down its sessions and what they have not received, and starts it with
    /// these lines in its configuration, besides its own.
    pub(crate) fn restart_with(&mut self, lines: &str) {
        let mut process = self.process.take().expect("it runs");
        process.signal(Signal::TERM);
        process.wait();
        lines.clone_into(&mut self.passing);
        self.run();
    }

    /// Starts it again after a kill.
    pub(crate) fn run(&mut self) {
        let present = Command::new("mosquitto").arg("-h").output();
        assert!(present.is_ok(), "{NEEDED}");
        let file = self.directory.path().join("mosquitto.conf");
        let text = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}/\n\
             max_queued_messages 0\nuser root\n{}{}",
            self.port,
            self.directory.path().display(),
            self.extra,
            self.passing,
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("mosquitto");
        command.arg("-v").arg("-c").arg(&file);
        let process = self.process.insert(Process::start(&mut command, &self.directory.path().join("log")));
        until("Mosquitto listens", || {
            assert!(process.ended().is_none(), "Mosquitto ended: {}", process.output());
            std::net::TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// Holds it: it takes in nothing and acknowledges nothing, and its connections stay.
    pub(crate) fn pause(&self) {
        self.process.as_ref().expect("it runs").signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.process.as_ref().expect("it runs").signal(Signal::CONT);
    }

    /// Has it write down its sessions, which a kill would make it forget.
    pub(crate) fn save(&self) {
        let file = self.database();
        // There may be an older one; what matters is one that was written after this signal.
        let _ = std::fs::remove_file(&file);
        self.process.as_ref().expect("it runs").signal(Signal::USR1);
        until("Mosquitto saves its sessions", || file.exists().then_some(()));
    }

    fn database(&self) -> PathBuf {
        self.directory.path().join("mosquitto.db")
    }

    /// The configuration of a box that publishes here.
    pub(crate) fn config(&self) -> String {
        format!("[upstream]\nurl = \"mqtt://127.0.0.1:{}\"\n", self.port)
    }

    /// A subscriber with a session of its own that outlives connections.
    pub(crate) fn subscribe(&self) -> Subscriber {
        self.subscribe_as("the-dashboard")
    }

    /// A subscriber with a session of this name.
    pub(crate) fn subscribe_as(&self, name: &str) -> Subscriber {
        Subscriber::start(self.port, name)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show_log("mosquitto", &self.directory.path().join("log"));
        }
    }
}

fn write_rules(file: &Path, topics: &[&str]) {
    let rules: Vec<String> = topics.iter().map(|topic| format!("topic write {topic}\n")).collect();
    // A pattern, since Mosquitto knows no others for those who are not connected, and queues nothing that they may not read.
    std::fs::write(file, rules.concat() + "pattern read #\n").unwrap();
}

/// `mosquitto_sub` on everything.
#[derive(Debug)]
pub(crate) struct Subscriber {
    child: Child,
    received: Arc<Mutex<Vec<Message>>>,
}

/// A message as it came.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) topic: String,
    /// Byte for byte.
    pub(crate) payload: String,
}

impl Message {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.payload).unwrap_or_else(|error| panic!("{error}: {}", self.payload))
    }
}

impl Subscriber {
    fn start(port: u16, name: &str) -> Subscriber {
        let mut child = Command::new("mosquitto_sub")
            .args(["-V", "5", "-h", "127.0.0.1", "-q", "1", "-c", "-i", name, "-x", "3600"])
            .args(["-F", "%j", "-t", "tally/#", "-t", "marker", "-p"])
            .arg(port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{error}: {NEEDED}"));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let received: Arc<Mutex<Vec<Message>>> = Arc::default();
        let sink = received.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let line: Value = serde_json::from_str(&line).unwrap_or_default();
                let text = |member: &str| line[member].as_str().unwrap_or_default().to_owned();
                sink.lock().unwrap().push(Message { topic: text("topic"), payload: text("payload") });
            }
        });
        let subscriber = Subscriber { child, received };
        // Only once it hears its own marker is it certain to be subscribed.
        until("the subscriber is subscribed", || {
            let port = port.to_string();
            let mark = ["-h", "127.0.0.1", "-t", "marker", "-m", "1", "-p", &port];
            assert!(Command::new("mosquitto_pub").args(mark).status().expect(NEEDED).success());
            subscriber.on("marker").first().map(|_| ())
        });
        subscriber
    }

    /// What came on a topic, in order, repetitions included.
    pub(crate) fn at(&self, topic: &str) -> Vec<Message> {
        let mut messages = self.on(topic);
        messages.retain(|message| message.topic == topic);
        messages
    }

    /// What came on topics that begin so, in order, repetitions included.
    pub(crate) fn on(&self, prefix: &str) -> Vec<Message> {
        let received = self.received.lock().unwrap();
        received.iter().filter(|message| message.topic.starts_with(prefix)).cloned().collect()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
