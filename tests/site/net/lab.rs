//! The room that these tests run in: network, mount and process namespaces of their own. The kernel takes
//! them apart when the test ends, however it ends: no link, mount, loop device or process can be left over.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

/// Set inside: the file by which the test leaves word that it passed.
const INSIDE: &str = "TALLYD_TEST_LAB";

/// What to do when a program is missing.
const NEEDED: &str = "these tests need util-linux (setpriv, unshare, mount), iproute2 (ip) and e2fsprogs \
                      (mkfs.ext4): `cargo xtask verify` installs them";

/// What to do when the kernel or a container forbids namespaces.
const FORBIDDEN: &str = "these tests make namespaces: run them as root (in a container with the capabilities \
                         SYS_ADMIN and NET_ADMIN, and a seccomp profile that allows unshare), or allow users \
                         to make them (sysctl user.max_user_namespaces above 0; where they exist, \
                         kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0)";

/// Runs the body of a test, named as the test runner names it, in a room of its own: the test binary runs
/// once more for it in there, as the first process of its process namespace.
pub(crate) fn in_lab(test: &str, body: impl FnOnce()) {
    let Some(passed) = std::env::var_os(INSIDE).map(PathBuf::from) else { return enter(test) };
    // Names of network namespaces live in /run.
    run("mount", ["-t", "tmpfs", "tmpfs", "/run"]);
    run("ip", ["link", "set", "lo", "up"]);
    body();
    // `cargo xtask verify` adds these up.
    eprintln!("proof: real processes in namespaces: 1 tests");
    File::create(passed).unwrap();
}

fn enter(test: &str) {
    // The boxes' directories go here, so that they are removed even if the test is killed in there.
    let directory = tempfile::tempdir().unwrap();
    let passed = directory.path().join("passed");
    let mut command = room();
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads", "1"]);
    command.env(INSIDE, &passed).env("TMPDIR", directory.path()).stdin(Stdio::null());
    let status = follow(&mut command);
    // A name that no test has would pass without a word.
    let passed = passed.exists() && status.success();
    assert!(passed, "{test} failed in its namespaces ({status}); its words stand above");
}

/// A command that makes the namespaces and runs in them what is appended: as the machine's root where that may
/// do so, else as the root of a user namespace.
fn room() -> Command {
    let mut refused = String::new();
    for user in [false, true] {
        let mut probe = unshare(user);
        probe.arg("true");
        let output = probe.output().unwrap_or_else(|error| panic!("{error}: {NEEDED}"));
        if output.status.success() {
            return unshare(user);
        }
        refused.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    panic!("{FORBIDDEN}\n{refused}");
}

/// `setpriv` has the kernel kill what it starts when this test ends, and `unshare` likewise.
fn unshare(user: bool) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare"]);
    if user {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    // Where the tools are, also for those who are not root.
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    command.env("PATH", path);
    command
}

/// Runs it and shows what it says as this test's words.
fn follow(command: &mut Command) -> ExitStatus {
    let (reader, writer) = std::io::pipe().unwrap();
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{error}: {NEEDED}"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    for line in BufReader::new(reader).lines().map_while(Result::ok) {
        eprintln!("{line}");
    }
    child.wait().unwrap()
}

/// Runs a tool, which must succeed.
pub(crate) fn run(program: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    let arguments: Vec<OsString> = arguments.into_iter().map(|each| each.as_ref().to_owned()).collect();
    try_run(program, &arguments, "").unwrap_or_else(|why| panic!("{program} {arguments:?}: {why}"))
}

/// Runs a tool with something to read.
pub(crate) fn run_with(program: &str, arguments: &[&str], input: &str) -> String {
    let given: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    try_run(program, &given, input).unwrap_or_else(|why| panic!("{program} {arguments:?}: {why}\n{input}"))
}

/// Runs a tool; what it wrote, or why it failed.
pub(crate) fn try_run(program: &str, arguments: &[OsString], input: &str) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}: {NEEDED}"));
    let written = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    match written {
        Ok(()) if output.status.success() => Ok(text(&output.stdout)),
        _ => Err(format!("{}: {}", output.status, text(&output.stderr))),
    }
}
