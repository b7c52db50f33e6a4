//! Sites of real processes on loopback, in a directory of their own; everything ends with the test.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) const TALLYD: &str = env!("CARGO_BIN_EXE_tallyd");

/// How long a condition may take to come true; long, since the machine may be busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) boxes: Vec<Process>,
}

pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) data: PathBuf,
    pub(crate) api: String,
    pub(crate) statsd: String,
    extra: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Site {
    /// A provisioned site of so many boxes with windows of a second, all started.
    pub(crate) fn start(boxes: usize, extra: &[(&str, &str)]) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("site");
        let names: Vec<String> = (1..=boxes).map(|number| format!("box{number}")).collect();
        let mut provision = Command::new(TALLYD);
        provision.args(["provision", "--site", "plant7", "--window", "1s", "--out"]).arg(&out);
        for name in &names {
            provision.arg("--box").arg(format!("{name}=127.0.0.1:{}", free_udp_port()));
        }
        let made = provision.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let boxes = names
            .iter()
            .map(|name| {
                let mut process = Process::new(dir.path(), name, out.join(name), extra);
                process.start();
                process
            })
            .collect();
        Site { dir, boxes }
    }

    pub(crate) fn urls(&self) -> String {
        self.boxes.iter().map(Process::url).collect::<Vec<_>>().join(",")
    }

    /// The place of the box that leads, once one does.
    pub(crate) fn leader(&self) -> usize {
        wait("a leader", || {
            self.boxes.iter().position(|each| each.is_up() && each.status()["role"] == "leader")
        })
    }

    /// Waits until all boxes have applied the same entries, and compares their digests.
    pub(crate) fn digests_agree(&self) {
        wait("equal digests at an equal index", || {
            let of = |each: &Process| {
                let status = each.status();
                (status["applied"].clone(), status["digest"].clone())
            };
            let first = of(&self.boxes[0]);
            let same_index = self.boxes.iter().map(of).collect::<Vec<_>>();
            if same_index.iter().any(|each| each.0 != first.0) {
                return None;
            }
            assert!(same_index.iter().all(|each| each.1 == first.1), "digests differ: {same_index:?}");
            Some(())
        });
    }
}

impl Process {
    pub(crate) fn new(dir: &Path, name: &str, data: PathBuf, extra: &[(&str, &str)]) -> Process {
        Process {
            name: name.to_owned(),
            data,
            api: format!("127.0.0.1:{}", free_tcp_port()),
            statsd: format!("127.0.0.1:{}", free_udp_port()),
            extra: extra.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            log: dir.join(format!("{name}.log")),
            child: None,
        }
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(TALLYD);
        command.args(["run", "--data-dir"]).arg(&self.data);
        command.env("TALLYD_API_LISTEN", &self.api).env("TALLYD_INGEST_STATSD_LISTEN", &self.statsd);
        command.envs(self.extra.iter().map(|(key, value)| (key, value)));
        command
    }

    pub(crate) fn start(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.api)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and its exit status.
    pub(crate) fn stop(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        child.wait().unwrap()
    }

    pub(crate) fn status(&self) -> Value {
        self.get("/v1/status").map_or(Value::Null, |(_, body)| body)
    }

    pub(crate) fn ready(&self) {
        wait(&format!("{} to be ready", self.name), || (self.status()["ready"] == true).then_some(()));
    }

    pub(crate) fn get(&self, path: &str) -> Option<(u16, Value)> {
        self.request("GET", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> (u16, Value) {
        self.request("POST", path, &[], body.as_bytes()).expect("an answer")
    }

    /// One request on a connection of its own; `None` if there was no whole answer.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<(u16, Value)> {
        let mut stream = TcpStream::connect(&self.api).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.api);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body).ok()?;
        answer(stream)
    }

    pub(crate) fn total(&self, series: &str) -> Option<i64> {
        let (status, body) = self.get(&format!("/v1/series/{series}"))?;
        (status == 200).then(|| body["total"].as_i64().expect("a total"))
    }

    pub(crate) fn send_statsd(&self, lines: &str) {
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(lines.as_bytes(), &self.statsd).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            println!("--- log of {}:\n{log}", self.name);
        }
    }
}

/// Reads an answer whose connection is closed after it.
pub(crate) fn answer(stream: TcpStream) -> Option<(u16, Value)> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = Vec::new();
    reader.read_to_end(&mut body).ok()?;
    Some((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

/// Waits for a condition; fails when it does not come true.
pub(crate) fn wait<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn free_tcp_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn free_udp_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
