//! Logs that nobody reads, that cannot be written or that block: lines are lost and counted, counts never are.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::boxes::{Site, TestBox};
use crate::harness::{Process, free_port, tallyd, until};
use crate::http::Client;
use crate::stops::STOP_MAX;
use crate::witness::until_tolerates;

/// A pipe that is full, which writers wait for or not.
pub(crate) fn full_pipe(waits: bool) -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    // A byte at a time at the end, so that not even one finds room.
    for size in [4096, 1] {
        while writer.write(&vec![b'\n'; size]).is_ok() {}
    }
    rustix::io::ioctl_fionbio(&writer, !waits).unwrap();
    (reader, writer)
}

/// A pipe whose reader is gone.
fn closed_pipe() -> PipeWriter {
    std::io::pipe().unwrap().1
}

fn start(one: &mut TestBox, log: &Path, level: &str, error: impl Into<Stdio>) {
    let mut command = one.command();
    command.env("TALLYD_LOG", level);
    one.process = Some(Process::start_with_error(&mut command, log, error.into()));
}

fn lines_lost(client: &mut Client) -> Option<u64> {
    let text = client.get("/metrics").ok()?.body;
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().find(|line| line.starts_with("tallyd_log_lines_lost_total "))?;
    line.rsplit(' ').next()?.parse().ok()
}

pub(crate) fn until_lines_are_lost(one: &TestBox) {
    let mut client = one.client();
    until(&format!("{} counts lines that were lost", one.name), || {
        lines_lost(&mut client).filter(|lost| *lost > 0)
    });
}

/// Its end by SIGTERM, and how long that took.
fn stop(process: &mut Process) -> (ExitStatus, Duration) {
    let begun = Instant::now();
    process.signal(Signal::TERM);
    (process.wait(), begun.elapsed())
}

fn stop_in_time(one: &mut TestBox) {
    let (status, took) = stop(one.process.as_mut().expect("it runs"));
    one.process = None;
    assert_eq!(status.code(), Some(0), "{}", one.name);
    assert!(took < STOP_MAX, "{} took {took:?}", one.name);
}

/// Reads a pipe until a line has this in it.
fn until_line(reader: PipeReader, text: &str) {
    let found = BufReader::new(reader).lines().map_while(Result::ok).any(|line| line.contains(text));
    assert!(found, "the log ended without {text:?}");
}

#[test]
fn boxes_whose_logs_block_or_are_gone_count_and_stop_and_tell_what_was_lost() {
    let mut site = Site::provision(3, "1s", "");
    let scratch = tempfile::tempdir().unwrap();
    let log = scratch.path().join("log");
    let (reader_1, waits) = full_pipe(true);
    let (reader_2, waits_not) = full_pipe(false);
    // So much that the queue fills: each packet between the boxes is a line.
    start(&mut site.boxes[0], &log, "trace", waits);
    start(&mut site.boxes[1], &log, "trace", waits_not);
    start(&mut site.boxes[2], &log, "trace", closed_pipe());
    site.until_ready();
    let count = |site: &Site| {
        for one in &site.boxes {
            one.add("by-http", 1);
            one.statsd("by-statsd:1|c");
        }
    };
    count(&site);
    site.boxes.iter().for_each(until_lines_are_lost);
    count(&site);
    site.boxes[0].until_total("by-http", 6);
    site.boxes[1].until_total("by-statsd", 6);

    // Somebody reads again: what was lost is told.
    let told = std::thread::spawn(move || until_line(reader_2, "log lines were lost"));
    until("the log flows again", || told.is_finished().then_some(()));
    told.join().unwrap();
    for at in [1, 2, 0] {
        stop_in_time(&mut site.boxes[at]);
    }
    drop(reader_1);
    site.start_all();
    for one in &site.boxes {
        one.until_total("by-http", 6);
        one.until_total("by-statsd", 6);
    }
}

#[test]
fn a_log_disk_that_is_full_and_a_reader_that_goes_away_stop_nothing() {
    let mut site = Site::provision(1, "1s", "");
    let scratch = tempfile::tempdir().unwrap();
    let log = scratch.path().join("log");
    let (reader, writer) = std::io::pipe().unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut expected = 0;
    for (name, error, reader) in
        [("a full disk", Stdio::from(full), None), ("a reader", Stdio::from(writer), Some(reader))]
    {
        start(&mut site.boxes[0], &log, "debug", error);
        site.until_ready();
        let one = &mut site.boxes[0];
        if let Some(reader) = reader {
            assert_eq!(lines_lost(&mut one.client()), Some(0));
            drop(reader);
        }
        // Lines are lost from now on: the one that tells of the stop is the last.
        one.add("by-http", 1);
        one.statsd("by-statsd:1|c");
        expected += 1;
        one.until_total("by-statsd", expected);
        if name == "a full disk" {
            until_lines_are_lost(one);
        }
        stop_in_time(one);
    }
    site.start_all();
    site.boxes[0].until_total("by-http", expected);
    site.boxes[0].until_total("by-statsd", expected);
    let last = site.boxes[0].log();
    assert!(!last.contains("log lines were lost"), "{last}");
}

#[test]
fn a_witness_whose_log_blocks_votes_and_stops() {
    let (mut site, mut witness) = Site::provision_with_witness();
    let scratch = tempfile::tempdir().unwrap();
    let (reader, writer) = full_pipe(true);
    start(&mut witness, &scratch.path().join("log"), "trace", writer);
    site.start_all();
    let junk = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut client = witness.client();
    until("the witness counts lines that were lost", || {
        // Each is told in a line.
        (0..100).for_each(|_| drop(junk.send_to(&[0; 40], ("127.0.0.1", witness.quic))));
        lines_lost(&mut client).filter(|lost| *lost > 0)
    });
    until_tolerates(&site.boxes[0], 1);
    site.boxes[1].kill();
    // One box of two: only with the witness is it a majority.
    site.boxes[0].until_ready();
    assert_eq!(site.boxes[0].add("a", 1), 1);
    stop_in_time(&mut witness);
    drop(reader);
}

#[test]
fn a_daemon_that_cannot_start_ends_with_its_status_whoever_reads_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let file = directory.path().join("not-a-directory");
    std::fs::write(&file, "").unwrap();
    let (_reader, blocked) = full_pipe(true);
    let full = File::options().write(true).open("/dev/full").unwrap();
    for error in [Stdio::from(closed_pipe()), Stdio::from(blocked), Stdio::from(full)] {
        let begun = Instant::now();
        let mut command = tallyd();
        command.args(["run", "--data-dir"]).arg(file.join("data"));
        let mut process = Process::start_with_error(&mut command, &log, error);
        assert_eq!(process.wait().code(), Some(1));
        assert!(begun.elapsed() < STOP_MAX);
    }
    let mut command = tallyd();
    let output = command.args(["run", "--data-dir"]).arg(file.join("data")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.lines().last().unwrap_or_default().starts_with("tallyd: "), "{said}");
}

/// A site of one box in an empty directory.
fn alone(data: &Path) -> (Command, Client) {
    let http = free_port();
    let mut command = tallyd();
    command.args(["run", "--data-dir"]).arg(data);
    command.env("TALLYD_API_LISTEN", format!("127.0.0.1:{http}")).env("TALLYD_INGEST_STATSD_LISTEN", "off");
    (command, Client::new(http))
}

fn until_it_counts(process: &mut Process, client: &mut Client) {
    until("it counts", || {
        assert!(process.ended().is_none(), "{}", process.output());
        let answer = client.post("/v1/counters/a", "{\"add\":1}").ok()?;
        (answer.status == 200).then_some(())
    });
}

#[test]
fn words_for_levels_are_understood_and_others_are_told() {
    let directory = tempfile::tempdir().unwrap();
    for (said, shown, hidden) in [
        ("warning", "override no key", " INFO "),
        ("NONE", "", "tallyd"),
        ("loud", "TALLYD_LOG is \"loud\"", " DEBUG "),
        ("", " INFO ", "TALLYD_LOG is"),
    ] {
        let log: PathBuf = directory.path().join(format!("log-{said}"));
        let (mut command, mut client) = alone(&directory.path().join(format!("data-{said}")));
        command.env("TALLYD_LOG", said).env("TALLYD_NO_KEY", "1");
        let mut process = Process::start(&mut command, &log);
        until_it_counts(&mut process, &mut client);
        assert_eq!(stop(&mut process).0.code(), Some(0));
        let text = process.output();
        assert!(text.contains(shown) && !text.contains(hidden), "{said:?}: {text}");
        assert_eq!(text.contains("stopping"), said == "loud" || said.is_empty(), "{said:?}: {text}");
    }
}

#[test]
fn a_service_manager_that_does_not_read_holds_nothing_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let _unread = UnixDatagram::bind(&path).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(&path).unwrap();
    sender.set_nonblocking(true).unwrap();
    while sender.send(b"STATUS=full").is_ok() {}
    let (mut command, mut client) = alone(&directory.path().join("data"));
    command.env("NOTIFY_SOCKET", &path);
    let mut process = Process::start(&mut command, &directory.path().join("log"));
    until_it_counts(&mut process, &mut client);
    let (status, took) = stop(&mut process);
    assert_eq!(status.code(), Some(0));
    assert!(took < STOP_MAX, "{took:?}");
}
