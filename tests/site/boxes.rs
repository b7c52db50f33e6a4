//! A site of boxes: provisioned by the real command, run by the real daemon.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{PATIENCE, Process, free_port, show_log, tallyd, until, within};
use crate::http::Client;

/// The site's name in all tests.
pub(crate) const SITE: &str = "plant7";

/// A site whose boxes live in one scratch directory.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) boxes: Vec<TestBox>,
    directory: tempfile::TempDir,
}

/// One box: its directory and ports stay, its process comes and goes.
#[derive(Debug)]
pub(crate) struct TestBox {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    pub(crate) quic: u16,
    pub(crate) http: u16,
    pub(crate) statsd: u16,
    namespace: Option<PathBuf>,
    /// Run as a witness.
    witness: bool,
    log: PathBuf,
    pub(crate) process: Option<Process>,
}

/// Where a box is to be.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Where the others reach it.
    pub(crate) address: String,
    pub(crate) http: u16,
    pub(crate) statsd: u16,
    /// The file that names its network namespace, if it is not this one.
    pub(crate) namespace: Option<PathBuf>,
}

impl Site {
    /// A site of so many boxes with windows of 1 s, all of them ready.
    pub(crate) fn start(boxes: usize) -> Site {
        Site::start_with(boxes, "1s", "")
    }

    /// With windows of that span, and `extra` in each box's configuration.
    pub(crate) fn start_with(boxes: usize, window: &str, extra: &str) -> Site {
        let mut site = Site::provision(boxes, window, extra);
        site.start_all();
        site
    }

    /// A site whose boxes do not run yet.
    pub(crate) fn provision(boxes: usize, window: &str, extra: &str) -> Site {
        let quic: Vec<u16> = (0..boxes).map(|_| free_port()).collect();
        Site::provision_at(&quic, window, extra)
    }

    /// A site whose boxes have these QUIC ports.
    pub(crate) fn provision_at(quic: &[u16], window: &str, extra: &str) -> Site {
        let here = |quic: &u16| Place {
            address: format!("127.0.0.1:{quic}"),
            http: free_port(),
            statsd: free_port(),
            namespace: None,
        };
        Site::provision_in(quic.iter().map(here).collect(), window, extra)
    }

    /// A site whose boxes are in these places.
    pub(crate) fn provision_in(places: Vec<Place>, window: &str, extra: &str) -> Site {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("site");
        let mut command = tallyd();
        command.args(["provision", "--site", SITE, "--window", window, "--out"]).arg(&out);
        let mut boxes = Vec::new();
        for (number, Place { address, http, statsd, namespace }) in (1..).zip(places) {
            let name = format!("box{number}");
            command.arg("--box").arg(format!("{name}={address}"));
            let quic = address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("HOST:PORT");
            let log = directory.path().join(format!("{name}.log"));
            let directory = out.join(&name);
            boxes.push(TestBox {
                directory,
                name,
                quic,
                http,
                statsd,
                namespace,
                witness: false,
                log,
                process: None,
            });
        }
        let made = command.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        for one in &boxes {
            one.configure(extra);
        }
        Site { boxes, directory }
    }

    /// Boxes that have a configuration and no identity: they wait to found or to join a site, once they are started.
    pub(crate) fn waiting(boxes: usize) -> Site {
        let mut site = Site { boxes: Vec::new(), directory: tempfile::tempdir().unwrap() };
        (0..boxes).for_each(|_| site.add_waiting());
        site
    }

    /// Another one.
    pub(crate) fn add_waiting(&mut self) {
        let name = format!("box{}", self.boxes.len() + 1);
        let one = TestBox::planned(&name, &self.directory.path().join("site"), self.directory.path());
        std::fs::create_dir_all(&one.directory).unwrap();
        let text = format!("[node]\nname = \"{name}\"\n\n[cluster]\nlisten = \"127.0.0.1:{}\"\n", one.quic);
        std::fs::write(one.directory.join("tallyd.toml"), text).unwrap();
        one.configure("");
        self.boxes.push(one);
    }

    /// Makes of a site that never ran one of the first release, whose boxes did not know of levels.
    pub(crate) fn age(&self) {
        for one in &self.boxes {
            let file = one.directory.join("identity.json");
            let mut identity: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            assert_eq!(identity.as_object_mut().unwrap().remove("level"), Some(3.into()));
            std::fs::write(&file, identity.to_string()).unwrap();
        }
    }

    /// A site of two boxes and a witness, which do not run yet.
    pub(crate) fn provision_with_witness() -> (Site, TestBox) {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("site");
        let mut command = tallyd();
        command.args(["provision", "--site", SITE, "--window", "1s", "--out"]).arg(&out);
        let mut all = ["box1", "box2", "w"].map(|name| TestBox::planned(name, &out, directory.path()));
        for one in &all {
            let option = if one.name == "w" { "--witness" } else { "--box" };
            command.arg(option).arg(format!("{}=127.0.0.1:{}", one.name, one.quic));
        }
        let made = command.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        all.iter().for_each(|one| one.configure(""));
        all[2].witness = true;
        let [first, second, witness] = all;
        (Site { boxes: vec![first, second], directory }, witness)
    }

    /// Makes a witness for a site that has none, which does not run yet; tells what was made.
    pub(crate) fn extend_by_witness(&self) -> (TestBox, Value) {
        let out = self.directory.path().join("site");
        let mut one = TestBox::planned("w", &out, self.directory.path());
        one.witness = true;
        let mut command = tallyd();
        command.arg("provision").arg("--extend").arg(&out).args(["--json", "--witness"]);
        let made = command.arg(format!("w=127.0.0.1:{}", one.quic)).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        one.configure("");
        (one, serde_json::from_slice(&made.stdout).unwrap())
    }

    /// Makes a further box, which does not run yet; tells what was made.
    pub(crate) fn extend(&mut self, place: Place) -> Value {
        let Place { address, http, statsd, namespace } = place;
        let out = self.directory.path().join("site");
        let taken = std::fs::read_dir(&out).unwrap().flatten().filter(|entry| entry.path().is_dir()).count();
        let name = format!("box{}", taken + 1);
        let mut command = tallyd();
        command.arg("provision").arg("--extend").arg(&out).args(["--json", "--box"]);
        let made = command.arg(format!("{name}={address}")).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let quic = address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("HOST:PORT");
        let log = self.directory.path().join(format!("{name}.log"));
        let directory = out.join(&name);
        let one =
            TestBox { directory, name, quic, http, statsd, namespace, witness: false, log, process: None };
        one.configure("");
        self.boxes.push(one);
        serde_json::from_slice(&made.stdout).unwrap()
    }

    /// Starts those that do not run, and waits until all can commit.
    pub(crate) fn start_all(&mut self) {
        for one in &mut self.boxes {
            if one.process.is_none() {
                one.start();
            }
        }
        self.until_ready();
    }

    /// Waits until each running box can commit.
    pub(crate) fn until_ready(&mut self) {
        for one in &mut self.boxes {
            if one.process.is_some() {
                one.until_ready();
            }
        }
    }

    /// The box that leads, as those that run agree.
    pub(crate) fn leader(&self) -> usize {
        until("the boxes agree on who leads", || {
            let running: Vec<&TestBox> = self.boxes.iter().filter(|one| one.process.is_some()).collect();
            let statuses: Vec<Value> = running.iter().filter_map(|one| one.try_status()).collect();
            let leader = statuses.first()?["leader"].as_str()?;
            let agreed =
                statuses.len() == running.len() && statuses.iter().all(|one| one["leader"] == leader);
            let at = self.boxes.iter().position(|one| one.name == leader)?;
            (agreed && self.boxes[at].try_status()?["role"] == "leader").then_some(at)
        })
    }

    /// A box that follows.
    pub(crate) fn follower(&self) -> usize {
        (self.leader() + 1) % self.boxes.len()
    }

    pub(crate) fn set(&self, key: &str, value: &str) {
        let body = serde_json::json!({ "value": value }).to_string();
        let path = format!("/v1/settings/{key}");
        let mut client = self.boxes[0].client();
        until("a setting is taken", || {
            let answer = client.request("PUT", &path, &[], body.as_bytes()).ok()?;
            (answer.status == 200).then_some(())
        });
    }

    /// Waits until all boxes show the same digest at the same index; boxes at the same index that
    /// differ are the failure that this looks for.
    pub(crate) fn assert_same_digests(&self) {
        let mut seen: Vec<std::collections::BTreeMap<u64, String>> =
            vec![Default::default(); self.boxes.len()];
        until("all boxes were seen at the same index", || {
            for (one, seen) in self.boxes.iter().zip(&mut seen) {
                let status = one.try_status()?;
                seen.insert(status["applied"].as_u64()?, status["digest"].as_str()?.to_owned());
            }
            let (first, others) = seen.split_first()?;
            let common = |index: &&u64| others.iter().all(|other| other.contains_key(*index));
            let index = first.keys().find(common)?;
            for other in others {
                assert_eq!(first[index], other[index], "the states differ at index {index}");
            }
            Some(())
        });
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for one in &self.boxes {
                show_log(&one.name, &one.log);
            }
            eprintln!("(of the site in {})", self.directory.path().display());
        }
    }
}

impl TestBox {
    /// One on free ports, to be provisioned into `out`.
    fn planned(name: &str, out: &Path, scratch: &Path) -> TestBox {
        TestBox {
            name: name.to_owned(),
            directory: out.join(name),
            quic: free_port(),
            http: free_port(),
            statsd: free_port(),
            namespace: None,
            witness: false,
            log: scratch.join(format!("{name}.log")),
            process: None,
        }
    }

    /// Adds this box's ports and `extra` to the configuration that provision made.
    fn configure(&self, extra: &str) {
        let file = self.directory.join("tallyd.toml");
        let mut text = std::fs::read_to_string(&file).unwrap();
        text.push_str(&format!(
            "\n[api]\nlisten = \"127.0.0.1:{}\"\n\n[ingest.statsd]\nlisten = \"127.0.0.1:{}\"\n\n{extra}\n",
            self.http, self.statsd
        ));
        std::fs::write(&file, text).unwrap();
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = tallyd();
        command.arg("run").args(self.witness.then_some("--witness")).arg("--data-dir").arg(&self.directory);
        command
    }

    /// Starts it; does not wait.
    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts it with more in its environment; does not wait.
    pub(crate) fn start_with(&mut self, environment: &[(&str, &std::path::Path)]) {
        let mut command = self.command();
        command.envs(environment.iter().copied());
        self.start_by(command, None);
    }

    /// Starts it by this command, with its log in this instead of in its file; does not wait.
    pub(crate) fn start_by(&mut self, mut command: Command, log: Option<Stdio>) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let start = || match log {
            Some(log) => Process::start_with_error(&mut command, &self.log, log),
            None => Process::start(&mut command, &self.log),
        };
        self.process = Some(within(self.namespace(), start));
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// Ends it in good order, which must have exit status 0.
    pub(crate) fn terminate(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.signal(Signal::TERM);
        let status = process.wait();
        assert_eq!(status.code(), Some(0), "{}: {status}", self.name);
    }

    /// Waits until it can commit; one that ended by itself is a failure at once.
    pub(crate) fn until_ready(&mut self) {
        let mut client = self.client().patient_for(std::time::Duration::from_secs(3));
        let process = self.process.as_mut().expect("it runs");
        until(&format!("{} can commit", self.name), || {
            if let Some(status) = process.ended() {
                panic!("{} ended by itself ({status}): {}", self.name, process.output());
            }
            (client.get("/readyz").ok()?.status == 200).then_some(())
        });
    }

    fn namespace(&self) -> Option<&Path> {
        self.namespace.as_deref()
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.http).inside(self.namespace.clone())
    }

    pub(crate) fn try_status(&self) -> Option<Value> {
        let answer = self.client().patient_for(std::time::Duration::from_secs(3)).get("/v1/status").ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    pub(crate) fn status(&self) -> Value {
        until(&format!("{} tells its status", self.name), || self.try_status())
    }

    /// Adds and must be told the total.
    pub(crate) fn add(&self, series: &str, amount: u64) -> u64 {
        let answer = self.client().post(&format!("/v1/counters/{series}"), &format!("{{\"add\":{amount}}}"));
        answer.unwrap().ok()["total"].as_u64().unwrap()
    }

    /// A linearizable read; 0 if there is no such series.
    pub(crate) fn total(&self, series: &str) -> i64 {
        let mut client = self.client();
        let mut said = String::new();
        until(&format!("{} reads {series}", self.name), || {
            let answer = client.get(&format!("/v1/series/{series}"));
            match &answer {
                Ok(answer) if answer.status == 200 => return answer.json()["total"].as_i64(),
                Ok(answer) if answer.status == 404 => return Some(0),
                _ => {}
            }
            // For whoever wants to know why it waited in vain.
            let says = answer.map_or_else(|error| error.to_string(), |answer| answer.text());
            if said != says {
                eprintln!("{} does not read {series}: {says}", self.name);
                said = says;
            }
            None
        })
    }

    /// Waits until a total is reached; one that goes beyond it is the failure that is looked for.
    pub(crate) fn until_total(&self, series: &str, expected: i64) {
        until(&format!("{series} comes to {expected} (now {})", self.total(series)), || {
            let total = self.total(series);
            assert!(total <= expected, "{series} is {total}, more than the {expected} that were counted");
            (total == expected).then_some(())
        });
    }

    /// Sends one datagram to its StatsD port.
    pub(crate) fn statsd(&self, datagram: &str) {
        let socket = within(self.namespace(), || UdpSocket::bind("127.0.0.1:0")).unwrap();
        socket.send_to(datagram.as_bytes(), ("127.0.0.1", self.statsd)).unwrap();
    }

    /// What it wrote, in all its lives.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until its log says something.
    pub(crate) fn until_log(&self, text: &str) {
        until(&format!("the log of {} says {text:?} (within {PATIENCE:?})", self.name), || {
            self.log().contains(text).then_some(())
        });
    }
}
