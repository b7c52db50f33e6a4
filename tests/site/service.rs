//! What a service manager hears: that the box is ready, how it is, that it is alive; and how its journal gets the log.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;

use crate::boxes::{Site, TestBox};
use crate::harness::{PATIENCE, Process, tallyd};

/// What a box says to its service manager.
struct Manager {
    socket: UnixDatagram,
    directory: tempfile::TempDir,
}

impl Manager {
    fn new() -> Manager {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { socket, directory }
    }

    /// Starts the box under this manager, with this watchdog.
    fn start(&self, one: &mut TestBox, watchdog: Option<Duration>) {
        let mut command = one.command();
        command.env("NOTIFY_SOCKET", self.directory.path().join("notify"));
        if let Some(watchdog) = watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        one.process = Some(Process::start(&mut command, &self.directory.path().join("log")));
    }

    /// The next notification.
    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("the box notifies in time");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// Reads until a notification has this in it.
    fn until(&self, text: &str) -> String {
        let mut all = Vec::new();
        while !all.last().is_some_and(|last: &String| last.contains(text)) {
            assert!(all.len() < 1000, "{text:?} did not come: {all:?}");
            all.push(self.next());
        }
        all.pop().unwrap_or_default()
    }
}

#[test]
fn the_status_line_follows_role_and_quorum_at_once() {
    let mut site = Site::provision(3, "1s", "");
    let manager = Manager::new();
    let (first, others) = site.boxes.split_first_mut().unwrap();
    manager.start(first, None);
    assert_eq!(manager.next().trim(), "READY=1");
    // Without a watchdog the line is told again only each minute: what comes sooner is a change.
    manager.until("does NOT count: ");
    others.iter_mut().for_each(TestBox::start);
    manager.until("works; tolerates 1 failing");
    others[0].process.take().unwrap().kill();
    manager.until("works; tolerates none: box2 is away");
    first.process.as_ref().unwrap().signal(Signal::TERM);
    manager.until("STOPPING=1");
}

#[test]
fn the_watchdog_is_fed_while_the_loop_goes_round_and_not_while_it_stands() {
    let mut site = Site::provision(1, "1s", "");
    let manager = Manager::new();
    let watchdog = Duration::from_millis(300);
    manager.start(&mut site.boxes[0], Some(watchdog));
    for _ in 0..3 {
        manager.until("WATCHDOG=1");
    }
    let process = site.boxes[0].process.as_ref().unwrap();
    process.signal(Signal::STOP);
    // What was sent before is read first.
    manager.socket.set_read_timeout(Some(10 * watchdog)).unwrap();
    let mut buffer = [0; 4096];
    while manager.socket.recv(&mut buffer).is_ok() {}
    process.signal(Signal::CONT);
    manager.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    manager.until("WATCHDOG=1");
}

#[test]
fn lines_for_the_journal_have_a_priority_and_no_time() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let error = File::create(&log).unwrap();
    let place = error.metadata().unwrap();
    let mut command = tallyd();
    command.env("JOURNAL_STREAM", format!("{}:{}", place.dev(), place.ino()));
    // A warning, lines of information, and why it ends.
    command
        .env("TALLYD_NO_KEY", "1")
        .env("TALLYD_API_LISTEN", "127.0.0.1:0")
        .env("TALLYD_INGEST_STATSD_LISTEN", "off");
    command
        .env("TALLYD_CLUSTER_ADVERTISE", "no-port")
        .arg("run")
        .arg("--data-dir")
        .arg(directory.path().join("data"));
    let mut process = Process::start_with_error(&mut command, &directory.path().join("out"), error.into());
    assert_eq!(process.wait().code(), Some(1));
    let said = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    let begins = |at: usize, start: &str| assert!(lines[at].starts_with(start), "line {at} of:\n{said}");
    begins(0, "<4>WARN tallyd");
    begins(1, "<6>INFO tallyd");
    begins(lines.len() - 1, "<2>tallyd: cluster.advertise");
}
