//! Boxes come up where names have IPv6 addresses only, under what service managers set, with logs that nobody reads;
//! also a site of an earlier release.

use std::fs::File;
use std::io::PipeReader;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::Trial;
use crate::boxes::{Site, TestBox};
use crate::harness::{Process, free_port, tallyd, until};
use crate::http::Client;
use crate::logs::{full_pipe, until_lines_are_lost};

/// Boxes that have more room on the disk may take so much of it.
const BYTES_MAX: &str = "8MiB";

/// A box under variables as Kubernetes makes them for a service of that name, and empty ones.
pub(super) fn command(one: &TestBox, log_level: &str) -> Command {
    let mut command = one.command();
    set_by_a_service_manager(&mut command);
    command.envs([("TALLYD_LOG", log_level), ("TALLYD_NODE_NAME", &one.name)]);
    if one.name != "box1" {
        command.env("TALLYD_STORAGE_BYTES_MAX", BYTES_MAX);
    }
    command
}

fn set_by_a_service_manager(command: &mut Command) {
    command.envs([
        ("TALLYD_API_SERVICE_HOST", "10.0.0.1"),
        ("TALLYD_API_PORT", "tcp://10.0.0.1:7480"),
        ("TALLYD_UPSTREAM_URL", ""),
        ("TALLYD_API_CONNECTIONS_MAX", ""),
    ]);
}

/// Three boxes whose logs block, cannot be written or have lost their reader, the last of which listens on IPv4 alone, as
/// earlier releases provisioned it; what blocks does so as long as this is kept.
pub(super) fn start(site: &mut Site) -> PipeReader {
    let (reader, blocks) = full_pipe(true);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let logs = [Stdio::from(blocks), Stdio::from(full), Stdio::from(std::io::pipe().unwrap().1)];
    for (one, log) in site.boxes.iter_mut().zip(logs) {
        // Each packet between the boxes is a line.
        let mut command = command(one, "trace");
        if one.name == "box3" {
            command.env("TALLYD_CLUSTER_LISTEN", "0.0.0.0:7400");
        }
        one.start_by(command, Some(log));
    }
    site.boxes[0].until_ready();
    site.boxes[1].until_ready();
    reader
}

/// The box that listens on IPv4 alone says whom it does not reach, keeps what it counts, and comes in when that is put
/// right.
pub(super) fn a_box_without_ipv6(trial: &mut Trial<'_>) {
    until("it says why it reaches nobody", || {
        let status = trial.site.boxes[2].try_status()?;
        let others = status["members"].as_array()?.iter().filter(|member| member["name"] != "box3");
        let named = |member: &Value| {
            let why = member["refused_because"].as_str().unwrap_or_default();
            member["refused"] == "peer-ipv6-only" && why.contains("this box listens on IPv4 only")
        };
        (others.filter(|member| named(member)).count() == 2).then_some(())
    });
    trial.goes_on("a box that no other box reaches");
    let one = &mut trial.site.boxes[2];
    one.terminate();
    let log = std::io::pipe().unwrap().1;
    one.start_by(command(one, "trace"), Some(log.into()));
    one.until_ready();
    trial.goes_on("that box listens on both families");
}

pub(super) fn the_site_is_raised(trial: &mut Trial<'_>) {
    for at in 0..3 {
        until("the site is raised", || {
            (trial.site.boxes[at].try_status()?["level"]["site"].as_u64()? == 3).then_some(())
        });
    }
    trial.goes_on("it was raised to a level");
}

/// Lines are lost, and nothing else.
pub(super) fn logs_that_nobody_reads(trial: &mut Trial<'_>) {
    trial.site.boxes.iter().for_each(until_lines_are_lost);
    trial.goes_on("logs that block or cannot be written");
}

/// A box of its own comes up in an empty directory, under the name that it is given.
pub(super) fn a_box_alone(scratch: &Path) {
    let http = free_port();
    let mut command = tallyd();
    set_by_a_service_manager(&mut command);
    command.args(["run", "--data-dir"]).arg(scratch.join("alone"));
    command.env("TALLYD_API_LISTEN", format!("127.0.0.1:{http}")).env("TALLYD_INGEST_STATSD_LISTEN", "off");
    command.env("TALLYD_NODE_NAME", "given");
    let mut client = Client::new(http);
    for total in 1..=2 {
        let mut process = Process::start(&mut command, &scratch.join("alone.log"));
        until("it counts", || {
            assert!(process.ended().is_none(), "{}", process.output());
            let answer = client.post("/v1/counters/a", r#"{"add":1}"#).ok()?;
            (answer.status == 200).then(|| assert_eq!(answer.json()["total"], total))
        });
        let status = client.get("/v1/status").unwrap().ok();
        assert_eq!((&status["node"], &status["site"]), (&"given".into(), &"given".into()));
        process.kill();
    }
}

/// What the boxes say since they can: warnings, among them of the variables that are none of theirs.
pub(super) fn the_logs_have_warnings_only(trial: &Trial<'_>) {
    for one in &trial.site.boxes {
        one.until_log("override no key");
        let log = one.log();
        assert!(log.contains("TALLYD_API_SERVICE_HOST"), "{log}");
        for level in [" INFO ", " DEBUG ", " TRACE "] {
            assert!(!log.contains(level), "{log}");
        }
        assert!(!log.contains("return code"), "in the words of the library: {log}");
    }
}
