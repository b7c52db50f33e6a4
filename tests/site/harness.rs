//! What the tests stand on: free ports, waiting for conditions, and processes that never outlive a test.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long a test waits for what must come, on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(15);

/// Below the range from which the system takes ports for outgoing connections: a port from there
/// could be taken while the box that listens on it is down.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// Waits until something is there.
///
/// # Panics
/// After [`PATIENCE`], with `what` was waited for.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A port of this machine's loopback that is free for TCP and UDP, and not handed out before.
pub(crate) fn free_port() -> u16 {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let mut taken = TAKEN.lock().unwrap();
    let slot = std::env::var("NEXTEST_TEST_GLOBAL_SLOT").ok().and_then(|slot| slot.parse().ok());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let ports = own_ports(slot, cores.min(64) as u16);
    let width = ports.end - ports.start;
    // Tests run in processes of their own: each begins somewhere else.
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
    let begin = (u64::from(std::process::id()) * 7919 + u64::from(nanos)) % u64::from(width);
    if taken.is_empty() {
        NEXT.store(begin as u16, Ordering::Relaxed);
    }
    for _ in 0..width {
        let port = ports.start + NEXT.fetch_add(1, Ordering::Relaxed) % width;
        let free =
            TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if free && taken.insert(port) {
            return port;
        }
    }
    panic!("no free port in {ports:?}");
}

/// Where this test takes its ports: nextest runs so many tests at the same time and gives each of them another number,
/// from 0 on. A port that is free for a moment, because its box is down, is then not taken by another test.
fn own_ports(slot: Option<u16>, tests: u16) -> std::ops::Range<u16> {
    let Some(slot) = slot else { return PORTS };
    let width = (PORTS.end - PORTS.start) / tests;
    let start = PORTS.start + slot % tests * width;
    start..start + width
}

#[test]
fn tests_that_run_at_the_same_time_have_ports_of_their_own() {
    for tests in [1, 2, 3, 64] {
        let all: Vec<_> = (0..tests).map(|slot| own_ports(Some(slot), tests)).collect();
        assert!(all.windows(2).all(|pair| pair[0].end <= pair[1].start), "{all:?}");
        let enough = |ports: &std::ops::Range<u16>| PORTS.contains(&ports.start) && ports.len() > 300;
        assert!(all.iter().all(enough) && all.iter().all(|ports| ports.end <= PORTS.end), "{all:?}");
        assert_eq!(own_ports(Some(tests), tests), all[0], "a test too many shares with another");
    }
    assert_eq!(own_ports(None, 2), PORTS);
}

/// Does something in a network namespace that this file names, or else here. Sockets and processes that it
/// makes stay there.
pub(crate) fn within<T: Send>(namespace: Option<&Path>, work: impl FnOnce() -> T + Send) -> T {
    let Some(namespace) = namespace else { return work() };
    let file = File::open(namespace).unwrap_or_else(|error| panic!("{}: {error}", namespace.display()));
    // A thread of its own: it changes over for good.
    let moved = || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(moved).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The program under test, with an environment in which nothing configures it.
pub(crate) fn tallyd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallyd"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TALLYD_") {
            command.env_remove(name);
        }
    }
    for name in
        ["STATE_DIRECTORY", "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET"]
    {
        command.env_remove(name);
    }
    command
}

/// A process with its output in a file; killed at the latest when dropped, also by a panic.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; both outputs are appended to the file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Process {
        let file = File::options().create(true).append(true).open(log).unwrap();
        Process::start_with_error(command, log, file.into())
    }

    /// Starts it with this for its standard error; what else it says is appended to the file.
    pub(crate) fn start_with_error(command: &mut Command, log: &Path, error: Stdio) -> Process {
        let file = File::options().create(true).append(true).open(log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(error)
            .spawn()
            .unwrap_or_else(|error| panic!("{:?} cannot be started: {error}", command.get_program()));
        Process { child, log: log.to_owned() }
    }

    /// As `kill -9` does; returns when it is gone.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        until("the process ends by itself", || self.ended())
    }

    /// What it and its predecessors wrote.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    fn end(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Shows the end of a log when the test fails.
pub(crate) fn show_log(name: &str, log: &Path) {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(60)..];
    eprintln!("--- the last {} lines of {name} ---\n{}\n", shown.len(), shown.join("\n"));
}
